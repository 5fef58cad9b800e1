"""What proposes the tokens of speculative decoding: a model's own further heads, or a second, smaller model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lab.generation.generate import padded
from lab.generation.request import Request, check_length, check_prompts
from modules.cache import Cache
from modules.multi_token import MultiTokenBlock
from modules.transformer import Transformer
from settings.errors import GenerationError

USUAL_DRAFTS = 4  # of a second model, in a pass


class Drafter(ABC):
    """Runs the passes of the model that verifies, and gives the logits of one draft after the other.

    model: the one that drafts. verifier: the one that verifies; with heads they are the same. most: drafts in a pass.
    passes: of a second model, after the one over the prompts. size: the bytes of the second model's weights as a share
    of the verifier's; None where there is no second model.
    """

    def __init__(self, model: Transformer, verifier: Transformer, most: int):
        self.model, self.verifier, self.most = model, verifier, most
        self.position_limit = min(model.config.position_limit, verifier.config.position_limit)
        self.passes, self.size = 0, None

    @abstractmethod
    def prepare(self, prompts: list[list[int]], capacity: int) -> None:
        """Called before the first pass; a second model reads the prompts here. capacity: the tokens of a cache."""

    def read(self, tokens: Tensor, cache: Cache) -> Tensor:
        """A pass of the verifier: what its head reads after each of tokens (B, T), which is (B, T, C)."""
        return self.verifier.hidden(tokens, cache)

    @abstractmethod
    def start(self, known: Sequence[list[int]], places: Tensor) -> None:
        """From here on, drafts continue the tokens of each row that are `known`.

        places: where the last but one of them stands in the verifier's last pass (B).
        """

    @abstractmethod
    def next_logits(self, place: int, newest: Tensor | None) -> Tensor:
        """Logits (B, V) of draft number `place` since `start`. newest: the draft before it (B), None for number 0."""


class HeadDrafter(Drafter):
    """The model's further heads. They read the state of the model's own pass, and a draft does not depend on the one
    before it."""

    def __init__(self, model: Transformer, drafts: int | None):
        self.heads = drafting_heads(model, drafts)
        super().__init__(model, model, len(self.heads))

    def prepare(self, prompts: list[list[int]], capacity: int) -> None:
        """Nothing: the keys of the heads are in the model's cache, and `read` fills it."""

    def read(self, tokens: Tensor, cache: Cache) -> Tensor:
        state = self.model.state(tokens, cache)
        self.further = torch.stack([head.look(state, self.model.norm) for head in self.heads], dim=1)  # (B, n, T, C)
        return self.model.read_out(state)

    def start(self, known: Sequence[list[int]], places: Tensor) -> None:
        places = places.to(self.further.device)
        rows = torch.arange(len(known), device=places.device)
        self.logits = self.model.head(self.further[rows, :, places])  # (B, n, V)

    def next_logits(self, place: int, newest: Tensor | None) -> Tensor:
        return self.logits[:, place]


class ModelDrafter(Drafter):
    """A second model with the same tokenizer. Its cache forgets the drafts that were refused."""

    def __init__(self, model: Transformer, verifier: Transformer, drafts: int | None):
        super().__init__(model, verifier, USUAL_DRAFTS if drafts is None else drafts)
        self.size = weight_bytes(model) / weight_bytes(verifier)
        self.device = next(model.parameters()).device

    def prepare(self, prompts: list[list[int]], capacity: int) -> None:
        self.cache, lengths = self.model.new_cache(len(prompts), capacity), [len(prompt) for prompt in prompts]
        self.model.hidden(padded(prompts, max(lengths)).to(self.device), self.cache)
        self.cache.keep(lengths)

    def start(self, known: Sequence[list[int]], places: Tensor) -> None:
        # a row whose drafts were all kept has two tokens to read, the others then read one again
        unread = max(len(row) - min(length, len(row) - 1) for row, length in zip(known, self.cache.lengths))
        self.cache.keep([len(row) - unread for row in known])
        self.unread = torch.tensor([row[-unread:] for row in known])  # (B, T)

    def next_logits(self, place: int, newest: Tensor | None) -> Tensor:
        self.passes += 1
        tokens = self.unread if newest is None else newest[:, None]  # (B, T)
        return self.model(tokens.to(self.device), self.cache)[:, -1]


def build_drafter(model: Transformer, draft: Transformer | None, drafts: int | None, request: Request) -> Drafter:
    """What drafts for the model: its further heads where `draft` is None. Raises GenerationError for a draft that can't
    do what the `request` asks."""
    if drafts is not None and (not isinstance(drafts, int) or drafts < 1):
        raise GenerationError(f"drafts must be a whole number, 1 or more, not {drafts!r}")
    if draft is None:
        return HeadDrafter(model, drafts)
    if not isinstance(draft, Transformer):
        raise GenerationError(f"draft must be a model, such as run.load_model() gives, not {draft!r:.60}")
    check_draft(model, draft, request)
    return ModelDrafter(draft, model, drafts)


def check_draft(model: Transformer, draft: Transformer, request: Request) -> None:
    """Raises GenerationError unless the draft has the model's ids, and all positions that the request needs."""
    own, other, needed = model.config.vocab_size, draft.config.vocab_size, request.vocab_size
    if own != other and (needed is None or needed > other):
        raise GenerationError(
            f"the draft has {other} token ids and the model has {own}, so they have different tokenizers; give a draft "
            "that was trained with the model's tokenizer. Embeddings may have more rows than a tokenizer has tokens: "
            "if that is so here, give vocab_size=tokenizer.vocab_size"
        )
    try:
        prompts = check_prompts(request.prompts, other)
        check_length(max(map(len, prompts)), request.max_tokens, draft.config)
    except GenerationError as error:
        raise GenerationError(f"this draft can't follow the model: {error}") from error


def drafting_heads(model: Transformer, drafts: int | None) -> list[MultiTokenBlock]:
    """The first `drafts` further heads of the model, the nearest first. Raises GenerationError where it has none, or
    not so many."""
    heads = [block for block in model.blocks if isinstance(block, MultiTokenBlock) and block.offset > 1][::-1]
    if not heads:
        raise GenerationError(
            "this model has no further heads to draft with; give a smaller model with the same tokenizer as draft, or "
            "train one with a MultiTokenBlockConfig of heads=2 or more, such as preset 'multi-token-tiny'"
        )
    if drafts is not None and drafts > len(heads):
        raise GenerationError(f"drafts must lie between 1 and {len(heads)}, as this model has heads, not {drafts}")
    return heads[:drafts]


def weight_bytes(model: Transformer) -> int:
    """The bytes of what a run stores of the model, a shared weight counted once."""
    return sum({weight.data_ptr(): weight.nbytes for weight in model.state_dict().values()}.values())
