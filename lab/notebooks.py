"""Running a notebook without a browser: its text output appears here as it is written."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from config import GlassboxError
from lab.files import atomic_write_text

WIDGET = "application/vnd.jupyter.widget-view+json"


class NotebookError(GlassboxError):
    """A notebook that can't be read, or a cell that failed."""


class RelayingClient(NotebookClient):
    """Passes on what cells print, the moment they print it."""

    def process_message(self, message, cell, cell_index):
        if message["msg_type"] == "stream":
            stream = sys.stdout if message["content"]["name"] == "stdout" else sys.stderr
            stream.write(message["content"]["text"])
            stream.flush()
        return super().process_message(message, cell, cell_index)


def run_notebook(path: Path | str, parameters: dict[str, object] | None = None, keep_outputs: bool = False) -> None:
    """Executes all cells in order, in the notebook's own folder.

    parameters: values for names that the cell tagged "parameters" sets; they take effect right after it. keep_outputs:
    write the outputs back into the file, without widget state. Raises NotebookError with the failing cell's own error.
    """
    path = Path(path)
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        raise NotebookError(f"{path} can't be read as a notebook: {error}") from error
    override = inject(notebook, path, parameters or {})
    os.environ["GLASSBOX_PLAIN"] = "1"  # plain progress lines: no browser shows widgets here
    client = RelayingClient(
        notebook, timeout=None, kernel_name="python3", store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )  # fmt: skip
    try:
        client.execute()
    except CellExecutionError as error:
        raise NotebookError(f"{path.name}: {error}") from error
    if keep_outputs:
        if override is not None:
            notebook.cells.remove(override)
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times: they would change on every run
            if cell.cell_type == "code":
                cell.outputs = list(filter(None, map(without_widget, cell.outputs)))
        atomic_write_text(path, nbformat.writes(notebook) + "\n")


def without_widget(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The static twin of an output, if it has one in HTML: a widget without its kernel shows nothing but an error."""
    data = output.get("data", {})
    if WIDGET not in data:
        return output
    del data[WIDGET]
    return output if "text/html" in data else None


def inject(notebook: nbformat.NotebookNode, path: Path, parameters: dict[str, object]) -> nbformat.NotebookNode | None:
    """Puts a cell that sets the parameters behind the one tagged "parameters", which must know each of them."""
    if not parameters:
        return None
    tagged = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    if not tagged:
        raise NotebookError(f"{path.name} has no cell tagged 'parameters', so {', '.join(parameters)} can't be set")
    known = {line.split("=")[0].strip() for line in notebook.cells[tagged[0]].source.splitlines() if "=" in line}
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise NotebookError(f"{path.name} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    cell = nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in parameters.items()))
    notebook.cells.insert(tagged[0] + 1, cell)
    return cell
