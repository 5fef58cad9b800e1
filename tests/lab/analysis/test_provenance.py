"""Provenance against the recurrence written in numpy, and against what the model itself computed."""

import numpy as np
import pytest
import torch

from config import LearnedPositionConfig, NoPositionConfig, NormConfig, RoPEConfig, SinusoidalConfig
from lab.analysis.forward_pass import AnalysisError
from lab.analysis.provenance import provenance
from lab.analysis.provenance_plots import logit_bars, provenance_heatmap, provenance_heatmaps
from lab.data.tokenizers import load_tokenizer
from lab.display.style import Picture
from lab.runs.run import Run
from lab.widgets import provenance_panel
from modules.transformer import Transformer
from settings.errors import GenerationError
from tests.helpers.factored_equations import Equations, heads_matrices
from tests.helpers.factored_equations import provenance as recurrence
from tests.helpers.stirred_models import stirred
from tests.helpers.variants import VARIANTS, vary

pytestmark = pytest.mark.usefixtures("seeded")

LENGTH = 11
WHOLE_HEADS = [name for name in VARIANTS if name in {
    "factored", "factored-alibi", "factored-raw", "factored-raw-values", "factored-raw-output", "factored-head-norm",
    "factored-mixed-frozen", "factored-head-norm-frozen",
}]
CASES = {
    **{name: VARIANTS[name] for name in WHOLE_HEADS},
    "none": vary("factored-alibi", position=NoPositionConfig(), n_layers=3),
    "rope": vary("factored-alibi", position=RoPEConfig(), norm=NormConfig(kind="rms", bias=True)),
    "sinusoidal-scaled": vary("factored", position=SinusoidalConfig(), embedding_scale=True),
    "learned-scaled": vary("factored", position=LearnedPositionConfig(), embedding_scale=True, tie_weights=False),
    "cosine": vary("factored-alibi", norm=NormConfig(kind="cosine", bias=True)),
    "layer-bare": vary("factored-alibi", norm=NormConfig(kind="layer", weight=False)),
    "windowed": VARIANTS["factored-windowed"],
    "capped": vary("factored-alibi", logit_cap=2.0),
    "layer-bias": vary("factored-alibi", norm=NormConfig(kind="layer", bias=True), n_heads=6, width=48),
}


def prompt(config, length=LENGTH) -> list[int]:
    return torch.randint(config.vocab_size, (length,)).tolist()


@pytest.fixture
def model():
    return stirred(vary("factored-alibi", n_layers=3))


@pytest.fixture
def found(model):
    return provenance(model, prompt(model.config))


# --- the numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, dict(n_heads=6, width=48)], ids=str)
@pytest.mark.parametrize("name", ["factored", "factored-alibi"])
def test_matrix_is_the_recurrence(name, changes):
    model = stirred(vary(name, n_layers=3, **changes))
    ids = prompt(model.config)
    found = provenance(model, ids)
    attentions = Equations(model).factored(torch.tensor([ids]))[2]
    values, outputs = heads_matrices(model)
    for layer in range(4):
        if layer:
            expected = recurrence(attentions[:layer], values[:layer], outputs[:layer])[0]
        else:
            expected = np.eye(LENGTH * model.config.n_heads).reshape(found.matrix(0).shape)
        np.testing.assert_allclose(found.matrix(layer).numpy(), expected, rtol=0, atol=1e-9)
    assert np.abs(expected).max() > 1.1  # something was carried


