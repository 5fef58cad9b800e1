"""The text that a run learns from (data.json): where it was when the run was made, and its fingerprint."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from config import DataConfig, TrainConfig
from lab.data.packing import TokenData, prepare
from lab.data.sources import absolute_source
from lab.data.tokenizers import Tokenizer, load_tokenizer
from settings.errors import ConfigError, DataError, RunError
from settings.json_text import parse_json


@dataclass(frozen=True, kw_only=True)
class RunText:
    """source: as it was typed. path: the same as an absolute path; None for built-in sets and for imported runs.

    train, validation: fingerprints of the documents on each side, equal for equal texts whatever the settings and the
    tokenizer are. tokenizer: the fingerprint of the tokenizer.
    """

    source: str
    path: str | None
    train: str
    validation: str
    tokenizer: str

    @classmethod
    def of(cls, data: TokenData) -> "RunText":
        """The record of this data."""
        return cls(
            source=data.config.source, path=absolute_source(data.config), train=data.train.fingerprint,
            validation=data.validation.fingerprint, tokenizer=data.tokenizer.fingerprint,
        )

    @classmethod
    def from_json(cls, text: str) -> "RunText":
        """The inverse of `to_json`. Raises RunError for anything that `to_json` would not write."""
        try:
            record = cls(**parse_json(text))
        except (ConfigError, TypeError) as error:
            raise RunError(f"data.json is no record of a run's text: {error}") from error
        texts = (record.source, record.path or "", record.train, record.validation, record.tokenizer)
        if not all(isinstance(value, str) for value in texts):
            raise RunError("data.json is no record of a run's text: all that it holds must be text")
        return record

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def is_gone(self) -> bool:
        """Whether the user's own files are no longer there. Then the settings may name another place."""
        try:
            return self.path is not None and absolute_source(DataConfig(source=self.path)) is None
        except DataError:  # a folder or a pattern without files now, or unreadable ones
            return True

    def without_path(self) -> "RunText":
        """The record for sharing, without a path of this machine."""
        return replace(self, path=None)


class MadeWithTokenizer(Protocol):
    """What is read of a run to find the tokenizer that it was made with."""

    train_config: TrainConfig
    tokenizer: Tokenizer


def find_tokenizer(name: str, *runs: MadeWithTokenizer | None) -> Tokenizer:
    """The tokenizer that a run which was made with this name has stored, whatever the name means here; where none of
    `runs` was, the one known here. Raises TokenizerError for an unknown name."""
    stored = (run.tokenizer for run in runs if run is not None and run.train_config.data.tokenizer == name)
    return next(stored, None) or load_tokenizer(name)


def load_text(config: DataConfig, tokenizer: Tokenizer, text: RunText | None, run: str) -> TokenData:
    """The data of the run named `run`, in the tokens of its own tokenizer.

    text: the run's record. Runs of earlier versions have none, and their settings are trusted. The user's own files are
    looked for where they were when the run was made, then where the settings say. Raises DataError if the text is
    another than the run's.
    """
    here = config
    if text and text.path and not text.is_gone():
        here = config.replace(source=text.path)
    data = prepare(here, tokenizer)
    check_text(data, text, run)
    return data


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
