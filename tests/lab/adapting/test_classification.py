"""Training a classifier, and what its report says."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from config import DropoutConfig
from lab.adapting.classification import train_classifier
from lab.adapting.classifier_report import ClassifierReport, measure_classifier
from lab.adapting.classifier_settings import ClassifierConfig
from lab.adapting.labelled import LabelledTask
from lab.adapting.text_classifier import TextClassifier, build_classifier
from lab.evaluation.wilson import wilson_interval
from lab.runs.run import Run
from settings.errors import ConfigError, DataError, RunError
from tests.helpers.labelled_texts import animal_task
from tests.helpers.small_runs import MODEL, make_run

pytestmark = pytest.mark.usefixtures("seeded")
CPU = ClassifierConfig(device="cpu", steps=60, batch_size=16)
FULL = CPU.replace(full=True, learning_rate=5e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    model = MODEL.replace(context_length=32, dropout=DropoutConfig(residual=0.1))
    return make_run(tmp_path_factory.mktemp("runs"), "base", model)


@pytest.fixture(scope="module")
def task() -> LabelledTask:
    return animal_task()


def trained(run: Run, task: LabelledTask, config: ClassifierConfig) -> tuple[TextClassifier, list[float]]:
    classifier = build_classifier(run, task, config)
    return classifier, [step.loss for step in train_classifier(classifier, task)]


def checksum(classifier: TextClassifier) -> str:
    digest = hashlib.sha256()
    for parameter in classifier.module.trunk.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("config", [CPU, FULL], ids=["frozen", "full"])
def test_the_same_seed_gives_the_same_classifier_and_another_gives_another(run, task, config):
    (one, losses), (two, again) = trained(run, task, config), trained(run, task, config)
    assert losses == again and torch.equal(one.module.head.weight, two.module.head.weight)
    assert trained(run, task, config.replace(seed=1))[1] != losses
    assert len(losses) == 60 and np.mean(losses[-10:]) < np.mean(losses[:10])


def test_a_frozen_trunk_keeps_its_weights_and_a_full_training_changes_them(run, task):
    untrained = checksum(build_classifier(run, task, CPU))
    assert checksum(trained(run, task, CPU)[0]) == untrained
    assert checksum(trained(run, task, FULL)[0]) != untrained


def test_texts_that_can_be_told_apart_are_told_apart(run, task):
    classifier, losses = trained(run, task, FULL.replace(steps=150))
    report = measure_classifier(classifier, task)
    assert losses[-1] < 0.1
    assert report.accuracy == report.baseline_accuracy == 1.0
    assert (report.confusion == np.diag(np.bincount(report.labels))).all()
    assert report.difference == 0 and "no difference can be told" in repr(report)


def test_a_frozen_head_learns_as_from_the_whole_model(run, task):
    """The features are computed once; the losses are those of passing each batch through the frozen model."""
    config = CPU.replace(steps=5)
    _, losses = trained(run, task, config)
    classifier = build_classifier(run, task, config)
    module, found = classifier.module, []
    optimizer = torch.optim.AdamW(
        [{"params": [module.head.weight], "weight_decay": 0.1}, {"params": [module.head.bias], "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )
    labels = torch.tensor([task.classes.index(one.label) for one in task.training])
    for step in range(5):
        rows = np.random.default_rng((0, step)).choice(len(labels), size=16, replace=False)
        logits = torch.cat([
            module(torch.tensor([ids]), torch.tensor([len(ids)]))
            for ids in classifier.encode([task.training[i].text for i in rows])
        ])
        loss = torch.nn.functional.cross_entropy(logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for group in optimizer.param_groups:  # five steps: no warm-up, and a cosine from 0.01 to a tenth of it
            group["lr"] = 0.001 + 0.009 * (1 + np.cos(np.pi * step / 5)) / 2
        optimizer.step()
        found.append(loss.item())
    assert losses == pytest.approx(found, abs=1e-5)


def test_one_text_has_the_probabilities_that_it_has_among_others(run, task):
    classifier, _ = trained(run, task, CPU)
    texts = [one.text for one in task.held_out]
    shares = classifier.logits(classifier.encode(texts)).softmax(dim=1)
    for text, row in zip(texts, shares):
        found = classifier.classify(text)
        assert list(found.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert found.label == task.classes[row.argmax()]
        assert repr(found).splitlines()[0] == f"{text!r}: {found.label}"


def test_a_text_longer_than_max_tokens_is_cut_at_its_end_and_the_result_says_so(run, task):
    classifier, _ = trained(run, task, CPU.replace(max_tokens=4))
    cut, short = classifier.classify("123456789"), classifier.classify("1234")
    assert cut.probabilities == short.probabilities
    assert "only the first 4 of its 9 tokens were read" in repr(cut) and "only" not in repr(short)
    report = measure_classifier(classifier, task)
    assert f"{report.n_cut} of the {len(task.held_out)} texts were cut at their end, to 4 tokens" in repr(report)


def test_what_cannot_be_done_is_refused(run, task):
    with pytest.raises(ConfigError, match="max_tokens=1000 is more than the 128 positions of 'base'; set 128 or fewer"):
        build_classifier(run, task, CPU.replace(max_tokens=1000))
    other = build_classifier(run, dataclasses.replace(task, classes=("one", "two")), CPU)
    with pytest.raises(ConfigError, match="are not those of 'animals'"):
        next(train_classifier(other, task))
    with pytest.raises(ConfigError, match="are not those of 'animals'"):
        measure_classifier(other, task)
    with pytest.raises(DataError, match="an empty text has no last token"):
        other.classify("")
    with pytest.raises(RunError, match=r"step \d+: the loss is nan at learning rate .*; begin again with a lower"):
        trained(run, task, FULL.replace(learning_rate=1e30))
    with pytest.raises(ConfigError, match="steps"):
        ClassifierConfig(steps=0)


def test_leaving_the_loop_leaves_a_classifier_that_can_be_used(run, task):
    classifier = build_classifier(run, task, FULL)
    for step in train_classifier(classifier, task):
        if step.step == 3:
            break
    assert not classifier.module.training
    assert classifier.classify("a cat") == classifier.classify("a cat")


@pytest.mark.parametrize("right, n", [(0, 7), (7, 7), (3, 10), (473, 500)])
def test_wilsons_interval_is_scipys(right, n):
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def made_up(labels, predicted, baseline, documents=None) -> ClassifierReport:
    return ClassifierReport(
        task="toy", texts="", run="base", full=True, classes=("a", "b"), labels=np.array(labels),
        predicted=np.array(predicted), baseline=np.array(baseline),
        documents=np.arange(len(labels)) if documents is None else np.array(documents), n_cut=0, max_tokens=4,
    )


def test_the_difference_has_the_interval_of_a_paired_comparison():
    """Against the normal interval of the mean of the paired differences; resampling adds about 2 % of noise to it."""
    random = np.random.default_rng(0)
    labels = random.integers(2, size=400)
    baseline = np.where(random.random(400) < 0.7, labels, 1 - labels)
    predicted = np.where(random.random(400) < 0.5, labels, baseline)  # right wherever the baseline is, and more
    report = made_up(labels, predicted, baseline)
    better = (predicted == labels).astype(float) - (baseline == labels)
    half = 1.96 * better.std() / 20
    assert report.difference == pytest.approx(better.mean())
    assert report.difference_interval == pytest.approx((better.mean() - half, better.mean() + half), abs=0.15 * half)
    assert "the classifier is right more often" in repr(report)
    assert "the bag of words is right more often" in repr(made_up(labels, baseline, predicted))
    four_of_each = made_up(*(np.repeat(one, 4) for one in (labels, predicted, baseline)), np.repeat(np.arange(400), 4))
    assert four_of_each.difference_interval == report.difference_interval  # copies of a text are no further evidence


def test_confusions_are_counted_shown_and_drawn():
    report = made_up([0, 0, 0, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 1, 0])
    assert report.confusion.tolist() == [[2, 1], [1, 1]]
    assert report.accuracy == 0.6 and report.baseline_accuracy == 0.4
    assert "60.0 % of 5" in repr(report) and "40.0 % of 5" in repr(report)
    html = report._repr_html_()
    assert "<td>2</td><td>1</td>" in html.replace("\n", "") and "66.7 %" in html
    labels = np.repeat(np.arange(20), 2)  # too many classes for a table
    many = dataclasses.replace(
        made_up(labels, np.where(labels < 2, 19, labels), labels), classes=tuple(f"class {i}" for i in range(20))
    )
    for shown in (repr(many), many._repr_html_()):
        assert "2 of class 0 taken for class 19" in shown and "2 of class 1 taken for" in shown and "90.0 %" in shown
        assert shown.count("taken for") == 2
    assert report.picture().description == "Heat map: % of the true class by true class and taken for, 33.3 to 66.7"
