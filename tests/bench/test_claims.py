"""What README's results say is what the studies' rows say, and no more: numbers, order, and the words that rank."""

import re

import pandas as pd
import pytest

from bench.studies.foresight import answers
from bench.studies.untuned import RATES, WEIGHTS, variants
from bench.zoo.train import settings
from config import list_models
from lab.comparison.sweep import mean_and_spread
from lab.runs.names import TRAINED
from settings.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "bench" / "results"


def study(name: str) -> str:
    """The text of one study, from its bold name to the next one's or to the next heading."""
    text = README[README.index(f"**{name}**") :]
    return re.split(r"\n(?=\*\*[A-Z][a-z ]+\.\*\* |## )", text)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    ruled = {i for i, line in enumerate(lines) if set(line) <= set("| -")}
    kept = [line for i, line in enumerate(lines) if not {i, i + 1} & ruled]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in kept]


def spread(mean: float, sd: float, digits: int) -> str:
    return f"{mean:.{digits}f} ± {sd:.{digits}f}"


def signed(share: float) -> str:
    return f"{100 * share:+.1f} %".replace("-", "−")


def test_the_zoo_is_listed_in_the_order_of_config_and_said_to_be_no_ranking():
    for text in (study("The zoo."), (TRAINED / "README.md").read_text(encoding="utf-8")):
        architectures = [re.sub(r"\[(.*)\].*", r"\1", cells[0]) for cells in rows(text)]
        assert architectures == list_models() * (len(architectures) // len(list_models()))
        said = re.sub(r"\s+", " ", text)
        assert "Nothing was tuned for any of them, so this is no ranking" in said
        assert "between two single runs is about these two runs" in said


def test_one_setting_moves_losses_by_what_readme_says():
    losses = pd.read_csv(RESULTS / "untuned.csv").set_index("variant")["validation_loss"]
    text, names = study("One setting."), list(variants())
    assert list(losses.index) == names
    for (model, _, loss), name in zip(rows(text), names, strict=True):
        assert name.startswith(model) and loss == f"{losses[name]:.4f}"
    llama, fast_llama, sasp, fast_sasp, heavy, light = losses
    said = re.sub(r"\s+", " ", text)
    assert f"sasp ends {sasp - llama:.2f} nats above llama" in said
    assert f"at three times that rate {fast_llama - fast_sasp:.2f} below it" in said
    assert f"the better of its two rates, {min(sasp, fast_sasp) - min(llama, fast_llama):.2f} above" in said
    assert f"takes {heavy - light:.2f} of the {heavy - llama:.2f} nats" in said


def test_that_study_changes_one_setting_of_the_zoo():
    for name, (model, train) in variants().items():
        zoo = settings(re.match(r"llama|sasp|multi-token", name)[0], "tales")
        assert train.replace(steps=zoo.train.steps, schedule=zoo.train.schedule, learning_rate=RATES[0]) == zoo.train
        if "weight" in name:
            model = model.replace(block=model.block.replace(loss_weight=WEIGHTS[0]))
        assert model == zoo.model


def test_mixings_are_what_the_rows_say():
    found = pd.read_csv(RESULTS / "mixings.csv")
    table, losses = mean_and_spread(found), found.groupby("variant")["validation_loss"]
    dense = table.loc["dense", "validation_loss"]
    factors = pd.read_csv(RESULTS / "amplification.csv").groupby(["variant", "factor"])["ratio"].mean()
    for name, loss, against, _, amplified in rows(study("Two streams.")):
        row = table.loc[name.removesuffix(" block")]
        assert loss == spread(row["validation_loss"], row["validation_loss sd"], 4)
        assert against == ("" if name == "dense" else signed(row["validation_loss"] / dense - 1))
        shares = [f"{100 * (factors[row.name, k] - 1):+.0f}" for k in (2, 4, 8, 16)]
        assert amplified == " / ".join(shares) + " %"
    low, high = losses.min(), losses.max()
    assert low["independent"] > high["dense"] and high["identity"] < low["dense"], "in all three seeds"
    assert low["kronecker"] < low["dense"] < high["kronecker"], "these overlap"
    assert low["kronecker"] < low["standard"] < high["kronecker"], "no cost can be told"
    assert factors[:, 16].min() > 1.27


def test_longer_texts_are_what_the_rows_say():
    names = {
        "RoPE": "rope",
        "ALiBi": "alibi",
        "ALiBi, a slope doubled as in the first factored code": "alibi-duplicate",
    }
    found = pd.read_csv(RESULTS / "extrapolation.csv").groupby(["variant", "length"])["loss"].agg(["mean", "std"])
    for name, *cells in rows(study("Longer than the training.")):
        losses = found.loc[names.get(name, name)].dropna()
        expected = [spread(*row, 3) for row in losses.to_numpy()]
        assert cells[: len(expected)] == expected
        assert cells[len(expected) :] == ["does not go there", "", ""][: 4 - len(expected)]


def test_foresight_is_what_the_rows_say_with_questions_and_intervals():
    found, text = pd.read_csv(RESULTS / "foresight.csv"), study("Seeing the future.")
    table = mean_and_spread(found, ("loss", "top_1", "top_5"))
    flops = found.groupby("variant")["training_flops"].first()
    losses, asked = rows(text)[:3], rows(text)[3:6]
    for (name, *cells), (variant, row) in zip(losses, table.iterrows()):
        assert name.startswith(variant)
        shares = [f"{100 * row[top]:.1f} %" for top in ("top_1", "top_5")]
        assert cells == [spread(row["loss"], row["loss sd"], 4), *shares, f"{flops[variant] / flops['plain']:.2f} ×"]
    by_variant = answers(found)
    for (name, *cells), (variant, skills) in zip(asked, by_variant.items()):
        assert name.startswith(variant)
        for cell, one in zip(cells, skills.values(), strict=True):
            assert cell == str(one).replace(f" of {one.asked}", "").replace(": tells nothing", "")
    for skill, one in by_variant["plain"].items():
        assert f"{skill}, {one.asked} questions" in text
        told = {skills[skill].can_be_told for skills in by_variant.values()}
        assert told == {skill == "pronoun"}, "README says which intervals hold 50 %"
    ends = [skills["pronoun"].interval for skills in by_variant.values()]
    assert max(low for low, _ in ends) < min(high for _, high in ends), "the three intervals overlap"


POOLS = {
    "sum": "pool-sum", "mean, attention": "pool-mean pool-attention", "max": "pool-max",
    "parametric sum / max": "pool-parametric_sum pool-parametric_max",
    "convolution / self-attention / flatten": "pool-convolution pool-self_attention pool-flatten",
    "bag": "pool-mean", "multi-hot": "predicts-multi_hot", "vectors, cosine": "predicts-vector_cosine",
    "vectors, squared": "predicts-vector_squared", "0.03": "weight-0.03", "0.1": "pool-mean", "0.3": "weight-0.3",
    "1.0": "weight-1.0",
}


def test_pools_are_what_the_rows_say():
    losses = pd.read_csv(RESULTS / "pools.csv").set_index("variant")["validation_loss"]
    text, said = study("Seeing the future."), {}
    for cells in rows(text)[6:]:
        said |= dict(zip(cells[::2], cells[1::2]))
    assert f"plain model's {losses['plain']:.4f}" in text and set(said) - {""} == set(POOLS)
    for label, names in POOLS.items():
        above = [f"{losses[name] - losses['plain']:+.3f}" for name in names.split()]
        assert said[label] == " / ".join(dict.fromkeys(above)), label


def test_students_are_what_the_rows_say():
    runs = pd.read_csv(RESULTS / "distillation.csv")
    differences = pd.read_csv(RESULTS / "distillation_differences.csv").set_index("variant")
    losses, text = mean_and_spread(runs), study("Taught or alone.")
    ways, signs = ["alone", "logits", "logits-and-states", "blocks"], {}
    for (_, rate, loss, against, by_seed), way in zip(rows(text), ways, strict=True):
        assert loss == spread(losses.loc[way, "validation_loss"], losses.loc[way, "validation_loss sd"], 4)
        assert {float(rate)} == set(runs[runs["variant"] == way]["learning_rate"])
        if way != "alone":
            found = differences.loc[way]
            said = f"{found.difference:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
            assert against.replace("*", "") == said.replace("-", "−")
            single = [float(one) for one in found.by_seed.split()]
            assert by_seed == " ".join(f"{one:+.2f}" for one in single).replace("-", "−")
            signs[way] = {one < 0 for one in single}
    assert signs == {"logits": {True, False}, "logits-and-states": {True}, "blocks": {True}}
    tuned = runs.set_index(["variant", "seed"])["validation_loss"]["alone-rate0.008", 100]
    assert f"the student alone ended at {tuned:.4f}" in re.sub(r"\s+", " ", text)
    teacher = losses.loc["teacher", "validation_loss"]
    assert f"({teacher:.3f} nats per token)" in re.sub(r"\s+", " ", text)


def test_drafts_are_what_the_rows_say():
    found, text = pd.read_csv(RESULTS / "speculation.csv"), study("Drafts.")
    for cells, row in zip(rows(text), found.itertuples(), strict=True):
        assert cells == [
            row.model.removesuffix("-seed0").replace("model-", "6 × "), f"{row.draft_size:.3f} ×", str(row.drafts),
            f"{100 * row.acceptance:.0f} %", f"{row.tokens_per_pass:.2f}", f"{row.cost:.2f} plain steps",
            f"{row.speed:.2f} ×",
        ]
    assert found["speed"].max() < 1.1 and found["acceptance"].between(0.5, 0.6).all(), "hardly faster; half are kept"


@pytest.mark.parametrize("page", ["README.md", "trained/README.md"])
def test_no_page_claims_what_nobody_measured(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not re.findall(r"literature finds|by far|beats|beaten", text)
