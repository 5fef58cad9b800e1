"""Prompts from a file: what is read, that each gets what it gets alone, and errors that name the line."""

import json

import pytest
import torch

from config import LearnedPositionConfig
from lab.data.tokenizers import load_tokenizer
from lab.generation import batches
from lab.generation.batches import as_json_line, read_prompts, transcribe_all
from lab.generation.generate import transcribe
from lab.generation.sampling_settings import STRATEGIES
from settings.errors import DataError, GenerationError, RunError
from tests.helpers.stirred_models import stirred_alike
from tests.helpers.variants import vary

pytestmark = pytest.mark.usefixtures("seeded")
PROMPTS = ["Once", "A red ball", "Once", "é", "Tim was", "x", "Once", "Mia ran to"]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("byte")


@pytest.fixture(scope="module")
def model():
    return stirred_alike(vary("llama", vocab_size=257))


def written(folder, name: str, data: bytes):
    (folder / name).write_bytes(data)
    return folder / name


# --- the file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, data, expected",
    [
        ("a.txt", b"Once\n  two \nthree", ["Once", "  two ", "three"]),
        ("a.TXT", "\ufeffé\r\nb\r\n".encode(), ["é", "b"]),
        ("a.txt", "a\u2028b\x0cc\n".encode(), ["a\u2028b\x0cc"]),
        ("a.jsonl", b'{"prompt": "a\\nb", "id": 7}\n{"prompt": "\xc3\xa9"}\n', ["a\nb", "é"]),
    ],
)
def test_each_line_is_a_prompt(tmp_path, name, data, expected):
    assert read_prompts(written(tmp_path, name, data)) == expected


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("a.txt", b"", "line 1 of .* is empty"),
        ("a.txt", b"one\n\nthree\n", "line 2 of .* is empty; delete it"),
        ("a.txt", b"one\ntwo\n\xff\n", "line 3 of .* is no UTF-8 text"),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": 3}\n', 'line 2 of .* a text named "prompt"'),
        ("a.jsonl", b'{"text": "a"}\n', "line 1 of .* as in .*Once"),
        ("a.jsonl", b'{"prompt": "a"}\n["a"]\n', "line 2 of .* not ..a.."),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": \n', "line 2 of .* not valid JSON"),
        ("a.jsonl", b'{"prompt": ""}\n', "line 1 of .* is empty"),
        ("a.jsonl", b'{"prompt": "\\ud800"}\n', "line 1 of .* surrogate"),
        ("a.csv", b"a", r"ends in \.txt or \.jsonl"),
    ],
)
def test_a_line_without_a_prompt_is_named(tmp_path, name, data, message):
    with pytest.raises(DataError, match=message):
        read_prompts(written(tmp_path, name, data))


def test_a_file_that_can_not_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.txt can't be read"):
        read_prompts(tmp_path / "nothing.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError, match=r"folder\.txt can't be read"):
        read_prompts(tmp_path / "folder.txt")
    with pytest.raises(RunError, match="no file system allows"):
        read_prompts("a\0.txt")


# --- the texts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 32])
@pytest.mark.parametrize("strategy", ["greedy", "creative"])
def test_each_prompt_gets_what_it_gets_alone(model, tokenizer, monkeypatch, size, strategy):
    monkeypatch.setattr(batches, "BATCH", size)
    how = dict(max_tokens=12, sampling=STRATEGIES[strategy], seed=3)
    made = list(transcribe_all(model, tokenizer, PROMPTS, **how))
    assert [one.prompt for one in made] == PROMPTS
    for prompt, one in zip(PROMPTS, made):
        (alone,) = transcribe(model, tokenizer, [prompt], **how)
        assert (one.tokens, one.texts) == (alone.tokens, alone.texts)
        assert one.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-9)


def test_each_goes_as_far_as_it_goes_alone_where_positions_end(tokenizer):
    model = stirred_alike(vary("gpt2", vocab_size=257, position=LearnedPositionConfig()))
    how = dict(stop_tokens=[])
    made = list(transcribe_all(model, tokenizer, PROMPTS, **how))
    assert [len(one.tokens) for one in made] == [17 - len(prompt.encode()) for prompt in PROMPTS]
    assert [one.tokens for one in made] == [transcribe(model, tokenizer, [p], **how)[0].tokens for p in PROMPTS]


def test_the_model_reads_batches(model, tokenizer):
    read = []
    counting = model.embedding.register_forward_hook(lambda _, given, __: read.append(given[0].shape))
    list(transcribe_all(model, tokenizer, [f"{i:02}" for i in range(40)], max_tokens=2, stop_tokens=[]))
    counting.remove()
    assert read == [torch.Size(pair) for pair in ((32, 1), (32, 1), (32, 1), (8, 1), (8, 1), (8, 1))]


def test_a_prompt_that_the_model_can_not_take_is_named_before_anything_is_read(model, tokenizer):
    for prompts, how, message in (
        (["a", "b" * 68, "c"], {}, "line 2: 68 prompt tokens"),
        (["a", "b" * 60], dict(max_tokens=9), "line 2: 60 prompt tokens and max_tokens=9"),
        (["a", "b", ""], {}, "line 3: prompt 0 is empty"),
        (["a", "\ud800"], {}, "line 2: .*surrogate"),
    ):
        with pytest.raises(GenerationError, match=message):
            transcribe_all(model, tokenizer, prompts, **how)
    assert list(transcribe_all(model, tokenizer, [])) == []


def test_a_line_of_json_holds_all_of_it(model, tokenizer):
    (made,) = transcribe_all(model, tokenizer, ["é\n"], max_tokens=5)
    line = as_json_line(made)
    values = json.loads(line)
    assert "\n" not in line and values["prompt"] == "é\n" and values["prompt"] + values["continuation"] == made.text
    assert values["tokens"] == made.tokens
    assert values["log_probability"] == pytest.approx(sum(made.log_probabilities) / len(made.tokens))
