"""Tokenizers in Hugging Face's files, tokenizer.json and tokenizer_config.json: written from ours, read into ours."""

import json
from collections.abc import Mapping

import tiktoken

from lab.data.huggingface_tokenizer import HuggingFaceEncoding
from lab.data.tokenizer import Tokenizer
from lab.data.tokenizer_folders import (
    CONFIG,
    GENERATION,
    SPECIAL_TOKENS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    read_huggingface,
)
from lab.data.tokenizer_kinds import PROBE
from lab.data.visible_bytes import to_visible
from lab.exchange.foreign_folder import ForeignFolder
from settings.errors import RunError, TokenizerError

ANY_CHARACTER = r"[\s\S]"  # as tiktoken's (?s:.)
TIKTOKENS_ANY = r"(?s:.)"


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, str]:
    """The contents of tokenizer.json and tokenizer_config.json, with which AutoTokenizer gives the same ids.

    `split_special_tokens` makes it read "<|endoftext|>" in a text as plain characters, as ours does. Raises
    TokenizerError where the library `tokenizers` cuts texts otherwise.
    """
    encoding = tokenizer.encoding
    if isinstance(encoding, HuggingFaceEncoding):
        text, end = encoding.text, encoding.end_of_text
    else:
        text, end = convert(encoding), tokenizer.token_bytes(tokenizer.end_of_text).decode("utf-8")
    check_same(tokenizer, text, end)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": end, "eos_token": end,
        "split_special_tokens": True, "clean_up_tokenization_spaces": False, "add_bos_token": False,
    }
    return {TOKENIZER: text, TOKENIZER_CONFIG: json.dumps(config, indent=2) + "\n"}


def convert(encoding: tiktoken.Encoding) -> str:
    """The tokenizer.json of a tiktoken encoding.

    tiktoken joins the two neighbours that make the oldest token, whatever they are; `tokenizers` joins listed pairs,
    the first of the list first. So the list has, for each token from the oldest, every pair of tokens that makes it. A
    piece that is a token as a whole is taken as it is (ignore_merges).
    """
    ranks, special = encoding._mergeable_ranks, encoding._special_tokens
    merges = [
        [to_visible(token[:cut]), to_visible(token[cut:])]
        for token in sorted(ranks, key=ranks.__getitem__)
        for cut in range(1, len(token)) if token[:cut] in ranks and token[cut:] in ranks
    ]
    pattern = encoding._pat_str.replace(TIKTOKENS_ANY, ANY_CHARACTER)
    described = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
            for token, id in special.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
            "vocab": {to_visible(token): id for token, id in ranks.items()} | special, "merges": merges,
        },
    }
    return json.dumps(described, ensure_ascii=False) + "\n"


def check_same(tokenizer: Tokenizer, text: str, end: str) -> None:
    """Raises TokenizerError unless the tokenizer.json cuts a difficult text into the same ids."""
    written = HuggingFaceEncoding(text, end)
    if written.encode_ordinary(PROBE) != tokenizer.encode(PROBE):
        raise TokenizerError(
            f"the tokenizer {tokenizer.name!r} can't be written for Hugging Face: the library `tokenizers` reads its "
            "pattern in another way. A pattern such as GPT4_PATTERN means the same in both"
        )


def read_tokenizer(folder: ForeignFolder, config: Mapping, name: str) -> Tokenizer:
    """The tokenizer of a foreign folder, by that name. Raises RunError where it has none that a run can keep."""
    if not folder.has(TOKENIZER):
        raise RunError(
            f"it has no {TOKENIZER}, in which transformers keeps the whole tokenizer; write it: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    named = {CONFIG: config} | {
        file: folder.json(file, optional=True) for file in (GENERATION, TOKENIZER_CONFIG, SPECIAL_TOKENS)
    }
    try:
        return read_huggingface(name, folder.text(TOKENIZER), named)
    except TokenizerError as error:
        raise RunError(f"its tokenizer can't be used: {error}") from error
