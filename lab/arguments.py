"""Arguments held against a function's annotations: a name or a preset in place of a run or a config is told at once."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping

from settings.errors import ConfigError
from settings.messages import short

# Types by name, and how one comes by a value: names suffice to tell them apart, and nothing heavy is imported
HOW = {
    "Run": "Run.open('NAME')", "ModelConfig": "preset('llama-tiny').model", "TrainConfig": "preset('llama-tiny').train",
    "DataConfig": "DataConfig(source='tales')", "Preset": "preset('llama-tiny')",
    "Transformer": "Run.open('NAME').load_model()", "Tokenizer": "load_tokenizer('bpe-2048')",
    "TokenData": "prepare(DataConfig(source='tales'))", "TokenFile": "prepare(DataConfig(source='tales')).validation",
    "SamplingConfig": "SamplingConfig(temperature=0.8)", "FutureBlockConfig": "FutureBlockConfig(levels=2)",
    "DataFrame": "run.log(), or what a study of a model gives", "str": "'TEXT'",
}  # fmt: skip
CLASSES = {"Transformer": "Module"}  # what serves as well


def checked(function: Callable) -> Callable:
    """The function, raising ConfigError for an argument of another type than its annotation names.

    Only annotations made of the types above are checked, alone, in a union with None, or in an iterable or mapping.
    """
    signature = inspect.signature(function)
    wanted = {name: str(inspect.formatannotation(p.annotation)) for name, p in signature.parameters.items()}

    @functools.wraps(function)
    def call(*arguments, **named):
        for name, value in signature.bind_partial(*arguments, **named).arguments.items():
            check_argument(function.__name__, name, value, wanted[name].replace("'", ""))
        return function(*arguments, **named)

    return call


def check_argument(function: str, name: str, value: object, annotation: str) -> None:
    """Raises ConfigError where the value is not of the types that the annotation names."""
    outer, _, inner = annotation.removesuffix("]").partition("[")
    outer = outer if "|" in outer else outer.rpartition(".")[2]  # of a union with an iterable, nothing is checked
    if annotation.endswith("]") and outer in ("Iterable", "Sequence", "Mapping"):
        fits = isinstance(value, Mapping if outer == "Mapping" else Iterable) and not isinstance(value, str)
        if not fits:
            what = "names with their values, as in {'NAME': value}" if outer == "Mapping" else "several, as in [a, b]"
            raise ConfigError(f"{name} of {function}() must be {what}, not {short(value)}, a {type(value).__name__}")
        for item in value if isinstance(value, list | tuple) else ():
            check_argument(function, name, item, inner)
        return
    kinds = [kind.strip().rpartition(".")[2] for kind in annotation.split("|")]
    if not all(kind in HOW or kind in ("None", "NoneType") for kind in kinds) or value is None:
        return
    classes = {CLASSES.get(kind, kind) for kind in kinds}
    if not classes & {base.__name__ for base in type(value).__mro__}:
        ways = " or ".join(f"a {kind}, as {HOW[kind]}" for kind in kinds if kind in HOW)
        raise ConfigError(f"{name} of {function}() must be {ways}, not {short(value)}, a {type(value).__name__}")
