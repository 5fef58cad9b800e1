"""The statements of a function: what each assigns, and the axis comment at its end."""

import ast
import linecache
import tokenize
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType


@dataclass(frozen=True, eq=False)
class Statement:
    """Lines first to last, counted from 1 in the file; only the header of a compound statement.

    targets: the expressions that it assigns or returns, flattened. loop: whether it is the header of a loop.
    """

    first: int
    last: int
    text: str
    comment: str
    targets: tuple[ast.expr, ...]
    assigns: bool = False
    returns: bool = False
    tuple_valued: bool = False
    loop: bool = False


def source_lines(filename: str) -> list[str]:
    """The present lines of a file or of a notebook cell."""
    linecache.checkcache(filename)
    return linecache.getlines(filename)


def statements_of(code: CodeType) -> dict[int, Statement]:
    """Line number -> statement, for the function that `code` was compiled from; empty without source."""
    return _functions("".join(source_lines(code.co_filename))).get((code.co_name, code.co_firstlineno), {})


@lru_cache(maxsize=256)
def _functions(source: str) -> dict[tuple[str, int], dict[int, Statement]]:
    comments, lines = _comments(source), source.splitlines()
    for line, (column, _) in comments.items():
        lines[line - 1] = lines[line - 1][:column]
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name, start] = {
                line: statement
                for statement in _inside(node, lines, comments)
                for line in range(statement.first, statement.last + 1)
            }
    return found


def _inside(function: ast.FunctionDef, lines: list[str], comments: dict[int, tuple[int, str]]):
    pending = list(function.body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            continue
        bodies = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
        bodies += [handler.body for handler in getattr(node, "handlers", [])]
        bodies += [case.body for case in getattr(node, "cases", [])]
        inner = [child for body in bodies for child in body]
        pending += inner
        last = max(node.lineno, min(child.lineno for child in inner) - 1) if inner else node.end_lineno
        text = " ".join(line.strip() for line in lines[node.lineno - 1 : last])
        _, comment = comments.get(last, (0, "")) if not inner else (0, "")
        yield _statement(node, last, text, comment)


def _statement(node: ast.stmt, last: int, text: str, comment: str) -> Statement:
    value = getattr(node, "value", None)
    several = isinstance(value, ast.Tuple)
    if isinstance(node, ast.Assign):
        several = any(isinstance(target, (ast.Tuple, ast.List)) for target in node.targets)
        targets = [leaf for target in node.targets for leaf in _leaves(target)]
        return Statement(node.lineno, last, text, comment, tuple(targets), assigns=True, tuple_valued=several)
    if isinstance(node, (ast.AugAssign, ast.AnnAssign)) and value is not None:
        return Statement(node.lineno, last, text, comment, (node.target,), assigns=True)
    if isinstance(node, ast.Return) and value is not None:
        parts = tuple(value.elts) if several else (value,)
        return Statement(node.lineno, last, text, comment, parts, returns=True, tuple_valued=several)
    comment = comment if isinstance(node, ast.Expr) else ""
    return Statement(node.lineno, last, text, comment, (), loop=isinstance(node, (ast.For, ast.While)))


def _leaves(target: ast.expr) -> list[ast.expr]:
    if isinstance(target, (ast.Tuple, ast.List)):
        return [leaf for part in target.elts for leaf in _leaves(part)]
    return [target.value if isinstance(target, ast.Starred) else target]


def _comments(source: str) -> dict[int, tuple[int, str]]:
    """Line number -> the column where its comment starts, and its text."""
    tokens = tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__)
    return {
        token.start[0]: (token.start[1], token.string.lstrip("# ").rstrip())
        for token in tokens
        if token.type == tokenize.COMMENT
    }
