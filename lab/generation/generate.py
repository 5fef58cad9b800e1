"""From a model to tokens: `generate` yields one for each prompt at a time. From tokens to text: whole or in pieces."""

import codecs
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from config import ModelConfig
from lab.compute.eval_mode import eval_mode
from lab.compute.sharding import without_gradients
from lab.data.tokenizers import Tokenizer
from lab.display.token_box import readable
from lab.generation.decoding import DECODE, Decoder
from lab.generation.request import Request, check_ids, check_length, check_prompts
from lab.generation.sampling import probabilities, sample
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from lab.generation.token_step import capacity_for
from modules.transformer import Transformer
from settings.errors import GenerationError

UNTOUCHED = SamplingConfig(temperature=1.0)  # the model's own distribution
MAX_TOKENS = 200  # the default for texts


class Generated(NamedTuple):
    """One step, with an entry for each prompt.

    ids: the tokens chosen in this step. log_probabilities: those of these tokens under the model itself, in nats,
    whatever the sampling settings are. finished: whether the row has ended, with a stop token or after max_tokens. In
    later steps, id and log-probability of an ended row are None. how: what computed the step, "eager" or "compiled" or
    "without a cache", and why.
    """

    ids: list[int | None]
    log_probabilities: list[float | None]
    finished: list[bool]
    how: str


def generate(
    model: Transformer, prompts: Sequence[Sequence[int]], *, max_tokens: int,
    sampling: SamplingConfig = STRATEGIES["balanced"], stop_tokens: Iterable[int] = (), seed: int = 0,
    cache: bool = True, vocab_size: int | None = None, decode: str = "auto",
) -> Iterator[Generated]:
    """Continues each prompt, a list of token ids, up to a stop token or to max_tokens new tokens.

    A prompt gives the same tokens alone as in any batch: its random numbers depend on `seed` and on the number of equal
    prompts before it, so n copies of one prompt give n continuations. cache=False reads the whole sequence again for
    every token: the same result, for comparison. vocab_size: ids from here on are never chosen, for a model that has
    more ids than its tokenizer. decode: "eager"; "compiled", which starts after half a minute the first time and after
    seconds in a later process; or "auto", which compiles where it saves more time than it takes. Compiled steps give
    the same logits to rounding.

    The model is in eval mode from the first step until the iterator ends or is dropped, and then as it was before.
    Raises GenerationError: at once for impossible arguments, and later where the model gives NaN or infinity, or can't
    be compiled as asked.
    """
    if decode not in DECODE or (decode == "compiled" and not cache):
        allowed = ", ".join(map(repr, DECODE)) + ("" if cache else "; and without a cache nothing is compiled")
        raise GenerationError(f"decode must be one of {allowed}, not {decode!r}")
    request = Request(prompts=prompts, max_tokens=max_tokens, sampling=sampling, stop_tokens=stop_tokens, seed=seed,
                      vocab_size=vocab_size)
    steps = without_gradients()(_steps)  # wraps each step on its own: the loop around us keeps its gradients
    return steps(model, request.checked(model.config), decode if cache else None)


def _steps(model: Transformer, request: Request, decode: str | None) -> Iterator[Generated]:
    """decode: as in `generate`; None reads without a cache."""
    generators = request.row_generators()
    seen = mark_tokens(request.prompts, model.config.vocab_size) if request.sampling.repetition_penalty != 1 else None
    finished = [False] * len(request.prompts)
    newest = torch.tensor([prompt[-1] for prompt in request.prompts])  # (B)
    with eval_mode(model):
        next_logits = Uncached(model, request) if decode is None else _with_cache(model, request, decode)
        for step in range(1, request.max_tokens + 1):
            logits = next_logits(newest)  # (B, V)
            log_p = logits.log_softmax(dim=-1)
            check_probabilities(log_p, step)
            if request.vocab_size < logits.shape[1]:
                logits[:, request.vocab_size :] = -torch.inf
            newest = sample(logits, seen, request.sampling, generators)
            if seen is not None:
                seen.scatter_(1, newest[:, None], True)
            ids, chosen = newest.tolist(), log_p.gather(1, newest[:, None]).flatten().tolist()
            last = step == request.max_tokens
            ended = [before or id in request.stop_tokens or last for before, id in zip(finished, ids)]
            yield Generated(
                [None if before else id for before, id in zip(finished, ids)],
                [None if before else log for before, log in zip(finished, chosen)],
                ended,
                next_logits.how,
            )
            finished = ended
            if all(finished):
                return


