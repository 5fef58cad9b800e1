"""The device that the tests run on: that of `--device`.

Tests of modules and of tracing make their tensors there, because it is the default device while they run. Tests of lab
name it, because that is what a user does.
"""

import os

import torch

DEVICE = os.environ["GLASSBOX_TEST_DEVICE"]  # "cpu" or "cuda", as conftest.py found it


def generator(seed: int) -> torch.Generator:
    """A generator of that device."""
    return torch.Generator(DEVICE).manual_seed(seed)
