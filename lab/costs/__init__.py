"""Parameters, FLOPs and memory of a model, measured on the model itself without its numbers."""
