"""Sources of documents: built-in sets, sets of the hub, the user's own files, and texts in memory."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import NamedTuple

from config import DataConfig
from lab.data import tales
from lab.data.hub_sets import HUB_SETS, HubSet, is_hub_source
from lab.data.memory import is_in_memory, list_registered, registered_texts
from lab.data.own_files import CheckedFiles, check_files, joined, read_files, read_pieces
from lab.data.paths import KINDS, TABLES, absolute, find_files, nearest, printable
from lab.data.python_corpora import pycode, pydocs, python_fingerprint
from lab.data.stored_files import is_zip, stored_files
from settings.errors import DataError
from settings.hub import HubConfig
from settings.messages import suggest
from settings.mixture import MixtureConfig

DEFAULT_TALES = 20_000


@dataclass(frozen=True, repr=False)
class Documents:
    """Texts in a fixed order. Each iteration reads them again, so they need not fit into memory.

    name: the source. about: a short description. fingerprint: equal for equal texts in equal order. scored: gives an
    iterator of (text, log-probability in nats); the latter is None if it is not known. length: the number of texts, if
    known without reading them. in_pieces: gives an iterator of (piece, whether it ends a document), for documents that
    may be long; None: each is one piece.
    """

    name: str
    about: str
    fingerprint: str
    scored: Callable[[], Iterator[tuple[str, float | None]]]
    length: int | None = None
    in_pieces: Callable[[], Iterator[tuple[str, bool]]] | None = None

    def __iter__(self) -> Iterator[str]:
        return (text for text, _ in self.scored())

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _count(self) -> int:
        return sum(ends for _, ends in self.pieces()) if self.length is None else self.length

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The texts in pieces, each with whether it is the last of its text; joined, they are the text."""
        return self.in_pieces() if self.in_pieces else ((text, True) for text in self)

    def __repr__(self) -> str:
        return f"Documents({self.name!r}: {self.about})"


@dataclass(frozen=True, repr=False)
class HubDocuments(Documents):
    """The documents of a set on the hub. Each iteration reads them there again, or where they were downloaded."""

    set: HubSet = field(kw_only=True)


class BuiltIn(NamedTuple):
    """A set that every installation has."""

    description: str
    load: Callable[[DataConfig], Documents]


def list_sources() -> dict[str, str]:
    """The names of the built-in sources, of sets of the hub, and of the texts in memory, each with a description."""
    return {name: source.description for name, source in (SOURCES | HUB_SETS).items()} | list_registered()


def load_documents(config: DataConfig) -> Documents:
    """The documents of `config.source`: a name of `list_sources`, a set of the hub, or else a file, a folder, a zip or
    a glob.

    Raises DataError for an unknown source, for files without text, for a set of the hub that can't be asked for, and
    for settings that the source does not use: `text_field` belongs to tables, `seed` to tales, `hub` and
    `tokens_per_epoch` to sets of the hub, `encoding`, `include` and `exclude` to files.
    """
    check_config(config, "load_documents")
    check_settings(config)
    if not is_named(config.source):
        return _own(config)
    if is_hub_source(config.source):
        return _of_hub(config)
    return _in_memory(config) if is_in_memory(config.source) else SOURCES[config.source].load(config)


def check_settings(config: DataConfig) -> None:
    """Raises DataError for settings that the source does not use."""
    if config.mixture.sources:
        raise DataError(f"a mixture is {len(config.sources)} sources; load the documents of one: source=...")
    if config.seed and config.source != "tales":
        raise DataError(f"seed={config.seed} is a setting of tales, not of {config.source!r}: leave seed at 0")
    if config.split == "tail" and config.source == "tales":
        raise DataError("split='tail' would cut a tale in two, whose probability is unknown: leave split at 'hash'")
    if is_hub_source(config.source):
        if config.split == "tail" and config.hub.streamed:
            raise DataError("split='tail' needs the whole text: leave split at 'hash', or set hub.streamed to False")
    else:
        for name, unset in (("hub", HubConfig()), ("tokens_per_epoch", None)):
            if getattr(config, name) != unset:
                raise DataError(f"{name} is a setting of the hub's sets, and {config.source!r} is none: leave it out")
    if is_named(config.source):
        refuse_file_settings(config)


def parts_of_mixture(config: DataConfig) -> list[DataConfig]:
    """The settings of each source of a mixture, with those alone that its kind uses. Raises DataError for a setting
    that none of them uses."""
    parts, used = [], set()
    for typed in config.sources:
        source, _, revision = typed.partition("@") if is_hub_source(typed) else (typed, "", "")
        own = {name for name, uses in USED_BY.items() if uses(source)}
        left_out = {name: getattr(DataConfig(), name) for name in USED_BY if name not in own}
        hub = config.hub.replace(revision=revision) if revision else config.hub
        parts.append(config.replace(**{"source": source, "mixture": MixtureConfig(), "hub": hub} | left_out))
        used |= own
    unused = [name for name in USED_BY if name not in used and getattr(config, name) != getattr(DataConfig(), name)]
    if unused:
        raise DataError(f"{unused[0]} is a setting that none of {config.label} uses: leave it out")
    return parts


def has_columns(source: str) -> bool:
    """Whether a source has columns: a set of the hub, and own files among which there is a table."""
    if is_named(source):
        return is_hub_source(source)
    return any(file.kind in TABLES for file in stored_files(source) or ())


