"""The tokenizers by name: our own, which ship with the repository, public encodings, stored and registered ones."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tiktoken

from lab.data.paths import printable
from lab.data.tokenizer import Tokenizer
from lab.data.tokenizer_folders import TOKENIZER as FILE
from lab.data.tokenizer_folders import read_file
from lab.data.tokenizer_kinds import (
    BPE_SIZES,
    GPT4_PATTERN,
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
from lab.files.atomic import atomic_write_text
from lab.files.names import NAME_RULE, fits_everywhere
from settings.errors import TokenizerError
from settings.messages import short, suggest
from settings.paths import ROOT

__all__ = [
    "BPE_SIZES", "GPT4_PATTERN", "Tokenizer", "bpe_tokenizer", "character_tokenizer", "check_storable",
    "huggingface_tokenizer", "list_tokenizers", "load_tokenizer", "register_tokenizer", "save_tokenizer",
    "show_tokens", "tokenizer_from_json",
]

SHIPPED = ("bpe", "character")  # folders of tokenizers/ that hold built-in ones


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of that name; "gpt2" means r50k_base. Or the one in a file, or in the tokenizer.json of a folder:
    one of ours, as runs store it, or Hugging Face's.

    Raises TokenizerError if there is none, and for one that a run could not store.
    """
    if not isinstance(name, str):
        raise TokenizerError(f"load_tokenizer takes a name, such as 'bpe-2048', not {type(name).__name__}")
    name = {"gpt2": "r50k_base"}.get(name, name)
    if name in tiktoken.list_encoding_names():
        return build({"kind": "tiktoken", "name": name})
    if name in _REGISTRY:
        return _registered(name)
    if name in _stored_names():
        return read_file(_folder() / name / FILE)
    path = os.path.expanduser(name)
    for file in (path, os.path.join(path, FILE)):
        if name and os.path.isfile(file):
            return read_file(Path(file))
    raise TokenizerError(
        f"unknown tokenizer {printable(name)!r}; {suggest(name, list_tokenizers())}, or give the path of a "
        f"{FILE}. A tokenizer that another process registered must be registered in this one too; save_tokenizer makes "
        "one known to every process, such as that of a run: save_tokenizer(run.tokenizer)"
    )


def list_tokenizers() -> list[str]:
    """All names that `load_tokenizer` knows: our own, registered and stored ones, and public encodings."""
    stored = [name for name in _stored_names() if name not in _REGISTRY]
    return [*_REGISTRY, *stored, *tiktoken.list_encoding_names()]


def register_tokenizer(name: str, factory: Callable[[], Tokenizer]) -> None:
    """Makes `load_tokenizer(name)` call `factory`, in this process alone. A later factory of the same name replaces it.

    The tokenizer is checked when it is loaded: see `check_storable`. Raises TokenizerError for the name of a built-in
    or stored tokenizer, and if `factory` can't be called.
    """
    if not isinstance(name, str) or not name or not callable(factory):
        raise TokenizerError("register_tokenizer takes a name and a function that gives a Tokenizer")
    if name in (*OWN_NAMES, *tiktoken.list_encoding_names()):
        raise TokenizerError(f"{name!r} is a built-in tokenizer: register yours under another name")
    if name in _stored_names():
        raise TokenizerError(
            f"{name!r} is stored in {_folder() / name}, and known without being registered: register yours under "
            "another name, or delete that folder"
        )
    _REGISTRY[name] = factory


def save_tokenizer(tokenizer: Tokenizer, name: str | None = None) -> Path:
    """Stores the tokenizer as tokenizers/NAME/tokenizer.json, so that every process knows it; returns the file's path.

    name: None is its own. Saving the same one again changes nothing. Raises TokenizerError for a name that some file
    system refuses, that is built in, or that is stored with other content; and for a tokenizer that a run can't store.
    """
    check_storable(tokenizer)
    tokenizer = tokenizer if name is None else tokenizer.renamed(name)
    check_free(tokenizer.name)
    path, text = _folder() / tokenizer.name / FILE, tokenizer.to_json()
    try:
        if os.path.lexists(path) and path.read_text(encoding="utf-8", errors="replace") != text:
            raise TokenizerError(
                f"{path.parent} holds another tokenizer; choose another name, or delete it: runs keep their own"
            )
        if not os.path.lexists(path):
            atomic_write_text(path, text)
    except OSError as error:
        raise TokenizerError(f"can't write {path}: {error.strerror or error}; free space or give access") from error
    _REGISTRY.pop(tokenizer.name, None)  # in this process, too, the name now means the stored one
    return path


def check_free(name: str) -> None:
    """Raises TokenizerError for a name that can't be a stored tokenizer's."""
    if not isinstance(name, str) or not fits_everywhere(name):
        raise TokenizerError(f"{short(name)} can't be the name of a stored tokenizer; {NAME_RULE}")
    if name.lower() in (*OWN_NAMES, *SHIPPED, *tiktoken.list_encoding_names()):
        raise TokenizerError(f"{name!r} is the name of a built-in tokenizer; store yours under another name")


def _folder() -> Path:
    return ROOT / "tokenizers"


def _stored_names() -> list[str]:
    """The names of the stored tokenizers, damaged ones included."""
    names = sorted(path.parent.name for path in _folder().glob(f"*/{FILE}"))
    return [name for name in names if name.lower() not in (*OWN_NAMES, *SHIPPED)]


def _registered(name: str) -> Tokenizer:
    tokenizer = _REGISTRY[name]()
    if not isinstance(tokenizer, Tokenizer):
        kind = type(tokenizer).__name__
        raise TokenizerError(f"the factory registered as {name!r} must give a Tokenizer, not {kind}")
    if name not in OWN_NAMES:
        check_storable(tokenizer)
    return tokenizer


def _shipped(folder: str, size: int | None = None) -> Tokenizer:
    path = _folder() / folder / FILE
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
