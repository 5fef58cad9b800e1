"""Sweeps: overrides and their names, every variant with every seed, resumable to the same numbers; equal sizes."""

import io
import signal
import statistics
import types
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ipywidgets.widgets.widget import _instances as widget_instances
from safetensors.torch import load_file

import lab.display.static_twin
import lab.training.live
from config import (
    ALiBiConfig,
    DataConfig,
    FactoredBlockConfig,
    MLPConfig,
    ModelConfig,
    NormConfig,
    Preset,
    RoPEConfig,
    ScheduleConfig,
    SinusoidalConfig,
    TrainConfig,
)
from lab.comparison.overrides import grid, overridden, read_values
from lab.comparison.sweep import compare_sweep, matched, mean_and_spread, sweep, sweep_results
from lab.costs.estimates import estimate
from lab.notebooks import WIDGET
from lab.runs.names import check_name, run_names
from lab.runs.run import Run
from modules.transformer import Transformer
from settings.errors import ConfigError, DataError, RunError, TokenizerError

MODEL = ModelConfig(vocab_size=257, context_length=16, n_layers=1, n_heads=2, width=16)
TRAIN = TrainConfig(
    data=DataConfig(tokenizer="byte", max_documents=60, validation_fraction=0.3), steps=4, batch_size=2,
    evaluate_every=2, evaluation_tokens=64, precision="fp32", device="cpu", sample_tokens=3, checkpoint_every=4,
    schedule=ScheduleConfig(warmup_steps=1),
)
START = Preset(MODEL, TRAIN)
VARIANTS = {"plain": START, "wide": Preset(MODEL.replace(mlp=MLPConfig(ratio=6.0)), TRAIN)}
SLOPES = "model.position.slopes"
NAMES = ["plain-seed0", "wide-seed0", "plain-seed1", "wide-seed1"]


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory):
    with pytest.MonkeyPatch.context() as changes:
        changes.setenv("GLASSBOX_CACHE", str(tmp_path_factory.mktemp("cache")))
        changes.setenv("GLASSBOX_PLAIN", "1")
        yield


@dataclass(frozen=True)
class Whole:
    """A sweep that nothing stopped: its folder, its steps in order, and all that it printed."""

    folder: Path
    passed: list
    printed: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory, surroundings) -> Whole:
    folder, printed = tmp_path_factory.mktemp("whole"), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        passed = trained(folder)
    return Whole(folder, passed, printed.getvalue())


def trained(folder, **how):
    return [(run.name, step.step) for run, step in sweep(VARIANTS, (0, 1), folder, **how)]


def assert_same_weights(whole, other):
    for name in NAMES:
        first, second = (load_file(folder / name / "model.safetensors") for folder in (whole.folder, other))
        assert all(torch.equal(first[key], second[key]) for key in first)


# --- overrides ------------------------------------------------------------------------------------------------


def test_a_variant_is_the_start_with_its_settings_changed_under_a_name_that_says_which():
    overrides = [{}, {"train.learning_rate": 1e-3, "model.n_layers": 3}, {"train.schedule.final_fraction": 0.5}]
    deep = Preset(MODEL.replace(n_layers=3), TRAIN.replace(learning_rate=1e-3))
    flatter = TRAIN.replace(schedule=TRAIN.schedule.replace(final_fraction=0.5))
    assert overridden(START, overrides) == {
        "base": START,
        "learning-rate-0.001_n-layers-3": deep,
        "schedule-final-fraction-0.5": Preset(MODEL, flatter),
    }
    assert list(overridden(START, overrides, name="try")) == [
        "try-base", "try-learning-rate-0.001_n-layers-3", "try-schedule-final-fraction-0.5",
    ]


def test_what_all_overrides_have_is_left_out_of_the_names():
    overrides = grid({"train.steps": [9], "train.batch_size": [3, 5]})
    assert {name: settings.train for name, settings in overridden(START, overrides).items()} == {
        "batch-size-3": TRAIN.replace(steps=9, batch_size=3), "batch-size-5": TRAIN.replace(steps=9, batch_size=5),
    }
    assert list(overridden(START, [{"train.steps": 9}])) == ["steps-9"], "one by itself has nothing to share"
    assert list(overridden(START, [{"train.steps": 9}, {"train.steps": 9, "model.n_layers": 2}])) == [
        "base", "n-layers-2",
    ]


