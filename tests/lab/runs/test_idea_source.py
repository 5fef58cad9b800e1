"""A run keeps the source of its ideas as text, opens only where they are imported, and never executes what it keeps."""

import json
import linecache
import shutil

import pytest

from config import ModelConfig, NormConfig
from lab.comparison.comparison import compare
from lab.runs.idea_source import IdeaNeeded, definitions, idea_source
from lab.runs.listing import list_runs
from lab.runs.run import Run
from lab.sharing import export_run, import_run
from lab.terminal_flags import import_idea
from settings.errors import ConfigError, IdeaError, RunError
from settings.registry import REGISTRY, register
from tests.helpers.registry import registry_restored
from tests.helpers.small_runs import MODEL, make_run

LOUDEST = '''"""A norm of one's own."""

import json

from torch import Tensor

from modules.norms import Norm
from settings.registry import register

EXPONENT = 1
DONE = json.loads("1")


@register("norm", "loudest")
class LoudestNorm(Norm):
    def forward(self, x: Tensor) -> Tensor:
        return self.scale_and_shift(x / x.abs().amax(-1, keepdim=True).clamp(min=self.eps) ** EXPONENT)  # (B, T, C)


for _ in range(3):
    json.loads("2")
json.loads("3")
'''


@pytest.fixture(autouse=True)
def restored():
    with registry_restored():
        yield


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "loudest.py"
    path.write_text(LOUDEST, encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path, file):
    """A run with weights and a log, made while its idea was imported."""
    import_idea(file)
    return make_run(tmp_path / "runs", "mine", MODEL.replace(norm=NormConfig(kind="loudest")))


def forget() -> None:
    del REGISTRY.kinds["norm"]["loudest"]
    REGISTRY.load_ideas = None


def test_a_run_keeps_the_definitions_and_not_what_the_file_does(run):
    kept = (run.folder / "idea.py").read_text(encoding="utf-8")
    assert "never executed" in kept and "norm 'loudest'" in kept
    assert "class LoudestNorm(Norm)" in kept and '@register("norm", "loudest")' in kept
    assert "EXPONENT = 1" in kept and "from modules.norms import Norm" in kept
    assert "json.loads(" not in kept and "range(3)" not in kept
    assert Run.open("mine", run.folder.parent).load_model()  # saved and loaded


def test_a_run_of_built_in_parts_keeps_no_source(tmp_path):
    assert not (make_run(tmp_path, "plain").folder / "idea.py").exists() and idea_source(MODEL) is None


def test_a_run_whose_idea_is_not_imported_is_listed_and_not_opened(run, tmp_path, monkeypatch):
    make_run(run.folder.parent, "plain")
    forget()
    (run.folder / "idea.py").write_text("raise SystemExit('executed')\n", encoding="utf-8")
    needs = "needs the idea 'loudest' (norm): its source is in idea.py of the run; read it, then import it"
    assert list_runs(run.folder.parent)["status"]["mine"] == needs
    with pytest.raises(IdeaNeeded) as error:
        Run.open("mine", run.folder.parent)
    assert str(error.value) == f"run 'mine' {needs}"
    monkeypatch.setattr("lab.runs.names.TRAINED", run.folder.parent)
    comparison = compare([run.folder, run.folder.parent / "plain"])
    assert list(comparison.runs) == ["plain"] and needs in str(comparison.left_out)


def test_opened_again_where_the_idea_is_imported(run, file):
    forget()
    import_idea(file)
    again = Run.open("mine", run.folder.parent)
    assert again.model_config == run.model_config and again.remark == ""


def test_an_idea_that_has_changed_since_is_told(run, file):
    forget()
    file.write_text(LOUDEST.replace("EXPONENT = 1", "EXPONENT = 2"), encoding="utf-8")
    import_idea(file)
    assert "defined otherwise now" in Run.open("mine", run.folder.parent).remark


def test_a_cell_that_is_run_again_leaves_only_its_new_source(tmp_path):
    for number in (1, 2):  # a notebook names each version of a cell anew
        cell = str(tmp_path / f"cell{number}.py")
        lines = LOUDEST.replace("EXPONENT = 1", f"EXPONENT = {number}").splitlines(keepends=True)
        linecache.cache[cell] = len("".join(lines)), None, lines, cell
        exec(compile("".join(lines), cell, "exec"), {"__name__": "__main__"})
    kept = idea_source(MODEL.replace(norm=NormConfig(kind="loudest")))
    assert "EXPONENT = 2" in kept and "EXPONENT = 1" not in kept


def test_a_shared_run_brings_the_source_as_text(run, tmp_path):
    zipped = export_run(run, tmp_path / "mine.zip")
    imported = import_run(zipped, tmp_path / "elsewhere")
    assert (imported.folder / "idea.py").read_bytes() == (run.folder / "idea.py").read_bytes()
    shutil.rmtree(imported.folder)
    forget()
    with pytest.raises(RunError, match=r"refused, nothing was written: run .* needs the idea 'loudest'"):
        import_run(zipped, tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_settings_that_are_damaged_besides_say_so(run):
    values = json.loads((run.folder / "model_config.json").read_text(encoding="utf-8"))
    (run.folder / "model_config.json").write_text(json.dumps(values | {"width": "wide"}), encoding="utf-8")
    with pytest.raises(RunError, match="width must be an integer"):
        Run.open("mine", run.folder.parent)


def test_a_class_whose_source_nobody_can_read_is_refused_before_there_is_a_folder(tmp_path):
    typed = {"__name__": "__main__"}
    exec("from modules.norms import Norm\nclass Typed(Norm):\n    def forward(self, x):\n        return x\n", typed)
    register("norm", "typed")(typed["Typed"])
    with pytest.raises(IdeaError, match="the source of Typed can't be read"):
        make_run(tmp_path, "mine", MODEL.replace(norm=NormConfig(kind="typed")))
    assert not (tmp_path / "mine").exists()


def test_definitions_of_a_file():
    source = "import os\n\n@staticmethod\ndef f():\n    pass\n\nx: int = 3\nprint('hello')\n"
    assert definitions(source) == "import os\n\n@staticmethod\ndef f():\n    pass\n\nx: int = 3\n"


def test_an_unknown_kind_without_a_run_is_a_config_error():
    with pytest.raises(ConfigError, match="unknown kind 'loudest' of norm"):
        ModelConfig.from_json(MODEL.to_json().replace('"kind": "rms"', '"kind": "loudest"'))
