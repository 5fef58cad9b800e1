"""Tokenizers there and back: the same ids for odd texts, whichever library cuts them; and what can't be read."""

import json
import random

import pytest
import tiktoken
from tiktoken_ext import openai_public

import tokenizers
from lab.data.bpe_training import train_bpe
from lab.data.tokenizer_kinds import PROBE
from lab.data.tokenizers import (
    GPT4_PATTERN,
    Tokenizer,
    bpe_tokenizer,
    character_tokenizer,
    check_storable,
    huggingface_tokenizer,
    load_tokenizer,
    tokenizer_from_json,
)
from lab.exchange.foreign_folder import ForeignFolder
from lab.exchange.tokenizer_files import read_tokenizer, tokenizer_files
from settings.errors import RunError, TokenizerError
from tests.helpers.foreign_models import END, TEXTS, byte_level, open_their_tokenizer, save_tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

ODD = [
    "", " ", "\n", "a", PROBE, *TEXTS,
    "She said: 'that's the other one!'\n\n\tx = [1234567, 0.5]\r\n   \n end  ",
    f"a text with {END} inside, {END}", f"{END}{END} <|endoftext", "I'LL they'Ve DON'T we're",
    "1234567890 12 3 ١٢٣ ² ½", "naïve 世界 🦊👩‍👩‍👧 ÜBER ñandú русский العربية हिन्दी",
    "e\u0301 \u00e9 \ufb01 \u2028 \x00 \x85 \ufeff",
    "aaaaaaaaaaaaaaaaa aaaa aaa", "hehehe thethethe  the   the", " " * 300 + "x",
    "    def f(x):\n\t\treturn x ** 2  # ok\n",
]


def random_texts(n: int) -> list[str]:
    """Texts of letters that merges are made of, of blanks, and of any character."""
    draw = random.Random(0)
    pools = ["the and in ed", "ab \n\t", "0123456789 .,", [chr(code) for code in range(0x20, 0x2500)], "世🦊é "]
    return ["".join(draw.choices(draw.choice(pools), k=draw.randrange(1, 60))) for _ in range(n)]


def gpt2_like() -> Tokenizer:
    """A public encoding without a network: GPT-2's pattern and special token, with merges of ours."""
    pattern = openai_public.__dict__.get("r50k_pat_str") or (
        r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    )
    ranks = {token: rank for rank, token in enumerate(
        token for token in map(load_tokenizer("bpe-1024").token_bytes, range(1024)) if token != END.encode()
    )}
    encoding = tiktoken.Encoding("r50k_base", pat_str=pattern, mergeable_ranks=ranks, special_tokens={END: len(ranks)})
    return Tokenizer({"kind": "tiktoken", "name": "r50k_base"}, encoding)


OURS = {
    "byte": lambda: load_tokenizer("byte"),
    "character": lambda: load_tokenizer("character"),
    "bpe-512": lambda: load_tokenizer("bpe-512"),
    "bpe-8192": lambda: load_tokenizer("bpe-8192"),
    "trained": lambda: train_bpe([*TEXTS * 5, "aaaaaaaaaaaa aaaa aaa"] * 4, 300),
    "own characters": lambda: character_tokenizer("mine", "é世🦊"),
    "several ways to a token": lambda: bpe_tokenizer("mine", [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"a"),
                                                              (b"aa", b"a"), (b"abc", b"d"), (b"c", b"d")]),
    "pattern of its own": lambda: bpe_tokenizer("mine", [(b"t", b"h"), (b"th", b"e")], r"\d|\D"),
    "gpt2-like": gpt2_like,
}


@pytest.mark.parametrize("name", OURS)
def test_their_library_gives_our_ids(tmp_path, name):
    mine = OURS[name]()
    for file, text in tokenizer_files(mine).items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    theirs = open_their_tokenizer(tmp_path)
    for text in [*ODD, *random_texts(200), *TEXTS]:
        ids = mine.encode(text)
        assert theirs(text)["input_ids"] == ids, text
        assert theirs.decode(ids) == text
    assert theirs.eos_token_id == mine.end_of_text and theirs.convert_tokens_to_ids(END) == mine.end_of_text
    assert theirs.decode([mine.end_of_text], skip_special_tokens=True) == ""
    assert theirs(END, split_special_tokens=False)["input_ids"] == [mine.end_of_text]
    back = read_tokenizer(ForeignFolder(tmp_path), {}, "back")
    assert (back.end_of_text, back.vocab_size) == (mine.end_of_text, mine.vocab_size)
    assert all(back.token_bytes(id) == mine.token_bytes(id) for id in range(mine.vocab_size))
    assert [back.encode(text) for text in ODD] == [mine.encode(text) for text in ODD]


def llama3_like() -> tokenizers.Tokenizer:
    """GPT-4's pattern before the bytes, a token in front of each text, and tokens that are added later."""
    made = byte_level()
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(GPT4_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    made.add_special_tokens(["<|begin|>"])
    made.add_tokens(["wordy"])
    made.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", made.token_to_id("<|begin|>"))]
    )
    return made


def neox_like() -> tokenizers.Tokenizer:
    made = byte_level()
    made.normalizer = normalizers.NFC()
    return made


def padded() -> tokenizers.Tokenizer:
    made = byte_level()
    made.enable_padding(length=50, pad_id=0, pad_token=END)
    made.enable_truncation(4)
    return made


THEIRS = {"gpt2": byte_level, "llama 3": llama3_like, "gpt-neox": neox_like, "padded and cut": padded}


