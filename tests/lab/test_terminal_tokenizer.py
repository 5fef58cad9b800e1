"""From the terminal: a tokenizer learned from one's own text, and trainings on one's own text by any tokenizer."""

import json
import subprocess
import sys

import pytest

from lab.data import tokenizers
from lab.data.tokenizers import list_tokenizers, load_tokenizer
from lab.runs.run import Run
from lab.terminal import main
from settings.paths import ROOT
from tests.helpers.foreign_models import byte_level

SMALL = [
    "--model.n-layers", "1", "--model.width", "8", "--model.n-heads", "2", "--model.context-length", "8",
    "--train.batch-size", "2", "--train.evaluation-tokens", "64", "--train.precision", "fp32", "--train.compile", "off",
    "--train.device", "cpu",
]
STEPS = ["--train.steps", "30"]
TALES = ["Mia a vu un éléphant bleu.", "Der Bär läßt grüßen, sagt Tim.", "Он дал ей рыбу.", "“Yes”, she said."]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder with texts, whose runs and tokenizers are stored in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path / "trained")
    for name in ("bpe", "character"):
        (tmp_path / "tokenizers" / name).mkdir(parents=True)
        shipped = (ROOT / "tokenizers" / name / "tokenizer.json").read_bytes()
        (tmp_path / "tokenizers" / name / "tokenizer.json").write_bytes(shipped)
    monkeypatch.setattr(tokenizers, "ROOT", tmp_path)
    text = "\n\n".join(f"{number}: {tale * 40}" for number, tale in enumerate(TALES * 15))
    for name in ("my text.txt", "Überall, été.txt", "тексты.txt"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def printed(capsys, *arguments: str) -> str:
    status = main(list(arguments))
    shown = capsys.readouterr()
    assert status == 0, shown.err
    return shown.out


@pytest.mark.parametrize("file, name", [
    ("my text.txt", "llama-tiny-my-text"), ("Überall, été.txt", "llama-tiny-Uberall-ete"), ("тексты.txt", "llama-tiny"),
])
def test_a_training_on_ones_own_text_by_characters_works_as_typed(capsys, file, name):
    arguments = ["train", "--train.data.source", file, "--train.data.tokenizer", "character", *STEPS]
    shown = printed(capsys, *arguments, *SMALL)
    assert "finished, 30 steps" in shown
    run = Run.open(name)
    assert run.model_config.vocab_size == run.tokenizer.vocab_size == load_tokenizer("character").vocab_size
    assert run.train_config.data.source == file and run.steps_done() == 30


@pytest.mark.parametrize("kind, more", [("character", []), ("bpe", ["--vocab-size", "300"])])
def test_a_tokenizer_learned_from_ones_own_text_is_used_by_name(capsys, place, kind, more):
    learned = printed(capsys, "tokenizer", "--learn", "my text.txt", "--kind", kind, "--name", "mine", *more)
    assert str(place / "tokenizers" / "mine" / "tokenizer.json") in learned and "--train.data.tokenizer mine" in learned
    tokenizer = load_tokenizer("mine")
    if kind == "character":
        text = (place / "my text.txt").read_text(encoding="utf-8")
        assert tokenizer.vocab_size == 257 + len({character for character in text if ord(character) > 127})
        assert len(tokenizer.encode(text)) == len(text)
    else:
        assert tokenizer.vocab_size == 300
    assert "mine" in printed(capsys, "tokenizer").split() and "mine · " in printed(capsys, "tokenizer", "mine")
    printed(capsys, "train", "--train.data.source", "my text.txt", "--train.data.tokenizer", "mine", *STEPS, *SMALL)
    run = Run.open("llama-tiny-my-text")
    assert run.model_config.vocab_size == tokenizer.vocab_size
    assert run.tokenizer.fingerprint == tokenizer.fingerprint


def test_a_run_of_a_tokenizer_that_is_gone_is_still_evaluated_compared_and_tested(capsys, place):
    printed(capsys, "tokenizer", "--learn", "my text.txt", "--kind", "character", "--name", "mine")
    printed(capsys, "train", "--train.data.source", "my text.txt", "--train.data.tokenizer", "mine", *STEPS, *SMALL)
    (place / "tokenizers" / "mine" / "tokenizer.json").unlink()
    assert "mine" not in list_tokenizers()
    name = "llama-tiny-my-text"
    assert "bits per byte" in printed(capsys, "evaluate", name)
    assert name in printed(capsys, "compare", name, "--evaluate", "True")
    assert "learning rate" in printed(capsys, "find-rate", name, "--steps", "10")
    assert "generate" in printed(capsys, "generate", name, "--prompt", "generate", "--max-tokens", "3")
    longer = printed(capsys, "train", "--from", name, "--train.steps", "32")
    assert "finished, 32 steps" in longer
    assert main(["train", "--like", name, "--name", "again"]) == 1
    assert "unknown tokenizer 'mine'" in capsys.readouterr().err


def test_a_file_of_hugging_faces_is_a_tokenizer_here_too(capsys, place):
    (place / "smol").mkdir()
    byte_level().save(str(place / "smol" / "tokenizer.json"))
    path = "smol/tokenizer.json"
    assert printed(capsys, "tokenizer", path, "--text", "the cat").startswith("smol · ")
    printed(capsys, "train", "--train.data.source", "my text.txt", "--train.data.tokenizer", path, *STEPS, *SMALL)
    run = Run.open("llama-tiny-my-text")
    assert (run.model_config.vocab_size, run.tokenizer.name) == (300, "smol")
    assert run.tokenizer.encode("the cat") == byte_level().encode("the cat").ids


@pytest.mark.parametrize("arguments, told", [
    (["--learn", "my text.txt"], "name it by --name"),
    (["byte", "--learn", "my text.txt", "--name", "mine"], "leave out the one to be shown"),
    (["--name", "mine"], "add --learn"), (["--vocab-size", "300"], "add --learn"),
    (["--learn", "nowhere.txt", "--name", "mine"], "there is no file or folder 'nowhere.txt'"),
    (["--learn", "my text.txt", "--name", "a/b"], "use up to 80 letters"),
    (["--learn", "my text.txt", "--name", "byte"], "is the name of a built-in tokenizer"),
    (["--learn", "my text.txt", "--name", "mine", "--kind", "character", "--vocab-size", "300"],
     "follows from the texts"),
    (["--learn", "my text.txt", "--name", "mine", "--vocab-size", "256"], "256 bytes and the end of text need 257"),
    (["--learn", "my text.txt", "--name", "mine", "--vocab-size", "9000"], "too short for vocab_size 9000: after"),
    (["--learn", "my text.txt", "--name", "mine", "--data.tokenizer", "byte"], "--data.tokenizer is of no use here"),
    (["--learn", "my text.txt", "--name", "mine", "--data.text-field", "a"], "has no columns"),
])
def test_what_cannot_be_learned_is_told_and_nothing_is_stored(capsys, place, arguments, told):
    assert main(["tokenizer", *arguments]) == 1
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in (place / "tokenizers").iterdir()) == ["bpe", "character"]


def test_another_tokenizer_of_that_name_stays(capsys, place):
    for kind, status in (("character", 0), ("character", 0), ("bpe", 1)):
        asked = ["tokenizer", "--learn", "my text.txt", "--kind", kind, "--vocab-size", "300", "--name", "mine"]
        asked = [word for word in asked if kind == "bpe" or word not in ("--vocab-size", "300")]
        assert main(asked) == status
    assert "holds another tokenizer" in capsys.readouterr().err
    assert json.loads((place / "tokenizers" / "mine" / "tokenizer.json").read_text())["kind"] == "character"


def test_help_needs_neither_torch_nor_a_tokenizer():
    code = (
        "import sys; from lab.terminal import main\n"
        "try: main(['tokenizer', '--help'])\n"
        "except SystemExit: print({'torch', 'tiktoken', 'tokenizers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
