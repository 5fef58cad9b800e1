"""Tokenizers stored under tokenizers/ are known to every process; others are read from files, Hugging Face's too."""

import json
import os
import re
import subprocess
import sys

import pytest

import tokenizers as huggingface
from config import DataConfig
from lab.data import tokenizers
from lab.data.bpe_training import learn_characters, train_bpe
from lab.data.packing import prepare
from lab.data.tokenizers import (
    bpe_tokenizer,
    character_tokenizer,
    huggingface_tokenizer,
    list_tokenizers,
    load_tokenizer,
    register_tokenizer,
    save_tokenizer,
)
from settings.errors import TokenizerError
from settings.paths import ROOT
from tests.helpers.foreign_models import END, TEXTS, byte_level
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

MINE = bpe_tokenizer("mine", [(b"t", b"h"), (b"th", b"e")])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokenizers, "_REGISTRY", dict(tokenizers._REGISTRY))
    monkeypatch.setattr(tokenizers, "ROOT", tmp_path)
    return tmp_path / "tokenizers"


# --- the store ----------------------------------------------------------------------------------------------------


def test_a_stored_tokenizer_is_found_by_its_name(folder):
    path = save_tokenizer(MINE)
    assert path == folder / "mine" / "tokenizer.json" and path.read_text(encoding="utf-8") == MINE.to_json()
    assert load_tokenizer("mine").fingerprint == MINE.fingerprint and "mine" in list_tokenizers()
    assert save_tokenizer(MINE) == path, "the same once more changes nothing"
    assert save_tokenizer(MINE, "copy") and load_tokenizer("copy").name == "copy"
    assert load_tokenizer("copy").encode("the then") == MINE.encode("the then")
    assert len(prepare(DataConfig(tokenizer="mine", max_documents=40, validation_fraction=0.3)).train) > 0
    assert not list(folder.rglob("*.part"))


def test_the_next_process_knows_it(tmp_path):
    """In a copy of what a process needs, so that nothing is stored in the repository."""
    save_tokenizer(train_bpe(TEXTS * 5, 270, name="learned"))
    code = (
        "import pathlib, sys; from lab.data import tokenizers; tokenizers.ROOT = pathlib.Path(sys.argv[1])\n"
        "print(tokenizers.load_tokenizer('learned'), 'learned' in tokenizers.list_tokenizers())"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "Tokenizer('learned', 270 ids, end of text 256) True\n"


@pytest.mark.parametrize("name", [
    "", "a/b", "a\\b", "..", ".hidden", "con", "nul.json", "a b", "x" * 81, "ä", "a\0", 5, "end.",
])
def test_a_name_that_some_file_system_refuses(folder, name):
    with pytest.raises(TokenizerError, match="can't be the name of a stored tokenizer; use up to 80 letters"):
        save_tokenizer(MINE, name) if name != 5 else tokenizers.check_free(name)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["byte", "bpe-2048", "bpe", "BPE", "Character", "gpt2", "cl100k_base"])
def test_the_name_of_a_built_in_one_is_refused(folder, name):
    with pytest.raises(TokenizerError, match=f"'{name}' is the name of a built-in tokenizer"):
        save_tokenizer(MINE, name)
    assert not folder.exists()


def test_what_is_stored_is_never_overwritten(folder):
    path = save_tokenizer(MINE)
    before = path.read_bytes()
    with pytest.raises(TokenizerError, match="holds another tokenizer; choose another name, or delete it"):
        save_tokenizer(character_tokenizer("mine", "é"))
    assert path.read_bytes() == before
    with pytest.raises(TokenizerError, match=r"'mine' is stored in .*known without being registered"):
        register_tokenizer("mine", lambda: MINE)
    register_tokenizer("other", lambda: MINE.renamed("other"))
    save_tokenizer(load_tokenizer("other"))
    assert list_tokenizers().count("other") == 1


def test_what_no_run_can_store_is_not_stored_here_either(folder):
    with pytest.raises(TokenizerError, match="loses text"):
        save_tokenizer(bpe_tokenizer("words", [], r"\w+"))
    assert not folder.exists()


