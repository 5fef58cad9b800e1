"""Position encodings by themselves, without the model that they are part of."""

from config import ALiBiConfig, LearnedPositionConfig, ModelConfig, PositionConfig, RoPEConfig
from modules.positions import ALiBi, Position, RotaryPosition, build_position


def position_of(position: PositionConfig, length: int, width: int, n_heads: int = 1) -> Position:
    """An encoding of `length` positions, for heads of width / n_heads channels."""
    most = None if isinstance(position, LearnedPositionConfig) else length
    return build_position(
        ModelConfig(
            vocab_size=1, context_length=length, max_positions=most, n_heads=n_heads, width=width, position=position
        )
    )


def rotary(length: int, head_dim: int, theta: float) -> RotaryPosition:
    return position_of(RoPEConfig(theta=theta), length, head_dim)


def alibi(slopes) -> ALiBi:
    """ALiBi with one slope for each head."""
    return position_of(ALiBiConfig(slopes=tuple(map(float, slopes))), 1, len(slopes), len(slopes))
