"""The commands that make something new of a trained run."""

import tyro

Positional = tyro.conf.Positional


def merge(run: Positional[str], name: str | None = None) -> None:
    """Make a run of its own of an adapter and its base; it computes the same and needs the base no longer.

    Args:
        run: The adapter's run, or its folder.
        name: What to call the new run; by default the run's name with -merged.
    """
    from lab.adapting.adapters import merge_adapter
    from lab.runs.run import Run

    print(repr(merge_adapter(Run.open(run), name)))
