"""Predictions of the future and attention to them, against plain loops; calibration against counting; pictures."""

import math
from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import lab.future_sight.calibration
import lab.future_sight.predictions
from config import ALiBiConfig, DataConfig, FutureBlockConfig, ModelConfig, NoPositionConfig, RoPEConfig
from lab.analysis.forward_pass import AnalysisError
from lab.data.packing import TokenData
from lab.data.token_file import TokenFile
from lab.data.tokenizers import load_tokenizer
from lab.display.style import PlotError
from lab.future_sight.calibration import Bigrams, calibration, unigram_shares
from lab.future_sight.future_attention import future_attention
from lab.future_sight.future_plots import (
    calibration_plot,
    foresight_picture,
    foresight_table,
    future_attention_maps,
    windows_diagram,
)
from lab.future_sight.predictions import Level, future_predictions
from modules.future import CrossAttention
from modules.losses import CHUNK
from modules.transformer import Transformer
from tests.helpers.measures import LargestTensor
from tests.helpers.stirred_models import stirred_alike
from tests.helpers.variants import VARIANTS, vary

pytestmark = pytest.mark.usefixtures("seeded")

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5]
WINDOWS = {0: (1, 1), 1: (2, 3), 2: (4, 7)}


def two_levels(predicts: str = "bag", **changes) -> ModelConfig:
    block = FutureBlockConfig(levels=2, predicts=predicts, vectors=2, loss_weight=1.0, decay=1.0)
    sizes = dict(vocab_size=11, context_length=9, n_layers=4, n_heads=2, width=8, block=block)
    return ModelConfig(**sizes | changes)


def file_of(tokens) -> TokenFile:
    return TokenFile("validation", np.array(tokens, dtype=np.uint16), n_documents=1, n_bytes=len(tokens))


def data_of(train, held_out, vocab_size: int = 11) -> TokenData:
    return TokenData(
        DataConfig(), SimpleNamespace(name="numbers", vocab_size=vocab_size), file_of(train), file_of(held_out)
    )


