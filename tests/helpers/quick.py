"""The tests of `make test-quick`: these files, and the laws for each architecture as its presets have it."""

import pytest

from config import ARCHITECTURES
from settings.paths import ROOT
from tests.helpers.variants import VARIANTS

FILES = {
    "test_config.py", "test_imports.py", "test_make.py", "test_requirements.py",
    "test_shown_commands.py", "test_tools.py",
    "lab/test_arguments.py", "lab/compute/test_schedule.py", "lab/generation/test_sampling.py",
    "lab/runs/test_names.py", "modules/test_linear.py", "modules/test_modules.py", "modules/test_positions.py",
}
LAWS = "modules/test_laws.py"
PRESETS = [VARIANTS[name] for name in ARCHITECTURES]


def is_quick(item: pytest.Item) -> bool:
    file = item.path.relative_to(ROOT / "tests").as_posix()
    return file in FILES or (file == LAWS and item.callspec.params.get("config") in PRESETS)
