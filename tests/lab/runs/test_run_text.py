"""A run learns one text: it is told apart by its content, wherever it lies and whatever settings made it."""

import gzip
import re
import shlex
import shutil
import zipfile

import pytest

from config import DataConfig, ModelConfig, TrainConfig, preset
from lab.adapting.fine_tuning import fine_tune
from lab.data import tokenizers
from lab.data.packing import prepare
from lab.data.tokenizers import bpe_tokenizer, register_tokenizer
from lab.runs.run import Run
from lab.runs.settings import starting_settings
from lab.runs.text import RunText
from lab.terminal_training import parse_training, starting_point
from lab.training.card import training_command
from lab.training.loop import train
from settings.errors import ConfigError, DataError, RunError, TokenizerError
from tests.helpers.text_files import TEXTS, write

MODEL = ModelConfig(vocab_size=257, context_length=8, n_layers=1, n_heads=2, width=8)


def settings(source, **changes) -> TrainConfig:
    data = DataConfig(source=str(source), tokenizer="byte", validation_fraction=0.3)
    return TrainConfig(
        data=data.replace(**changes), steps=4, batch_size=2, evaluation_tokens=64, precision="fp32", compile="off",
        sample_prompt="D", sample_tokens=2, device="cpu",
    )


def some_steps(run: Run, n: int) -> list[float]:
    steps = train(run)
    losses = [next(steps).loss for _ in range(n)]
    steps.close()
    return losses


def test_equal_texts_have_equal_fingerprints_whatever_made_them(tmp_path):
    one = prepare(settings(write(tmp_path / "a.jsonl", TEXTS)).data)
    moved = prepare(settings(write(tmp_path / "there" / "b.jsonl", TEXTS), max_documents=500).data)
    coarse = prepare(settings(tmp_path / "a.jsonl", tokenizer="bpe-512").data)
    assert one.train.fingerprint == moved.train.fingerprint == coarse.train.fingerprint
    assert one.validation.fingerprint == moved.validation.fingerprint == coarse.validation.fingerprint
    others = [prepare(settings(write(tmp_path / f"{name}.jsonl", texts)).data) for name, texts in {
        "reversed": TEXTS[::-1], "fewer": TEXTS[1:], "joined": [*TEXTS[:-2], TEXTS[-2] + TEXTS[-1]],
    }.items()]
    found = {(data.train.fingerprint, data.validation.fingerprint) for data in (one, *others)}
    assert len(found) == 4 and one.train.fingerprint != one.validation.fingerprint


def test_all_tales_by_number_and_by_default_are_one_text(monkeypatch):
    monkeypatch.setattr("lab.data.sources.DEFAULT_TALES", 60)
    plain, counted = (prepare(settings("tales", max_documents=count).data) for count in (None, 60))
    assert plain.validation.fingerprint == counted.validation.fingerprint != ""


def test_a_file_replaced_between_stop_and_resume_is_refused(tmp_path):
    source = write(tmp_path / "mine.jsonl", TEXTS)
    run = Run.create("one", MODEL, settings(source), tmp_path)
    some_steps(run, 2)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    write(source, [*TEXTS[:-1], "Something else."])
    with pytest.raises(DataError, match="text of 'one' is another than it was") as told:
        some_steps(Run.open(run.folder), 1)
    assert run.text.train in str(told.value) or run.text.validation in str(told.value)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
    write(source, TEXTS)
    assert some_steps(Run.open(run.folder), 1)


def test_data_given_by_hand_is_held_against_the_runs_own(tmp_path):
    run = Run.create("one", MODEL, settings(write(tmp_path / "a.jsonl", TEXTS)), tmp_path)
    other = prepare(settings(write(tmp_path / "b.jsonl", TEXTS[5:])).data)
    with pytest.raises(DataError, match="text of 'one' is another"):
        next(train(run, other))


