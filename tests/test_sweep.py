"""Sweeps: every variant with every seed, resumable to the same numbers; and models of equal size."""

import statistics

import pytest
import torch
from safetensors.torch import load_file

from config import (
    ConfigError,
    DataConfig,
    FactoredBlockConfig,
    MLPConfig,
    ModelConfig,
    Preset,
    RunError,
    ScheduleConfig,
    TrainConfig,
)
from lab.estimates import estimate
from lab.runs import Run
from lab.sweep import matched, mean_and_spread, sweep, sweep_results
from modules.transformer import Transformer

MODEL = ModelConfig(vocab_size=257, context_length=16, n_layers=1, n_heads=2, width=16)
TRAIN = TrainConfig(
    data=DataConfig(tokenizer="byte", max_documents=60, validation_fraction=0.3), steps=4, batch_size=2,
    evaluate_every=2, evaluation_tokens=64, precision="fp32", device="cpu", sample_tokens=3, checkpoint_every=4,
    schedule=ScheduleConfig(warmup_steps=1),
)  # fmt: skip
VARIANTS = {"plain": Preset(MODEL, TRAIN), "wide": Preset(MODEL.replace(mlp=MLPConfig(ratio=6.0)), TRAIN)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))


def trained(folder):
    return [(run.name, step.step) for run, step in sweep(VARIANTS, (0, 1), folder)]


def test_all_are_trained_in_order_and_a_stopped_sweep_goes_on_to_the_same_weights(tmp_path):
    names = ["plain-seed0", "wide-seed0", "plain-seed1", "wide-seed1"]
    assert trained(tmp_path / "whole") == [(name, step) for name in names for step in (1, 2, 3, 4)]
    assert trained(tmp_path / "whole") == [], "nothing is left to do"
    for count, _ in enumerate(sweep(VARIANTS, (0, 1), tmp_path / "parts"), start=1):
        if count == 6:
            break
    assert trained(tmp_path / "parts")[0] == ("wide-seed0", 3)
    for name in names:
        whole, parts = (load_file(tmp_path / folder / name / "model.safetensors") for folder in ("whole", "parts"))
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    results = sweep_results(Run.open(name, tmp_path / "whole") for name in names)
    assert list(results["variant"]) == ["plain", "wide"] * 2 and list(results["seed"]) == [0, 0, 1, 1]
    assert list(results["tokens"]) == [4 * 2 * 16] * 4
    spread = mean_and_spread(results).loc["wide"]
    losses = list(results[results["variant"] == "wide"]["validation_loss"])
    assert spread["validation_loss"] == pytest.approx(statistics.mean(losses))
    assert spread["validation_loss sd"] == pytest.approx(statistics.stdev(losses))
    assert losses[0] != losses[1]


def test_another_trainings_run_is_not_taken_for_ones_own(tmp_path):
    trained(tmp_path)
    changed = {"plain": Preset(MODEL, TRAIN.replace(learning_rate=0.5))}
    with pytest.raises(RunError, match=r"'plain-seed0' .* was made with other settings"):
        next(sweep(changed, (0,), tmp_path))


def test_matched_models_have_equally_many_parameters():
    wanted = sum(p.numel() for p in Transformer(MODEL.replace(width=64, n_heads=4)).parameters())
    block = FactoredBlockConfig(value_mixing="independent", output_mixing="kronecker")
    made = matched(Preset(MODEL.replace(width=64, n_heads=4, block=block), TRAIN), wanted)
    assert made.model.mlp.ratio != 4.0 and made.train == TRAIN
    assert sum(p.numel() for p in Transformer(made.model).parameters()) == pytest.approx(wanted, rel=0.02)
    assert estimate(made.model).parameters == sum(p.numel() for p in Transformer(made.model).parameters())
    with pytest.raises(ConfigError, match="no MLP brings this model to 1,000 parameters"):
        matched(made, 1_000)
