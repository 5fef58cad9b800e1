"""Pools: reduce the embeddings of a window of W tokens to J vectors, (B, N, W, C) -> (B, N, J, C).

Levels may share a pool. It is then made for the largest window and the most vectors, and uses the first part of its
weights for smaller ones. N counts positions: all of a pass, or those with a complete window.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import ModelConfig
from modules.linear import Linear
from modules.logging_module import LoggingModule
from modules.norms import build_norm
from settings.registry import built_in, part


class Pool(LoggingModule):
    """The base of all pools: a norm before and a linear map after, where the config has them.

    A kind is made by `kind(config, window, count)`, makes its weights in `build` and computes in `pool`. The pool's
    owner calls the norm, while each position still has only one vector.
    """

    def __init__(self, config: ModelConfig, window: int, count: int):
        super().__init__()
        width, block = config.width, config.block
        self.norm = build_norm(config.norm, width) if block.norm_before else nn.Identity()
        self.after = Linear(width, width, config.bias) if block.linear_after else nn.Identity()
        self.build(config, window, count)

    def build(self, config: ModelConfig, window: int, count: int) -> None:
        """Makes the weights, for a pool that has any."""

    def initialise(self, config: ModelConfig) -> None:
        """Draws its vectors from N(0, 1), the size of what is normed, so that they differ from each other."""
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter)

    def forward(self, x: Tensor, count: int) -> Tensor:
        """Reduces each window of (B, N, W, C) to `count` vectors: (B, N, J, C)."""
        return self.after(self.pool(x, count))  # (…, J, C)


class PartsPool(Pool):
    """Cuts the window into J parts, as equal as possible, and reduces each of them to one vector."""

    def pool(self, x: Tensor, count: int) -> Tensor:
        pieces = x.tensor_split(count, dim=2)
        return torch.stack([self.reduce(piece) for piece in pieces], dim=2)  # (…, J, C)

    def reduce(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@built_in("pool", "sum")
class SumPool(PartsPool):
    """The sum of the vectors."""

    def reduce(self, x: Tensor) -> Tensor:
        return x.sum(dim=2)  # (B, N, C)


@built_in("pool", "mean")
class MeanPool(PartsPool):
    """The mean of the vectors."""

    def reduce(self, x: Tensor) -> Tensor:
        return x.mean(dim=2)  # (B, N, C)


@built_in("pool", "max")
class MaxPool(PartsPool):
    """The largest value of each channel."""

    def reduce(self, x: Tensor) -> Tensor:
        return x.amax(dim=2)  # (B, N, C)


@built_in("pool", "parametric_sum")
class ParametricSumPool(Pool):
    """Σ_w a[j, w] · x_w, with trained a."""

    def build(self, config: ModelConfig, window: int, count: int) -> None:
        self.weight = nn.Parameter(torch.eye(count, window))  # (J, W)

    def pool(self, x: Tensor, count: int) -> Tensor:
        weight = self.weight[:count, : x.shape[2]]  # (J, W)
        return (x.mT @ weight.mT).mT  # (…, J, C)


@built_in("pool", "parametric_max")
class ParametricMaxPool(ParametricSumPool):
    """max_w a[j, w] · x_w in each channel, with trained a."""

    def pool(self, x: Tensor, count: int) -> Tensor:
        weight = self.weight[:count, : x.shape[2], None]  # (J, W, 1)
        return torch.stack([(row * x).amax(dim=2) for row in weight], dim=2)  # (…, J, C)


@built_in("pool", "flatten")
class FlattenPool(Pool):
    """A linear map of the whole window, its tokens side by side."""

    def build(self, config: ModelConfig, window: int, count: int) -> None:
        self.map = Linear(window * config.width, count * config.width, config.bias)

    def pool(self, x: Tensor, count: int) -> Tensor:
        inputs, outputs = x.shape[2] * x.shape[3], count * x.shape[3]
        bias = None if self.map.bias is None else self.map.bias[:outputs]  # (JC)
        y = F.linear(x.flatten(2), self.map.weight[:outputs, :inputs], bias)  # (B, N, JC)
        return y.unflatten(-1, (count, -1))  # (…, J, C)


@built_in("pool", "convolution")
class ConvolutionPool(Pool):
    """The largest output of a filter over each `factor` neighbours (Kim 2014, arXiv 1408.5882)."""

    def build(self, config: ModelConfig, window: int, count: int) -> None:
        self.factor = config.block.factor
        self.map = Linear(self.factor * config.width, count * config.width, config.bias)

    def pool(self, x: Tensor, count: int) -> Tensor:
        outputs = count * x.shape[3]
        neighbours = x.unflatten(2, (-1, self.factor)).flatten(3)  # (B, N, I, O)
        bias = None if self.map.bias is None else self.map.bias[:outputs]  # (JC)
        answers = F.linear(neighbours, self.map.weight[:outputs], bias)  # (B, N, I, JC)
        return answers.amax(dim=2).unflatten(-1, (count, -1))  # (…, J, C)


@built_in("pool", "attention")
class AttentionPool(Pool):
    """softmax_w(q_j · x_w / √C) · x_w, with trained queries."""

    weighs_by_softmax = True  # with `scale`

    def build(self, config: ModelConfig, window: int, count: int) -> None:
        self.queries = nn.Parameter(torch.eye(count, config.width))  # (J, C)
        self.scale = config.width**-0.5

    def pool(self, x: Tensor, count: int) -> Tensor:
        scores = x @ self.queries[:count].mT * self.scale  # (B, N, W, J)
        return scores.softmax(dim=2).mT @ x  # (…, J, C)


@built_in("pool", "self_attention")
class SelfAttentionPool(Pool):
    """softmax_w(q_j · k(x_w) / √C) · x_w, with queries made from the window's mean."""

    weighs_by_softmax = True  # with `scale`

    def build(self, config: ModelConfig, window: int, count: int) -> None:
        self.queries = Linear(config.width, count * config.width, config.bias)
        self.keys = Linear(config.width, config.width, bias=False)  # a bias of the keys changes no softmax
        self.scale = config.width**-0.5

    def pool(self, x: Tensor, count: int) -> Tensor:
        queries = self.queries(x.mean(dim=2)).unflatten(-1, (-1, x.shape[3]))[:, :, :count]  # (…, J, C)
        scores = queries @ self.keys(x).mT * self.scale  # (B, N, J, W)
        return scores.softmax(dim=3) @ x  # (…, J, C)


def build_pool(config: ModelConfig, window: int, count: int) -> Pool:
    return part("pool", config.block.pool)(config, window, count)
