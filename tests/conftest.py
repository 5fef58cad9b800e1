"""What all tests share. `pytest -n auto` runs them side by side: then each process computes on one thread."""

import os
import tempfile

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported, here and in subprocesses
else:
    CACHE = tempfile.TemporaryDirectory(prefix="glassbox-tests-")  # prepared data of all tests, nobody else's
    os.environ["GLASSBOX_CACHE"] = CACHE.name


def pytest_addoption(parser):
    parser.addoption("--overwrite", action="store_true", help="write the golden texts anew from what is printed now")


def pytest_collection_modifyitems(items):
    """Marks the quick tests, and runs the folders with the longest tests first: no worker has to wait for their end."""
    from tests.helpers.quick import is_quick

    for item in filter(is_quick, items):
        item.add_marker("quick")
    items.sort(key=lambda item: item.path.parent.name not in ("notebooks", "tracing"))


@pytest.fixture
def seeded():
    """One thread and a fixed seed; imports torch here, so that tests without it start at once."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
