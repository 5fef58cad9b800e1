"""The commands `generate` and `sampling`."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import tyro

from config import SAMPLE_PROMPT
from lab.generation.sampling_settings import LESSON_PROMPT, SamplingConfig
from lab.generation.sampling_settings import strategy as named_strategy
from lab.terminal_flags import FLAGS, option
from settings.errors import ConfigError

Positional = tyro.conf.Positional
# Flags that make no sense together, and flags that need another one
EXCLUDED = {
    "--interactive": ("--prompt", "--prompts", "--format", "--output", "--save-attention"),
    "--prompts": ("--prompt", "--save-attention"),
    "--draft": ("--interactive", "--prompts", "--save-attention", "--decode"),
}
NEEDED = {"--format": "--prompts", "--output": "--prompts"}
ONE_RUN = ("--interactive", "--prompts", "--save-attention", "--draft")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Continue a prompt: by one run token by token, by several side by side. --strategy sets sampling's defaults.

    Or continue each prompt of a file (--prompts), or prompt after prompt as you type them (--interactive).
    """

    runs: Positional[tuple[str, ...]]  # The run's name, or its folder; or several.
    prompt: str = SAMPLE_PROMPT
    draft: str | None = None  # A smaller run with the same tokenizer that proposes tokens; self: the run's own heads.
    drafts: int | None = None  # Tokens proposed for a pass; None: 4 by a run, or one by each head.
    prompts: Path | None = None  # A .txt with a prompt on each line, or a .jsonl with a "prompt" in each.
    format: Literal["text", "jsonl"] = "text"  # What --prompts writes: texts with blank lines between, or JSON lines.
    output: Path | None = None  # A file for what --prompts writes; by default it is printed.
    interactive: tyro.conf.FlagCreatePairsOff[bool] = False  # Ask for prompts; /help lists what can be changed.
    save_attention: Path | None = None  # A new folder for the attention weights over prompt and continuation.
    max_tokens: int | None = None  # At most; None: 200, or as many as the model has positions for.
    strategy: str = "balanced"  # greedy, precise, balanced or creative.
    sampling: SamplingConfig
    seed: int = 0  # The same seed gives the same text.
    decode: Literal["auto", "eager", "compiled"] = "auto"  # auto: compiled where that saves more than compiling takes.


@dataclass(frozen=True, kw_only=True)
class SamplingLesson:
    """Show what sampling does: to the next token, step by step; and to texts, by each named strategy.

    --strategy sets the defaults of sampling, whose steps are shown.
    """

    run: Positional[str]  # Its name, or its folder.
    prompt: str = LESSON_PROMPT
    strategy: str = "balanced"  # greedy, precise, balanced or creative.
    sampling: SamplingConfig
    samples: int = 50  # How many texts of each strategy are compared.
    max_tokens: int = 60  # Of each of them, at most.
    seed: int = 0  # The same seed gives the same texts.
    picture: Path | None = None  # A PNG of the steps: bars before and after each, cumulative curves, the cuts.


def parse_generation(arguments: list[str]) -> Generation:
    flags = (tyro.conf.AvoidSubcommands,)  # without FlagConversionOff: --interactive takes no value
    start = Generation(runs=tyro.MISSING, **strategy_defaults(arguments))
    settings = tyro.cli(Generation, args=arguments, default=start, config=flags, prog="python tools.py generate")
    check_combination(settings, arguments)
    return settings


def parse_lesson(arguments: list[str]) -> SamplingLesson:
    start = SamplingLesson(run=tyro.MISSING, **strategy_defaults(arguments))
    return tyro.cli(SamplingLesson, args=arguments, default=start, config=FLAGS, prog="python tools.py sampling")


def strategy_defaults(arguments: list[str]) -> dict[str, object]:
    """`strategy` and `sampling` as --strategy names them. Raises ConfigError for an unknown one."""
    named = option(arguments, "--strategy")
    name = Generation.strategy if named is None else named
    return {"strategy": name, "sampling": named_strategy(name)}