def _with_cache(model: Transformer, request: Request, decode: str) -> Decoder:
    """A function from the newest token of each row (B) to the logits (B, V) of the next one; it reads every token once.

    A row that has ended goes on with tokens that are ignored; the cache has room for them.
    """
    prompts, longest = request.prompts, max(map(len, request.prompts))
    length = longest + request.max_tokens - 1
    capacity = length if decode == "eager" else capacity_for(length, model.config.position_limit)
    cache = model.new_cache(len(prompts), capacity)
    known = [prompt[:-1] for prompt in prompts]
    if any(known):
        model.hidden(padded(known, longest - 1).to(cache.device), cache)
        cache.keep([len(row) for row in known])
    return Decoder(model, cache, decode, request.max_tokens)


class Uncached:
    """The same, but it reads the whole sequences each time."""

    how = "without a cache"

    def __init__(self, model: Transformer, request: Request):
        self.model, self.device = model, next(model.parameters()).device
        prompts = request.prompts
        self.tokens = padded(prompts, max(map(len, prompts)) + request.max_tokens - 1).to(self.device)  # (B, T)
        self.rows = torch.arange(len(prompts), device=self.device)  # (B)
        self.last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)  # (B)

    def __call__(self, newest: Tensor) -> Tensor:
        self.tokens[self.rows, self.last] = newest.to(self.device)
        logits = self.model(self.tokens[:, : int(self.last.max()) + 1])[self.rows, self.last]  # (B, V)
        self.last += 1
        return logits.float().cpu()


def padded(rows: list[list[int]], length: int) -> Tensor:
    """Rows of different lengths as one (B, T), filled up on the right with a token that is ignored."""
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def mark_tokens(rows: list[list[int]], vocab_size: int) -> Tensor:
    """Boolean (B, V): whether a row has a token."""
    marks = torch.zeros(len(rows), vocab_size, dtype=torch.bool)
    for mark, row in zip(marks, rows):
        mark[row] = True
    return marks


def check_probabilities(log_p: Tensor, step: int) -> None:
    """Raises GenerationError where log-probabilities (B, V) are not finite numbers."""
    if any(map(math.isnan, log_p[:, 0].tolist())):  # NaN or +∞ anywhere in a row makes the whole row NaN
        raise GenerationError(
            f"the model gave NaN or infinite logits for token {step}: its weights are damaged, or its training "
            "diverged; load an earlier checkpoint, or train with a lower learning rate"
        )


# --- text -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """A prompt and its continuation, token by token, so that each can be shown with its probability.

    tokens: the ids, a stop token included. texts: the text that each token adds; "" for the stop token and for a token
    that ends inside a character: the token that completes the character adds it. log_probabilities: as in `Generated`.
    how: what computed the last token, and why.
    """

    prompt: str
    tokens: list[int]
    texts: list[str]
    log_probabilities: list[float]
    how: str = ""

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

    settings: those of `generate`, with other defaults: stop_tokens is the end of text, and max_tokens is 200, or as
    many as the model has positions for, if those are fewer.
    """
    transcripts = [
        Transcript(prompt=_prompt_text(tokenizer, prompt), tokens=[], texts=[], log_probabilities=[])
        for prompt in prompts
    ]
    how = ""
    steps, spellers = _begin(model, tokenizer, prompts, settings)
    for step in steps:
        *columns, how = step
        for transcript, spell, id, log_p, finished in zip(transcripts, spellers, *columns):
            if id is not None:
                transcript.tokens.append(id)
                transcript.texts.append(spell(id, finished))
                transcript.log_probabilities.append(log_p)
    return [replace(transcript, how=how) for transcript in transcripts]


