"""The source of the ideas that a model uses, kept in its run as text to read. It is never executed from there."""

import ast
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path

from config import ModelConfig
from settings.errors import ConfigError, IdeaError, RunError
from settings.json_text import parse_json
from settings.kinds_used import ideas_missing, ideas_used
from settings.registry import kind, part

DEFINITIONS = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)


class IdeaNeeded(RunError):
    """A run whose idea has not been imported: it can be listed, but not opened."""


def idea_source(config: ModelConfig) -> str | None:
    """The imports and definitions of the files that register this model's ideas; None where every part is built in.

    Raises IdeaError for a class whose source can't be read, such as one that was typed at Python's prompt.
    """
    files: dict[str, list[str]] = {}
    for family, name in ideas_used(config):
        for defined in filter(None, (part(family, name), kind(family, name).settings)):
            files.setdefault(file_of(defined), []).append(f"{family} {name!r}")
    texts = [f"# {', '.join(dict.fromkeys(names))}\n\n{definitions(file)}" for file, names in files.items()]
    return "\n\n".join(["# What this run was made with. It is never executed from here.", *texts]) if texts else None


def file_of(defined: object) -> str:
    """The file, or the notebook's cell, that defines a class or function. Raises IdeaError where it can't be read."""
    codes = [getattr(member, "__code__", None) for member in (defined, *vars(defined).values())]
    files = [code.co_filename for code in codes if code is not None]
    files.append(getattr(sys.modules.get(defined.__module__), "__file__", None) or "")
    for file in files:
        if any(defined.__name__ in line for line in linecache.getlines(file)):
            return file
    raise IdeaError(
        f"the source of {defined.__name__} can't be read, so the run could not keep it; define it in a file or in a "
        "notebook's cell"
    )


def definitions(file: str) -> str:
    """The imports, classes, functions and plain values at the top of a file, without what it does."""
    lines = linecache.getlines(file)
    return "\n".join("".join(lines[start:end]) for start, end in spans("".join(lines)))


def spans(source: str) -> Iterator[tuple[int, int]]:
    """First and last line of each definition, its decorators included; lines are counted from 0."""
    for node in ast.parse(source).body:
        plain = isinstance(node, ast.Assign | ast.AnnAssign) and not any(
            isinstance(inner, ast.Call) for inner in ast.walk(node)
        )
        if isinstance(node, DEFINITIONS) or plain:
            first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
            yield first - 1, node.end_lineno


def check_ideas(text: str, name: str) -> None:
    """Raises IdeaNeeded where the settings of the run called `name` need an idea that has not been imported."""
    try:
        values = parse_json(text)
    except ConfigError:
        return  # reading the settings will say so
    missing = ideas_missing(values, ModelConfig)
    if missing:
        needed = ", ".join(f"{idea!r} ({family})" for family, idea in missing)
        raise IdeaNeeded(
            f"run {name!r} needs the idea {needed}: its source is in idea.py of the run; read it, then import it"
        )


def changed_since(folder: Path, config: ModelConfig) -> str:
    """A remark where an idea is defined otherwise now than when the run was made; "" where it is the same."""
    path = folder / "idea.py"
    if not path.is_file() or path.read_text(encoding="utf-8") == idea_source(config):
        return ""
    return "an idea of this run is defined otherwise now than in its idea.py, so it may compute something else"