@pytest.mark.parametrize(
    "override, name",
    [
        ({"train.learning_rate": 1e-5}, "learning-rate-1e-05"),
        ({"train.learning_rate": 1e20}, "learning-rate-1e20"),
        ({"model.bias": True}, "bias-True"),
        ({"model.norm.bias": True}, "norm-bias-True"),
        ({"train.gradient_clip": None}, "gradient-clip-None"),
        ({"model.mlp.activation": "gelu_tanh"}, "mlp-activation-gelu-tanh"),
        ({"train.data.source": "../my texts/ä*.txt"}, "data-source-my-texts-.txt"),
        ({"train.data.seed": 3}, "data-seed-3"),
        ({"model.block.kind": "shaped", "model.block.mlp_gain": 0.5}, "block-shaped_block-mlp-gain-0.5"),
        ({"model.position.kind": "alibi", SLOPES: (1.0, 0.5)}, "position-alibi_position-slopes-1.0-0.5"),
    ],
)
def test_any_value_makes_a_runs_name(override, name):
    (label,) = overridden(START, [override])
    assert label == name
    check_name(f"{label}-seed0")


def test_a_new_kind_replaces_its_part_and_the_same_kind_does_not():
    turned = Preset(MODEL.replace(position=RoPEConfig(theta=500.0), norm=NormConfig(bias=True)), TRAIN)
    found, mixing = {}, FactoredBlockConfig(value_mixing="dense")
    for override in (
        {"model.position.kind": "rope"}, {"model.position.kind": "alibi"}, {"model.position.kind": "sinusoidal"},
        {"model.position.theta": 7.0, "model.position.kind": "sinusoidal"},
        {"model.block.kind": "factored", "model.block.value_mixing": "dense"}, {"model.norm.kind": "layer"},
    ):
        ((name, settings),) = overridden(turned, [override]).items()
        found[name] = settings.model
    assert found == {
        "position-rope": turned.model,
        "position-alibi": turned.model.replace(position=ALiBiConfig()),
        "position-sinusoidal": turned.model.replace(position=SinusoidalConfig()),
        "position-theta-7.0_position-sinusoidal": turned.model.replace(position=SinusoidalConfig(theta=7.0)),
        "block-factored_block-value-mixing-dense": turned.model.replace(block=mixing),
        "norm-layer": turned.model.replace(norm=NormConfig(kind="layer", bias=True)),
    }


@pytest.mark.parametrize(
    "overrides, message",
    [
        ([{"model.n_layer": 2}], "unknown setting 'model.n_layer'; did you mean 'model.n_layers'"),
        ([{"n_layers": 2}], "unknown setting 'n_layers'; did you mean 'model.n_layers'"),
        ([{"model.position": ALiBiConfig()}], "unknown setting 'model.position'; did you mean 'model.position.kind'"),
        ([{"train.steps": 2.5}], "train.steps must be an integer from 1 to 1,000,000,000, not 2.5"),
        ([{"model.position.kind": ["alibi"]}], r"model.position.kind must be one of 'none', .*'alibi'.*, not \["),
        ([{"model.position.slopes": (0.5, 0.25)}], "unknown setting 'slopes'; choose from: kind, theta"),
        ([{"model.n_heads": 3}], r"with {'model.n_heads': 3}: .*n_heads=3 must divide width=16"),
        ([{"train.seed": 1}], "train.seed is no override: every variant is trained with each of the sweep's seeds"),
        ([{}, {"train.steps": 4}], "come to the same settings, 'base' and 'steps-4'; leave one out"),
        ([{"train.sample_prompt": "a b"}, {"train.sample_prompt": "A-B"}], "two variants would be called 'sample-pro"),
        ([{"train.sample_prompt": "a" * 65}], "too long for a run's name; vary fewer settings, or name"),
        ({"train.steps": 4}, r"an override is a mapping .*, not 'train.steps'; overridden takes a list of them"),
    ],
)
def test_bad_overrides(overrides, message):
    with pytest.raises(ConfigError, match=message):
        overridden(START, overrides)


