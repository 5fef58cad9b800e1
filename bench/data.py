"""What a batch costs beside the step it feeds, and a BPE training beside the tokenizers library called directly."""

from collections.abc import Callable
from itertools import count
from statistics import median

import torch

from bench.steps import our_stepper
from bench.timing import ratios, table, time_in_turn
from config import preset
from lab.compute.training_state import TrainingState
from lab.data.bpe_training import train_bpe
from lab.data.packing import prepare
from lab.data.python_corpora import pydocs
from lab.data.tales import stories
from lab.data.tokenizer_kinds import GPT4_PATTERN
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

STORIES = 4_500  # 5 MB: with pydocs, the amount from which the shipped tokenizers were learned


def main(rounds: int = 3) -> None:
    batches(rounds)
    bpe_training(rounds)


def batch_or_step(which: str) -> Callable[[], object]:
    """A call that makes a batch of 64 × 128 tokens of tales for llama-tiny, or takes the step that it feeds."""
    model_config, config = preset("llama-tiny")
    data, counter = prepare(config.data), count()
    if which == "step":
        return our_stepper(TrainingState.start(model_config, config.replace(precision="bf16", device="cpu"), data))
    return lambda: torch.from_numpy(data.train.batch(0, next(counter), config.batch_size, model_config.context_length))


def batches(rounds: int) -> None:
    found = time_in_turn(batch_or_step, {which: (which,) for which in ("batch", "step")}, rounds)
    batch, step = (median(times) for times in found.values())
    headings = ["a batch, µs", "a step, ms", "share"]
    print(table("Data", headings, [[f"{batch * 1e6:.0f}", f"{step * 1e3:.0f}", f"{batch / step:.2%}"]]), flush=True)


def learn(who: str, vocab_size: int) -> Callable[[], object]:
    """A call that learns the merges of tales and pydocs. The library is given the same pattern and alphabet."""
    texts = [*(story.text for story in stories(STORIES, seed=1)), *pydocs()]
    return {"library": lambda: by_library(texts, vocab_size), "ours": lambda: train_bpe(texts, vocab_size)}[who]


def bpe_training(rounds: int) -> None:
    rows = []
    for vocab_size in (2048, 8192):
        seconds = time_in_turn(learn, {who: (who, vocab_size) for who in ("library", "ours")}, rounds)
        library, ours = (f"{median(times):.2f}" for times in seconds.values())
        rows.append([f"{vocab_size:,}", library, ours, f"{ratios(seconds, 'library')['ours']:.2f} ×"])
    headings = ["vocabulary", "tokenizers, s", "`train_bpe`, s", "speed of `train_bpe`"]
    print(table("BPE training against the tokenizers library called directly", headings, rows), flush=True)


def by_library(texts: list[str], vocab_size: int) -> Tokenizer:
    """A BPE without our checks, and without a tokenizer of ours made of it."""
    model = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(GPT4_PATTERN), behavior="isolated")
    model.pre_tokenizer = pre_tokenizers.Sequence([
        split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    model.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size - 1, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    ))
    return model
