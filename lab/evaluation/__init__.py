"""Losses and scores on held-out tokens, with intervals."""