def check_combination(settings: Generation, arguments: list[str]) -> None:
    """Raises one ConfigError for all flags that make no sense together."""
    words = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
    given = [flag for flag in (*EXCLUDED, *NEEDED, "--prompt", "--save-attention", "--decode") if flag in words]
    problems = [
        f"{flag} and {other} exclude each other: give one of them"
        for flag in given for other in EXCLUDED.get(flag, ()) if other in given
    ]
    problems += [
        f"{flag} says how {NEEDED[flag]} writes its texts: add {NEEDED[flag]} FILE, or leave it out"
        for flag in given if flag in NEEDED and NEEDED[flag] not in given and "--interactive" not in given
    ]
    if settings.drafts is not None and settings.draft is None:
        problems.append("--drafts says how many tokens a draft proposes: add --draft RUN, or --draft self")
    if len(settings.runs) != 1:
        problems += [f"{flag} takes one run, not {len(settings.runs)}" for flag in ONE_RUN if flag in given]
    if problems:
        raise ConfigError("\n  ".join(problems))


def generate(settings: Generation) -> None:
    from lab.runs.run import Run

    runs = [Run.open(name) for name in settings.runs]
    how = dict(max_tokens=settings.max_tokens, sampling=settings.sampling, seed=settings.seed, decode=settings.decode)
    if settings.interactive:
        from lab.interactive import InteractiveSession
        from lab.terminal_interactive import interact

        interact(InteractiveSession(runs[0], **how))
    elif settings.prompts is not None:
        continue_file(settings, runs[0], how)
    elif settings.save_attention is not None:
        from lab.analysis.attention_files import save_attention

        model, folder = runs[0].load_model(), settings.save_attention
        print(save_attention(folder, model, runs[0].tokenizer, settings.prompt, **how).text)
        print(f"attention weights: {folder}")
    elif settings.draft is not None:
        continue_with_draft(settings, runs[0], how)
    elif len(runs) != 1:
        from lab.comparison.side_by_side import generate_side_by_side

        print(generate_side_by_side(runs, settings.prompt, **how))
    else:
        from lab.generation.generate import stream_text

        pieces = stream_text(runs[0].load_model(), runs[0].tokenizer, settings.prompt, **how)
        for piece in chain([settings.prompt], pieces):
            print(piece, end="", flush=True)
        print()


def continue_with_draft(settings: Generation, run, how: dict) -> None:
    """Prints the text, and what the drafts were worth."""
    from lab.generation.speculative import speculative_text
    from lab.runs.drafting import load_draft
    from lab.runs.run import Run

    draft = None if settings.draft == "self" else load_draft(run, Run.open(settings.draft))
    how = {name: value for name, value in how.items() if name != "decode"}  # it decodes eagerly
    text, found = speculative_text(
        run.load_model(), run.tokenizer, settings.prompt, draft=draft, drafts=settings.drafts, **how
    )
    print(text, found, sep="\n\n")


def continue_file(settings: Generation, run, how: dict) -> None:
    """Continues the prompts of a file: prints the texts as they come, or writes all of them into one file."""
    from lab.files.atomic import atomic_write_text
    from lab.files.reading import named_path
    from lab.generation.batches import as_json_line, read_prompts, transcribe_all

    if settings.output is not None and named_path(settings.output).is_dir():
        raise ConfigError(f"--output {settings.output} is a folder; name a file to write")
    prompts = read_prompts(settings.prompts)
    made = transcribe_all(run.load_model(), run.tokenizer, prompts, **how)
    lines = as_texts(made) if settings.format == "text" else (as_json_line(each) + "\n" for each in made)
    if settings.output is None:
        for line in lines:
            print(line, end="", flush=True)
    else:
        texts = list(lines)
        atomic_write_text(settings.output, "".join(texts))
        print(f"wrote {settings.output}, {len(texts):,} texts")


def as_texts(made) -> Iterator[str]:
    """The texts, each but the first after a blank line."""
    for number, transcript in enumerate(made):
        yield ("\n" if number else "") + transcript.text + "\n"


def sampling(settings: SamplingLesson) -> None:
    from lab.evaluation.diversity import sample_strategies
    from lab.generation.filter_plots import filter_picture
    from lab.generation.filter_steps import filter_steps
    from lab.runs.run import Run

    run = Run.open(settings.run)
    model = run.load_model()
    steps = filter_steps(model, run.tokenizer, settings.prompt, settings.sampling)
    picture = None if settings.picture is None else filter_picture(steps)
    found = sample_strategies(
        model, run.tokenizer, settings.prompt, n_samples=settings.samples, max_tokens=settings.max_tokens,
        seed=settings.seed,
    )
    print(f"{steps}\n\n{found.texts()}\n\n{found}")
    if picture is not None:
        picture.save(settings.picture)
        print(f"picture: {settings.picture}")
