"""The command `data`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tyro

from config import DataConfig, preset
from lab.terminal_flags import FLAGS, option
from settings.types import Text


@dataclass(frozen=True, kw_only=True)
class Previewing:
    """Show what a text holds, before a training: documents, sizes, encodings, copies, tokens, oddities. No run is made.

    All other defaults follow --preset.
    """

    preset: str = "llama-tiny"  # Whose tokenizer it is, and whose training the epochs are of.
    data: tyro.conf.OmitArgPrefixes[DataConfig]


def parse_previewing(arguments: list[str]) -> Previewing:
    """The arguments of `data` as settings."""
    name = option(arguments, "--preset") or Previewing.preset
    start = Previewing(preset=name, data=preset(name).train.data)
    with source_as_argument():
        return tyro.cli(Previewing, args=arguments, default=start, config=FLAGS, prog="python tools.py data")


@contextmanager
def source_as_argument() -> Iterator[None]:
    """Inside the `with`, tyro takes the source without its flag: it reads that off the annotation."""
    before = DataConfig.__annotations__["source"]
    DataConfig.__annotations__["source"] = tyro.conf.Positional[Text]
    try:
        yield
    finally:
        DataConfig.__annotations__["source"] = before


def data(settings: Previewing) -> None:
    from lab.data.preview import preview_data

    print(preview_data(settings.data, settings.preset))
