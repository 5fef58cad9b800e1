"""The parameters of a model, as PyTorch's meta device builds it: without numbers. Imports no torch by itself."""

from math import prod

from config import ModelConfig
from lab.costs.parts import part_of
from lab.costs.remembered import remembered


@remembered
def named_shapes(config: ModelConfig) -> list[tuple[str, list[int]]]:
    from lab.costs.passes import meta_model

    return [(name, list(parameter.shape)) for name, parameter in meta_model(config).named_parameters()]


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter of the model, by name. Raises IdeaError for a part that can't be built so."""
    return {name: tuple(shape) for name, shape in named_shapes(config)}


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """How many numbers each part has that is trained, in the order of the model."""
    found: dict[str, int] = {}
    for name, shape in parameter_shapes(config).items():
        part = part_of(name)
        found[part] = found.get(part, 0) + prod(shape)
    return found
