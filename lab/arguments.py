"""Checks the arguments of a call against the function's annotations, for instance a name given in place of a run."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping

from settings.errors import ConfigError
from settings.messages import short

# How to get a value of each type. Types are compared by name, so that nothing heavy is imported for it
HOW = {
    "Run": "Run.open('NAME')", "ModelConfig": "preset('llama-tiny').model", "TrainConfig": "preset('llama-tiny').train",
    "DataConfig": "DataConfig(source='tales')", "Preset": "preset('llama-tiny')",
    "Transformer": "Run.open('NAME').load_model()", "Tokenizer": "load_tokenizer('bpe-2048')",
    "TokenData": "prepare(DataConfig(source='tales'))", "TokenFile": "prepare(DataConfig(source='tales')).validation",
    "SamplingConfig": "SamplingConfig(temperature=0.8)", "FutureBlockConfig": "FutureBlockConfig(levels=2)",
    "TextClassifier": "open_classifier('NAME')", "LabelledTask": "load_task('prose-or-code')",
    "ClassifierConfig": "ClassifierConfig(full=True)", "ClassifierReport": "measure_classifier(classifier, task)",
    "DataFrame": "run.log(), or what a study of a model gives", "str": "'TEXT'",
}
CLASSES = {"Transformer": "Module"}  # every module is accepted in place of a Transformer


def checked(function: Callable) -> Callable:
    """The same function, but it raises ConfigError if an argument does not have the type of its annotation.

    Only annotations made of the types in HOW are checked: alone, in a union, or as items of an iterable or mapping.
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
    """Raises ConfigError if the value has none of the types in the annotation."""
    outer, _, inner = annotation.removesuffix("]").partition("[")
    outer = outer if "|" in outer else outer.rpartition(".")[2]  # a union with an iterable is not checked
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
