"""A tokenizer: text to token ids and back."""

import hashlib
import json
import operator
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import chain

import tiktoken

from lab.data.huggingface_tokenizer import HuggingFaceEncoding
from settings.errors import TokenizerError

UNUSED = "\ufffd".encode()
BATCH_GROUP = 64  # texts given to a thread at once: for single texts, this would take longer than encoding

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

    def renamed(self, name: str) -> "Tokenizer":
        """The same under another name. Raises TokenizerError for a public encoding, which is found by its name."""
        if self._description["kind"] == "tiktoken":
            raise TokenizerError(f"{self.name!r} is a public encoding, known everywhere under this name alone")
        return Tokenizer(self._description | {"name": name}, self.encoding)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of `text`. Special tokens in it, such as "<|endoftext|>", are read as plain characters, so that no
        text holds the end of text. special: True reads them as their own ids instead.

        Raises TokenizerError for anything but Unicode text.
        """
        checked_text(text)
        encode = partial(self.encoding.encode, allowed_special="all") if special else self.encoding.encode_ordinary
        ids = []
        try:
            for part in _parts(text):
                ids += encode(part)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # raised by Rust: it is not an Exception and can't be imported
                raise
            raise TokenizerError(
                f"{self.name!r} can't split a text of {len(text):,} characters: its pattern matches nothing at some "
                f"place, or needs too many steps ({error}). Give it a simpler pattern, such as GPT4_PATTERN"
            ) from error
        return ids

    def encode_batch(self, texts: Iterable[str], special: bool = False) -> list[list[int]]:
        """The ids of each text as `encode` gives them, computed on all cores."""
        if isinstance(texts, str):
            raise TokenizerError("encode_batch takes many texts; for one text use encode")
        texts = list(texts)
        groups = [texts[i : i + BATCH_GROUP] for i in range(0, len(texts), BATCH_GROUP)]
        encode = partial(self.encode, special=True) if special else self.encode
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            encoded = pool.map(lambda group: [encode(text) for text in group], groups)
            return list(chain.from_iterable(encoded))

    def decode(self, ids: Iterable[int], special: bool = True) -> str:
        """The text of `ids`; bytes that form no character become U+FFFD. special: False leaves special tokens, such as
        the end of text, out. Raises as `token_bytes` does."""
        ids = list(ids)
        tokens = list(map(self.token_bytes, ids))
        if not special:
            is_special = self.encoding.is_special_token
            tokens = [token for id, token in zip(ids, tokens) if not is_special(operator.index(id))]
        return b"".join(tokens).decode("utf-8", errors="replace")

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
