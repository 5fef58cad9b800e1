"""The model's vocabulary follows the tokenizer where a run is made; a run keeps the number, and its own tokenizer."""

import pytest

from config import VOCABULARIES, LoRAConfig, Preset, preset
from lab.adapting.classification import train_classifier
from lab.adapting.classifier_report import measure_classifier
from lab.adapting.classifier_settings import ClassifierConfig
from lab.adapting.distillation import student_settings
from lab.adapting.fine_tuning import fine_tune
from lab.adapting.stored_classifier import open_classifier, save_classifier
from lab.adapting.text_classifier import build_classifier
from lab.comparison.compared_run import open_compared_run
from lab.comparison.overrides import overridden
from lab.comparison.sweep import compare_sweep, sweep
from lab.costs.estimates import estimate
from lab.costs.memory import decoding_memory, training_memory
from lab.costs.passes import meta_model
from lab.data import tokenizers
from lab.data.tokenizers import bpe_tokenizer, load_tokenizer, register_tokenizer
from lab.evaluation.evaluate import evaluate
from lab.runs.run import Run
from lab.training.loop import train
from lab.training.rate_finder import find_learning_rate
from lab.training.start import open_or_create
from modules.transformer import Transformer
from settings.errors import ConfigError, RunError, TokenizerError
from tests.helpers.labelled_texts import animal_task
from tests.helpers.small_runs import make_run
from tests.helpers.small_trainings import MODEL, TRAIN

FOLLOWING = MODEL.replace(vocab_size=None)


@pytest.fixture(autouse=True)
def own_names(monkeypatch):
    monkeypatch.setattr(tokenizers, "_REGISTRY", dict(tokenizers._REGISTRY))


def test_a_run_stores_the_number_and_is_found_again(tmp_path):
    first = open_or_create("one", FOLLOWING, TRAIN, tmp_path)
    assert first.model_config == MODEL and '"vocab_size": 257' in (first.folder / "model_config.json").read_text()
    for model in (FOLLOWING, MODEL):
        assert open_or_create("one", model, TRAIN, tmp_path).name == "one"
    other = TRAIN.replace(data=TRAIN.data.replace(tokenizer="bpe-512"))
    second = open_or_create("one", FOLLOWING, other, tmp_path)
    assert (second.name, second.model_config.vocab_size) == ("one-2", 512)
    assert Run.create("two", MODEL.replace(vocab_size=384), TRAIN, tmp_path).model_config.vocab_size == 384


def test_everything_that_makes_a_run_settles_it(tmp_path):
    short = TRAIN.replace(steps=2, evaluate_every=2, schedule=TRAIN.schedule.replace(warmup_steps=0))
    variants = {"plain": Preset(FOLLOWING, short)}
    for _ in range(2):  # the second time there is nothing to do
        steps = list(sweep(variants, range(1), tmp_path))
    assert steps == [] and Run.open("plain-seed0", tmp_path).model_config == MODEL
    assert list(compare_sweep(variants, range(1), tmp_path).runs) == ["plain-seed0"]

    base = make_run(tmp_path, "padded", MODEL.replace(vocab_size=384), TRAIN)
    assert fine_tune(base, model=FOLLOWING, restart=True, folder=tmp_path).model_config.vocab_size == 384
    adapted = fine_tune(base, model=FOLLOWING, lora=LoRAConfig(rank=2), folder=tmp_path)
    assert adapted.model_config == base.model_config.replace(lora=LoRAConfig(rank=2))
    assert student_settings(base, Preset(FOLLOWING, TRAIN)).model.vocab_size == 384


def test_a_test_of_rates_is_that_of_the_settled_model():
    following, told = (find_learning_rate(Preset(model, TRAIN), steps=10) for model in (FOLLOWING, MODEL))
    assert following.losses == told.losses


def test_a_model_by_itself_needs_the_number():
    for make in (
        lambda: Transformer(FOLLOWING), lambda: estimate(FOLLOWING, TRAIN).parameters,
        lambda: estimate(FOLLOWING).forward_flops, lambda: training_memory(FOLLOWING, TRAIN, "fp32"),
        lambda: decoding_memory(FOLLOWING), lambda: meta_model(FOLLOWING),
    ):
        with pytest.raises(ConfigError, match=r"config\.replace\(vocab_size=tokenizer\.vocab_size\)"):
            make()


@pytest.mark.parametrize("name", [name for name in VOCABULARIES if name not in ("gpt2", "r50k_base")])
def test_a_preset_for_a_tokenizer_is_a_pair_that_fits(name):
    model, train_config = preset("alibi-small", tokenizer=name)
    assert (train_config.data.tokenizer, model.vocab_size) == (name, load_tokenizer(name).vocab_size)
    before = preset("alibi-small")
    assert model.replace(vocab_size=2048) == before.model
    assert train_config.replace(data=before.train.data) == before.train


