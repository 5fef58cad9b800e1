"""What a model will cost before it is built: parameters, FLOPs per token, memory. Imports no torch.

Each part of a model says its own counts, in functions named and ordered like the classes of `modules/`; the rest is
adding up. Parameters and FLOPs are exact. Memory is that of eager PyTorch on a CPU: `training_memory` goes through one
step as autograd does, with bytes in place of tensors, and returns the moment at which most are alive.

FLOPs count matrix products alone, two for each multiply-add: every weight of a linear layer once per token, the head
included, and attention's scores and mixing over all T = context_length keys, although a causal kernel may skip half. The
backward pass takes twice the forward's; checkpointing computes the blocks' forward a second time, but for a last
projection that nothing needs.
"""

from dataclasses import dataclass, field, replace
from html import escape
from typing import NamedTuple

from config import ConfigError, ModelConfig, TrainConfig

FP32 = 4  # bytes: weights, gradients, AdamW's moments and the residual stream in every precision
VALUE_BYTES = {"fp32": 4, "bf16": 2}  # of a value inside a sub-layer
QUERY_BLOCK, LONGEST_WRITTEN_OUT, LOSS_CHUNK = 128, 1024, 1024  # BLOCK and LONGEST of kernels.py, CHUNK of losses.py


class Pass(NamedTuple):
    """Sequences that go through the model at once, tokens in each, bytes of a value inside the sub-layers."""

    sequences: int
    length: int
    value: int

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    def copies(self, parameters: int) -> int:
        """Bytes of the low-precision copies that autocast makes of a layer's weights and holds until its backward."""
        return self.value * parameters if self.value < FP32 else 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """The counts of one module.

    parameters, and buffers in values; products: multiply-adds per token, of which unread are spared when a
    checkpointed block is computed again; cached: values per token in the key-value cache. In bytes: kept for the
    backward pass, copies of weights kept with them, working: what the module's backward pass adds while it runs,
    gradient: what is there of the parameters' gradients after it (None: all of them).
    """

    parameters: int = 0
    buffers: int = 0
    products: int = 0
    unread: int = 0
    cached: int = 0
    kept: int = 0
    copies: int = 0
    working: int = 0
    gradient: int | None = None

    @property
    def gradients(self) -> int:
        return FP32 * self.parameters if self.gradient is None else self.gradient


# --- the parts, as in modules/ --------------------------------------------------------------------------------


def norm(config: ModelConfig, run: Pass, value: int = FP32) -> Part:
    """value: bytes of the input's numbers; below 4 only for a norm that follows a sub-layer under autocast."""
    weight, numbers = config.norm.weight, run.tokens * config.width
    kept, working = {
        "rms": (FP32 * numbers * (1 + weight) + FP32 * run.tokens, 3),  # x, x/rms where a weight follows, 1/rms
        "layer": (value * numbers + 2 * FP32 * run.tokens, 2),  # x, mean, 1/sd
        "cosine": (value * numbers * (1 + weight) + 2 * FP32 * run.tokens, 4),  # x, its direction, two lengths
    }[config.norm.kind]
    return Part(
        parameters=config.width * (weight + config.norm.bias), kept=kept, working=working * FP32 * numbers
    )


class QueryKeyCost(NamedTuple):
    """What a position encoding does to q and k: whether it makes new ones, and dimensions that it adds to each head."""

    turned: bool = False
    extra: int = 0


POSITIONS = {
    "none": lambda config: Part(),
    "learned": lambda config: Part(parameters=config.position_limit * config.width),
    "sinusoidal": lambda config: Part(buffers=config.position_limit * config.width),
    "rope": lambda config: Part(buffers=2 * config.position_limit * config.head_dim),
    "alibi": lambda config: Part(buffers=config.n_heads),
}
QUERY_KEY_COSTS = {
    "rope": lambda run: QueryKeyCost(turned=True),
    "alibi": lambda run: QueryKeyCost(extra=1 if run.value == FP32 else 2),
}


def attention(config: ModelConfig, run: Pass) -> Part:
    width, projected = config.width, config.width + 2 * config.kv_heads * config.head_dim
    parameters = width * (projected + width) + config.bias * (projected + width)
    turned, extra = QUERY_KEY_COSTS.get(config.position.kind, lambda run: QueryKeyCost())(run)
    joined = config.n_heads * (config.head_dim + extra)  # all heads of q
    grouped = config.kv_heads * (config.head_dim + extra)  # all heads of k
    numbers = 2 * width  # what the two projections read
    working = 0
    if config.dropout.attention:  # PyTorch's formula, in float32: q, k, v, and T² weights, noise, weights · noise
        numbers += (3 * joined + 3 * config.n_heads * run.length) * FP32 // run.value
        working = 2 * FP32 * config.n_heads * run.length + 4 * FP32 * joined
    elif run.value < FP32 and run.length <= LONGEST_WRITTEN_OUT:  # modules.kernels.CausalAttention: q, k, v, weights
        starts = range(0, run.length, QUERY_BLOCK)
        ends = [min(start + QUERY_BLOCK, run.length) for start in starts]
        numbers += 3 * joined + config.n_heads * sum((e - s) * e for s, e in zip(starts, ends)) // run.length
        rows = sum(reversed([*ends, ends[-1]][-3:]))  # d_p and d_scores of this block, d_scores of the one before
        working = config.n_heads * run.value * QUERY_BLOCK * rows // run.length + joined * (2 * run.value + 3 * FP32)
    else:  # PyTorch's fused kernel: q, k, v, its result, log-sum-exp
        made = joined + 2 * grouped if extra else projected + turned * (joined + grouped)
        numbers += made + extra * joined // max(1, extra) + config.n_heads * FP32 // run.value
        working = run.value * (joined + (joined + 2 * grouped) + extra * joined // max(1, extra))
    noise = width if config.dropout.residual else 0
    return Part(
        parameters=parameters,
        products=width * (projected + width) + 2 * run.length * width,
        cached=2 * config.kv_heads * config.head_dim,
        kept=run.tokens * run.value * (numbers + noise),
        copies=run.copies(parameters),
        working=run.tokens * working,
    )
