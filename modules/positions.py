"""Where a token stands: one interface, five encodings.

The model asks its `Position` twice per pass: `embed` adds to the embeddings, `place` says what every layer's
attention does with queries and keys. Attention itself never asks which encoding it was given.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import ModelConfig
from modules.logging_module import LoggingModule


class Placement:
    """The tokens of one forward pass as attention sees them; made once, used by every layer. This one does nothing.

    causal: the keys are just the pass's own tokens, so the causal kernel applies. Otherwise `mask`, boolean,
    broadcastable to (B, H, T, S), says which keys each query may see; None where all are in its past.
    """

    def __init__(self, causal: bool, mask: Tensor | None):
        self.causal, self.mask = causal, mask  # (…, T, S)

    def turn(self, x: Tensor) -> Tensor:
        """Queries and keys, so many heads (B, N, T, D), turned by their positions."""
        return x  # (B, N, T, D)

    def bias(self) -> Tensor | None:
        """What is added to the scores (B, H, T, S), as a broadcastable tensor."""
        return None

    def masked_bias(self) -> Tensor | None:
        """Bias and mask in one, as the fused kernel takes them: a number to add, or True where a key is seen."""
        bias = self.bias()  # (…, H, T, S)
        if bias is None or self.mask is None:
            return self.mask if bias is None else bias  # (…, T, S)
        return bias.masked_fill(~self.mask, -math.inf)  # (…, H, T, S)

    def extend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """The bias carried by extra dimensions, for the causal kernel, which takes no bias."""
        return q, k, v  # (B, H, T, E), (B, G, S, E), (B, G, S, E)


class Position(LoggingModule):
    """No position at all, and the interface: positions is (T) or (B, T), key_positions is (S)."""

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x  # (B, T, C)

    def place(self, positions: Tensor, key_positions: Tensor, causal: bool, mask: Tensor | None) -> Placement:
        return Placement(causal, mask)


def check_room(length: int, n_positions: int) -> None:
    """Raises ValueError where a table of `length` rows is read at more positions."""
    if n_positions > length:
        raise ValueError(f"{n_positions} positions are more than the {length} of this table; build it longer")


class LearnedPosition(Position):
    """x + P[position], P trained (GPT-2)."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.table = nn.Embedding(length, width)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        check_room(self.table.num_embeddings, positions.shape[-1])
        return x + self.table(positions)  # (B, T, C)


class SinusoidalPosition(Position):
    """x + [sin(position · θ^(−2c/C)), cos(…)] (Vaswani et al. 2017, arXiv 1706.03762, section 3.5)."""

    def __init__(self, length: int, width: int, theta: float):
        super().__init__()
        angles = _angles(length, width, theta)
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).float()
        self.register_buffer("table", table, persistent=False)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        check_room(len(self.table), positions.shape[-1])
        return x + self.table[positions]  # (B, T, C)


class RotaryPosition(Position):
    """Each pair of channels of q and k turned by position · θ^(−2d/D), so that scores depend on offsets alone.

    Su et al. 2021, arXiv 2104.09864; channel d is paired with d + D/2, as Llama's weights expect.
    """

    def __init__(self, length: int, head_dim: int, theta: float):
        super().__init__()
        angles = _angles(length, head_dim, theta)
        self.register_buffer("cos", torch.cat((angles.cos(), angles.cos()), dim=-1).float(), persistent=False)
        self.register_buffer("sin", torch.cat((-angles.sin(), angles.sin()), dim=-1).float(), persistent=False)

    def place(self, positions: Tensor, key_positions: Tensor, causal: bool, mask: Tensor | None) -> Placement:
        check_room(len(self.cos), len(key_positions))
        # a row of its own for each sequence, where they stand at different places
        rows = positions if positions.dim() == 1 else positions[:, None]  # (…, T)
        return Turned(self.cos[rows], self.sin[rows], causal, mask)