@pytest.mark.parametrize("name", THEIRS)
def test_a_run_keeps_their_tokenizers_and_gives_the_same_ids(tmp_path, name):
    theirs = open_their_tokenizer(save_tokenizer(THEIRS[name](), tmp_path))
    mine = read_tokenizer(ForeignFolder(tmp_path), {}, "mine")
    check_storable(mine)
    again = tokenizer_from_json(mine.to_json())
    assert (again.fingerprint, again.name, again.end_of_text) == (mine.fingerprint, "mine", 0)
    for text in [*ODD, *random_texts(100), "a wordy text"]:
        expected = theirs(text, add_special_tokens=False, split_special_tokens=True, padding=False, truncation=False)
        assert mine.encode(text) == again.encode(text) == expected["input_ids"], text
        if name != "gpt-neox":  # NFC joins an accent with its letter
            assert mine.decode(mine.encode(text)) == text
    assert mine.encode_batch(ODD) == [mine.encode(text) for text in ODD]
    assert mine.token_bytes(mine.end_of_text) == END.encode()


@pytest.mark.parametrize("asked, settings, expected", [
    ({"eos_token_id": 0}, {}, END), ({"eos_token_id": [5, 0]}, {}, END), ({"eos_token_id": 5}, {}, "%"), ({}, {}, END),
    ({"eos_token_id": [5, 6]}, {}, "%"), ({"eos_token_id": None}, {}, END),
    ({"eos_token_id": 0}, {"eos_token": None}, END),
])
def test_the_end_of_text_is_what_the_folder_says(tmp_path, asked, settings, expected):
    save_tokenizer(byte_level(), tmp_path, **settings)
    (tmp_path / "generation_config.json").write_text(json.dumps(asked))
    found = read_tokenizer(ForeignFolder(tmp_path), {}, "mine")
    assert found.token_bytes(found.end_of_text) == expected.encode()
    (tmp_path / "generation_config.json").unlink()
    assert read_tokenizer(ForeignFolder(tmp_path), asked, "mine").end_of_text == found.end_of_text


def described(change) -> str:
    value = json.loads(byte_level().to_str())
    change(value)
    return json.dumps(value)


def word_piece() -> str:
    made = tokenizers.Tokenizer(models.WordPiece({"a": 0, END: 1, "[UNK]": 2}, unk_token="[UNK]"))
    made.decoder = decoders.WordPiece()
    return made.to_str()


def sentence_piece() -> str:
    made = tokenizers.Tokenizer(models.BPE({"▁": 0, "a": 1, END: 2}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return made.to_str()


REFUSED = {
    "word pieces": (word_piece, "is a WordPiece with the decoder WordPiece; only a byte-level BPE"),
    "sentence pieces": (sentence_piece, "is a BPE with the decoder Metaspace; only a byte-level BPE"),
    "lower case": (lambda: described(lambda t: t.update(normalizer={"type": "Lowercase"})), "changes the text before"),
    "dropout": (lambda: described(lambda t: t["model"].update(dropout=0.1)), "cuts texts at random"),
    "no end": (lambda: described(lambda t: (t["added_tokens"].clear(), t["model"]["vocab"].pop(END))), "has no token"),
    "huge id": (lambda: described(lambda t: t["model"]["vocab"].update({"ab": 10**9})), "has the id 1,000,000,000"),
    "not visible": (lambda: described(lambda t: t["model"]["vocab"].update({"世": 300})), "not written in visible"),
    "not JSON": (lambda: "{" * 1000, "is damaged: not valid JSON"),
    "no tokenizer": (lambda: '{"a": 1}', "can't be read by the library"),
    "bad pattern": (
        lambda: described(lambda t: t.update(pre_tokenizer={
            "type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False})),
        "can't be read by the library",
    ),
    "half a surrogate": (lambda: described(lambda t: t.update(version="\ud800")), "half of a surrogate pair"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_stands_for_no_bytes_or_is_damaged_is_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(TokenizerError, match=message):
        huggingface_tokenizer("mine", make(), END)


def test_a_tokenizer_that_loses_text_is_refused(tmp_path):
    made = byte_level()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    save_tokenizer(made, tmp_path)
    with pytest.raises(RunError, match="its tokenizer can't be used: the tokenizer 'mine' loses text"):
        read_tokenizer(ForeignFolder(tmp_path), {}, "mine")


def test_damaged_descriptions_of_a_run_are_refused():
    good = json.loads(huggingface_tokenizer("mine", byte_level().to_str(), END).to_json())
    assert tokenizer_from_json(json.dumps(good)).end_of_text == 0
    for change, message in (
        ({"json": None}, '"json" is missing or not a str'), ({"json": "[]"}, "tokenizer.json"),
        ({"end_of_text": 0}, '"end_of_text" is missing or not a str'),
        ({"end_of_text": "x" * 201}, "a length of 201"),
    ):
        with pytest.raises(TokenizerError, match=message):
            tokenizer_from_json(json.dumps(good | change))


def test_a_pattern_that_the_libraries_read_differently_is_not_written():
    """In the other library, $ is the end of every line."""
    with pytest.raises(TokenizerError, match=r"'mine' can't be written for Hugging Face: .* such as GPT4_PATTERN"):
        tokenizer_files(bpe_tokenizer("mine", [(b"m", b"e")], r"\S+$|\S|\s"))
    with pytest.raises(TokenizerError, match="can't be read by the library `tokenizers`"):
        tokenizer_files(bpe_tokenizer("mine", [(b"m", b"e")], r"(?s).|(?P<name>me)"))
