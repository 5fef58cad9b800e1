"""Models as they would be without LoggingModule, to hold it to its promise that it costs nothing while it is off."""

from torch import nn

from modules.logging_module import LoggingModule


def make_plain(model: nn.Module) -> nn.Module:
    """Takes LoggingModule out of the classes of `model` and of all its parts; the same object, changed."""
    made = {}
    for module in model.modules():
        module.__class__ = plain_class(type(module), made)
    assert made and not any(isinstance(module, LoggingModule) for module in model.modules())
    return model


def plain_class(cls: type, made: dict[type, type]) -> type:
    if not issubclass(cls, LoggingModule):
        return cls
    if cls not in made:
        bases = [plain_class(base, made) for base in cls.__bases__ if base is not LoggingModule]
        body = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
        made[cls] = type(cls.__name__, tuple(bases or [nn.Module]), body)
    return made[cls]
