"""Reads the text column of a table: jsonl with `json`, csv and tsv with pandas, parquet with pyarrow."""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from types import NoneType

from lab.data.paths import printable
from lab.data.stored_files import BLOCK, StoredFile
from settings.errors import DataError
from settings.json_text import is_unicode
from settings.messages import short

USUAL_FIELDS = ("text", "content", "story", "body")
SAMPLE = 100  # rows that decide which column holds text, and how cells are separated
BATCH = 1000  # rows of parquet read at once
CHUNK = 10_000  # rows of csv read at once
MOST_NAMED = 20  # columns that a message names
LONGEST_JSON = 1 << 27  # characters of a line of jsonl, and of JSON that is read as a whole

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
LONGEST_NAME, MOST_WORDS = 60, 8  # of a column's name: anything longer is taken for a text
SPACE = re.compile(r"\s*")

Kinds = dict[str, set[type]]  # the types of the values in each column


def read_column(file: StoredFile, text_field: str | None) -> Iterator[str | None]:
    """The cells of the text column; None for a row without one.

    Raises DataError for a damaged table, for a column that does not exist or holds no text, and if it is not clear
    which column holds the text or how the cells are separated.
    """
    field = text_column(file, text_field)
    for number, row in enumerate(_rows(file, field), 1):
        yield checked_cell(row.get(field), field, f"row {number} of {file}")


def checked_cell(text: object, field: str, place: str) -> str | None:
    """The cell of a text column, None for an empty one. Raises DataError for anything but text. place: the row's."""
    if not isinstance(text, str | None):
        raise DataError(f"{place} holds no text in {field!r}, but {short(text)} ({type(text).__name__})")
    if text and not text.isascii() and re.search("[\ud800-\udfff]", text):
        raise DataError(f"{place} holds half of a surrogate pair in {field!r}: write the row again")
    return text


def read_labelled(file: StoredFile, text_field: str | None, label_field: str) -> Iterator[tuple[str | None, str]]:
    """The cells of the text column, each with the label of its row as text.

    Raises DataError as `read_column` does, for a column of labels that does not exist, and for a row without a label
    or with one that is neither text, a whole number, true nor false.
    """
    columns = list(dict.fromkeys(name for row in islice(_rows(file), SAMPLE) for name in row))
    if columns and label_field not in columns:
        raise DataError(
            f"{file} has no column {label_field!r} of labels. Its columns are {_listed(columns)}: choose "
            f"one by label_field={columns[-1]!r}"
        )
    rows = zip(read_column(file, text_field), _rows(file, label_field), strict=True)
    for number, (text, row) in enumerate(rows, 1):
        label = row.get(label_field)
        if not isinstance(label, str | int) or not str(label).strip() or not is_unicode(str(label)):
            raise DataError(
                f"row {number} of {file} has no label in {label_field!r}, but {short(label)}: a label is a "
                "text or a whole number; give it one, or leave the row out"
            )
        yield text, str(label)


def _rows(file: StoredFile, field: str | None = None) -> Iterator[dict]:
    """The rows of a table; of parquet and csv only the column `field`, if one is given."""
    read = {".jsonl": _json_rows, ".parquet": _parquet_rows}.get(file.kind, _csv_rows)
    try:
        yield from read(file, field)
    except DataError:
        raise
    except Exception as error:  # pyarrow and pandas raise errors of many types
        raise DataError(f"can't read {file}: {str(error) or type(error).__name__}") from error


# --- which column ----------------------------------------------------------------------------------------------


def text_column(file: StoredFile, text_field: str | None) -> str:
    """The name of the text column: the one given, or one with a usual name, or the only one with strings.

    Raises DataError if it does not exist or holds no text, and if it is not clear which one is meant.
    """
    field, columns, named = choose_column(_rows(file), text_field, str(file))
    if not named and file.kind in (".csv", ".tsv"):
        _check_names(file, columns, field)
    return field