def test_a_grid_has_every_combination_the_last_setting_changing_fastest():
    assert grid({"train.learning_rate": (1e-3, 4e-3), "model.n_layers": [2, 3]}) == [
        {"train.learning_rate": 1e-3, "model.n_layers": 2}, {"train.learning_rate": 1e-3, "model.n_layers": 3},
        {"train.learning_rate": 4e-3, "model.n_layers": 2}, {"train.learning_rate": 4e-3, "model.n_layers": 3},
    ]
    assert grid({}) == [{}]
    for values in ("alibi", 3, ()):
        with pytest.raises(ConfigError, match=r"model\.position\.kind needs a list of values"):
            grid({"model.position.kind": values})


def test_the_terminals_values_are_read_by_the_types_of_their_settings():
    texts = [
        "train.learning-rate=1e-3, 4e-3", "model.n-kv-heads=None,1", "model.bias=True,False",
        "train.data.tokenizer=byte,512", "model.position.kind=alibi",
    ]
    assert read_values(texts) == {
        "train.learning_rate": [1e-3, 4e-3], "model.n_kv_heads": [None, 1], "model.bias": [True, False],
        "train.data.tokenizer": ["byte", "512"], "model.position.kind": ["alibi"],
    }


@pytest.mark.parametrize(
    "texts, message",
    [
        (["train.steps"], "'train.steps' must name a setting and its values, as in train.learning-rate=1e-3,4e-3"),
        (["train.steps=3", "train.steps=4"], "train.steps is varied twice; give all its values at once"),
        (["train.steps=3,"], "train.steps must be an integer from 1 to 1,000,000,000, not ''"),
        (["train.steps=2.5"], "train.steps must be an integer from 1 to 1,000,000,000, not '2.5'"),
        (["train.learning-rate=nan"], "train.learning_rate must be a finite number above 0, not 'nan'"),
        (["model.bias=1"], "model.bias must be True or False, not '1'"),
        (["model.position.kind=alibo"], "model.position.kind must be one of 'none', .*, not 'alibo'"),
        (["train.step=3"], "unknown setting 'train.step'; did you mean 'train.steps'"),
    ],
)
def test_bad_values_in_the_terminal(texts, message):
    with pytest.raises(ConfigError, match=message):
        read_values(texts)


# --- trainings ------------------------------------------------------------------------------------------------


def test_all_are_trained_in_order_and_a_stopped_sweep_goes_on_to_the_same_weights(tmp_path, whole):
    assert whole.passed == [(name, step) for name in NAMES for step in (1, 2, 3, 4)]
    assert trained(whole.folder) == [], "nothing is left to do"
    for count, _ in enumerate(sweep(VARIANTS, (0, 1), tmp_path / "parts"), start=1):
        if count == 6:
            break
    assert trained(tmp_path / "parts")[0] == ("wide-seed0", 3)
    assert_same_weights(whole, tmp_path / "parts")
    results = sweep_results(Run.open(name, whole.folder) for name in NAMES)
    assert list(results["variant"]) == ["plain", "wide"] * 2 and list(results["seed"]) == [0, 0, 1, 1]
    assert list(results["tokens"]) == [4 * 2 * 16] * 4
    spread = mean_and_spread(results).loc["wide"]
    losses = list(results[results["variant"] == "wide"]["validation_loss"])
    assert spread["validation_loss"] == pytest.approx(statistics.mean(losses))
    assert spread["validation_loss sd"] == pytest.approx(statistics.stdev(losses))
    assert losses[0] != losses[1]


def test_watched_it_says_which_of_how_many_and_a_stop_goes_on_to_the_same_weights(tmp_path, whole, capsys):
    assert whole.printed == "", "unwatched it is silent"
    for run, step in sweep(VARIANTS, (0, 1), tmp_path / "parts", show=True):
        if (run.name, step.step) == ("wide-seed0", 2):
            break
    assert Run.open("wide-seed0", tmp_path / "parts").status() == "stopped at step 2 of 4"
    printed = capsys.readouterr().out
    assert "run 1 of 4: plain-seed0, new\n" in printed and "plain-seed0: finished 4 steps" in printed
    assert "run 2 of 4: wide-seed0, new\n" in printed and "wide-seed0: stopped at step 2 of 4" in printed
    assert trained(tmp_path / "parts", show=True) == [("wide-seed0", 3), ("wide-seed0", 4)] + [
        (name, step) for name in NAMES[2:] for step in (1, 2, 3, 4)
    ]
    printed = capsys.readouterr().out
    assert "plain-seed0" not in printed and "run 2 of 4: wide-seed0, stopped at step 2 of 4\n" in printed
    assert "run 3 of 4: plain-seed1, new\n" in printed and "run 4 of 4: wide-seed1, new\n" in printed
    assert_same_weights(whole, tmp_path / "parts")


