"""Tokenizers: round trips, merges against a naive byte-pair encoding, public encodings, errors, display."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from functools import partial
from html.parser import HTMLParser
from itertools import pairwise
from random import Random

import pytest
import regex
import requests
import tiktoken
import tiktoken.load
import tiktoken.registry
import tiktoken_ext.openai_public

from lab.data.bpe_training import train_bpe
from lab.data.tokenizer import LONGEST_SPACE
from lab.data.tokenizers import (
    BPE_SIZES,
    GPT4_PATTERN,
    Tokenizer,
    bpe_tokenizer,
    character_tokenizer,
    list_tokenizers,
    load_tokenizer,
    register_tokenizer,
    show_tokens,
    tokenizer_from_json,
)
from lab.data.visible_bytes import VISIBLE
from lab.display.palette import NEIGHBOURS
from lab.display.token_display import MOST_SHOWN
from settings.errors import TokenizerError
from settings.paths import ROOT
from tokenizers import Regex, pre_tokenizers

OWN = ["byte", "character", *(f"bpe-{size}" for size in BPE_SIZES)]
TEXTS = [
    "",
    "The cat sat on the mat. The hat that the cat had sat on was flat.",
    "She said: 'that's the other one!'\n\n\tx = [1234567, 0.5]\r\n   \n end  ",
    "a text with <|endoftext|> inside, <|endoftext|>",
    "naïve café — “quotes” … e\u0301 \u0928\u092e\u0938\u094d\u0924\u0947 日本語",
    "\U0001f600 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd",
    "\x00\x01\x1b[0m\x7f\x85\u2028\u202e\ufeff\uffff\U0010ffff",
]


def random_text(random: Random, length: int) -> str:
    """Any characters of Unicode, with a weakness for spaces, letters, digits and line ends."""
    def character() -> str:
        if random.random() < 0.6:
            return random.choice("  \n\r\t\xa0aeitnsTXäſß'’.,!-0123٣\u0301")
        while True:
            code = random.randrange(random.choice([0x100, 0x3000, 0x110000]))
            if not 0xD800 <= code < 0xE000:
                return chr(code)

    return "".join(character() for _ in range(length))


def random_texts(seed: int, n: int) -> list[str]:
    random = Random(seed)
    return [random_text(random, random.randrange(120)) for _ in range(n)]


def assigned(text: str) -> str:
    """Without the characters on whose class two libraries of different age may differ."""
    return "".join(c for c in text if unicodedata.category(c) != "Cn")


# --- round trip and layout --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_any_text_comes_back_and_never_holds_the_end_of_text(name):
    tokenizer = load_tokenizer(name)
    for text in TEXTS + random_texts(seed=1, n=300):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode("utf-8")
        assert tokenizer.end_of_text not in ids
        assert all(0 <= id < tokenizer.vocab_size for id in ids)


@pytest.mark.parametrize("name", OWN)
def test_layout_of_our_own(name):
    tokenizer = load_tokenizer(name)
    assert tokenizer.name == name
    assert [tokenizer.token_bytes(id) for id in range(256)] == [bytes([byte]) for byte in range(256)]
    assert tokenizer.end_of_text == 256
    assert tokenizer.token_bytes(256) == b"<|endoftext|>"
    tokens = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
    assert len(set(tokens)) == tokenizer.vocab_size
    if name.startswith("bpe-"):
        assert tokenizer.vocab_size == int(name.removeprefix("bpe-"))
        largest = load_tokenizer(f"bpe-{BPE_SIZES[-1]}")
        assert tokens == [largest.token_bytes(id) for id in range(tokenizer.vocab_size)]


def test_bytes_and_characters():
    assert load_tokenizer("byte").encode("aé\n") == [97, 195, 169, 10]
    assert load_tokenizer("byte").vocab_size == 257
    characters = load_tokenizer("character")
    text = "“It’s naïve”, he said…\n"
    assert [characters.decode([id]) for id in characters.encode(text)] == list(text)
    assert characters.encode("日") == list("日".encode())
    mine = character_tokenizer("mine", "aя日")
    assert mine.encode("яa日é") == [257, 97, 258, 195, 169]
    assert mine.vocab_size == 259


def test_larger_vocabularies_need_fewer_tokens():
    lengths = [len(load_tokenizer(f"bpe-{size}").encode(TEXTS[1] * 10)) for size in BPE_SIZES]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < lengths[0]


@pytest.mark.parametrize("name", ["byte", "character", "bpe-2048"])
def test_batch_equals_one_by_one(name):
    tokenizer = load_tokenizer(name)
    texts = random_texts(seed=2, n=200)
    assert tokenizer.encode_batch(iter(texts)) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


@pytest.mark.parametrize("space", [" " * 1_500_000, "\n " * 750_000, "\u3000" * LONGEST_SPACE])
def test_endless_space_is_encoded_though_the_regex_engine_gives_up_on_it(space):
    tokenizer = load_tokenizer("bpe-512")
    ids = tokenizer.encode(f"a{space}b")
    assert b"".join(map(tokenizer.token_bytes, ids)) == f"a{space}b".encode()


def test_long_texts_are_cut_nowhere_else():
    tokenizer = load_tokenizer("bpe-512")
    text = ("word " * 50 + " " * 1000) * 300
    merges = json.loads(tokenizer.to_json())["merges"]
    ranks = {tokenizer.token_bytes(id): id for id in range(512) if id != 256}
    plain = tiktoken.Encoding("plain", pat_str=GPT4_PATTERN, mergeable_ranks=ranks, special_tokens={})
    assert len(text) > LONGEST_SPACE and len(merges) == 255
    assert tokenizer.encode(text) == plain.encode_ordinary(text)


# --- byte-pair encoding against an independent one ----------------------------------------------------------


def naive_merges(texts: list[str], n: int) -> list[tuple[bytes, bytes]]:
    """Counts every pair anew before each merge. Ties: lower left rank, then lower right rank, where single
    bytes rank by GPT-2's visible character, and merges after them by age."""
    rank = {bytes([byte]): place for place, byte in enumerate(sorted(range(256), key=VISIBLE.__getitem__))}
    pieces = [piece for text in texts for piece in regex.findall(GPT4_PATTERN, text)]
    words = Counter(map(single_bytes, pieces))
    merges = []
    while len(merges) < n:
        pairs = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        left, right = min(pairs, key=lambda pair: (-pairs[pair], rank[pair[0]], rank[pair[1]]))
        merges.append((left, right))
        rank[left + right] = len(rank)
        words = Counter({apply_merge(word, left, right): times for word, times in words.items()})
    return merges