def choose_column(rows: Iterable[dict], text_field: str | None, table: str) -> tuple[str, list[str], bool]:
    """The text column by the same rule; with it all columns, and whether its name decided. table: its name in a
    message. Raises DataError as `text_column` does, and for a table without rows."""
    kinds: Kinds = {}
    for number, row in enumerate(rows):
        if number >= SAMPLE and _decided(kinds, text_field):
            break
        for name, value in row.items():
            kinds.setdefault(name, set()).add(type(value))
    strings = _with_text(kinds)
    named = [text_field] if text_field is not None else [name for name in USUAL_FIELDS if name in strings]
    choice = named[0] if named else strings[0] if len(strings) == 1 else None
    if not kinds:
        raise DataError(f"{table} has no rows")
    if choice not in strings:
        wanted = "which column holds the text?" if choice is None else f"no text in a column {choice!r}."
        raise DataError(
            f"{table}: {wanted} Its columns are {_listed(kinds)}; with text: {_listed(strings) or 'none'}. "
            + (f"Choose one by text_field={strings[0]!r}" if strings else "Give a file with a column of text")
        )
    return choice, list(kinds), bool(named)


def _decided(kinds: Kinds, text_field: str | None) -> bool:
    """Whether more rows can't change the choice. Nulls do not show yet whether a column holds text."""
    if text_field is not None:
        return bool(kinds.get(text_field, set()) - {NoneType})
    strings, usual = _with_text(kinds), [name for name in USUAL_FIELDS if name in kinds]
    return bool(strings) and (
        any(name in strings for name in usual) or all(kinds[name] != {NoneType} for name in usual)
    )


def _with_text(kinds: Kinds) -> list[str]:
    return [name for name, types in kinds.items() if str in types]


def _listed(names) -> str:
    return ", ".join(map(printable, islice(names, MOST_NAMED))) + (" and more" if len(names) > MOST_NAMED else "")


def _check_names(file: StoredFile, names, choice: str) -> None:
    """Raises DataError if the first line of a csv looks like a row and not like column names."""
    for name in names:
        is_number = re.fullmatch(r"\s*[-+]?[\d.]+\s*", name)
        if (
            is_number
            or len(name) > LONGEST_NAME
            or len(name.split()) > MOST_WORDS
            or name.rstrip().endswith(tuple(".!?"))
        ):
            raise DataError(
                f"{file}: is its first line a header? '{printable(name)}' looks like a cell, not like the "
                f"name of a column. Add a line of names above it, or give text_field={choice!r} if the names are right"
            )


# --- jsonl -----------------------------------------------------------------------------------------------------


def _json_rows(file: StoredFile, _: str | None) -> Iterator[dict]:
    """The rows of a jsonl file, an object per line; null is an empty row. Other JSON is read as a whole."""
    for where, value in _json_lines(file) if _is_lines(file) else _json_values(file):
        if not isinstance(value, dict | None):
            found = f"{where} is not an object like {{\"text\": ...}} but {short(value)}"
            raise DataError(f"can't read {file}: {found}")
        yield value or {}


def _is_lines(file: StoredFile) -> bool:
    with file.open_text() as stream:
        lines = iter(lambda: stream.readline(LONGEST_JSON), "")
        first = next((line for line in lines if not line.isspace()), "null")
    try:
        return isinstance(json.loads(first), dict | None)
    except (ValueError, RecursionError):  # reading the whole file raises the error
        return False


def _json_lines(file: StoredFile) -> Iterator[tuple[str, object]]:
    with file.open_text() as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_JSON), ""), 1):
            if len(line) == LONGEST_JSON:
                raise DataError(f"line {number} of {file} has {LONGEST_JSON:,} characters or more: cut it into rows")
            if not line.isspace():
                try:
                    yield f"line {number}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise _bad_json(file, f"line {number}", error) from error


