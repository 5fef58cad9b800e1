"""Trained on 128 tokens and evaluated on up to 1,024: how well does each position encoding extrapolate?

    python -m bench.studies.extrapolation FOLDER [SEEDS]

trains small models on tales, about a minute each, that differ only in their position encoding. It evaluates them on the
same held-out tokens in windows of 1 to 8 times the training length. ALiBi has a rule of its own for six heads, not a
power of two: `alibi-duplicate` has the slopes of the first token-factored code, which end in a second 1/4 where
the paper's rule says 1/8. A study that was stopped goes on where it was. Writes bench/results/extrapolation.csv.
"""

from pathlib import Path

import pandas as pd

from bench.studies.study import name_and_seed, start, store, train_variants
from bench.timing import table
from config import ALiBiConfig, LearnedPositionConfig, NoPositionConfig, Preset, RoPEConfig, SinusoidalConfig, preset
from lab.evaluation.extrapolation import FACTORS, extrapolation

DUPLICATE = ALiBiConfig(slopes=(1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 4))
POSITIONS = {
    "none": NoPositionConfig(), "learned": LearnedPositionConfig(), "sinusoidal": SinusoidalConfig(),
    "rope": RoPEConfig(), "alibi": ALiBiConfig(), "alibi-duplicate": DUPLICATE,
}


def variants() -> dict[str, Preset]:
    model, train = preset("alibi-tiny")
    data = train.data.replace(tokenizer="bpe-512")
    train = train.replace(data=data, steps=1000, batch_size=32, learning_rate=4e-3, compile="off", optimizer="adamw")
    model = model.replace(vocab_size=512, n_heads=6, width=72, max_positions=None)
    # as in the first transformer: beside sines, embeddings of N(0, 0.02) are too small to be seen
    scaled = {"sinusoidal"}
    reach = {name: None if name == "learned" else 1024 for name in POSITIONS}  # learned ones end there
    return {
        f"positions-{name}": Preset(
            model.replace(position=position, max_positions=reach[name], embedding_scale=name in scaled), train
        )
        for name, position in POSITIONS.items()
    }


def main(folder: Path, seeds: int) -> None:
    frames = [
        extrapolation(run.load_model(), run.load_data().validation).assign(**name_and_seed(run))
        for run in train_variants(variants(), seeds, folder)
    ]
    results = pd.concat(frames)
    results["variant"] = results["variant"].str.removeprefix("positions-")
    store(results, "extrapolation.csv")
    by_length = results.groupby(["variant", "length"], sort=False)["loss"].agg(["mean", "std"])
    lengths = sorted(results["length"].unique())
    cells = [
        [name, *("does not go there" if pd.isna(by_length.loc[(name, n), "mean"]) else
                 f"{by_length.loc[(name, n), 'mean']:.3f} ± {by_length.loc[(name, n), 'std']:.3f}" for n in lengths)]
        for name in POSITIONS
    ]
    headings = ["positions", *(f"{n:,} tokens ({factor} ×)" for n, factor in zip(lengths, FACTORS))]
    print(table(f"Loss in nats per token by length, {seeds} seeds, trained on {lengths[0]}", headings, cells))


if __name__ == "__main__":
    start(main)