def single_bytes(piece: str) -> tuple[bytes, ...]:
    return tuple(bytes([byte]) for byte in piece.encode())


def apply_merge(word: tuple[bytes, ...], left: bytes, right: bytes) -> tuple[bytes, ...]:
    merged, i = [], 0
    while i < len(word):
        together = word[i : i + 2] == (left, right)
        merged.append(left + right if together else word[i])
        i += 2 if together else 1
    return tuple(merged)


def naive_encode(text: str, merges: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The definition: within each piece, every merge in the order in which it was learned."""
    tokens = []
    for piece in regex.findall(GPT4_PATTERN, text):
        word = single_bytes(piece)
        for left, right in merges:
            word = apply_merge(word, left, right)
        tokens += word
    return tokens


TRAINING = [
    *TEXTS[1:6],
    "Tim had a red ball. The red ball was big. Tom saw the ball; Tom wanted the ball too!",
    "ééé äöü äö aaaaaaa aaa bbbb",
] * 2


def few_letters(seed: int) -> list[str]:
    """Words of three letters only: many pairs are equally frequent, and many overlap, as in "aaa"."""
    random = Random(seed)
    return ["".join(random.choices("aabc ", k=200)) for _ in range(3)]


@pytest.mark.parametrize("texts", [TRAINING, *map(few_letters, range(8))])
def test_trained_merges_equal_the_naive_ones(texts):
    merges = naive_merges(texts, 30 if texts is not TRAINING else 120)
    trained = train_bpe(texts, 257 + len(merges))
    tokens = [trained.token_bytes(257 + i) for i in range(len(merges))]
    assert tokens == [left + right for left, right in merges]
    written = [" ".join("".join(map(VISIBLE.get, part)) for part in pair) for pair in merges]
    assert json.loads(trained.to_json())["merges"] == written


def test_encoding_equals_the_naive_one():
    merges = naive_merges(TRAINING, 120)
    tokenizer = bpe_tokenizer("small", merges)
    for text in map(assigned, TEXTS + random_texts(seed=3, n=100)):
        assert [tokenizer.token_bytes(id) for id in tokenizer.encode(text)] == naive_encode(text, merges)


def test_the_visible_alphabet_is_the_one_of_gpt2():
    assert set(VISIBLE.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    to_visible = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("é\n", "日 本\t", "\x00\xad"):
        ((shown, _),) = to_visible.pre_tokenize_str(text)
        assert "".join(VISIBLE[byte] for byte in text.encode()) == shown


def test_smaller_training_is_the_beginning_of_a_larger_one():
    small, large = train_bpe(TRAINING, 280), train_bpe(iter(TRAINING), 320)
    assert (small.vocab_size, large.vocab_size) == (280, 320)
    assert [small.token_bytes(id) for id in range(280)] == [large.token_bytes(id) for id in range(280)]
    assert train_bpe(TRAINING, 257).encode("the") == list(b"the")


def test_the_pattern_cuts_as_told():
    pieces = ["It", "'s", " ", "123", "45", " DON", "'T", " ", " stop", ",\n\n", " ", " says"]
    pieces += [" “", "he", "”!!\n", "end", "  "]
    assert regex.findall(GPT4_PATTERN, "It's 12345 DON'T  stop,\n\n  says “he”!!\nend  ") == pieces


def test_the_pattern_means_the_same_in_training_and_to_openai(monkeypatch):
    monkeypatch.setattr(tiktoken_ext.openai_public, "load_tiktoken_bpe", lambda *_, **__: {})
    openai = tiktoken_ext.openai_public.cl100k_base()["pat_str"]
    in_training = pre_tokenizers.Split(Regex(GPT4_PATTERN), behavior="isolated")
    for text in map(assigned, random_texts(seed=4, n=1000)):
        pieces = regex.findall(GPT4_PATTERN, text)
        assert "".join(pieces) == text
        assert [text[a:b] for _, (a, b) in in_training.pre_tokenize_str(text)] == pieces
        closed = text + "."  # OpenAI's newer form cuts space at the very end of a text in another way
        assert regex.findall(openai, closed) == regex.findall(GPT4_PATTERN, closed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a b"], 256), "vocab_size 256 is too small"),
        ((["the the the"], 400), r"too short for vocab_size 400: after \d merges"),
        (("the the", 260), "put a single text into a list"),
        ((["the the"], 258, "(oops"), "not a regular expression"),
        ((["the the"], 258, "(?s:.)"), "that the tokenizers library can read: .*undefined group option"),
    ],
)
def test_training_refuses(arguments, message):
    with pytest.raises(TokenizerError, match=message):
        train_bpe(*arguments)


# --- files and names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_json_holds_the_whole_tokenizer(name, monkeypatch, tmp_path):
    tokenizer = load_tokenizer(name)
    monkeypatch.setattr("lab.data.tokenizers.ROOT", tmp_path)  # the shipped files are not needed any more
    again = tokenizer_from_json(tokenizer.to_json())
    assert (again.name, again.fingerprint) == (tokenizer.name, tokenizer.fingerprint)
    for text in TEXTS:
        assert again.encode(text) == tokenizer.encode(text)


def test_fingerprints_differ():
    assert len({load_tokenizer(name).fingerprint for name in OWN}) == len(OWN)


GOOD = {"kind": "bpe", "name": "x", "pattern": ".+", "merges": ["a b", "ab c"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        (json.dumps(GOOD)[:-9], "not JSON"),
        ("[1]", '"kind" must be one of byte, character, bpe, tiktoken, huggingface'),
        (json.dumps(GOOD | {"kind": "word"}), '"kind" must be one of'),
        (json.dumps(GOOD | {"kind": ["bpe"]}), '"kind" must be one of'),
        (json.dumps({"kind": "bpe", "name": "x", "pattern": "."}), '"merges" is missing'),
        (json.dumps(GOOD | {"name": 5}), '"name" is missing or not a str'),
        (json.dumps(GOOD | {"pattern": "(?<"}), "not a regular expression"),
        (json.dumps(GOOD | {"merges": ["a b", "a b"]}), "merge 2, 'a b', must join two existing tokens"),
        (json.dumps(GOOD | {"merges": ["ab c"]}), "merge 1, 'ab c', must join two existing tokens"),
        (json.dumps(GOOD | {"merges": ["a  b"]}), "merge 1, 'a  b', must be two tokens"),
        (json.dumps(GOOD | {"merges": ["a \n"]}), "must be two tokens in visible bytes"),
        (json.dumps(GOOD | {"merges": [3]}), "merge 1, 3, must be two tokens"),
        (json.dumps({"kind": "character", "name": "x", "characters": "éé"}), "a token is given twice"),
        (json.dumps({"kind": "tiktoken", "name": "r2d2"}), "can't load the tokenizer 'r2d2'"),
    ],
)
def test_damaged_files_are_refused(text, message):
    assert tokenizer_from_json(json.dumps(GOOD)).encode("abc") == [258]
    with pytest.raises(TokenizerError, match=re.escape(message)):
        tokenizer_from_json(text)


def test_a_missing_shipped_file_says_how_to_get_it_back(monkeypatch, tmp_path):
    monkeypatch.setattr("lab.data.tokenizers.ROOT", tmp_path)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json.*python -m lab\.data\.bpe_training"):
        load_tokenizer("bpe-512")


def test_names():
    assert list_tokenizers()[: len(OWN)] == OWN
    assert {"gpt2", "r50k_base", "cl100k_base", "o200k_base"} <= set(list_tokenizers())
    with pytest.raises(TokenizerError, match=r"'bpe-2084'; did you mean 'bpe-2048'\?.* byte,"):
        load_tokenizer("bpe-2084")


def test_register(monkeypatch):
    monkeypatch.setattr("lab.data.tokenizers._REGISTRY", dict.fromkeys(OWN))
    register_tokenizer("pairs", lambda: bpe_tokenizer("pairs", [(b"a", b"b")]))
    assert load_tokenizer("pairs").encode("cab") == [99, 257]
    assert "pairs" in list_tokenizers()
    register_tokenizer("pairs", lambda: bpe_tokenizer("pairs", [(b"c", b"a")]))
    assert load_tokenizer("pairs").encode("cab") == [257, 98]
    for name in ("byte", "bpe-512", "gpt2", "cl100k_base"):
        with pytest.raises(TokenizerError, match="built-in"):
            register_tokenizer(name, lambda: None)
    register_tokenizer("wrong", lambda: 5)
    with pytest.raises(TokenizerError, match="'wrong' must give a Tokenizer, not int"):
        load_tokenizer("wrong")


# --- what can't be encoded or decoded ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["byte", "bpe-2048"])
@pytest.mark.parametrize("text", ["a\ud800b", "\udfff", "x" * 50 + "\udc80"])
def test_half_surrogate_pairs_are_refused(name, text):
    position = next(i for i, character in enumerate(text) if unicodedata.category(character) == "Cs")
    for encode in (load_tokenizer(name).encode, lambda text: load_tokenizer(name).encode_batch(["ok", text])):
        with pytest.raises(TokenizerError, match=rf"U\+{ord(text[position]):04X}.* at position {position}:"):
            encode(text)


def test_only_text_is_encoded():
    tokenizer = load_tokenizer("byte")
    for wrong in (b"abc", None, 5, ["abc"]):
        with pytest.raises(TokenizerError, match=f"not {type(wrong).__name__}"):
            tokenizer.encode(wrong)
    with pytest.raises(TokenizerError, match="use encode"):
        tokenizer.encode_batch("abc")


def test_only_ids_are_decoded():
    tokenizer = load_tokenizer("bpe-512")
    for wrong in (-1, 512, 10**12):
        with pytest.raises(TokenizerError, match=f"id {wrong} is out of range: bpe-512 has ids 0 to 511"):
            tokenizer.decode([97, wrong])
        with pytest.raises(TokenizerError, match="out of range"):
            tokenizer.token_bytes(wrong)
    with pytest.raises(TokenizerError, match="whole number, not float"):
        tokenizer.decode([1.0])


def test_part_of_a_character_decodes_to_the_replacement_character():
    tokenizer = load_tokenizer("byte")
    assert tokenizer.decode(tokenizer.encode("aé")[:-1]) == "a\ufffd"
    assert tokenizer.decode([97, 256, 98]) == "a<|endoftext|>b"


# --- public encodings -------------------------------------------------------------------------------------

URL = "https://example.invalid/encodings/tiny.tiktoken"
RANKS = {bytes([byte]): byte for byte in range(256)} | {b"th": 256, b"the": 257}
TINY = b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in RANKS.items())


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network; `tiny` and `r50k_base` are encodings whose file, with its checksum, has the address URL."""
    def constructor(name):
        ranks = tiktoken.load.load_tiktoken_bpe(URL, expected_hash=hashlib.sha256(TINY).hexdigest())
        special = {"<|endoftext|>": 260}
        return {"name": name, "pat_str": GPT4_PATTERN, "mergeable_ranks": ranks, "special_tokens": special}

    def unreachable(url, **_):
        raise requests.ConnectionError("no network", request=requests.Request("GET", url).prepare())

    tiktoken.list_encoding_names()  # fills the table
    for name in ("tiny", "r50k_base"):
        monkeypatch.setitem(tiktoken.registry.ENCODING_CONSTRUCTORS, name, partial(constructor, name))
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setattr(requests, "get", unreachable)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_a_public_encoding_that_cannot_be_fetched_says_what_to_do(offline):
    with pytest.raises(TokenizerError, match="can't fetch the tokenizer 'tiny'") as caught:
        load_tokenizer("tiny")
    message = str(caught.value)
    assert URL in message and "TIKTOKEN_CACHE_DIR" in message
    assert all(name in message for name in OWN)
    file_name = re.search(r"\b[0-9a-f]{40}\b", message).group()
    (offline / file_name).write_bytes(TINY)  # do as the message says

    tokenizer = load_tokenizer("tiny")
    assert tokenizer.encode("the <|endoftext|>") == [257, *b" <|endoftext|>"]
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (261, 260)
    assert tokenizer.decode([257, 258]) == "the\ufffd"  # 258 and 259 are unused
    assert json.loads(tokenizer.to_json()) == {"kind": "tiktoken", "name": "tiny"}
    assert tokenizer_from_json(tokenizer.to_json()).encode("then") == tokenizer.encode("then")


def test_a_damaged_download_is_refused(offline, monkeypatch):
    class Damaged:
        content = TINY[:-3]

        def raise_for_status(self):
            pass

    monkeypatch.setattr(requests, "get", lambda url: Damaged())
    with pytest.raises(TokenizerError, match=r"can't load the tokenizer 'tiny': Hash mismatch .*tiny\.tik"):
        load_tokenizer("tiny")


def test_gpt2_means_r50k_base(offline):
    (offline / hashlib.sha1(URL.encode()).hexdigest()).write_bytes(TINY)
    assert load_tokenizer("gpt2").name == "r50k_base"


# --- the display ------------------------------------------------------------------------------------------


class Boxes(HTMLParser):
    """The tokens' boxes as (title, text), and all text."""

    def __init__(self, html):
        super().__init__()
        self.boxes, self.text, self.inside = [], "", False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag == "span":
            self.inside = True
            self.boxes.append([dict(attributes)["title"], ""])

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "span"

    def handle_data(self, data):
        self.text += data
        if self.inside:
            self.boxes[-1][1] += data


def test_html_shows_each_token_once_with_its_id():
    merges = [(b"t", b"h"), (b"th", b"e"), (b"<", b"b"), (b"<b", b">")]
    tokenizer = bpe_tokenizer("small", merges, pattern=r"\S+|\s")
    html = show_tokens("the <b>\né\u0301\t\u202e", tokenizer)._repr_html_()
    page = Boxes(html)
    assert page.text.startswith("small · 12 tokens · 16 bytes · 1.33 bytes per tokenthe·<b>⏎\n⟨C3⟩")
    assert page.boxes == [
        ["id 258: b'the'", "the"], ["id 32: b' '", "·"], ["id 260: b'<b>'", "<b>"],
        ["id 10: b'\\n'", "⏎"], ["id 195: b'\\xc3'", "⟨C3⟩"], ["id 169: b'\\xa9'", "⟨A9⟩"],
        ["id 204: b'\\xcc'", "⟨CC⟩"], ["id 129: b'\\x81'", "⟨81⟩"], ["id 9: b'\\t'", "⇥"],
        ["id 226: b'\\xe2'", "⟨E2⟩"], ["id 128: b'\\x80'", "⟨80⟩"], ["id 174: b'\\xae'", "⟨AE⟩"],
    ]
    assert "<b>" not in html


def test_whole_but_invisible_characters_are_marked():
    tokenizer = character_tokenizer("invisible", "\u0301\u202e\xa0")
    boxes = Boxes(show_tokens("\u0301\u202e\xa0\x00\x7f", tokenizer)._repr_html_()).boxes
    assert [text for _, text in boxes] == ["◌\u0301", "⟨U+202E⟩", "⟨U+00A0⟩", "␀", "␡"]


def test_header_counts_and_a_long_text_is_cut_with_a_word_about_it():
    tokenizer = load_tokenizer("byte")
    assert show_tokens("", tokenizer).header == "byte · 0 tokens · 0 bytes"
    assert show_tokens("x", tokenizer).header == "byte · 1 token · 1 byte · 1.00 bytes per token"
    long = show_tokens("x" * (MOST_SHOWN + 1), tokenizer)
    assert long.header.startswith(f"byte · {MOST_SHOWN + 1:,} tokens")
    assert long.header.endswith(f" · the first {MOST_SHOWN:,} tokens shown")
    assert len(Boxes(long._repr_html_()).boxes) == MOST_SHOWN


def test_letters_stand_out_from_each_hue_in_both_themes():
    """WCAG 2's contrast of text with its background, of which 4.5 is asked for."""
    def luminance(rgb):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    style = show_tokens("abcde", load_tokenizer("byte"))._repr_html_()
    alphas = {float(alpha) for alpha in re.findall(r"background:rgba\(\d+,\d+,\d+,([\d.]+)\)", style)}
    assert len(alphas) == 1 and len(set(NEIGHBOURS)) == 5
    alpha = alphas.pop()
    for page, letters in ((255, 33), (17, 224)):
        for colour in NEIGHBOURS:
            box = [alpha * int(colour[i : i + 2], 16) + (1 - alpha) * page for i in (1, 3, 5)]
            light, dark = sorted((luminance(box), luminance([letters] * 3)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) > 4.5


def test_terminal_colours_only_where_wanted(monkeypatch):
    shown = show_tokens("a b\nc", load_tokenizer("byte"))
    plain = "byte · 5 tokens · 5 bytes · 1.00 bytes per token\n│a│·│b│⏎\n│c│"
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert str(shown) == plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert re.sub(r"\x1b\[[\d;]*m", "", str(shown)) == plain.replace("│", "")
    backgrounds = re.findall(r"\x1b\[48;5;(\d+)m", str(shown))
    assert len(backgrounds) == len(set(backgrounds)) == 5
    assert all(line.count("\x1b[48") == line.count("\x1b[0m") for line in str(shown).splitlines())
    monkeypatch.setenv("NO_COLOR", "1")
    assert str(shown) == plain


def test_importing_needs_no_torch():
    program = (
        "import sys, lab.data.bpe_training, lab.data.tokenizers as t\n"
        "t.show_tokens('abc', t.load_tokenizer('bpe-512'))._repr_html_()\n"
        "print({'torch', 'matplotlib', 'datasets', 'requests'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
    assert isinstance(load_tokenizer("byte"), Tokenizer)
