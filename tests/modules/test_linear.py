"""The linear map equals PyTorch's own, for any number of rows and with either kernel."""

import pytest
import torch
from torch.nn import functional as F

from modules import linear
from modules.linear import Linear


@pytest.mark.parametrize("rows", [(1, 1), (1, 2), (2, 1), (3, 21), (1,), (), (0, 2), (5, 13), (1, 5), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(40, 96), (96, 40), (33, 12), (40, 257), (1, 1), (256, 2048)])
def test_equals_pytorch(seeded, rows, bias, inputs, outputs):
    layer, x = Linear(inputs, outputs, bias=bias), torch.randn(*rows, inputs)
    expected = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None).float()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer(x.mT.contiguous().mT if rows else x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_the_way_for_few_rows_is_taken_only_there(seeded, monkeypatch):
    monkeypatch.setattr(linear, "MKL", True)
    monkeypatch.setattr(linear, "few_rows_linear", lambda x, *_: "few rows")
    layer, x = Linear(8, 16, bias=False), torch.randn(1, 1, 8)
    with torch.inference_mode():
        assert layer(x) == layer(x.expand(2, 1, 8)) == layer(x.expand(1, linear.FEW_ROWS, 8)) == "few rows"
        assert layer(x.expand(linear.FEW_ROWS + 1, 1, 8)).shape == (linear.FEW_ROWS + 1, 1, 16)
        assert layer.double()(x.double()).shape == (1, 1, 16)
    layer.float()(x).sum().backward()
    assert layer.weight.grad is not None
