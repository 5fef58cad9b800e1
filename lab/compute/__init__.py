"""Device, precision, optimizer, learning rate and the parts of one training step. Knows no run."""
