"""Training a run: the loop, its checkpoint, its log, what is watched, the live view, the rate finder."""
