"""Every command and Python snippet that the documents show: all are read, and README's are run, at tiny settings."""

import functools
import gc
import importlib.util
import inspect
import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from config import DataConfig, ModelConfig, Preset, TrainConfig, list_presets
from lab import terminal
from lab.adapting.tasks import load_built_in
from lab.runs.names import TRAINED, run_names
from lab.terminal import COMMANDS, main
from lab.terminal_flags import option
from settings.paths import ROOT
from tests.helpers.hub_server import Repo, files_of, parquet_file, serve
from tests.helpers.registry import registry_restored

PLACEHOLDERS = {"FOLDER", "NAME", "FOLDER/RUN"}  # what a reader replaces
TINY = [
    "--model.n-layers", "1", "--model.width", "16", "--model.context-length", "64", "--train.steps", "3",
    "--train.batch-size", "2", "--train.evaluation-tokens", "64", "--train.sample-tokens", "4",
    "--train.precision", "fp32", "--train.compile", "off", "--train.data.tokenizer", "byte",
]
SMALL = {  # flags behind those that are shown, so that a command takes a second
    "train": TINY,
    "distil": TINY[:-2],  # the tokenizer is the teacher's
    "sweep": ["--seeds", "1"],
    "find-rate": ["--steps", "10"],
    "plan": ["--model.n-layers", "1", "--model.width", "16", "--model.n-heads", "2", "--model.context-length", "64"],
    "evaluate": ["--max-tokens", "512"],
    "sampling": ["--samples", "2", "--max-tokens", "5"],
    "generation-speed": ["--tokens", "4", "--batches", "1"],
}
FROM = [  # behind `train --from`, whose model is given
    "--train.batch-size", "2", "--train.evaluation-tokens", "64", "--train.sample-tokens", "4",
    "--train.precision", "fp32", "--train.compile", "off", "--train.steps",
]
SMALL_PRESET = Preset(
    ModelConfig(vocab_size=512, n_layers=1, n_heads=2, width=16, context_length=64),
    TrainConfig(
        data=DataConfig(tokenizer="bpe-512"), steps=3, batch_size=2, precision="fp32", compile="off",
        evaluation_tokens=64, sample_tokens=4,
    ),
)
TOO_LONG = {"notebook", "lab"}  # tests/test_notebooks.py runs them; JupyterLab is a server


