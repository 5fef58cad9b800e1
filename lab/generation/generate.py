"""From a model, tokens: `generate` yields one for each prompt at a time. From tokens, text: whole or as it comes."""

import codecs
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from config import ModelConfig
from lab.compute.eval_mode import eval_mode
from lab.data.tokenizers import Tokenizer
from lab.display.token_box import readable
from lab.generation.sampling import STRATEGIES, SamplingConfig, probabilities, sample
from modules.transformer import Transformer
from settings.errors import GenerationError

UNTOUCHED = SamplingConfig(temperature=1.0)  # the model's own distribution
MAX_TOKENS = 200  # where nobody says how many


class Generated(NamedTuple):
    """One step, with an entry for each prompt.

    ids: the tokens chosen now. log_probabilities: theirs under the model itself, in nats, whatever the sampling
    settings are. finished: whether the row ends here, with a stop token or the last of max_tokens, or ended before;
    of a row that ended before, id and log-probability are None.
    """

    ids: list[int | None]
    log_probabilities: list[float | None]
    finished: list[bool]


def generate(
    model: Transformer, prompts: Sequence[Sequence[int]], *, max_tokens: int,
    sampling: SamplingConfig = STRATEGIES["balanced"], stop_tokens: Iterable[int] = (), seed: int = 0,
    cache: bool = True, vocab_size: int | None = None,
) -> Iterator[Generated]:  # fmt: skip
    """Continues each prompt, a list of token ids, until it makes a stop token or max_tokens are made.

    A prompt gives the same tokens alone as in any batch: its randomness depends on `seed` and on how many equal prompts
    stand before it, so that n copies of one prompt give n continuations. cache=False reads the whole sequence anew
    for every token: the same result, for comparison. vocab_size: ids from here on are never chosen, for a model with
    more of them than its tokenizer has.

    The model is in eval mode from the first step until the iterator ends or is dropped, and then as it was before.
    Raises GenerationError: at once for what can't be used, and later where the model gives NaN or infinity.
    """
    vocab_size = model.config.vocab_size if vocab_size is None else vocab_size
    prompts, stop_tokens = check_settings(model, prompts, max_tokens, sampling, stop_tokens, seed, vocab_size)
    return _steps(model, prompts, max_tokens, sampling, stop_tokens, seed, cache, vocab_size)


@torch.inference_mode()  # wraps each step on its own: the loop around us keeps its gradients
def _steps(
    model: Transformer, prompts: list[list[int]], max_tokens: int, sampling: SamplingConfig,
    stop_tokens: frozenset[int], seed: int, cache: bool, vocab_size: int,
) -> Iterator[Generated]:  # fmt: skip
    generators = row_generators(prompts, seed)
    seen = marked(prompts, model.config.vocab_size) if sampling.repetition_penalty != 1 else None
    finished = [False] * len(prompts)
    newest = torch.tensor([prompt[-1] for prompt in prompts])  # (B)
    with eval_mode(model):
        read = (_with_cache if cache else _without_cache)(model, prompts, max_tokens)
        for step in range(1, max_tokens + 1):
            logits = read(newest).float().cpu()  # (B, V)
            log_p = logits.log_softmax(dim=-1)
            check_finite(log_p, step)
            if vocab_size < logits.shape[1]:
                logits[:, vocab_size:] = -torch.inf
            newest = sample(logits, seen, sampling, generators)
            if seen is not None:
                seen.scatter_(1, newest[:, None], True)
            ids, chosen = newest.tolist(), log_p.gather(1, newest[:, None]).flatten().tolist()
            ended = [before or id in stop_tokens or step == max_tokens for before, id in zip(finished, ids)]
            yield Generated(
                [None if before else id for before, id in zip(finished, ids)],
                [None if before else log for before, log in zip(finished, chosen)],
                ended,
            )
            finished = ended
            if all(finished):
                return


def _with_cache(model: Transformer, prompts: list[list[int]], max_tokens: int) -> Callable[[Tensor], Tensor]:
    """A function from each row's newest token (B) to the logits (B, V) of its next; it reads every token once.

    A row that has finished goes on with tokens nobody looks at; the cache has room for them.
    """
    device = next(model.parameters()).device
    cache = model.new_cache(len(prompts), max(map(len, prompts)) + max_tokens - 1)
    read = [prompt[:-1] for prompt in prompts]
    if any(read):
        model.hidden(padded(read, max(map(len, read))).to(device), cache)
        cache.keep([len(row) for row in read])
    return lambda newest: model(newest.to(device)[:, None], cache)[:, -1]


