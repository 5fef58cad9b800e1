"""Queries over runs, such as "parameters < 1e6 and architecture == 'llama'". A query compares and runs no code."""

import ast
import re
from collections.abc import Iterable

import pandas as pd

from lab.comparison.compared_run import ComparedRun
from settings.errors import ConfigError
from settings.messages import short

# In a query: a text in quotes, or a setting, which may stand between backticks
QUERY_PARTS = re.compile(r"""('[^'\\\n]*'|"[^"\\\n]*")|`([\w.]+)`|(?<![\w.])((?:model|train)(?:\.\w+)+)""")
# All that a query may contain. There are no calls and no attributes among them, so a query can't run anything.
ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Invert, ast.BinOp, ast.BitAnd,
    ast.BitOr, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Compare, ast.cmpop, ast.Name, ast.Load, ast.Constant, ast.List,
    ast.Tuple,
)
LONGEST_QUERY = 10_000  # characters
DOT = "__"  # stands for the dot of a setting while pandas reads a query


def matching_runs(runs: dict[str, ComparedRun], query: str) -> list[str]:
    """The names of the runs that match a query. Raises ConfigError for a query that can't be asked."""
    values = {name: compared.facts | compared.settings for name, compared in runs.items()}
    rows = pd.DataFrame(values).T.infer_objects()
    columns = dict.fromkeys(name for row in values.values() for name in row)
    try:
        safe = safe_query(query, columns if runs else None)
        return list(rows.rename(columns=_plain_name).query(safe, engine="python").index) if runs else []
    except Exception as error:  # pandas raises any exception of Python's parser and operators
        facts = ", ".join(name for name in columns if "." not in name)
        raise ConfigError(
            f"{short(query)} is no name, no glob and no query that can be asked ({error}); a query compares {facts} "
            "and all settings, as in \"parameters < 1e6 and architecture == 'llama'\" or \"train.seed == 0\""
        ) from error


def safe_query(query: str, columns: Iterable[str] | None) -> str:
    """The query for pandas, rebuilt from its allowed parts, with plain names for the settings.

    columns: the names that it may compare; None: any. Raises ConfigError or SyntaxError for anything but comparisons
    of columns with numbers and texts.
    """
    if len(query) > LONGEST_QUERY:
        raise ConfigError(f"it has {len(query):,} characters; {LONGEST_QUERY:,} are the most")
    plain = QUERY_PARTS.sub(lambda part: part[1] or _plain_name(part[2] or part[3]), query)
    tree = ast.parse(plain, mode="eval")
    for node in ast.walk(tree):
        if not isinstance(node, ALLOWED):
            raise ConfigError(f"it holds a {type(node).__name__}; a query compares, and calls or looks up nothing")
        if isinstance(node, ast.Name) and columns is not None and node.id not in map(_plain_name, columns):
            raise ConfigError(f"{short(node.id.replace(DOT, '.'))} is not defined")
    return ast.unparse(tree)


def _plain_name(column: str) -> str:
    return column.replace(".", DOT)
