"""What known GPUs can compute and hold at most, and which share of it a training uses. Imports no torch by itself.

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
    """One kind of GPU. A peak is of dense products with float32 sums, in TFLOP/s; None: the card has no such units.

    memory: in GB of 10⁹ bytes as the data sheet has it, of a kind that is sold with more or less the least. link: the
    way to other cards of its node, NVLink or else PCIe, in GB/s in one direction.
    """

    key: str  # what `plan` calls it
    name: str  # a pattern of all that torch.cuda.get_device_name says, without the maker's name
    bf16: float | None
    tf32: float | None
    fp32: float
    memory: float
    link: float
    source: str  # of NVIDIA; a figure that it gives with sparsity, or for both directions, is halved here


CARDS = (
    Card("b200", r"B200", 2250, 1125, 75, 180, 900, "HGX B200 specifications"),
    Card("h200", r"H200", 989.5, 494.7, 67, 141, 450, "H200 data sheet, SXM"),
    Card("h200-nvl", r"H200 NVL", 835.5, 417.7, 60, 141, 450, "H200 data sheet, NVL"),
    Card("h100", r"H100( 80GB HBM3| SXM.*)", 989.4, 494.7, 67, 80, 450, "H100 data sheet, SXM"),
    Card("h100-pcie", r"H100 PCIe", 756, 378, 51, 80, 64, "H100 data sheet, PCIe"),
    Card("h100-nvl", r"H100 NVL", 835.5, 417.7, 60, 94, 300, "H100 data sheet, NVL"),
    Card("gh200", r"GH200 (480GB|96GB HBM3|144G HBM3e)", 989.5, 494.7, 67, 96, 450, "GH200 data sheet"),
    Card("a100-80gb", r"A100(-SXM.*-80GB| 80GB PCIe)", 312, 156, 19.5, 80, 300, "A100 data sheet"),
    Card("a100-40gb", r"A100-(SXM.*|PCI.*|PG.*)", 312, 156, 19.5, 40, 300, "A100 data sheet"),
    Card("a30", r"A30", 165, 82, 10.3, 24, 32, "A30 data sheet"),
    Card("a10", r"A10", 125, 62.5, 31.2, 24, 32, "A10 data sheet"),
    Card("a40", r"A40", 149.7, 74.8, 37.4, 48, 32, "A40 data sheet"),
    Card("l4", r"L4", 121, 60, 30.3, 24, 32, "L4 data sheet"),
    Card("l40", r"L40", 181.05, 90.5, 90.5, 48, 32, "L40 data sheet"),
    Card("l40s", r"L40S", 362.05, 183, 91.6, 48, 32, "L40S data sheet"),
    Card("t4", r"T4", None, None, 8.1, 16, 16, "T4 data sheet"),
    Card("v100", r"V100-SXM2-(16|32)GB(-LS)?", None, None, 15.7, 16, 150, "V100 data sheet, SXM2"),
    Card("v100-pcie", r"V100-PCIE-(16|32)GB", None, None, 14, 16, 16, "V100 data sheet, PCIe"),
    Card("rtx-a6000", r"RTX A6000", 154.8, 77.4, 38.7, 48, 32, "Ampere GA102 white paper"),
    Card("rtx-6000-ada", r"RTX 6000 Ada Generation", 364.2, 182.1, 91.1, 48, 32, "Ada white paper"),
    Card("rtx-3090", r"GeForce RTX 3090", 71, 35.6, 35.6, 24, 32, "Ampere GA102 white paper"),
    Card("rtx-4080", r"GeForce RTX 4080", 97.5, 48.7, 48.7, 16, 32, "Ada white paper"),
    Card("rtx-4090", r"GeForce RTX 4090", 165.2, 82.6, 82.6, 24, 32, "Ada white paper"),
    Card("rtx-5090", r"GeForce RTX 5090", 209.5, 104.8, 104.8, 32, 64, "RTX Blackwell white paper"),
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
