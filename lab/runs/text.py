"""The text that a run learns from (data.json): where it was when the run was made, and its fingerprint."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from config import DataConfig, TrainConfig
from lab.data.memory import PREFIX, is_in_memory
from lab.data.packing import TokenData, prepare
from lab.data.paths import absolute, relative
from lab.data.sources import absolute_source
from lab.data.tokenizers import Tokenizer, load_tokenizer
from settings.errors import ConfigError, DataError, RunError
from settings.json_text import parse_json


@dataclass(frozen=True, kw_only=True)
class RunText:
    """source: as it was typed. path: the same as an absolute path; relative: as seen from the run's folder. Both are
    None for built-in sets, texts in memory and imported runs.

    train, validation: fingerprints of the documents on each side, equal for equal texts whatever the settings and the
    tokenizer are. tokenizer: the fingerprint of the tokenizer.
    """

    source: str
    path: str | None
    train: str
    validation: str
    tokenizer: str
    relative: str | None = None  # runs of earlier versions have none

    @classmethod
    def of(cls, data: TokenData, source: str, folder: Path) -> "RunText":
        """The record of this data, for the run in that folder."""
        path = absolute_source(data.config)
        return cls(
            source=source, path=path, train=data.train.fingerprint, validation=data.validation.fingerprint,
            tokenizer=data.tokenizer.fingerprint, relative=path and relative(path, folder),
        )

    @classmethod
    def from_json(cls, text: str) -> "RunText":
        """The inverse of `to_json`. Raises RunError for anything that `to_json` would not write."""
        try:
            record = cls(**parse_json(text))
        except (ConfigError, TypeError) as error:
            raise RunError(f"data.json is no record of a run's text: {error}") from error
        texts = (record.source, record.train, record.validation, record.tokenizer)
        texts += (record.path or "", record.relative or "")
        if not all(isinstance(value, str) for value in texts):
            raise RunError("data.json is no record of a run's text: all that it holds must be text")
        return record

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def needs(self) -> str:
        """What must be there before a training can go on, in a sentence; "" if all is."""
        if not is_in_memory(self.source):
            return ""
        again = f"register_texts(texts, name={self.source.removeprefix(PREFIX)!r})"
        return f"it learns texts in memory ({self.source}); another process goes on with it after {again}"

    def is_gone(self) -> bool:
        """Whether the user's own files are no longer there. Then the settings may name another place."""
        return self.path is not None and not is_there(self.path)

    def without_path(self) -> "RunText":
        """The record for sharing, without a path of this machine."""
        return replace(self, path=None, relative=None)


class MadeWithTokenizer(Protocol):
    """What is read of a run to find the tokenizer that it was made with."""

    train_config: TrainConfig
    tokenizer: Tokenizer


def find_tokenizer(name: str, *runs: MadeWithTokenizer | None) -> Tokenizer:
    """The tokenizer that a run which was made with this name has stored, whatever the name means here; where none of
    `runs` was, the one known here. Raises TokenizerError for an unknown name."""
    stored = (run.tokenizer for run in runs if run is not None and run.train_config.data.tokenizer == name)
    return next(stored, None) or load_tokenizer(name)


def places(config: DataConfig, text: RunText | None, folder: Path) -> list[DataConfig]:
    """The settings of a run's data with each source under which its text may be found, the likeliest first.

    A user's own files are looked for where they were when the run was made; where they are seen from the run's folder,
    for a project that was moved as a whole; and where the settings say, seen from the working folder.
    """
    found = {os.path.realpath(absolute(config.source)): config.source}
    if text and text.path:
        typed, found = found, {}
        for path in filter(None, (text.path, text.relative and absolute(text.relative, folder))):
            if is_there(path):
                found.setdefault(os.path.realpath(path), path)
        found |= typed  # the last, and as it was typed where it is one of the others
    return [config.replace(source=source) for source in found.values()]


def is_there(source: str) -> bool:
    """Whether a path, a folder or a pattern names files that can be read."""
    try:
        return absolute_source(DataConfig(source=source)) is not None
    except DataError:  # a folder or a pattern without files now, or unreadable ones
        return False


def load_text(config: DataConfig, tokenizer: Tokenizer, text: RunText | None, folder: Path) -> TokenData:
    """The data of the run in `folder`, in the tokens of its own tokenizer.

    text: the run's record. Runs of earlier versions have none, and their settings are trusted. Of the `places` the
    first counts that holds the run's text. Raises DataError if none does.
    """
    problems = []
    for here in places(config, text, folder):
        try:
            data = prepare(here, tokenizer)
            check_text(data, text, folder.name)
            return data
        except DataError as problem:
            problems.append(problem)
    raise problems[0]


def check_text(data: TokenData, text: RunText | None, run: str) -> None:
    """Raises DataError if `data` holds another text than the run's record."""
    if text is None:
        return
    for side in ("train", "validation"):
        now, then = getattr(data, side).fingerprint, getattr(text, side)
        if now != then:
            raise DataError(
                f"the text of {run!r} is another than it was: the {side} documents of {data.config.label} have the "
                f"fingerprint {now or 'unknown'}, the run was made with {then}. Restore the text that it was made "
                "with, or train a new run on this one"
            )
