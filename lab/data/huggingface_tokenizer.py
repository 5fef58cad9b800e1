"""A byte-level BPE in Hugging Face's form (tokenizer.json), behind the interface that tiktoken's encodings have."""

import json
from functools import cached_property
from typing import Literal

from lab.data.visible_bytes import from_visible
from settings.errors import ConfigError, TokenizerError
from settings.json_text import parse_json

MOST_IDS = 1 << 20


class HuggingFaceEncoding:
    """Encodes by the `tokenizers` library. text: what tokenizer.json holds. end_of_text: the token between documents.

    Nothing is added in front of a text or behind it, and special tokens in a text are read as plain characters. Raises
    TokenizerError for anything but a byte-level BPE: other tokens, such as SentencePiece's, do not stand for bytes.
    """

    def __init__(self, text: str, end_of_text: str):
        self._backend, described = read_backend(text)
        check_byte_level(described)
        listed = described.get("added_tokens") or ()
        added = {token["content"] for token in listed}
        self._special = {token["id"] for token in listed if token.get("special")}
        ids = self._backend.get_vocab(with_added_tokens=True)
        if end_of_text not in ids:
            raise TokenizerError(f"tokenizer.json has no token {end_of_text!r:.80}, which is to end a text")
        if max(ids.values()) >= MOST_IDS:
            raise TokenizerError(f"tokenizer.json has the id {max(ids.values()):,}; ids below {MOST_IDS:,} are read")
        self._bytes = {id: spell(token, token in added) for token, id in ids.items()}
        self.text, self.end_of_text = text, end_of_text
        self.n_vocab, self.eot_token = max(ids.values()) + 1, ids[end_of_text]

    def encode_ordinary(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    @cached_property
    def _with_special(self):
        """The backend that reads special tokens in a text as their ids."""
        backend = read_backend(self.text)[0]
        backend.encode_special_tokens = False
        return backend

    def encode(self, text: str, *, allowed_special: Literal["all"]) -> list[int]:
        return self._with_special.encode(text, add_special_tokens=False).ids

    def is_special_token(self, id: int) -> bool:
        return id in self._special

    def decode_single_token_bytes(self, id: int) -> bytes:
        """The bytes of a token. Raises KeyError for an id that is not used."""
        return self._bytes[id]


def read_backend(text: str):
    """The `tokenizers.Tokenizer` and the JSON that describes it. Raises TokenizerError where the library can't read
    it."""
    from tokenizers import Tokenizer

    try:
        described, backend = parse_json(text), Tokenizer.from_str(text)
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
    except ConfigError as error:
        raise TokenizerError(f"tokenizer.json is damaged: {error}") from error
    except BaseException as error:  # the library raises plain Exceptions, and Rust's panics are none
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise TokenizerError(f"tokenizer.json can't be read by the library `tokenizers`: {error!s:.300}") from error
    return backend, described


def check_byte_level(described: dict) -> None:
    """Raises TokenizerError unless the tokens stand for bytes, each written in GPT-2's visible alphabet."""
    model, decoder = described["model"], described.get("decoder") or {}
    steps = decoder.get("decoders", [decoder])
    if model.get("type", "BPE") != "BPE" or [step.get("type") for step in steps] != ["ByteLevel"]:
        names = ", ".join(str(step.get("type")) for step in steps)
        raise TokenizerError(
            f"tokenizer.json is a {model.get('type', 'BPE')} with the decoder {names:.80}; only a byte-level BPE can "
            "be read, as GPT-2, Llama 3 and SmolLM have it, because each token must stand for bytes of the text"
        )
    if model.get("dropout"):
        raise TokenizerError("tokenizer.json cuts texts at random (model.dropout); set it to null")
    normaliser = described.get("normalizer")
    if normaliser is not None and normaliser.get("type") != "NFC":
        raise TokenizerError(
            f"tokenizer.json changes the text before it is cut (normalizer {json.dumps(normaliser):.80}); only NFC, or "
            "none, can be read, because decoding must give the text back"
        )


def spell(token: str, added: bool) -> bytes:
    """The bytes of a token: an added one stands for its own text. Raises TokenizerError for one that has none."""
    if added:
        return token.encode("utf-8")
    try:
        return from_visible(token)
    except KeyError as error:
        raise TokenizerError(f"the token {token!r:.80} of tokenizer.json is not written in visible bytes") from error