def _without_cache(model: Transformer, prompts: list[list[int]], max_tokens: int) -> Callable[[Tensor], Tensor]:
    """The same, reading the whole sequences each time."""
    device = next(model.parameters()).device
    tokens = padded(prompts, max(map(len, prompts)) + max_tokens - 1).to(device)  # (B, T)
    rows = torch.arange(len(prompts), device=device)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)

    def read(newest: Tensor) -> Tensor:
        tokens[rows, last] = newest.to(device)
        logits = model(tokens[:, : int(last.max()) + 1])[rows, last]  # (B, V)
        last.add_(1)
        return logits

    return read


def padded(rows: list[list[int]], length: int) -> Tensor:
    """Rows of different lengths as one (B, T), filled up on the right with a token that is never looked at."""
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def marked(rows: list[list[int]], vocab_size: int) -> Tensor:
    """Which tokens each row has: boolean (B, V)."""
    marks = torch.zeros(len(rows), vocab_size, dtype=torch.bool)
    for mark, row in zip(marks, rows):
        mark[row] = True
    return marks


def row_generators(prompts: list[list[int]], seed: int) -> list[torch.Generator]:
    """A generator for each row, from `seed` and the number of equal prompts before it."""
    keys = [(seed, prompts[:row].count(prompt)) for row, prompt in enumerate(prompts)]
    return [torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0])) for key in keys]


# --- text -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """A prompt and what the model made of it, token by token, for showing each with its probability.

    tokens: the ids, a stop token included. texts: what each adds to the text; "" for the stop token, and for a token
    that ends within a character: the one that completes it brings the whole. log_probabilities: as in `Generated`.
    """

    prompt: str
    tokens: list[int]
    texts: list[str]
    log_probabilities: list[float]

    @property
    def probabilities(self) -> list[float]:
        return [math.exp(value) for value in self.log_probabilities]

    @property
    def text(self) -> str:
        """The prompt and its continuation."""
        return self.prompt + "".join(self.texts)


def transcribe(
    model: Transformer, tokenizer: Tokenizer, prompts: Sequence[str | Sequence[int]], **settings
) -> list[Transcript]:
    """Continues each prompt, a text or token ids.

    settings: as for `generate`, but stop_tokens is the end of text unless something else is given, and max_tokens is
    200 unless something else is given, or as many as the model has positions for, if those are fewer.
    """
    transcripts = [
        Transcript(prompt=_prompt_text(tokenizer, prompt), tokens=[], texts=[], log_probabilities=[])
        for prompt in prompts
    ]
    steps, spellers = _begin(model, tokenizer, prompts, settings)
    for step in steps:
        for transcript, spell, id, log_p, finished in zip(transcripts, spellers, *step):
            if id is not None:
                transcript.tokens.append(id)
                transcript.texts.append(spell(id, finished))
                transcript.log_probabilities.append(log_p)
    return transcripts


def generate_text(model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int], **settings) -> str:
    """The prompt and its continuation as one text. settings: as for `transcribe`."""
    return transcribe(model, tokenizer, [prompt], **settings)[0].text


def stream_text(model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int], **settings) -> Iterator[str]:
    """The continuation in pieces as it comes, no character cut: together what `generate_text` adds to the prompt."""
    steps, (spell,) = _begin(model, tokenizer, [prompt], settings)
    return filter(None, (spell(step.ids[0], step.finished[0]) for step in steps))


def next_token_probabilities(
    model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int], k: int = 10,
    sampling: SamplingConfig = UNTOUCHED,
) -> tuple[list[str], list[float]]:  # fmt: skip
    """The k likeliest next tokens as texts, and their probabilities, by default as the model itself gives them.

    Tokens that `sampling` excludes are left out, so there may be fewer than k.
    """
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    (ids,) = check_prompts([ids], model.config.vocab_size)
    _check_length(len(ids), 1, model.config)
    seen = marked([ids], model.config.vocab_size) if sampling.repetition_penalty != 1 else None
    with torch.inference_mode(), eval_mode(model):
        logits = model(torch.tensor([ids], device=next(model.parameters()).device))[:, -1].float().cpu()  # (B, V)
        logits[:, tokenizer.vocab_size :] = -torch.inf
        top = probabilities(logits, seen, sampling)[0].topk(min(k, tokenizer.vocab_size))
    kept = [(id, p) for id, p in zip(top.indices.tolist(), top.values.tolist()) if p > 0]
    return [readable(tokenizer.token_bytes(id)).strip("\n") for id, _ in kept], [p for _, p in kept]


def _begin(
    model: Transformer, tokenizer: Tokenizer, prompts: Sequence[str | Sequence[int]], settings: dict
) -> tuple[Iterator[Generated], list["_Speller"]]:
    if isinstance(prompts, str):
        raise GenerationError("prompts must be a list of texts; put a single one into a list, or use generate_text")
    settings = {
        "stop_tokens": [tokenizer.end_of_text], "vocab_size": tokenizer.vocab_size, "max_tokens": None
    } | settings  # fmt: skip
    stop_tokens = _check_ids("stop_tokens", settings.pop("stop_tokens"), model.config.vocab_size)
    ids = [tokenizer.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    if settings["max_tokens"] is None:
        free = model.config.position_limit - max(map(len, ids), default=0)
        settings["max_tokens"] = max(1, min(MAX_TOKENS, free))  # 1: what has no room at all is refused
    steps = generate(model, ids, stop_tokens=stop_tokens, **settings)
    return steps, [_Speller(tokenizer, stop_tokens) for _ in prompts]


def _prompt_text(tokenizer: Tokenizer, prompt: str | Sequence[int]) -> str:
    if isinstance(prompt, str):
        return prompt
    return tokenizer.decode(id for id in prompt if id != tokenizer.end_of_text)


class _Speller:
    """Spells one row: the text that each token adds, with the bytes of a begun character held back."""

    def __init__(self, tokenizer: Tokenizer, stop_tokens: list[int]):
        self.tokenizer, self.stop_tokens = tokenizer, stop_tokens
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def __call__(self, id: int, finished: bool) -> str:
        spelled = b"" if id in self.stop_tokens else self.tokenizer.token_bytes(id)
        return self.decoder.decode(spelled, final=finished)


# --- what can't be used ---------------------------------------------------------------------------------------


def check_settings(
    model: Transformer, prompts: Sequence[Sequence[int]], max_tokens: int, sampling: SamplingConfig,
    stop_tokens: Iterable[int], seed: int, vocab_size: int,
) -> tuple[list[list[int]], frozenset[int]]:  # fmt: skip
    """The prompts and stop tokens as lists of ids. Raises GenerationError where something can't be used."""
    prompts = check_prompts(prompts, model.config.vocab_size)
    stop_tokens = frozenset(_check_ids("stop_tokens", stop_tokens, model.config.vocab_size))
    for name, value, least in (("max_tokens", max_tokens, 1), ("seed", seed, 0), ("vocab_size", vocab_size, 1)):
        if not isinstance(value, int) or value < least:
            raise GenerationError(f"{name} must be a whole number, {least} or more, not {value!r}")
    if not isinstance(sampling, SamplingConfig):
        raise GenerationError(f"sampling must be a SamplingConfig, such as STRATEGIES['balanced'], not {sampling!r}")
    _check_length(max(map(len, prompts)), max_tokens, model.config)
    return prompts, stop_tokens


