"""The text that a run learns from: where it lay when the run was made, and which text it was (data.json)."""

import json
from dataclasses import asdict, dataclass, replace

from config import DataConfig
from lab.data.packing import TokenData, prepare
from lab.data.sources import absolute_source
from lab.data.tokenizers import Tokenizer
from settings.errors import ConfigError, DataError, RunError
from settings.json_text import parse_json


@dataclass(frozen=True, kw_only=True)
class RunText:
    """source: as it was typed. path: the same as an absolute path, None for built-in sets and for runs from elsewhere.

    train, validation: fingerprints of the documents on each side, equal for equal texts whatever the settings and the
    tokenizer. tokenizer: that of the tokenizer.
    """

    source: str
    path: str | None
    train: str
    validation: str
    tokenizer: str

    @classmethod
    def of(cls, data: TokenData) -> "RunText":
        """The record of data that has been prepared."""
        return cls(
            source=data.config.source, path=absolute_source(data.config), train=data.train.fingerprint,
            validation=data.validation.fingerprint, tokenizer=data.tokenizer.fingerprint,
        )  # fmt: skip

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
        """Whether files of one's own no longer lie where they lay: then the settings may say where they are now."""
        try:
            return self.path is not None and absolute_source(DataConfig(source=self.path)) is None
        except DataError:  # a folder or a glob without files any more, or what can't be read
            return True

    def without_path(self) -> "RunText":
        """The record to share: where the text lies on this machine is nobody's business."""
        return replace(self, path=None)


def load_text(config: DataConfig, tokenizer: Tokenizer, text: RunText | None, run: str) -> TokenData:
    """The data of the run named `run`, in the tokens of its own tokenizer.

    text: the run's record; without one (a run made before there were records) the settings are trusted. Files of one's
    own are looked for where they lay when the run was made, and then where the settings say. Raises DataError where
    the text is another than the run's.
    """
    here = config
    if text and text.path and not text.is_gone():
        here = config.replace(source=text.path)
    data = prepare(here, tokenizer)
    check_text(data, text, run)
    return data


def check_text(data: TokenData, text: RunText | None, run: str) -> None:
    """Raises DataError where `data` holds another text than the run's record says."""
    if text is None:
        return
    for side in ("train", "validation"):
        now, then = getattr(data, side).fingerprint, getattr(text, side)
        if now != then:
            raise DataError(
                f"the text of {run!r} is another than it was: the {side} documents of {data.config.source} have the "
                f"fingerprint {now or 'unknown'}, the run was made with {then}. Restore the text that it was made "
                "with, or train a new run on this one"
            )
