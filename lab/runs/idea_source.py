"""The source of the ideas that a model uses, kept in its run as text to read. It is never executed from there."""

import ast
from collections.abc import Iterator

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
    files: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    for family, name in ideas_used(config):
        sources = kind(family, name).sources
        if "part" not in sources:
            raise IdeaError(
                f"the source of {part(family, name).__name__} can't be read, so no run could keep it; define it in "
                "a file or in a notebook's cell"
            )
        for file, text in dict(sources.values()).items():
            files[file] = text
            names.setdefault(file, []).append(f"{family} {name!r}")
    texts = [f"# {', '.join(names[file])}\n\n{definitions(text)}" for file, text in files.items()]
    return "\n\n".join(["# What this run was made with. It is never executed from here.", *texts]) if texts else None


def definitions(source: str) -> str:
    """The imports, classes, functions and plain values at the top of a file, without what it does."""
    lines = source.splitlines(keepends=True)
    return "\n".join("".join(lines[start:end]) for start, end in spans(source))


def spans(source: str) -> Iterator[tuple[int, int]]:
    """First and last line of each definition, its decorators included; lines are counted from 0."""
    for node in ast.parse(source).body:
        plain = isinstance(node, ast.Assign | ast.AnnAssign) and not any(
            isinstance(inner, ast.Call) for inner in ast.walk(node)
        )
        if isinstance(node, DEFINITIONS) or plain:
            first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
            yield first - 1, node.end_lineno


def check_ideas_imported(text: str, name: str) -> None:
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


def remark_on_change(kept: str, config: ModelConfig) -> str:
    """A remark if an idea's source is not the one that a run has kept; "" if it is the same."""
    if kept == idea_source(config):
        return ""
    return "an idea of this run is defined otherwise now than in its idea.py, so it may compute something else"
