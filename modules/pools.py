"""Pools: the embeddings of a window of W tokens as a few vectors, (B, N, W, C) -> (B, N, J, C).

A pool is made for the largest window and the most vectors that it is asked for, and takes smaller ones with the first
part of its weights, so that levels can share it. N counts positions: all of a pass, or those with a complete window.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import ModelConfig
from modules.linear import Linear
from modules.logging_module import LoggingModule
from modules.norms import build_norm


class Pool(LoggingModule):
    """The common part: a norm before and a linear map after, where the config has them.

    The pool's owner calls the norm, while each position has only one vector. The kinds differ in `pool`. The simple
    ones cut the window into J parts as equal as possible, and reduce each part to one vector by a sum or the like.
    """

    def __init__(self, config: ModelConfig, window: int, count: int):
        super().__init__()
        width, block = config.width, config.block
        self.norm = build_norm(config.norm, width) if block.norm_before else nn.Identity()
        self.after = Linear(width, width, config.bias) if block.linear_after else nn.Identity()
        self.build(width, window, count, block.factor, config.bias)

    def build(self, width: int, window: int, count: int, factor: int, bias: bool) -> None:
        """Makes the weights, where a pool has any."""

    def forward(self, x: Tensor, count: int) -> Tensor:
        """Windows (B, N, W, C) as `count` vectors each: (B, N, J, C)."""
        return self.after(self.pool(x, count))  # (…, J, C)

    def pool(self, x: Tensor, count: int) -> Tensor:
        parts = x.tensor_split(count, dim=2)
        return torch.stack([self.reduce(part) for part in parts], dim=2)  # (…, J, C)

    def reduce(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class SumPool(Pool):
    def reduce(self, x: Tensor) -> Tensor:
        return x.sum(dim=2)  # (B, N, C)


class MeanPool(Pool):
    def reduce(self, x: Tensor) -> Tensor:
        return x.mean(dim=2)  # (B, N, C)


class MaxPool(Pool):
    """The largest value of each channel."""

    def reduce(self, x: Tensor) -> Tensor:
        return x.amax(dim=2)  # (B, N, C)


class ParametricSumPool(Pool):
    """Σ_w a[j, w] · x_w, with trained a."""

    def build(self, width, window, count, factor, bias):
        self.weight = nn.Parameter(torch.eye(count, window))  # (J, W)

    def pool(self, x: Tensor, count: int) -> Tensor:
        weight = self.weight[:count, : x.shape[2]]  # (J, W)
        return (x.mT @ weight.mT).mT  # (…, J, C)


class ParametricMaxPool(ParametricSumPool):
    """max_w a[j, w] · x_w in each channel, with trained a."""

    def pool(self, x: Tensor, count: int) -> Tensor:
        weight = self.weight[:count, : x.shape[2], None]  # (J, W, 1)
        return torch.stack([(row * x).amax(dim=2) for row in weight], dim=2)  # (…, J, C)


class FlattenPool(Pool):
    """A linear map of the whole window, its tokens side by side."""

    def build(self, width, window, count, factor, bias):
        self.map = Linear(window * width, count * width, bias)

    def pool(self, x: Tensor, count: int) -> Tensor:
        inputs, outputs = x.shape[2] * x.shape[3], count * x.shape[3]
        bias = None if self.map.bias is None else self.map.bias[:outputs]  # (JC)
        y = F.linear(x.flatten(2), self.map.weight[:outputs, :inputs], bias)  # (B, N, JC)
        return y.unflatten(-1, (count, -1))  # (…, J, C)


class ConvolutionPool(Pool):
    """The largest answer of a filter over each `factor` neighbours (Kim 2014, arXiv 1408.5882)."""

    def build(self, width, window, count, factor, bias):
        self.factor = factor
        self.map = Linear(factor * width, count * width, bias)

    def pool(self, x: Tensor, count: int) -> Tensor:
        outputs = count * x.shape[3]
        neighbours = x.unflatten(2, (-1, self.factor)).flatten(3)  # (B, N, I, O)
        bias = None if self.map.bias is None else self.map.bias[:outputs]  # (JC)
        answers = F.linear(neighbours, self.map.weight[:outputs], bias)  # (B, N, I, JC)
        return answers.amax(dim=2).unflatten(-1, (count, -1))  # (…, J, C)


class AttentionPool(Pool):
    """softmax_w(q_j · x_w / √C) · x_w, with trained queries."""

    def build(self, width, window, count, factor, bias):
        self.queries = nn.Parameter(torch.eye(count, width))  # (J, C)
        self.scale = width**-0.5

    def pool(self, x: Tensor, count: int) -> Tensor:
        scores = x @ self.queries[:count].mT * self.scale  # (B, N, W, J)
        return scores.softmax(dim=2).mT @ x  # (…, J, C)


class SelfAttentionPool(Pool):
    """softmax_w(q_j · k(x_w) / √C) · x_w, with queries made of the window's mean."""

    def build(self, width, window, count, factor, bias):
        self.queries = Linear(width, count * width, bias)
        self.keys = Linear(width, width, bias=False)  # softmax ignores what all keys share
        self.scale = width**-0.5

    def pool(self, x: Tensor, count: int) -> Tensor:
        queries = self.queries(x.mean(dim=2)).unflatten(-1, (-1, x.shape[3]))[:, :, :count]  # (…, J, C)
        scores = queries @ self.keys(x).mT * self.scale  # (B, N, J, W)
        return scores.softmax(dim=3) @ x  # (…, J, C)


POOLS = {
    "sum": SumPool,
    "mean": MeanPool,
    "max": MaxPool,
    "parametric_sum": ParametricSumPool,
    "parametric_max": ParametricMaxPool,
    "flatten": FlattenPool,
    "convolution": ConvolutionPool,
    "attention": AttentionPool,
    "self_attention": SelfAttentionPool,
}


def build_pool(config: ModelConfig, window: int, count: int) -> Pool:
    return POOLS[config.block.pool](config, window, count)
