"""`generate` and `sampling` in the terminal: prompts of files, prompts that are typed, saved attention, the lesson."""

import io
import json
import os
import re
import select
import subprocess
import sys
import time

import pytest
from PIL import Image
from safetensors.torch import load_file

from lab.generation.filter_plots import filter_picture
from lab.generation.filter_steps import filter_steps
from lab.generation.generate import generate_text, transcribe
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from lab.runs.run import Run
from lab.terminal import main
from lab.terminal_interactive import choose_reader
from settings.paths import ROOT
from tests.helpers.small_runs import MODEL, make_run

HOW = ["--max-tokens", "6", "--seed", "2"]
LONG = 100_000  # tokens, which take minutes


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with the run "a", and "long", whose texts can be very long."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLASSBOX_CACHE", str(folder / "cache"))
        make_run(folder, "a")
        make_run(folder, "long", MODEL.replace(max_positions=2 * LONG))
    return folder


@pytest.fixture
def run(stored, monkeypatch, tmp_path) -> Run:
    monkeypatch.setattr("lab.runs.names.TRAINED", stored)
    monkeypatch.chdir(tmp_path)
    return Run.open("a", stored)


def alone(run: Run, prompt: str, **how) -> str:
    return generate_text(run.load_model(), run.tokenizer, prompt, **{"max_tokens": 6, "seed": 2} | how)


# --- prompts of a file ----------------------------------------------------------------------------------------


