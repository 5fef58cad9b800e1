"""The commands of `python tools.py`. Their flags come from the settings classes. Torch is imported only by the commands
that need it, so that help appears at once."""

import importlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import tyro

from config import list_presets
from lab.terminal_adapting import Distilling, classify, distil, merge, parse_distilling, quantise
from lab.terminal_data import Previewing, data, parse_previewing
from lab.terminal_exchange import export, import_
from lab.terminal_flags import FLAGS, import_ideas
from lab.terminal_generation import (
    Generation,
    SamplingLesson,
    generate,
    parse_generation,
    parse_lesson,
    sampling,
)
from lab.terminal_planning import Planning, parse_planning, plan
from lab.terminal_speed import generation_speed
from lab.terminal_tokenizer import tokenizer
from lab.terminal_training import Training, parse_training, resume, train
from settings.errors import ConfigError, DataError, GlassboxError, ToldByAnotherRank
from settings.json_text import parse_json
from settings.messages import short
from settings.paths import ROOT
from settings.registry import REGISTRY

Positional = tyro.conf.Positional


def main(arguments: list[str]) -> int:
    """Runs one command and returns the exit status. An error that a user can mend is one message on stderr, without a
    traceback."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where the output has no "≈", it shows "?"
    try:
        try:
            run_command(arguments)
        finally:
            sys.stdout.flush()  # here, so that an error in it can still be reported
    except BrokenPipeError:  # the reader has closed the output, as `| head` does
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # the interpreter flushes them again at its end
        return 141  # the status a shell gives to a program that SIGPIPE ended
    except ToldByAnotherRank:
        return 1
    except (GlassboxError, OSError) as error:  # an OSError names the file or device
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(stop, end="\n" if str(stop) else "", file=sys.stderr)
        return 128 + getattr(stop, "number", signal.SIGINT)
    return 0


def run_command(arguments: list[str]) -> None:
    """Reads the arguments and calls what they name."""
    if any("\0" in argument for argument in arguments):
        raise ConfigError("an argument holds a NUL character, which no name, path or text can have; leave it out")
    REGISTRY.load_ideas = lambda: importlib.import_module("modules.ideas")
    arguments = import_ideas(arguments)
    if arguments[:1] == ["train"]:
        train(parse_training(arguments[1:]))
    elif arguments[:1] == ["distil"]:
        distil(parse_distilling(arguments[1:]))
    elif arguments[:1] == ["plan"]:
        plan(parse_planning(arguments[1:]))
    elif arguments[:1] == ["data"]:
        data(parse_previewing(arguments[1:]))
    elif arguments[:1] == ["generate"]:
        generate(parse_generation(arguments[1:]))
    elif arguments[:1] == ["sampling"]:
        sampling(parse_lesson(arguments[1:]))
    else:
        tyro.extras.subcommand_cli_from_dict(
            {"train": Training, "distil": Distilling, "plan": Planning, "data": Previewing, "generate": Generation,
             "sampling": SamplingLesson} | COMMANDS,
            prog="python tools.py", args=arguments, config=FLAGS,
            description="Glassbox: build, train, watch and compare small transformers. With any command, "
            "--idea FILE imports a Python file that registers an idea first.",
        )


def evaluate(run: Positional[str], text: Path | None = None, max_tokens: int | None = None) -> None:
    """Loss, perplexity, bits per byte, top-k accuracy and loss by position on the run's held-out tokens, or on a text.

    Args:
        run: The run's name, or its folder.
        text: A text file to evaluate on instead.
        max_tokens: How many held-out tokens at most; by default all of them.
    """
    from lab.evaluation.evaluate import TOP, evaluate, evaluate_text
    from lab.evaluation.probes import skills
    from lab.files.reading import named_path
    from lab.runs.run import Run

    opened = Run.open(run)
    if text is not None:
        if max_tokens is not None:
            raise ConfigError("--max-tokens counts held-out tokens; a text is read whole: give one of the two")
        try:
            read = named_path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{text} can't be read as UTF-8 text: {error}") from error
        print(repr(evaluate_text(opened.load_model(), read, opened.tokenizer, TOP)))
        return
    model = opened.load_model()
    data = opened.load_data()
    if opened.is_trained_elsewhere():
        print(f"on the held-out part of {data.config.label}; the text that it was trained on is unknown")
    print(repr(evaluate(model, data.validation, opened.tokenizer, max_tokens, TOP)))
    if data.floor is not None:
        print(f"floor {data.floor:.4f} nats per token: the entropy of the grammar that wrote the text")
    found = skills(model, opened.tokenizer, opened.train_config.data)
    if found:
        print("right answers about held-out stories (95 % interval); chance is 50 %:")
        print("\n".join(f"  {skill:8} {answers}" for skill, answers in found.items()))


def compare(
    runs: Positional[tuple[str, ...]] = (), sort: str | None = None, evaluate: bool = False, paired: bool = False,
    max_tokens: int | None = None, export: Path | None = None,
) -> None:
    """Show runs beside each other: their differing settings, their cost, and their losses.

    Args:
        runs: Names, globs such as "factored-*", or queries such as "parameters < 1e6"; by default all runs.
        sort: The column to sort by, as in --sort loss; --sort=-loss for falling values.
        evaluate: True scores all of them on the same held-out tokens first.
        paired: True tests the best configuration against each other one, document by document, seeds averaged.
        max_tokens: How many held-out tokens at most; by default all of them.
        export: A .csv, .md or .tex file to write the table to.
    """
    from lab.comparison.comparison import compare as compare_runs
    from lab.comparison.table import as_text

    if max_tokens is not None and not (evaluate or paired):
        raise ConfigError("--max-tokens says how much to read; add --evaluate True or --paired True")
    comparison = compare_runs(runs or None)
    if evaluate:
        comparison.evaluate(max_tokens)
    print(as_text(comparison.table(sort), comparison.remarks))
    if paired:
        print(comparison.against_best(max_tokens))
    if export is not None:
        comparison.export(export, sort)
        print(f"wrote {export}")


def find_rate(
    start: Positional[str], lowest: float = 1e-6, highest: float = 1.0, steps: int = 100, picture: Path | None = None
) -> None:
    """Suggest a learning rate: a short training whose rate grows at every step. No run is made.

    Args:
        start: A preset, or the name or folder of a run, whose settings to test with.
        lowest: The first rate.
        highest: The last one; the test ends sooner where the loss diverges.
        steps: How many rates.
        picture: A PNG to draw the losses into.
    """
    from lab.runs.run import Run
    from lab.runs.settings import starting_settings
    from lab.training.rate_finder import find_learning_rate, rate_curve

    settings = starting_settings(start)
    data = None if start in list_presets() else Run.open(start).load_data()
    print(f"{steps} steps of {settings.train.batch_size} × {settings.model.context_length} tokens ...", flush=True)
    found = find_learning_rate(settings, data, lowest=lowest, highest=highest, steps=steps)
    print(repr(found))
    if picture is not None:
        rate_curve(found).save(picture)
        print(f"picture: {picture}")


def sweep(
    start: Positional[str], vary: tyro.conf.UseAppendAction[tuple[str, ...]] = (), seeds: int = 1,
    name: str | None = None,
) -> None:
    """Train each combination of some settings with each seed, and compare them. The same command again resumes.

    Args:
        start: A preset, or the name or folder of a run, whose settings to start from.
        vary: A setting and its values, as in --vary train.learning-rate=1e-3,4e-3; several make a grid. A single value
            holds for all, as in --vary train.steps=200. Parts go by kind: --vary model.position.kind=rope,alibi.
        seeds: How many seeds, from 0 on.
        name: What the names of the runs begin with; by default that of START.
    """
    from lab.comparison.overrides import grid, overridden, read_values
    from lab.comparison.sweep import compare_sweep
    from lab.comparison.sweep import sweep as train_all
    from lab.runs.settings import starting_settings

    variants = overridden(starting_settings(start), grid(read_values(vary)), Path(start).name if name is None else name)
    steps = train_all(variants, range(seeds), show=True)
    try:
        for _ in steps:
            pass
    finally:  # if one run fails, the others can still be compared
        print(repr(compare_sweep(variants, range(seeds))))


def runs(delete: str | None = None, confirm: str | None = None) -> None:
    """List all runs, or delete one.

    Args:
        delete: The name of a run to delete for good.
        confirm: The same name again; without it, the command asks for it.
    """
    from lab.runs.listing import delete_run, list_runs

    if delete is None:
        table = list_runs()
        print(table.to_string() if len(table) else "no runs yet: python tools.py train")
        return
    if confirm is None and sys.stdin.isatty():
        confirm = input(f"type the name {delete!r} again to delete the run for good: ")
    delete_run(delete, confirm=confirm or "")
    print(f"deleted {delete}")


def cache(clear: bool = False) -> None:
    """List what is kept for next time, prepared data and measured costs and times, or clear it.

    Args:
        clear: True deletes all of it.
    """
    from lab.data.cache import clear_cache, list_cache
    from lab.files.remembered import forget_measurements, measurements_kept

    if clear:
        print(f"freed {(clear_cache() + forget_measurements()) / 1e6:.1f} MB")
        return
    entries, (count, size) = list(map(str, list_cache())), measurements_kept()
    entries += [f"{count:,} measured costs and times of models on this machine, {size:,} bytes"] if count else []
    print("\n".join(entries) if entries else "the cache is empty")


def notebook(path: Positional[Path], keep_outputs: bool = False, parameters: str = "{}") -> None:
    """Run a notebook without a browser, its output appearing here.

    Args:
        path: The notebook.
        keep_outputs: True writes the outputs back into the file.
        parameters: JSON, values for the names in the cell tagged "parameters".
    """
    from lab.notebooks import run_notebook

    try:
        values = parse_json(parameters)
        if not isinstance(values, dict):
            raise ConfigError(f"not {short(values)}")
    except ConfigError as error:
        raise ConfigError(f"--parameters must be a JSON object, such as '{{\"steps\": 10}}': {error}") from error
    run_notebook(path, values, keep_outputs)


def lab(port: int | None = None) -> None:
    """Open JupyterLab at train.ipynb.

    Args:
        port: Where to serve it; by default the first free one from 8888.
    """
    # our configuration turns off questions about news and updates, and asks no server for extensions
    quiet = os.pathsep.join(filter(None, (str(ROOT / "lab" / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH"))))
    options = [f"--ServerApp.root_dir={ROOT}", "--LabApp.default_url=/lab/tree/notebooks/train.ipynb"]
    options += ["--LabApp.extension_manager=readonly", *([f"--port={port}"] if port else [])]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        print("you are root, so JupyterLab is started with --allow-root: its notebooks may do anything on this machine")
        options.append("--allow-root")
    command = [sys.executable, "-m", "jupyterlab", *options]
    raise SystemExit(subprocess.run(command, cwd=ROOT, env=os.environ | {"JUPYTER_CONFIG_PATH": quiet}).returncode)


COMMANDS = {
    "resume": resume, "generate": generate, "sampling": sampling, "evaluate": evaluate, "compare": compare,
    "find-rate": find_rate, "sweep": sweep, "runs": runs, "export": export, "import": import_, "tokenizer": tokenizer,
    "cache": cache, "merge": merge, "quantise": quantise, "classify": classify, "generation-speed": generation_speed,
    "notebook": notebook, "lab": lab,
}
