"""The commands that make something new of a trained run."""

from typing import Literal

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


def quantise(
    run: Positional[str], bits: Literal[8, 4] = 8, group: Literal[32, 64] | None = None, layers: str = "blocks.*",
    name: str | None = None,
) -> None:
    """Make a run of its own whose weights have few bits. It predicts nearly the same and takes less memory.

    Args:
        run: The run's name, or its folder.
        bits: 8, with a scale for each output of a layer, or 4, with a scale and an offset for each group of inputs.
        group: Inputs in a group, for 4 bits; by default 32.
        layers: Which linear layers: patterns of their names, as in "*.attention.*, *.mlp.down".
        name: What to call the new run; by default the run's name with -int8 or -int4.
    """
    from lab.adapting.quantising import measure_quantisation, quantise_run
    from lab.runs.run import Run

    made = quantise_run(Run.open(run), bits=bits, group=group, layers=layers, name=name)
    print(repr(made))
    print(repr(measure_quantisation(made)))
