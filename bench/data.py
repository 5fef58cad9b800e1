"""What a batch costs beside the step it feeds, and a BPE training beside the tokenizers library called directly."""

from statistics import median

import torch

from bench.timing import alternate, ratios, table
from bench.training import our_stepper
from config import preset
from lab.compute.training_state import TrainingState
from lab.data.bpe_training import train_bpe
from lab.data.packing import prepare
from lab.data.python_corpora import pydocs
from lab.data.tales import stories
from lab.data.tokenizer_kinds import GPT4_PATTERN
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

STORIES = 4_500  # 5 MB: with pydocs, the amount from which the shipped tokenizers were learned


def main() -> None:
    batches()
    bpe_training()


def batches(rounds: int = 20) -> None:
    """64 × 128 tokens of tales for llama-tiny."""
    model_config, config = preset("llama-tiny")
    data, counter = prepare(config.data), iter(range(10**6))
    state = TrainingState.start(model_config, config.replace(precision="bf16", device="cpu"), data)

    def batch() -> torch.Tensor:
        return torch.from_numpy(data.train.batch(0, next(counter), config.batch_size, model_config.context_length))

    calls = {"batch": batch, "step": our_stepper(state)}
    seconds = {name: median(times) for name, times in alternate(calls, rounds).items()}
    share = seconds["batch"] / seconds["step"]
    print(table("Data", ["a batch, µs", "a step, ms", "share"],
                [[f"{seconds['batch'] * 1e6:.0f}", f"{seconds['step'] * 1e3:.0f}", f"{share:.2%}"]]))


def bpe_training(rounds: int = 7) -> None:
    """Both learn the same merges from tales and pydocs. The library is given the same pattern and alphabet."""
    texts, rows = [*(story.text for story in stories(STORIES, seed=1)), *pydocs()], []
    size = sum(len(text.encode()) for text in texts) / 1e6
    for vocab_size in (2048, 8192):
        calls = {"library": lambda v=vocab_size: by_library(texts, v), "ours": lambda v=vocab_size: train_bpe(texts, v)}
        seconds = alternate(calls, rounds, warmup=1)
        library, ours = (f"{median(seconds[name]):.2f}" for name in ("library", "ours"))
        rows.append([f"{vocab_size:,}", f"{size:.1f}", library, ours, f"{ratios(seconds, 'library')['ours']:.2f} ×"])
    headings = ["vocabulary", "text, MB", "tokenizers, s", "`train_bpe`, s", "speed of `train_bpe`"]
    print(table("BPE training against the tokenizers library called directly", headings, rows))


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
