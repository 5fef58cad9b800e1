"""Tokens per word and bytes per token, against counting by hand and against Hugging Face's tokenizer."""

import json

import pytest

from lab.data.fertility import fertility
from lab.data.tokenizers import load_tokenizer
from lab.data.visible_bytes import to_visible
from settings.errors import TokenizerError
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

TEXTS = {"plain": ["The cat sat on the mat.", "A dog, too."], "naïve": ["  naïve\n日本  é "]}


def test_bytes_and_characters_are_counted():
    table = fertility(map(load_tokenizer, ["byte", "character"]), TEXTS)
    assert list(table.index) == ["byte", "character"]
    assert table["tokens per word"].loc["byte"].tolist() == [34 / 9, 20 / 3]
    assert table["bytes per token"].loc["byte"].tolist() == [1, 1]
    assert table["tokens per word"].loc["character", "plain"] == 34 / 9


def test_equals_what_the_tokenizers_library_needs():
    ours = load_tokenizer("bpe-1024")
    description = json.loads(ours.to_json())
    merges = [tuple(line.split(" ")) for line in description["merges"]]
    ids = {to_visible(ours.token_bytes(id)): id for id in range(1024) if id != ours.end_of_text}
    theirs = Tokenizer(models.BPE(ids, merges))
    theirs.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(description["pattern"]), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    found = fertility([ours], TEXTS).loc["bpe-1024"]
    for name, texts in TEXTS.items():
        n = sum(len(theirs.encode(text).ids) for text in texts)
        assert found["tokens per word", name] == n / sum(len(text.split()) for text in texts)
        assert found["bytes per token", name] == sum(len(text.encode()) for text in texts) / n


@pytest.mark.parametrize(
    ("texts", "message"), [({}, "no texts"), ({"a": ["b"], "blank": [" \n"]}, "no word in 'blank'")]
)
def test_texts_without_words_are_refused(texts, message):
    with pytest.raises(TokenizerError, match=message):
        fertility([load_tokenizer("byte")], texts)
