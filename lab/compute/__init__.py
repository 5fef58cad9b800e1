"""Device, precision, optimizer, learning rate: what one training step needs. Knows no run."""
