"""The terminal of `generate --interactive`: reads lines, prints what an `InteractiveSession` replies."""

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from settings.errors import GlassboxError

if TYPE_CHECKING:
    from lab.interactive import InteractiveSession


def interact(session: "InteractiveSession") -> None:
    """Replies to line after line, until /quit or the end of the input.

    In a terminal, lines are edited with a history, and Ctrl-C stops a text or drops a line. From a pipe or a file they
    are read one by one, and Ctrl-C ends the program.
    """
    in_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not in_terminal and isinstance(sys.stdin, io.TextIOWrapper):  # the tokenizer refuses what is no UTF-8
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    if in_terminal:
        print("Type a beginning. /help lists the commands, Ctrl-C stops a text, Ctrl-D ends.")
    read = choose_reader() if in_terminal else read_piped
    while not session.ended:
        try:
            line = read(f"{session.run.name}> " if in_terminal else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            if not in_terminal:
                raise
            print()
            continue
        answer(session, line, in_terminal)


def answer(session: "InteractiveSession", line: str, in_terminal: bool) -> None:
    """Prints the reply to a line, or the error that it raises."""
    pieces, end = session.reply(line), ""
    try:
        for piece in filter(None, pieces):
            print(piece, end="", flush=True)
            end = "\n"
    except KeyboardInterrupt:
        if not in_terminal:
            raise
        end = " … stopped\n"
    except GlassboxError as error:
        print(end=end, flush=True)
        print(f"error: {error}", file=sys.stderr, flush=True)
        end = ""
    print(end=end, flush=True)


def read_piped(_: str) -> str:
    """The next line of the standard input."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def choose_reader() -> Callable[[str], str]:
    """A function that reads a line with a history: prompt_toolkit's, where it is there, else `input`.

    `input` has a history where Python has readline, which Windows lacks.
    """
    try:
        from prompt_toolkit import PromptSession
    except ImportError:
        with suppress(ImportError):
            import readline  # noqa: F401  # from now on, input() has a history
        return input
    return PromptSession().prompt
