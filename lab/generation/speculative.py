"""Speculative decoding: a drafter proposes tokens, and one pass of the model verifies them all.

The text has exactly the distribution of plain sampling, whatever the drafter is worth: lab/generation/acceptance.py has
the rule (Leviathan et al. 2022, arXiv 2211.17192; heads that draft: Stern et al. 2018, arXiv 1811.03115).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lab.compute.eval_mode import eval_mode
from lab.data.tokenizers import Tokenizer
from lab.generation.acceptance import Verdict, verify, verify_greedy
from lab.generation.drafters import Drafter, build_drafter
from lab.generation.generate import MAX_TOKENS, check_probabilities, mark_tokens, padded
from lab.generation.request import Request
from lab.generation.sampling import penalise, pick_ids, probabilities
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from modules.transformer import Transformer
from settings.errors import GenerationError


class Draft(NamedTuple):
    """A drafted token. q: its probability under the drafter; p: its probability under the model; kept: whether it was
    kept, which has the probability min(1, p / q). overlap: Σ min(p, q) over all tokens, the chance that a draft is kept
    before it is drawn from q."""

    token: int
    q: float
    p: float
    kept: bool
    overlap: float


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """tokens: each prompt's continuation, a stop token included. passes: of the model, after the one over the prompts.
    drafts: those that the model verified, prompt by prompt. draft_passes: of a second model that drafted, after its own
    over the prompts; draft_size: the bytes of its weights as a share of the model's, None where heads drafted."""

    tokens: list[list[int]]
    passes: int
    drafts: list[Draft]
    draft_passes: int
    draft_size: float | None

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
    def expected_acceptance(self) -> float:
        """The mean of Σ min(p, q) over the verified drafts: what `acceptance_rate` is but for chance."""
        return sum(draft.overlap for draft in self.drafts) / max(1, self.drafted)

    @property
    def tokens_per_pass(self) -> float:
        """The mean over prompts; plain decoding makes 1 token per pass."""
        return sum(map(len, self.tokens)) / len(self.tokens) / max(1, self.passes)

    def __str__(self) -> str:
        said = (
            f"{self.tokens_per_pass:.2f} tokens per pass; {self.accepted} of {self.drafted} drafts kept "
            f"({self.acceptance_rate:.0%}, expected {self.expected_acceptance:.0%}); passes: {self.passes} of the model"
        )
        if self.draft_size is None:
            return said
        said += f", {self.draft_passes} of the draft, whose weights have {self.draft_size:.2g} × the model's bytes"
        return said if self.draft_size < 1 else f"{said}: a draft that is no smaller than the model saves no time"


def speculate(
    model: Transformer, prompts: Sequence[Sequence[int]], *, max_tokens: int, draft: Transformer | None = None,
    drafts: int | None = None, sampling: SamplingConfig = STRATEGIES["balanced"], stop_tokens: Iterable[int] = (),
    seed: int = 0, vocab_size: int | None = None,
) -> Speculation:
    """Continues each prompt as `generate` does, several tokens at a pass.

    draft: a model with the same tokenizer that proposes tokens; it pays where it is much smaller. None: the model's own
    further heads. drafts: tokens proposed for a pass (None: 4 by a draft, or one by each head).

    Greedy gives the tokens of `generate`, up to rounding where two tokens are equally likely; sampling gives their
    distribution, from other random numbers. Raises GenerationError as `generate` does; for a draft with other token ids
    or too few positions; and without a draft for a model that has no further heads.
    """
    request = Request(prompts=prompts, max_tokens=max_tokens, sampling=sampling, stop_tokens=stop_tokens, seed=seed,
                      vocab_size=vocab_size)
    checked = request.checked(model.config)
    return _speculate(checked, build_drafter(model, draft, drafts, request))