def check_finite(log_p: Tensor, step: int) -> None:
    """Raises GenerationError where log-probabilities (B, V) are none."""
    if any(map(math.isnan, log_p[:, 0].tolist())):  # NaN or +∞ anywhere in a row makes NaN of all in it
        raise GenerationError(
            f"the model gave NaN or infinite logits for token {step}: its weights are damaged, or its training "
            "diverged; load an earlier checkpoint, or train with a lower learning rate"
        )


def check_prompts(prompts: Sequence[Sequence[int]], vocab_size: int) -> list[list[int]]:
    if not len(prompts):
        raise GenerationError("there is no prompt to continue; give a list with at least one")
    checked = [_check_ids(f"prompt {number}", prompt, vocab_size) for number, prompt in enumerate(prompts)]
    for number, prompt in enumerate(checked):
        if not prompt:
            raise GenerationError(
                f"prompt {number} is empty, and the model needs a token to start from; to start from nothing, give the "
                "token that stands between documents: [tokenizer.end_of_text]"
            )
    return checked


def _check_ids(name: str, ids: Iterable[int], vocab_size: int) -> list[int]:
    try:
        checked = [operator.index(id) for id in ids]
    except TypeError as error:
        raise GenerationError(
            f"{name} must be a list of token ids, which are whole numbers, not {ids!r:.60}; text becomes ids by "
            "tokenizer.encode, and a single prompt goes into a list of its own: [ids]"
        ) from error
    for id in checked:
        if not 0 <= id < vocab_size:
            raise GenerationError(
                f"{name}: token id {id} is out of range, this model has ids 0 to {vocab_size - 1}; use the tokenizer "
                "that it was trained with"
            )
    return checked


def _check_length(longest: int, max_tokens: int, config: ModelConfig) -> None:
    limit = config.position_limit
    if longest + max_tokens <= limit:
        return
    fits = f"lower max_tokens to {limit - longest}" if longest < limit else f"shorten the prompt below {limit} tokens"
    raise GenerationError(
        f"{longest} prompt tokens and max_tokens={max_tokens} are more than the {limit} positions this model accepts; "
        f"{fits}. Why: {config.further_positions}"
    )
