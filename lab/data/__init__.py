"""From documents to batches: sources, tokenising, the train/validation split, packed token files and their cache.

`prepare(config)` does it all; `load_documents(config)` shows the texts alone. Nothing here imports torch.
"""
