"""Known cards and the share of their peak that a training uses."""

import re

import pytest

from config import DistilConfig, ModelConfig, NormConfig, TrainConfig, preset
from lab.costs.estimates import estimate
from lab.costs.hardware import CARDS, find_card, mfu_per_token
from settings.registry import REGISTRY, Kind

TRAIN = TrainConfig()


@pytest.mark.parametrize("name, bf16, tf32", [
    ("NVIDIA H100 80GB HBM3", 989.4, 494.7),
    ("NVIDIA H100 PCIe", 756, 378),
    ("NVIDIA H200", 989.5, 494.7),
    ("NVIDIA A100-SXM4-40GB", 312, 156),
    ("NVIDIA A100-SXM4-80GB", 312, 156),
    ("NVIDIA A100-PCIE-40GB", 312, 156),
    ("A100-SXM4-40GB", 312, 156),
    ("NVIDIA A100 80GB PCIe", 312, 156),
    ("NVIDIA L4", 121, 60),
    ("NVIDIA L40S", 362.05, 183),
    ("Tesla T4", None, None),
    ("Tesla V100-SXM2-16GB", None, None),
    ("NVIDIA Tesla T4", None, None),
    ("NVIDIA GeForce RTX 3090", 71, 35.6),
    ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
])
def test_a_card_is_known_by_the_name_that_torch_gives(name, bf16, tf32):
    card = find_card(name)
    assert (card.bf16, card.tf32) == (bf16, tf32) and card.source


@pytest.mark.parametrize("name", [
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 3090 Ti",
    "NVIDIA A10G", "NVIDIA GeForce RTX 4090 D", "cpu AMD EPYC 9R14", "Another card", "",
])
def test_what_only_resembles_a_card_is_not_known(name):
    assert find_card(name) is None


def test_the_table_is_of_dense_peaks():
    """On cards with tensor cores for both, TF32 products have half the rate of bf16; no name is listed twice."""
    assert len({card.name for card in CARDS}) == len(CARDS)
    for card in CARDS:
        assert re.compile(card.name) and card.fp32 > 0 and (card.bf16 is None) == (card.tf32 is None)
        assert card.bf16 is None or card.bf16 / card.tf32 == pytest.approx(2, rel=0.02)


def test_mfu_of_gpt2_on_an_h200_is_that_of_the_formula():
    """424,000 tokens/s were measured to be an MFU of 0.37 by 6 N + 12 L C T (PaLM, appendix B)."""
    model = preset("gpt2-124m").model
    formula = 6 * estimate(model).parameters + 12 * model.n_layers * model.width * model.context_length
    ours = mfu_per_token(model, TRAIN, "NVIDIA H200", "bf16")
    assert 424_000 * ours == pytest.approx(424_000 * formula / 989.5e12, rel=0.02)
    assert round(424_000 * ours, 2) == 0.37


def test_checkpointing_does_not_count_and_precision_chooses_the_peak():
    model = preset("llama-tiny").model
    of = {p: mfu_per_token(model, TRAIN, "NVIDIA A100-SXM4-80GB", p) for p in ("bf16", "tf32", "fp32")}
    assert of["tf32"] == pytest.approx(2 * of["bf16"]) and of["fp32"] == pytest.approx(16 * of["bf16"])
    again = mfu_per_token(model, TRAIN.replace(gradient_checkpointing=True), "NVIDIA A100-SXM4-80GB", "bf16")
    assert again == of["bf16"]


def test_where_it_is_not_known_there_is_none(monkeypatch):
    model = preset("llama-tiny").model
    assert mfu_per_token(model, TRAIN, "cpu AMD EPYC 9R14", "bf16") is None
    assert mfu_per_token(model, TRAIN, "Tesla T4", "bf16") is None
    assert mfu_per_token(model, TRAIN, "Tesla T4", "fp32") > 0
    assert mfu_per_token(model, TRAIN.replace(distil=DistilConfig(teacher="any")), "NVIDIA L4", "bf16") is None


def test_a_part_whose_costs_can_not_be_measured_trains_without(monkeypatch):
    class Asking:
        def __init__(self, *_):
            raise ValueError("depends on numbers")

    monkeypatch.setitem(REGISTRY.kinds["norm"], "asking", Kind(part=Asking))
    model = ModelConfig(vocab_size=50, norm=NormConfig(kind="asking"))
    assert mfu_per_token(model, TRAIN, "NVIDIA L4", "bf16") is None
