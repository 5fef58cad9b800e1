"""Imports run one way: settings -> config -> tracing -> modules -> lab -> tools; and what is light stays light."""

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from settings.paths import ROOT

# Each package of lab/ imports only from those before it; the files at its root join what the packages offer
PACKAGES = [
    "files", "display", "shapes", "data", "compute", "costs", "generation", "runs", "evaluation", "training",
    "adapting", "analysis", "future_sight", "comparison", "exchange", "verdict",
]
LAYERS = ["settings", "config", "tracing", "modules", "lab", "tools"]


def files(layer: str) -> list[Path]:
    single = ROOT / f"{layer}.py"
    return [single] if single.is_file() else sorted((ROOT / layer).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


FILES = {relative(path): layer for layer in LAYERS for path in files(layer)}
OF_MODULES = [name for name, layer in FILES.items() if layer in ("tracing", "modules")]


def parse(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


def imported(source: ast.Module) -> set[str]:
    """The packages that a file names in its imports, wherever they stand; relative ones are not used here."""
    found = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, ast.unparse(node)
            found.add(node.module.split(".")[0])
    return found


def called(source: ast.Module) -> set[str]:
    return {
        node.func.id
        for node in ast.walk(source)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def test_every_layer_is_there():
    assert set(FILES.values()) == set(LAYERS)


@pytest.mark.parametrize("name", FILES)
def test_imports_run_one_way(name):
    above = set(LAYERS[LAYERS.index(FILES[name]) + 1 :]) | {"notebooks", "bench", "tests"}
    assert not imported(parse(name)) & above


def own_modules(name: str) -> set[str]:
    """The files of this repository that a file imports: late and typing-only imports included."""
    found = set()
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    paths = {path.removesuffix(".py").replace("/", "."): path for path in FILES}
    packages = {path.removesuffix("/__init__.py").replace("/", "."): path for path in FILES if "__init__" in path}
    return {(paths | packages)[module] for module in found if module in paths | packages}


def package(name: str) -> str:
    """The package of lab/ that a file belongs to, or "the root"."""
    parts = name.split("/")
    return parts[1] if len(parts) > 2 else "the root"


OF_LAB = [name for name, layer in FILES.items() if layer == "lab" and name != "lab/__init__.py"]


def test_every_package_of_lab_has_its_place():
    assert {package(name) for name in OF_LAB} <= {*PACKAGES, "the root"}


@pytest.mark.parametrize("name", OF_LAB)
def test_packages_of_lab_import_only_from_those_above_them(name):
    order = [*PACKAGES, "the root"]
    own = order.index(package(name))
    below = {other for other in own_modules(name) & set(OF_LAB) if order.index(package(other)) > own}
    assert not below


def test_no_files_import_each_other_in_a_circle():
    imports = {name: own_modules(name) - {name} for name in FILES}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names them


@pytest.mark.parametrize("name", OF_MODULES)
def test_modules_are_torch_and_the_standard_library(name):
    """No files, no plots, no prints."""
    source = parse(name)
    allowed = {"torch", "settings", "config", "tracing", "modules"} | set(sys.stdlib_module_names)
    kept_out = {
        "os",
        "io",
        "pathlib",
        "shutil",
        "subprocess",
        "tempfile",
        "pickle",
        "socket",
        "urllib",
        "logging",
    }
    assert not imported(source) - allowed
    assert not imported(source) & kept_out
    assert not called(source) & {"print", "open", "exec", "eval"}


def test_ideas_are_imported_by_tools_alone():
    """A stored run must not bring code, and a broken idea must stop nothing that does not need it."""
    inside = {name for name in FILES if name.startswith("modules/ideas/")}
    assert len(inside) > 1
    assert not [name for name in FILES if name not in inside and own_modules(name) & inside]


def test_no_file_hides_a_package():
    """An __init__.py in tokenizers/ would hide Hugging Face's package; modules/logging.py, Python's own."""
    assert not (ROOT / "tokenizers" / "__init__.py").exists()
    assert not list((ROOT / "tokenizers").rglob("*.py"))
    import tokenizers

    assert ROOT / "tokenizers" not in Path(tokenizers.__file__).parents
    own = {Path(name).stem for name in OF_MODULES} - {"__init__"}
    assert not own & set(sys.stdlib_module_names)


def test_lab_package_imports_nothing():
    assert not imported(parse("lab/__init__.py"))


HEAVY = ["torch", "datasets", "matplotlib", "transformers", "pandas"]


@pytest.mark.parametrize("name", ["lab.data.tales", "lab.data.tokenizers", "lab.data.packing", "tools"])
def test_light_parts_start_without_the_heavy_ones(name):
    code = f"import json, sys, {name}; print(json.dumps([x for x in {HEAVY} if x in sys.modules]))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert json.loads(found.stdout) == []
