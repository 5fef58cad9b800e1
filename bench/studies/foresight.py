"""Does seeing the future help? The future-sighted network against a plain one, and against multi-token prediction.

    python -m bench.studies.foresight FOLDER [SEEDS]

trains the three on tales, two to five minutes each, with equally many parameters and the same tokens in the same order
per seed. Then it evaluates all on the same held-out tokens. All have one learning rate and the presets' weights of
further losses. Nothing is tuned for any of them, so the results are about these settings. A study that was stopped goes
on where it was. Writes bench/results/foresight.csv.
"""

from pathlib import Path

import pandas as pd

from bench.studies.study import name_and_seed, small_llama, start, store, train_variants
from bench.timing import table
from config import FutureBlockConfig, MultiTokenBlockConfig, Preset
from lab.comparison.sweep import matched, mean_and_spread
from lab.costs.estimates import estimate
from lab.evaluation.evaluate import TOP, evaluate
from lab.evaluation.paired import paired
from lab.evaluation.probes import Answers, skills
from lab.evaluation.scores import Scores
from lab.runs.run import Run

TOKENS, STORIES = 65_536, 60


def variants() -> dict[str, Preset]:
    model, train = small_llama(width=96, n_layers=5, steps=1000, learning_rate=3e-3)
    parameters, heads = estimate(model).parameters, MultiTokenBlockConfig()
    # every model has five layers on the way to the next token
    further = model.replace(block=heads, n_layers=model.n_layers + heads.heads - 1)
    return {
        "plain": Preset(model, train),
        "future": matched(Preset(model.replace(block=FutureBlockConfig()), train), parameters),
        "multi-token": matched(Preset(further, train), parameters),
    }


def main(folder: Path, seeds: int) -> None:
    scores, rows = {}, []
    for run in train_variants(variants(), seeds, folder):
        scores[run.name], row = measured(run)
        rows.append(row)
    results = pd.DataFrame(rows)
    store(results, "foresight.csv")
    print_table(results, seeds)
    for other in ("future", "multi-token"):
        sides = ([scores[f"{name}-seed{seed}"] for seed in range(seeds)] for name in (other, "plain"))
        print(paired(*sides, labels=(other, "plain"), documents="stories"))


def measured(run: Run) -> tuple[Scores, dict]:
    """The scores of a run on held-out tokens, and its row: losses, accuracies, right answers and questions by skill."""
    model, data = run.load_model(), run.load_data()
    scores = evaluate(model, data.validation, data.tokenizer, TOKENS, TOP)
    asked = skills(model, data.tokenizer, run.train_config.data, STORIES)
    facts = estimate(run.model_config, run.train_config)
    return scores, {
        **name_and_seed(run), "parameters": facts.parameters, "training_flops": facts.training_flops,
        "loss": scores.metrics["loss"], "top_1": scores.metrics["top_1"], "top_5": scores.metrics["top_5"],
        **{f"{skill}_{name}": value for skill, found in asked.items() for name, value in vars(found).items()},
    }


def answers(results: pd.DataFrame) -> dict[str, dict[str, Answers]]:
    """By variant and skill; `right` is the mean over seeds, which answer the same questions."""
    skills = [name.removesuffix("_asked") for name in results if name.endswith("_asked")]
    return {
        variant: {
            skill: Answers(right=rows[f"{skill}_right"].mean(), asked=int(rows[f"{skill}_asked"].iloc[0]))
            for skill in skills
        }
        for variant, rows in results.groupby("variant", sort=False)
    }


def print_table(results: pd.DataFrame, seeds: int) -> None:
    values = ("loss", "top_1", "top_5")
    rows, answered = mean_and_spread(results, values), answers(results)
    flops = results.groupby("variant", sort=False)["training_flops"].first()
    cells = []
    for name, row in rows.iterrows():
        shares = [f"{row[value]:.1%} ± {row[f'{value} sd']:.1%}" for value in values[1:]]
        loss = f"{row.loss:.4f} ± {row['loss sd']:.4f}"
        cells.append([
            name, f"{row.parameters:,.0f}", f"{flops[name] / flops['plain']:.2f} ×", loss, *shares,
            *map(str, answered[name].values()),
        ])
    skills = next(iter(answered.values()))
    headings = ["model", "parameters", "FLOPs per token", "loss (nats per token)", *values[1:], *skills]
    print(table(f"Seeing the future, {seeds} seeds", headings, cells))


if __name__ == "__main__":
    start(main)