@torch.inference_mode()
def _speculate(request: Request, drafter: Drafter) -> Speculation:
    model, prompts, limit = drafter.verifier, request.prompts, drafter.position_limit
    lengths, passes = [len(prompt) for prompt in prompts], 0
    capacity = min(max(lengths) + request.max_tokens + drafter.most, limit)
    cache, rows = model.new_cache(len(prompts), capacity), DraftedRows(drafter, request)
    with eval_mode(model), eval_mode(drafter.model):
        drafter.prepare(prompts, capacity)
        hidden = drafter.read(padded(prompts, max(lengths)).to(rows.device), cache)  # (B, T, C)
        last = torch.tensor(lengths) - 1  # (B)
        rows.verify(hidden[torch.arange(len(prompts)), last][:, None], rows.propose(0))
        rows.places = last
        while max(rows.room):
            lengths = [len(known) - 1 for known in rows.known]
            cache.keep(lengths)
            proposal = rows.propose(min(drafter.most, max(rows.room) - 1, limit - 1 - max(lengths)))
            newest = torch.tensor([known[-1:] for known in rows.known], device=rows.device)  # (B, 1)
            rows.verify(drafter.read(torch.cat((newest, proposal.tokens), dim=1), cache), proposal)
            passes += 1
    return Speculation(
        tokens=[known[len(prompt) :] for known, prompt in zip(rows.known, prompts)], passes=passes,
        drafts=[draft for verified in rows.verified for draft in verified], draft_passes=drafter.passes,
        draft_size=drafter.size,
    )


class Proposal(NamedTuple):
    """k drafts for each row. tokens (B, k); q: the distributions that they are from (B, k, V), none if greedy; seen:
    which ids stand before each draft and before the token after all of them (B, k+1, V), None where that makes no
    difference; uniform: a random number for each of these places (B, k+1), none if greedy."""

    tokens: Tensor
    q: Tensor | None
    seen: Tensor | None
    uniform: Tensor | None


