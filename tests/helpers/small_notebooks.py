"""Notebooks of a few cells."""

import nbformat


def a_notebook(path, *sources):
    """With a code cell for each source; the first holds the parameters."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path
