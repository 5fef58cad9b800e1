"""The Jupyter kernel that this process may be, and whether a person looks on.

Whether a reader can be asked stands in the message that started the cell. ipykernel's `get_parent` gives this message;
IPython has no other way to it. Only this file knows of it.
"""

import sys


def kernel():
    """The Jupyter kernel that this process runs, or None."""
    ipython = sys.modules.get("IPython")  # a process with a kernel has loaded it
    return getattr(ipython.get_ipython(), "kernel", None) if ipython else None


def has_reader() -> bool:
    """Whether a person runs this cell. Programs that execute notebooks say that they can't answer questions."""
    return kernel() is not None and kernel().get_parent("shell")["content"].get("allow_stdin", False)