DAMAGED = {"empty": "", "half": MINE.to_json()[:-20], "a list": "[]", "a folder": None}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_one_breaks_nothing_else(folder, kind):
    save_tokenizer(MINE)
    (folder / "bad").mkdir()
    if DAMAGED[kind] is None:
        (folder / "bad" / "tokenizer.json").mkdir()
    else:
        (folder / "bad" / "tokenizer.json").write_text(DAMAGED[kind])
    assert "mine" in list_tokenizers() and load_tokenizer("mine").vocab_size == 259
    with pytest.raises(TokenizerError, match=r"can't load the tokenizer in .*bad.tokenizer\.json: "):
        load_tokenizer("bad")


def test_an_unknown_name_is_told_with_what_is_near(folder):
    save_tokenizer(MINE)
    with pytest.raises(TokenizerError, match="unknown tokenizer 'mime'; did you mean 'mine'"):
        load_tokenizer("mime")
    for odd in ("a/b", "", "nul\0", "\ud800", "x" * 5000, "no/tokenizer.json"):
        with pytest.raises(TokenizerError, match="unknown tokenizer"):
            load_tokenizer(odd)


def test_learned_characters_are_those_of_the_texts():
    learned = learn_characters(iter(["naïve\u00a0世界", "é 界"]), "mine")
    assert learned.encode("ï\u00a0界é世") == [259, 257, 261, 258, 260], "in the order of Unicode, behind the 257"
    assert learned.encode("ü") == list("ü".encode()) and learn_characters([]).vocab_size == 257
    for wrong, told in (("a text", "put a single text into a list"), ([b"a"], "not bytes"), (["\ud800"], "surrogate")):
        with pytest.raises(TokenizerError, match=told):
            learn_characters(wrong)


# --- files --------------------------------------------------------------------------------------------------------


def write(folder, made: huggingface.Tokenizer, **files) -> None:
    folder.mkdir(parents=True)
    made.save(str(folder / "tokenizer.json"))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


def two_ends() -> huggingface.Tokenizer:
    made = byte_level()
    made.add_special_tokens(["</s>", "<|pad|>"])
    return made


@pytest.mark.parametrize("files, end", [
    ({"tokenizer_config": {"eos_token": "<|pad|>"}}, "<|pad|>"),
    ({"tokenizer_config": {"eos_token": {"content": "</s>"}}, "special_tokens_map": {"eos_token": END}}, "</s>"),
    ({"special_tokens_map": {"eos_token": {"content": "</s>"}}}, "</s>"),
    ({"generation_config": {"eos_token_id": 300}}, "</s>"),
    ({"config": {"eos_token_id": [301, 300]}}, "<|pad|>"),
])
def test_the_files_beside_a_tokenizer_tell_its_end_of_text(tmp_path, files, end):
    theirs = two_ends()
    write(tmp_path / "smol", theirs, **files)
    tokenizer = load_tokenizer(str(tmp_path / "smol"))
    assert (tokenizer.name, tokenizer.token_bytes(tokenizer.end_of_text)) == ("smol", end.encode())
    assert load_tokenizer(str(tmp_path / "smol" / "tokenizer.json")).fingerprint == tokenizer.fingerprint
    for text in (*TEXTS, "odd: <|pad|> \x00 ÿ"):
        assert tokenizer.encode(text, special=True) == theirs.encode(text, add_special_tokens=False).ids


def test_a_folder_of_the_working_folder_needs_no_more_than_its_name(tmp_path, monkeypatch):
    write(tmp_path / "smol", byte_level())
    monkeypatch.chdir(tmp_path)
    assert load_tokenizer("smol").name == load_tokenizer("smol/tokenizer.json").name == "smol"
    assert load_tokenizer("smol").token_bytes(load_tokenizer("smol").end_of_text) == END.encode()  # a usual name
    data = prepare(DataConfig(tokenizer="smol/tokenizer.json", max_documents=40, validation_fraction=0.3))
    assert (data.tokenizer.name, data.tokenizer.vocab_size) == ("smol", 300)


def test_theirs_can_be_stored_under_a_name(tmp_path):
    write(tmp_path / "smol", byte_level())
    save_tokenizer(load_tokenizer(str(tmp_path / "smol")), "smol-2")
    assert load_tokenizer("smol-2").encode(TEXTS[1]) == byte_level().encode(TEXTS[1]).ids


def test_a_runs_file_is_a_tokenizer_too(tmp_path):
    (tmp_path / "tokenizer.json").write_text(MINE.to_json())
    assert load_tokenizer(str(tmp_path)).fingerprint == MINE.fingerprint


