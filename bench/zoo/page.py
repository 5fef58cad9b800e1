"""The zoo's results: trained/README.md with its pictures, and the table of README.md, from the logs of what ships.

    python -m bench.zoo.page
"""

from collections.abc import Iterable

import pandas as pd

from bench.studies.extrapolation import POSITIONS
from bench.zoo.train import PAIR, SEEDS, STEPS, zoo
from lab.comparison.comparison import Comparison, compare
from lab.comparison.table import markdown
from lab.costs.estimates import si
from lab.files.atomic import atomic_write_text
from lab.runs.names import TRAINED
from settings.errors import RunError
from settings.paths import ROOT

README = ROOT / "README.md"
START, END = "<!-- written by python -m bench.zoo.page -->\n", "<!-- to here -->\n"


def comparisons() -> dict[str, Comparison]:
    """The runs of the zoo by what they were trained on. Raises RunError where one of them can't be compared."""
    made = zoo()
    found = {
        source: compare([name for name in made if made[name].train.data.source == source]) for source in STEPS
    }
    left_out = {name: reason for comparison in found.values() for name, reason in comparison.left_out.items()}
    if left_out:
        raise RunError(f"the zoo is not whole, no page is written: {left_out}; ship these runs anew")
    return found


def results(comparison: Comparison) -> pd.DataFrame:
    """A row for each configuration, in the comparison's order and not by loss, for nothing was tuned: architecture, its
    runs, parameters, loss (the mean over seeds) and sd, seeds, tokens and flops of the training."""
    facts, rows = comparison.table(), []
    for names in comparison.configurations.values():
        seeds = facts.loc[names]
        rows.append({
            "architecture": names[0].partition("-tiny-")[0], "runs": names, "seeds": len(names),
            "parameters": int(seeds["parameters"].iloc[0]), "loss": seeds["validation_loss"].mean(),
            "sd": seeds["validation_loss"].std(), "tokens": int(seeds["tokens"].iloc[0]),
            "flops": seeds["flops"].iloc[0],
        })
    return pd.DataFrame(rows)


def loss_cell(row) -> str:
    return f"{row.loss:.4f}" + (f" ± {row.sd:.4f}" if row.seeds > 1 else "")


def links(names: Iterable[str]) -> str:
    return ", ".join(f"[{name}]({name}/README.md)" for name in names)


def full_table(found: pd.DataFrame) -> str:
    rows = [
        {
            "architecture": row.architecture, "validation loss (nats per token)": loss_cell(row),
            "parameters": f"{row.parameters:,}", "FLOPs of the training": si(row.flops, "FLOP"),
            "runs": links(row.runs),
        }
        for row in found.itertuples()
    ]
    return markdown(pd.DataFrame(rows))


def short_table(found: dict[str, pd.DataFrame]) -> str:
    """Both texts side by side, an architecture in each row."""
    least, other = found["tales"]["flops"].min(), found["pydocs"].set_index("architecture")
    rows = [
        {
            "architecture": f"[{row.architecture}](trained/{row.runs[0]}/README.md)",
            "tales: loss (nats per token)": loss_cell(row),
            "pydocs: loss (nats per token)": loss_cell(other.loc[row.architecture]),
            "parameters": f"{row.parameters:,}", "FLOPs": f"{row.flops / least:.2f} ×",
        }
        for row in found["tales"].itertuples()
    ]
    return markdown(pd.DataFrame(rows))


def page(found: dict[str, pd.DataFrame], floor: float) -> str:
    """trained/README.md."""
    tales, pydocs = found["tales"], found["pydocs"]
    return f"""# The zoo

Every architecture at tiny size, trained alike: as many parameters in each (±2 %, by the width of the MLP; the two that
need five layers are narrower), the same text in the same order, one learning rate, one thread, a fixed precision.

**Nothing was tuned for any of them, so this is no ranking**: the rows follow config.py, and not the losses. One other
value of one setting can move a loss further than most architectures lie apart. `python -m bench.studies.untuned FOLDER`
shows this for the learning rate and for the weight of multi-token's further losses ([results](../README.md#results)).
{" and ".join(PAIR)}, our idea and its baseline, have {SEEDS} seeds (mean ± sd), all others one. A difference between
two single runs is about these two runs.

`python -m bench.zoo FOLDER` trains all of them again in a folder of its own and compares each with the run that ships.
On one machine and by the same code the losses are the same to the last digit. Since these were trained, the code
rounds the gradient of RMS norms differently. `python -m bench.zoo.page` wrote this page from the logs here.
The shipped weights were rounded to bfloat16 after training; the losses are those measured in training.

## Tales

{tales["tokens"].iloc[0]:,} tokens of stories. The floor, the entropy of the grammar that wrote them, is {floor:.4f}
nats per token.

{full_table(tales)}
![Loss by step of every architecture on tales](tales.png)

## Pydocs

{pydocs["tokens"].iloc[0]:,} tokens of the prose that ships with Python, several times through it. Another Python has
another text.

{full_table(pydocs)}
![Loss by step of every architecture on pydocs](pydocs.png)

## Other runs here

Seed 0 of the study of positions (`python -m bench.studies.extrapolation FOLDER 3`), read by the notebook
[positions](../notebooks/positions.ipynb): {links(f"positions-{name}-seed0" for name in POSITIONS)}.
"""


def main() -> None:
    compared = comparisons()
    found = {source: results(comparison) for source, comparison in compared.items()}
    (floor,) = compared["tales"].floors().values()
    atomic_write_text(TRAINED / "README.md", page(found, floor))
    for source, comparison in compared.items():
        comparison.curves().save(TRAINED / f"{source}.png")
    before, _, rest = README.read_text(encoding="utf-8").partition(START)
    atomic_write_text(README, before + START + short_table(found) + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
