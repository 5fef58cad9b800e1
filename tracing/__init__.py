"""What happens to the tensors, statement by statement; costs nothing where it is not asked for."""