class DraftedRows:
    """The texts of all prompts while they grow.

    known: each row's tokens, its prompt's first; the model has not read the last one. room: how many more a row may
    get, 0 when it has ended. places: where the last but one of a row's tokens stands in the model's last pass (B).
    """

    def __init__(self, drafter: Drafter, request: Request):
        self.drafter, self.request, self.sampling = drafter, request, request.sampling
        self.device = drafter.verifier.embedding.weight.device
        self.greedy, self.generators = request.sampling.temperature == 0, request.row_generators()
        self.known = [list(prompt) for prompt in request.prompts]
        self.room = [request.max_tokens for _ in self.known]
        self.verified: list[list[Draft]] = [[] for _ in self.known]
        self.seen = None
        if request.sampling.repetition_penalty != 1:
            marks = mark_tokens(request.prompts, drafter.verifier.config.vocab_size)  # (B, V)
            self.seen = marks[:, : request.vocab_size].to(self.device)

    def propose(self, count: int) -> Proposal:
        """Lets the drafter propose `count` tokens for each row."""
        most, given, tokens, q, seen, uniform = self.drafter.most, [], [], [], [self.seen], None
        if not self.greedy:  # as many for every pass, so that a row gets the same ones alone and in any batch
            drawn = [torch.rand(2 * most + 1, generator=each, dtype=torch.float64) for each in self.generators]
            uniform = torch.stack(drawn)  # (B, 2n+1)
        if count:
            self.drafter.start(self.known, self.places)
        for place in range(count):
            logits = self.drafter.next_logits(place, tokens[-1] if tokens else None).to(self.device)  # (B, V)
            given.append(logits)
            logits = logits[:, : self.request.vocab_size]
            if self.greedy:
                tokens.append(self.choose(logits, seen[-1]))
            else:
                q.append(self.distribution(logits, seen[-1]))
                tokens.append(pick_ids(q[-1], uniform[:, most + 1 + place]).to(self.device))
            seen.append(None if self.seen is None else seen[-1].scatter(1, tokens[-1][:, None], True))
        if given:
            check_draft_logits(torch.stack(given))
        empty = torch.empty(len(self.known), 0, dtype=torch.long, device=self.device)  # (B, 0)
        return Proposal(
            torch.stack(tokens, dim=1) if tokens else empty,
            torch.stack(q, dim=1) if q else None,
            None if self.seen is None else torch.stack(seen, dim=1),
            None if uniform is None else torch.cat((uniform[:, :count], uniform[:, most : most + 1]), dim=1),
        )

    def verify(self, hidden: Tensor, proposal: Proposal) -> None:
        """Keeps the drafts before the first refused one, and adds the token that follows them.

        hidden (B, k+1, C): what the head reads after the last token and after each draft.
        """
        logits = self.drafter.verifier.head(hidden).float()  # (B, k+1, V)
        step = self.request.max_tokens - max(self.room) + 1
        check_probabilities(logits.log_softmax(dim=-1).flatten(0, 1), step)
        logits, tokens = logits[..., : self.request.vocab_size], proposal.tokens.cpu()
        most = torch.tensor([min(max(0, room - 1), tokens.shape[1]) for room in self.room])  # (B)
        if self.greedy:
            verdict = verify_greedy(tokens, self.choose(logits, proposal.seen).cpu(), most)
        else:
            p = self.distribution(logits, proposal.seen)  # (B, k+1, V)
            q = p[:, :0] if proposal.q is None else proposal.q  # (B, k, V)
            verdict = verify(tokens, q, p, proposal.uniform, most)
        self.add(tokens, verdict, most)

    def choose(self, logits: Tensor, seen: Tensor | None) -> Tensor:
        """The likeliest ids (…) by logits (…, V)."""
        return penalise(logits.float(), seen, self.sampling.repetition_penalty).argmax(dim=-1)

    def distribution(self, logits: Tensor, seen: Tensor | None) -> Tensor:
        """What is drawn from: (…, V) in float64 on the CPU, as `sample` does."""
        return probabilities(logits, seen, self.sampling).cpu().double()

    def add(self, tokens: Tensor, verdict: Verdict, most: Tensor) -> None:
        """Adds to each row what the verdict gives it, up to a stop token."""
        self.places = verdict.count
        columns = (tokens, verdict.q, verdict.p, verdict.overlap, verdict.count, verdict.following, most)
        rows = zip(*(column.tolist() for column in columns))
        for row, (guesses, q, p, overlap, count, following, limit) in enumerate(rows):
            if not self.room[row]:
                continue
            new = [*guesses[:count], following]
            ends = [place for place, token in enumerate(new, 1) if token in self.request.stop_tokens]
            new = new[: ends[0]] if ends else new
            self.known[row] += new
            self.room[row] = 0 if ends else self.room[row] - len(new)
            for place in range(min(len(new), limit)):
                self.verified[row].append(Draft(guesses[place], q[place], p[place], place < count, overlap[place]))
            if self.seen is not None:
                self.seen[row, new] = True


def check_draft_logits(logits: Tensor) -> None:
    """Raises GenerationError where a draft's logits (…, V) are NaN or infinite."""
    if not logits.logsumexp(dim=-1).isfinite().all():  # NaN or +∞ anywhere in a row shows in its sum
        raise GenerationError(
            "the draft gave NaN or infinite logits: its weights are damaged, or its training diverged; give another "
            "draft, or load an earlier checkpoint of it"
        )


def speculative_text(model: Transformer, tokenizer: Tokenizer, prompt: str, **settings) -> tuple[str, Speculation]:
    """The prompt and its continuation as one text, and the result of `speculate`.

    settings: those of `speculate`, with other defaults: stop_tokens is the end of text, and max_tokens is 200, or as
    many as the model and the draft have positions for, if those are fewer.
    """
    ids = tokenizer.encode(prompt)
    settings = {
        "stop_tokens": [tokenizer.end_of_text], "vocab_size": tokenizer.vocab_size, "max_tokens": None
    } | settings
    if settings["max_tokens"] is None:
        models = [model] if settings.get("draft") is None else [model, settings["draft"]]
        free = min(each.config.position_limit for each in models) - len(ids)
        settings["max_tokens"] = max(1, min(MAX_TOKENS, free))  # 1: a prompt that leaves no room is refused
    found = speculate(model, [ids], **settings)
    return prompt + tokenizer.decode(id for id in found.tokens[0] if id != tokenizer.end_of_text), found
