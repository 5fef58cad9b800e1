"""What known GPUs can compute at most, and which share of it a training uses. Imports no torch by itself.

MFU, the model FLOPs utilisation (Chowdhery et al. 2022, arXiv 2204.02311, appendix B): tokens per second · FLOPs of the
forward and backward pass per token / the card's peak. FLOPs are counted as in `estimate`: attention over all T keys,
the head included, nothing that is computed a second time for checkpointing.
"""

import re
from typing import NamedTuple

from config import ModelConfig, TrainConfig
from lab.costs.estimates import estimate
from settings.errors import IdeaError


class Card(NamedTuple):
    """Peak of dense products with float32 sums, in TFLOP/s, by precision; None: the card has no such units."""

    name: str  # a pattern of all that torch.cuda.get_device_name says, without the maker's name
    bf16: float | None
    tf32: float | None
    fp32: float
    source: str  # of NVIDIA; a figure that it gives with sparsity is halved here


CARDS = (
    Card(r"B200", 2250, 1125, 75, "HGX B200 specifications"),
    Card(r"H200", 989.5, 494.7, 67, "H200 data sheet, SXM"),
    Card(r"H200 NVL", 835.5, 417.7, 60, "H200 data sheet, NVL"),
    Card(r"H100( 80GB HBM3| SXM.*)", 989.4, 494.7, 67, "H100 data sheet, SXM"),
    Card(r"H100 PCIe", 756, 378, 51, "H100 data sheet, PCIe"),
    Card(r"H100 NVL", 835.5, 417.7, 60, "H100 data sheet, NVL"),
    Card(r"GH200 (480GB|96GB HBM3|144G HBM3e)", 989.5, 494.7, 67, "GH200 data sheet"),
    Card(r"A100(-SXM.*|-PCI.*| 80GB PCIe|-PG.*)", 312, 156, 19.5, "A100 data sheet"),
    Card(r"A30", 165, 82, 10.3, "A30 data sheet"),
    Card(r"A10", 125, 62.5, 31.2, "A10 data sheet"),
    Card(r"A40", 149.7, 74.8, 37.4, "A40 data sheet"),
    Card(r"L4", 121, 60, 30.3, "L4 data sheet"),
    Card(r"L40", 181.05, 90.5, 90.5, "L40 data sheet"),
    Card(r"L40S", 362.05, 183, 91.6, "L40S data sheet"),
    Card(r"T4", None, None, 8.1, "T4 data sheet"),
    Card(r"V100-SXM2-(16|32)GB(-LS)?", None, None, 15.7, "V100 data sheet, SXM2"),
    Card(r"V100-PCIE-(16|32)GB", None, None, 14, "V100 data sheet, PCIe"),
    Card(r"RTX A6000", 154.8, 77.4, 38.7, "Ampere GA102 white paper"),
    Card(r"RTX 6000 Ada Generation", 364.2, 182.1, 91.1, "Ada white paper"),
    Card(r"GeForce RTX 3090", 71, 35.6, 35.6, "Ampere GA102 white paper"),
    Card(r"GeForce RTX 4080", 97.5, 48.7, 48.7, "Ada white paper"),
    Card(r"GeForce RTX 4090", 165.2, 82.6, 82.6, "Ada white paper"),
    Card(r"GeForce RTX 5090", 209.5, 104.8, 104.8, "RTX Blackwell white paper"),
)


def find_card(device_name: str) -> Card | None:
    """The card by the name that torch.cuda.get_device_name gives; None for one that is not listed, or a part of one."""
    name = re.sub(r"^(NVIDIA|Tesla) ", "", re.sub(r"^NVIDIA ", "", device_name))
    return next((card for card in CARDS if re.fullmatch(card.name, name) and "MIG" not in name), None)


def mfu_per_token(model: ModelConfig, train: TrainConfig, device_name: str, precision: str) -> float | None:
    """The MFU of a training of one token per second; times its tokens per second, it is the training's.

    None where the card or its peak is not known, where the model's FLOPs can't be counted, and for a distillation,
    whose teacher is not counted.
    """
    card = find_card(device_name)
    peak = getattr(card, precision) if card else None
    if peak is None or train.distil is not None:
        return None
    try:
        return estimate(model).training_flops / (1e12 * peak)
    except IdeaError:  # a part of one's own that can't run without numbers: it trains, and has no MFU
        return None
