"""The table of a comparison: what each run is, what it cost and what it reached; for readers and for files."""

import math
import shutil
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from lab.comparison.compared_run import ComparedRun
from lab.costs.estimates import si
from lab.files.atomic import atomic_write_text
from lab.files.reading import named_path
from settings.errors import ConfigError, RunError

if TYPE_CHECKING:
    from lab.evaluation.probes import Answers
    from lab.evaluation.scores import Scores

ERROR = "_error"  # the end of the name of a metric's standard error
SKILL_ENDS = ("_low", "_high", "_asked")  # behind a skill: the ends of its interval, and the number of questions
PER_TOKEN = ("loss", "perplexity", "top_")  # metrics that mean something else with another tokenizer or other data
SUFFIXES = (".csv", ".md", ".tex")
UNITS = {
    "seconds": "training time", "flops": "training FLOPs", "tokens_per_second": "tokens/s",
    "validation_loss": "validation loss (nats)", "loss": "loss (nats)",
}


def differing_settings(runs: Mapping[str, ComparedRun]) -> pd.DataFrame:
    """A row for each run, a column for each setting in which the runs that have it differ; empty for the others."""
    names = list(dict.fromkeys(name for compared in runs.values() for name in compared.settings))
    columns = {}
    for name in names:
        values = [compared.settings.get(name, "") for compared in runs.values()]
        there = [value for value in values if value != ""]
        if any(value != there[0] for value in there):
            plain = all(isinstance(value, int | float | str) for value in values)
            columns[name] = values if plain else [value if value == "" else str(value) for value in values]
    return pd.DataFrame(columns, index=pd.Index(runs, name="run"))


def facts_table(runs: Mapping[str, ComparedRun]) -> pd.DataFrame:
    """Validation loss, architecture where it differs, parameters, tokens, seconds, FLOPs, tokens per second, memory."""
    table = pd.DataFrame([compared.facts for compared in runs.values()], index=pd.Index(runs, name="run"))
    return table.drop(columns=["data", *(["architecture"] if table["architecture"].nunique() == 1 else [])])


def metrics_row(scores: "Scores", answers: "Mapping[str, Answers]", in_nats: bool) -> dict[str, float]:
    """The metrics of one run with their standard errors, and its skills with their intervals. in_nats: whether losses
    per token compare; where not, they are NaN."""
    errors, row = scores.standard_errors(), {}
    for metric, value in scores.metrics.items():
        compares = in_nats or not metric.startswith(PER_TOKEN)
        values = (value, errors[metric]) if compares else (math.nan, math.nan)
        row |= dict(zip((metric, metric + ERROR), values))
    for skill, found in answers.items():
        values = (found.share, *found.interval, found.asked)
        row |= dict(zip((f"skill {skill}{end}" for end in ("", *SKILL_ENDS)), values))
    return row


def sorted_rows(table: pd.DataFrame, sort: str | None) -> pd.DataFrame:
    """Rows by rising values of a column, or falling ones for "-column". Raises ConfigError for an unknown one."""
    if sort is None:
        return table
    name = sort.removeprefix("-")
    if name not in table.columns:
        remedy = "; evaluate the comparison first" if name in ("loss", "perplexity", "bits_per_byte") else ""
        raise ConfigError(f"no column {name!r} to sort by{remedy}; choose from: {', '.join(table.columns)}")
    return table.sort_values(name, ascending=name == sort, kind="stable", key=_sortable)


def _sortable(column: pd.Series) -> pd.Series:
    return column if pd.api.types.is_numeric_dtype(column) else column.astype(str)


def readable_table(table: pd.DataFrame) -> pd.DataFrame:
    """The same for readers: numbers with their units, each metric with its standard error, each skill with its interval
    and the number of questions, settings without the "model." and "train." in front."""
    columns = {}
    for name in table.columns:
        if name.startswith("skill "):
            if not name.endswith(SKILL_ENDS):
                numbers = table[[name, *(name + end for end in SKILL_ENDS)]].to_numpy()
                columns[name] = [_skill_cell(*row) for row in numbers]
        elif not name.endswith(ERROR):
            errors = table.get(name + ERROR, pd.Series(index=table.index, dtype=float))
            heading = name.split(".", 1)[1] if "." in name else UNITS.get(name, name.replace("_", " "))
            columns[heading] = [_cell(name, value, error) for value, error in zip(table[name], errors)]
    return pd.DataFrame(columns, index=table.index)


def _cell(name: str, value: object, error: float) -> str:
    if isinstance(value, float) and pd.isna(value):
        return ""
    if "." in name or isinstance(value, str):
        return str(value)
    write = {
        "parameters": "{:,.0f}".format, "tokens": "{:,.0f}".format, "tokens_per_second": "{:,.0f}".format,
        "seconds": "{:,.0f} s".format, "flops": lambda number: si(number, "FLOP"),
        "memory": lambda number: si(number, "B"),
    }.get(name)
    if write is None:
        write = (lambda share: f"{100 * share:.2f} %") if name.startswith("top_") else "{:.4f}".format
    return write(value) if pd.isna(error) else f"{write(value)} ± {write(error)}"


def _skill_cell(share: float, low: float, high: float, asked: float) -> str:
    return "" if pd.isna(share) else f"{100 * share:.1f} % of {asked:.0f} ({100 * low:.0f} to {100 * high:.0f} %)"


def as_text(table: pd.DataFrame, remarks: Sequence[str]) -> str:
    """The table in blocks of columns, as wide as the terminal, and the remarks below."""
    width = shutil.get_terminal_size().columns
    body = readable_table(table).to_string(line_width=width) if len(table) else "no run to compare"
    return "\n".join([body, *remarks])


def as_html(table: pd.DataFrame, remarks: Sequence[str]) -> str:
    readable = readable_table(table).rename_axis(index=None, columns="run")  # one line of headings
    body = readable.to_html(border=0) if len(table) else "<p>no run to compare</p>"
    for cell in ("td", "th"):  # cells do not inherit this style from the page
        body = body.replace(f"<{cell}>", f'<{cell} style="white-space:nowrap">')
    lines = "".join(f"<li>{escape(remark)}</li>" for remark in remarks)
    return f'<div style="overflow-x:auto">{body}</div>' + (f"<ul>{lines}</ul>" if lines else "")


def write_table(table: pd.DataFrame, remarks: Sequence[str], path: Path | str) -> None:
    """Writes the table as .csv (plain numbers), .md or .tex (for readers, with the remarks), whole or not at all."""
    suffix = named_path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"can't export to {str(path)!r}: name a file that ends in {', '.join(SUFFIXES)}")
    if suffix == ".csv":
        text = table.to_csv(lineterminator="\n")
    elif suffix == ".md":
        text = markdown(readable_table(table).reset_index()) + "".join(f"\n- {remark}" for remark in remarks) + "\n"
    else:
        text = "".join(f"% {remark}\n" for remark in remarks) + readable_table(table).reset_index().to_latex(
            index=False, escape=True
        )
    try:
        atomic_write_text(path, text)
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror}; name another file, or free space") from error


def markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |\n" for row in rows)
