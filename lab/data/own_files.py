"""Documents out of a reader's own files: txt, md, py, jsonl, csv and parquet, read by the `datasets` library.

A file of Python is one document; so is each row of a table (jsonl, csv, parquet). A text (txt, md) is one document up
to 4,000 characters; a longer one, a book say, is cut into pieces, so that some of it can be held out. What holds
nothing but white space is no document.
"""

import codecs
import glob
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from config import DataError

TEXTS = (".txt", ".md")
TABLES = (".jsonl", ".csv", ".parquet")
READABLE = (*TEXTS, ".py", *TABLES)
USUAL_FIELDS = ("text", "content", "story", "body")

LONGEST_TEXT = 4000  # characters; a longer text is cut
SHORTEST_PIECE = 2000
BOUNDARIES = ("\n\n", "\n", " ", "")
BLOCK = 1 << 20  # bytes read at once
BATCH = 256  # rows read at once
SAMPLE = 100  # rows that show which columns hold text


def find_files(source: str) -> list[Path] | None:
    """The files that a path, a folder or a glob names, sorted; None if nothing has that name.

    A folder stands for all readable files in it and below, without hidden ones. Raises DataError for a file of
    another kind, and for a folder or glob without files."""
    name = os.path.expanduser(source)
    if os.path.isdir(name):
        files = list(_below(name))
        if not files:
            raise DataError(f"the folder {os.path.abspath(name)} holds no file of the kinds {', '.join(READABLE)}")
    elif os.path.exists(name):
        files = [Path(name)]
    elif glob.has_magic(name):
        files = [Path(match) for match in glob.glob(name, recursive=True) if os.path.isfile(match)]
        if not files:
            raise DataError(f"no file matches {source!r}, looked for from {Path.cwd()}")
    else:
        return None
    for file in files:
        if file.suffix.lower() not in READABLE:
            raise DataError(f"can't read {file}: its kind is none of {', '.join(READABLE)}. Convert it to one of them")
    return sorted(files, key=lambda file: file.as_posix())


def _below(folder: str) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]  # .git, .venv: not even looked into
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in READABLE:
                yield Path(parent, name)


def check_files(files: list[Path], text_field: str | None) -> str:
    """Reads every byte once: returns a fingerprint of the contents, raises DataError for what can't be text."""
    if text_field is not None and not any(file.suffix.lower() in TABLES for file in files):
        raise DataError(f"text_field={text_field!r} names a column, but {files[0]} has none: leave text_field out")
    digest = hashlib.blake2b(repr(text_field).encode("utf-8"), digest_size=16)
    for file in files:
        digest.update(f"{file.suffix.lower()} {file.stat().st_size} ".encode())
        try:
            _check(file, digest)
        except OSError as error:
            raise DataError(f"can't read {file}: {error.strerror}") from error
    if len(files) == 1 and files[0].stat().st_size == 0:
        raise DataError(f"{files[0]} is empty: give a file that holds text")
    return digest.hexdigest()


def _check(file: Path, digest) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    remedy, offset = "Give a text file, or save it as UTF-8", 0
    with open(file, "rb") as stream:
        while True:
            block = stream.read(BLOCK)
            digest.update(block)
            if file.suffix.lower() != ".parquet":
                if b"\0" in block:
                    raise DataError(f"{file} is no text: byte {offset + block.index(0)} is NUL. {remedy}")
                pending = len(decoder.getstate()[0])
                try:
                    decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    where = offset - pending + error.start
                    raise DataError(f"{file} is no UTF-8 text: {error.reason} at byte {where}. {remedy}") from error
            if not block:
                return
            offset += len(block)


