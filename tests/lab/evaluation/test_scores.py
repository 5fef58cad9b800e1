"""Scores of single tokens against a plain loop, their errors against scipy, the paired test against both."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from lab.comparison.comparison import compare
from lab.data.packing import prepare
from lab.data.tokenizers import bpe_tokenizer, load_tokenizer
from lab.evaluation.bootstrap import RESAMPLES, interval, resampled_sums
from lab.evaluation.evaluate import TOP, evaluate, evaluate_text
from lab.evaluation.paired import common_documents, paired
from lab.evaluation.probes import skills
from lab.terminal import main
from modules.transformer import Transformer
from settings.errors import ConfigError, DataError
from tests.helpers.small_runs import DATA, MODEL, made_up, make_run, random_documents

END = 256  # of text, in the byte tokenizer
N = 1300  # tokens, of one document and a bit


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(seeded):
    return Transformer(MODEL).train()


@pytest.fixture
def data():
    return prepare(DATA)


def plain_loop(model, ids: list[int]) -> list[dict]:
    """One token after the other: its loss, the tokens by falling probability, its place, its document, its bytes."""
    found, document = [], 0
    model.eval()
    for start in range(0, len(ids) - 1, MODEL.context_length):
        window = ids[start : start + MODEL.context_length + 1]
        for t in range(1, len(window)):
            with torch.no_grad():
                logits = model(torch.tensor([window[:t]]))[0, -1]
            document += window[t - 1] == END
            order = torch.sort(logits, descending=True, stable=True).indices.tolist()
            found.append({
                "loss": (logits.double().logsumexp(0) - logits[window[t]]).item(), "order": order, "target": window[t],
                "position": t - 1, "document": document, "bytes": int(window[t] != END),
            })
    return found


def test_every_token_equals_a_plain_loop(model, data):
    scores = evaluate(model, data.validation, data.tokenizer, max_tokens=N, top=TOP)
    assert model.training, "left in the mode it was in"
    expected = plain_loop(model, [int(i) for i in data.validation.tokens[: N + 1]])
    assert len(scores) == len(expected) == N and N % MODEL.context_length, "the last window is a shorter one"
    assert scores.losses == pytest.approx([one["loss"] for one in expected], abs=2e-5)
    fields = {"targets": "target", "positions": "position", "documents": "document", "n_bytes": "bytes"}
    for name, field in fields.items():
        assert getattr(scores, name).tolist() == [one[field] for one in expected], name
    assert scores.documents[-1] >= 1, "the text holds an end of text"
    assert scores.ranks.tolist() == [one["order"].index(one["target"]) + 1 for one in expected]


def test_metrics_equal_a_plain_loop_and_the_quick_evaluation(model, data):
    scores = evaluate(model, data.validation, data.tokenizer, max_tokens=N, top=(1, 3, 40))
    expected = plain_loop(model, [int(i) for i in data.validation.tokens[: N + 1]])
    mean = sum(one["loss"] for one in expected) / N
    bits = mean * N / math.log(2) / sum(one["bytes"] for one in expected)
    accuracies = {f"top_{k}": sum(one["target"] in one["order"][:k] for one in expected) / N for k in (1, 3, 40)}
    wanted = {"loss": mean, "perplexity": math.exp(mean), "bits_per_byte": bits} | accuracies
    assert scores.metrics == pytest.approx(wanted, rel=1e-5)
    assert 0 < accuracies["top_1"] < accuracies["top_40"] < 1
    quick = evaluate(model, data.validation, data.tokenizer, N)
    assert scores.metrics["loss"] == quick.loss and scores.metrics["bits_per_byte"] == quick.bits_per_byte
    assert quick.ranks is None and (scores.losses == quick.losses).all()
    by_position = [np.mean([one["loss"] for one in expected if one["position"] == t]) for t in range(16)]
    assert scores.loss_by_position() == pytest.approx(by_position, abs=1e-5)


def test_of_equally_likely_tokens_the_lower_id_comes_first(data):
    model = Transformer(MODEL)
    torch.nn.init.zeros_(model.embedding.weight)
    scores = evaluate(model, data.validation, data.tokenizer, max_tokens=50, top=TOP)
    assert (scores.ranks == scores.targets + 1).all()
    assert scores.metrics["top_10"] == 0, "no letter is among the ten lowest ids"


def test_a_text_is_one_document_without_an_error(model):
    tokenizer, text = load_tokenizer("byte"), "Tim had a red ball, and Mia had none."
    scores = evaluate_text(model, text, tokenizer, TOP)
    assert scores.metrics["loss"] == evaluate_text(model, text, tokenizer).loss
    assert all(map(math.isnan, scores.standard_errors().values()))
    assert "over 36 tokens in 1 document, 36 bytes" in repr(scores) and "±" not in repr(scores)


@pytest.mark.parametrize("top", [(0,), (1, 1), (1.5,)])
def test_impossible_accuracies_are_refused(model, top):
    with pytest.raises(ConfigError, match="different whole numbers from 1 on"):
        evaluate_text(model, "Tim had a ball.", load_tokenizer("byte"), top=top)


def test_standard_errors_and_intervals_equal_scipys():
    scores = made_up(random_documents(0))
    errors = scores.standard_errors()
    loss, tokens, n_bytes, *hits = scores.sums.T
    statistics = {
        "loss": lambda i: loss[i].sum(-1) / tokens[i].sum(-1),
        "perplexity": lambda i: np.exp(loss[i].sum(-1) / tokens[i].sum(-1)),
        "bits_per_byte": lambda i: loss[i].sum(-1) / n_bytes[i].sum(-1) / np.log(2),
        "top_5": lambda i: hits[1][i].sum(-1) / tokens[i].sum(-1),
    }
    for name, statistic in statistics.items():
        theirs = scipy.stats.bootstrap(
            (np.arange(len(loss)),), lambda i, axis, statistic=statistic: statistic(i), n_resamples=RESAMPLES,
            method="percentile", rng=np.random.default_rng(0),
        )
        assert errors[name] == pytest.approx(theirs.standard_error, rel=1e-9), name
    drawn = resampled_sums(scores.sums, 500, seed=3)
    theirs = scipy.stats.bootstrap(
        (np.arange(len(loss)),), lambda i, axis: statistics["loss"](i), n_resamples=500, method="percentile",
        rng=np.random.default_rng(3),
    )
    assert interval(drawn[:, 0] / drawn[:, 1]) == pytest.approx(tuple(theirs.confidence_interval), rel=1e-9)


def test_the_error_of_equally_long_documents_is_that_of_a_mean():
    means = np.random.default_rng(1).normal(3, 0.5, 200)
    scores = made_up([[mean] * 8 for mean in means])
    assert scores.standard_errors()["loss"] == pytest.approx(means.std() / math.sqrt(200), rel=0.05)
    assert scores.standard_errors() == scores.standard_errors(), "the same digits twice"


def test_paired_equals_scipy_and_says_who_is_better():
    hard = random_documents(0)
    a, b = made_up(hard), made_up([list(np.array(one) + 0.02 + 0.01 * np.sin(len(one))) for one in hard])
    found = paired([a], [b], labels=("A", "B"), documents="stories")
    difference, tokens = a.sums[:, 0] - b.sums[:, 0], a.sums[:, 1]
    assert found.difference == pytest.approx(difference.sum() / tokens.sum(), rel=1e-12)
    theirs = scipy.stats.bootstrap(
        (difference, tokens), lambda d, n, axis: d.sum(axis) / n.sum(axis), paired=True, n_resamples=RESAMPLES,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(theirs), rel=1e-9)
    assert found.better == "A" and found.margin < 0.1 * a.standard_errors()["loss"], "pairing takes the hardness away"
    assert str(found).startswith(
        f"A has a lower loss than B by {-found.difference:.4f} ± {(theirs[1] - theirs[0]) / 2:.4f} nats per token on "
        "the same 40 stories (95 % interval)."
    )
    other = paired([b], [a], labels=("B", "A"), documents="stories")
    assert other.better == "A" and other.difference == pytest.approx(-found.difference)


def test_no_difference_is_said_to_be_none():
    hard = random_documents(0)
    noise = np.random.default_rng(2).normal(0, 0.1, len(hard))
    found = paired([made_up(hard)], [made_up([list(np.array(d) + e) for d, e in zip(hard, noise)])], labels=("A", "B"))
    assert found.low < 0 < found.high and found.better is None
    assert str(found).startswith(f"no difference can be told: A − B lies between {found.low:+.4f} and +")


def test_seeds_are_averaged_for_each_document_and_their_noise_is_named():
    hard = random_documents(0)
    seeds = [made_up([list(np.array(one) + shift) for one in hard]) for shift in (0.0, 0.1, 0.5)]
    found = paired(seeds, [made_up(hard)], labels=("A", "B"))
    assert found.difference == pytest.approx(0.2, abs=1e-6) and found.margin < 1e-6
    loss = made_up(hard).metrics["loss"]
    assert found.losses_a == pytest.approx((loss, loss + 0.1, loss + 0.5), abs=1e-6)
    assert f"{loss:.4f} to {loss + 0.5:.4f} for the 3 of A" in str(found)
    assert "Seeds add a noise of their own, which this interval does not hold" in str(found)
    assert "B has a lower loss than A by" in str(found) and "is about one run, B, and not about ideas" in str(found)


def test_only_seeds_on_both_sides_make_one_better():
    hard = random_documents(0)
    sides = {"A": hard, "B": [list(np.array(one) + 0.1) for one in hard]}
    seeds = {name: [made_up(one), made_up([list(np.array(d) + 0.01) for d in one])] for name, one in sides.items()}
    said = {n: str(paired(*(found[:n] for found in seeds.values()), labels=("A", "B"))) for n in (1, 2)}
    assert said[1].startswith("A has a lower loss than B by 0.1000 ±") and "better" not in said[1]
    assert said[1].endswith("This is about these two runs, and not about ideas.")
    assert said[2].startswith("A is better than B by 0.1000 ±") and "not about ideas" not in said[2]


def test_in_bits_per_byte_only_whole_documents_count():
    coarse, fine = made_up([[1.0], [2.0] * 3, [4.0] * 2, [9.0]]), made_up([[1.0] * 2, [0.5] * 6, [1.0] * 4, [9.0] * 5])
    coarse = replace(coarse, n_bytes=np.array([1, 2, 2, 2, 2, 2, 2]), whole_end=False)
    found = paired([coarse], [fine], labels=("A", "B"), in_nats=False)
    assert common_documents([coarse, fine]) == range(1, 3) and found.n_documents == 2
    assert found.difference == pytest.approx((14.0 - 7.0) / 10 / math.log(2)) and found.unit == "bits per byte"
    with pytest.raises(DataError, match="did not score the same documents"):
        paired([coarse], [fine], labels=("A", "B"))
    with pytest.raises(DataError, match="2 or more"):
        paired([made_up([[1.0]])], [made_up([[2.0]])], labels=("A", "B"))
    with pytest.raises(DataError, match="no document was scored whole"):
        common_documents([replace(made_up([[1.0], [2.0]]), whole_end=False)])


def test_skills_are_asked_about_held_out_stories_alone(model, data, monkeypatch):
    asked, probed = [], "lab.evaluation.probes.probe_accuracy"
    monkeypatch.setattr(probed, lambda _, __, probes: asked.extend(probes) or len(asked))
    assert skills(model, data.tokenizer, DATA, n_stories=3) == len(asked)
    texts = data.tokenizer.decode(data.validation.tokens.tolist()).split(data.tokenizer.decode([END]))[:3]
    starts = [probe.prompt + probe.right for probe in asked]
    assert len(starts) >= 3 and all(any(text.startswith(start) for text in texts) for start in starts)
    assert skills(model, data.tokenizer, DATA.replace(source="pydocs")) == {}


def test_another_tokenizer_of_the_same_name_is_noticed(tmp_path, data):
    run = make_run(tmp_path, "one")
    run.check_data(data)
    run.tokenizer = bpe_tokenizer("byte", [(b"a", b"b")])
    with pytest.raises(DataError, match="another 'byte' than 'one' was trained with"):
        run.check_data(data)


def test_the_command_and_a_comparison_evaluate_as_python_does(tmp_path, monkeypatch, capsys, data):
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path)
    run = make_run(tmp_path, "one")
    plain = evaluate(run.load_model(), data.validation, run.tokenizer, 300)
    scores = compare([run], tmp_path).evaluate(300).evaluated["one"]
    assert scores.loss == plain.loss and scores.bits_per_byte == plain.bits_per_byte
    assert main(["evaluate", "one", "--max-tokens", "300"]) == 0
    assert capsys.readouterr().out.startswith(f"{scores!r}\n")
    assert f"loss {plain.loss:.4f}" in str(plain) and str(plain) == str(scores)


def test_the_command_prints_the_same_digits_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path)
    make_run(tmp_path, "one")
    printed = []
    for _ in range(2):
        assert main(["evaluate", "one", "--max-tokens", "300"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    for part in ("over 300 tokens", "loss ", "perplexity", "bits per byte", "top 1 ", "top 10", "position", "pronoun"):
        assert part in printed[0]
    answers = r"right answers .*95 % interval.*chance is 50 %:\n(?:  \w+ +.* % of [\d,]+ \(.*\)\n?)+$"
    assert re.search(answers, printed[0]), printed[0]
    text = tmp_path / "text.txt"
    text.write_text("Tim had a red ball.", encoding="utf-8")
    assert main(["evaluate", "one", "--text", str(text), "--max-tokens", "3"]) == 1
    assert "give one of the two" in capsys.readouterr().err
