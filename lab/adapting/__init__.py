"""Using a trained run for something else: classification."""
