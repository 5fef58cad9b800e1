"""What one does with a model: data, tokenizers, training, runs, sampling, evaluation, plots, widgets.

This file imports nothing, so that the torch-free parts (data, tokenizers, tables of runs) start at once.
"""
