"""Saved attention: what was read token by token while the text was written, for all; whole or nothing."""

import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from lab.analysis.attention_files import save_attention
from lab.analysis.attention_maps import attention_maps
from lab.analysis.forward_pass import token_attentions
from lab.data.tokenizers import load_tokenizer
from lab.generation.generate import transcribe
from lab.generation.sampling_settings import SamplingConfig
from settings.errors import GenerationError, RunError
from tests.helpers.stirred_models import stirred_alike
from tests.helpers.variants import VARIANTS

pytestmark = pytest.mark.usefixtures("seeded")
FAMILIES = [
    "gpt2", "llama-grouped", "alibi", "no-position", "vanilla", "sasp", "factored", "factored-alibi", "future",
    "future-max", "future-self-attention", "multi-token",
]
HOW = dict(max_tokens=7, stop_tokens=[], sampling=SamplingConfig(temperature=1.0), seed=2)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("byte")


def speaking(name: str):
    """A model that knows the bytes."""
    return stirred_alike(VARIANTS[name].replace(vocab_size=257))


def rows_while_decoding(model, ids: list[int], n_prompt: int) -> list[torch.Tensor]:
    """The weights (H, T−1, S) of each layer, noted by hand in passes with a cache: the prompt, then token by token."""
    noted, attentions = [], token_attentions(model)
    for attention in attentions:
        noted.append([])

        def note(q, k, v, place, attention=attention, own=noted[-1], read=attention.read):
            own.append(attention.weights(q, k, place)[0])
            return read(q, k, v, place)

        attention.read = note
    cache = model.new_cache(1, len(ids))
    with torch.no_grad():
        model(torch.tensor([ids[:n_prompt]]), cache)
        for id in ids[n_prompt:-1]:
            model(torch.tensor([[id]]), cache)
    for attention in attentions:
        del attention.read
    reads, width = 2 if model.config.block.kind == "shaped" else 1, len(ids) - 1  # the second is of zeros
    rows = [[torch.nn.functional.pad(read, (0, width - read.shape[-1])) for read in own[::reads]] for own in noted]
    return [torch.cat(own, dim=1) for own in rows]


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_is_what_was_read_token_by_token(tmp_path, tokenizer, name):
    model = speaking(name)
    made = save_attention(tmp_path / "maps", model, tokenizer, "a ball", **HOW)
    saved = load_file(tmp_path / "maps" / "attention.safetensors")
    (alone,) = transcribe(model, tokenizer, ["a ball"], **HOW)
    ids = [*b"a ball", *alone.tokens]
    assert made == alone and len(ids) == 13
    assert list(saved) == [f"layer.{layer}" for layer in range(1, len(model.next_token_blocks) + 1)]
    maps = attention_maps(model, tokenizer, ids)
    for layer, rows in enumerate(rows_while_decoding(model, ids, 6), 1):
        weights = saved[f"layer.{layer}"]
        assert weights.shape == (model.config.n_heads, 13, 13) and torch.equal(weights, maps.weights[layer - 1])
        torch.testing.assert_close(weights[:, :-1, :-1], rows, rtol=0, atol=1e-9)
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), rtol=0, atol=1e-9)


def test_the_header_names_the_tokens_and_the_picture_is_there(tmp_path, tokenizer):
    made = save_attention(tmp_path / "new" / "maps", speaking("llama"), tokenizer, "a é", **HOW)
    folder = tmp_path / "new" / "maps"
    with safe_open(folder / "attention.safetensors", framework="pt") as file:
        facts = {name: json.loads(value) for name, value in file.metadata().items()}
    assert facts["ids"] == [*"a é".encode(), *made.tokens] and facts["prompt_tokens"] == 4
    assert facts["tokens"][:4] == ["a", "·", "⟨C3⟩", "⟨A9⟩"] and len(facts["tokens"]) == 11
    assert sorted(path.name for path in folder.iterdir()) == ["attention.png", "attention.safetensors"]
    assert Image.open(folder / "attention.png").width > 500
    assert [path.name for path in folder.parent.iterdir()] == ["maps"]


def test_refuses_what_exists_and_leaves_nothing_half_written(tmp_path, tokenizer, monkeypatch):
    model = speaking("llama")
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr("lab.analysis.attention_files.transcribe", lambda *_, **__: pytest.fail("too late"))
    for name in ("there", "link"):
        with pytest.raises(RunError, match="exists, and nothing is overwritten"):
            save_attention(tmp_path / name, model, tokenizer, "a", **HOW)
    monkeypatch.undo()
    with pytest.raises(GenerationError, match="empty"):
        save_attention(tmp_path / "maps", model, tokenizer, "", **HOW)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lab.display.style.atomic_write_bytes", full)
    with pytest.raises(RunError, match="No space left on device; name another folder"):
        save_attention(tmp_path / "maps", model, tokenizer, "a", **HOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]
