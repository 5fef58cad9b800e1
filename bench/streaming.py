"""What a streamed set costs: tokenising it beside tiktoken's own batches, memory by its size, a batch beside its step.

    python -m bench streaming

The peak memory while a source of so many GB is tokenised, with its shards and its MB of text a second:

    python -m bench.streaming --generated GB
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import median

import psutil

from bench.own_cache import own_cache
from config import DataConfig, preset
from lab.data.hub_sets import Document, HubSet, Place
from lab.data.shards import Shards
from lab.data.tales import story
from lab.data.token_stream import TokenStream
from lab.data.tokenizers import load_tokenizer
from settings.hub import HubConfig

SHARD = 2_000_000  # tokens of a shard
TOKENIZER = "bpe-8192"
N_TALES = 20_000


class Generated:
    """A source of `size` bytes: tales, each with its number, made as they are read."""

    where = about = "generated tales"

    def __init__(self, size: int):
        self.size, self.fingerprint = size, f"generated {size}"
        self.tales = [story(index, 0).text for index in range(2000)]

    def documents(self, place: Place) -> Iterator[Document]:
        mean = sum(map(len, self.tales)) / len(self.tales)
        for number in range(place.documents, int(self.size / mean)):
            yield Document(f"{self.tales[number % len(self.tales)]} {number}", Place(None, 0, number))


def of_parquet(folder: Path) -> HubSet:
    """A set whose rows `datasets` reads from a local file, as it reads those of the hub."""
    import pyarrow
    from datasets import load_dataset
    from pyarrow import parquet

    texts = [story(index, 0).text for index in range(N_TALES)]
    parquet.write_table(pyarrow.table({"text": texts}), folder / "tales.parquet", row_group_size=1000)
    found = HubSet.find(DataConfig(source="hub:bench/tales", hub=HubConfig(revision="0" * 40)))
    vars(found)["stream"] = load_dataset(
        "parquet", data_files=str(folder / "tales.parquet"), split="train", streaming=True
    )
    return found


def tokenising(rounds: int) -> list[str]:
    """Bytes of text a second, ours and tiktoken's, round by round on the same documents."""
    ours, theirs = [], []
    with own_cache() as folder:
        source, tokenizer = of_parquet(folder), load_tokenizer(TOKENIZER)
        texts = [text for text, _ in source.documents()]
        for turn in range(rounds + 1):
            start = time.perf_counter()
            shards = Shards(source, tokenizer, 0.05, SHARD + turn)
            sides = shards.open(0), shards.validation()
            ours.append(sum(side.n_bytes for side in sides) / (time.perf_counter() - start))
            same = texts[: sum(side.n_documents for side in sides)]
            start = time.perf_counter()
            tokenizer.encoding.encode_ordinary_batch(same, num_threads=os.cpu_count())
            theirs.append(sum(len(text.encode()) for text in same) / (time.perf_counter() - start))
    share = median(one / other for one, other in zip(ours[1:], theirs[1:]))
    return [f"{median(ours[1:]) / 1e6:.1f}", f"{median(theirs[1:]) / 1e6:.1f}", f"{share:.2f}"]


def peak_memory(gigabytes: float) -> list[str]:
    """The peak memory in MB of a process that makes all shards of a generated source, and its MB of text a second."""
    command = [sys.executable, "-m", "bench.streaming", "--generated", str(gigabytes)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def make_all(gigabytes: float) -> list[str]:
    with own_cache():
        start, source = time.perf_counter(), Generated(int(gigabytes * 1e9))
        shards = Shards(source, load_tokenizer(TOKENIZER), 0.005, SHARD)
        number = done = peak = 0
        while done < source.size * 0.98:
            done += shards.open(number).n_bytes
            peak = max(peak, psutil.Process().memory_info().rss)
            number += 1
        seconds = time.perf_counter() - start
    return [f"{gigabytes:g}", f"{number}", f"{peak / 1e6:.0f}", f"{done / seconds / 1e6:.1f}"]


def measure_batch_or_step(which: str) -> float:
    """Seconds of a batch of 64 × 128 tokens from a stream, or of llama-tiny's step."""
    import torch

    from bench.steps import our_stepper
    from bench.timing import seconds_per_call
    from lab.compute.training_state import TrainingState
    from lab.data.packing import prepare

    model_config, config = preset("llama-tiny")
    if which == "step":
        config = config.replace(precision="bf16", device="cpu")
        return seconds_per_call(our_stepper(TrainingState.start(model_config, config, prepare(config.data))))
    with own_cache():
        stream = TokenStream(Shards(Generated(10**9), load_tokenizer("bpe-2048"), 0.05, SHARD))
        numbers = count()

        def batch() -> torch.Tensor:
            return torch.from_numpy(stream.batch(0, next(numbers), config.batch_size, model_config.context_length))

        found = seconds_per_call(batch)
        stream.close()
    return found


def batches(rounds: int) -> list[str]:
    """A batch from a stream beside llama-tiny's step."""
    from bench.timing import in_turn

    times = in_turn(measure_batch_or_step, {which: (which,) for which in ("batch", "step")}, rounds)
    batch_time, step = median(times["batch"]), median(times["step"])
    return [f"{batch_time * 1e6:.0f}", f"{step * 1e3:.0f}", f"{batch_time / step:.2%}"]


def main(rounds: int = 3, sizes: tuple[float, ...] = (0.1, 0.4)) -> None:
    from bench.timing import table

    headings = ["streamed and stored, MB/s", "tiktoken's batch alone, MB/s", "ratio"]
    print(table("Tokenising a stream", headings, [tokenising(rounds)]))
    headings = ["source, GB", "shards", "peak memory, MB", "MB/s"]
    print(table("Memory by the size of the source", headings, [peak_memory(size) for size in sizes]))
    print(table("A batch from a shard", ["a batch, µs", "a step, ms", "share"], [batches(rounds)]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--generated", type=float, required=True, help="GB of text")
    print(json.dumps(make_all(parser.parse_args().generated)))