def by_formula(model: Transformer, ids: list[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By level the share of each token, and the chance that the level gives it: each (T, V)."""
    with torch.no_grad():
        state, weight = model.state(torch.tensor([ids])), model.head.weight
        found = {0: (model(torch.tensor([ids]))[0].softmax(-1),) * 2}
        for level, order in ((1, 1), (2, 0)):  # the furthest is read first
            z = state.read[0, :, order] @ weight.T
            if model.config.block.predicts == "bag":
                found[level] = (z.exp() / z.exp().sum(-1, keepdim=True),) * 2
            else:
                p = 1 / (1 + (-z - math.log(2**level / 11)).exp())
                found[level] = (p / p.sum(-1, keepdim=True), p)
    return {level: tuple(part.numpy() for part in parts) for level, parts in found.items()}


# --- bags of a prompt -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predicts", ["bag", "multi_hot"])
def test_predictions_equal_the_formula(predicts, monkeypatch):
    monkeypatch.setattr(lab.future_sight.predictions, "CHUNK", 4)
    model = stirred_alike(two_levels(predicts))
    frame, expected = future_predictions(model, None, IDS, top=4), by_formula(model, IDS)
    assert len(frame) == 9 * 3 * 4
    for (position, level), rows in frame.groupby(["position", "level"]):
        first, last = WINDOWS[level]
        share = expected[level][0][position]
        assert rows["rank"].tolist() == [1, 2, 3, 4] and set(rows["after"]) == {f"#{IDS[position]}"}
        assert set(rows["first"]) == {first} and set(rows["last"]) == {last}
        assert rows["token"].tolist() == np.argsort(-share)[:4].tolist()
        np.testing.assert_allclose(rows["probability"], np.sort(share)[:-5:-1], rtol=1e-5)
        if position + last < 9:
            window = [IDS[position + offset] for offset in range(first, last + 1)]
            assert rows["came"].tolist() == [token in window for token in rows["token"]]
        else:
            assert rows["came"].isna().all()


def test_a_model_without_levels_predicts_the_next_token():
    model = stirred_alike(VARIANTS["llama"])
    frame = future_predictions(model, None, IDS, top=2)
    assert set(frame["level"]) == {0} and len(frame) == 18
    with torch.no_grad():
        best = model(torch.tensor([IDS]))[0].argmax(-1)
    assert frame.loc[frame["rank"] == 1, "token"].tolist() == best.tolist()


# --- attention to predictions -----------------------------------------------------------------------------------


def test_attention_equals_a_softmax_by_hand():
    model = stirred_alike(two_levels(position=NoPositionConfig(), n_kv_heads=1, bias=True))
    inputs = {}
    for layer, block in enumerate(model.blocks, 1):
        if block.cross is not None:
            block.cross.register_forward_hook(lambda _, given, __, layer=layer: inputs.update({layer: given[:2]}))
    frame = future_attention(model, None, IDS)
    orders = {3: [(2, 0), (2, 1)], 4: [(2, 0), (2, 1), (1, 0), (1, 1)]}  # by layer, from 1: (level, vector)
    checked = 0
    for layer, vectors in orders.items():
        cross = model.blocks[layer - 1].cross
        x, predicted = (part[0].detach() for part in inputs[layer])
        q = (x @ cross.q.weight.T + cross.q.bias).view(9, 2, 4)
        rows = frame[frame["layer"] == layer].set_index(["head", "position", "reads", "level", "vector", "source"])
        for head, t in ((0, 0), (0, 8), (1, 5)):
            scores = {("nothing", pd.NA, pd.NA, pd.NA): (q[t, head] @ cross.nothing[0, 0, 0] / 2).item()}
            for s in range(t + 1):
                for j, (level, vector) in enumerate(vectors):
                    normed = predicted[s, j] / (predicted[s, j].square().mean() + torch.finfo(x.dtype).eps).sqrt()
                    key = cross.kv.weight[:4] @ normed + cross.kv.bias[:4]
                    name = "2-3 ahead" if level == 1 else "4-7 ahead"
                    scores[name, level, vector, s] = (q[t, head] @ key / 2).item()
            total = sum(map(math.exp, scores.values()))
            found = rows.loc[(head, t)]
            assert found.index.tolist() == list(scores)
            np.testing.assert_allclose(found["weight"], [math.exp(z) / total for z in scores.values()], rtol=1e-5)
            checked += len(scores)
    assert checked == (2 + 4) * (1 + 9 + 6) + 2 * 3


@pytest.mark.parametrize("changes", [{}, dict(window=4, qk_norm=True)], ids=["plain", "windowed"])
@pytest.mark.parametrize("position", [RoPEConfig(), ALiBiConfig()], ids=["rope", "alibi"])
def test_the_weights_are_those_that_the_fused_kernel_used(position, changes):
    """Put back together by hand, they give what the layer added; and the rows sum to 1."""
    model = stirred_alike(two_levels(position=position, **changes))
    seen = []
    handles = [
        module.register_forward_hook(lambda cross, given, out: seen.append((cross, given, out)))
        for module in model.modules() if isinstance(module, CrossAttention)
    ]
    frame = future_attention(model, None, IDS)
    assert len(handles) == len(seen) == 2 and all(cross.fused for cross, _, _ in seen)
    for layer, (cross, given, out) in zip((3, 4), seen):
        n_keys = 9 * cross.n_vectors + 1
        weights = torch.zeros(2, 9, n_keys, dtype=torch.float64)
        rows = frame[frame["layer"] == layer]
        distances = (rows["position"] - rows["source"]).dropna()
        assert set(distances) == set(range(model.config.window or 9))
        order = {(2, 0): 0, (2, 1): 1, (1, 0): 2, (1, 1): 3}
        for row in rows.itertuples():
            is_vector = row.reads != "nothing"
            key = 1 + row.source * cross.n_vectors + order[row.level, row.vector] if is_vector else 0
            weights[row.head, row.position, key] = row.weight
        _, _, v = cross.project(*given[:3])
        torch.testing.assert_close(cross.out((weights @ v[0]).transpose(0, 1).flatten(1)), out[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(rows.groupby(["head", "position"])["weight"].sum(), 1, rtol=0, atol=1e-6)


# --- the baselines and the measures -------------------------------------------------------------------------------


def counted(train: list[int], first: int, last: int) -> dict[str, list[list[float]]]:
    """Unigram and Witten-Bell bigram shares after each token, from dicts."""
    uni = [(Counter(train)[v] + 1) / (len(train) + 11) for v in range(11)]
    pairs = defaultdict(Counter)
    for i, token in enumerate(train):
        for offset in range(first, last + 1):
            if i + offset < len(train):
                pairs[token][train[i + offset]] += 1
    after = []
    for c in range(11):
        n, kinds = sum(pairs[c].values()), len(pairs[c])
        after.append([(pairs[c][v] + kinds * uni[v]) / (n + kinds) if n else uni[v] for v in range(11)])
    return {"bigram": after, "unigram": [uni] * 11}


@pytest.mark.parametrize("piece", [7, 1 << 22])
def test_baselines_equal_a_dict_loop(piece, monkeypatch):
    monkeypatch.setattr(lab.future_sight.calibration, "PIECE", piece)
    train = np.random.default_rng(0).integers(10, size=60).astype(np.uint16)  # 10 never comes
    unigram = unigram_shares(train, 11)
    for first, last in ((1, 1), (2, 3), (4, 7), (70, 80)):  # the last is longer than the text
        expected = counted(train.tolist(), first, last)
        found = Bigrams(train, Level(0, first, last), unigram)(torch.tensor([10, 3, 3, 0, *range(11)]))
        np.testing.assert_allclose(found, [expected["bigram"][c] for c in (10, 3, 3, 0, *range(11))], rtol=1e-5)
        np.testing.assert_allclose(unigram, expected["unigram"][0], rtol=1e-6)
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("predicts", ["bag", "multi_hot"])
def test_measures_equal_a_plain_loop(predicts, monkeypatch):
    for module in (lab.future_sight.predictions, lab.future_sight.calibration):
        monkeypatch.setattr(module, "CHUNK", 7)
    random = np.random.default_rng(1)
    train = random.permutation(np.repeat(np.arange(11), np.arange(2, 13))).tolist()  # no token as often as another
    held_out = random.integers(11, size=60).tolist()
    model = stirred_alike(two_levels(predicts)).train()
    found = calibration(model, data_of(train, held_out), max_tokens=41)  # the last window has 5 of 9 tokens
    assert model.training, "left in the mode it was in"
    texts = [held_out[start : min(start + 9, 41) + 1] for start in range(0, 41, 9)]
    predictions = [by_formula(model.eval(), text[:-1]) for text in texts]
    for level, (first, last) in WINDOWS.items():
        size, baselines = last - first + 1, counted(train, first, last)
        sums, pairs, windows = defaultdict(lambda: np.zeros(4)), [], 0
        for text, prediction in zip(texts, predictions):
            for t in range(len(text) - last):
                bag, windows = text[t + first : t + last + 1], windows + 1
                for name in ("model", "bigram", "unigram"):
                    share = prediction[level][0][t] if name == "model" else np.array(baselines[name][text[t]])
                    best = np.argsort(-share)
                    covered = [len(set(bag) & set(best[:k].tolist())) / len(set(bag)) for k in (size, 10)]
                    loss = -sum(math.log(share[token]) for token in bag) / size
                    sums[name] += [loss, sum(share[token] for token in bag) / size, *covered]
                hot = predicts == "multi_hot" and level > 0
                observed = [float(v in bag) if hot else bag.count(v) / size for v in range(11)]
                pairs += zip(prediction[level][1][t], observed)
        rows = found.measures[found.measures["level"] == level].set_index("predictor")
        assert set(rows["windows"]) == {windows} and windows == sum(max(0, len(text) - last) for text in texts)
        for name in ("model", "bigram", "unigram"):
            measured = rows.loc[name, ["loss", "share", "top_window", "top_10"]].to_numpy(dtype=float)
            np.testing.assert_allclose(measured, sums[name] / windows, rtol=1e-5)
        bins = defaultdict(list)
        for pair in pairs:
            bins[math.floor(-math.log2(pair[0]))].append(pair)
        error = sum(abs(sum(p - o for p, o in pair)) for pair in bins.values()) / sum(o for _, o in pairs)
        assert rows.loc["model", "calibration_error"] == pytest.approx(error, rel=1e-4)
        table = found.bins[found.bins["level"] == level]
        assert table["high"].tolist() == [2.0**-i for i in sorted(bins)]
        np.testing.assert_allclose(table["low"], table["high"] / 2)
        expected = [(*np.mean(bins[i], axis=0), len(bins[i]) / windows) for i in sorted(bins)]
        np.testing.assert_allclose(table[["predicted", "observed", "pairs"]], expected, rtol=1e-5, atol=1e-9)


def test_who_knows_nothing_is_calibrated_and_pays_the_logarithm_of_the_vocabulary():
    model = Transformer(two_levels())
    torch.nn.init.zeros_(model.embedding.weight)
    found = calibration(model, data_of(range(11), np.random.default_rng(2).integers(11, size=300)), 290)
    rows = found.measures[found.measures["predictor"] == "model"]
    np.testing.assert_allclose(rows["loss"], math.log(11), rtol=1e-6)
    np.testing.assert_allclose(rows["calibration_error"], 0, atol=1e-6)
    np.testing.assert_allclose(found.bins[["predicted", "observed"]], 1 / 11, rtol=1e-5)


def test_a_chance_of_nothing_is_in_the_lowest_bin_and_one_of_all_in_the_highest():
    tally = lab.future_sight.calibration.Tally(Level(0, 1, 1))
    chance = torch.tensor([[0.0, 1.0, 2.0**-40]])
    tally.add(dict.fromkeys(lab.future_sight.calibration.PREDICTORS, chance), chance, torch.tensor([[1]]))
    ends = [(row["low"], row["high"], row["pairs"]) for row in tally.bins()]
    assert ends == [(0.5, 1.0, 1.0), (0.0, 2.0**-15, 2.0)]


@pytest.mark.parametrize("predicts", ["bag", "multi_hot"])
def test_no_more_than_a_chunk_of_predictions_exists_at_once(predicts):
    model = Transformer(two_levels(predicts, vocab_size=601, context_length=80, n_heads=1))
    held_out = np.random.default_rng(3).integers(601, size=1281)
    with LargestTensor() as largest:
        calibration(model, data_of(range(601), held_out))  # all 1,280 in one pass
    assert largest.numel == CHUNK * 601


@pytest.fixture(scope="module")
def cycle():
    """A network that learned texts 0 n 0 n 0 n ..., n from 1 to 5; such texts; and how it is calibrated on them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stream = [token for i in range(40) for token in (0, 1 + i % 5) * 12]
    model = Transformer(two_levels(context_length=24, width=16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, 150)
    for _ in range(150):
        windows = torch.zeros(8, 25, dtype=torch.long)
        windows[:, 1::2] = torch.randint(1, 6, (8, 1))
        optimizer.zero_grad()
        model.objective(model.losses(windows)).backward()
        optimizer.step()
        schedule.step()
    return model, stream, calibration(model, data_of(stream, stream), 240)


def test_who_knows_the_text_is_calibrated_and_beats_the_bigram(cycle):
    """A bag of two tokens in equal parts costs ln 2 at least. Who has read n knows all that follows, the bigram only
    where n is the current token; the first 0 of a text tells nobody which of the five n will come."""
    _, _, found = cycle
    rows = found.measures.set_index(["level", "predictor"])
    for level in (1, 2):
        model, bigram = rows.loc[(level, "model")], rows.loc[(level, "bigram")]
        assert math.log(2) < model["loss"] < math.log(2) + 0.15 < bigram["loss"] - 0.1
        assert model["top_window"] > 0.95 and bigram["top_10"] == 1
        assert model["calibration_error"] < 0.1
    assert rows.loc[(1, "bigram")]["top_window"] == pytest.approx(0.8, abs=0.02)  # (0 and one n of five) or both
    assert rows.loc[(0, "model")]["loss"] < 0.15 and rows.loc[(0, "bigram")]["loss"] > math.log(5) / 2 - 0.02


def test_calibration_twice_gives_the_same_digits(cycle):
    model, stream, first = cycle
    again = calibration(model, data_of(stream, stream), 240)
    pd.testing.assert_frame_equal(first.measures, again.measures, check_exact=True)
    pd.testing.assert_frame_equal(first.bins, again.bins, check_exact=True)
    assert "bigram" in repr(first) and "<table" in first._repr_html_()


# --- what can't be asked ------------------------------------------------------------------------------------------


def test_refuses_what_makes_no_sense(cycle):
    model, stream, _ = cycle
    vectors = Transformer(two_levels("vector_cosine"))
    frame, attention = future_predictions(model, None, IDS[:3]), future_attention(vectors, None, IDS)
    for question, error, message in (
        (lambda: future_predictions(vectors, None, IDS), AnalysisError, "predict vectors .'vector_cosine'.*future_att"),
        (lambda: calibration(vectors, data_of(stream, stream)), AnalysisError, "predict vectors"),
        (lambda: future_predictions(model, None, IDS, 12), AnalysisError, "between 1 and the vocabulary's 11, not 12"),
        (lambda: future_attention(stirred_alike(VARIANTS["llama"]), None, IDS), AnalysisError, "a residual block"),
        (lambda: calibration(model, data_of(stream, stream, 12)), AnalysisError, "numbers has 12 tokens, the model 11"),
        (lambda: calibration(model, data_of(stream, stream), 5), AnalysisError, "no window 4-7 ahead .* max_tokens=5"),
        (lambda: foresight_table(frame, 3), PlotError, "position 3 is outside the sentence; choose 0 to 2"),
        (lambda: foresight_table(frame[frame["position"] > 0]), PlotError, "every position of its sentence"),
        (lambda: windows_diagram(FutureBlockConfig(), ["a"], -1), PlotError, "choose 0 to 0"),
        (lambda: windows_diagram(FutureBlockConfig(levels=6), ["a"], 0), PlotError, "64 ahead can't be drawn"),
        (lambda: future_attention_maps(attention, 2), PlotError, "no head 2; choose from 0, 1"),
    ):
        with pytest.raises(error, match=message):
            question()


# --- pictures -----------------------------------------------------------------------------------------------------


def brackets(picture):
    """The first and the last place under each bracket."""
    lines = [line.get_xdata() for line in picture.figure.axes[0].lines]
    return [(math.ceil(min(x)), math.floor(max(x))) for x in lines]


def test_brackets_stand_under_their_windows():
    tokens = [f"w{i}" for i in range(12)]
    assert brackets(windows_diagram(FutureBlockConfig(), tokens, 2)) == [(3, 3), (4, 5), (6, 9), (10, 17)]
    assert brackets(windows_diagram(FutureBlockConfig(factor=3, levels=2), tokens, 0)) == [(1, 1), (2, 4), (5, 13)]
    assert "8-15 ahead" in repr(windows_diagram(FutureBlockConfig(), tokens, 2))


def test_bags_stand_under_what_came_with_their_hits(cycle):
    model, stream, _ = cycle
    frame = future_predictions(model, None, stream[:20], top=2)
    table = foresight_table(frame)
    assert table.position == 12 and [(bag.first, bag.last) for bag in table.bags] == list(WINDOWS.values())
    assert str(table).splitlines()[0] == "after «#0» (✓ came)"
    assert [line.count("✓") for line in str(table).splitlines()] == [1, 1, 2, 2]
    picture = foresight_picture(frame)
    assert brackets(picture) == [(13, 13), (14, 15), (16, 19)]
    texts = [text.get_text() for text in picture.figure.axes[0].texts]
    assert [text for text in texts if "%" in text] == [line for bag in table.bags for line in bag.lines]
    html = table._repr_html_()
    assert html.count("<b><u>") == str(table).count("✓") - 1 and 'colspan="10"' in html  # 8 before it, itself, one
    at_end = foresight_table(frame, 19)
    assert str(at_end).count("(to come)") == 3 and str(at_end).count("✓") == 1 and at_end._repr_html_().count("…") == 7


def test_markup_in_tokens_stays_text():
    model = stirred_alike(vary("future", vocab_size=257))
    html = foresight_table(future_predictions(model, load_tokenizer("byte"), "<b>&", top=3))._repr_html_()
    assert "&lt;" in html and "&amp;" in html and "><<" not in html


def test_maps_hold_the_weights_and_nothing_first(cycle):
    frame = future_attention(cycle[0], None, cycle[1][:6])
    cells = [plot.collections[0].get_array() for plot in future_attention_maps(frame, 1).figure.axes[:3]]
    titles = [plot.get_title(loc="left") for plot in future_attention_maps(frame).figure.axes[:3]]
    assert titles == ["layer 3: 4-7 ahead", "layer 4: 4-7 ahead", "layer 4: 2-3 ahead"]
    rows = frame[(frame["layer"] == 4) & (frame["head"] == 1) & (frame["position"] == 4)]
    both = rows[(rows["level"] == 2) & (rows["source"] == 2)]["weight"]
    assert len(both) == 2 and cells[1][4, 3] == pytest.approx(both.sum())
    assert cells[1][4, 0] == cells[2][4, 0] == pytest.approx(rows[rows["reads"] == "nothing"]["weight"].item())
    assert cells[1][4, :6].sum() + cells[2][4, 1:6].sum() == pytest.approx(1)
    assert np.ma.getmaskarray(cells[1])[4, 6] and not np.ma.getmaskarray(cells[1])[4, 5], "the future is not seen"


def test_calibration_plot_draws_the_frame(cycle):
    found = cycle[2]
    loss, coverage, reliability = calibration_plot(found).figure.axes
    for name, line in zip(("model", "bigram", "unigram"), loss.lines):
        rows = found.measures[found.measures["predictor"] == name]
        assert line.get_label() == name and line.get_ydata().tolist() == rows["loss"].tolist()
    assert coverage.lines[0].get_ydata()[0] == 100 * found.measures["top_window"][0]
    drawn = {line.get_label(): line.get_xydata() for line in reliability.lines}
    assert {"1 ahead", "2-3 ahead", "4-7 ahead"} <= set(drawn)
    level = found.bins[found.bins["level"] == 1]
    assert drawn["2-3 ahead"][0].tolist() == level[["predicted", "observed"]].iloc[0].tolist()
