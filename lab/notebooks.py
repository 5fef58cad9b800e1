"""Runs a notebook without a browser. What its cells print appears at once, in the terminal."""

import ast
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from lab.files.atomic import atomic_write_text
from settings.errors import GlassboxError

WIDGET = "application/vnd.jupyter.widget-view+json"
STOPPING = (signal.SIGINT, signal.SIGTERM)


class NotebookError(GlassboxError):
    """The notebook or its parameters can't be used, or a cell failed."""


class NotebookStopped(KeyboardInterrupt):
    """A signal, such as SIGINT from Ctrl-C, ended the notebook early. number: the signal's number."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number


class RelayingClient(NotebookClient):
    """Writes what a cell prints to the terminal at once, and passes signals to the cell that runs."""

    stopped_by: int | None = None
    stopped_in = 0  # the number of the cell that ran last, counted from 1

    def process_message(self, message, cell, cell_index):
        if message["msg_type"] == "stream":
            stream = sys.stdout if message["content"]["name"] == "stdout" else sys.stderr
            stream.write(message["content"]["text"])
            stream.flush()
        return super().process_message(message, cell, cell_index)

    async def async_start_new_kernel_client(self, **settings):
        """Replaces the signal handlers of nbclient, which would end the kernel in the middle of a cell."""
        client = await super().async_start_new_kernel_client(**settings)
        for number in STOPPING if sys.platform != "win32" else ():  # asyncio has no signals on Windows
            asyncio.get_running_loop().add_signal_handler(number, self.stop, number)
        return client

    def stop(self, number: int) -> None:
        """Interrupts the cell that runs, so that a training can store its run; a second signal kills the kernel."""
        again, self.stopped_by = self.stopped_by is not None, number
        ending = self.km.shutdown_kernel(now=True) if again else self.km.interrupt_kernel()
        self.stopping = asyncio.ensure_future(ending)  # kept, because asyncio holds only a weak reference to a task

    async def async_execute_cell(self, cell, cell_index, *arguments, **settings):
        if self.stopped_by is not None:
            return cell
        self.stopped_in = cell_index + 1
        return await super().async_execute_cell(cell, cell_index, *arguments, **settings)


def run_notebook(path: Path | str, parameters: dict[str, object] | None = None, keep_outputs: bool = False) -> None:
    """Executes all cells in order. The notebook's own folder is their working folder.

    parameters: new values for names that the cell tagged "parameters" assigns; they take effect right after that cell.
    keep_outputs: write the outputs back into the file, without widget state. Raises NotebookError with the error of the
    cell that failed, and NotebookStopped after a signal, once the cell that ran has ended. The file is then unchanged.
    """
    path = Path(path)
    notebook = read_notebook(path)
    override = inject(notebook, path, {} if parameters is None else parameters)
    execute(notebook, path)
    if keep_outputs:
        if override is not None:
            notebook.cells.remove(override)
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times: they would change on every run
            if cell.cell_type == "code":
                cell.outputs = static(cell.outputs)
        atomic_write_text(path, nbformat.writes(notebook) + "\n")


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """The notebook in a file. Raises NotebookError if the file is missing or holds no notebook of format 4."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        cells = content.get("cells") if isinstance(content, dict) and content.get("nbformat") == 4 else None
        if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
            raise ValueError("it is JSON, but not a notebook of format 4 with a list of cells")
        nbformat.validate(nbformat.from_dict(content))
        return nbformat.reads(text, as_version=4)
    except (OSError, ValueError, RecursionError, nbformat.ValidationError) as error:
        raise NotebookError(f"{path} can't be read as a notebook: {str(error).splitlines()[0]}") from error


def execute(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Runs the cells and stores their outputs in `notebook`. Raises the same errors as `run_notebook`."""
    client = RelayingClient(
        notebook, timeout=None, kernel_name="python3", store_widget_state=False,
        coalesce_streams=True,  # text that is printed word by word becomes one output
        resources={"metadata": {"path": str(path.parent)}},
    )
    failure = None
    try:
        client.execute(env=os.environ | {"GLASSBOX_PLAIN": "1"})  # plain progress lines: no browser shows widgets here
    except (CellExecutionError, DeadKernelError) as error:
        failure = error
    if client.stopped_by is not None:
        where = f"{path.name} was stopped in cell {client.stopped_in} of {len(notebook.cells)}"
        how = "python tools.py runs lists it, python tools.py resume NAME goes on"
        raise NotebookStopped(f"{where}; a training that ran is kept: {how}", client.stopped_by)
    if isinstance(failure, DeadKernelError):
        why = "it was ended from outside, or the memory was used up: close other programs or choose smaller settings"
        raise NotebookError(f"{path.name}: the kernel died in cell {client.stopped_in}; {why}") from failure
    if failure is not None:
        raise NotebookError(f"{path.name}: {failure}") from failure


def static(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The outputs without widgets, which show an error where no kernel runs. A widget's HTML, if any, stays."""
    kept = []
    for output in outputs:
        data = output.get("data", {})
        if WIDGET not in data:
            kept.append(output)
        elif "text/html" in data:
            rest = {kind: content for kind, content in data.items() if kind != WIDGET}
            kept.append(nbformat.from_dict({**output, "data": rest}))
    return kept


def inject(notebook: nbformat.NotebookNode, path: Path, parameters: dict[str, object]) -> nbformat.NotebookNode | None:
    """Inserts a cell that sets the parameters after the cell tagged "parameters", which must assign each of them."""
    if not isinstance(parameters, dict):
        raise NotebookError(f"parameters must be values by name, as in {{\"steps\": 10}}, not {parameters!r:.60}")
    if not parameters:
        return None
    tagged = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    if not tagged:
        raise NotebookError(f"{path.name} has no cell tagged 'parameters', so {', '.join(parameters)} can't be set")
    try:
        known = assigned_names(notebook.cells[tagged[0]].source)
    except SyntaxError as error:
        raise NotebookError(f"{path.name}: the cell tagged 'parameters' is not plain Python: {error}") from error
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise NotebookError(f"{path.name} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    cell = nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in parameters.items()))
    notebook.cells.insert(tagged[0] + 1, cell)
    return cell


def assigned_names(source: str) -> set[str]:
    """The names that the top-level statements assign, as in `a = 1`, `a, b = 1, 2` and `a: int = 1`."""
    targets = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    names = (node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}
