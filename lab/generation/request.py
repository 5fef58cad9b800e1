"""What to generate, checked before a model reads anything."""

import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from config import ModelConfig
from lab.generation.sampling_settings import SamplingConfig
from settings.errors import GenerationError


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of `generate`. vocab_size: ids from here on are never chosen; None: every id may be."""

    prompts: Sequence[Sequence[int]]
    max_tokens: int
    sampling: SamplingConfig
    stop_tokens: Iterable[int]
    seed: int
    vocab_size: int | None

    def checked(self, config: ModelConfig) -> "Request":
        """The same with plain lists of ids, for a model with this config. Raises GenerationError for what the model
        can't do."""
        prompts = check_prompts(self.prompts, config.vocab_size)
        stop_tokens = frozenset(check_ids("stop_tokens", self.stop_tokens, config.vocab_size))
        vocab_size = config.vocab_size if self.vocab_size is None else self.vocab_size
        numbers = ("max_tokens", self.max_tokens, 1), ("seed", self.seed, 0), ("vocab_size", vocab_size, 1)
        for name, value, least in numbers:
            if not isinstance(value, int) or value < least:
                raise GenerationError(f"{name} must be a whole number, {least} or more, not {value!r}")
        if not isinstance(self.sampling, SamplingConfig):
            raise GenerationError(
                f"sampling must be a SamplingConfig, such as STRATEGIES['balanced'], not {self.sampling!r}"
            )
        check_length(max(map(len, prompts)), self.max_tokens, config)
        return Request(
            prompts=prompts, max_tokens=self.max_tokens, sampling=self.sampling, stop_tokens=stop_tokens,
            seed=self.seed, vocab_size=vocab_size,
        )

    def row_generators(self) -> list[torch.Generator]:
        """A generator for each prompt, from `seed` and the number of equal prompts before it."""
        counts, generators = Counter(), []
        for prompt in map(tuple, self.prompts):
            state = np.random.SeedSequence((self.seed, counts[prompt])).generate_state(1)
            generators.append(torch.Generator().manual_seed(int(state[0])))
            counts[prompt] += 1
        return generators


def check_prompts(prompts: Sequence[Sequence[int]], vocab_size: int) -> list[list[int]]:
    """The prompts as lists of ids. Raises GenerationError where there is none, or one is empty or no list of ids."""
    if not len(prompts):
        raise GenerationError("there is no prompt to continue; give a list with at least one")
    checked = [check_ids(f"prompt {number}", prompt, vocab_size) for number, prompt in enumerate(prompts)]
    for number, prompt in enumerate(checked):
        if not prompt:
            raise GenerationError(
                f"prompt {number} is empty, and the model needs a token to start from; to start from nothing, give the "
                "token that stands between documents: [tokenizer.end_of_text]"
            )
    return checked


def check_ids(name: str, ids: Iterable[int], vocab_size: int) -> list[int]:
    """The ids as a list of whole numbers. Raises GenerationError where they are others, or unknown to the model."""
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


def check_length(longest: int, max_tokens: int, config: ModelConfig) -> None:
    """Raises GenerationError where the longest prompt and its continuation have too many positions."""
    limit = config.position_limit
    if longest + max_tokens <= limit:
        return
    fits = f"lower max_tokens to {limit - longest}" if longest < limit else f"shorten the prompt below {limit} tokens"
    raise GenerationError(
        f"{longest} prompt tokens and max_tokens={max_tokens} are more than the {limit} positions this model accepts; "
        f"{fits}. Why: {config.further_positions}"
    )
