"""Tokenizers as a run stores them: read back the same, or refused; damaged files; keys of prepared data."""

import json
import subprocess
import sys

import pytest

from config import DataConfig
from lab.data import tokenizers
from lab.data.bpe_training import train_bpe
from lab.data.cache import list_cache
from lab.data.packing import prepare
from lab.data.tokenizer_kinds import PROBE
from lab.data.tokenizers import (
    GPT4_PATTERN,
    Tokenizer,
    bpe_tokenizer,
    character_tokenizer,
    check_storable,
    load_tokenizer,
    register_tokenizer,
    tokenizer_from_json,
)
from settings.errors import TokenizerError
from settings.paths import ROOT

TEXTS = ["the cat and the hat", "the naïve 世界 and \U0001f98a", PROBE]
MERGES = [(b"t", b"h"), (b"th", b"e")]


@pytest.fixture(autouse=True)
def own_names(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokenizers, "_REGISTRY", dict(tokenizers._REGISTRY))


# --- stored and read back ---------------------------------------------------------------------------------------

KINDS = {
    "byte": lambda: load_tokenizer("byte"),
    "shipped": lambda: load_tokenizer("bpe-512"),
    "bpe": lambda: bpe_tokenizer("mine", MERGES),
    "characters": lambda: character_tokenizer('odd "name"\n', "é世\x85\u2028"),
    "no merges, pattern of its own": lambda: bpe_tokenizer("plain", [], r"\d|\D"),
    "trained": lambda: train_bpe(TEXTS * 5, 270, name="trained"),
    "read": lambda: tokenizer_from_json(bpe_tokenizer("mine", MERGES).to_json()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_be_registered_is_read_back_exactly(kind):
    register_tokenizer("registered", KINDS[kind])
    one = load_tokenizer("registered")
    again = tokenizer_from_json(one.to_json())
    assert (again.name, again.fingerprint, again.vocab_size) == (one.name, one.fingerprint, one.vocab_size)
    assert [again.encode(text) for text in TEXTS] == [one.encode(text) for text in TEXTS]
    assert all(again.token_bytes(id) == one.token_bytes(id) for id in range(one.vocab_size))


class Lowercase(Tokenizer):
    """Code of a user, which no run can store."""

    def encode(self, text):
        return super().encode(text.lower())


def lowercase() -> Tokenizer:
    byte = load_tokenizer("byte")
    return Lowercase(byte._description, byte.encoding)


def patched() -> Tokenizer:
    byte = load_tokenizer("byte")
    byte.encode = lambda text: list(text.lower().encode("utf-8"))
    return byte


UNSTORABLE = {
    "code": (lowercase, "a Lowercase can't be stored in a run, which keeps no code: give a Tokenizer as bpe_tokenizer"),
    "patched": (patched, "'byte' encodes differently from what a run stores of it"),
    "words": (lambda: bpe_tokenizer("words", [], r"\w+"), "'words' loses text: .Once upon a.* match every character"),
    "lines": (lambda: bpe_tokenizer("lines", [], r"."), "'lines' loses text"),
    "nothing": (lambda: bpe_tokenizer("nothing", [], "a*"), "'nothing' can't split .*: its pattern matches nothing"),
}


@pytest.mark.parametrize("kind", UNSTORABLE)
def test_what_no_run_can_store_is_refused_with_the_reason(tmp_path, kind):
    make, reason = UNSTORABLE[kind]
    register_tokenizer("mine", make)
    config = DataConfig(tokenizer="mine", max_documents=40)
    for call in (lambda: load_tokenizer("mine"), lambda: prepare(config), lambda: prepare(DataConfig(), make())):
        with pytest.raises(TokenizerError, match=reason):
            call()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_prepared_data_is_kept_by_what_the_tokenizer_does_and_not_by_its_name():
    config = DataConfig(tokenizer="mine", max_documents=40, validation_fraction=0.3)
    register_tokenizer("mine", lambda: bpe_tokenizer("mine", MERGES))
    one = prepare(config)
    register_tokenizer("mine", lambda: bpe_tokenizer("mine", MERGES[:1]))
    other = prepare(config)
    assert len(list_cache()) == 2 and len(one.train) < len(other.train)
    for side, same in ((one.train, other.train), (one.validation, other.validation)):
        assert side.fingerprint == same.fingerprint
    stored = tokenizer_from_json(one.tokenizer.to_json())
    assert prepare(config, stored).train.tokens.tolist() == one.train.tokens.tolist() and len(list_cache()) == 2


def test_a_name_of_another_process_says_what_to_do():
    with pytest.raises(TokenizerError, match=r"another process registered must be registered in this one too; .*run\."):
        load_tokenizer("mine")
    for name, factory in (("", list), (None, list), (["a"], list), ("mine", 5)):
        with pytest.raises(TokenizerError, match="takes a name and a function that gives a Tokenizer"):
            register_tokenizer(name, factory)
    for wrong in (None, ["byte"], 5):
        with pytest.raises(TokenizerError, match=f"takes a name, such as 'bpe-2048', not {type(wrong).__name__}"):
            load_tokenizer(wrong)


# --- damaged files ----------------------------------------------------------------------------------------------

GOOD = {"kind": "bpe", "name": "x", "pattern": GPT4_PATTERN, "merges": ["a b"]}
DAMAGED = {
    "brackets": ("[" * 10_000, "it is not JSON"),
    "digits": ('{"kind": "byte", "name": ' + "1" * 5000 + "}", "it is not JSON: .*Exceeds"),
    "surrogate name": (json.dumps(GOOD | {"name": "\ud800"}), "half of a surrogate pair"),
    "surrogate pattern": (json.dumps(GOOD | {"pattern": "\ud800"}), "half of a surrogate pair"),
    "surrogate merge": (json.dumps(GOOD | {"merges": ["a \ud800"]}), "half of a surrogate pair"),
    "surrogate characters": ('{"kind": "character", "name": "x", "characters": "\\ud800"}', "half of a surrogate pair"),
    "long name": (json.dumps(GOOD | {"name": "x" * 201}), '"name" has a length of 201; at most 200 are read'),
    "long pattern": (json.dumps(GOOD | {"pattern": "a?" * 6000}), '"pattern" has a length of 12,000; at most 10,000'),
    "huge pattern": (json.dumps(GOOD | {"pattern": "(?:(?:a{1000}){1000}){1000}"}), "not a regular expression"),
    "many merges": (json.dumps(GOOD | {"merges": [0] * 1_048_577}), '"merges" has a length of 1,048,577; at most'),
    "long file": (" " * ((1 << 26) + 1), "must be text of at most 67,108,864 characters"),
    "lists": (json.dumps(GOOD | {"merges": [["a", "b"]]}), "merge 1, \\['a', 'b'\\], must be two tokens"),
    "null": ("null", '"kind" must be one of'), "no text": (None, "must be text"), "bytes": (b"{}", "must be text"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_any_damage_ends_in_an_error_of_ours(kind):
    text, message = DAMAGED[kind]
    with pytest.raises(TokenizerError, match=message):
        tokenizer_from_json(text)


def test_a_pattern_that_explodes_ends_in_an_error_of_ours():
    tokenizer = bpe_tokenizer("slow", [], r"(?:x+x+)+(?=y)|(?s:.)")
    check_storable(tokenizer)
    with pytest.raises(TokenizerError, match=r"'slow' can't split a text of 3,000 characters: .*too many steps"):
        tokenizer.encode("x" * 3000)
    with pytest.raises(TokenizerError, match="'slow' can't split"):
        tokenizer.encode_batch(["fine", "x" * 3000])


def test_wrong_ingredients_are_refused():
    for merges in ([("a", "b")], 5, [(b"a",)], [None]):
        with pytest.raises(TokenizerError, match="each merge must be a pair of bytes"):
            bpe_tokenizer("x", merges)
    for make, values in ((bpe_tokenizer, (5, [])), (bpe_tokenizer, ("x", [], None)), (character_tokenizer, ("x", 5))):
        with pytest.raises(TokenizerError, match="is missing or not a str"):
            make(*values)
    for texts, message in ((["a\ud800"], "half of a surrogate pair"), ([b"a"], "not bytes"), ([1], "not int")):
        with pytest.raises(TokenizerError, match=message):
            train_bpe(texts, 258)


def test_a_vocabulary_beyond_memory_does_not_end_the_process():
    code = (
        "from settings.errors import TokenizerError; from lab.data.bpe_training import train_bpe\n"
        "for size in (10**9, 10**30, 300.0, '300', True):\n"
        "    try: train_bpe(['the cat the cat'], size)\n"
        "    except TokenizerError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("vocab_size must be a whole number up to 1,048,576") == 5
