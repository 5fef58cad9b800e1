"""Sampling and generation from a model."""
