"""The zoo that ships: complete, of equal size, small enough, what its script makes, and what its pages say."""

import re
import shutil

import pandas as pd
import pytest
import torch

from bench.zoo.page import END, README, START, comparisons, page, results, short_table
from bench.zoo.ship import ship
from bench.zoo.train import PAIR, SEEDS, against_shipped, main, zoo
from config import list_models
from lab.analysis.tuned_lens import load_lens, train_lens
from lab.evaluation.evaluate import evaluate
from lab.runs.names import TRAINED
from lab.runs.run import Run
from lab.runs.weights import read_tensors
from lab.training.loop import train
from modules.transformer import Transformer
from settings.errors import ConfigError, RunError
from tests.helpers.small_runs import make_run

MOST_BYTES = 25e6
TALES = [name for name in zoo() if "-tales" in name]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cached(cache, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(cache))


def test_it_holds_every_architecture_on_both_texts_and_seeds_of_the_pair():
    expected = {f"{name}-tiny-{source}" for name in list_models() for source in ("tales", "pydocs")}
    expected |= {f"{name}-tiny-tales-seed{seed}" for name in PAIR for seed in range(1, SEEDS)}
    assert set(zoo()) == expected
    for source in ("tales", "pydocs"):
        configs = [made.train.replace(seed=0) for name, made in zoo().items() if f"-{source}" in name]
        assert all(config == configs[0] for config in configs), "trained alike"


def test_all_have_as_many_parameters_to_two_percent():
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in Transformer(made.model).parameters()) for name, made in zoo().items()}
    assert max(counts.values()) / min(counts.values()) < 1.02, counts


@pytest.mark.parametrize("name", zoo())
def test_what_ships_is_what_the_script_trains_to_its_end(name):
    run = Run.open(name)
    assert (run.model_config, run.train_config) == zoo()[name]
    assert run.steps_done() == run.train_config.steps and not run.checkpoint_path.exists()
    tensors, facts = read_tensors(run.weights_path)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16} and facts["rounded"] == "bfloat16"
    logged = run.log()["validation_loss"].min()
    assert float(facts["validation_loss"]) == pytest.approx(logged, rel=1e-8)
    card = (run.folder / "README.md").read_text(encoding="utf-8")
    assert f"{logged:.4f} nats per token" in card and "rounded to bfloat16" in card and facts["code"] in card


@pytest.mark.parametrize("name", TALES)
def test_the_weights_are_as_good_as_the_log_says(name):
    """Tales are the same on every machine; bfloat16 keeps eight bits of a weight."""
    run = Run.open(name)
    data = run.load_data()
    found = evaluate(run.load_model(), data.validation, run.tokenizer, run.train_config.evaluation_tokens)
    assert found.loss == pytest.approx(float(run.weights_facts()["validation_loss"]), abs=2e-3)


def test_trained_again_a_run_takes_the_way_of_the_one_that_ships(tmp_path, seeded):
    """Another machine rounds otherwise, so what is asked is which of three seeds it follows."""
    seeds = {f"factored-alibi-tiny-tales{end}": Run.open(f"factored-alibi-tiny-tales{end}").log()["loss"][:12]
             for end in ("", "-seed1", "-seed2")}
    again = Run.create("again", *zoo()["factored-alibi-tiny-tales-seed2"], folder=tmp_path)
    losses = [step.loss for step, _ in zip(train(again), range(12))]
    away = {name: sum(abs(loss - logged) for loss, logged in zip(losses, log)) for name, log in seeds.items()}
    own = away.pop("factored-alibi-tiny-tales-seed2")
    assert own < 0.5 * min(away.values()), (own, away)


def test_together_they_are_small():
    sizes = {name: sum(file.stat().st_size for file in (TRAINED / name).iterdir()) for name in zoo()}
    assert sum(sizes.values()) < MOST_BYTES


def test_the_pages_say_what_the_logs_say():
    compared = comparisons()
    found = {source: results(comparison) for source, comparison in compared.items()}
    (floor,) = compared["tales"].floors().values()
    assert (TRAINED / "README.md").read_text(encoding="utf-8") == page(found, floor)
    assert START + short_table(found) + END in README.read_text(encoding="utf-8")
    tales = page(found, floor).partition("## Pydocs")[0]
    said = dict(re.findall(r"^\| ([a-z0-9-]+) \| ([0-9.]+)", tales, re.MULTILINE))
    for name in set(list_models()) - {*PAIR}:
        assert said[name] == f"{Run.open(f'{name}-tiny-tales').log()['validation_loss'].min():.4f}"


def test_shipping_rounds_the_weights_and_replaces_what_was_there(tmp_path):
    (tmp_path / "there").mkdir()
    run = make_run(tmp_path / "made", "one")
    (run.folder / "checkpoint").mkdir()
    old = make_run(tmp_path / "there", "one", n_steps=10)
    train_lens(old, steps=1)
    exact, facts = read_tensors(run.weights_path)
    shipped = ship(run, tmp_path / "there")
    tensors, shipped_facts = read_tensors(shipped.weights_path)
    assert all(torch.equal(tensors[name], exact[name].to(torch.bfloat16)) for name in exact)
    assert shipped_facts == facts | {"rounded": "bfloat16"}
    assert shipped.folder == old.folder and not shipped.checkpoint_path.exists()
    assert load_lens(shipped), "the old lens belonged to the old weights"
    pd.testing.assert_frame_equal(shipped.log(), run.log(), rtol=1e-8, check_dtype=False)
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["one"]
    with pytest.raises(RunError, match="a checkpoint that would be lost"):
        (run.folder / "checkpoint" / "state.safetensors").touch()
        ship(run, tmp_path / "made")


def test_a_zoo_that_is_not_whole_gets_no_page_and_trained_is_no_place_to_train_in(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.runs.names.TRAINED", shutil.copytree(TRAINED, tmp_path / "trained"))
    log = tmp_path / "trained" / "alibi-tiny-tales-seed1" / "log_data.csv"
    log.write_text(log.read_text(encoding="utf-8").partition("\n")[0] + "\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"not whole.*alibi-tiny-tales-seed1.*no step"):
        comparisons()
    shipped = float(Run.open("llama-tiny-tales").weights_facts()["validation_loss"])
    said = [against_shipped(*one) for one in (("llama-tiny-tales", shipped), ("llama-tiny-tales", shipped + 0.5),
                                              ("nobody", 1.0))]
    assert said == ["identical", "+0.500000", "none ships"]
    with pytest.raises(ConfigError, match="held against themselves"):
        main(TRAINED, "llama-tiny-tales")
