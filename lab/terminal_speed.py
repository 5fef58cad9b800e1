"""The command `generation-speed`."""

from pathlib import Path

import tyro

Positional = tyro.conf.Positional


def generation_speed(
    run: Positional[str], tokens: int | None = None, batches: tuple[int, ...] = (1, 8, 64), compiled: bool = False,
    draft: str | None = None, picture: Path | None = None,
) -> None:
    """How fast a run generates: with and without the cache, by batch and weights, beside what the memory allows.

    Args:
        run: The run's name, or its folder.
        tokens: Made for each sequence; by default 128, or as many as the model has positions for.
        batches: How many sequences at once, as in --batches 1 8 64.
        compiled: True measures compiled steps too; compiling takes up to a minute.
        draft: A smaller run with the same tokenizer that proposes tokens: speculative decoding.
        picture: A PNG to draw the cost per token into, against length.
    """
    from lab.generation_speed import generation_speed as measure
    from lab.runs.run import Run

    drafter = None if draft is None else Run.open(draft)
    found = measure(Run.open(run), tokens=tokens, batches=batches, draft=drafter, compiled=compiled)
    print(repr(found))
    if picture is not None:
        found.picture().save(picture)
        print(f"picture: {picture}")
