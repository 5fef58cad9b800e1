"""Sets of documents on the Hugging Face hub, read by `datasets`: streamed, or downloaded first."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from config import DataConfig
from lab.data.hub_errors import OFFLINE_WORKS, explain, patiently
from lab.data.paths import printable
from lab.data.tables import checked_cell, choose_column
from settings.errors import DataError

if TYPE_CHECKING:
    from datasets import IterableDataset

PREFIX = "hub:"
ROWS = 100  # read at once
MOST_FILES_SPLIT = 100  # parquet files read by their groups of rows; of more, asking for the groups takes too long
COMMIT = re.compile(r"[0-9a-f]{40}")
SECONDS_TO_ANSWER = 10  # of the first question; where nobody answers, there is no network


class NamedSet(NamedTuple):
    """A set of the hub that has a short name here."""

    description: str
    repo: str
    subset: str | None = None


HUB_SETS = {
    "tinystories": NamedSet("2.1 million children's stories by GPT-3.5 and GPT-4", "roneneldan/TinyStories"),
    "tinystories-v2": NamedSet("2.7 million children's stories, all by GPT-4", "maveriq/tinystoriesv2_gpt4"),
    "fineweb-edu": NamedSet("10 billion tokens of educational web pages", "HuggingFaceFW/fineweb-edu", "sample-10BT"),
    "wikipedia": NamedSet("the 6.4 million articles of the English Wikipedia", "wikimedia/wikipedia", "20231101.en"),
    "python-code": NamedSet("5 million Python files of GitHub, of many licences", "codeparrot/codeparrot-clean"),
}


class Place(NamedTuple):
    """Where a document begins. state: of the reader before the rows that it was read with; None: at the beginning.

    row: the document's, among those rows. documents: how many the set has before it.
    """

    state: dict | None = None
    row: int = 0
    documents: int = 0


BEGINNING = Place()


class Document(NamedTuple):
    """A text, and the place where it begins."""

    text: str
    place: Place


def is_hub_source(source: str) -> bool:
    """Whether the source names a set of the hub, at the newest commit or at a revision behind @."""
    return source.partition("@")[0] in HUB_SETS or source.startswith(PREFIX)


def at_commit(source: str, commit: str) -> str:
    """The source at that commit, as tinystories@..., for mixtures: each of their sets has a commit of its own."""
    return f"{source.partition('@')[0]}@{commit}"


@dataclass(frozen=True)
class HubSet:
    """One split of one commit of a set. Nothing is read before its documents are asked for.

    commit: of the set's repository. limit: the most documents that are read.
    """

    source: str
    repo: str
    subset: str | None
    split: str
    commit: str
    text_field: str | None
    limit: int | None

    @classmethod
    def find(cls, config: DataConfig) -> "HubSet":
        """The set that `config` names, at the commit that its revision has now. Asks the hub, unless the revision is a
        commit. Raises DataError."""
        name, _, behind = config.source.partition("@")
        named = HUB_SETS.get(name)
        repo, subset = (named.repo, named.subset) if named else (name.removeprefix(PREFIX), None)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
            raise DataError(f"'{printable(config.source)}' names no set of the hub: write {PREFIX}owner/name")
        hub, revision = config.hub, behind or config.hub.revision
        if behind and hub.revision not in (None, behind):
            raise DataError(f"'{config.source}' has a revision, and hub.revision={hub.revision!r} another: give one")
        commit = revision if revision and COMMIT.fullmatch(revision) else ask_commit(repo, revision)
        return cls(
            name, repo, hub.subset or subset, hub.split, commit, config.text_field, config.max_documents
        )

    @property
    def where(self) -> str:
        """The set for a message."""
        return f"the hub's set {self.repo!r}"

    @property
    def about(self) -> str:
        subset = f"{self.subset}, " if self.subset else ""
        most = "" if self.limit is None else f"at most {self.limit:,} documents of "
        return f"{most}{subset}{self.split} at {self.commit[:8]} of {self.repo} on the hub"

    @property
    def fingerprint(self) -> str:
        """Equal for equal documents: a commit never changes."""
        return " ".join(map(str, ("hub", self.repo, self.subset, self.split, self.commit, self.text_field, self.limit)))

    @cached_property
    def stream(self) -> "IterableDataset":
        """The rows, one file after the other."""
        try:
            splits = patiently(self._open)
            if self.split not in splits:
                raise DataError(
                    f"{self.where} has no split {self.split!r}; it has {', '.join(splits)}: choose one by hub.split"
                )
            return splits[self.split]
        except Exception as error:
            raise self._explain_opening(error) from error

    @cached_property
    def field(self) -> str:
        """The column that holds the text, chosen by the rule for tables."""
        try:
            with_columns = (row for table in self.stream.with_format("arrow").iter(ROWS) for row in table.to_pylist())
            place = f"{self.where}, split {self.split!r}"
            return choose_column(with_columns, self.text_field, place)[0]
        except Exception as error:
            raise explain(error, self.where, self.repo) from error

    def documents(self, place: Place = BEGINNING) -> Iterator[Document]:
        """The texts from `place` to the set's end, each with the place where it begins. Raises DataError."""
        done = place.documents
        try:
            for document in islice(self._texts(place), self._left(place)):
                yield document
                done += 1
        except Exception as error:
            got = f"It got as far as document {done:,}. What was tokenised is kept: the same call goes on from there."
            raise explain(error, self.where, self.repo, got if done else "") from error

    def download(self) -> Iterator[str]:
        """The texts of the whole set, after `datasets` has downloaded it into its own cache. Raises DataError."""
        try:
            field, load = self.field, _datasets().load_dataset
            rows = load(f"hf://datasets/{self.repo}", self.subset, split=self.split, revision=self.commit)
            tables = rows.select_columns([field]).with_format("arrow").iter(ROWS)
            yield from islice(filter(has_text, self._cells(tables)), self.limit)
        except Exception as error:
            raise explain(error, self.where, self.repo) from error

    def _left(self, place: Place) -> int | None:
        return None if self.limit is None else self.limit - place.documents

    def _texts(self, place: Place) -> Iterator[Document]:
        rows = self.stream.select_columns([self.field]).with_format("arrow")
        if rows.num_shards <= MOST_FILES_SPLIT:
            rows = rows.reshard()  # so that a place in a parquet file is found without reading the file up to it
        if place.state is not None:
            rows.load_state_dict(place.state)
        state, skip, documents = place.state, place.row, place.documents
        for table in rows.iter(ROWS):
            for row, text in enumerate(self._cells([table])):
                if row >= skip and has_text(text):
                    yield Document(text, Place(state, row, documents))
                    documents += 1
            state, skip = rows.state_dict(), 0

    def _cells(self, tables) -> Iterator[str | None]:
        number = 0
        for table in tables:
            for text in table[self.field].to_pylist():
                number += 1
                yield checked_cell(text, self.field, f"row {number} of {self.where}")

    def _open(self):
        ask_commit(self.repo, self.commit)  # `datasets` would try to reach the hub for half a minute
        load = _datasets().load_dataset
        return load(f"hf://datasets/{self.repo}", self.subset, revision=self.commit, streaming=True)

    def _explain_opening(self, error: Exception) -> Exception:
        if isinstance(error, ValueError) and "onfig" in str(error):  # there is no such subset, or none is named
            path = f"hf://datasets/{self.repo}"
            subsets = ", ".join(_datasets().get_dataset_config_names(path, revision=self.commit))
            lacks = f"has no subset {self.subset!r}; it has" if self.subset else "has several subsets:"
            return DataError(f"{self.where} {lacks} {subsets}: choose one by hub.subset")
        return explain(error, self.where, self.repo)


def ask_commit(repo: str, revision: str | None) -> str:
    """The commit of a revision; None: the newest. Raises DataError, at once where the hub can't be reached."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise DataError(f"can't ask the Hugging Face hub for {repo!r}: HF_HUB_OFFLINE is set. {OFFLINE_WORKS}")
    try:
        return patiently(lambda: HfApi().dataset_info(repo, revision=revision, timeout=SECONDS_TO_ANSWER).sha)
    except Exception as error:
        raise explain(error, f"the hub's set {repo!r}", repo) from error


def has_text(text: str | None) -> bool:
    """Whether the cell is a document: those without text, and those of white space alone, are left out."""
    return bool(text) and not text.isspace()


def _datasets():
    """The library, which takes a second to import."""
    import datasets

    # Each of its tries of a part of a file stands for six of huggingface_hub, half a minute. By default it has 20.
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 3
    return datasets
