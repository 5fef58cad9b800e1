"""Settings of sets on the Hugging Face hub."""

from settings import combinations
from settings.checked import Config, settings
from settings.types import Text


@settings
class HubConfig(Config):
    """Which part of a set on the Hugging Face hub is read, and how."""

    subset: Text | None = None  # The hub calls it config. None: the named set's own, or the only one.
    split: Text = "train"
    revision: Text | None = None  # A branch, a tag or a commit. None: the newest; a run keeps the commit it began with.
    streamed: bool = True  # An epoch at a time is read and kept. False: all of it is downloaded and tokenised first.

    problems = combinations.hub
