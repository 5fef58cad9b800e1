"""Many prompts from a file, continued in batches: each gets the continuation that it gets alone."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from lab.data.tokenizers import Tokenizer
from lab.files.reading import named_path
from lab.generation.generate import Transcript, transcribe, usual_max_tokens
from lab.generation.request import check_length, check_prompts
from modules.transformer import Transformer
from settings.errors import DataError, GenerationError, GlassboxError
from settings.json_text import parse_json
from settings.messages import short

BATCH = 32  # prompts read at once
SUFFIXES = (".txt", ".jsonl")


def read_prompts(path: Path | str) -> list[str]:
    """The prompts of a UTF-8 file, one for each line: of a .txt the line itself, of a .jsonl the text in its "prompt".

    Raises DataError, which names the line, for a line without a prompt.
    """
    path = named_path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"prompts are read from a file that ends in {' or '.join(SUFFIXES)}, not from {path}")
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from error
    read = read_json_prompt if path.suffix.lower() == ".jsonl" else str
    prompts = []
    for number, line in enumerate(lines, 1):
        try:
            prompt = read(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"line {number} of {path} is no UTF-8 text: {error.reason}; save it as UTF-8") from error
        except GlassboxError as error:
            raise DataError(f"line {number} of {path}: {error}") from error
        if not prompt:
            raise DataError(f"line {number} of {path} is empty; delete it, or write a prompt into it")
        prompts.append(prompt)
    return prompts


def read_json_prompt(line: str) -> str:
    values = parse_json(line)
    if not isinstance(values, dict) or not isinstance(values.get("prompt"), str):
        raise DataError(f'must hold a text named "prompt", as in {{"prompt": "Once"}}, not {short(values)}')
    return values["prompt"]


def transcribe_all(
    model: Transformer, tokenizer: Tokenizer, prompts: Sequence[str], *, max_tokens: int | None = None, **settings
) -> Iterator[Transcript]:
    """Continues each prompt as `transcribe` does with this prompt alone, in batches; equal prompts get equal texts.

    settings: those of `transcribe`. Raises GenerationError before the first batch for a prompt that the model can't
    take, and names its line: its place in `prompts`, from 1 on.
    """
    rooms = []
    for number, prompt in enumerate(prompts, 1):
        try:
            (ids,) = check_prompts([tokenizer.encode(prompt)], model.config.vocab_size)
            room = usual_max_tokens(len(ids), model.config) if max_tokens is None else max_tokens
            check_length(len(ids), room, model.config)
        except GlassboxError as error:
            raise GenerationError(f"line {number}: {error}") from error
        rooms.append(room)
    return _in_batches(model, tokenizer, list(zip(rooms, prompts)), settings)


def _in_batches(
    model: Transformer, tokenizer: Tokenizer, asked: list[tuple[int, str]], settings: dict
) -> Iterator[Transcript]:
    """asked: how many tokens at most for each prompt, and the prompt."""
    for start in range(0, len(asked), BATCH):
        chunk, made = asked[start : start + BATCH], {}
        for room, group in groupby(sorted(set(chunk)), key=lambda pair: pair[0]):
            group = list(group)
            texts = transcribe(model, tokenizer, [prompt for _, prompt in group], max_tokens=room, **settings)
            made |= zip(group, texts)
        yield from (made[pair] for pair in chunk)


def as_json_line(made: Transcript) -> str:
    """A prompt and its continuation as one line of JSON, with the tokens' ids and mean log-probability in nats."""
    return json.dumps({
        "prompt": made.prompt, "continuation": "".join(made.texts), "tokens": made.tokens,
        "log_probability": sum(made.log_probabilities) / len(made.tokens),
    }, ensure_ascii=False)