def test_an_unclear_end_of_text_lists_the_candidates_and_how_to_choose(tmp_path):
    write(tmp_path / "smol", two_ends())
    with pytest.raises(TokenizerError, match=re.escape(f"Candidates: '{END}', '</s>'. Choose one by huggingface_tok")):
        load_tokenizer(str(tmp_path / "smol"))
    text = (tmp_path / "smol" / "tokenizer.json").read_text()
    assert huggingface_tokenizer("smol", text, "</s>").end_of_text == 300

    none = byte_level().to_str().replace(END, "<|fin|>")
    (tmp_path / "smol" / "tokenizer.json").write_text(none)
    with pytest.raises(TokenizerError, match=r"Candidates: '<\|fin\|>'\. .* tokenizer_config\.json beside tokenizer"):
        load_tokenizer(str(tmp_path / "smol"))
    (tmp_path / "smol" / "tokenizer_config.json").write_text('{"eos_token": "<|fin|>"}')  # do as the message says
    assert load_tokenizer(str(tmp_path / "smol")).end_of_text == 0


@pytest.mark.parametrize("file, content, told", [
    ("tokenizer_config.json", "{", "tokenizer_config.json is damaged"),
    ("tokenizer_config.json", "[]", "must hold a JSON object"),
    ("tokenizer_config.json", '{"eos_token": "<end>"}', "'<end>', which is no token"),
    ("config.json", '{"eos_token_id": "a"}', "must be a token id"),
    ("tokenizer.json", '{"a": 1}', "can't be read by the library `tokenizers`"),
])
def test_damaged_files_of_theirs_are_told(tmp_path, file, content, told):
    write(tmp_path / "smol", byte_level())
    (tmp_path / "smol" / file).write_text(content)
    with pytest.raises(TokenizerError, match=told):
        load_tokenizer(str(tmp_path / "smol"))


