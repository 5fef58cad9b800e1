"""Labelled texts: what a classifier learns from, and what it is measured on."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lab.data.own_files import check_files
from lab.data.paths import TABLES, printable
from lab.data.splitting import held_out_place
from lab.data.stored_files import stored_files
from lab.data.tables import read_labelled
from settings.errors import DataError
from settings.messages import short

HELD_OUT = 0.2  # the share of documents that no classifier learns from
FEWEST = 2  # training texts of a class, and held-out texts of a task
MOST_CLASSES = 256
LABEL_FIELD = "label"


@dataclass(frozen=True)
class LabelledText:
    """A text and its class. document: what the text was cut from; all of a document is on one side of the split."""

    text: str
    label: str
    document: str = field(repr=False)


@dataclass(frozen=True, repr=False)
class LabelledTask:
    """A task of classification. classes: all labels, sorted. A document is held out by the hash of its text."""

    name: str
    about: str
    classes: tuple[str, ...]
    training: tuple[LabelledText, ...]
    held_out: tuple[LabelledText, ...]

    @property
    def fingerprint(self) -> str:
        """Equal for equal texts with equal labels in equal order."""
        digest = hashlib.blake2b(digest_size=12)
        for one in (*self.training, *self.held_out):
            digest.update(repr((one.text, one.label)).encode("utf-8"))
        return digest.hexdigest()

    def __repr__(self) -> str:
        counts = Counter(one.label for one in self.held_out)
        trained = Counter(one.label for one in self.training)
        of_each = "\n".join(f"  {short(name)}: {trained[name]:,} + {counts[name]:,}" for name in self.classes)
        size = f"{len(self.training):,} texts to learn from + {len(self.held_out):,} held out"
        return f"LabelledTask({self.name!r}: {self.about})\n{size}:\n{of_each}"


def make_task(name: str, about: str, texts: Iterable[LabelledText]) -> LabelledTask:
    """Splits labelled texts into the two sides.

    Raises DataError for fewer than two classes, for too many, and where a side has too few texts.
    """
    sides: dict[bool, list[LabelledText]] = {True: [], False: []}
    for one in texts:
        sides[held_out_place(one.document) < HELD_OUT].append(one)
    held_out, training = sides[True], sides[False]
    classes = sorted({one.label for one in (*training, *held_out)})
    if not 2 <= len(classes) <= MOST_CLASSES:
        found = f"one class alone, {short(classes[0])}" if len(classes) == 1 else f"{len(classes)} classes"
        raise DataError(f"{name} has {found}; a classifier tells 2 to {MOST_CLASSES} apart: give texts of other labels")
    counts = Counter(one.label for one in training)
    rare = [label for label in classes if counts[label] < FEWEST]
    if rare or len(held_out) < FEWEST:
        of_class = f"{counts[rare[0]]} of class {short(rare[0])} to learn from" if rare else ""
        wanting = of_class or f"{len(held_out)} held out"
        raise DataError(
            f"{name} has too few texts, {len(training) + len(held_out)} in all: {wanting}, and {FEWEST} are the fewest "
            f"({HELD_OUT:.0%} are held out by a hash of their text); give more texts, or leave that class out"
        )
    return LabelledTask(name, about, tuple(classes), tuple(training), tuple(held_out))


def own_task(source: str, text_field: str | None = None, label_field: str = LABEL_FIELD) -> LabelledTask:
    """The task of one's own tables (jsonl, csv, tsv, parquet): a row is a text and its label.

    Raises DataError for files that are no tables or damaged, for a missing column, and as `make_task` does.
    """
    files = stored_files(source)
    if files is None:
        raise DataError(f"there is no file or folder '{printable(source)}' of labelled texts")
    other = next((file for file in files if file.kind not in TABLES), None)
    if other is not None:
        raise DataError(f"{other} has no labels: give a table with a text and a label ({', '.join(TABLES)})")
    check_files(files, text_field)

    def texts() -> Iterator[LabelledText]:
        for file in files:
            for text, label in read_labelled(file, text_field, label_field):
                if text and not text.isspace():
                    yield LabelledText(text, label, text)

    return make_task(source, f"texts with their {short(label_field)}", texts())