@pytest.mark.parametrize("show", [False, True])
@pytest.mark.parametrize("last", [2, 4])
def test_ctrl_c_stops_the_whole_sweep_in_a_runs_last_step_too(tmp_path, whole, show, last):
    passed = []
    for run, step in sweep(VARIANTS, (0, 1), tmp_path / "parts", show=show):
        passed.append((run.name, step.step))
        if step.step == last:
            signal.raise_signal(signal.SIGINT)
    assert passed == [("plain-seed0", step) for step in range(1, last + 1)]
    assert run_names(tmp_path / "parts") == ["plain-seed0"]
    trained(tmp_path / "parts")
    assert_same_weights(whole, tmp_path / "parts")


@pytest.mark.parametrize("last", [2, 4])
def test_the_stop_button_stops_the_whole_sweep(tmp_path, monkeypatch, last):
    shown = []

    def display(bundle, raw, display_id):
        if WIDGET in bundle:
            shown.append(widget_instances[bundle[WIDGET]["model_id"]])
        return types.SimpleNamespace(update=lambda thing, raw=False: None)

    monkeypatch.delenv("GLASSBOX_PLAIN")
    monkeypatch.setattr(lab.training.live, "has_reader", lambda: True)
    monkeypatch.setattr(lab.display.static_twin, "display", display)
    passed = []
    for run, step in sweep(VARIANTS, (0, 1), tmp_path, show=True):
        passed.append((run.name, step.step))
        if passed[-1] == ("wide-seed0", last):
            shown[1].children[1].children[1].click()
    assert passed == [("plain-seed0", n) for n in (1, 2, 3, 4)] + [("wide-seed0", n) for n in range(1, last + 1)]
    assert run_names(tmp_path) == ["plain-seed0", "wide-seed0"]
    assert Run.open("wide-seed0", tmp_path).steps_done() == last


def test_a_training_that_fails_keeps_no_other_from_its_own_and_is_named_at_the_end(tmp_path, capsys):
    overrides = grid({"train.gradient_clip": [None], "train.learning_rate": [1e30, 1e-3]})
    variants, passed = overridden(START, overrides), []
    steps = sweep(variants, (0,), tmp_path, show=True)
    with pytest.raises(RunError, match=r"1 of 2 trainings failed:\n  learning-rate-1e30-seed0: step 2: .*not finite"):
        passed.extend((run.name, step.step) for run, step in steps)
    assert passed == [("learning-rate-1e30-seed0", 1)] + [("learning-rate-0.001-seed0", n) for n in (1, 2, 3, 4)]
    assert "learning-rate-1e30-seed0 failed; the others are trained all the same\nrun 2 of 2" in capsys.readouterr().out
    assert list(compare_sweep(variants, (0,), tmp_path).runs) == ["learning-rate-0.001-seed0"]


@pytest.mark.parametrize(
    "name, model, train, error, message",
    [
        ("a|b", {}, {}, RunError, "'a|b-seed0' can't be a run's name"),
        ("small", {"vocab_size": 100}, {}, ConfigError, "small: vocab_size=100 is smaller than the 257 tokens"),
        ("far", {"context_length": 100_000}, {}, DataError, "far-seed0: .*too few for one window of 100000 inputs"),
        ("wordy", {}, {"sample_prompt": "a" * 64}, ConfigError, "wordy-seed0: sample_prompt takes 64 tokens"),
        ("lost", {}, {"data": TRAIN.data.replace(source="nowhere")}, DataError, "unknown source 'nowhere'"),
        ("odd", {}, {"data": TRAIN.data.replace(tokenizer="bite")}, TokenizerError, "odd: unknown tokenizer 'bite'"),
    ],
)
def test_what_is_wrong_with_the_last_variant_shows_before_the_first_training(
    tmp_path, name, model, train, error, message
):
    variants = VARIANTS | {name: Preset(MODEL.replace(**model), TRAIN.replace(**train))}
    with pytest.raises(error, match=message.replace("|", r"\|")):
        sweep(variants, (0,), tmp_path / "runs")
    assert run_names(tmp_path / "runs") == []


