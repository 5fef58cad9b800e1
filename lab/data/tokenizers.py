"""Text to token ids and back: bytes, characters, byte-pair encodings: our own, tiktoken's public ones, Hugging Face's.

Our own tokenizers share one layout: ids 0-255 are the single bytes, 256 is the end of text, and the longer tokens
follow from 257 on: characters beyond ASCII, or merges in the order in which they were learned. So any text can be
encoded, and `bpe-512` is the beginning of `bpe-1024`. They encode with `tiktoken`, as the public encodings do.
"""

import hashlib
import json
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import chain

import tiktoken

from config import VOCABULARIES
from lab.data.huggingface_tokenizer import HuggingFaceEncoding
from lab.data.visible_bytes import from_visible, to_visible
from lab.display.token_display import show_tokens
from settings.errors import ConfigError, TokenizerError
from settings.json_text import parse_json
from settings.messages import suggest
from settings.paths import ROOT

__all__ = [
    "Tokenizer", "bpe_tokenizer", "character_tokenizer", "check_storable", "huggingface_tokenizer", "list_tokenizers",
    "load_tokenizer", "register_tokenizer", "show_tokens", "tokenizer_from_json",
]

END_OF_TEXT = "<|endoftext|>"
BPE_SIZES = (512, 1024, 2048, 4096, 8192)
UNUSED = "\ufffd".encode()
BATCH_GROUP = 64  # texts given to a thread at once: for single texts, this would take longer than encoding

# How GPT-4 cuts text into pieces that no merge crosses: contractions, words with the space before them, up to three
# digits, punctuation, line ends, spaces. All regex engines read it in this form in the same way.
GPT4_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ONE_CHARACTER = r"(?s:.)"

# Limits for a stored tokenizer: far more than any in use has, and little enough to be read in seconds.
LONGEST_FILE = 1 << 26  # characters
MOST_TOKENS = 1 << 20
LONGEST_NAME = 200
LONGEST_PATTERN = 10_000
PROBE = "Once upon a time,\n\n  it's 12345 naïve ÜBER-dogs;\t世界 🦊\r\n    x = [y_0, *z] != <|endoftext|>\x00 \n"

# tiktoken's regex engine fails on about a million spaces in a row, so a long row of spaces is encoded in parts.
LONGEST_SPACE = 100_000
LONG_SPACE = re.compile(rf"(?<!\s)\s{{{LONGEST_SPACE},}}")