def test_a_relative_path_means_the_file_it_meant_then(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    write(here / "mine.jsonl", TEXTS)
    monkeypatch.chdir(here)
    run = Run.create("one", MODEL, settings("mine.jsonl"), tmp_path)
    assert (run.text.source, run.text.path) == ("mine.jsonl", str(here / "mine.jsonl"))
    write(there / "mine.jsonl", TEXTS[::-1])
    monkeypatch.chdir(there)
    assert Run.open(run.folder).load_data().train.fingerprint == run.text.train
    (here / "mine.jsonl").unlink()  # what is left is the other file of that name
    with pytest.raises(DataError, match="is another than it was"):
        Run.open(run.folder).load_data()
    write(there / "mine.jsonl", TEXTS)  # the same text, moved
    assert Run.open(run.folder).load_data().validation.fingerprint == run.text.validation


@pytest.mark.parametrize("pattern", ("", "*.jsonl"))
def test_a_folder_or_a_glob_that_lost_its_files_may_have_moved(tmp_path, pattern):
    before, now = tmp_path / "before", tmp_path / "now"
    source = write(before / "mine.jsonl", TEXTS)
    run = Run.create("one", MODEL, settings(before / pattern), tmp_path)
    some_steps(run, 2)
    now.mkdir()
    source.rename(now / source.name)
    (run.folder / "train_config.json").write_text(
        run.train_config.replace(data=run.train_config.data.replace(source=str(now / pattern))).to_json()
    )
    assert some_steps(Run.open(run.folder), 1)


def test_a_registered_tokenizer_need_not_be_registered_again(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.data.tokenizers._REGISTRY", dict(tokenizers._REGISTRY))
    register_tokenizer("mine", lambda: bpe_tokenizer("mine", [(b"a", b"t")]))
    config = settings(write(tmp_path / "a.jsonl", TEXTS), tokenizer="mine")
    run = Run.create("one", MODEL.replace(vocab_size=258), config, tmp_path)
    first = some_steps(run, 2)
    monkeypatch.setattr("lab.data.tokenizers._REGISTRY", {})  # as in the next process
    assert Run.open(run.folder).load_data().tokenizer.vocab_size == 258
    assert len(first + some_steps(Run.open(run.folder), 2)) == 4


def test_another_tokenizer_in_the_folder_is_noticed(tmp_path):
    run = Run.create("one", MODEL, settings(write(tmp_path / "a.jsonl", TEXTS)), tmp_path)
    (run.folder / "tokenizer.json").write_text(bpe_tokenizer("byte", []).to_json(), encoding="utf-8")
    with pytest.raises(RunError, match=r"tokenizer\.json holds another tokenizer"):
        Run.open(run.folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"source": 1}', "[" * 100_000, RunText(
    source="tales", path=None, train="a", validation="b", tokenizer="c").to_json().replace('"a"', "1")])
def test_a_damaged_record_is_told(text):
    with pytest.raises(RunError, match=r"data\.json is no record"):
        RunText.from_json(text)


@pytest.mark.parametrize(
    ("model", "train_changes", "data_changes", "error", "told"),
    [
        ({}, {}, {"source": "nowhere.txt"}, DataError, "no file or folder"),
        ({}, {}, {"source": "memory:gone"}, DataError, r"register_texts\(texts, name='gone'\)"),
        ({}, {}, {"text_field": "story"}, DataError, "no text in a column 'story'. Its columns are text"),
        ({}, {}, {"include": ("*.md",)}, DataError, "include and exclude choose files of a folder or a zip"),
        ({}, {}, {"encoding": "utf-16-be"}, DataError, "not UTF-16-be text: .*Leave encoding='utf-16-be' out"),
        ({}, {}, {"split": "tail", "validation_fraction": 1e-17}, DataError, "and 0 for validation. Give more text"),
        ({}, {}, {"tokenizer": "bite"}, TokenizerError, "did you mean 'byte'"),
        ({"vocab_size": 200}, {}, {}, ConfigError, "smaller than the 257 tokens"),
        ({"vocab_size": 2048}, {}, {}, ConfigError, "larger than the 257 tokens.*Set vocab_size=257"),
        ({}, {"device": "mps"}, {}, ConfigError, "device 'mps' is not available"),
        ({}, {"sample_prompt": "a" * 32}, {}, ConfigError, "sample_prompt takes 32 tokens"),
        ({"context_length": 4000}, {}, {}, DataError, "too few for one window of 4000"),
    ],
)
def test_a_start_that_fails_leaves_no_run(tmp_path, model, train_changes, data_changes, error, told):
    source = write(tmp_path / "a.jsonl", TEXTS)
    config = settings(**{"source": source} | data_changes).replace(**train_changes)
    with pytest.raises(error, match=told):
        Run.create("one", MODEL.replace(**model), config, tmp_path / "trained")
    assert not (tmp_path / "trained").exists()
    padded = MODEL.replace(vocab_size=384)
    assert Run.create("one", padded, settings(source), tmp_path / "trained").name == "one"


def test_what_follows_from_other_settings_is_written_out_in_the_run(tmp_path):
    run = Run.create("one", MODEL, settings(write(tmp_path / "a.jsonl", TEXTS)).replace(steps=30), tmp_path)
    assert run.train_config.schedule.warmup_steps == Run.open(run.folder).train_config.warmup_steps == 3


def test_settings_that_were_changed_since_the_run_was_opened_are_not_overlooked(tmp_path):
    run = Run.create("one", MODEL, settings(write(tmp_path / "a.jsonl", TEXTS)), tmp_path)
    some_steps(run, 2)
    file = run.folder / "train_config.json"
    file.write_text(run.train_config.replace(learning_rate=0.5).to_json(), encoding="utf-8")
    with pytest.raises(RunError, match=r"changed since this run was opened.*Run\.open\('one'\)"):
        next(train(run))
    again = Run.open(run.folder)
    assert next(train(again)).learning_rate > 0.01


