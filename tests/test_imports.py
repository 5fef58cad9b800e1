"""Imports run one way: config -> modules -> lab -> tools -> notebooks; and what is light stays light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from config import ROOT

LAYERS = ["config", "modules", "lab", "tools"]


def files(layer: str) -> list[Path]:
    single = ROOT / f"{layer}.py"
    return [single] if single.is_file() else sorted((ROOT / layer).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


FILES = {relative(path): layer for layer in LAYERS for path in files(layer)}
OF_MODULES = [name for name, layer in FILES.items() if layer == "modules"]


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


@pytest.mark.parametrize("name", OF_MODULES)
def test_modules_are_torch_and_the_standard_library(name):
    """No files, no plots, no prints."""
    source = parse(name)
    allowed = {"torch", "config", "modules"} | set(sys.stdlib_module_names)
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


@pytest.mark.parametrize("name", ["lab.tales", "lab.tokenizers", "lab.data", "tools"])
def test_light_parts_start_without_the_heavy_ones(name):
    code = f"import json, sys, {name}; print(json.dumps([x for x in {HEAVY} if x in sys.modules]))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert json.loads(found.stdout) == []
