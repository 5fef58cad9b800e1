"""The source text of the file, or of the notebook's cell, that defines a class or a function."""

import linecache
import sys


def read_source(defined: object) -> tuple[str, str] | None:
    """The file's name and its text as it is now; None if nobody can read it, as of a class typed at Python's prompt."""
    members = [defined, *getattr(defined, "__dict__", {}).values()]
    codes = [code for code in (getattr(member, "__code__", None) for member in members) if code is not None]
    own = [code.co_filename for code in codes if code.co_qualname.split(".<locals>.")[-1].startswith(defined.__name__)]
    module = getattr(sys.modules.get(defined.__module__), "__file__", None)
    file = own[0] if own else module or ""
    linecache.checkcache(file)
    text = "".join(linecache.getlines(file))
    return (file, text) if defined.__name__ in text else None