def _json_values(file: StoredFile) -> Iterator[tuple[str, object]]:
    text, decoder = "".join(islice(file.blocks(), LONGEST_JSON // BLOCK)), json.JSONDecoder()
    if len(text) > LONGEST_JSON - BLOCK:
        raise DataError(f"{file} is JSON of {len(text):,} characters or more in one piece: write an object per line")
    end, number = SPACE.match(text).end(), 0
    while end < len(text):
        number += 1
        try:
            value, end = decoder.raw_decode(text, end)
        except (ValueError, RecursionError) as error:
            raise _bad_json(file, f"value {number}", error) from error
        for item in value if isinstance(value, list) else [value]:
            yield f"value {number}", {"text": item} if isinstance(item, str) and item is not value else item
        end = SPACE.match(text, end).end()


def _bad_json(file: StoredFile, where: str, error: Exception) -> DataError:
    reason = "its brackets are nested too deeply" if isinstance(error, RecursionError) else str(error)
    return DataError(f"can't read {file}: {where} is not a JSON object: {reason}")


# --- parquet ---------------------------------------------------------------------------------------------------


def _parquet_rows(file: StoredFile, field: str | None) -> Iterator[dict]:
    from pyarrow.parquet import ParquetFile

    with file.open() as stream, ParquetFile(stream) as table:
        for batch in table.iter_batches(BATCH, columns=None if field is None else [field]):
            yield from batch.to_pylist()


# --- csv and tsv -----------------------------------------------------------------------------------------------


def _csv_rows(file: StoredFile, field: str | None) -> Iterator[dict]:
    """Rows as pandas reads them. Cells have no type, so 007 and NA in a chosen column stay text."""
    import pandas

    separator = _separator(file)
    with file.open_text(newline="") as stream:
        chunks = pandas.read_csv(
            stream, sep=separator, dtype=field and {field: str}, keep_default_na=False, na_values=[""], chunksize=CHUNK
        )
        for chunk in chunks:
            chosen = chunk if field is None else chunk[[field]]
            yield from chosen.astype(object).where(chosen.notna(), None).to_dict("records")


def _separator(file: StoredFile) -> str:
    """The separator of cells. Raises DataError if it is not clear, and for rows that do not fit the header."""
    separator = "\t" if file.kind == ".tsv" else _detect(file)
    _check_rows(file, separator)
    return separator


def _detect(file: StoredFile) -> str:
    """The separator that splits the header and a row; of several, the one that gives all rows the same width."""
    widths = {sign: [len(row) for _, row in _sample(file, sign)] for sign in SEPARATORS}
    splits = [sign for sign, cells in widths.items() if cells and cells[0] > 1 and max(cells[1:], default=0) > 1]
    alike = [sign for sign in splits if len(set(widths[sign])) == 1]
    chosen = splits if len(splits) < 2 else alike
    if len(splits) > 1 and len(alike) != 1:
        names = " or ".join(SEPARATORS[sign] for sign in alike or splits)
        raise DataError(
            f"{file}: are its cells separated by {names}? Put cells that hold such a sign in quotes, or "
            "save the table as .tsv, which is always separated by tabs"
        )
    return chosen[0] if chosen else ","


def _sample(file: StoredFile, separator: str, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """The header and the first rows, each with the number of its last line."""
    with file.open_text(newline="") as stream:
        reader = csv.reader(stream, delimiter=separator, strict=strict)
        rows = ((reader.line_num, row) for row in reader if row)
        try:
            yield from islice(rows, SAMPLE)
        except csv.Error as error:  # other errors mean a cell too long for this reader; pandas reads it
            if strict and "expected after" in str(error):
                where = f"can't read {file}: line {reader.line_num}"
                raise DataError(f'{where}: a quote within a quoted cell must be written twice, ""') from error


def _check_rows(file: StoredFile, separator: str) -> None:
    """Raises DataError if rows have more cells than the header, unless their first cells are row numbers."""
    (_, header), *rows = list(_sample(file, separator, strict=True)) or [(0, [])]
    longer = [(line, row) for line, row in rows if len(row) > len(header)]
    numbered = all(len(row) == len(header) + 1 and row[0].isdigit() for _, row in rows)
    if longer and not (numbered and any(row[-1] for _, row in rows)):
        line, row = longer[0]
        raise DataError(
            f"can't read {file}: line {line} has {len(row)} cells, but the header has {len(header)}: put "
            f"cells that hold {SEPARATORS[separator]} in quotes, or give each column a name"
        )
