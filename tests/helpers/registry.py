"""A registry that a test may fill: afterwards it is as it was before."""

from contextlib import contextmanager
from dataclasses import replace

import modules.ideas
import modules.transformer  # noqa: F401  # both attach their classes before the registry is copied
from settings.registry import REGISTRY


@contextmanager
def registry_restored():
    """Inside the `with`, kinds may be registered; afterwards the registry has those of before."""
    kinds = {
        family: {name: replace(kind, sources=dict(kind.sources)) for name, kind in known.items()}
        for family, known in REGISTRY.kinds.items()
    }
    load = REGISTRY.load_ideas
    try:
        yield
    finally:
        REGISTRY.load_ideas = load
        for family, known in kinds.items():
            REGISTRY.kinds[family].clear()
            REGISTRY.kinds[family].update(known)
