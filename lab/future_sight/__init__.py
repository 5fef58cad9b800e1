"""What the future-sighted network predicts, how well, and the leak of its first version."""
