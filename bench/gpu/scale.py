"""The sizes that are measured: those of the card, and tiny ones that rehearse everything on a CPU."""

from typing import NamedTuple

from bench.steps import Size


class Scale(NamedTuple):
    """sizes: of training, and for llama. decoders: of greedy decoding. lengths: of attention.

    width, heads, batch: of attention. batches, start, end: of decoding. seconds: a training within `train` at least.
    """

    device: str
    sizes: dict[str, Size]
    decoders: dict[str, Size]
    batches: tuple[int, ...]
    start: int
    end: int
    lengths: tuple[int, ...]
    attention: Size
    seconds: float


CARD = Scale(
    device="cuda",
    sizes={
        "124M": Size(12, 12, 768, 1024, 16, 50_257),
        "6 × 384": Size(6, 6, 384, 256, 64),
        "2 × 128": Size(2, 2, 128, 128, 64),
    },
    decoders={"6 × 256": Size(6, 8, 256, 256, 1), "12 × 768": Size(12, 12, 768, 256, 1)},
    batches=(1, 32), start=16, end=256,
    lengths=(1024, 4096), attention=Size(1, 12, 768, 4096, 4),
    seconds=2.0,
)
REHEARSAL = Scale(
    device="cpu",
    sizes={"124M": Size(2, 2, 32, 16, 4, 520), "2 × 128": Size(1, 2, 16, 16, 4, 512)},
    decoders={"6 × 256": Size(2, 2, 16, 32, 1, 64)},
    batches=(1, 3), start=4, end=12,
    lengths=(16, 32), attention=Size(1, 2, 16, 32, 2, 64),
    seconds=0.1,
)