def read_files(files: list[Path], text_field: str | None) -> Iterator[str]:
    """The documents of `files`, in order. Raises DataError for a damaged table, a missing column, or no text at all."""
    found = False
    with tempfile.TemporaryDirectory(prefix="glassbox-") as scratch:  # where `datasets` puts its lock files
        for file in files:
            if file.stat().st_size:
                for text in _documents(file, text_field, scratch):
                    if text and not text.isspace():
                        found = True
                        yield text
    if not found:
        raise DataError(f"no text in {files[0]}" + (f" and {len(files) - 1} more" if files[1:] else ""))


def cut(text: str) -> Iterator[str]:
    """Pieces of a long text, up to 4,000 characters each, that joined give the text again.

    A piece ends at the first blank line after 2,000 characters; if there is none, at a line's end; else at a space."""
    start = 0
    while len(text) - start > LONGEST_TEXT:
        for boundary in BOUNDARIES:
            end = text.find(boundary, start + SHORTEST_PIECE, start + LONGEST_TEXT)
            if end >= 0:
                break
        end += len(boundary)
        yield text[start:end]
        start = end
    yield text[start:]


def _documents(file: Path, text_field: str | None, scratch: str) -> Iterator[str | None]:
    kind = file.suffix.lower()
    if kind in TABLES:
        yield from _column(file, text_field, scratch)
        return
    for row in _rows(file, scratch):
        yield from cut(row["text"]) if kind in TEXTS else [row["text"]]


def _column(file: Path, text_field: str | None, scratch: str) -> Iterator[str | None]:
    field = _choose(file, text_field, scratch)
    for number, row in enumerate(_rows(file, scratch, field), 1):
        if not isinstance(row[field], str | None):
            kind = type(row[field]).__name__
            raise DataError(f"row {number} of {file} holds no text in {field!r}, but {row[field]!r} ({kind})")
        yield row[field]


def _choose(file: Path, text_field: str | None, scratch: str) -> str:
    """The column that holds the text: the named one, or one with a usual name, or the only one with strings."""
    columns: dict[str, list] = {}
    for _, row in zip(range(SAMPLE), _rows(file, scratch)):
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    strings = [name for name, values in columns.items() if any(isinstance(value, str) for value in values)]
    named = [text_field] if text_field is not None else [name for name in USUAL_FIELDS if name in strings]
    choice = named[0] if named else strings[0] if len(strings) == 1 else None
    if not columns:
        raise DataError(f"{file} has no rows")
    if choice not in strings:
        wanted = "which column holds the text?" if choice is None else f"no text in a column {choice!r}."
        raise DataError(
            f"{file}: {wanted} Its columns are {', '.join(columns)}; with text: {', '.join(strings) or 'none'}. "
            + (f"Choose one by text_field={strings[0]!r}" if strings else "Give a file with a column of text")
        )
    return choice


def _rows(file: Path, scratch: str, field: str | None = None) -> Iterator[dict]:
    """The rows of a file as `datasets` streams them: no copy on disk, no request to the network."""
    import datasets

    name, kind = glob.escape(str(file.absolute())), file.suffix.lower()
    try:
        if kind == ".jsonl":
            table = datasets.IterableDataset.from_json(name, cache_dir=scratch, parse_agent_traces=False)
        elif kind == ".parquet":
            table = datasets.IterableDataset.from_parquet(name, cache_dir=scratch, columns=field and [field])
        elif kind == ".csv":  # its cells have no type, so a chosen column is text even where it says 007 or NA
            features = field and datasets.Features({field: datasets.Value("string")})
            table = datasets.IterableDataset.from_csv(
                name, cache_dir=scratch, features=features, keep_default_na=False, na_values=[""]
            )
        else:
            table = datasets.IterableDataset.from_text(
                name, cache_dir=scratch, sample_by="document", encoding="utf-8-sig"
            )
        for batch in table.iter(BATCH):
            yield from (dict(zip(batch, values)) for values in zip(*batch.values()))
    except Exception as error:  # its readers raise what pyarrow, pandas and json raise
        raise DataError(f"can't read {file}: {str(error) or type(error).__name__}") from error
