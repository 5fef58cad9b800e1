"""Trained on 128 tokens, read on up to 1,024: what each position encoding makes of it.

    python -m bench.studies.extrapolation FOLDER [SEEDS]

trains small models on tales that differ in their position encoding alone, about a minute each, and reads the same
held-out tokens in windows of 1 to 8 times the training length. Six heads, so that ALiBi's slopes for a number that is
no power of two matter: `alibi-duplicate` has the slopes of the first token-factored code, which end in a second 1/4
where the paper's rule says 1/8. Stopped, it goes on where it was. Writes bench/results/extrapolation.csv.
"""

import sys
from pathlib import Path

import pandas as pd

from bench.timing import table
from config import ALiBiConfig, LearnedPositionConfig, NoPositionConfig, Preset, RoPEConfig, SinusoidalConfig, preset
from lab.comparison.sweep import sweep
from lab.evaluation.extrapolation import FACTORS, extrapolation
from lab.files.atomic import atomic_write_text
from lab.runs.run import Run
from settings.paths import ROOT

RESULTS = ROOT / "bench" / "results" / "extrapolation.csv"
DUPLICATE = ALiBiConfig(slopes=(1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 4))
POSITIONS = {
    "none": NoPositionConfig(), "learned": LearnedPositionConfig(), "sinusoidal": SinusoidalConfig(),
    "rope": RoPEConfig(), "alibi": ALiBiConfig(), "alibi-duplicate": DUPLICATE,
}  # fmt: skip


def variants() -> dict[str, Preset]:
    model, train = preset("alibi-tiny")
    data = train.data.replace(tokenizer="bpe-512")
    train = train.replace(data=data, steps=1000, batch_size=32, learning_rate=4e-3, compile="off")
    model = model.replace(vocab_size=512, n_heads=6, width=72, max_positions=None)
    # the first transformer's sines came with embeddings of their size; beside N(0, 0.02) they would drown them
    scaled = {"sinusoidal"}
    reach = {name: None if name == "learned" else 1024 for name in POSITIONS}  # learned ones end with the training
    return {
        f"positions-{name}": Preset(
            model.replace(position=position, max_positions=reach[name], embedding_scale=name in scaled), train
        )
        for name, position in POSITIONS.items()
    }


def main(folder: Path, seeds: int) -> None:
    for run, step in sweep(variants(), range(seeds), folder):
        if step.validation_loss is not None:
            print(f"{run.name}: step {step.step}, validation loss {step.validation_loss:.4f}", flush=True)
    frames = []
    for seed in range(seeds):
        for name in variants():
            run = Run.open(f"{name}-seed{seed}", folder)
            found = extrapolation(run.load_model(), run.load_data().validation)
            frames.append(found.assign(variant=name.removeprefix("positions-"), seed=seed))
    results = pd.concat(frames)
    atomic_write_text(RESULTS, results.to_csv(index=False, float_format="%.5f"))
    by_length = results.groupby(["variant", "length"], sort=False)["loss"].agg(["mean", "std"])
    lengths = sorted(results["length"].unique())
    cells = [
        [name, *("does not go there" if pd.isna(by_length.loc[(name, n), "mean"]) else
                 f"{by_length.loc[(name, n), 'mean']:.3f} ± {by_length.loc[(name, n), 'std']:.3f}" for n in lengths)]
        for name in POSITIONS
    ]  # fmt: skip
    headings = ["positions", *(f"{n:,} tokens ({factor} ×)" for n, factor in zip(lengths, FACTORS))]
    print(table(f"Loss in nats per token by length, {seeds} seeds, trained on {lengths[0]}", headings, cells))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
