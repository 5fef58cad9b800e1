"""Lenses against the same numbers worked out in numpy, the law of the last layer, and a lens trained for a run."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from config import ARCHITECTURES, FactoredBlockConfig
from lab.analysis.forward_pass import AnalysisError, readers
from lab.analysis.lens_plots import lens_curves, lens_heatmap
from lab.analysis.lenses import Translator, TunedLens, lens_quality, read_layers, untrained_copy
from lab.analysis.tuned_lens import keys, load_lens, train_lens
from lab.data.packing import prepare
from lab.data.token_file import TokenFile
from lab.data.tokenizers import load_tokenizer
from lab.runs.run import Run
from lab.training.loop import train
from modules.transformer import Transformer
from settings.errors import GenerationError, RunError
from tests.helpers.factored_equations import Equations
from tests.helpers.small_trainings import MODEL, TRAIN
from tests.helpers.stirred_models import states_of, stirred
from tests.helpers.variants import VARIANTS, vary

pytestmark = pytest.mark.usefixtures("seeded")

IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(-1)


@pytest.fixture
def held_out():
    tokens = np.random.default_rng(0).integers(61, size=300).astype(np.uint16)
    return TokenFile("validation", tokens, n_documents=1, n_bytes=300)


# --- the logit lens -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ARCHITECTURES, "post-norm", "factored-head-norm-frozen"])
def test_the_last_layer_is_the_model_in_every_architecture(name):
    model = stirred(VARIANTS[name])
    readings = read_layers(model, IDS, k=61)
    with torch.no_grad():
        expected = model(torch.tensor([IDS]))[0].softmax(-1)
    n_layers = len(model.next_token_blocks)
    assert readings.kl.shape == (n_layers + 1, len(IDS))
    assert readings.kl[-1].abs().max() < 1e-12 and readings.kl[:-1].min() > 1e-3
    last = readings.frame[readings.frame["layer"] == n_layers]
    found = last.pivot(index="position", columns="token", values="probability").to_numpy()
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9)
    assert (last[last["rank"] == 1]["token"].to_numpy() == expected.argmax(-1).numpy()).all()


def test_a_multi_token_model_has_the_layers_that_compute_the_next_token(held_out):
    model = stirred(VARIANTS["multi-token"])  # a trunk of two, the nearest head, and three that are not in the pass
    readings = read_layers(model, IDS)
    assert readings.kl.shape == (4, len(IDS)) and (readings.kl.diff(dim=0).abs().max(-1).values > 1e-3).all()
    assert sorted(lens_quality(model, held_out, batches=1)["layer"].unique()) == [0, 1, 2, 3]
    assert {layer for _, _, layer in keys(model)} == {0, 1, 2, 3} and ("model", "state", 3) not in keys(model)


def test_the_numbers_of_a_lens_heatmap_do_not_overprint():
    readings = read_layers(stirred(VARIANTS["llama"]), [3, 1, 4] * 5)
    readings.kl[0], readings.kl[1] = 0.0066, -0.022
    plot = lens_heatmap(readings).figure.axes[0]
    assert {text.get_text() for text in plot.texts} == {"0.0066", "-0.022", "0"}, "15 columns have room"
    wide = read_layers(stirred(VARIANTS["llama"]), [3, 1, 4] * 7)
    wide.kl[0], wide.kl[1], wide.kl[2] = 0.0066, -0.022, 42.0
    plot = lens_heatmap(wide).figure.axes[0]
    boxes = [text.get_window_extent() for text in plot.texts if text.get_text()]
    assert {text.get_text() for text in plot.texts} == {"0.01", "-0.0", "42"}
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


@pytest.mark.parametrize("stream", ["xt", "xe", "xt+xe"])
@pytest.mark.parametrize("norm", [True, False])
def test_each_stream_by_hand(stream, norm):
    model = stirred(vary("factored-alibi", n_layers=3))
    state = states_of(model, torch.tensor([IDS]))[1]  # layer 2
    x = {"xt": state.xt, "xe": state.xe, "xt+xe": state.xt + state.xe}[stream][0].numpy()
    equations = Equations(model)
    weights = equations.weights["embedding.weight"]
    q = softmax(equations.norm(x, "norm") @ weights.T if norm else x @ weights.T)
    p = softmax(equations.factored(torch.tensor([IDS]))[0][0])
    readings = read_layers(model, IDS, stream=stream, norm=norm, k=3)
    np.testing.assert_allclose(readings.kl[2].numpy(), divergence(p, q), rtol=0, atol=1e-9)
    rows = readings.frame.query("layer == 2 and position == 5")
    assert rows["token"].tolist() == np.argsort(-q[5])[:3].tolist() and rows["rank"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(rows["probability"], np.sort(q[5])[:-4:-1], rtol=1e-9)


@pytest.mark.parametrize("name", ["llama", "factored"])
def test_baselines_by_hand(name, held_out):
    """Random: the states of another model at its start. Shuffled: what this model predicts in the window before."""
    model = stirred(VARIANTS[name])
    frame = lens_quality(model, held_out, batches=1, seed=7).set_index(["stream", "layer", "lens", "baseline"])["kl"]
    other = untrained_copy(model, 7)
    assert torch.equal(other.embedding.weight, untrained_copy(model, 7).embedding.weight)
    assert not torch.equal(other.embedding.weight, untrained_copy(model, 8).embedding.weight)
    ids = torch.from_numpy(held_out.batch(7, 0, 4, 17))[:, :-1]
    stream, reader = list(readers(model).items())[-1]
    with torch.no_grad():
        p = softmax(model(ids).numpy())
        taught, untaught = (reader(states_of(m, ids)[0]) for m in (model, other))
        q, random = (softmax(model.head(model.norm(x)).numpy()) for x in (taught, untaught))
        bare = softmax(model.head(untaught).numpy())
    shuffled = p[[3, 0, 1, 2]]
    for lens, baseline, expected in (
        ("logit", "model", divergence(p, q)), ("logit", "random", divergence(p, random)),
        ("logit", "shuffled", divergence(shuffled, q)), ("logit (no norm)", "random", divergence(p, bare)),
    ):
        assert frame[stream, 1, lens, baseline] == pytest.approx(expected.mean(), abs=1e-9)
    assert frame[stream, 2, "logit", "model"] == pytest.approx(0, abs=1e-12)
    assert len(frame) == len(readers(model)) * 3 * 2 * 3


def test_a_translator_is_an_affine_map():
    model = stirred(VARIANTS["llama"])
    weight, bias = torch.randn(40, 40, dtype=torch.float64), torch.randn(40, dtype=torch.float64)
    lens = TunedLens(translators={("model", "state", 1): Translator(weight, bias)}, seed=0)
    tuned, plain = read_layers(model, IDS, lens=lens), read_layers(model, IDS)
    assert torch.equal(tuned.kl[[0, 2]], plain.kl[[0, 2]])  # where there is none, x stays
    x = states_of(model, torch.tensor([IDS]))[0][0].numpy()
    mapped = torch.from_numpy(x + x @ weight.numpy().T + bias.numpy())
    with torch.no_grad():
        q, p = softmax(model.head(model.norm(mapped)).numpy()), softmax(model(torch.tensor([IDS]))[0].numpy())
    np.testing.assert_allclose(tuned.kl[1].numpy(), divergence(p, q), rtol=0, atol=1e-9)


# --- the tuned lens -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    return prepare(TRAIN.data)


@pytest.fixture(scope="module", params=[FactoredBlockConfig(), MODEL.block], ids=["factored", "residual"])
def run(request, tmp_path_factory, data) -> Run:
    settings = TRAIN.replace(steps=250, learning_rate=2e-2, compile="off", evaluate_every=250, checkpoint_every=250)
    run = Run.create("run", MODEL.replace(block=request.param), settings, tmp_path_factory.mktemp("lens"))
    list(train(run, data))
    return run


@pytest.fixture(scope="module")
def lens(run, data) -> TunedLens:
    return train_lens(run, data, steps=60, learning_rate=1e-2)


def test_training_brings_every_layer_nearer_to_the_end(run, data, lens):
    frame = lens_quality(run.load_model(), data.validation, lens, batches=2)
    kl = frame.pivot(index=["stream", "layer", "baseline"], columns="lens", values="kl")
    last = list(readers(run.load_model()))[-1], MODEL.n_layers, "model"
    assert kl.loc[last, "tuned"] == kl.loc[last, "logit"] == pytest.approx(0, abs=1e-6)
    others = kl.drop(index=last)
    assert (others["tuned"] < others["logit"]).all() and len(others) == len(lens.translators)
    tuned = kl.loc[(last[0], 1), "tuned"]  # the states of the model tell more than either baseline finds
    assert tuned["model"] < 0.5 * min(tuned["random"], tuned["shuffled"])


@pytest.mark.parametrize("baseline", ["random", "shuffled"])
def test_each_baseline_has_a_lens_of_its_own(run, data, lens, baseline):
    """The model's own lens in its place reads the baseline worse: its states or its targets are not the model's."""
    model, found = run.load_model(), []
    swapped = lens.translators | {
        (baseline, *key): translator for (whose, *key), translator in lens.translators.items() if whose == "model"
    }
    for each in (lens, TunedLens(translators=swapped, seed=lens.seed)):
        frame = lens_quality(model, data.validation, each, batches=1)
        rows = frame.query("lens == 'tuned' and layer == 1 and baseline == @baseline and stream != 'xt'")
        found.append(rows["kl"].to_numpy())
    assert (found[0] < found[1]).all() and len(found[0]) == len(readers(model)) - (len(readers(model)) > 1)


def test_the_lens_beside_the_run_is_the_lens(run, lens):
    loaded = load_lens(run)
    assert loaded.seed == lens.seed and loaded.translators.keys() == lens.translators.keys()
    for key, translator in lens.translators.items():
        assert all(torch.equal(a, b) for a, b in zip(translator, loaded.translators[key], strict=True))
        assert translator.weight.abs().max() > 0 or key[1] == "xe"  # at layer 0 there is nothing in xe to map


def test_the_same_seed_trains_the_same_lens_and_the_model_stays(run, data):
    weights = load_file(run.weights_path)
    first, second, third = (train_lens(run, data, steps=3, seed=seed) for seed in (5, 5, 6))
    key = ("model", next(iter(readers(run.load_model()))), 1)
    assert torch.equal(first.translators[key].weight, second.translators[key].weight)
    assert not torch.equal(first.translators[key].weight, third.translators[key].weight)
    now = load_file(run.weights_path)
    assert all(torch.equal(weights[name], now[name]) for name in weights)


def test_only_a_whole_lens_for_these_weights_is_loaded(run, data, tmp_path):
    train_lens(run, data, steps=1)
    path = run.folder / "lens.safetensors"
    whole, weights = path.read_bytes(), run.weights_path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(RunError, match="whole"):
        load_lens(run)
    path.write_bytes(whole)
    tensors = load_file(run.weights_path)
    try:
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, run.weights_path)
        with pytest.raises(RunError, match="other weights"):
            load_lens(run)
    finally:
        run.weights_path.write_bytes(weights)
    path.unlink()
    with pytest.raises(RunError, match="train_lens"):
        load_lens(run)


# --- what can't be asked, and the views ---------------------------------------------------------------------


def test_refuses_what_makes_no_sense(run, data):
    llama, factored = Transformer(VARIANTS["llama"]), Transformer(VARIANTS["factored"])
    lens = TunedLens(translators={}, seed=0)
    for question, message in (
        (lambda: read_layers(llama, IDS, stream="xt"), "choose from: state"),
        (lambda: read_layers(factored, IDS, stream="ex"), "choose from: xe, xt, xt"),
        (lambda: read_layers(llama, IDS, lens=lens, norm=False), "final norm"),
        (lambda: read_layers(llama, IDS, k=62), "between 1 and the vocabulary's 61"),
        (lambda: train_lens(run, data, steps=0), "steps >= 1"),
    ):
        with pytest.raises(AnalysisError, match=message):
            question()
    with pytest.raises(GenerationError, match="18 tokens"):
        read_layers(factored, [1] * 18)


def test_views(held_out):
    model = stirred(vary("factored-alibi", vocab_size=257))
    readings = read_layers(model, "<i>the prompt of a lens", load_tokenizer("byte"), k=2)
    best = readings.frame.query("layer == 1 and position == 22").iloc[0]
    assert f"«{best['text']}» {best['probability']:.1%}".replace("%", " %") in str(readings).splitlines()[2]
    assert str(readings).startswith("logit lens on xt+xe: what may follow «s»") and len(str(readings).splitlines()) == 4
    html = readings._repr_html_()
    assert "the last 16 of 23 tokens" in html and html.count("<tr>") == 4
    assert f"{readings.kl.max():.3g}" in repr(lens_heatmap(readings))
    frame = lens_quality(stirred(VARIANTS["llama"]), held_out, batches=1)
    assert "state, logit, shuffled" in repr(lens_curves(frame))
