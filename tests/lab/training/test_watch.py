"""Watching layers: the numbers by hand, a training that does not notice it, and each flag on a model made to fail."""

import re
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from config import (
    ARCHITECTURES,
    DataConfig,
    DropoutConfig,
    LearnedPositionConfig,
    MLPConfig,
    ModelConfig,
    ScheduleConfig,
    TrainConfig,
)
from lab.compute.device import seeded
from lab.data.packing import prepare
from lab.runs.run import Run
from lab.terminal import main
from lab.training.log import StepLog
from lab.training.loop import train
from lab.training.watch import Watch, by_layer, dead_share, hooked, watch_warnings
from lab.training.watch_plots import watch_heatmap
from modules.mlp import build_activation
from modules.transformer import Transformer
from settings.errors import GlassboxError, RunError
from tests.helpers.variants import VARIANTS, vary

MODEL = ModelConfig(vocab_size=257, context_length=16, n_layers=2, n_heads=2, width=16)
RELU = MLPConfig(activation="relu", gated=False)
OTHER = MODEL.replace(mlp=RELU, position=LearnedPositionConfig(), tie_weights=False)
DROPPING = MODEL.replace(dropout=DropoutConfig(residual=0.2, attention=0.1))
TRAIN = TrainConfig(
    data=DataConfig(tokenizer="byte", max_documents=60, validation_fraction=0.3), steps=12, batch_size=4,
    evaluate_every=6, evaluation_tokens=256, checkpoint_every=5, precision="fp32", device="cpu", sample_tokens=5,
    compile="off", schedule=ScheduleConfig(warmup_steps=2), watch_every=4,
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return prepare(TRAIN.data)


def trained(folder: Path, data, name: str = "run", model: ModelConfig = MODEL, **changes) -> Run:
    run = Run.create(name, model, TRAIN.replace(**changes), folder)
    list(train(run, data))
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data) -> Run:
    return trained(tmp_path_factory.mktemp("whole"), data, model=DROPPING)


def hooks(model) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def rms(x: torch.Tensor) -> float:
    return float(np.sqrt((x.detach().double().numpy() ** 2).mean()))


def values(frame: pd.DataFrame, kind: str, step: int = 1) -> dict[str, float]:
    return by_layer(frame, kind).loc[step].to_dict()


