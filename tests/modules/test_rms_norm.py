"""The RMS norm whose gradient is computed by formula, compared with the textbook's."""

import pytest
import torch

from modules.rms_norm import rms_norm
from tests.helpers.devices import DEVICE
from tests.helpers.gradients import values_and_gradients

pytestmark = pytest.mark.usefixtures("seeded")


def textbook_rms_norm(x, weight=None, eps=1e-5):
    """x / √(mean(x²) + eps) · weight."""
    y = x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt()
    return y if weight is None else y * weight


@pytest.mark.parametrize("weighted", (True, False), ids=("weight", "no weight"))
@pytest.mark.parametrize("shape", ((1, 1), (2, 5, 12), (2, 3, 4, 16)), ids=str)
def test_rms_norm_equals_the_textbook(shape, weighted):
    inputs = [3 * torch.randn(shape), *([torch.randn(shape[-1])] if weighted else [])]
    found = values_and_gradients(lambda x, w=None: rms_norm(x, w, 1e-5), *inputs)
    expected = values_and_gradients(textbook_rms_norm, *(x.double() for x in inputs))
    for ours, formula in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, formula.float(), rtol=1e-5, atol=1e-5)


def test_rms_norm_in_bfloat16_rounds_once():
    """Its result and its gradient are those of float32, brought to bfloat16; also of heads that lie apart in memory,
    and where the backward pass runs under autocast."""
    x = torch.randn(2, 7, 3, 16).bfloat16().transpose(1, 2).requires_grad_()
    direction, weight = torch.randn(x.shape).bfloat16(), torch.randn(16, requires_grad=True)
    wide = x.detach().float().requires_grad_()
    expected = textbook_rms_norm(wide, weight)
    of_wide = torch.autograd.grad(expected, (wide, weight), direction.float())
    with torch.autocast(DEVICE, torch.bfloat16):
        found = rms_norm(x, weight, 1e-5)
        of_x, of_weight = torch.autograd.grad(found, (x, weight), direction)
    assert found.dtype == of_x.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected.bfloat16().float(), rtol=2**-7, atol=0)
    torch.testing.assert_close(of_x.float(), of_wide[0].bfloat16().float(), rtol=2**-7, atol=1e-6)
    torch.testing.assert_close(of_weight, of_wide[1], rtol=1e-5, atol=1e-5)


def test_rms_norm_of_zeros_and_of_huge_numbers():
    for x in (torch.zeros(2, 8), torch.full((2, 8), 1e18)):
        value, gradient = values_and_gradients(lambda x: rms_norm(x, None, 1e-5), x)
        assert value.isfinite().all() and gradient.isfinite().all()
        torch.testing.assert_close(value, x.sign())
