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


def let_free_thread_answer(widget) -> None:
    """Lets a widget answer while a loop in the kernel's main shell is running.

    ipykernel 7.4 hands a widget's messages to the shell that last wrote to it, and this shell is busy with the loop.
    JupyterLab addresses them to another shell, whose thread is free; this private hook keeps that address.
    """
    widget.comm._reply_subshell_for = lambda data, address: address
