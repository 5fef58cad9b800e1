"""What one does with a model: data, tokenizers, training, runs, sampling, evaluation, plots, widgets.

This file imports nothing, so that the torch-free parts (data, tokenizers, estimates) start at once.
"""
