"""The learning rate range test: against a plain loop, against what training sees, and by whether its advice is good."""

import math

import numpy as np
import pytest
import torch

from config import DataConfig, DropoutConfig, ModelConfig, Preset, ScheduleConfig, TrainConfig
from lab.data.packing import prepare
from lab.runs.run import Run
from lab.terminal import main
from lab.training.loop import train
from lab.training.rate_finder import find_learning_rate, rate_curve, steepest
from modules.transformer import Transformer
from settings.errors import ConfigError

pytestmark = pytest.mark.usefixtures("seeded")

MODEL = ModelConfig(vocab_size=257, context_length=16, n_layers=1, n_heads=2, width=32)
TRAIN = TrainConfig(
    data=DataConfig(tokenizer="byte", max_documents=60, validation_fraction=0.3), steps=40, batch_size=8,
    evaluate_every=40, evaluation_tokens=256, checkpoint_every=40, device="cpu", sample_tokens=3, seed=3,
    schedule=ScheduleConfig(warmup_steps=0),
)
SETTINGS = Preset(MODEL, TRAIN)


@pytest.fixture(scope="module", autouse=True)
def data():
    return prepare(TRAIN.data)


@pytest.fixture(scope="module")
def found(data):
    torch.set_num_threads(1)
    return find_learning_rate(SETTINGS, data)


def test_the_losses_are_those_of_a_plain_loop(data):
    """AdamW's default layout, one group; a model without vectors, so that all of it decays alike."""
    model_config = MODEL.replace(norm=MODEL.norm.replace(weight=False))
    found = find_learning_rate(
        Preset(model_config, TRAIN.replace(optimizer="adamw")), data, lowest=1e-5, highest=1e-2, steps=20
    )
    torch.manual_seed(TRAIN.seed * 1_000_003)
    model, losses = Transformer(model_config), []
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(20):
        windows = torch.from_numpy(data.train.batch(TRAIN.seed, step, TRAIN.batch_size, 16))
        logits = model(windows[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 1e-5 * 1000 ** (step / 19)
        optimizer.step()
        losses.append(loss.item())
    assert found.losses == pytest.approx(losses, rel=1e-4)
    assert found.rates == pytest.approx([1e-5 * 1000 ** (step / 19) for step in range(20)])
    means = [np.average(losses[: n + 1], weights=0.8 ** np.arange(n, -1, -1)) for n in range(20)]
    assert found.smoothed == pytest.approx(means, rel=1e-4)


def test_it_starts_as_training_does(data, tmp_path):
    """At a rate near 0 nothing is learned, so each loss is that of the start on the batch that training would see."""
    dropped = Preset(MODEL.replace(dropout=DropoutConfig(residual=0.3)), TRAIN.replace(precision="fp32"))
    quiet = dropped.train.replace(learning_rate=1e-12, weight_decay=0.0, steps=12)
    logged = [step.loss for step in train(Run.create("one", dropped.model, quiet, tmp_path), data)]
    settings = Preset(dropped.model, quiet.replace(steps=40))
    found = find_learning_rate(settings, data, lowest=1e-13, highest=1e-12, steps=12)
    assert found.losses == pytest.approx(logged, rel=1e-6) and len(set(found.losses)) == 12


def test_the_same_call_gives_the_same_numbers_and_leaves_nothing(data, found, tmp_path, monkeypatch):
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path / "trained")
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    assert find_learning_rate(SETTINGS, data) == found
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []
    other = find_learning_rate(Preset(MODEL, TRAIN.replace(seed=4)), data)
    assert other.losses != found.losses


def test_the_suggestion_teaches_more_than_rates_far_from_it(found, data, tmp_path):
    losses = []
    for number, factor in enumerate((0.03, 1, 300)):
        config = TRAIN.replace(learning_rate=factor * found.suggestion, precision="fp32")
        run = Run.create(f"run{number}", MODEL, config, tmp_path)
        losses.append(np.mean([step.loss for step in train(run, data)][-10:]))
    assert losses[1] < losses[0] - 0.2 and losses[1] < losses[2] - 0.2


def test_it_ends_where_the_loss_diverges(data):
    found = find_learning_rate(SETTINGS, data, lowest=1e-5, highest=1e4, steps=60)
    assert found.diverged and len(found.rates) < 60 and found.rates[-1] < 1e4
    assert len(found.rates) == len(found.losses) == len(found.smoothed)
    assert (found.smoothed <= 1.5 * np.minimum.accumulate(found.smoothed)).all()
    assert "where the loss diverged" in repr(found) and f"{found.suggestion:.1e}" in repr(found)


def test_the_steepest_fall_by_log_rate():
    """A slope that is steepest at 1e-3; behind it a spike, from which the loss recovers more steeply still."""
    rates = np.geomspace(1e-6, 1, 61).tolist()
    curve = [6 - 3 / (1 + math.exp(-3 * (math.log10(rate) + 3))) for rate in rates]
    assert steepest(rates, curve) == pytest.approx(1e-3)
    curve[50] += 3
    assert steepest(rates, curve) == pytest.approx(1e-3)
    with pytest.raises(ConfigError, match=r"never fell between rates of 1.0e-06 and 1.0e\+00"):
        steepest(rates, [6 + rate for rate in rates])


def test_the_picture(found):
    picture = rate_curve(found)
    (plot,) = picture.figure.axes
    raw, smoothed, _, mark = plot.get_lines()
    assert plot.get_xscale() == "log"
    assert (plot.get_xlabel(), plot.get_ylabel()) == ("learning rate (log scale)", "loss (nats per token)")
    ticks = [tick.get_text().replace("\N{MINUS SIGN}", "-") for tick in plot.get_xticklabels()]
    assert {"1e-06", "1e-03", "1e+00"} < set(ticks)
    assert list(raw.get_ydata()) == found.losses and list(smoothed.get_ydata()) == found.smoothed
    assert list(mark.get_xdata()) == [found.suggestion]
    assert f"{found.suggestion:.1e}" in picture.figure.legends[0].get_texts()[2].get_text()
    assert f"{found.suggestion:.1e}" in repr(picture)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(lowest=1e-3, highest=1e-3), "need 0 < lowest < highest, not lowest=0.001 and highest=0.001"),
        (dict(lowest=0.0), "need 0 < lowest"),
        (dict(highest=math.inf), "need 0 < lowest"),
        (dict(lowest=math.nan), "need 0 < lowest"),
        (dict(steps=9), "steps=9 are too few"),
        (dict(lowest=1e3, highest=1e9), r"diverged at step \d of 100, at a rate of 1\.\de\+03; lower lowest"),
    ],
)
def test_refuses_what_makes_no_sense(data, changes, message):
    with pytest.raises(ConfigError, match=message):
        find_learning_rate(SETTINGS, data, **changes)