def test_a_tokenizer_that_does_not_cover_all_characters_is_refused_and_one_is_named(tmp_path):
    made = huggingface.Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator(["all the letters"], trainers.BpeTrainer(special_tokens=[END], show_progress=False))
    write(tmp_path / "few", made)
    with pytest.raises(TokenizerError, match=r"loses text: .* does not cover 'O' \(U\+004F\).*256 bytes must be a tok"):
        load_tokenizer(str(tmp_path / "few"))

    described = json.loads(byte_level().to_str())
    del described["model"]["vocab"]["Ø"], described["model"]["vocab"]["à"]  # the bytes D8 and E0, which PROBE has not
    (tmp_path / "few" / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(TokenizerError, match=r"'few' loses text: it does not cover .* \(U\+0600\)"):
        load_tokenizer(str(tmp_path / "few"))


# --- special tokens -----------------------------------------------------------------------------------------------


def test_theirs_read_and_leave_out_special_tokens_as_their_library_does(tmp_path):
    theirs = two_ends()
    theirs.add_tokens([AddedToken("wordy", normalized=False)])
    write(tmp_path / "smol", theirs, tokenizer_config={"eos_token": END})
    mine = load_tokenizer(str(tmp_path / "smol"))
    for text in (f"one{END}two</s>", "<|pad|><|pad|> a wordy text", f"{END} \n\n", "plain", ""):
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert mine.encode(text, special=True) == expected
        assert mine.encode_batch([text, "b"], special=True) == [expected, mine.encode("b")]
        for kept in (True, False):
            assert mine.decode(expected, special=kept) == theirs.decode(expected, skip_special_tokens=not kept)
        assert mine.end_of_text not in mine.encode(text) and mine.decode(mine.encode(text)) == text


def test_ours_read_and_leave_out_the_end_of_text():
    text = f"one{END}two{END}"
    for tokenizer in (load_tokenizer("byte"), MINE, character_tokenizer("x", "é")):
        ids = tokenizer.encode(text, special=True)
        assert ids == [*b"one", 256, *b"two", 256]
        assert tokenizer.decode(ids) == text and tokenizer.decode(ids, special=False) == "onetwo"
        assert tokenizer.encode(text) == list(text.encode())
        assert tokenizer.decode(tokenizer.encode(text), special=False) == text, "what looks like one stays text"


CL100K = {
    "<|endoftext|>": 300, "<|fim_prefix|>": 301, "<|fim_middle|>": 302, "<|fim_suffix|>": 303, "<|endofprompt|>": 304,
}
PLUGIN = f'''
from tiktoken.load import load_tiktoken_bpe

def tiny():
    ranks = load_tiktoken_bpe("https://example.invalid/encodings/tiny.tiktoken", expected_hash=HASH)
    return {{"name": "tiny", "pat_str": PATTERN, "mergeable_ranks": ranks, "special_tokens": {CL100K}}}

def endless():
    ranks = load_tiktoken_bpe("https://example.invalid/encodings/tiny.tiktoken", expected_hash=HASH)
    return {{"name": "endless", "pat_str": PATTERN, "mergeable_ranks": ranks, "special_tokens": {{}}}}

ENCODING_CONSTRUCTORS = {{"tiny": tiny, "endless": endless}}
'''
PROGRAM = '''
import sys, json, requests, tiktoken
from lab.data.tokenizers import load_tokenizer, list_tokenizers
from settings.errors import TokenizerError

def get(url, **_):
    raise requests.ConnectionError("no network", request=requests.Request("GET", url).prepare())

requests.get = get
text, found = sys.argv[1], {}
for name in tiktoken.list_encoding_names():
    try:
        mine, theirs = load_tokenizer(name), tiktoken.get_encoding(name)
        ids = theirs.encode(text, allowed_special="all")
        found[name] = {
            "special": mine.encode(text, special=True) == ids and mine.encode_batch([text], special=True) == [ids],
            "plain": mine.encode(text) == theirs.encode_ordinary(text) == theirs.encode(text, disallowed_special=()),
            "back": mine.decode(ids) == theirs.decode(ids) == text,
            "ids": ids, "without": mine.decode(ids, special=False), "listed": name in list_tokenizers(),
        }
    except TokenizerError as error:
        found[name] = str(error)
print(json.dumps(found))
'''


def test_every_encoding_of_tiktoken_works_offline_from_its_folder(tmp_path):
    """In a process of its own, which finds the encoding by a plugin, as tiktoken documents it, and its file in
    TIKTOKEN_CACHE_DIR, laid out as tiktoken does: the SHA-1 of the address, with the checksum it expects."""
    import base64
    import hashlib

    from lab.data.tokenizers import GPT4_PATTERN

    ranks = [bytes([byte]) for byte in range(256)] + [b"th", b"the"]
    content = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks))
    plugin = tmp_path / "plugin" / "tiktoken_ext"
    plugin.mkdir(parents=True)
    digest = hashlib.sha256(content).hexdigest()
    (plugin / "tiny.py").write_text(f"HASH, PATTERN = {digest!r}, {GPT4_PATTERN!r}\n{PLUGIN}")
    stored = tmp_path / "encodings"
    stored.mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(plugin.parent), str(ROOT)]), "TIKTOKEN_CACHE_DIR": str(stored),
    }
    text = "the <|fim_prefix|>cat<|fim_suffix|>\n<|endofprompt|><|endoftext|><|fim_middle|> then"

    def run() -> dict:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, text], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    missing = run()["tiny"]
    key = hashlib.sha1(b"https://example.invalid/encodings/tiny.tiktoken").hexdigest()
    assert "can't fetch the tokenizer 'tiny'" in missing and key in missing
    (stored / key).write_bytes(content)
    found = run()
    assert found["tiny"].pop("ids") == [
        257, 32, 301, *b"cat", 303, 10, 304, 300, 302, 32, 257, *b"n"
    ]
    assert found["tiny"].pop("without") == "the cat\n then"
    assert all(found["tiny"].values()), found["tiny"]
    assert "'endless' has no '<|endoftext|>' to separate documents" in found["endless"]
    public = found.keys() - {"tiny", "endless"}
    assert {"r50k_base", "p50k_base", "cl100k_base", "o200k_base"} <= public
    for name in public:  # each names the file that its own constructor looks for
        (url,) = re.findall(r"https://\S+", found[name])
        assert hashlib.sha1(url.encode()).hexdigest() in found[name] and url.endswith(".tiktoken"), name
    (stored / key).write_bytes(content[:-3])
    assert "can't fetch the tokenizer 'tiny'" in run()["tiny"], "a damaged file is fetched again"