def has_files_below(source: str) -> bool:
    """Whether a source is a folder or a zip, of whose files some can be chosen."""
    path = Path(os.path.expanduser(source))
    return not is_named(source) and (path.is_dir() or (path.is_file() and is_zip(path)))


def is_named(source: str) -> bool:
    """Whether a source is a name, and not the path of a user's own files."""
    return source in SOURCES or is_in_memory(source) or is_hub_source(source)


def refuse_file_settings(config: DataConfig) -> None:
    """Raises DataError for settings of files, where the source is none."""
    if config.text_field is not None and not is_hub_source(config.source):
        raise DataError(f"{config.source!r} has no columns: leave text_field out")
    for name in ("encoding", "include", "exclude"):
        value = getattr(config, name)
        if value:
            raise DataError(f"{name}={value!r} is a setting of your own files, not of {config.source!r}: leave it out")


def check_config(config: DataConfig, function: str) -> None:
    """Raises DataError if a function was given something other than a DataConfig, such as the name of a source."""
    if not isinstance(config, DataConfig):
        example = config if isinstance(config, str) else "tales"
        raise DataError(f"{function} takes a DataConfig, not {type(config).__name__}: DataConfig(source={example!r})")


def absolute_source(config: DataConfig) -> str | None:
    """The absolute path or glob of own files; None for a named source, and if nothing has that name."""
    if is_named(config.source) or find_files(config.source) is None:
        return None
    return absolute(config.source)


def _tales(config: DataConfig) -> Documents:
    count = config.max_documents or DEFAULT_TALES

    def scored() -> Iterator[tuple[str, float]]:
        return ((story.text, story.log_probability) for story in tales.stories(count, config.seed))

    about = f"the first {count:,} stories of seed {config.seed}"
    return Documents("tales", about, f"tales {tales.VERSION} {config.seed} {count}", scored, count)


def _of_hub(config: DataConfig) -> HubDocuments:
    found = HubSet.find(config)

    def scored() -> Iterator[tuple[str, None]]:
        texts = (text for text, _ in found.documents()) if config.hub.streamed else found.download()
        return ((text, None) for text in texts)

    return HubDocuments(config.source, found.about, found.fingerprint, scored, set=found)


def _from_python(read: Callable[[], Iterator[str]], about: str, config: DataConfig) -> Documents:
    @cache  # some megabytes, which take seconds to collect
    def texts() -> list[str]:
        return list(read())

    return _limited(
        config, about, f"{config.source} {python_fingerprint()}", lambda limit: itertools.islice(texts(), limit)
    )


def _in_memory(config: DataConfig) -> Documents:
    kept = registered_texts(config.source)
    texts = [text for text in kept.texts if text and not text.isspace()]
    return _limited(config, repr(kept), kept.fingerprint, lambda limit: itertools.islice(texts, limit))


def _own(config: DataConfig) -> Documents:
    checked = check_source(config)
    if config.split == "hash":
        return _limited(config, checked.about, checked.fingerprint, partial(read_files, checked))
    uncut = partial(read_pieces, checked, uncut=True)
    documents = _limited(config, checked.about, checked.fingerprint, lambda limit: joined(uncut(limit)))
    return replace(documents, in_pieces=lambda: uncut(config.max_documents))


def check_source(config: DataConfig) -> CheckedFiles:
    """The user's own files that the config names, read once. Raises DataError where they are not there or no text."""
    files = stored_files(config.source, config.encoding, config.include, config.exclude)
    if files is None:
        is_path, near = any(sign in config.source for sign in "./\\~"), nearest(config.source)
        raise DataError(
            f"{'there is no file or folder' if is_path else 'unknown source'} '{printable(config.source)}'; "
            + (f"the nearest name there is '{near}'; " if near else "")
            + suggest(config.source, [*SOURCES, *list_registered()])
            + f", or a set of the hub ({', '.join(HUB_SETS)}; any other as hub:owner/name)"
            + f", or give a file, a folder or a glob of your own ({KINDS}), or texts in memory (register_texts)"
        )
    return check_files(files, config.text_field)


def _limited(
    config: DataConfig, about: str, fingerprint: str, read: Callable[[int | None], Iterator[str]]
) -> Documents:
    def scored() -> Iterator[tuple[str, None]]:
        return ((text, None) for text in read(config.max_documents))

    if config.max_documents is not None:
        about = f"at most {config.max_documents:,} documents of {about}"
    return Documents(config.source, about, f"{fingerprint} {config.max_documents}", scored)


SOURCES: dict[str, BuiltIn] = {
    "tales": BuiltIn("children's stories from a grammar of known entropy, any number of them", _tales),
    "pydocs": BuiltIn(
        "prose: Python's language reference and the docstrings of its standard library",
        partial(_from_python, pydocs, "the prose in this Python"),
    ),
    "pycode": BuiltIn(
        "source: the modules of Python's standard library",
        partial(_from_python, pycode, "the source in this Python"),
    ),
}
# Settings that not every source uses, and which sources do
USED_BY: dict[str, Callable[[str], bool]] = {
    "seed": lambda source: source == "tales",
    "hub": is_hub_source, "tokens_per_epoch": is_hub_source, "text_field": has_columns,
    "encoding": lambda source: not is_named(source), "include": has_files_below, "exclude": has_files_below,
}
