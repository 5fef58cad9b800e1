"""The kinds of tokenizers, and what describes one: bytes, characters, byte-pair encodings, public and Hugging Face's.

Our own tokenizers share one layout: ids 0-255 are the single bytes, 256 is the end of text, and the longer tokens
follow from 257 on: characters beyond ASCII, or merges in the order in which they were learned. So any text can be
encoded, and `bpe-512` is the beginning of `bpe-1024`. They encode with `tiktoken`, as the public encodings do.
"""

import hashlib
from collections.abc import Iterable
from functools import cache
from unicodedata import combining, is_normalized

import tiktoken

from lab.data.huggingface_tokenizer import HuggingFaceEncoding
from lab.data.tokenizer import Tokenizer, checked_text
from lab.data.visible_bytes import from_visible, to_visible
from settings.errors import ConfigError, TokenizerError
from settings.json_text import parse_json

END_OF_TEXT = "<|endoftext|>"
BPE_SIZES = (512, 1024, 2048, 4096, 8192)
OWN_NAMES = ("byte", "character", *(f"bpe-{size}" for size in BPE_SIZES))  # they ship with the repository

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


def bpe_tokenizer(name: str, merges: Iterable[tuple[bytes, bytes]], pattern: str = GPT4_PATTERN) -> Tokenizer:
    """Byte-pair encoding: each pair of `merges`, in this order, joins two tokens to a new one.

    Raises TokenizerError if a pair joins bytes that are not a token yet, or makes a token that exists already.
    """
    try:
        lines = [f"{to_visible(left)} {to_visible(right)}" for left, right in merges]
    except (KeyError, TypeError, ValueError) as error:
        raise TokenizerError("each merge must be a pair of bytes, like (b' ', b't')") from error
    return build(checked_description({"kind": "bpe", "name": name, "pattern": pattern, "merges": lines}))


def character_tokenizer(name: str, characters: str) -> Tokenizer:
    """One id for each ASCII character and each of `characters`; other characters are encoded as bytes."""
    return build(checked_description({"kind": "character", "name": name, "characters": characters}))


def huggingface_tokenizer(name: str, text: str, end_of_text: str) -> Tokenizer:
    """The tokenizer that Hugging Face's tokenizer.json holds in `text`. end_of_text: the token between documents.

    Raises TokenizerError for anything but a byte-level BPE.
    """
    return build(checked_description({"kind": "huggingface", "name": name, "end_of_text": end_of_text, "json": text}))


def tokenizer_from_json(text: str) -> Tokenizer:
    """The tokenizer that `to_json` wrote. Raises TokenizerError if the text is damaged."""
    return build(parse(text))


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
    for text in (PROBE, all_bytes()):
        back = tokenizer.decode(tokenizer.encode(text))
        if back != text:
            lost = next((c for c in text if tokenizer.decode(tokenizer.encode(c)) != c), None)
            told = [f"{text[:30]!r} comes back as {back[:30]!r}"] if text is PROBE or not lost else []
            told += [f"it does not cover {lost!r} (U+{ord(lost):04X})"] if lost else []
            raise TokenizerError(
                f"the tokenizer {tokenizer.name!r} loses text: {', and '.join(told)}. Its pattern must match every "
                "character, as GPT4_PATTERN does, and each of the 256 bytes must be a token"
            )


@cache
def all_bytes() -> str:
    """Characters whose UTF-8 holds every byte that UTF-8 can hold. None of them is changed by NFC."""
    samples = map(chr, [*range(0x800), *range(0x800, 0xD800, 0x800), 0xE000, 0xF000, *range(0x10000, 0x110000, 0x8000)])
    plain = (character for character in samples if is_normalized("NFC", character) and not combining(character))
    return "".join(plain) + "\u0334"  # a combining character that nothing is joined with


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
        encoding = tiktoken.get_encoding(name)
    except (OSError, ValueError) as error:  # no network, a damaged file, a folder that can't be written
        url = getattr(getattr(error, "request", None), "url", None)
        if url is None:
            raise TokenizerError(f"can't load the tokenizer {name!r}: {error}") from error
        raise TokenizerError(
            f"can't fetch the tokenizer {name!r}: {url} can't be reached. Without a network there are "
            f"{', '.join(OWN_NAMES)}. To have {name!r} there too, download that address elsewhere, save the file "
            f"as {hashlib.sha1(url.encode()).hexdigest()} (the sha1 of the address) in a folder of your "
            "choice, and name this folder in the environment variable TIKTOKEN_CACHE_DIR."
        ) from error
    if END_OF_TEXT not in encoding.special_tokens_set:
        raise TokenizerError(f"the tokenizer {name!r} has no {END_OF_TEXT!r} to separate documents; choose another")
    return Tokenizer(description, encoding)


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


def parse(text: str) -> dict:
    if not isinstance(text, str) or len(text) > LONGEST_FILE:
        raise TokenizerError(f"damaged tokenizer file: it must be text of at most {LONGEST_FILE:,} characters")
    try:
        return checked_description(parse_json(text))
    except ConfigError as error:
        raise TokenizerError(f"damaged tokenizer file: it is not JSON: {error}") from error
    except TokenizerError as error:
        raise TokenizerError(f"damaged tokenizer file: {error}") from error


def checked_description(description: object) -> dict:
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


def build(description: dict) -> Tokenizer:
    return _KINDS[description["kind"]][0](description)