class Tokenizer:
    """Text to ids and back. `load_tokenizer`, `bpe_tokenizer` and `tokenizer_from_json` make one.

    vocab_size: the number of ids, with the end of text. end_of_text: the id that separates documents. encoding: what
    computes the ids.
    """

    def __init__(self, description: dict, encoding: tiktoken.Encoding | HuggingFaceEncoding):
        self.name: str = description["name"]
        self.vocab_size: int = encoding.n_vocab
        self.end_of_text: int = encoding.eot_token
        self._description = description
        self.encoding = encoding
        self._tokens = [_token(encoding, id) for id in range(encoding.n_vocab)]

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, {self.vocab_size:,} ids, end of text {self.end_of_text})"

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, never the end of text: "<|endoftext|>" in a text is read as plain characters.

        Raises TokenizerError for anything but Unicode text.
        """
        checked_text(text)
        ids = []
        try:
            for part in _parts(text):
                ids += self.encoding.encode_ordinary(part)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # raised by Rust: it is not an Exception and can't be imported
                raise
            raise TokenizerError(
                f"{self.name!r} can't split a text of {len(text):,} characters: its pattern matches nothing at some "
                f"place, or needs too many steps ({error}). Give it a simpler pattern, such as GPT4_PATTERN"
            ) from error
        return ids

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """The ids of each text, computed on all cores."""
        if isinstance(texts, str):
            raise TokenizerError("encode_batch takes many texts; for one text use encode")
        texts = list(texts)
        groups = [texts[i : i + BATCH_GROUP] for i in range(0, len(texts), BATCH_GROUP)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            encoded = pool.map(lambda group: [self.encode(text) for text in group], groups)
            return list(chain.from_iterable(encoded))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that form no character become U+FFFD. Raises as `token_bytes` does."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of an id; those of U+FFFD for an id that a public encoding does not use.

        Raises TokenizerError for anything but an id.
        """
        try:
            index = operator.index(id)
        except TypeError as error:
            raise TokenizerError(f"a token id is a whole number, not {type(id).__name__}: {id!r}") from error
        if not 0 <= index < self.vocab_size:
            last = self.vocab_size - 1
            raise TokenizerError(f"token id {index} is out of range: {self.name} has ids 0 to {last}")
        return self._tokens[index]

    def to_json(self) -> str:
        """The tokenizer as JSON for `tokenizer_from_json`: our own with every token, public encodings by name."""
        return json.dumps(self._description, ensure_ascii=False, indent=1) + "\n"

    @cached_property
    def fingerprint(self) -> str:
        """Equal for equal tokenizers on every machine; part of the key of prepared data."""
        return hashlib.sha256(self.to_json().encode("utf-8")).hexdigest()[:16]


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of that name; "gpt2" means r50k_base. Raises TokenizerError if there is none."""
    if not isinstance(name, str):
        raise TokenizerError(f"load_tokenizer takes a name, such as 'bpe-2048', not {type(name).__name__}")
    name = {"gpt2": "r50k_base"}.get(name, name)
    if name in tiktoken.list_encoding_names():
        return _public({"kind": "tiktoken", "name": name})
    if name not in _REGISTRY:
        raise TokenizerError(
            f"unknown tokenizer {name[:LONGEST_NAME]!r}; {suggest(name, list_tokenizers())}. A tokenizer that another "
            "process registered must be registered in this one too; a run keeps its own: run.tokenizer"
        )
    tokenizer = _REGISTRY[name]()
    if not isinstance(tokenizer, Tokenizer):
        kind = type(tokenizer).__name__
        raise TokenizerError(f"the factory registered as {name!r} must give a Tokenizer, not {kind}")
    if name not in _OWN:
        check_storable(tokenizer)
    return tokenizer


def vocabulary_size(name: str) -> int:
    """How many ids the tokenizer of that name has. It is not loaded if config.py knows the number. Raises
    TokenizerError for an unknown name."""
    return VOCABULARIES.get(name) or load_tokenizer(name).vocab_size


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
    if name in (*_OWN, *tiktoken.list_encoding_names()):
        raise TokenizerError(f"{name!r} is a built-in tokenizer: register yours under another name")
    _REGISTRY[name] = factory


def bpe_tokenizer(name: str, merges: Iterable[tuple[bytes, bytes]], pattern: str = GPT4_PATTERN) -> Tokenizer:
    """Byte-pair encoding: each pair of `merges`, in this order, joins two tokens to a new one.

    Raises TokenizerError if a pair joins bytes that are not a token yet, or makes a token that exists already.
    """
    try:
        lines = [f"{to_visible(left)} {to_visible(right)}" for left, right in merges]
    except (KeyError, TypeError, ValueError) as error:
        raise TokenizerError("each merge must be a pair of bytes, like (b' ', b't')") from error
    return _build(_checked({"kind": "bpe", "name": name, "pattern": pattern, "merges": lines}))


def character_tokenizer(name: str, characters: str) -> Tokenizer:
    """One id for each ASCII character and each of `characters`; other characters are encoded as bytes."""
    return _build(_checked({"kind": "character", "name": name, "characters": characters}))


def huggingface_tokenizer(name: str, text: str, end_of_text: str) -> Tokenizer:
    """The tokenizer that Hugging Face's tokenizer.json holds in `text`. end_of_text: the token between documents.

    Raises TokenizerError for anything but a byte-level BPE.
    """
    return _build(_checked({"kind": "huggingface", "name": name, "end_of_text": end_of_text, "json": text}))


def tokenizer_from_json(text: str) -> Tokenizer:
    """The tokenizer that `to_json` wrote. Raises TokenizerError if the text is damaged."""
    return _build(_parse(text))


def check_storable(tokenizer: Tokenizer) -> None:
    """Raises TokenizerError if a run could not store the tokenizer and read back the same one, or if it loses text.

    A run stores what `to_json` writes, never code. So a subclass, or a tokenizer that encodes differently from what is
    stored, would be another tokenizer when it is read.
    """
    if type(tokenizer) is not Tokenizer:
        raise TokenizerError(
            f"a {type(tokenizer).__name__} can't be stored in a run, which keeps no code: give a Tokenizer as "
            "bpe_tokenizer, character_tokenizer, train_bpe or load_tokenizer make it"
        )
    again, ids = tokenizer_from_json(tokenizer.to_json()), tokenizer.encode(PROBE)
    if (again.vocab_size, again.end_of_text, again._tokens) != (
        tokenizer.vocab_size, tokenizer.end_of_text, tokenizer._tokens,
    ) or again.encode(PROBE) != ids or tokenizer.encode_batch([PROBE]) != [ids]:
        raise TokenizerError(
            f"the tokenizer {tokenizer.name!r} encodes differently from what a run stores of it (to_json): make it "
            "by bpe_tokenizer, character_tokenizer or train_bpe, and change nothing afterwards"
        )
    if tokenizer.decode(ids) != PROBE:
        raise TokenizerError(
            f"the tokenizer {tokenizer.name!r} loses text: {PROBE[:30]!r} comes back as "
            f"{tokenizer.decode(ids)[:30]!r}. Its pattern must match every character, as GPT4_PATTERN does"
        )


def checked_text(text: str) -> str:
    """The text itself. Raises TokenizerError for anything but Unicode text."""
    if not isinstance(text, str):
        raise TokenizerError(f"only text (str) can be encoded, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"the text holds U+{ord(text[error.start]):04X}, half of a surrogate pair, at position "
            f"{error.start}: it was decoded wrongly. Read it again with its true encoding, or replace "
            "what can't be decoded: open(path, encoding='utf-8', errors='replace')"
        ) from error
    return text


# --- from a description, the content of the JSON file, to a tokenizer --------------------------------------


def _byte(description: dict) -> Tokenizer:
    return _own(description, ONE_CHARACTER, [])


def _character(description: dict) -> Tokenizer:
    # Other characters are split into bytes: no part of their UTF-8 is the whole of another character.
    longer = [character.encode("utf-8") for character in description["characters"] if not character.isascii()]
    return _own(description, ONE_CHARACTER, longer)


def _bpe(description: dict) -> Tokenizer:
    known = {bytes([byte]) for byte in range(256)}
    tokens = []
    for number, line in enumerate(description["merges"], 1):
        where = f"{description['name']}: merge {number}, {line!r},"
        try:
            left, right = map(from_visible, line.split(" "))
        except (AttributeError, KeyError, ValueError) as error:
            raise TokenizerError(f"{where} must be two tokens in visible bytes, like 'Ġ t'") from error
        if not {left, right} <= known or left + right in known:
            raise TokenizerError(f"{where} must join two existing tokens to a new one")
        tokens.append(left + right)
        known.add(left + right)
    return _own(description, description["pattern"], tokens)


def _own(description: dict, pattern: str, longer: list[bytes]) -> Tokenizer:
    name = description["name"]
    ranks = {bytes([byte]): byte for byte in range(256)} | {token: 257 + i for i, token in enumerate(longer)}
    if len(ranks) < 256 + len(longer):
        raise TokenizerError(f"{name}: a token is given twice")
    try:
        special = {END_OF_TEXT: 256}
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    except ValueError as error:
        raise TokenizerError(f"{name}: the split pattern is not a regular expression: {error}") from error
    return Tokenizer(description, encoding)


def _public(description: dict) -> Tokenizer:
    name = description["name"]
    try:
        return Tokenizer(description, tiktoken.get_encoding(name))
    except (OSError, ValueError) as error:  # no network, a damaged file, a folder that can't be written
        url = getattr(getattr(error, "request", None), "url", None)
        if url is None:
            raise TokenizerError(f"can't load the tokenizer {name!r}: {error}") from error
        raise TokenizerError(
            f"can't fetch the tokenizer {name!r}: {url} can't be reached. Without a network there are "
            f"{', '.join(_OWN)}. To have {name!r} there too, download that address elsewhere, save the file "
            f"as {hashlib.sha1(url.encode()).hexdigest()} (the sha1 of the address) in a folder of your "
            "choice, and name this folder in the environment variable TIKTOKEN_CACHE_DIR."
        ) from error


def _huggingface(description: dict) -> Tokenizer:
    return Tokenizer(description, HuggingFaceEncoding(description["json"], description["end_of_text"]))


_KINDS = {  # kind: how it is built, and the fields that it needs besides its name
    "byte": (_byte, {}),
    "character": (_character, {"characters": str}),
    "bpe": (_bpe, {"pattern": str, "merges": list}),
    "tiktoken": (_public, {}),
    "huggingface": (_huggingface, {"json": str, "end_of_text": str}),
}


LIMITS = {
    "name": LONGEST_NAME, "pattern": LONGEST_PATTERN, "characters": MOST_TOKENS, "merges": MOST_TOKENS,
    "json": LONGEST_FILE, "end_of_text": LONGEST_NAME,
}


def _parse(text: str) -> dict:
    if not isinstance(text, str) or len(text) > LONGEST_FILE:
        raise TokenizerError(f"damaged tokenizer file: it must be text of at most {LONGEST_FILE:,} characters")
    try:
        return _checked(parse_json(text))
    except ConfigError as error:
        raise TokenizerError(f"damaged tokenizer file: it is not JSON: {error}") from error
    except TokenizerError as error:
        raise TokenizerError(f"damaged tokenizer file: {error}") from error


def _checked(description: object) -> dict:
    """The description, if it has the fields that its kind needs. Raises TokenizerError."""
    if not isinstance(description, dict) or description.get("kind") not in [*_KINDS]:
        raise TokenizerError(f'"kind" must be one of {", ".join(_KINDS)}')
    for field, type_ in {"name": str, **_KINDS[description["kind"]][1]}.items():
        value, most = description.get(field), LIMITS[field]
        if not isinstance(value, type_):
            raise TokenizerError(f'"{field}" is missing or not a {type_.__name__}')
        if len(value) > most:
            raise TokenizerError(f'"{field}" has a length of {len(value):,}; at most {most:,} are read')
        if type_ is str:
            checked_text(value)
    return description


def _build(description: dict) -> Tokenizer:
    return _KINDS[description["kind"]][0](description)


def _shipped(folder: str, size: int | None = None) -> Tokenizer:
    path = ROOT / "tokenizers" / folder / "tokenizer.json"
    try:
        description = _parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TokenizerError(
            f"can't read {path}: {error.strerror}. Restore it from the repository, or make it again: "
            "python -m lab.data.bpe_training"
        ) from error
    if size is not None:
        description |= {"name": f"{folder}-{size}", "merges": description["merges"][: size - 257]}
    return _build(description)


_OWN = {
    "byte": partial(_build, {"kind": "byte", "name": "byte"}),
    "character": partial(_shipped, "character"),
    **{f"bpe-{size}": partial(_shipped, "bpe", size) for size in BPE_SIZES},
}
_REGISTRY: dict[str, Callable[[], Tokenizer]] = dict(_OWN)


def _token(encoding: tiktoken.Encoding | HuggingFaceEncoding, id: int) -> bytes:
    try:
        return encoding.decode_single_token_bytes(id)
    except KeyError:
        return UNUSED


def _parts(text: str) -> Iterator[str]:
    start = 0
    if len(text) > LONGEST_SPACE:
        for space in LONG_SPACE.finditer(text):
            for end in range(space.start() + LONGEST_SPACE, space.end() + 1, LONGEST_SPACE):
                yield text[start:end]
                start = end
    yield text[start:]
