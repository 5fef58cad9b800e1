"""The device that the tests run on: that of `--device`.

Tests of modules and of tracing make their tensors there, because it is the default device while they run. Tests of lab
name it, because that is what a user does.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

DEVICE = os.environ["GLASSBOX_TEST_DEVICE"]  # "cpu" or "cuda", as conftest.py found it


def generator(seed: int) -> torch.Generator:
    """A generator of that device."""
    return torch.Generator(DEVICE).manual_seed(seed)


@contextmanager
def no_default_device() -> Iterator[None]:
    """Inside, as for a user, no default device stands between Python and PyTorch; the tensors have been made before.

    A compiled model needs it: the compiler of torch 2.11 can't follow every function through a default device.
    """
    torch.set_default_device(None)
    try:
        yield
    finally:
        torch.set_default_device(None if DEVICE == "cpu" else DEVICE)
