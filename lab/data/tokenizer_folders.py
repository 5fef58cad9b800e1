"""Reads tokenizers from files: ours, as a run stores them, and Hugging Face's with the files beside them."""

import json
from collections.abc import Mapping
from pathlib import Path

from lab.data.huggingface_tokenizer import MOST_IDS, read_backend
from lab.data.paths import printable
from lab.data.tokenizer import Tokenizer
from lab.data.tokenizer_kinds import LONGEST_FILE, check_storable, huggingface_tokenizer, tokenizer_from_json
from settings.errors import ConfigError, TokenizerError
from settings.json_text import parse_json
from settings.messages import short

TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
CONFIG, GENERATION = "config.json", "generation_config.json"
BESIDE = (GENERATION, CONFIG, TOKENIZER_CONFIG, SPECIAL_TOKENS)  # the files that may name the end of text
USUAL_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
MOST_NAMED = 10  # tokens in a message


def read_file(path: Path) -> Tokenizer:
    """The tokenizer in a file: one of ours, or Hugging Face's, which has the name of its folder.

    Raises TokenizerError for a file that holds none, or one that a run could not store.
    """
    try:
        text = read_text(path)
        if "kind" in read_object(text, path.name):
            tokenizer = tokenizer_from_json(text)
            check_storable(tokenizer)
            return tokenizer
        beside = {name: path.with_name(name) for name in BESIDE}
        named = {name: read_object(read_text(file), name) for name, file in beside.items() if file.exists()}
        name = path.absolute().parent.name if path.name == TOKENIZER else path.stem
        return read_huggingface(name, text, named)
    except TokenizerError as error:
        raise TokenizerError(f"can't load the tokenizer in {printable(path)}: {error}") from error


def read_huggingface(name: str, text: str, named: Mapping[str, Mapping]) -> Tokenizer:
    """The tokenizer of a folder in Hugging Face's layout. text: what its tokenizer.json holds. named: the objects in
    those files of BESIDE that are there. Raises TokenizerError where it has none that a run can keep."""
    backend, described = read_backend(text)
    end_of_text = find_end_of_text(named, backend, described)
    tokenizer = huggingface_tokenizer(name, json.dumps(described, ensure_ascii=False), end_of_text)
    check_storable(tokenizer)
    return tokenizer


def find_end_of_text(named: Mapping[str, Mapping], backend, described: Mapping) -> str:
    """The token that ends a text: the tokenizer's eos_token, if the generation settings or the config name it too; else
    the first that these name; else the one with a usual name. Raises TokenizerError where that is not clear."""
    generation, config, settings, special = (named.get(name, {}) for name in BESIDE)
    eos = generation.get("eos_token_id", config.get("eos_token_id"))
    ends = [backend.id_to_token(id) for id in as_ids(eos)]
    token = settings.get("eos_token", special.get("eos_token"))
    token = token.get("content") if isinstance(token, dict) else token
    if token is not None and (not isinstance(token, str) or backend.token_to_id(token) is None):
        raise TokenizerError(f"{TOKENIZER_CONFIG}: the eos_token is {short(token)}, which is no token of {TOKENIZER}")
    if None in ends:
        raise TokenizerError(f"the eos_token_id is {short(eos)}, which is no token of {TOKENIZER}")
    if token is None and not ends:
        return usual_end(backend, described)
    return token if token in ends or not ends else ends[0]


def usual_end(backend, described: Mapping) -> str:
    """The token with one of the usual names for the end of a text. Raises TokenizerError unless there is just one."""
    usual = [name for name in USUAL_ENDS if backend.token_to_id(name) is not None]
    if len(usual) != 1:
        special = [token["content"] for token in described.get("added_tokens") or () if token.get("special")]
        candidates = usual or special
        raise TokenizerError(
            f"nothing says which token ends a text. {'Candidates' if candidates else 'No token is special'}"
            f"{': ' * bool(candidates)}{', '.join(map(repr, candidates[:MOST_NAMED]))}. Choose one by "
            f"huggingface_tokenizer(name, text, end_of_text), or write {TOKENIZER_CONFIG} beside {TOKENIZER}: "
            '{"eos_token": "..."}'
        )
    return usual[0]


def as_ids(eos: object) -> list[int]:
    """eos_token_id, which may be missing, one id or several, as a list. Raises TokenizerError for anything else."""
    ids = [] if eos is None else eos if isinstance(eos, list) else [eos]
    if not all(type(id) is int and 0 <= id < MOST_IDS for id in ids):
        raise TokenizerError(f"the eos_token_id must be a token id or a list of them, not {short(eos)}")
    return ids


def read_text(path: Path) -> str:
    """The text of a file. Raises TokenizerError where it is too large, no UTF-8 or can't be read."""
    try:
        size = path.stat().st_size
        if not path.is_file() or size > 4 * LONGEST_FILE:
            raise TokenizerError(f"{path.name} has {size:,} bytes, or is no regular file; no tokenizer is so large")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise TokenizerError(f"{path.name} can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path.name} is not UTF-8 text: {error}") from error


def read_object(text: str, name: str) -> dict:
    """The JSON object in the text of a file. Raises TokenizerError for anything else."""
    try:
        values = parse_json(text)
    except ConfigError as error:
        raise TokenizerError(f"{name} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise TokenizerError(f"{name} must hold a JSON object, not {short(values)}")
    return values
