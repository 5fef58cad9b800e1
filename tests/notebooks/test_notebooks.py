"""The notebooks, executed from top to bottom with tiny settings; their own asserts are the test."""

import ast
import re
import shutil

import nbformat
import pytest

from lab.notebooks import NotebookError, run_notebook
from settings.paths import ROOT
from tests.helpers.small_notebooks import a_notebook

TINY = {
    "model_comparison.ipynb": {"held_out": 8192},
    "future_sight.ipynb": {"leak_steps": 30, "held_out": 2048},
    "positions.ipynb": {"held_out": 4096},
    "token_streams.ipynb": {"held_out": 2048, "factors": [1, 16]},
    "train.ipynb": {"steps": 8, "documents": 200, "run_name": "notebook-test", "planned": "gpt2-tiny"},
    "inference.ipynb": {"max_tokens": 12},
    "adapt.ipynb": {"steps": 4, "held_out": 1024, "documents": 60, "task_name": "pronoun-in-tale"},
    "build_tokenizer.ipynb": {
        "n_merges": 40, "n_stories": 20, "vocab_size": 600, "sizes": ["byte", "bpe-512"], "steps": 4, "n_texts": 5,
    },
    "testing_modules.ipynb": {"architecture": "alibi", "time": 14},
}
NEW_MODULE = "new-module"  # the tag of a cell that shows how to write a module, and therefore holds one class
SHOWS_NEW_MODULES = "testing_modules.ipynb"


@pytest.fixture
def workbench(tmp_path):
    """A copy of what the notebooks use, so that their runs are created there and not in trained/."""
    for name in ("settings", "tracing", "modules", "lab", "tokenizers", "trained", "notebooks", "bench"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "checkpoint"))
    for name in ("config.py", "tools.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def notebooks():
    return sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_every_notebook_is_executed_here():
    assert notebooks() == sorted(TINY)


@pytest.mark.parametrize("name", notebooks())
def test_runs_from_top_to_bottom(workbench, name):
    before = (workbench / "notebooks" / name).read_bytes()
    run_notebook(workbench / "notebooks" / name, TINY[name])
    assert (workbench / "notebooks" / name).read_bytes() == before


def test_training_runs_with_the_smallest_tokenizer_and_positions_that_end(workbench):
    """A byte is a token, so a story needs more of them; learned positions end at the context's 128."""
    other = {"preset_name": "gpt2-tiny", "tokenizer_name": "byte", "steps": 4, "context_length": 128}
    run_notebook(workbench / "notebooks" / "train.ipynb", TINY["train.ipynb"] | other)


@pytest.mark.parametrize("name", notebooks())
def test_is_thin_narrated_and_stored_with_small_outputs(name):
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    assert len(prose) >= len(code)
    assert "assert" in code[-1].source, "the last cell checks what was claimed"
    for cell in code:
        if name == SHOWS_NEW_MODULES and NEW_MODULE in cell.metadata.get("tags", []):
            assert [type(statement) for statement in ast.parse(cell.source).body] == [ast.ClassDef], "just one class"
        else:
            assert not re.search(r"^\s*(def|class)\s", cell.source, re.MULTILINE), "library code belongs in lab/"
        assert len([line for line in cell.source.splitlines() if line.strip()]) <= 15
        assert not any(output.output_type == "error" for output in cell.outputs)
    assert any(cell.outputs for cell in code), "outputs are kept"
    assert "widgets" not in notebook.metadata
    assert (ROOT / "notebooks" / name).stat().st_size < 600_000


def test_parameters_take_effect_and_outputs_are_kept_when_asked(tmp_path, capsys):
    path = a_notebook(tmp_path / "n.ipynb", "steps = 5", "print(steps)")
    run_notebook(path, {"steps": 7}, keep_outputs=True)
    stored = nbformat.read(path, as_version=4)
    assert [cell.source for cell in stored.cells] == ["steps = 5", "print(steps)"]
    assert stored.cells[1].outputs[0].text == "7\n"
    assert capsys.readouterr().out == "7\n"


def test_unknown_parameters_and_failing_cells_are_named(tmp_path):
    path = a_notebook(tmp_path / "n.ipynb", "steps = 5", "1 / 0")
    before = path.read_bytes()
    with pytest.raises(NotebookError, match="no parameter step; it has steps"):
        run_notebook(path, {"step": 7})
    with pytest.raises(NotebookError, match="ZeroDivisionError"):
        run_notebook(path, keep_outputs=True)
    assert path.read_bytes() == before
    (tmp_path / "bad.ipynb").write_text("{")
    with pytest.raises(NotebookError, match="can't be read as a notebook"):
        run_notebook(tmp_path / "bad.ipynb")