def generate_text(model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int], **settings) -> str:
    """The prompt and its continuation as one text. settings: as for `transcribe`."""
    return transcribe(model, tokenizer, [prompt], **settings)[0].text


def stream_text(model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int], **settings) -> Iterator[str]:
    """The continuation in pieces as the model generates it, no character cut: together what `generate_text` adds."""
    steps, (spell,) = _begin(model, tokenizer, [prompt], settings)
    return filter(None, (spell(step.ids[0], step.finished[0]) for step in steps))


def next_token_probabilities(
    model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int], k: int = 10,
    sampling: SamplingConfig = UNTOUCHED,
) -> tuple[list[str], list[float]]:
    """The k likeliest next tokens as texts, and their probabilities, by default as the model itself gives them.

    Tokens that `sampling` excludes are left out, so there may be fewer than k.
    """
    logits, seen = next_token_logits(model, tokenizer, prompt)
    top = probabilities(logits, seen, sampling)[0].topk(min(k, tokenizer.vocab_size))
    kept = [(id, p) for id, p in zip(top.indices.tolist(), top.values.tolist()) if p > 0]
    return [readable(tokenizer.token_bytes(id)).strip("\n") for id, _ in kept], [p for _, p in kept]


@torch.inference_mode()
def next_token_logits(
    model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The logits (1, V) of the token after a prompt, on the CPU, −∞ for ids that the tokenizer lacks; and a boolean
    (1, V) that marks the tokens of the prompt."""
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    (ids,) = check_prompts([ids], model.config.vocab_size)
    check_length(len(ids), 1, model.config)
    with eval_mode(model):
        logits = model(torch.tensor([ids], device=next(model.parameters()).device))[:, -1].float().cpu()  # (B, V)
    check_probabilities(logits.log_softmax(dim=-1), 1)
    logits[:, tokenizer.vocab_size :] = -torch.inf
    return logits, mark_tokens([ids], model.config.vocab_size)


def _begin(
    model: Transformer, tokenizer: Tokenizer, prompts: Sequence[str | Sequence[int]], settings: dict
) -> tuple[Iterator[Generated], list["_Speller"]]:
    if isinstance(prompts, str):
        raise GenerationError("prompts must be a list of texts; put a single one into a list, or use generate_text")
    settings = {
        "stop_tokens": [tokenizer.end_of_text], "vocab_size": tokenizer.vocab_size, "max_tokens": None
    } | settings
    stop_tokens = check_ids("stop_tokens", settings.pop("stop_tokens"), model.config.vocab_size)
    ids = [tokenizer.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    if settings["max_tokens"] is None:
        settings["max_tokens"] = usual_max_tokens(max(map(len, ids), default=0), model.config)
    steps = generate(model, ids, stop_tokens=stop_tokens, **settings)
    return steps, [_Speller(tokenizer, stop_tokens) for _ in prompts]


def usual_max_tokens(length: int, config: ModelConfig) -> int:
    """How many tokens a prompt of so many is continued by, if nobody says: 200, or as many as there are positions for.

    At least 1, so that a prompt that leaves no room is refused.
    """
    return max(1, min(MAX_TOKENS, config.position_limit - length))


def _prompt_text(tokenizer: Tokenizer, prompt: str | Sequence[int]) -> str:
    if isinstance(prompt, str):
        return prompt
    return tokenizer.decode(id for id in prompt if id != tokenizer.end_of_text)


class _Speller:
    """The text that each token of one row adds. It holds back the bytes of a character until they are complete."""

    def __init__(self, tokenizer: Tokenizer, stop_tokens: list[int]):
        self.tokenizer, self.stop_tokens = tokenizer, stop_tokens
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def __call__(self, id: int, finished: bool) -> str:
        spelled = b"" if id in self.stop_tokens else self.tokenizer.token_bytes(id)
        return self.decoder.decode(spelled, final=finished)
