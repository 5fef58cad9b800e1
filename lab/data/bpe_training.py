"""Learns tokenizers from texts: the merges of a byte-pair encoding, or the characters; and makes those that ship.

`python -m lab.data.bpe_training` writes the latter again, from tales and from the user's own Python.
"""

import json
import platform
from collections.abc import Iterable
from itertools import count

from lab.data.pieces import piece_splitter
from lab.data.python_corpora import pycode, pydocs
from lab.data.tales import story
from lab.data.tokenizer import Tokenizer, checked_text
from lab.data.tokenizer_kinds import BPE_SIZES, GPT4_PATTERN, MOST_TOKENS, bpe_tokenizer, character_tokenizer
from lab.data.visible_bytes import from_visible
from lab.files.atomic import atomic_write_text
from settings.errors import TokenizerError
from settings.paths import ROOT

TALES_CHARACTERS = 5_000_000
TALES_SEED = 1  # a training uses seed 0 by default, so these stories are not among its documents


def train_bpe(
    texts: Iterable[str], vocab_size: int, pattern: str = GPT4_PATTERN, name: str = "bpe"
) -> Tokenizer:
    """Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909): joins the most frequent pair, again and again.

    Of equally frequent pairs the one with the older left token is joined first, then the one with the older
    right token; bytes are older than merges, and ordered by their visible characters (`VISIBLE`).
    vocab_size includes the 256 bytes and the end of text. Raises TokenizerError if it is below 257, too large to
    store, or so high that pairs would be joined which occur only once; and for texts that are not str.
    """
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    if isinstance(texts, str):
        raise TokenizerError("train_bpe takes a list of texts: put a single text into a list")
    if type(vocab_size) is not int or vocab_size > MOST_TOKENS:  # the trainer allocates memory for all of them at once
        raise TokenizerError(f"vocab_size must be a whole number up to {MOST_TOKENS:,}, not {vocab_size!r}")
    if vocab_size < 257:
        raise TokenizerError(f"vocab_size {vocab_size} is too small: 256 bytes and the end of text need 257")
    split = piece_splitter(pattern)
    to_visible = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.Sequence([split, to_visible])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # without the end of text, which is not a merge
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(map(checked_text, texts), trainer)
    learned = json.loads(model.to_str())["model"]["merges"]
    merges = [(from_visible(left), from_visible(right)) for left, right in learned]
    if len(merges) < vocab_size - 257:
        raise TokenizerError(
            f"the texts are too short for vocab_size {vocab_size}: after {len(merges)} merges no pair occurs "
            f"twice. Give more text, or a vocab_size of {257 + len(merges)} or less"
        )
    return bpe_tokenizer(name, merges, pattern)


def learn_characters(texts: Iterable[str], name: str = "characters") -> Tokenizer:
    """One id for each character that the texts hold, beside the 256 bytes and the end of text.

    Raises TokenizerError for texts that are not str.
    """
    if isinstance(texts, str):
        raise TokenizerError("learn_characters takes a list of texts: put a single text into a list")
    found: set[str] = set()
    for text in texts:
        found.update(checked_text(text))
    return character_tokenizer(name, "".join(sorted(character for character in found if not character.isascii())))


def build_shipped() -> None:
    """Writes tokenizers/bpe and tokenizers/character, from 5 MB of tales, pydocs and pycode."""
    tales, docs = _tales(), list(pydocs())
    python = f"Python {platform.python_version()}, by python -m lab.data.bpe_training"
    about = (
        "Byte-pair encoding: ids 0-255 are the bytes, 256 is the end of text, from 257 on come the merges. "
        "Bytes are written in GPT-2's visible alphabet, where Ġ is a space and Ċ a newline. "
        f"Learned from 5 MB of tales and the pydocs of {python}."
    )
    _write("bpe", about, train_bpe([*tales, *docs], BPE_SIZES[-1], name="bpe"))

    about = (
        "One id per character: ids 0-255 are the bytes, of which 0-127 are ASCII, 256 is the end of text, "
        "from 257 on come the characters listed; others are spelled in bytes. "
        f"Listed is what occurs in 5 MB of tales, and the pydocs and pycode of {python}."
    )
    printable = ("".join(filter(str.isprintable, text)) for texts in (tales, docs, pycode()) for text in texts)
    _write("character", about, learn_characters(printable, "character"))


def _tales() -> list[str]:
    texts, characters = [], 0
    for index in count():
        texts.append(story(index, TALES_SEED).text)
        characters += len(texts[-1])
        if characters >= TALES_CHARACTERS:
            return texts


def _write(folder: str, about: str, tokenizer: Tokenizer) -> None:
    description = {"about": about, **json.loads(tokenizer.to_json())}
    text = json.dumps(description, ensure_ascii=False, indent=1) + "\n"
    atomic_write_text(ROOT / "tokenizers" / folder / "tokenizer.json", text)


if __name__ == "__main__":
    build_shipped()