def test_a_run_without_a_checkpoint_shows_before_the_first_training(tmp_path):
    run = Run.create("wide-seed1", VARIANTS["wide"].model, TRAIN.replace(seed=1), tmp_path)
    run.weights_path.touch()
    with pytest.raises(RunError, match="wide-seed1: run 'wide-seed1' has no checkpoint"):
        sweep(VARIANTS, (0, 1), tmp_path)
    assert run_names(tmp_path) == ["wide-seed1"]


@pytest.mark.parametrize(
    "variants, seeds, message",
    [
        ({}, (0,), "a sweep needs variants and seeds, not 0 and 1 of them"),
        (VARIANTS, (), "a sweep needs variants and seeds, not 2 and 0 of them"),
        (VARIANTS, (0, 1, 0), r"seeds \[0, 1, 0\] hold one twice; give each once"),
        (VARIANTS, (0, -1), "seed must be an integer from 0 to"),
        (VARIANTS, ("0",), "seed must be an integer from 0 to .*, not '0'"),
    ],
)
def test_bad_seeds(tmp_path, variants, seeds, message):
    with pytest.raises(ConfigError, match=message):
        sweep(variants, seeds, tmp_path)


def test_the_comparison_holds_exactly_the_sweeps_runs_variant_by_variant(tmp_path):
    Run.create("plain-seed7", MODEL, TRAIN.replace(seed=7), tmp_path)
    for count, _ in enumerate(sweep(VARIANTS, iter((1, 0)), tmp_path), start=1):
        if count == 11:
            break
    comparison = compare_sweep(VARIANTS, iter((1, 0)), tmp_path)
    assert list(comparison.runs) == ["plain-seed1", "plain-seed0", "wide-seed1"]
    assert comparison.left_out == {"wide-seed0": "it has not begun; the same sweep trains it"}
    assert "plain-seed0 was stopped at step 3 of 4" in comparison.remarks
    trained(tmp_path)
    comparison = compare_sweep(VARIANTS, (0, 1), tmp_path)
    assert list(comparison.runs) == ["plain-seed0", "plain-seed1", "wide-seed0", "wide-seed1"]
    assert comparison.left_out == {} and comparison.remarks == []
    stored = [float(Run.open(name, tmp_path).weights_facts()["validation_loss"]) for name in comparison.runs]
    assert list(comparison.table()["validation_loss"]) == stored
    with pytest.raises(RunError, match=r"'plain-seed0' .* was made with other settings"):
        compare_sweep({"plain": VARIANTS["wide"]}, (0,), tmp_path)


def test_another_trainings_run_is_not_taken_for_ones_own(whole):
    changed = {"plain": Preset(MODEL, TRAIN.replace(learning_rate=0.5))}
    with pytest.raises(RunError, match=r"'plain-seed0' .* was made with other settings"):
        sweep(VARIANTS | changed, (2, 0), whole.folder)
    assert run_names(whole.folder) == sorted(NAMES)


def test_matched_models_have_equally_many_parameters():
    wanted = sum(p.numel() for p in Transformer(MODEL.replace(width=64, n_heads=4)).parameters())
    block = FactoredBlockConfig(value_mixing="independent", output_mixing="kronecker")
    made = matched(Preset(MODEL.replace(width=64, n_heads=4, block=block), TRAIN), wanted)
    assert made.model.mlp.ratio != 4.0 and made.train == TRAIN
    assert sum(p.numel() for p in Transformer(made.model).parameters()) == pytest.approx(wanted, rel=0.02)
    assert estimate(made.model).parameters == sum(p.numel() for p in Transformer(made.model).parameters())
    with pytest.raises(ConfigError, match="no MLP brings this model to 1,000 parameters"):
        matched(made, 1_000)
