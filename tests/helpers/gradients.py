"""What a function gives and its gradients, to be compared with another function's."""

import torch

from tests.helpers.devices import generator


def values_and_gradients(function, *inputs):
    """The result and its gradients in a fixed random direction."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    direction = torch.randn(out.shape, generator=generator(5)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * direction).sum(), inputs)]