@pytest.mark.parametrize("typed", [
    "texts/mine.jsonl", "./texts", "texts/*.jsonl", "../beside/mine.jsonl", "texts/a.zip", "**/mine.*",
])
@pytest.mark.parametrize("project", ["project", "[x] project"])
def test_a_project_that_was_moved_finds_its_text(tmp_path, monkeypatch, typed, project):
    work = tmp_path / "work"
    file = write(work / project / "texts" / "mine.jsonl", TEXTS)
    write(work / "beside" / "mine.jsonl", TEXTS)
    if typed.endswith(".zip"):
        with zipfile.ZipFile(work / project / "texts" / "a.zip", "w") as archive:
            archive.write(file, "mine.jsonl")
    monkeypatch.chdir(work / project)
    run = Run.create("one", MODEL, settings(typed), work / project / "trained")
    some_steps(run, 2)
    monkeypatch.chdir(tmp_path)
    work.rename(tmp_path / "elsewhere")
    moved = Run.open(tmp_path / "elsewhere" / project / "trained" / "one")
    assert moved.text.is_gone() and some_steps(moved, 1)
    shared = moved.text.without_path()
    assert (shared.path, shared.relative) == (None, None)


def test_the_place_that_holds_the_runs_text_counts(tmp_path, monkeypatch):
    first, copied = tmp_path / "first", tmp_path / "copied"
    file = write(first / "mine.jsonl", TEXTS)
    monkeypatch.chdir(first)
    Run.create("one", MODEL, settings("mine.jsonl"), first / "trained")
    shutil.copytree(first, copied)
    write(file, TEXTS[::-1])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"text of 'one' is another than it was: the train documents of .*first"):
        Run.open(first / "trained" / "one").load_data()
    run = Run.open(copied / "trained" / "one")
    assert run.load_data().train.fingerprint == run.text.train
    before = (copied / "trained" / "one" / "data.json").read_text(encoding="utf-8")
    older = re.sub(r',\s*"relative": "[^"]*"', "", before)  # as earlier versions wrote it
    assert older != before
    (copied / "trained" / "one" / "data.json").write_text(older, encoding="utf-8")
    with pytest.raises(DataError, match="is another than it was"):
        Run.open(copied / "trained" / "one").load_data()


def test_a_run_that_starts_from_another_reads_its_text_from_any_folder(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    write(here / "mine.jsonl", TEXTS)
    write(there / "mine.jsonl", TEXTS[::-1])  # another file of that name
    monkeypatch.chdir(here)
    base = Run.create("one", MODEL, settings("mine.jsonl"), tmp_path)
    list(train(base))
    assert base.data_settings().source == "mine.jsonl"
    monkeypatch.chdir(there)
    tuned = fine_tune(base, base.train_config.replace(seed=1), folder=tmp_path)
    assert tuned.text.train == base.text.train and tuned.text.path == str(here / "mine.jsonl")
    assert tuned.train_config.data.source == "mine.jsonl"
    like = starting_settings(str(base.folder)).train
    assert like.data.source == str(here / "mine.jsonl") and prepare(like.data).train.fingerprint == base.text.train
    assert starting_point(["--like", str(base.folder)]).train.data == like.data


DAMAGED = {
    "cut.txt.gz": (gzip.compress(b"some text " * 500)[:-9], "cut.txt.gz is damaged: .*Copy or download it again"),
    "cut.zip": (b"PK\3\4 and no more", "cut.zip is damaged: File is not a zip file"),
    "old.txt": ("L'été dernier, le garçon a mangé".encode("cp1252"), "give the encoding .*'cp1252', which reads"),
    "numbers.jsonl": (b'{"text": "a"}\n{"text": 5}\n', "row 2 of .*numbers.jsonl holds no text in 'text', but 5"),
    "empty.txt": (b"", "empty.txt is empty: give a file that holds text"),
    "a.txt.xz": (b"\xfd7zXZ", "a.txt.xz: it is packed by xz; unpack it first"),
    "a.ipynb": (b"[]", "a.ipynb: it is no notebook"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_can_not_be_read_leaves_no_run(tmp_path, name):
    content, message = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Run.create("one", MODEL, settings(tmp_path / name), tmp_path / "trained")
    assert not (tmp_path / "trained").exists()


def test_the_card_shows_a_command_that_makes_the_run_again(tmp_path):
    write(tmp_path / "texts" / "sub" / "mine.jsonl", TEXTS)
    (tmp_path / "texts" / "other.md").write_text("not of it", encoding="utf-8")
    train_config = settings(tmp_path / "texts", include=("**/*.jsonl", "sub/**"), exclude=("*.md",), split="tail")
    model = preset("llama-tiny").model.replace(vocab_size=257, context_length=8)
    run = Run.create("one", model, train_config, tmp_path)
    command = training_command(run)
    assert "--train.data.include '**/*.jsonl' 'sub/**' --train.data.exclude '*.md'" in command
    again = parse_training(shlex.split(command)[3:])
    assert (again.model, again.train.settled(again.model)) == (run.model_config, run.train_config)
