"""Position encodings behind one interface.

The model calls its `Position` twice per pass. `embed` adds to the embeddings; `place` makes the `PositionContext` that
every attention of the pass uses on its queries, keys and scores. Attention itself does not ask which encoding it has.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import ModelConfig
from modules.kernels import blocks_for_training, causal_mask
from modules.logging_module import LoggingModule
from modules.rotation import rotate
from settings.registry import built_in, part

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


class PositionContext:
    """The positions of one forward pass as attention uses them; made once, used by every layer. This one does nothing.

    causal: the keys are those of the pass's own tokens, so the causal kernel applies. Otherwise the boolean `mask`,
    broadcastable to (B, H, T, S), says which keys each query may see; None: all of them. extends: whether `extend`
    carries the bias. window: how many keys a query of a causal pass sees, its own included; None: all up to its own.
    The model sets it, and every mask that it makes holds it. blocks: where FlexAttention serves better than `extend`,
    the same keys as it wants them, and then the bias is `slopes` · (key − query).
    """

    extends = False
    window: int | None = None
    blocks: "BlockMask | None" = None

    def __init__(self, causal: bool, mask: Tensor | None):
        self.causal, self.mask = causal, mask  # (…, T, S)

    def turn(self, x: Tensor) -> Tensor:
        """Queries and keys (B, N, T, D), N heads of them, rotated by their positions."""
        return x  # (B, N, T, D)

    def bias(self) -> Tensor | None:
        """The tensor added to the scores, broadcastable to (B, H, T, S); None: nothing is added."""
        return None

    def visible(self, n_tokens: int, device: torch.device) -> Tensor | None:
        """True where a query of the pass's n_tokens sees a key, broadcastable to (B, H, T, S); None: everywhere."""
        return causal_mask(n_tokens, 0, 1, device, self.window) if self.causal else self.mask  # (…, T, S)

    @property
    def fits_causal_kernel(self) -> bool:
        """Whether the pass is causal, and its bias, if it has one, is carried by `extend`."""
        return self.causal and (self.extends or self.bias() is None)

    def masked_bias(self) -> Tensor | None:
        """Bias and mask in one tensor, as the fused kernel takes them: numbers to add, or True where a key is seen."""
        bias = self.bias()  # (…, H, T, S)
        if bias is None:
            return self.mask  # (…, T, S)
        seen = self.visible(bias.shape[-2], bias.device)  # (…, T, S)
        return bias if seen is None else bias.masked_fill(~seen, -math.inf)  # (…, H, T, S)

    def extend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v with extra dimensions that carry the bias, for the causal kernel, which takes no bias."""
        return q, k, v  # (B, H, T, E), (B, G, S, E), (B, G, S, E)


class Position(LoggingModule):
    """The base of all position encodings; by itself it encodes nothing. A kind is made by `kind(config)`.

    positions is (T) or (B, T), key_positions is (S). bias_factors: names of tensors that its bias is proportional to.
    """

    bias_factors: tuple[str, ...] = ()

    def __init__(self, config: ModelConfig):
        super().__init__()

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """The embeddings x with what the encoding adds to them."""
        return x  # (B, T, C)

    def place(self, positions: Tensor, key_positions: Tensor, causal: bool, mask: Tensor | None) -> PositionContext:
        """What the attention of every layer does with its queries, keys and scores in this pass."""
        return PositionContext(causal, mask)


@built_in("position", "none")
class NoPosition(Position):
    """No encoding: only the causal mask tells positions apart (Haviv et al. 2022, arXiv 2203.16634)."""


def check_room(length: int, n_positions: int) -> None:
    """Raises ValueError where a table of `length` rows is read at more positions."""
    if n_positions > length:
        raise ValueError(f"{n_positions} positions are more than the {length} of this table; build it longer")


@built_in("position", "learned")
class LearnedPosition(Position):
    """x + P[position], P trained (GPT-2)."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.table = nn.Embedding(config.position_limit, config.width)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        check_room(self.table.num_embeddings, positions.shape[-1])
        return x + self.table(positions)  # (B, T, C)


@built_in("position", "sinusoidal")
class SinusoidalPosition(Position):
    """x + [sin(position · θ^(−2c/C)), cos(…)] (Vaswani et al. 2017, arXiv 1706.03762, section 3.5)."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        angles = _angles(config.position_limit, config.width, config.position.theta)
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).float()
        self.register_buffer("table", table, persistent=False)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        check_room(len(self.table), positions.shape[-1])
        return x + self.table[positions]  # (B, T, C)


@built_in("position", "rope")
class RotaryPosition(Position):
    """Rotates each pair of channels of q and k by position · θ^(−2d/D), so that scores depend on offsets only.

    Su et al. 2021, arXiv 2104.09864; channel d is paired with d + D/2, as Llama's weights expect.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        angles = _angles(config.position_limit, config.head_dim, config.position.theta)
        self.register_buffer("cos", torch.cat((angles.cos(), angles.cos()), dim=-1).float(), persistent=False)
        self.register_buffer("sin", torch.cat((-angles.sin(), angles.sin()), dim=-1).float(), persistent=False)

    def place(self, positions: Tensor, key_positions: Tensor, causal: bool, mask: Tensor | None) -> PositionContext:
        check_room(len(self.cos), key_positions.shape[0])
        # sequences of a batch may be at different positions: then each has its own rows
        rows = positions if positions.dim() == 1 else positions[:, None]  # (…, T)
        return RotaryContext(self.cos[rows], self.sin[rows], causal, mask)


class RotaryContext(PositionContext):
    def __init__(self, cos: Tensor, sin: Tensor, causal: bool, mask: Tensor | None):
        super().__init__(causal, mask)
        self.cos, self.sin = cos, sin  # (…, T, D)

    def turn(self, x: Tensor) -> Tensor:
        return rotate(x, self.cos.to(x.dtype), self.sin.to(x.dtype))  # (B, N, T, D)


@built_in("position", "alibi")
class ALiBi(Position):
    """score − slope · distance, with one slope for each head (Press et al. 2021, arXiv 2108.12409)."""

    bias_factors = ("slopes",)

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        slopes = torch.tensor(config.position.slopes or alibi_slopes(config.n_heads))
        self.register_buffer("slopes", slopes, persistent=False)
        self.window = config.window

    def place(self, positions: Tensor, key_positions: Tensor, causal: bool, mask: Tensor | None) -> PositionContext:
        context = ALiBiContext(self.slopes, positions, key_positions, causal, mask)
        if causal:
            context.blocks = blocks_for_training(len(key_positions), self.window, key_positions.device)
        return context


class ALiBiContext(PositionContext):
    extends = True

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
        v = F.pad(v, (0, extra))  # (B, G, S, E): the kernel wants v as wide as k; attention cuts the zeros off
        return q, k, v  # (B, H, T, E), (B, G, S, E), (B, G, S, E)


def alibi_slopes(n_heads: int) -> list[float]:
    """The paper's slopes: 2^(−8h/n) for head h of n, where n is a power of two (section 3).

    For any other n: those of the next lower power, then every other one of the next higher power, as in the paper's
    reference code.
    """
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2 ** (-8 * (head + 1) / (2 * power)) for head in range(0, 2 * power, 2)]
    return slopes + between[: n_heads - power]


def _angles(length: int, channels: int, theta: float) -> Tensor:
    """position · θ^(−2i/channels) for i below channels/2, in float64: (length, channels/2)."""
    frequencies = theta ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    return torch.arange(length)[:, None] * frequencies


def build_position(config: ModelConfig) -> Position:
    return part("position", config.position.kind)(config)
