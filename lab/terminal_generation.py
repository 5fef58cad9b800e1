"""The commands `generate` and `generation-speed`."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import tyro

from config import SAMPLE_PROMPT
from lab.generation.sampling_settings import SamplingConfig
from lab.generation.sampling_settings import strategy as named_strategy
from lab.terminal_flags import FLAGS, option

Positional = tyro.conf.Positional


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Continue a prompt: by one run token by token, by several side by side. --strategy sets sampling's defaults."""

    runs: Positional[tuple[str, ...]]  # The run's name, or its folder; or several.
    prompt: str = SAMPLE_PROMPT
    max_tokens: int | None = None  # At most; None: 200, or as many as the model has positions for.
    strategy: str = "balanced"  # greedy, precise, balanced or creative.
    sampling: SamplingConfig
    seed: int = 0  # The same seed gives the same text.
    decode: str = "auto"  # eager, compiled, or auto: compiled where that saves more time than compiling takes.


def parse_generation(arguments: list[str]) -> Generation:
    named = option(arguments, "--strategy")
    name = Generation.strategy if named is None else named
    start = Generation(runs=tyro.MISSING, strategy=name, sampling=named_strategy(name))
    return tyro.cli(Generation, args=arguments, default=start, config=FLAGS, prog="python tools.py generate")


def generate(settings: Generation) -> None:
    from lab.comparison.side_by_side import generate_side_by_side
    from lab.generation.generate import stream_text
    from lab.runs.run import Run

    runs = [Run.open(name) for name in settings.runs]
    how = dict(max_tokens=settings.max_tokens, sampling=settings.sampling, seed=settings.seed, decode=settings.decode)
    if len(runs) != 1:
        print(generate_side_by_side(runs, settings.prompt, **how))
        return
    pieces = stream_text(runs[0].load_model(), runs[0].tokenizer, settings.prompt, **how)
    for piece in chain([settings.prompt], pieces):
        print(piece, end="", flush=True)
    print()


def generation_speed(
    run: Positional[str], tokens: int | None = None, batches: tuple[int, ...] = (1, 8, 64), compiled: bool = False,
    picture: Path | None = None,
) -> None:
    """How fast a run generates: with and without the cache, by batch and weights, beside what the memory allows.

    Args:
        run: The run's name, or its folder.
        tokens: Made for each sequence; by default 128, or as many as the model has positions for.
        batches: How many sequences at once, as in --batches 1 8 64.
        compiled: True measures compiled steps too; compiling takes up to a minute.
        picture: A PNG to draw the cost per token into, against length.
    """
    from lab.generation_speed import generation_speed as measure
    from lab.runs.run import Run

    found = measure(Run.open(run), tokens=tokens, batches=batches, compiled=compiled)
    print(repr(found))
    if picture is not None:
        found.picture().save(picture)
        print(f"picture: {picture}")
