"""Self-speculative decoding: a model's further heads draft tokens, and one pass of the model verifies them all.

The text has exactly the distribution of plain sampling: a draft x ~ q is kept with probability min(1, p(x) / q(x)),
else replaced by a draw from max(0, p − q), normalised (Leviathan et al. 2022, arXiv 2211.17192, theorem 1; heads that
draft: Stern et al. 2018, arXiv 1811.03115). Greedy decoding is the case where p and q are 0 or 1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lab.compute.eval_mode import eval_mode
from lab.data.tokenizers import Tokenizer
from lab.generation.generate import check_probabilities, mark_tokens, padded
from lab.generation.request import Request
from lab.generation.sampling import draw_ids, probabilities
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from modules.cache import Cache
from modules.multi_token import MultiTokenBlock
from modules.transformer import Transformer
from settings.errors import GenerationError


class Draft(NamedTuple):
    """A drafted token. q: its probability under the head; p: its probability under the model itself; kept: whether it
    was kept, which has the probability min(1, p / q)."""

    token: int
    q: float
    p: float
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """tokens: each prompt's continuation, a stop token included. passes: of the model, after the one over the prompts.
    drafts: those that the model verified, prompt by prompt."""

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
        """The share of the verified drafts that were kept. Drafts after a refused one are not verified."""
        return self.accepted / max(1, self.drafted)

    @property
    def tokens_per_pass(self) -> float:
        """The mean over prompts; plain decoding makes 1 token per pass."""
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
) -> Speculation:
    """Continues each prompt as `generate` does, several tokens at a pass. drafts: tokens drafted for a pass (None: one
    by each head).

    Greedy gives the tokens of `generate`; sampling gives their distribution, from other random numbers. Raises
    GenerationError as `generate` does, and for a model without further heads.
    """
    request = Request(prompts=prompts, max_tokens=max_tokens, sampling=sampling, stop_tokens=stop_tokens, seed=seed,
                      vocab_size=vocab_size)
    heads = drafting_heads(model, drafts)
    return _speculate(model, request.checked(model.config), heads)


def drafting_heads(model: Transformer, drafts: int | None) -> list[MultiTokenBlock]:
    """The first `drafts` further heads of the model, the nearest first. Raises GenerationError where it has none, or
    not so many."""
    heads = [block for block in model.blocks if isinstance(block, MultiTokenBlock) and block.offset > 1][::-1]
    if not heads:
        raise GenerationError(
            "this model has no further heads to draft with; train one with a MultiTokenBlockConfig of heads=2 or more, "
            "such as preset 'multi-token-tiny', or use generate"
        )
    if drafts is not None and not 1 <= drafts <= len(heads):
        raise GenerationError(f"drafts must lie between 1 and {len(heads)}, as this model has heads, not {drafts}")
    return heads[:drafts]


def _speculate(model: Transformer, request: Request, heads: list[MultiTokenBlock]) -> Speculation:
    prompts, limit = request.prompts, model.config.position_limit
    longest, passes = max(map(len, prompts)), 0
    cache = model.new_cache(len(prompts), min(longest + request.max_tokens + len(heads), limit))
    with eval_mode(model):
        rows = [DraftedRow(model, request, *own) for own in zip(prompts, request.row_generators())]
        hidden, ahead = read_ahead(model, heads, padded(prompts, longest), cache)
        for row, now, further in zip(rows, hidden, ahead):
            row.begin(now[len(row.prompt) - 1], further[:, len(row.prompt) - 1])
        while not all(row.finished for row in rows):
            cache.keep([row.length for row in rows])
            room = max(row.room for row in rows if not row.finished)
            count = min(len(heads), room - 1, limit - 1 - max(row.length for row in rows))
            hidden, ahead = read_ahead(model, heads, torch.tensor([row.draft(count) for row in rows]), cache)
            passes += 1
            for row, now, further in zip(rows, hidden, ahead):
                row.verify(now, further)
    return Speculation(
        tokens=[row.tokens for row in rows], passes=passes, drafts=[draft for row in rows for draft in row.verified]
    )


def read_ahead(
    model: Transformer, heads: Sequence[MultiTokenBlock], tokens: Tensor, cache: Cache
) -> tuple[Tensor, Tensor]:
    """The head's input after each of tokens (B, T): for the next token (B, T, C), and for the further tokens that the
    n drafting heads predict (B, n, T, C)."""
    state = model.state(tokens.to(model.embedding.weight.device), cache)
    return model.read_out(state), torch.stack([head.look(state, model.norm) for head in heads], dim=1)


class DraftedRow:
    """One prompt's continuation. The model has not yet read its last token."""

    def __init__(self, model: Transformer, request: Request, prompt: list[int], generator: torch.Generator):
        self.model, self.request, self.prompt, self.generator = model, request, prompt, generator
        self.seen = mark_tokens([prompt], model.config.vocab_size)[0]  # (V)
        self.tokens, self.room, self.finished = [], request.max_tokens, False
        self.verified: list[Draft] = []

    @property
    def length(self) -> int:
        """The number of tokens that the model has read."""
        return len(self.prompt) + len(self.tokens) - 1

    def begin(self, hidden: Tensor, ahead: Tensor) -> None:
        """Chooses the first token after the prompt from the head's input (C). ahead (n, C) gives the next drafts."""
        self.ahead = ahead
        self.add(self.choose(self.distribution(hidden, self.seen, 1)))

    def draft(self, count: int) -> list[int]:
        """The last token and `count` guesses at the tokens after it. Keeps the distribution of each guess."""
        seen, self.guesses = self.seen.clone(), []
        for hidden in self.ahead[:count]:
            q = self.distribution(hidden, seen, len(self.tokens))
            guess = self.choose(q)
            seen[guess] = True
            self.guesses.append((guess, q))
        return [self.tokens[-1], *(guess for guess, _ in self.guesses)]

    def verify(self, hidden: Tensor, ahead: Tensor) -> None:
        """Keeps the guesses before the first refused one, and chooses the token after them.

        hidden (T, C) and ahead (n, T, C): the heads' inputs after the last token and after each guess.
        """
        for place, (guess, q) in enumerate(self.guesses):
            if self.finished:
                return
            p = self.distribution(hidden[place], self.seen, len(self.tokens))
            self.ahead = ahead[:, place]
            kept = bool(torch.rand((), generator=self.generator, dtype=torch.float64) * q[guess] < p[guess])
            self.verified.append(Draft(guess, float(q[guess]), float(p[guess]), kept))
            if not kept:
                return self.add(self.choose((p - q).clamp(min=0)))
            self.add(guess)
        if not self.finished:
            self.ahead = ahead[:, len(self.guesses)]
            p = self.distribution(hidden[len(self.guesses)], self.seen, len(self.tokens))
            self.add(self.choose(p))

    def distribution(self, hidden: Tensor, seen: Tensor, step: int) -> Tensor:
        """The distribution (V) of the token after the head's input (C); `seen` (V) marks the tokens so far."""
        logits = self.model.head(hidden[None]).float().cpu()  # (1, V)
        check_probabilities(logits.log_softmax(dim=-1), step)
        logits[:, self.request.vocab_size :] = -torch.inf
        return probabilities(logits, seen[None], self.request.sampling)[0].double()

    def choose(self, weights: Tensor) -> int:
        """A random id by weights (V), whose sum may be any number."""
        return int(draw_ids(weights[None], self.generator))

    def add(self, token: int) -> None:
        self.tokens.append(token)
        self.seen[token] = True
        self.room -= 1
        self.finished = token in self.request.stop_tokens or not self.room


def speculative_text(
    model: Transformer, tokenizer: Tokenizer, prompt: str, **settings
) -> tuple[str, Speculation]:
    """The prompt and its continuation as one text, and the result of `speculate`. settings: those of `speculate`."""
    settings = {"stop_tokens": [tokenizer.end_of_text], "vocab_size": tokenizer.vocab_size} | settings
    found = speculate(model, [tokenizer.encode(prompt)], **settings)
    return prompt + tokenizer.decode(id for id in found.tokens[0] if id != tokenizer.end_of_text), found
