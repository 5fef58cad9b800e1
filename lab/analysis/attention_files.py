"""Attention weights of a generated text in a folder: a safetensors file and a picture."""

import os
from collections.abc import Sequence
from pathlib import Path

from lab.analysis.attention_maps import attention_maps
from lab.analysis.attention_plots import attention_overview
from lab.data.tokenizers import Tokenizer
from lab.files.reading import named_path
from lab.generation.generate import Transcript, transcribe
from lab.runs.lock import build_folder
from lab.runs.weights import write_tensors
from modules.transformer import Transformer
from settings.errors import RunError

WEIGHTS, PICTURE = "attention.safetensors", "attention.png"


def save_attention(
    folder: Path | str, model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int], **settings
) -> Transcript:
    """Continues a prompt, and saves the attention weights over prompt and continuation in a new folder.

    attention.safetensors has a tensor (H, T, S) for each layer, "layer.1" and so on: heads, tokens that read, tokens
    that are read. Its header has the tokens' texts and ids, and how many of them are the prompt's. attention.png shows
    all heads. These are the weights with which the text was generated, and those of its last token: they are read in
    one pass over the whole text, which gives the same as token by token with a cache.

    settings: those of `transcribe`. Raises RunError where the folder exists, before anything is generated;
    AnalysisError and GenerationError as `attention_maps` and `transcribe` do.
    """
    folder = named_path(folder).absolute()
    if os.path.lexists(folder):
        raise RunError(f"{folder} exists, and nothing is overwritten; name a folder that does not exist")
    (made,) = transcribe(model, tokenizer, [prompt], **settings)
    given = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    maps = attention_maps(model, tokenizer, given + made.tokens)
    tensors = {f"layer.{layer}": weights for layer, weights in enumerate(maps.weights, 1)}
    facts = {"tokens": maps.labels, "ids": given + made.tokens, "prompt_tokens": len(given)}
    try:
        with build_folder(folder.name, folder.parent) as building:
            write_tensors(building / WEIGHTS, tensors, facts)
            attention_overview(maps).save(building / PICTURE)
    except OSError as error:
        raise RunError(f"can't write {folder}: {error.strerror}; name another folder, or free space") from error
    return made
