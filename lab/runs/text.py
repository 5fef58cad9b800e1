"""The text that a run learns from (data.json): where it was when the run was made, and its fingerprint."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from config import DataConfig, TrainConfig
from lab.data.hub_sets import is_hub_source
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
    None for built-in sets, texts in memory, mixtures and imported runs. parts: path and relative of each source of a
    mixture, in its order; None for one source and for imported runs. revision: of a set of the hub, as it was typed.

    train, validation: fingerprints of the documents on each side, equal for equal texts whatever the settings and the
    tokenizer are. tokenizer: the fingerprint of the tokenizer.
    """

    source: str
    path: str | None
    train: str
    validation: str
    tokenizer: str
    relative: str | None = None  # runs of earlier versions have none
    parts: list[list[str | None]] | None = None
    revision: str | None = None

    @classmethod
    def of(cls, data: TokenData, settings: DataConfig, folder: Path) -> "RunText":
        """The record of this data, for the run in that folder. settings: as they were typed."""
        found = [absolute_source(DataConfig(source=source)) for source in data.config.sources]
        parts = [[path, path and relative(path, folder)] for path in found]
        path, seen = parts[0] if len(parts) == 1 else (None, None)
        return cls(
            source=settings.label, path=path, train=data.train.fingerprint, validation=data.validation.fingerprint,
            tokenizer=data.tokenizer.fingerprint, relative=seen, parts=parts if len(parts) > 1 else None,
            revision=settings.hub.revision,
        )

    @classmethod
    def from_json(cls, text: str) -> "RunText":
        """The inverse of `to_json`. Raises RunError for anything that `to_json` would not write."""
        try:
            record = cls(**parse_json(text))
        except (ConfigError, TypeError) as error:
            raise RunError(f"data.json is no record of a run's text: {error}") from error
        texts = (record.source, record.train, record.validation, record.tokenizer)
        texts += (record.path or "", record.relative or "", record.revision or "")
        whole = isinstance(record.parts, list | None) and all(
            isinstance(part, list) and len(part) == 2 and all(isinstance(path, str | None) for path in part)
            for part in record.parts or ()
        )
        if not whole or not all(isinstance(value, str) for value in texts):
            raise RunError("data.json is no record of a run's text: all that it holds must be text")
        return record

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def needs(self) -> str:
        """What must be there before a training can go on, in a sentence; "" if all is."""
        kept = [source for source in self.source.split(" + ") if is_in_memory(source)]
        again = " and ".join(f"register_texts(texts, name={source.removeprefix(PREFIX)!r})" for source in kept)
        return f"it learns texts in memory ({self.source}); another process goes on with it after {again}" * bool(kept)

    def is_gone(self) -> bool:
        """Whether the user's own files are no longer there. Then the settings may name another place."""
        return self.path is not None and not is_there(self.path)

    def without_path(self) -> "RunText":
        """The record for sharing, without a path of this machine."""
        return replace(self, path=None, relative=None, parts=None)


class MadeWithTokenizer(Protocol):
    """What is read of a run to find the tokenizer that it was made with."""

    train_config: TrainConfig
    tokenizer: Tokenizer


class MadeOfText(Protocol):
    """What is read of a run to find the commits of the hub's sets that it was made with."""

    train_config: TrainConfig
    text: RunText | None


def find_tokenizer(name: str, *runs: MadeWithTokenizer | None) -> Tokenizer:
    """The tokenizer that a run which was made with this name has stored, whatever the name means here; where none of
    `runs` was, the one known here. Raises TokenizerError for an unknown name."""
    stored = (run.tokenizer for run in runs if run is not None and run.train_config.data.tokenizer == name)
    return next(stored, None) or load_tokenizer(name)


def with_commits(config: DataConfig, read: DataConfig) -> DataConfig:
    """The settings with the commits of the hub's sets. read: the settings of the data, which name them."""
    if not config.mixture.sources:
        source = read.source if is_hub_source(config.source) else config.source
        return config.replace(source=source, hub=config.hub.replace(revision=read.hub.revision))
    pairs = zip(config.sources, read.sources)
    sources = tuple(new if is_hub_source(old) else old for old, new in pairs)
    return config.replace(mixture=config.mixture.replace(sources=sources))


def with_commits_of(run: MadeOfText, config: DataConfig) -> DataConfig:
    """The settings with the commits that the run keeps, where they name what it was made with: the run goes on with the
    text that it began with, whatever a branch has come to mean."""
    stored = run.train_config.data
    if run.text is None or run.text.source != config.label or run.text.revision != config.hub.revision:
        return config
    return with_commits(config, stored)


def places(config: DataConfig, text: RunText | None, folder: Path) -> list[DataConfig]:
    """The settings of a run's data with each source under which its text may be found, the likeliest first.

    A user's own files are looked for where they were when the run was made; where they are seen from the run's folder,
    for a project that was moved as a whole; and where the settings say, seen from the working folder.
    """
    if not config.mixture.sources:
        path, seen = (text.path, text.relative) if text else (None, None)
        return [config.replace(source=source) for source in places_of(config.source, path, seen, folder)]
    recorded = text.parts if text and text.parts else [[None, None]] * len(config.sources)
    found = [places_of(source, *part, folder) for source, part in zip(config.sources, recorded)]
    tries = [tuple(one[min(number, len(one) - 1)] for one in found) for number in range(max(map(len, found)))]
    return [config.replace(mixture=config.mixture.replace(sources=sources)) for sources in tries]


def places_of(source: str, path: str | None, seen: str | None, folder: Path) -> list[str]:
    """The sources under which one source may be found. path, seen: where it was, absolute and from the folder."""
    found = {os.path.realpath(absolute(source)): source}
    if path:
        typed, found = found, {}
        for place in filter(None, (path, seen and absolute(seen, folder))):
            if is_there(place):
                found.setdefault(os.path.realpath(place), place)
        found |= typed  # the last, and as it was typed where it is one of the others
    return list(found.values())


def is_there(source: str) -> bool:
    """Whether a path, a folder or a pattern names files that can be read."""
    try:
        return absolute_source(DataConfig(source=source)) is not None
    except DataError:  # a folder or a pattern without files now, or unreadable ones
        return False


def load_text(
    config: DataConfig, tokenizer: Tokenizer, text: RunText | None, folder: Path,
    tell: Callable[[str], None] | None = None,
) -> TokenData:
    """The data of the run in `folder`, in the tokens of its own tokenizer.

    text: the run's record. Runs of earlier versions have none, and their settings are trusted. Of the `places` the
    first counts that holds the run's text. tell: hears how far the data is, while a set of the hub is read. Raises
    DataError if none does.
    """
    problems = []
    for here in places(config, text, folder):
        try:
            data = prepare(here, tokenizer, tell=tell)
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