def test_a_preset_for_ones_own_tokenizer_follows_it(tmp_path):
    for wrong in (["byte"], 5):
        with pytest.raises(ConfigError, match="tokenizer"):
            preset("llama-tiny", tokenizer=wrong)
    assert preset("llama-tiny", tokenizer="").model.vocab_size is None
    register_tokenizer("mine", lambda: bpe_tokenizer("mine", [(b"t", b"h"), (b"th", b"e")]))
    model, _ = preset("llama-tiny", tokenizer="mine")
    run = Run.create("one", model, TRAIN.replace(data=TRAIN.data.replace(tokenizer="mine")), tmp_path)
    assert run.model_config.vocab_size == 259
    (variant,) = overridden(preset("llama-tiny"), [{"train.data.tokenizer": "mine"}]).values()
    assert variant == preset("llama-tiny", tokenizer="mine")


def test_another_tokenizer_in_a_presets_training_names_the_remedy(tmp_path):
    model, train_config = preset("llama-tiny")
    for tokenizer, told in (("byte", "2048 is larger than the 257"), ("bpe-4096", "2048 is smaller than the 4096")):
        changed = train_config.replace(data=TRAIN.data.replace(tokenizer=tokenizer))
        with pytest.raises(ConfigError, match=rf"vocab_size={told}.*vocab_size=None .*preset\(NAME, tokenizer=NAME\)"):
            Run.create("one", model, changed, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_stored_run_without_the_number_is_damaged(tmp_path):
    run = Run.create("one", MODEL, TRAIN, tmp_path)
    path = run.folder / "model_config.json"
    path.write_text(path.read_text().replace('"vocab_size": 257', '"vocab_size": null'))
    with pytest.raises(RunError, match=r"'one' is damaged: model_config\.json has no vocab_size"):
        Run.open("one", tmp_path)


# --- a run's own tokenizer, whatever its name means here -------------------------------------------------------------


@pytest.fixture(params=["unknown here", "another here"])
def run(request, tmp_path, monkeypatch):
    """A sweep's run whose training was stopped, and whose tokenizer's name is unknown, or names another one."""
    register_tokenizer("mine", lambda: bpe_tokenizer("mine", [(b"t", b"h"), (b"th", b"e")]))
    config = TRAIN.replace(data=TRAIN.data.replace(tokenizer="mine"))
    steps = sweep({"mine": Preset(FOLLOWING, config)}, [0], tmp_path)
    for _ in range(5):
        next(steps)
    steps.close()
    monkeypatch.delitem(tokenizers._REGISTRY, "mine")
    if request.param == "another here":
        register_tokenizer("mine", lambda: bpe_tokenizer("mine", [(b"a", b"n")]))
    return Run.open("mine-seed0", tmp_path)


def test_a_stopped_run_goes_on_with_its_own_tokenizer(run, tmp_path):
    assert run.steps_done() == 5
    assert [step.step for step in train(run)] == list(range(6, 13))
    assert evaluate(run.load_model(), run.load_data().validation, run.tokenizer).loss > 0
    assert len(open_compared_run(run).log) == 12
    longer = run.train_config.replace(steps=20)
    assert fine_tune(run, longer, folder=tmp_path).tokenizer.fingerprint == run.tokenizer.fingerprint
    other_text = longer.replace(data=longer.data.replace(max_documents=70))
    assert fine_tune(run, other_text, folder=tmp_path).tokenizer.fingerprint == run.tokenizer.fingerprint
    student = student_settings(run, Preset(FOLLOWING, TRAIN))
    assert open_or_create("student", *student, tmp_path).tokenizer.fingerprint == run.tokenizer.fingerprint
    assert open_or_create("student", *student, tmp_path).name == "student"
    next(iter(sweep({"taught": student}, [0], tmp_path)))
    assert Run.open("taught-seed0", tmp_path).tokenizer.fingerprint == run.tokenizer.fingerprint
    assert len(find_learning_rate(student, steps=10).losses) == 10


def test_a_classifier_reads_by_the_tokenizer_of_its_run(run, tmp_path):
    task = animal_task(60)
    classifier = build_classifier(run, task, ClassifierConfig(device="cpu", steps=10, max_tokens=16))
    for _ in train_classifier(classifier, task):
        pass
    save_classifier(classifier, measure_classifier(classifier, task), "animals", tmp_path)
    opened = open_classifier("animals", tmp_path, "cpu")
    assert opened.tokenizer.fingerprint == run.tokenizer.fingerprint
    assert opened.classify("the then").probabilities == classifier.classify("the then").probabilities


def test_the_same_sweep_goes_on_with_the_tokenizer_of_its_runs(run, tmp_path):
    variants = {"mine": Preset(FOLLOWING, run.train_config.replace(seed=0))}
    assert [step.step for _, step in sweep(variants, [0], tmp_path)] == list(range(6, 13))
    assert list(compare_sweep(variants, [0], tmp_path).runs) == ["mine-seed0"]
    with pytest.raises(TokenizerError, match=r"mine-seed1: (unknown tokenizer|'mine' is another tokenizer here)"):
        sweep(variants, [0, 1], tmp_path)
