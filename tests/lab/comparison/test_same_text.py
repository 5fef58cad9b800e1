"""Fingerprints decide whether two runs have the same held-out documents, not the settings that made them."""

import shutil

import pytest

from lab.comparison.comparison import compare
from lab.data.sources import DEFAULT_TALES
from lab.data.tokenizers import bpe_tokenizer
from lab.runs.run import Run
from settings.errors import ConfigError
from tests.helpers.small_runs import DATA, MODEL, TRAIN, make_run
from tests.helpers.text_files import TEXTS, write

pytestmark = pytest.mark.usefixtures("seeded")


def train_on(path, seed: int = 0, **changes):
    data = DATA.replace(source=str(path), validation_fraction=0.4, **changes)
    return TRAIN.replace(data=data, seed=seed, sample_prompt="D")


@pytest.fixture
def folder(tmp_path):
    """Two runs of equal settings; between them, the file changed."""
    path = write(tmp_path / "mine.jsonl", TEXTS)
    make_run(tmp_path / "runs", "before", train=train_on(path))
    write(path, TEXTS[::2])
    make_run(tmp_path / "runs", "after", train=train_on(path, seed=1))
    return tmp_path / "runs"


def test_runs_before_and_after_a_change_of_the_file_do_not_compare(folder):
    texts = {name: Run.open(name, folder).text.validation for name in ("before", "after")}
    comparison = compare(None, folder)
    assert not comparison.chosen.same_text and not comparison.in_nats and not comparison.chosen.same_validation
    assert comparison.table()["validation_loss"].isna().all()
    assert all(print in repr(comparison) for print in texts.values())
    assert len(comparison.configurations) == 2, "no two seeds of one configuration"
    with pytest.raises(ConfigError, match="several that differ in their seed alone"):
        comparison.paired(["before", "after"], "before")


def test_other_text_than_the_runs_is_left_out_when_it_is_scored(folder):
    texts = {name: Run.open(name, folder).text for name in ("before", "after")}
    comparison = compare(None, folder).evaluate(300)
    assert list(comparison.evaluated) == ["after"]
    assert all(text.train in comparison.left_out["before"] for text in texts.values())


def test_paired_and_disagreement_name_both_texts(tmp_path):
    for name, texts in {"one": TEXTS, "two": TEXTS[::2]}.items():
        make_run(tmp_path / "runs", name, train=train_on(write(tmp_path / f"{name}.jsonl", texts)))
    comparison = compare(None, tmp_path / "runs")
    texts = [Run.open(name, tmp_path / "runs").text.validation for name in ("one", "two")]
    for ask in (comparison.paired, comparison.disagreement):
        with pytest.raises(ConfigError) as told:
            ask("one", "two", max_tokens=300)
        assert all(text in str(told.value) for text in texts)
    assert comparison.extrapolation((1,), max_tokens=300).unit == "bits per byte"


def test_the_same_text_elsewhere_and_by_other_settings_compares(tmp_path):
    for name, seed in {"one": 0, "two": 1}.items():
        path = write(tmp_path / name / "mine.jsonl", TEXTS)
        make_run(tmp_path / "runs", name, train=train_on(path, seed, max_documents=500 if seed else None))
    comparison = compare(None, tmp_path / "runs")
    assert comparison.chosen.same_text and comparison.in_nats and comparison.table()["validation_loss"].notna().all()
    assert comparison.paired("one", "two", max_tokens=1500).unit == "nats per token"
    assert comparison.disagreement("one", "two", n=1, length=5).labels == ("one", "two")
    assert "different data" not in repr(comparison.evaluate(1500))


def test_all_tales_by_number_and_by_default_compare_also_with_runs_without_a_record(tmp_path):
    """A run of train.ipynb beside the runs that ship, which were made before there were records."""
    counted = TRAIN.replace(data=DATA.replace(max_documents=50), seed=1)
    make_run(tmp_path, "plain", train=counted.replace(seed=0))
    make_run(tmp_path, "counted", train=counted)
    for name, count in {"plain": "null", "counted": str(DEFAULT_TALES)}.items():
        settings = tmp_path / name / "train_config.json"
        settings.write_text(settings.read_text().replace('"max_documents": 50', f'"max_documents": {count}'))
        (tmp_path / name / "data.json").unlink()
    comparison = compare(None, tmp_path)
    assert comparison.chosen.same_text and comparison.in_nats
    assert list(comparison.configurations.values()) == [["counted", "plain"]]


def test_beside_a_run_without_a_record_settings_decide(tmp_path):
    make_run(tmp_path, "old")
    make_run(tmp_path, "new", train=TRAIN.replace(seed=1))
    make_run(tmp_path, "other", train=TRAIN.replace(data=DATA.replace(seed=3), seed=2))
    (tmp_path / "old" / "data.json").unlink()
    assert compare(["old", "new"], tmp_path).in_nats and len(compare(["old", "new"], tmp_path).configurations) == 1
    assert not compare(["old", "other"], tmp_path).chosen.same_text and not compare(None, tmp_path).in_nats


def test_the_stored_tokenizer_is_used_and_not_the_name(tmp_path, monkeypatch):
    """A tokenizer from a notebook is unknown by name in the next process; the run has stored it."""
    from lab.data import tokenizers

    monkeypatch.setattr(tokenizers, "_REGISTRY", dict(tokenizers._REGISTRY))
    tokenizers.register_tokenizer("mine", lambda: bpe_tokenizer("mine", [(b"t", b"h"), (b"th", b"e")]))
    model = MODEL.replace(vocab_size=259)
    for seed in range(2):
        train = TRAIN.replace(data=DATA.replace(tokenizer="mine"), seed=seed)
        make_run(tmp_path / "runs", f"seed{seed}", model, train)
    monkeypatch.delitem(tokenizers._REGISTRY, "mine")
    comparison = compare(None, tmp_path / "runs").evaluate(300)
    assert list(comparison.evaluated) == ["seed0", "seed1"] and not comparison.left_out


def test_a_tokenizer_larger_than_its_model_is_refused_when_the_run_is_opened(tmp_path):
    run = make_run(tmp_path, "old")
    (run.folder / "data.json").unlink()
    larger = bpe_tokenizer("byte", [(b"t", b"h")]).to_json()
    (run.folder / "tokenizer.json").write_text(larger, encoding="utf-8")
    shutil.copytree(run.folder, tmp_path / "new")
    comparison = compare(None, tmp_path)
    assert all("258 tokens, and the model knows 257" in reason for reason in comparison.left_out.values())
    assert len(comparison.left_out) == 2