@pytest.mark.parametrize("name", CASES)
def test_token_stream_and_logits_are_rebuilt(name):
    model = stirred(CASES[name])
    ids = prompt(model.config)
    for dtype, stream_bound, logit_bound in ((torch.float64, 1e-12, 1e-9), (torch.float32, 1e-5, 1e-4)):
        found = provenance(model.to(dtype), ids)
        for layer, stream in enumerate(found.streams):
            torch.testing.assert_close(found.rebuilt(layer), stream, rtol=stream_bound, atol=stream_bound)
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0]
        for position, token in ((0, 3), (LENGTH // 2, 60), (-1, 17)):
            split = found.split(position, token)
            logit = logits[position, token].item()
            assert split.logit == pytest.approx(logit, rel=1e-6)
            assert split.frame["logit"].sum() == pytest.approx(logit, rel=logit_bound, abs=logit_bound)


def test_exact_on_a_trained_run():
    run = Run.open("factored-alibi-tiny-tales")
    text = "Once upon a time, Mia had a red ball. Mia wanted to play with the"
    found = provenance(run.load_model(), text, run.tokenizer)
    for layer in range(found.n_layers + 1):
        assert (found.rebuilt(layer) - found.streams[layer]).abs().max() < 1e-5
    for position in (0, 5, -1):
        split = found.split(position)
        assert split.frame["logit"].sum() == pytest.approx(split.logit, abs=1e-4)
    assert split.logit == pytest.approx(float((found.hidden[-1] @ found.model.head.weight.T).max()), abs=1e-4)


@pytest.mark.parametrize("name", ["factored", "factored-alibi"])
def test_parts_of_a_logit_one_by_one(name):
    """Each source and head, each layer's MLP, by hand: g · (M[t, :, s, j] × embedding) with g = scale · weight · W."""
    model = stirred(vary(name, n_layers=2))
    ids, position, token = prompt(model.config), 7, 5
    frame = provenance(model, ids).split(position, token).frame
    equations = Equations(model)
    weights, (heads, dim) = equations.weights, (4, 10)
    _, xt, attentions = equations.factored(torch.tensor([ids]))
    carried = recurrence(attentions, *heads_matrices(model))[0, position]  # (H, T, H)
    with torch.no_grad():
        model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, position].numpy()))
        seen = []
        model(torch.tensor([ids]))
    direction = weights["norm.weight"] * weights["embedding.weight"][token] / np.sqrt(seen[0].var() + 1e-5)
    direction = (direction - direction.mean()).reshape(heads, dim)
    sources = {"token": weights["embedding.weight"][ids]}
    if name == "factored":
        sources["position"] = weights["position.table.weight"][:LENGTH]
    for part, source in sources.items():
        rows = frame[frame["part"] == part]
        assert len(rows) == (position + 1) * heads
        for row in rows.itertuples():
            piece = source[row.source].reshape(heads, dim)[row.head]
            expected = sum(carried[i, row.source, row.head] * (direction[i] @ piece) for i in range(heads))
            assert row.logit == pytest.approx(expected, abs=1e-10)
    mlps = frame[frame["part"] == "mlp"]
    assert list(mlps["layer"]) == [1, 2] and set(frame["part"]) == {*sources, "mlp", "bias"}
    xe = seen[0] - xt[0, position]
    assert mlps["logit"].sum() == pytest.approx(direction.ravel() @ xe, abs=1e-10)


def test_frozen_tokens_carry_themselves_alone():
    model = stirred(VARIANTS["factored-mixed-frozen"])
    found = provenance(model, prompt(model.config))
    one = torch.eye(LENGTH * 4, dtype=torch.float64).view(LENGTH, 4, LENGTH, 4)
    assert torch.equal(found.matrix(0), one) and torch.equal(found.matrix(2), one)
    frame = found.split(6).frame
    others = frame[frame["part"].isin(["token", "position"]) & (frame["source"] < 6)]
    assert (others["logit"] == 0).all()
    assert list(frame[frame["part"] == "attention"]["layer"]) == [1, 2]
    assert frame[frame["part"] == "attention"]["logit"].abs().min() > 1e-4


def test_fewer_rows_are_the_same_rows(found):
    whole = found.matrix(3)
    torch.testing.assert_close(found.matrix(-1, [2, -1], [3]), whole[[2, 10]][:, [3]], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.rebuilt(2, [4]), found.streams[2][[4]], rtol=0, atol=1e-12)
    assert (whole[2, :, 3:] == 0).all()  # nothing comes from later


# --- what is left as it was, what can't be asked ------------------------------------------------------------


def test_leaves_the_model_as_it_was(model):
    model.train()
    ids = prompt(model.config)
    provenance(model, ids)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.raises(GenerationError):
        provenance(model, [*ids, 10**6])
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["llama", "sasp", "factored-dense", "factored-independent"])
def test_refuses_models_without_a_stream_of_whole_heads(name):
    remedy = "factored-alibi" if not name.startswith("factored") else "kronecker.*frozen_tokens"
    with pytest.raises(AnalysisError, match=remedy):
        provenance(Transformer(VARIANTS[name]), [1, 2, 3])


