"""Byte-pair encoding to be read (Sennrich et al. 2016, arXiv 1508.07909). The real one is `train_bpe`.

Both learn the same merges. This one counts all pairs anew before each merge, so it is far slower.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from lab.data.pieces import piece_splitter
from lab.data.tokenizer import Tokenizer, checked_text
from lab.data.tokenizer_kinds import GPT4_PATTERN, bpe_tokenizer
from lab.data.visible_bytes import VISIBLE
from lab.display.token_box import readable
from settings.errors import TokenizerError

Word = tuple[bytes, ...]  # a piece of text as its tokens
Pair = tuple[bytes, bytes]


@dataclass(frozen=True, repr=False)
class MergeStep:
    """One merge, and what it leaves.

    merges: all pairs so far; the last one is this step's. count: how often it occurred. words: the pieces of the text
    after the merge, each with the number of times that it occurs. pattern: what cut the text into pieces.
    """

    merges: tuple[Pair, ...]
    count: int
    words: Counter[Word]
    pattern: str = GPT4_PATTERN

    @property
    def number(self) -> int:
        """Counted from 1."""
        return len(self.merges)

    @property
    def pair(self) -> Pair:
        return self.merges[-1]

    @property
    def token(self) -> bytes:
        """The new token."""
        return b"".join(self.pair)

    @property
    def n_tokens(self) -> int:
        """Of the whole text, after the merge."""
        return sum(len(word) * times for word, times in self.words.items())

    @property
    def n_bytes(self) -> int:
        """Of the whole text. No merge changes it."""
        return sum(len(b"".join(word)) * times for word, times in self.words.items())

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the merges so far: `show_tokens(text, step.tokenizer)` shows how they cut a text."""
        return bpe_tokenizer(f"{self.number} merge{'s' * (self.number != 1)}", self.merges, self.pattern)

    def __repr__(self) -> str:
        left, right = (readable(part).replace("\n", "") for part in self.pair)
        return f"merge {self.number}: {left} + {right}, {self.count:,} times; {self.n_tokens:,} tokens are left"


def learn_merges(texts: Iterable[str], pattern: str = GPT4_PATTERN) -> Iterator[MergeStep]:
    """Joins the most frequent pair of tokens to a new token, again and again, until no pair occurs twice.

    Raises TokenizerError for anything but a list of texts, and for a pattern that is not a regular expression.
    """
    words, merges, age = Counter(split_text(texts, pattern)), (), order_of_bytes()
    while pairs := count_pairs(words):
        pair = most_frequent(pairs, age)
        if pairs[pair] < 2:
            return
        words = Counter({merge_pair(word, pair): times for word, times in words.items()})
        merges += (pair,)
        age[b"".join(pair)] = len(age)
        yield MergeStep(merges, pairs[pair], words, pattern)


def split_text(texts: Iterable[str], pattern: str = GPT4_PATTERN) -> Iterator[Word]:
    """The pieces into which the pattern cuts the texts, as single bytes. No merge crosses the border of a piece.

    Raises as `learn_merges` does.
    """
    if isinstance(texts, str):
        raise TokenizerError("give a list of texts: put a single text into a list")
    splitter = piece_splitter(pattern)
    for text in texts:
        for piece, _ in splitter.pre_tokenize_str(checked_text(text)):
            yield tuple(bytes([byte]) for byte in piece.encode())


def count_pairs(words: Counter[Word]) -> Counter[Pair]:
    """How often each two tokens stand side by side within a piece."""
    pairs: Counter[Pair] = Counter()
    for word, times in words.items():
        for pair in pairwise(word):
            pairs[pair] += times
    return pairs


def most_frequent(pairs: Counter[Pair], age: dict[bytes, int]) -> Pair:
    """The pair that occurs most often. Of several, the one with the oldest left token, then the oldest right one."""
    return min(pairs, key=lambda pair: (-pairs[pair], age[pair[0]], age[pair[1]]))


def order_of_bytes() -> dict[bytes, int]:
    """The single bytes in the order of their visible characters. They are the oldest tokens; each merge adds one."""
    return {bytes([byte]): place for place, byte in enumerate(sorted(VISIBLE, key=VISIBLE.get))}


def merge_pair(word: Word, pair: Pair) -> Word:
    """The piece with the pair joined wherever it stands, from left to right: "aaa" becomes "aa a"."""
    if pair[0] not in word:
        return word
    tokens, place = [], 0
    while place < len(word):
        found = word[place : place + 2] == pair
        tokens.append(b"".join(pair) if found else word[place])
        place += 2 if found else 1
    return tuple(tokens)


def apply_merges(text: str, merges: Iterable[Pair], pattern: str = GPT4_PATTERN) -> list[bytes]:
    """The tokens of `text`: within each piece, every merge in the order in which it was learned.

    A tokenizer finds the same tokens through tiktoken, faster. Raises as `learn_merges` does.
    """
    merges, tokens = list(merges), []
    for word in split_text([text], pattern):
        for pair in merges:
            word = merge_pair(word, pair)
        tokens += word
    return tokens
