"""What all tests share. `pytest -n auto` runs them side by side: then each process computes on one thread."""

import gc
import os
import tempfile
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported, here and in subprocesses
else:
    CACHE = tempfile.TemporaryDirectory(prefix="glassbox-tests-")  # prepared data of all tests, nobody else's
    os.environ["GLASSBOX_CACHE"] = CACHE.name


def pytest_addoption(parser):
    parser.addoption("--overwrite", action="store_true", help="write the golden texts anew from what is printed now")
    parser.addoption(
        "--device", choices=("cpu", "cuda"), default="cpu",
        help="where tensors are made; with cuda run the tests that are marked gpu: pytest -n 8 --device cuda -m gpu",
    )


def pytest_configure(config):
    """Refuses a GPU that is absent, and tells tests/helpers/devices.py which device was chosen."""
    os.environ["GLASSBOX_TEST_DEVICE"] = config.option.device
    if config.option.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise pytest.UsageError("--device cuda: PyTorch sees no GPU here; leave the option out to test on the CPU")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """A GPU is the default device of tests of modules and tracing; tests of lab name the device of their models."""
    if item.config.option.device == "cuda":
        import torch

        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        torch.set_default_device(None if folder == "lab" else "cuda")


def pytest_ignore_collect(collection_path, config):
    """On a GPU only the files with tests for one are imported; what the others need may not be installed there."""
    if config.option.device == "cuda":
        from tests.helpers.gpu import has_tests_for_gpu

        return None if has_tests_for_gpu(collection_path) else True


def pytest_collection_modifyitems(items):
    """Marks the quick tests and those for a GPU, and runs the folders with the longest tests first: no worker has to
    wait for their end."""
    from tests.helpers.gpu import is_for_gpu
    from tests.helpers.quick import is_quick

    for item in filter(is_quick, items):
        item.add_marker("quick")
    for item in filter(is_for_gpu, items):
        item.add_marker("gpu")
    items.sort(key=lambda item: item.path.parent.name not in ("notebooks", "tracing"))


def pytest_collection_finish():
    """The tests that were collected stay until the end, so they are not searched for garbage again and again."""
    gc.freeze()


@pytest.fixture
def seeded():
    """One thread and a fixed seed; imports torch here, so that tests without it start at once."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
