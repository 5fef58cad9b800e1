"""The settings of the text that a training reads. config.py takes them into the settings of a training."""

from typing import Literal

from settings import combinations
from settings.checked import Config, settings
from settings.hub import HubConfig
from settings.mixture import MixtureConfig
from settings.types import Positive, Text, Texts, Whole


@settings
class DataConfig(Config):
    """What is read, and how it is cut into tokens."""
    # A built-in set (tales, pydocs, pycode); a file, folder or glob of your own; tinystories, ... or hub:owner/name.
    source: Text = "tales"
    tokenizer: Text = "bpe-2048"  # A name of `python tools.py tokenizer`, or the path of a tokenizer.json.
    max_documents: Whole[1, 10**12] | None = None  # None: 20,000 tales; all there are of anything else.
    text_field: Text | None = None  # The column that holds the text, in tables: jsonl, csv, tsv, parquet, hub sets.
    validation_fraction: Positive = 0.05
    # hash: documents chosen by it are held out, and more documents change no choice. tail: the text's last part is.
    split: Literal["hash", "tail"] = "hash"
    encoding: Text | None = None  # Of text files without a byte order mark, such as cp1252; None: UTF-8.
    include: Texts = ()  # Glob patterns of the files to read below a folder, as in **/*.md; (): all.
    exclude: Texts = ()  # Glob patterns of files to leave out.
    seed: Whole[0, 9 * 10**12] = 0  # Which tales.
    hub: HubConfig = HubConfig()
    tokens_per_epoch: Whole[1, 10**12] | None = None  # Of a streamed set. None: 100 million.
    mixture: MixtureConfig = MixtureConfig()  # Several sources in place of one, by weights that move.

    @property
    def sources(self) -> tuple[str, ...]:
        """All that is read: the mixture's sources, or the one."""
        return self.mixture.sources or (self.source,)

    @property
    def label(self) -> str:
        """The sources in words, as in "pycode + pydocs"."""
        return " + ".join(self.sources)

    problems = combinations.data
