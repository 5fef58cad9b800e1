"""The parameters of a model, as PyTorch's meta device builds it: without numbers. Imports no torch by itself."""

from math import prod

from config import ModelConfig
from lab.costs.parts import part_of
from lab.files.remembered import remembered


@remembered
def named_shapes(config: ModelConfig) -> list[tuple[str, list[int]]]:
    from lab.costs.passes import meta_model

    return [(name, list(parameter.shape)) for name, parameter in meta_model(config).named_parameters()]


@remembered
def named_tensors(config: ModelConfig) -> list[tuple[str, list[int]]]:
    from lab.costs.passes import meta_model

    return [(name, list(tensor.shape)) for name, tensor in meta_model(config).stored_tensors().items()]


def stored_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that a run with this model stores, by name: of an adapted model, the adapter's."""
    return {name: tuple(shape) for name, shape in named_tensors(config)}


@remembered
def weight_bytes(config: ModelConfig) -> int:
    """Of all that the model computes with: parameters in float32, the codes and scales of quantised layers as they
    are."""
    from lab.costs.passes import meta_model

    tensors = meta_model(config).state_dict(keep_vars=True).values()
    return sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in tensors}.values())


def count_parameters(config: ModelConfig) -> int:
    """How many numbers the model computes with, those that an adapter adds among them. A quantised weight is one."""
    return sum(map(prod, parameter_shapes(config).values()))


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter of the model, by name; of a quantised model, those that it had before. Raises
    IdeaError for a part that can't be built so."""
    return {name: tuple(shape) for name, shape in named_shapes(config.replace(quantised=None))}


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """How many numbers each part has that is trained, in the order of the model."""
    found: dict[str, int] = {}
    for name, shape in parameter_shapes(config).items():
        part = part_of(name)
        found[part] = found.get(part, 0) + prod(shape)
    return found
