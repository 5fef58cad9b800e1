"""Self-speculative decoding: a model's further heads draft tokens, and one pass of the model judges them all.

The text has the very distribution of plain sampling: a draft x ~ q is kept with probability min(1, p(x) / q(x)), else
replaced by one from max(0, p − q), normalised (Leviathan et al. 2022, arXiv 2211.17192, theorem 1; heads as drafters:
Stern et al. 2018, arXiv 1811.03115). Greedy is the case where p and q are certain.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lab.compute.eval_mode import eval_mode
from lab.data.tokenizers import Tokenizer
from lab.generation.generate import check_finite, check_settings, marked, padded, row_generators
from lab.generation.sampling import STRATEGIES, SamplingConfig, draw, probabilities
from modules.cache import Cache
from modules.multi_token import MultiTokenBlock
from modules.transformer import Transformer
from settings.errors import GenerationError


class Draft(NamedTuple):
    """A drafted token: q, how likely the head found it; p, how likely the model itself finds it; whether it was kept,
    which has the probability min(1, p / q)."""

    token: int
    q: float
    p: float
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """What came out, and how well the drafts were: tokens of each prompt's continuation, a stop token included; passes
    of the model after those over the prompts; the drafts that were judged, prompt by prompt."""

    tokens: list[list[int]]
    passes: int
    drafts: list[Draft]

    @property
    def drafted(self) -> int:
        return len(self.drafts)

    @property
    def accepted(self) -> int:
        return sum(draft.kept for draft in self.drafts)

    @property
    def acceptance_rate(self) -> float:
        """The share of the drafts that were kept, of those that were judged: none is after one that was refused."""
        return self.accepted / max(1, self.drafted)

    @property
    def tokens_per_pass(self) -> float:
        """Of each prompt, in the mean; plain decoding makes 1."""
        return sum(map(len, self.tokens)) / len(self.tokens) / max(1, self.passes)

    def __str__(self) -> str:
        return (
            f"{self.tokens_per_pass:.2f} tokens per pass; {self.accepted} of {self.drafted} drafts kept "
            f"({self.acceptance_rate:.0%})"
        )


@torch.inference_mode()
def speculate(
    model: Transformer, prompts: Sequence[Sequence[int]], *, max_tokens: int,
    sampling: SamplingConfig = STRATEGIES["balanced"], stop_tokens: Iterable[int] = (), seed: int = 0,
    drafts: int | None = None, vocab_size: int | None = None,
) -> Speculation:  # fmt: skip
    """Continues each prompt as `generate` does, several tokens at a pass. drafts: of a pass; None: of all heads.

    Greedy gives the tokens of `generate`; sampling gives their distribution, from other random numbers. Raises
    GenerationError as `generate` does, and for a model without further heads.
    """
    heads = [block for block in model.blocks if isinstance(block, MultiTokenBlock) and block.offset > 1][::-1]
    if not heads:
        raise GenerationError(
            "this model has no further heads to draft with; train one with a MultiTokenBlockConfig of heads=2 or more, "
            "such as preset 'multi-token-tiny', or use generate"
        )
    if drafts is not None and not 1 <= drafts <= len(heads):
        raise GenerationError(f"drafts must lie between 1 and {len(heads)}, as this model has heads, not {drafts}")
    vocab_size = model.config.vocab_size if vocab_size is None else vocab_size
    prompts, stops = check_settings(model, prompts, max_tokens, sampling, stop_tokens, seed, vocab_size)
    heads, limit = heads[:drafts], model.config.position_limit
    capacity = min(max(map(len, prompts)) + max_tokens + len(heads), limit)
    cache, passes = model.new_cache(len(prompts), capacity), 0
    with eval_mode(model):
        chooser = Chooser(model, sampling, vocab_size)
        rows = [
            Row(chooser, prompt, max_tokens, stops, generator)
            for prompt, generator in zip(prompts, row_generators(prompts, seed))
        ]
        hidden, ahead = read(model, heads, padded(prompts, max(map(len, prompts))), cache)
        for row, now, further in zip(rows, hidden, ahead):
            row.begin(now[len(row.prompt) - 1], further[:, len(row.prompt) - 1])
        while not all(row.finished for row in rows):
            cache.keep([row.length for row in rows])
            room = max(row.room for row in rows if not row.finished)
            count = min(len(heads), room - 1, limit - 1 - max(row.length for row in rows))
            hidden, ahead = read(model, heads, torch.tensor([row.draft(count) for row in rows]), cache)
            passes += 1
            for row, now, further in zip(rows, hidden, ahead):
                row.judge(now, further)
    return Speculation(
        tokens=[row.tokens for row in rows], passes=passes, drafts=[draft for row in rows for draft in row.judged]
    )  # fmt: skip


def read(
    model: Transformer, heads: Sequence[MultiTokenBlock], tokens: Tensor, cache: Cache
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What the unembedding reads after each of tokens (B, T): for the next one (B, T, C), and for those that each of
    n heads looks ahead to (B, n, T, C)."""
    state = model.state(tokens.to(model.embedding.weight.device), cache)
    return model.read_out(state), torch.stack([head.look(state, model.norm) for head in heads], dim=1)