class Turned(Placement):
    def __init__(self, cos: Tensor, sin: Tensor, causal: bool, mask: Tensor | None):
        super().__init__(causal, mask)
        self.cos, self.sin = cos, sin  # (…, T, D)

    def turn(self, x: Tensor) -> Tensor:
        # (a, b) -> (a cos − b sin, b cos + a sin): rolling by half swaps a and b, and sin carries the sign
        swapped = x.roll(x.shape[-1] // 2, dims=-1)  # (B, N, T, D)
        return torch.addcmul(x * self.cos.to(x.dtype), swapped, self.sin.to(x.dtype))  # (B, N, T, D)


class ALiBi(Position):
    """score − slope · distance, a slope for each head (Press et al. 2021, arXiv 2108.12409)."""

    def __init__(self, slopes: Tensor):
        super().__init__()
        self.register_buffer("slopes", slopes, persistent=False)

    def place(self, positions: Tensor, key_positions: Tensor, causal: bool, mask: Tensor | None) -> Placement:
        return Sloped(self.slopes, positions, key_positions, causal, mask)


class Sloped(Placement):
    def __init__(self, slopes: Tensor, positions: Tensor, key_positions: Tensor, causal: bool, mask: Tensor | None):
        super().__init__(causal, mask)
        self.slopes, self.positions, self.key_positions = slopes, positions, key_positions  # (H), (…, T), (S)

    def bias(self) -> Tensor:
        positions = self.positions if self.positions.dim() == 2 else self.positions[None]  # (B|1, T)
        offsets = self.key_positions - positions[:, None, :, None]  # (B|1, 1, T, S)
        return self.slopes[:, None, None] * offsets  # (B|1, H, T, S)

    def extend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        # Adding the same number to every score of a row does not change its softmax. So slope·(j − i) can be replaced
        # by slope·j, with j counted from the last key. float32 holds every j exactly. bfloat16 keeps eight bits: there
        # j is split into 256·high + low, both exact, and a third dimension subtracts slope·i, roughly, because scores
        # far from 0 would lose their digits to rounding.
        steps = self.key_positions - self.key_positions[-1]  # (S)
        slopes = (self.slopes / scale)[:, None, None]  # (H, 1, 1)
        if k.dtype == torch.bfloat16:
            low = steps % 256  # (S)
            parts = torch.stack((steps - low, low, torch.ones_like(steps)), dim=-1)  # (S, 3)
            turns = torch.cat((slopes.expand(-1, len(steps), 2), -slopes * steps[:, None]), dim=-1)  # (H, T, 3)
        else:
            parts, turns = steps[:, None], slopes.expand(-1, len(steps), 1)  # (S, 1), (H, T, 1)
        extra = parts.shape[-1]
        q = torch.cat((q, turns.to(q.dtype).expand(*q.shape[:-1], extra)), dim=-1)  # (B, H, T, E)
        k = torch.cat((k, parts.to(k.dtype).expand(*k.shape[:-1], extra)), dim=-1)  # (B, G, S, E)
        v = F.pad(v, (0, extra))  # (B, G, S, E): the kernel wants v as wide as k; attention drops the zeros
        return q, k, v  # (B, H, T, E), (B, G, S, E), (B, G, S, E)


def alibi_slopes(n_heads: int) -> list[float]:
    """The paper's slopes: 2^(−8h/n) for n a power of two; else those of the power below, then every other one of
    the power above (its reference code; section 3 gives the rule for powers of two)."""
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2 ** (-8 * (head + 1) / (2 * power)) for head in range(0, 2 * power, 2)]
    return slopes + between[: n_heads - power]


def _angles(length: int, channels: int, theta: float) -> Tensor:
    """position · θ^(−2i/channels) for i below channels/2, in float64: (length, channels/2)."""
    frequencies = theta ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    return torch.arange(length)[:, None] * frequencies


def build_position(config: ModelConfig) -> Position:
    position, length = config.position, config.position_limit
    choices = {
        "none": lambda: Position(),
        "learned": lambda: LearnedPosition(length, config.width),
        "sinusoidal": lambda: SinusoidalPosition(length, config.width, position.theta),
        "rope": lambda: RotaryPosition(length, config.head_dim, position.theta),
        "alibi": lambda: ALiBi(torch.tensor(position.slopes or alibi_slopes(config.n_heads))),
    }
    return choices[position.kind]()
