"""The workbench door: Jupyter and editors complete its names, and nothing heavy is imported to list them."""

import json
import subprocess
import sys

import jedi
import pytest

import tools
from settings.paths import ROOT

STUB = ROOT / "tools.pyi"
HEADING = "# The names of tools.py for editors, written from its HOMES by `pytest tests/test_tools.py --overwrite`\n"


def stub() -> str:
    """The text of tools.pyi: a stub offers a name to others where it imports the name `as` itself."""
    return HEADING + "".join(
        f"from {module} import {name} as {name}\n"
        for module, names in sorted(tools.HOMES.items())
        for name in sorted(names, key=lambda name: (not name.isupper(), name.islower(), name.casefold()))
    )


def test_the_stub_names_what_the_door_offers(request):
    if request.config.getoption("--overwrite"):
        STUB.write_text(stub(), encoding="utf-8")
    assert STUB.read_text(encoding="utf-8") == stub(), "if the change is meant, run this file with --overwrite"


def test_every_name_is_in_one_module_and_there():
    assert len(tools.HOME_OF) == sum(map(len, tools.HOMES.values()))
    for name in tools.__all__:
        assert getattr(tools, name) is not None
    with pytest.raises(AttributeError, match="tools has no 'nothing'; it offers "):
        _ = tools.nothing


IN_JUPYTER = """
import json, sys
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
import tools

shell = InteractiveShell(user_ns={"tools": tools}, ipython_dir=sys.argv[1])
shell.Completer.use_jedi = False
found = {}
with provisionalcompleter():
    for text in ("tools.open_or", "from tools import open_or"):
        found[text] = [match.text for match in shell.Completer.completions(text, len(text))]
heavy = [name for name in ("torch", "pandas", "matplotlib") if name in sys.modules]
print(json.dumps({"names": dir(tools), "found": found, "heavy": heavy}))
"""


def test_jupyter_completes_and_imports_nothing_heavy_for_it(tmp_path):
    command = [sys.executable, "-c", IN_JUPYTER, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["names"] == tools.__all__ and said["heavy"] == []
    for text, matches in said["found"].items():
        assert any(match.endswith("open_or_create") for match in matches), text


def test_an_editor_completes_and_shows_signatures():
    source = "import tools\ntools.open_or\n"
    assert [name.name for name in jedi.Script(source, project=jedi.Project(ROOT)).complete(2, 13)] == ["open_or_create"]
    source = "from tools import preset\npreset("
    (signature,) = jedi.Script(source, project=jedi.Project(ROOT)).get_signatures(2, 7)
    assert signature.to_string().startswith("preset(name: str")