class Chooser:
    """The sampling settings on a model's own logits."""

    def __init__(self, model: Transformer, sampling: SamplingConfig, vocab_size: int):
        self.model, self.sampling, self.vocab_size = model, sampling, vocab_size

    def distribution(self, hidden: Tensor, seen: Tensor, step: int) -> Tensor:
        """What sampling draws from after `hidden` (C), where `seen` (V) marks the tokens so far: (V)."""
        logits = self.model.head(hidden[None]).float().cpu()  # (1, V)
        check_finite(logits.log_softmax(dim=-1), step)
        logits[:, self.vocab_size :] = -torch.inf
        return probabilities(logits, seen[None], self.sampling)[0].double()


class Row:
    """One prompt's continuation. Its last token is decided but not yet read by the model."""

    def __init__(
        self, chooser: Chooser, prompt: list[int], max_tokens: int, stop_tokens: frozenset[int],
        generator: torch.Generator,
    ):  # fmt: skip
        self.chooser, self.prompt, self.stop_tokens, self.generator = chooser, prompt, stop_tokens, generator
        self.seen = marked([prompt], chooser.model.config.vocab_size)[0]  # (V)
        self.tokens, self.room, self.finished = [], max_tokens, False
        self.judged: list[Draft] = []

    @property
    def length(self) -> int:
        """Tokens that the model has read of it."""
        return len(self.prompt) + len(self.tokens) - 1

    def begin(self, hidden: Tensor, ahead: Tensor) -> None:
        """The first token, after the prompt: from what was read (C), with drafts to follow from ahead (n, C)."""
        self.ahead = ahead
        self.emit(self.draw(self.chooser.distribution(hidden, self.seen, 1)))

    def draft(self, count: int) -> list[int]:
        """The last token and `count` guesses at those after it, each with the distribution that it was drawn from."""
        seen, self.guesses = self.seen.clone(), []
        for hidden in self.ahead[:count]:
            q = self.chooser.distribution(hidden, seen, len(self.tokens))
            guess = self.draw(q)
            seen[guess] = True
            self.guesses.append((guess, q))
        return [self.tokens[-1], *(guess for guess, _ in self.guesses)]

    def judge(self, hidden: Tensor, ahead: Tensor) -> None:
        """Keeps guesses up to the first refused one, and decides the token after them.

        hidden (T, C) and ahead (n, T, C): what was read after the last token and after each guess.
        """
        for place, (guess, q) in enumerate(self.guesses):
            if self.finished:
                return
            p = self.chooser.distribution(hidden[place], self.seen, len(self.tokens))
            self.ahead = ahead[:, place]
            kept = bool(torch.rand((), generator=self.generator, dtype=torch.float64) * q[guess] < p[guess])
            self.judged.append(Draft(guess, float(q[guess]), float(p[guess]), kept))
            if not kept:
                return self.emit(self.draw((p - q).clamp(min=0)))
            self.emit(guess)
        if not self.finished:
            self.ahead = ahead[:, len(self.guesses)]
            p = self.chooser.distribution(hidden[len(self.guesses)], self.seen, len(self.tokens))
            self.emit(self.draw(p))

    def draw(self, weights: Tensor) -> int:
        """An id from weights (V) of any sum."""
        return int(draw(weights[None], self.generator))

    def emit(self, token: int) -> None:
        self.tokens.append(token)
        self.seen[token] = True
        self.room -= 1
        self.finished = token in self.stop_tokens or not self.room


def speculative_text(
    model: Transformer, tokenizer: Tokenizer, prompt: str, **settings
) -> tuple[str, Speculation]:  # fmt: skip
    """The prompt and its continuation as one text, and how the drafts fared. settings: as for `speculate`."""
    settings = {"stop_tokens": [tokenizer.end_of_text], "vocab_size": tokenizer.vocab_size} | settings
    found = speculate(model, [tokenizer.encode(prompt)], **settings)
    return prompt + tokenizer.decode(id for id in found.tokens[0] if id != tokenizer.end_of_text), found
