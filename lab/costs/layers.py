"""Costs of a deep model, counted on two shorter ones: layers that are alike cost alike. Imports no torch by itself.

A model of n layers, R of them alike and next to each other, is measured with 2 and with 3 of these. What the third one
adds, each further one adds as well: its parameters, its products, what it keeps for the backward pass. Tests hold this
equal to the count of all layers, to the byte. Layers are alike if their modules have the same classes, shapes and
plain attributes. A model of fewer than FEW layers that are alike is counted as a whole.
"""

import re
from collections.abc import Callable
from itertools import groupby

from config import ModelConfig
from lab.files.remembered import remembered
from settings.errors import ConfigError

FEW = 5


@remembered
def alike_layers(config: ModelConfig) -> list[int]:
    """Where the longest run of layers that are alike begins, from 0, and how many there are; [0, 0] where the model
    can't be counted on shorter ones."""
    layers = layers_of(config)
    runs = [(start, len(same)) for start, same in runs_of(layers)]
    start, length = max(runs, key=lambda run: run[1])
    if length < FEW:
        return [0, 0]
    for kept in (2, 3):
        try:
            shorter = layers_of(config.replace(n_layers=config.n_layers - length + kept))
        except ConfigError:  # a kind of block that needs more layers
            return [0, 0]
        if shorter != layers[: start + kept] + layers[start + length :]:
            return [0, 0]
    return [start, length]


def layers_of(config: ModelConfig) -> list[str]:
    """A text for each layer of the model that says what it is made of."""
    from lab.costs.passes import meta_model

    return [describe_layer(block) for block in meta_model(config).blocks]


def describe_layer(block) -> str:
    """The classes, plain attributes and shapes of a block's modules."""
    found = []
    for name, module in block.named_modules():
        plain = {k: v for k, v in vars(module).items() if isinstance(v, int | float | str | tuple | None)}
        found.append((name, type(module).__qualname__, plain))
    tensors = block.state_dict(keep_vars=True).items()
    return str([*found, *((name, tuple(tensor.shape), tensor.requires_grad) for name, tensor in tensors)])


def runs_of(layers: list[str]) -> list[tuple[int, list[str]]]:
    """The runs of equal layers, each with the place where it begins."""
    runs, start = [], 0
    for _, same in groupby(layers):
        runs.append((start, list(same)))
        start += len(runs[-1][1])
    return runs


def count_by_layers(
    config: ModelConfig, measure: Callable[[ModelConfig], dict[str, dict[str, int]]]
) -> dict[str, dict[str, int]]:
    """What measure(config) gives, amounts by moment and kind, from shorter models where layers are alike.

    Moments that name a layer, as in "the loss of blocks.3.mlp", are those of the first and the last of the layers that
    are alike, and of all others: the amounts of those in between lie between these.
    """
    start, length = alike_layers(config)
    if not length:
        return measure(config)
    two, three = (
        renamed(measure(config.replace(n_layers=config.n_layers - length + kept)), start, kept, length)
        for kept in (2, 3)
    )
    if two.keys() != three.keys():  # something happens in one of them alone
        return measure(config)
    return {moment: extended(two[moment], three[moment], length - 2) for moment in two}


def renamed(found: dict[str, dict], start: int, kept: int, length: int) -> dict[str, dict]:
    """The moments with the layers' numbers of the whole model, without those of a layer between the first and last."""
    whole: dict[str, dict] = {}
    for moment, amounts in found.items():
        layer = re.search(r"blocks\.(\d+)", moment)
        if layer is None:
            whole[moment] = amounts
            continue
        i = int(layer[1])
        if i <= start or i >= start + kept - 1:
            number = i if i <= start else i + length - kept
            whole[f"{moment[: layer.start(1)]}{number}{moment[layer.end(1) :]}"] = amounts
    return whole


def extended(two: dict[str, int], three: dict[str, int], further: int) -> dict[str, int]:
    """The amounts with `further` more layers than two has, where three has one more."""
    kinds = [*two, *(kind for kind in three if kind not in two)]
    return {kind: two.get(kind, 0) + further * (three.get(kind, 0) - two.get(kind, 0)) for kind in kinds}