# --- the numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("model", [MODEL, OTHER], ids=["llama", "relu-learned-untied"])
def test_numbers_are_those_computed_by_hand(tmp_path, data, model, checkpointing):
    """Step 1, in two micro-batches: activations and dead units of the first, gradients of both."""
    run = trained(
        tmp_path, data, model=model, steps=3, micro_batch_size=2, gradient_checkpointing=checkpointing,
        gradient_clip=1e-3, sample_prompt="Once",
    )
    with seeded(TRAIN.seed, 0, CPU):
        net = Transformer(model)
    parts = torch.from_numpy(data.train.batch(TRAIN.seed, 0, TRAIN.batch_size, 16)).split(2)
    positions = torch.arange(16)
    place = net.position.place(positions, positions, True, None)
    x = net.embedding(parts[0][:, :-1])
    activations, dead = {"embedding": rms(x)}, {}
    x = net.position.embed(x, positions)
    for i, block in enumerate(net.blocks):
        after_attention = x + block.attention(block.attention_norm(x), place, None)
        normed = block.mlp_norm(after_attention)
        matrix = block.mlp.gate_up.weight.chunk(2)[0] if model.mlp.gated else block.mlp.up.weight
        open_ = (normed @ matrix.T > (-4.595 if model.mlp.gated else 0)).flatten(0, 1)  # sigmoid(-4.595) = 0.01
        dead[f"blocks.{i}.mlp"] = 1 - open_.any(dim=0).float().mean().item()
        x = block(x, place)
        activations[f"blocks.{i}"] = rms(x)
    activations["norm"] = rms(net.norm(x))
    windows = torch.cat(parts)
    F.cross_entropy(net(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten()).backward()
    squares: dict[str, float] = {}
    for name, parameter in net.named_parameters():
        layer = name[: len("blocks.0")] if name.startswith("blocks") else name.split(".")[0]
        squares[layer] = squares.get(layer, 0.0) + parameter.grad.double().square().sum().item()
    frame = run.watch()
    assert values(frame, "activation") == pytest.approx(activations, rel=1e-5)
    assert values(frame, "dead") == pytest.approx(dead, abs=1e-7)
    assert values(frame, "gradient") == pytest.approx({layer: s**0.5 for layer, s in squares.items()}, rel=1e-4)


def test_layers_gradients_squared_add_up_to_the_log(whole):
    gradients = by_layer(whole.watch(), "gradient")
    logged = whole.log().set_index("step")["gradient_norm"]
    assert list(gradients.index) == [1, 4, 8, 12]
    assert np.allclose((gradients**2).sum(axis=1) ** 0.5, logged[gradients.index], rtol=1e-5)


@pytest.mark.parametrize(
    "name, closed, open_",
    [
        ("relu", 0.0, 1e-3), ("relu2", -1.0, 1e-3), ("gelu", -2.4, -2.2), ("gelu_tanh", -2.4, -2.2),
        ("silu", -4.7, -4.5), ("mish", -4.7, -4.5),
    ],
)
def test_a_unit_is_dead_if_closed_for_every_token(name, closed, open_):
    """Of four units one is open for one token of six; Φ(−2.33) = σ(−4.6) = 1 %."""
    x = torch.full((2, 3, 4), closed)
    assert dead_share(x, build_activation(name, 4)) == 1
    x[1, 2, 3] = open_
    assert dead_share(x, build_activation(name, 4)) == 0.75


def test_a_state_of_several_streams_has_a_row_for_each():
    State = namedtuple("State", "xt xe")
    model, seen = Transformer(MODEL), []
    with hooked(model, lambda *row: seen.append(row)):
        hook = next(iter(model.blocks[1]._forward_hooks.values()))
        hook(model.blocks[1], (), State(torch.full((1, 2, 3), 2.0), torch.full((1, 2, 3), -0.5)))
    assert seen == [("blocks.1 xt", "activation", 2.0), ("blocks.1 xe", "activation", 0.5)]


# --- the training does not notice -----------------------------------------------------------------------------


def test_hooks_are_there_for_watched_passes_alone(tmp_path, data, monkeypatch):
    """Counted in every forward pass of a training: 2 blocks, embedding, norm and 2 MLPs in watched ones."""
    counts, forward = [], Transformer.state

    def counting(self, *args, **named):
        if self.training:
            counts.append(hooks(self))
        return forward(self, *args, **named)

    monkeypatch.setattr(Transformer, "state", counting)
    trained(tmp_path, data, steps=5, micro_batch_size=2, watch_every=2)
    watched, not_watched = [6, 0], [0, 0]
    assert counts[-10:] == watched + watched + not_watched + watched + not_watched


def test_hooks_are_gone_after_an_exception(tmp_path):
    model = Transformer(MODEL)
    watch = Watch(model, StepLog(tmp_path / "watch_data.csv", 0))
    with pytest.raises(IndexError):
        watch.losses(torch.full((1, 5), 999))
    assert hooks(model) == 0
    with pytest.raises(AttributeError), hooked(model, lambda *row: row.nothing):
        model(torch.zeros(1, 5, dtype=torch.long))
    assert hooks(model) == 0


def test_a_watched_training_is_bitwise_the_unwatched_one(tmp_path, data, whole):
    plain = trained(tmp_path, data, model=DROPPING, watch_every=0)
    timing = ["seconds", "tokens_per_second", "memory"]
    pd.testing.assert_frame_equal(whole.log().drop(columns=timing), plain.log().drop(columns=timing), check_exact=True)
    for path in ("weights_path", "checkpoint_path"):
        mine, theirs = load_file(getattr(whole, path)), load_file(getattr(plain, path))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert not plain.watch_path.exists()
    assert "The layers" not in (plain.folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stops", [[4], [3, 9]])
def test_resuming_gives_the_same_watch_file(tmp_path, data, whole, stops):
    run = Run.create("run", DROPPING, TRAIN, tmp_path)
    for stop in stops:
        for step in train(run, data):
            if step.step == stop:
                break
    list(train(run, data))
    assert run.watch_path.read_bytes() == whole.watch_path.read_bytes()


def test_rows_of_steps_done_again_and_a_line_cut_short_are_dropped(tmp_path, data, whole):
    """As a kill at step 9 leaves it: the checkpoint is of step 5."""
    run, copy = Run.create("run", DROPPING, TRAIN, tmp_path), {}
    for step in train(run, data):
        if step.step == 6:
            copy = {path: path.read_bytes() for path in (run.checkpoint_path, run.weights_path) if path.exists()}
        if step.step == 9:
            break
    for path, content in copy.items():
        path.write_bytes(content)
    with run.watch_path.open("a") as file:
        file.write("12,blocks.0,activ")
    assert set(run.watch()["step"]) == {1, 4, 8}
    resumed = next(train(run, data))
    assert resumed.step == 6 and set(run.watch()["step"]) == {1, 4}
    list(train(run, data))
    assert run.watch_path.read_bytes() == whole.watch_path.read_bytes()


def test_compiled_training_is_watched_through_its_own_model(tmp_path, data, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: torch._dynamo.optimize("aot_eager")(function))
    eager, watched, unwatched = (
        trained(tmp_path, data, name, steps=5, compile=choice, watch_every=every)
        for name, choice, every in (("eager", "off", 2), ("watched", "on", 2), ("unwatched", "on", 0))
    )
    assert list(watched.log().loss) == pytest.approx(list(unwatched.log().loss), abs=1e-5)
    pd.testing.assert_frame_equal(watched.watch(), eager.watch(), check_exact=False, rtol=1e-3, atol=1e-6)


WATCHED = {
    **{name: vary(name, vocab_size=257) for name in ARCHITECTURES},
    **{f"future-{name}": VARIANTS[f"future-{name}"].replace(vocab_size=257) for name in ("sum", "max")},
}


@pytest.mark.parametrize("name", WATCHED)
def test_every_architecture_is_watched_to_its_card(tmp_path, data, name):
    """One activation for each layer of the pass that gives the next token, whatever else its losses compute."""
    run = trained(
        tmp_path, data, model=WATCHED[name], steps=1, schedule=ScheduleConfig(warmup_steps=0),
        watch_every=1, sample_prompt="O", sample_tokens=1,
    )
    frame = run.watch()
    assert not frame.duplicated(["step", "layer", "kind"]).any()
    blocks = WATCHED[name].n_layers - (WATCHED[name].block.heads - 1 if name == "multi-token" else 0)
    layers = {layer.split()[0] for layer in frame.layer[frame.kind == "activation"]}
    assert len(layers) == blocks + 2 and {"embedding", "norm"} < layers
    assert "## The layers" in (run.folder / "README.md").read_text(encoding="utf-8")


def test_a_watch_file_of_an_earlier_version_with_several_passes_is_read(whole):
    frame = whole.watch()
    again = frame[frame["layer"] == "norm"].assign(value=1e9)
    pd.testing.assert_frame_equal(by_layer(pd.concat([frame, again]), "activation"), by_layer(frame, "activation"))


# --- what is said about it ------------------------------------------------------------------------------------


def damaged(monkeypatch, damage) -> None:
    """Trainings start from a model that `damage` has changed."""

    class Damaged(Transformer):
        def __init__(self, config):
            super().__init__(config)
            with torch.no_grad():
                damage(self)

    monkeypatch.setattr("lab.compute.training_state.Transformer", Damaged)


def test_a_healthy_training_raises_no_flag(tmp_path, data, whole):
    assert watch_warnings(whole.watch()) == []
    relu = MODEL.replace(n_layers=4, mlp=RELU, bias=True)
    assert watch_warnings(trained(tmp_path, data, model=relu, steps=40).watch()) == []


@pytest.mark.parametrize("size, said", [(0.0, "its norm is 0 "), (1e-4, r"its norm is \d[\d.]*e-0[45]")])
def test_a_block_that_starts_at_zero_vanishes(tmp_path, data, monkeypatch, size, said):
    """Each matrix's gradient is a product with another matrix of the block: at zero it stays there."""

    def shrink(model):
        for parameter in model.blocks[1].parameters():
            parameter.mul_(size if parameter.dim() == 2 else 1)

    damaged(monkeypatch, shrink)
    found = watch_warnings(trained(tmp_path, data, steps=3).watch())
    (vanishing,) = (line for line in found if "vanishes" in line)
    assert re.search(r"^blocks.1, step 1 \(.*" + said + ".*residual connections", vanishing)


def test_a_learning_rate_too_high_explodes(tmp_path, data):
    run = trained(tmp_path, data, learning_rate=5.0, weight_decay=0.0, watch_every=1)
    found = [line for line in watch_warnings(run.watch()) if "activations' root mean square explodes" in line]
    assert [line.split(",")[0] for line in found] == ["blocks.0", "blocks.1"]
    assert all("Lower learning_rate" in line for line in found)


def test_a_step_that_is_not_finite_is_written_before_the_training_ends(tmp_path, data):
    run = Run.create("run", MODEL, TRAIN.replace(learning_rate=1e30, gradient_clip=None, watch_every=1), tmp_path)
    with pytest.raises(RunError, match=r"step \d+: .* not finite"):
        list(train(run, data))
    assert run.watch()["step"].max() > run.log()["step"].max()
    assert any("explodes" in line and "to inf" in line for line in watch_warnings(run.watch()))


@pytest.mark.parametrize("activation, gated", [("relu", False), ("silu", True)])
def test_units_that_never_open_are_dead(tmp_path, data, monkeypatch, activation, gated):
    def close(model):
        entrance = model.blocks[0].mlp.gate_up if gated else model.blocks[0].mlp.up
        units = model.config.mlp.hidden(model.config.width)
        entrance.bias[: units * 3 // 4] = -20.0

    damaged(monkeypatch, close)
    model = MODEL.replace(mlp=MLPConfig(activation=activation, gated=gated), bias=True)
    run = trained(tmp_path, data, model=model)
    units = model.mlp.hidden(16)
    assert values(run.watch(), "dead") == pytest.approx({"blocks.0.mlp": units * 3 // 4 / units, "blocks.1.mlp": 0})
    (line,) = watch_warnings(run.watch())
    assert line.startswith("blocks.0.mlp, step 1 (4 of 4 watched steps): 7") and "dead" in line


def frame_of(table: dict[str, list[float]], kind: str) -> pd.DataFrame:
    """Values by layer at steps 1, 10, 20, ..."""
    rows = [(10 * i or 1, layer, kind, v) for layer, column in table.items() for i, v in enumerate(column)]
    return pd.DataFrame(rows, columns=["step", "layer", "kind", "value"])


@pytest.mark.parametrize(
    "kind, column, said",
    [
        ("gradient", [1.0, 1.1e-3], None), ("gradient", [1.0, 0.9e-3, 1.0], r"step 10 \(1 of 3 .*vanishes.* 0.0009 "),
        ("gradient", [1.0, 0.9e3, 1.0], None), ("gradient", [1.0, 1.0, 1.1e3], r"step 20 \(1 of 3 .*explodes"),
        ("gradient", [0.0], "step 1 .*vanishes"), ("activation", [0.0, 1.0, 1e3], None),
        ("activation", [0.0, 1.0, 1.1e3], "step 20 .*from 1 at first"),
        ("activation", [1.0, float("nan")], "step 10 .*inf"), ("dead", [0.0, 0.5], None),
        ("dead", [0.0, 0.6, 0.1], None), ("dead", [0.0, 0.51], r"step 10 \(1 of 2 watched steps\): 51%"),
    ],
)
def test_thresholds(kind, column, said):
    """A layer beside two that stay at 1: gradients of a thousandth, growth to a thousandfold, half of the units."""
    others = 0.0 if kind == "dead" else 1.0
    found = watch_warnings(frame_of({"a": [others] * len(column), "b": [others] * len(column), "x": column}, kind))
    if said is None:
        assert found == []
    else:
        (line,) = found
        assert line.startswith("x, ")
        assert re.search(said, line), line


def test_gradients_that_all_vanish_are_flagged_by_their_size():
    found = watch_warnings(frame_of({"a": [2e-7, 0.9e-7], "b": [2e-7, 2e-7]}, "gradient"))
    assert len(found) == 1 and found[0].startswith("a, step 10")


# --- where it is seen -----------------------------------------------------------------------------------------


def test_the_heat_map_has_a_cell_for_each_layer_and_step(whole):
    frame = whole.watch()
    picture = watch_heatmap(frame, "mine")
    panels = {plot.get_title("left"): plot for plot in picture.figure.axes}
    for name, kind in (("Activations", "activation"), ("Gradients", "gradient")):
        plot, table = panels[name], by_layer(frame, kind)
        (mesh,) = plot.collections
        assert np.array_equal(mesh.get_array(), table.T.to_numpy())
        assert [label.get_text() for label in plot.get_yticklabels()] == ["embedding", "blocks.0", "blocks.1", "norm"]
        assert plot.yaxis_inverted() and plot.get_xlabel() == "step"
        assert list(mesh.get_coordinates()[0, :, 0]) == [0.5, 2.5, 6, 10, 14]
        assert (mesh.norm.vmin, mesh.norm.vmax) == (table.min().min(), table.max().max())
    labels = [plot.get_xlabel() for plot in picture.figure.axes]
    assert "root mean square, log scale" in labels and "norm, log scale" in labels
    assert "from step 1 to 12" in repr(picture) and "of mine" in repr(picture)


def test_zeros_and_what_is_not_finite_have_their_own_colours():
    sizes = {"a": [1.0, 0.0], "b": [float("inf"), 2.0]}
    frame = pd.concat([frame_of(sizes, "activation"), frame_of({"a": [1.0], "b": [1.0]}, "gradient")])
    picture = watch_heatmap(frame)
    mesh = picture.figure.axes[0].collections[0]
    colours = mesh.cmap(mesh.norm(mesh.get_array()))
    assert colours[0, 1].tolist() == mesh.cmap.get_under().tolist()
    assert colours[1, 0].tolist() == mesh.cmap.get_over().tolist()
    assert "root mean square, log scale; black: 0; red: not finite" in [p.get_xlabel() for p in picture.figure.axes]
    assert "at" in repr(picture)


def test_nothing_to_draw_and_nothing_watched_are_errors_with_a_remedy(tmp_path, whole):
    with pytest.raises(GlassboxError, match="watch_every=50"):
        watch_heatmap(whole.watch().iloc[:0])
    run = Run.create("new", MODEL, TRAIN.replace(watch_every=0), tmp_path)
    with pytest.raises(RunError, match=r"have not been watched.*--train\.watch-every 50"):
        run.watch()
    run.watch_path.write_text("step,layer\n1,norm\n", encoding="utf-8")
    with pytest.raises(RunError, match="lacks the columns kind, value"):
        run.watch()


def test_the_card_shows_the_layers(tmp_path, data, whole, monkeypatch):
    card = (whole.folder / "README.md").read_text(encoding="utf-8")
    assert "![activations and gradients by layer](watch.png)" in card and "No layer vanishes" in card
    assert (whole.folder / "watch.png").read_bytes().startswith(b"\x89PNG")
    damaged(monkeypatch, lambda model: [p.zero_() for p in model.blocks[1].mlp.parameters()])
    run = trained(tmp_path, data)
    for line in watch_warnings(run.watch()):
        assert f"- {line}\n" in (run.folder / "README.md").read_text(encoding="utf-8")
    assert watch_warnings(run.watch())


def test_the_terminal_tells_it_after_training(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path)
    monkeypatch.setenv("GLASSBOX_PLAIN", "1")
    like = ["--like", str(Run.create("one", MODEL, TRAIN, tmp_path).folder)]
    assert main(["train", *like, "--name", "well", "--train.watch-every", "6"]) == 0
    assert "layers:          all well" in capsys.readouterr().out
    assert set(Run.open("well", tmp_path).watch()["step"]) == {1, 6, 12}
    damaged(monkeypatch, lambda model: [p.zero_() for p in model.blocks[1].mlp.parameters()])
    assert main(["train", *like, "--name", "ill"]) == 0
    assert "blocks.1.mlp, step 1 (4 of 4 watched steps): 100% of the hidden units are dead" in capsys.readouterr().out
    assert main(["train", *like, "--name", "no", "--train.watch-every", "0"]) == 0
    assert "layers:" not in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    assert end.value.code == 0 and "--train.watch-every" in capsys.readouterr().out
