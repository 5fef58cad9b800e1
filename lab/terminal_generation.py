"""The command `generate`."""

from dataclasses import dataclass
from itertools import chain

import tyro

from config import SAMPLE_PROMPT
from lab.generation.sampling_settings import SamplingConfig
from lab.generation.sampling_settings import strategy as named_strategy
from lab.terminal_flags import FLAGS, option
from settings.errors import ConfigError

Positional = tyro.conf.Positional


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Continue a prompt: by one run token by token, by several side by side. --strategy sets sampling's defaults."""

    runs: Positional[tuple[str, ...]]  # The run's name, or its folder; or several.
    prompt: str = SAMPLE_PROMPT
    draft: str | None = None  # A smaller run with the same tokenizer that proposes tokens; self: the run's own heads.
    drafts: int | None = None  # Tokens proposed for a pass; None: 4 by a run, or one by each head.
    max_tokens: int | None = None  # At most; None: 200, or as many as the model has positions for.
    strategy: str = "balanced"  # greedy, precise, balanced or creative.
    sampling: SamplingConfig
    seed: int = 0  # The same seed gives the same text.


def parse_generation(arguments: list[str]) -> Generation:
    named = option(arguments, "--strategy")
    name = Generation.strategy if named is None else named
    start = Generation(runs=tyro.MISSING, strategy=name, sampling=named_strategy(name))
    return tyro.cli(Generation, args=arguments, default=start, config=FLAGS, prog="python tools.py generate")


def generate(settings: Generation) -> None:
    from lab.comparison.side_by_side import generate_side_by_side
    from lab.generation.generate import stream_text
    from lab.runs.run import Run

    if settings.drafts is not None and settings.draft is None:
        raise ConfigError("--drafts says how many tokens a draft proposes: add --draft RUN, or --draft self")
    if settings.draft is not None and len(settings.runs) != 1:
        raise ConfigError(f"--draft takes one run to draft for, not {len(settings.runs)}")
    runs = [Run.open(name) for name in settings.runs]
    how = dict(max_tokens=settings.max_tokens, sampling=settings.sampling, seed=settings.seed)
    if settings.draft is not None:
        continue_with_draft(settings, runs[0], how)
        return
    if len(runs) != 1:
        print(generate_side_by_side(runs, settings.prompt, **how))
        return
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
    text, found = speculative_text(
        run.load_model(), run.tokenizer, settings.prompt, draft=draft, drafts=settings.drafts, **how
    )
    print(text, found, sep="\n\n")
