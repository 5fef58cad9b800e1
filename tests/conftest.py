"""What all tests share."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--overwrite", action="store_true", help="write the golden texts anew from what is printed now")


@pytest.fixture
def seeded():
    """One thread and a fixed seed; imports torch here, so that tests without it start at once."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
