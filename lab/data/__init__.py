"""From documents to batches: sources, tokenising, the train/validation split, packed token files and their cache.

`prepare(config)` does it all; `load_documents(config)` shows the texts alone. Nothing here imports torch.
"""

from lab.data.cache import CacheEntry, clear_cache, list_cache
from lab.data.packing import TokenData, prepare
from lab.data.sources import Documents, list_sources, load_documents
from lab.data.token_file import TokenFile

__all__ = [
    "CacheEntry", "Documents", "TokenData", "TokenFile", "clear_cache", "list_cache", "list_sources",
    "load_documents", "prepare",
]  # fmt: skip