def test_memory_is_bounded(model):
    """Three layers of 4 heads for 11 tokens: 3·4·11² numbers of 8 bytes; a matrix takes 4·11·4·11·4."""
    ids = prompt(model.config)
    with pytest.raises(AnalysisError, match=r"3 layers · 4 heads · 11² tokens.*shorten"):
        provenance(model, ids, limit=3 * 4 * 121 * 8 - 1)
    found = provenance(model, ids, limit=3 * 4 * 121 * 8)
    with pytest.raises(AnalysisError, match=r"11 positions · 4 heads · 11 tokens · 4 heads.*positions=\[...\]"):
        found.matrix(1)
    assert found.matrix(1, positions=[5], heads=[0]).shape == (1, 1, 11, 4)
    assert provenance(model, ids, limit=4 * 44 * 44 * 8).matrix(1).shape == (11, 4, 11, 4)
    with pytest.raises(AnalysisError, match="4 · 11 positions"):
        provenance(model, ids, limit=4 * 44 * 44 * 8 - 1).matrix(1)


def test_refuses_what_is_not_there(model, found):
    for question, message in (
        (lambda: found.matrix(4), "layers 0 to 3"),
        (lambda: found.matrix(1, heads=[4]), "heads 0 to 3"),
        (lambda: found.matrix(1, positions=[]), "positions 0 to 10"),
        (lambda: found.split(11), "positions 0 to 10"),
        (lambda: found.split(0, 61), "ids 0 to 60"),
    ):
        with pytest.raises(AnalysisError, match=message):
            question()
    with pytest.raises(GenerationError, match=r"69 tokens.*accepts 68"):
        provenance(model, prompt(model.config, 69))
    with pytest.raises(GenerationError, match="tokenizer"):
        provenance(model, "Once")


# --- the pictures -------------------------------------------------------------------------------------------


@pytest.fixture
def spoken():
    model = stirred(vary("factored-alibi", vocab_size=257, n_layers=3))
    return provenance(model, "a <b>\ncat", load_tokenizer("byte"))


def test_a_split_in_words(spoken):
    split = spoken.split(4, ord("z"))
    assert str(split).startswith("logit of «z» after «>» at 4: ")
    values = [float(line.split()[0]) for line in str(split).splitlines()[1:]]
    assert sum(values) == pytest.approx(split.logit, abs=0.01) and len(values) == 13
    assert abs(values[0]) >= abs(values[1]) >= abs(values[11])
    assert "&lt;<sub>" in split._repr_html_() and "><<" not in split._repr_html_()
    assert split.carried().sum() == pytest.approx(split.frame.query("part == 'token'")["logit"].sum())
    assert f"{values[0]:+.2f}" in repr(logit_bars(split))


def test_pictures(spoken):
    alone = provenance(spoken.model, [3])
    assert provenance_heatmap(alone).png and alone.split().carried().index.tolist() == [0]
    for picture in (provenance_heatmap(spoken, 2, 1), provenance_heatmaps(spoken, 0, 3), logit_bars(spoken.split())):
        assert isinstance(picture, Picture) and picture.png.startswith(b"\x89PNG")
    drawn = spoken.matrix(2)[:, 1, :, 3][torch.ones(9, 9).tril().bool()]
    about = repr(provenance_heatmap(spoken, 2, 1, 3))
    assert "head 1 from head 3" in about and f"{drawn.min():.3g} to {drawn.max():.3g}" in about
    assert "layer 1, layer 2, layer 3" in repr(provenance_heatmaps(spoken))


def test_panel_shows_what_the_plain_call_shows(spoken):
    panel = provenance_panel(spoken)
    _, layer, head, source_head, shown = panel.children
    assert shown.value == panel.twin.png == provenance_heatmap(spoken, 3, 0, 0).png
    layer.value, head.value, source_head.value = 1, 2, 3
    assert shown.value == panel.twin.png == provenance_heatmap(spoken, 1, 2, 3).png
