"""The tokenizers by name: our own, which ship with the repository, tiktoken's public encodings, and registered ones."""

from collections.abc import Callable
from functools import partial

import tiktoken

from lab.data.tokenizer import Tokenizer
from lab.data.tokenizer_kinds import (
    BPE_SIZES,
    GPT4_PATTERN,
    LONGEST_NAME,
    OWN_NAMES,
    bpe_tokenizer,
    build,
    character_tokenizer,
    check_storable,
    huggingface_tokenizer,
    parse,
    tokenizer_from_json,
)
from lab.display.token_display import show_tokens
from settings.errors import TokenizerError
from settings.messages import suggest
from settings.paths import ROOT

__all__ = [
    "BPE_SIZES", "GPT4_PATTERN", "Tokenizer", "bpe_tokenizer", "character_tokenizer", "check_storable",
    "huggingface_tokenizer", "list_tokenizers", "load_tokenizer", "register_tokenizer", "show_tokens",
    "tokenizer_from_json",
]


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of that name; "gpt2" means r50k_base. Raises TokenizerError if there is none."""
    if not isinstance(name, str):
        raise TokenizerError(f"load_tokenizer takes a name, such as 'bpe-2048', not {type(name).__name__}")
    name = {"gpt2": "r50k_base"}.get(name, name)
    if name in tiktoken.list_encoding_names():
        return build({"kind": "tiktoken", "name": name})
    if name not in _REGISTRY:
        raise TokenizerError(
            f"unknown tokenizer {name[:LONGEST_NAME]!r}; {suggest(name, list_tokenizers())}. A tokenizer that another "
            "process registered must be registered in this one too; a run keeps its own: run.tokenizer"
        )
    tokenizer = _REGISTRY[name]()
    if not isinstance(tokenizer, Tokenizer):
        kind = type(tokenizer).__name__
        raise TokenizerError(f"the factory registered as {name!r} must give a Tokenizer, not {kind}")
    if name not in OWN_NAMES:
        check_storable(tokenizer)
    return tokenizer


def list_tokenizers() -> list[str]:
    """All names that `load_tokenizer` knows: our own, registered ones, and public encodings."""
    return [*_REGISTRY, *tiktoken.list_encoding_names()]


def register_tokenizer(name: str, factory: Callable[[], Tokenizer]) -> None:
    """Makes `load_tokenizer(name)` call `factory`. A later factory of the same name replaces it.

    The tokenizer is checked when it is loaded: see `check_storable`. Raises TokenizerError for the name of a built-in
    tokenizer, and if `factory` can't be called.
    """
    if not isinstance(name, str) or not name or not callable(factory):
        raise TokenizerError("register_tokenizer takes a name and a function that gives a Tokenizer")
    if name in (*OWN_NAMES, *tiktoken.list_encoding_names()):
        raise TokenizerError(f"{name!r} is a built-in tokenizer: register yours under another name")
    _REGISTRY[name] = factory


def _shipped(folder: str, size: int | None = None) -> Tokenizer:
    path = ROOT / "tokenizers" / folder / "tokenizer.json"
    try:
        description = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TokenizerError(
            f"can't read {path}: {error.strerror}. Restore it from the repository, or make it again: "
            "python -m lab.data.bpe_training"
        ) from error
    if size is not None:
        description |= {"name": f"{folder}-{size}", "merges": description["merges"][: size - 257]}
    return build(description)


_REGISTRY: dict[str, Callable[[], Tokenizer]] = {
    "byte": partial(build, {"kind": "byte", "name": "byte"}),
    "character": partial(_shipped, "character"),
    **{f"bpe-{size}": partial(_shipped, "bpe", size) for size in BPE_SIZES},
}