def test_refuses_a_vocabulary_that_is_too_small(data):
    with pytest.raises(ConfigError, match="vocab_size=100 is smaller than the 257 tokens"):
        find_learning_rate(Preset(MODEL.replace(vocab_size=100), TRAIN), data)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        (Preset(MODEL.replace(vocab_size=100), TRAIN), ConfigError, "vocab_size=100 is smaller than the 257 tokens"),
        (Preset(MODEL, TRAIN.replace(device="mps")), ConfigError, "'mps' is not available"),
    ],
)
def test_what_can_be_refused_is_refused_before_any_text_is_read(monkeypatch, settings, error, message):
    def read(*_):
        raise AssertionError("text was read first")

    monkeypatch.setattr("lab.training.rate_finder.prepare", read)
    with pytest.raises(error, match=message):
        find_learning_rate(settings)


def test_in_the_terminal(found, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path)
    Run.create("one", MODEL, TRAIN, tmp_path)
    assert main(["find-rate", "one", "--picture", str(tmp_path / "rates.png")]) == 0
    assert repr(found) in capsys.readouterr().out.splitlines()
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "data.json", "model_config.json", "tokenizer.json", "train_config.json",
    ]
    assert main(["find-rate", "lama-tiny"]) == 1
    assert "neither a preset nor a run; did you mean 'llama-tiny'" in capsys.readouterr().err
