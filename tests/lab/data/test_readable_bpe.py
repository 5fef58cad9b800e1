"""The readable byte-pair encoding learns what the real one learns, and what the tokenizers library learns by itself."""

import json
from itertools import islice, pairwise, takewhile
from random import Random

import pytest

from lab.data.bpe_training import train_bpe
from lab.data.python_corpora import pydocs
from lab.data.readable_bpe import MergeStep, apply_merges, count_pairs, learn_merges, merge_pair, split_text
from lab.data.tales import stories
from lab.data.tokenizers import GPT4_PATTERN
from lab.data.visible_bytes import from_visible
from lab.display.token_display import show_tokens
from settings.errors import TokenizerError
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

CAT = "The cat sat on the mat. The hat that the cat had sat on was flat."
Pairs = list[tuple[bytes, bytes]]


def merges_of_library(texts: list[str], n: int) -> Pairs:
    """At most n merges, by the tokenizers library called directly."""
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(GPT4_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + n, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator(texts, trainer)
    return in_bytes(json.loads(model.to_str())["model"]["merges"])


def merges_of_train_bpe(texts: list[str], n: int) -> Pairs:
    written = json.loads(train_bpe(texts, 257 + n).to_json())["merges"]
    return in_bytes(line.split(" ") for line in written)


def in_bytes(merges) -> Pairs:
    return [tuple(map(from_visible, pair)) for pair in merges]


def real_text(source: str, characters: int) -> list[str]:
    """The first texts of a source, so many characters and a little more."""
    texts, sizes = (story.text for story in stories(10**6, seed=5)) if source == "tales" else pydocs(), [0]

    def is_needed(text: str) -> bool:
        sizes.append(sizes[-1] + len(text))
        return sizes[-2] < characters

    return list(takewhile(is_needed, texts))


def last(steps) -> MergeStep:
    *_, step = steps
    return step


@pytest.mark.parametrize("source", ["tales", "pydocs"])
def test_same_merges_as_the_real_one_and_the_library_on_real_text(source):
    texts = real_text(source, 150_000)
    merges = list(last(islice(learn_merges(texts), 250)).merges)
    assert len(merges) == 250
    assert merges == merges_of_train_bpe(texts, 250) == merges_of_library(texts, 250)


@pytest.mark.parametrize("seed", range(25))
def test_same_merges_until_no_pair_occurs_twice_where_many_are_equally_frequent(seed):
    random = Random(seed)
    some_of_many = "".join(map(chr, range(300)))
    letters = random.choice(["aab ", "abc ", "aaaaab", "abcdefgh  \n", "éü日a ", "0123 a", some_of_many])
    texts = ["".join(random.choices(letters, k=random.randrange(20, 150))) for _ in range(random.randrange(1, 5))]
    merges = list(last(learn_merges([*texts, "aa aa"])).merges)
    assert merges == merges_of_library([*texts, "aa aa"], 10_000) == merges_of_train_bpe([*texts, "aa aa"], len(merges))


def test_each_step_joins_the_most_frequent_pair_and_leaves_so_many_tokens_fewer():
    steps = list(learn_merges([CAT]))
    assert (steps[0].pair, steps[0].count, steps[0].n_tokens) == ((b"a", b"t"), CAT.count("at"), len(CAT) - 8)
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert all(step.n_bytes == len(CAT) for step in steps)
    for before, after in pairwise(steps):
        pairs = count_pairs(before.words)
        assert after.count == pairs[after.pair] == max(pairs.values())
        assert before.n_tokens - after.n_tokens == after.count  # no pair of two equal tokens here
        assert after.merges == (*before.merges, after.pair)
    assert max(count_pairs(steps[-1].words).values()) == 1, "it ends where no pair occurs twice"
    assert repr(steps[1]) == "merge 2: h + e, 4 times; 53 tokens are left"


def test_a_step_shows_the_text_as_its_merges_cut_it():
    steps = list(learn_merges([CAT]))
    for step in steps:
        shown = show_tokens(CAT, step.tokenizer)
        assert list(shown.tokens) == apply_merges(CAT, step.merges)
        assert len(shown.ids) == step.n_tokens
    assert show_tokens(CAT, steps[0].tokenizer).header.startswith("1 merge · 57 tokens")


def test_another_pattern_cuts_other_pieces():
    step = last(islice(learn_merges([CAT], pattern=r"[^.]+|\."), 8))
    assert any(b" " in token[1:] for token in map(b"".join, step.merges)), "a token crosses the border of words"
    tokens = [step.tokenizer.token_bytes(id) for id in step.tokenizer.encode(CAT)]
    assert tokens == apply_merges(CAT, step.merges, step.pattern) and len(tokens) == step.n_tokens


def test_applying_merges_is_what_a_tokenizer_does():
    texts = real_text("pydocs", 30_000)
    step = last(islice(learn_merges(texts), 100))
    for text in ["", "naïve\n\n  日本 🦊 1234567", *real_text("tales", 5_000), texts[0][:3000]]:
        tokens = apply_merges(text, step.merges)
        assert tokens == [step.tokenizer.token_bytes(id) for id in step.tokenizer.encode(text)]


def test_overlapping_pairs_are_joined_from_left_to_right():
    word = (b"a",) * 5
    assert merge_pair(word, (b"a", b"a")) == (b"aa", b"aa", b"a")
    assert merge_pair((b"b", b"a"), (b"a", b"a")) == (b"b", b"a")
    assert list(split_text(["aé b"])) == [(b"a", b"\xc3", b"\xa9"), (b" ", b"b")]


def test_texts_without_a_pair_give_no_merge():
    assert list(learn_merges([])) == list(learn_merges(["", "a b c"])) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("the the",), "put a single text into a list"),
        ((["a"], "(oops"), "not a regular expression"),
        ((["a"], "(?s:.)"), "that the tokenizers library can read: .*undefined group option"),
        (([5],), "not int"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(TokenizerError, match=message):
        next(learn_merges(*arguments))
