"""Clipping against torch's own."""

import math

import pytest
import torch
from torch import nn

from lab.compute.sharding import clip_gradients


def parameters_with_gradients(scale: float) -> list[nn.Parameter]:
    """Their gradients together have about this norm; one parameter has none."""
    made = [nn.Parameter(torch.zeros(shape)) for shape in ((40, 30), (30,), (), (7,))]
    for parameter in made[:3]:
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * scale / 35.0
    return made


@pytest.mark.parametrize("scale", (1e-9, 0.5, 2.0, 1e6, math.inf, math.nan))
@pytest.mark.parametrize("limit", (1.0, math.inf))
def test_clipping_is_that_of_torch(scale, limit):
    ours, expected = parameters_with_gradients(scale), parameters_with_gradients(scale)
    norm = clip_gradients(ours, limit)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(expected, limit), rtol=0, atol=0, equal_nan=True)
    for found, wanted in zip(ours[:3], expected[:3], strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=0, atol=0, equal_nan=True)
    assert ours[3].grad is None


def test_the_limit_itself_is_scaled_as_torch_scales_it():
    """By the limit over the norm and a millionth, which is less than 1."""
    ours, expected = parameters_with_gradients(1.0), parameters_with_gradients(1.0)
    limit = float(nn.utils.get_total_norm([parameter.grad for parameter in ours[:3]]))
    before = ours[0].grad.clone()
    clip_gradients(ours, limit)
    nn.utils.clip_grad_norm_(expected, limit)
    assert torch.equal(ours[0].grad, expected[0].grad) and not torch.equal(ours[0].grad, before)


@pytest.mark.parametrize("scale, times", ((0.5, 0), (2.0, 1)))
def test_gradients_within_the_limit_are_not_written(scale, times):
    (parameter, *_) = ours = parameters_with_gradients(scale)
    version = parameter.grad._version
    clip_gradients(ours, 1.0)
    assert parameter.grad._version == version + times