def test_prompts_of_a_file_become_texts(run, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("Once\nTim\n", encoding="utf-8")
    assert main(["generate", "a", "--prompts", "p.txt", *HOW]) == 0
    expected = f"{alone(run, 'Once')}\n\n{alone(run, 'Tim')}\n"
    assert capsys.readouterr().out == expected
    assert main(["generate", "a", "--prompts", "p.txt", "--output", "texts.txt", *HOW]) == 0
    assert capsys.readouterr().out == "wrote texts.txt, 2 texts\n"
    assert (tmp_path / "texts.txt").read_text(encoding="utf-8") == expected


def test_prompts_of_a_file_become_lines_of_json(run, tmp_path, capsys):
    prompts = ["Once", "a\nb", "é"]
    lines = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
    (tmp_path / "p.jsonl").write_text(lines, encoding="utf-8")
    command = ["generate", "a", "--prompts", "p.jsonl", "--format", "jsonl", "--strategy", "greedy", *HOW]
    assert main(command) == 0
    printed = capsys.readouterr().out
    found = [json.loads(line) for line in printed.splitlines()]
    for prompt, each in zip(prompts, found, strict=True):
        assert each["prompt"] == prompt
        assert prompt + each["continuation"] == alone(run, prompt, sampling=STRATEGIES["greedy"])
    assert main([*command, "--output", "new/texts.jsonl"]) == 0
    assert (tmp_path / "new" / "texts.jsonl").read_text(encoding="utf-8") == printed


def test_a_bad_prompt_writes_nothing(run, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("Once\n\nTim\n", encoding="utf-8")
    (tmp_path / "long.txt").write_text("Once\n" + 70 * "a" + "\n", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    for flags, message in (
        (["--prompts", "p.txt"], "line 2 of p.txt is empty"),
        (["--prompts", "long.txt"], "line 2: 70 prompt tokens"),
        (["--prompts", "none.txt"], "none.txt can't be read"),
        (["--prompts", "folder", "--output", "x.txt"], "ends in .txt or .jsonl"),
        (["--prompts", "p.txt", "--output", "folder"], "--output folder is a folder"),
    ):
        assert main(["generate", "a", "--output", "x.txt", *flags, *HOW]) == 1
        assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


# --- saved attention ------------------------------------------------------------------------------------------


def test_attention_is_saved_beside_the_text(run, tmp_path, capsys):
    command = ["generate", "a", "--prompt", "Once", "--save-attention", "maps", *HOW]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{alone(run, 'Once')}\nattention weights: maps\n"
    (made,) = transcribe(run.load_model(), run.tokenizer, ["Once"], max_tokens=6, seed=2)
    length = 4 + len(made.tokens)
    assert load_file(tmp_path / "maps" / "attention.safetensors")["layer.1"].shape == (2, length, length)
    assert main(command) == 1
    assert "maps exists, and nothing is overwritten" in capsys.readouterr().err


# --- flags that make no sense together ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, messages",
    [
        ("--interactive --prompts p.txt", ["--interactive and --prompts exclude each other"]),
        ("--interactive --prompt Once", ["--interactive and --prompt exclude each other"]),
        ("--prompts p.txt --prompt=Once", ["--prompts and --prompt exclude each other"]),
        ("--prompts p.txt --save-attention maps", ["--prompts and --save-attention exclude"]),
        ("--format jsonl", ["--format says how --prompts writes its texts: add --prompts FILE"]),
        ("--output x.txt", ["--output says how --prompts"]),
        ("a --interactive", ["--interactive takes one run, not 2"]),
        ("a --prompts p.txt", ["--prompts takes one run, not 2"]),
        ("a --save_attention maps", ["--save-attention takes one run, not 2"]),
        (
            "a --interactive --output x --save-attention maps",
            [
                "--interactive and --output", "--interactive and --save-attention", "--interactive takes one run",
                "--save-attention takes one run",
            ],
        ),
    ],
)
def test_flags_that_make_no_sense_together_are_one_message(run, tmp_path, capsys, flags, messages):
    assert main(["generate", "a", *flags.split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and all(message in error for message in messages)
    assert error.count("\n") == len(messages) and not list(tmp_path.iterdir())


# --- prompt after prompt --------------------------------------------------------------------------------------


def typed(monkeypatch, text: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def test_lines_of_a_pipe_are_answered_one_by_one(run, monkeypatch, capsys):
    typed(monkeypatch, b"Once\n/top-k 0\n\xff\n/strategy greedy\nTim\n/quit\nnever\n")
    assert main(["generate", "a", "--interactive", *HOW]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{alone(run, 'Once')}\nstrategy greedy: temperature 0.0, ")
    assert shown.out.endswith(f"\n{alone(run, 'Tim', sampling=STRATEGIES['greedy'])}\n")
    errors = shown.err.splitlines()
    assert len(errors) == 2 and "top_k must be" in errors[0] and "surrogate" in errors[1]
    typed(monkeypatch, b"Once")
    assert main(["generate", "a", "--interactive", "--sampling.temperature", "0", *HOW]) == 0
    assert capsys.readouterr().out == f"{alone(run, 'Once', sampling=SamplingConfig(temperature=0, top_p=0.95))}\n"


@pytest.mark.parametrize("missing", [[], ["prompt_toolkit"], ["prompt_toolkit", "readline"]])
def test_lines_are_read_with_what_is_there(monkeypatch, missing):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    if not missing:
        prompt_toolkit = pytest.importorskip("prompt_toolkit")
        made = type("Session", (), {"prompt": lambda self, sign: f"read after {sign}"})
        monkeypatch.setattr(prompt_toolkit, "PromptSession", made)
    read = choose_reader()
    assert (read is input) == bool(missing) and (missing or read("> ") == "read after > ")


LAUNCH = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C in it is a signal
os.execv(sys.executable, [sys.executable, "tools.py", *sys.argv[1:]])
"""


class Terminal:
    """A pseudo-terminal in which a command of tools.py runs."""

    def __init__(self, *command: str):
        self.end, inside = os.openpty()
        environment = os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *command], cwd=ROOT, env=environment, stdin=inside, stdout=inside,
            stderr=inside, start_new_session=True,
        )
        os.close(inside)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """What is shown up to `text`, without the signs that move the cursor."""
        until = time.monotonic() + seconds
        while text not in self.shown:
            ready, _, _ = select.select([self.end], [], [], max(0, until - time.monotonic()))
            assert ready, f"no {text!r} in {self.shown[-2000:]!r}"
            read = os.read(self.end, 65536).decode(errors="replace")
            self.shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown + read)
        before, _, self.shown = self.shown.partition(text)
        return before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.end)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_in_a_real_terminal_ctrl_c_stops_the_text_and_ctrl_d_the_program(stored):
    flags = ["--strategy", "greedy", "--max-tokens", str(LONG)]  # greedy goes round in a circle that has no end
    terminal = Terminal("generate", str(stored / "long"), "--interactive", *flags)
    try:
        terminal.wait_for("Ctrl-D ends.")
        terminal.wait_for("long>")
        terminal.type("Once\r")
        terminal.wait_for("\nOnce")
        time.sleep(0.3)  # some tokens
        terminal.type("\x03")
        terminal.wait_for(" … stopped")
        terminal.wait_for("long>")
        terminal.type("/max-tokens 3\r")
        terminal.wait_for("\nmax-tokens 3")
        terminal.wait_for("long>")
        terminal.type("dropped\x03")
        terminal.wait_for("long>")
        terminal.type("\x1b[A\x1b[A\r")  # twice up in the history: "Once"
        terminal.wait_for("\nOnce")
        terminal.wait_for("long>")
        assert terminal.process.poll() is None
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()


# --- the lesson -----------------------------------------------------------------------------------------------


def test_the_lesson_shows_steps_texts_and_their_diversity(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    flags = ["--prompt", "Once", "--samples", "3", "--max-tokens", "6", "--seed", "2", "--picture", "steps.png"]
    assert main(["sampling", "a", *flags, "--strategy", "precise", "--sampling.top-k", "9"]) == 0
    printed = capsys.readouterr().out
    steps = filter_steps(run.load_model(), run.tokenizer, "Once", STRATEGIES["precise"].replace(top_k=9))
    assert printed.startswith(f"{steps}\n\n") and printed.endswith("picture: steps.png\n")
    assert all(name in printed for name in (*STRATEGIES, "temperature 0.4", "top-k 9", "top-p 0.9", "distinct-2"))
    assert "3 samples each" in printed and alone(run, "Once").splitlines()[0] in printed
    assert (tmp_path / "steps.png").read_bytes() == filter_picture(steps).png
    assert Image.open(tmp_path / "steps.png").width > 500


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--samples", "1"], "at least 2 samples"),
        (["--strategy", "wild"], "unknown strategy 'wild'"),
        (["--prompt", ""], "empty"),
        (["--max-tokens", "5000"], "positions"),
        (["--sampling.temperature", "1", "--sampling.top-p", "None"], "change nothing"),
    ],
)
def test_a_lesson_that_can_not_be_writes_no_picture(run, tmp_path, capsys, flags, message):
    given = ["--prompt", "Once", "--samples", "2", "--max-tokens", "3", "--picture", "x.png"]
    assert main(["sampling", "a", *given, *flags]) == 1
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
