"""Live source code, from the file that was imported, for a notebook or a terminal."""

import ast
import functools
import inspect
import re
import sys
import textwrap
from dataclasses import dataclass
from html import escape
from types import FunctionType, ModuleType

from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String

from lab.display.html import render
from lab.display.palette import GREY, SYNTAX, translucent
from settings.errors import GlassboxError
from tracing.rows import file_shown
from tracing.statements import source_lines

INKS = {
    Keyword: SYNTAX["keyword"], Operator.Word: SYNTAX["keyword"], Comment: SYNTAX["comment"],
    String: SYNTAX["string"], Number: SYNTAX["number"], Name.Function: SYNTAX["definition"],
    Name.Class: SYNTAX["definition"], Name.Decorator: SYNTAX["decorator"], Name.Builtin: SYNTAX["builtin"],
}
HUE = 60  # per cent of the ink in its mixture with the page's text colour
QUIET = 0.75  # opacity of less important text
CODE = (
    "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12px;"
    "line-height:1.5;white-space:pre;text-align:left"
)
GROUND = f"background:{translucent(GREY, 0.08)};border-radius:6px;padding:8px 12px;overflow-x:auto"
PAGE = """
<div style="{{ ground }}"><div style="opacity:{{ quiet }}">{{ header }}</div>
<div style="{{ code }}">{{ body|safe }}</div></div>
"""


class SourceError(GlassboxError):
    """What has no Python source to show."""


@dataclass(frozen=True)
class SourceCode:
    """Some lines of a file. `first` is the number of the first one."""

    name: str
    file: str
    first: int
    lines: tuple[str, ...]

    @property
    def header(self) -> str:
        return f"{self.name} · {file_shown(self.file)}:{self.first}"

    def _repr_html_(self) -> str:
        body = "\n".join(highlight(self.lines))
        return render(PAGE, ground=GROUND, quiet=QUIET, code=CODE, header=self.header, body=body)

    def __str__(self) -> str:
        return "\n".join((f"# {self.header}", *self.lines))

    __repr__ = __str__


def show(thing: object) -> SourceCode:
    """The source of a class, function, method or module, as it is in its file. Raises SourceError if it has none."""
    if isinstance(thing, property):
        thing = thing.fget
    while isinstance(thing, (functools.partial, functools.partialmethod)):
        thing = thing.func
    thing = inspect.unwrap(getattr(thing, "__func__", thing)) if callable(thing) else thing
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", repr(thing))
    if isinstance(thing, FunctionType):
        return _of_function(thing, name)
    if isinstance(thing, type):
        return _of_class(thing, name)
    if isinstance(thing, ModuleType) and str(getattr(thing, "__file__", "")).endswith(".py"):
        return SourceCode(name, thing.__file__, 1, _lines(source_lines(thing.__file__)))
    compiled = inspect.isroutine(thing) or isinstance(thing, ModuleType)
    advice = "it is compiled from another language" if compiled else f"show its class: show({type(thing).__name__})"
    raise SourceError(
        f"{textwrap.shorten(name, 60)} has no Python source; {advice}. Give a class, a function, a method "
        "or a module that is written in Python"
    )


def _of_function(function: FunctionType, name: str) -> SourceCode:
    file, first = function.__code__.co_filename, function.__code__.co_firstlineno
    lines = source_lines(file)[first - 1 :]
    if not lines:
        raise SourceError(f"the source of {name} is not kept: it was made at run time or its file {file} is gone")
    return SourceCode(name, file, first, _lines(inspect.getblock(lines)))


def _of_class(kind: type, name: str) -> SourceCode:
    """Found by the file of its methods, because a class defined in a notebook does not know its cell."""
    methods = [inspect.unwrap(getattr(value, "__func__", value)) for value in vars(kind).values() if callable(value)]
    codes = [m.__code__ for m in methods if isinstance(m, FunctionType) and m.__qualname__.startswith(f"{name}.")]
    codes = [code for code in codes if source_lines(code.co_filename)]  # leaves out those that dataclass makes
    file = codes[0].co_filename if codes else getattr(sys.modules.get(kind.__module__), "__file__", None)
    if not codes and not str(file).endswith(".py"):
        raise SourceError(f"the class {name} has no Python source; show one that is written in Python")
    lines = source_lines(file)
    lineno = min((code.co_firstlineno for code in codes), default=len(lines))
    found = [node for node in _classes(ast.parse("".join(lines)), name.split(".")) if node.lineno <= lineno]
    if not found:
        raise SourceError(f"the source of the class {name} is not in {file}: it was made at run time")
    node = found[-1]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return SourceCode(name, file, first, _lines(lines[first - 1 : node.end_lineno]))


def _classes(tree: ast.AST, names: list[str]) -> list[ast.ClassDef]:
    """The classes with this qualified name, in the order of the file."""
    for name in names[:-1]:
        inner = [node for node in ast.walk(tree) if getattr(node, "name", None) == name]
        tree = inner[-1] if inner else tree
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == names[-1]]


def _lines(lines: list[str]) -> tuple[str, ...]:
    """The lines without line ends and without their common indentation."""
    return tuple(inspect.cleandoc("\n" + "".join(lines)).splitlines()) if lines else ()


def highlight(lines: tuple[str, ...]) -> list[str]:
    """Each line as HTML, with coloured syntax."""
    html = ""
    for token, text in PythonLexer(stripnl=False).get_tokens("\n".join(lines)):
        ink = next((INKS[kind] for kind in token.split()[::-1] if kind in INKS), None)
        for index, piece in enumerate(text.split("\n")):
            html += "\n" * bool(index)
            style = f"color:color-mix(in srgb,{ink} {HUE}%,currentColor)"
            html += f'<span style="{style}">{escape(piece)}</span>' if ink and piece.strip() else escape(piece)
    # indentation goes inside the first coloured word: converters drop white space between two elements
    return [re.sub(r'^( +)(<span style="[^"]*">)', r"\2\1", line) for line in html.split("\n")[: len(lines)]]