def markdown(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def shown(path: Path) -> list[str]:
    """The commands in a document, as they are typed, without the remarks behind them."""
    found = re.findall(r"python3? ((?:tools\.py|-m bench)[^`\n]*)", markdown(path))
    return [re.sub(r" *(#|-->| \.\.\.).*", "", command) for command in found if " | " not in command]


PAGES = [ROOT / "README.md", *sorted(ROOT.glob("notebooks/*.ipynb")), *sorted(ROOT.glob("trained/**/README.md"))]
TOOLS, BENCH = (
    sorted({(page.name if page.suffix == ".ipynb" else str(page.relative_to(ROOT)), command)
            for page in PAGES for command in shown(page) if command.startswith(start)})
    for start in ("tools.py", "-m bench")
)


@pytest.fixture
def recorded(monkeypatch):
    """All commands replaced by ones that only note what they were called with."""
    calls = []

    def noting(name, function):
        @functools.wraps(function)
        def note(*positional, **values):
            calls.append((name, dict(inspect.signature(function).bind(*positional, **values).arguments)))

        return note

    for name, function in COMMANDS.items():
        monkeypatch.setitem(COMMANDS, name, noting(name, function))
    for name in ("train", "distil", "plan", "data", "generate", "sampling"):
        monkeypatch.setattr(terminal, name, noting(name, getattr(terminal, name)))
    return calls


@pytest.mark.parametrize("page, command", TOOLS)
def test_a_shown_command_has_valid_flags_and_existing_names(recorded, page, command):
    words = shlex.split(command)[1:]
    if "--help" in words or len(words) < 2:  # a command that is mentioned
        assert set(words) <= {"--help", "train", "distil", "plan", *COMMANDS}
        return
    made = page == "README.md" and (option(words, "--from") in made_by(page) or option(words, "--config"))
    if made:
        return  # it can be read only after the run or the file was made, as in test_readme_s_commands_run
    assert main(words) == 0
    ((name, values),) = recorded
    known = {*run_names(TRAINED), *list_presets(), *PLACEHOLDERS, *made_by(page)}
    settings = values.get("settings")
    named = [values.get("run"), values.get("start"), *values.get("runs", ()), *getattr(settings, "runs", ())]
    named += [getattr(settings, name, None) for name in ("run", "preset", "like", "teacher", "base")]
    for each in filter(None, named):
        assert each in known or any(Path(run).match(each) for run in run_names(TRAINED)), f"{page}: no {each!r}"
    if name == "notebook":
        assert (ROOT / values["path"]).exists()


@pytest.mark.parametrize("page, command", BENCH)
def test_a_shown_measurement_exists_and_takes_these_arguments(page, command):
    module, *arguments = shlex.split(command)[1:]
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{page}: no {module}"
    if spec.submodule_search_locations:  # a package
        spec = importlib.util.find_spec(f"{module}.__main__")
    source = Path(spec.origin).read_text(encoding="utf-8")
    usage = re.search(rf"python -m {re.escape(module)}\b([^\n:]*(?:\n +\[[^\n:]*)*)", source).group(1)
    optional = re.findall(r"\[(\S+?)[\] ]", usage)
    required = re.sub(r"\[[^]]*\]", "", usage).split()
    assert len(required) <= len(arguments) <= len(required) + len(optional), f"usage:{usage}"
    if module == "bench":
        assert set(arguments) <= set(optional)


def made_by(page: str) -> set[str]:
    """The names of the runs that a page's commands make."""
    return {name for other, command in TOOLS if other == page for name in re.findall(r"--name (\S+)", command)}


@pytest.fixture
def small_world(tmp_path, monkeypatch):
    """An empty folder to work in, runs and cache of its own, and three hundred tales in place of twenty thousand."""
    seeds = [f"alibi-tiny-tales{end}" for end in ("", "-seed1", "-seed2")]
    for name in ("llama-tiny-tales", "gpt2-tiny-tales", "multi-token-tiny-tales", *seeds):
        shutil.copytree(TRAINED / name, tmp_path / "trained" / name)
    for name in ("bpe", "character"):
        shutil.copytree(ROOT / "tokenizers" / name, tmp_path / "tokenizers" / name)
    texts = tmp_path / "path/to/my/texts"
    texts.mkdir(parents=True)
    for number in range(40):
        (texts / f"{number}.txt").write_text(f"Text {number} tells of {number} ships at sea.\n" * 9, encoding="utf-8")
    lines = "".join(f"Line {number} of a text.\n" for number in range(9000))
    (tmp_path / "my text.txt").write_text(lines, encoding="utf-8")
    (tmp_path / "prompts.txt").write_text("Once there was\nTim was a\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Once there was\n/quit\n"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLASSBOX_PLAIN", "1")
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path / "trained")
    monkeypatch.setattr("lab.data.tokenizers._folder", lambda: tmp_path / "tokenizers")
    monkeypatch.setattr("lab.data.sources.DEFAULT_TALES", 300)
    monkeypatch.setattr("lab.adapting.tasks.TALES", 300)
    monkeypatch.setattr("lab.adapting.tasks.load_built_in", load_built_in.__wrapped__)  # remembers no small task
    for place in ("lab.runs.text.check_text", "lab.runs.run.check_text"):  # the shipped runs were made with all of them
        monkeypatch.setattr(place, lambda *_: None)
    for place in ("tools.preset", "lab.runs.settings.preset"):
        monkeypatch.setattr(place, lambda name: SMALL_PRESET, raising=False)
    with registry_restored(), serve(tmp_path / "hf", monkeypatch) as hub:  # a snippet registers an idea
        stories = [f"Story {number} tells of {number} ships at sea. " * 9 for number in range(80)]
        hub.repos["roneneldan/TinyStories"] = Repo(files_of(stories))
        hub.repos["owner/name"] = Repo({"data/train-0.parquet": parquet_file(stories, column="story")})
        yield tmp_path
        gc.collect()  # readers that were left open close their files while the server is there


def small(words: list[str]) -> list[str]:
    """The flags that make a command of README quick."""
    if {"--evaluate", "--paired"} & set(words):
        return ["--max-tokens", "512"]
    if words[0] == "train" and "--from" in words:
        few = ["--train.data.max-documents", "60"] if "pydocs" in words else []
        return [*few, *FROM, "5" if "--train.steps" in words else "2"]
    if "--epochs" in words:
        return [flag for flag in TINY if flag not in ("--train.steps", "3")]
    if words[0] == "classify":
        return ["--steps", "3"] if "--task" in words else []
    if words[0] == "generate" and "--draft" in words:
        return ["--max-tokens", "8"]
    return SMALL.get(words[0], [])


def test_readme_s_commands_run(small_world, capsys):
    commands = [shlex.split(command)[1:] for command in shown(ROOT / "README.md") if command.startswith("tools.py")]
    ran = {words[0] for words in commands if words and words[0] not in TOO_LONG and "--help" not in words}
    assert ran >= {"train", "resume", "generate", "evaluate", "compare", "find-rate", "sweep", "export", "cache"}
    for words in commands:
        if words and words[0] in ran:
            assert main([*words, *small(words)]) == 0, f"{words}: {capsys.readouterr().err}"


def test_readme_s_snippets_run_one_after_another(small_world, capsys):
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", markdown(ROOT / "README.md"), re.DOTALL):
        exec(compile(snippet.replace("32_768", "512"), "README.md", "exec"), names)
    assert "nats per token on the same" in capsys.readouterr().out
