"""Comparisons: which runs are chosen, which are left out and why, the table and its remarks."""

import math
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from config import FactoredBlockConfig, RoPEConfig, SinusoidalConfig
from lab.comparison.chosen_runs import group_name
from lab.comparison.comparison import compare
from lab.comparison.plots import CurveView
from lab.comparison.table import readable_table
from lab.costs.estimates import estimate
from lab.data.tokenizers import bpe_tokenizer
from lab.evaluation.evaluate import evaluate
from lab.evaluation.paired import paired
from lab.runs.run import Run
from lab.terminal import main
from modules.transformer import Transformer
from settings.errors import ConfigError, RunError
from settings.paths import ROOT
from tests.helpers.small_runs import DATA, MODEL, TRAIN, make_run

WIDE = MODEL.replace(width=32, position=RoPEConfig(theta=500.0))
BPE = (MODEL.replace(vocab_size=512), TRAIN.replace(data=DATA.replace(tokenizer="bpe-512")))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two seeds of one configuration, a wider one, and one with sines."""
    folder = tmp_path_factory.mktemp("made")
    make_run(folder, "plain-seed0")
    make_run(folder, "plain-seed1", train=TRAIN.replace(seed=1))
    make_run(folder, "wide", WIDE, TRAIN.replace(seed=2))
    make_run(folder, "sines", MODEL.replace(position=SinusoidalConfig()), TRAIN.replace(seed=3))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(made, cache, tmp_path, monkeypatch):
    """A copy of these runs, which a test may damage."""
    monkeypatch.setenv("GLASSBOX_CACHE", str(cache))
    return shutil.copytree(made, tmp_path / "runs")


# --- the chosen runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen, names",
    [
        (None, ["plain-seed0", "plain-seed1", "sines", "wide"]),
        ("wide", ["wide"]),
        ("plain-*", ["plain-seed0", "plain-seed1"]),
        (["wide", "plain-seed?"], ["wide", "plain-seed0", "plain-seed1"]),
        ("parameters < 13_000 and train.seed > 0", ["plain-seed1", "sines"]),
        ("model.position.kind == 'rope' and not model.width < 20", ["wide"]),
        ("`model.position.theta` == 500 or architecture == 'none of these'", ["wide"]),
        ("parameters > 1e9", []),
        (" or ".join(["parameters > 20_000"] * 20), ["wide"]),
    ],
)
def test_runs_are_chosen_by_name_glob_or_query(folder, chosen, names):
    comparison = compare(chosen, folder)
    assert list(comparison.runs) == names and comparison.left_out == {}


def test_a_run_itself_or_its_folder_can_be_given(folder, monkeypatch):
    assert list(compare([Run.open("wide", folder), folder / "sines"]).runs) == ["wide", "sines"]
    monkeypatch.chdir(folder)
    assert list(compare(["wide", Path("wide"), "./wide"], folder).runs) == ["wide"], "the same one, however named"
    other = make_run(folder.parent / "elsewhere", "wide")
    with pytest.raises(RunError, match="two runs are named 'wide'"):
        compare([other, "wide"], folder)


@pytest.mark.parametrize(
    "chosen, error, message",
    [
        ("wied", RunError, "no run 'wied' in .*did you mean 'wide'"),
        ("wied-*", RunError, r"no run 'wied-\*'"),
        ("parametres < 3", ConfigError, r"no query that can be asked \(.*parametres.* is not defined\)"),
        ("parameters <", ConfigError, "no query that can be asked"),
        ("parameters + 3", ConfigError, "no query that can be asked"),
    ],
)
def test_a_choice_of_nothing_is_an_error(folder, chosen, error, message):
    with pytest.raises(error, match=message):
        compare(chosen, folder)


@pytest.mark.parametrize(
    "query",
    [
        "@os.system('touch {}')", "@pd.io.common.os.system('touch {}') == 0", "__import__('os').system('touch {}')",
        "parameters.__class__ == 1", "architecture.map(print) == 1", "`train.seed`.map(print) == 1", "[x for x in ()]",
        "(lambda: 1)() == 1", "parameters[0] == 1", "f'{parameters}' == '1'", "(x := 1) == 1", "parameters ** 2 > 1",
        "architecture == '`' + @x + '`'", "architecture == 'a' `@x`", "`train.seed` + `@os.system('touch {}')` > 0",
        "train.seed.real == 0", "index == 'wide'", "True and open('{}', 'w')", "parameters in globals()",
        "parameters > 1; import os", "not " * 5000 + "True", "(" * 500 + "parameters" + ")" * 500, "\0parameters > 1",
    ],
)
def test_a_query_compares_and_runs_nothing(folder, tmp_path, query, capfd):
    with pytest.raises(ConfigError, match="no query that can be asked"):
        compare(query.replace("{}", str(tmp_path / "touched")), folder)
    with pytest.raises(ConfigError, match="no query that can be asked"):
        compare("@os.system('true')", tmp_path / "none")  # nor where there are no runs
    assert not (tmp_path / "touched").exists() and capfd.readouterr().out == ""


def test_texts_of_a_query_are_left_as_they_are(folder):
    make_run(folder, "asking", train=TRAIN.replace(sample_prompt="model.width > @x `y`"))
    assert list(compare("train.sample_prompt == 'model.width > @x `y`'", folder).runs) == ["asking"]
    wide = "`model.width` in [32, 64] and not (architecture == 'gpt2' or -train.seed > 0)"
    assert list(compare(wide, folder).runs) == ["wide"]


# --- the runs left out ------------------------------------------------------------------------------------------


def edit(path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def set_value(run: Run, column: str, value: object) -> None:
    log = pd.read_csv(run.log_path).astype(object)
    log.loc[7, column] = value
    log.to_csv(run.log_path, index=False)


def drop_column(run: Run, column: str) -> None:
    pd.read_csv(run.log_path).drop(columns=column).to_csv(run.log_path, index=False)


DAMAGES = {
    "no log": (lambda run: run.log_path.unlink(), "has not been trained yet"),
    "zero steps": (lambda run: run.log_path.write_text(run.log_path.read_text().split("\n")[0] + "\n"), "no step"),
    "empty log": (lambda run: run.log_path.write_text(""), "log_data.csv .* is damaged"),
    "torn log": (lambda run: run.log_path.write_text('a,b\n1,"2\n3,4,5,6\n7\n'), "log_data.csv"),
    "log of no text": (lambda run: run.log_path.write_bytes(b"\xff\xfe\x00\n" * 9), "log_data.csv .* is damaged"),
    "missing loss": (lambda run: drop_column(run, "loss"), "lacks the columns loss"),
    "missing seconds": (lambda run: drop_column(run, "seconds"), "lacks the columns seconds"),
    "NaN": (lambda run: set_value(run, "loss", None), "loss is nan in row 8"),
    "infinite": (lambda run: set_value(run, "loss", "inf"), "loss is inf in row 8"),
    "words": (lambda run: set_value(run, "loss", "three"), "loss is 'three' in row 8"),
    "words for validation": (lambda run: set_value(run, "validation_loss", "x"), "validation_loss is 'x' in row 8"),
    "steps fall": (lambda run: set_value(run, "step", 3), "steps don't rise"),
    "architecture": (
        lambda run: edit(run.folder / "model_config.json", '"residual"', '"quantum"'), "unknown kind 'quantum'"),
    "setting": (
        lambda run: edit(run.folder / "train_config.json", '"steps"', '"leap": 3, "steps"'), "unknown setting 'leap'"),
    "tokenizer": (lambda run: edit(run.folder / "tokenizer.json", '"byte"', '"qubit"'), "is damaged"),
    "no config": (lambda run: (run.folder / "model_config.json").unlink(), "it has no model_config.json"),
    "no weights": (lambda run: run.weights_path.unlink(), "model.safetensors is missing"),
    "pickle": (lambda run: run.weights_path.write_bytes(pickle.dumps({"a": 1})), "not a whole safetensors file"),
    "weights cut": (
        lambda run: run.weights_path.write_bytes(run.weights_path.read_bytes()[:-9]), "not a whole safetensors file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_listed_with_the_reason_and_stops_no_other(folder, damage):
    spoil, reason = DAMAGES[damage]
    spoil(Run.open("wide", folder))
    comparison = compare(None, folder)
    assert list(comparison.runs) == list(comparison.table().index) == ["plain-seed0", "plain-seed1", "sines"]
    assert list(comparison.left_out) == ["wide"]
    assert re.search(reason, comparison.left_out["wide"])
    for text in (repr(comparison), comparison._repr_html_()):
        assert "left out: wide: " in text
    assert list(compare("parameters > 0", folder).left_out) == ["wide"]
    with pytest.raises(RunError, match="'wide' was left out: "):
        comparison.paired("wide", "sines")


def test_what_only_measuring_shows_is_listed_then(folder):
    shutil.copy(folder / "sines" / "model.safetensors", folder / "wide" / "model.safetensors")
    (folder / "sines" / "tokenizer.json").write_text(bpe_tokenizer("byte", []).to_json(), encoding="utf-8")
    comparison = compare(None, folder).evaluate(200)
    assert list(comparison.runs) == list(comparison.evaluated) == ["plain-seed0", "plain-seed1"]
    assert "does not fit its model_config.json" in comparison.left_out["wide"]
    assert "another tokenizer" in comparison.left_out["sines"]


def test_a_log_that_lost_rows_is_never_compared_as_whole(folder):
    for name, lost in {"plain-seed0": slice(20, 21), "wide": slice(31, None)}.items():
        log = folder / name / "log_data.csv"
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        del lines[lost]
        log.write_text("".join(lines), encoding="utf-8")
    comparison = compare(None, folder)
    assert list(comparison.runs) == ["plain-seed1", "sines"]
    assert "lost rows: step 21 follows step 19" in comparison.left_out["plain-seed0"]
    assert "lost rows: it ends at step 30 before 40" in comparison.left_out["wide"]


def test_no_run_left_is_still_an_answer(folder):
    for name in ("plain-seed0", "plain-seed1", "sines", "wide"):
        (folder / name / "model.safetensors").unlink()
    comparison = compare(None, folder)
    assert "no run to compare" in repr(comparison) and repr(comparison).count("left out: ") == 4
    assert len(comparison.evaluate(100).table()) == 0 and "no run" in comparison._repr_html_()


# --- the table --------------------------------------------------------------------------------------------------


def test_the_table_holds_what_differs_and_what_it_took(folder):
    table = compare(["plain-seed0", "wide"], folder).table()
    facts = ["validation_loss", "parameters", "tokens", "seconds", "flops", "tokens_per_second", "memory"]
    assert [name for name in table if "." not in name] == facts, "the architecture is the same"
    assert set(table) - set(facts) == {"model.width", "model.position.theta", "train.seed"}
    wide, log = table.loc["wide"], pd.read_csv(folder / "wide" / "log_data.csv")
    parameters = sum(parameter.numel() for parameter in Transformer(WIDE).parameters())
    assert (wide["parameters"], wide["tokens"], wide["seconds"]) == (parameters, 40 * 32, 20.0)
    assert (wide["tokens_per_second"], wide["memory"]) == (64.0, 40_000)
    assert wide["flops"] == 40 * 32 * estimate(WIDE).training_flops
    assert wide["validation_loss"] == pytest.approx(log["loss"].iloc[-1])


def test_a_setting_of_one_variant_alone_does_not_differ(folder):
    table = compare(["plain-seed0", "sines"], folder).table()
    assert set(table["model.position.kind"]) == {"rope", "sinusoidal"}
    assert "model.position.theta" not in table, "both have 10,000"
    make_run(folder, "factored", MODEL.replace(block=FactoredBlockConfig(value_mixing="dense")))
    table = compare(["plain-seed0", "factored"], folder).table()
    assert "model.block.kind" in table and "model.block.value_mixing" not in table, "the kind says it"


def test_rows_are_sorted_by_any_column(folder):
    comparison = compare(None, folder)
    rising, falling = (list(comparison.table(sort)["parameters"]) for sort in ("parameters", "-parameters"))
    assert rising == sorted(rising) and falling == rising[::-1]
    kinds = list(comparison.table("model.position.kind")["model.position.kind"])
    assert kinds == sorted(kinds)
    with pytest.raises(ConfigError, match=r"no column 'loss' .* evaluate the comparison first"):
        comparison.table("loss")


def test_evaluation_adds_the_metrics_of_the_same_tokens(folder):
    comparison = compare(["plain-seed0", "wide"], folder).evaluate(300, top=(1, 7), stories=1)
    table = comparison.table(sort="loss")
    for name in ("plain-seed0", "wide"):
        run = Run.open(name, folder)
        expected = evaluate(run.load_model(), comparison.load_data(name).validation, run.tokenizer, 300, top=(1, 7))
        errors = expected.standard_errors()
        for metric in ("loss", "perplexity", "bits_per_byte", "top_1", "top_7"):
            assert table.loc[name, metric] == expected.metrics[metric]
            error = table.loc[name, f"{metric}_error"]
            assert error == errors[metric] or (math.isnan(error) and expected.n_documents == 1)
    assert list(table["loss"]) == sorted(table["loss"])
    for name, answered in comparison.skills.items():
        for skill, answers in answered.items():
            row = table.loc[name, [f"skill {skill}{end}" for end in ("", "_low", "_high", "_asked")]]
            assert list(row) == [answers.share, *answers.interval, answers.asked]
            assert str(answers).startswith(readable_table(table).loc[name, f"skill {skill}"].removesuffix(")"))
    assert {name for name in readable_table(table) if name.startswith("skill ")} >= {"skill name"}
    assert "chance is 50 %" in repr(comparison) and "chance" not in repr(comparison.evaluate(300))
    again = compare(["plain-seed0", "wide"], folder).evaluate(300, top=(1, 7), stories=1).table(sort="loss")
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    assert "metrics on 300 held-out tokens in" in repr(comparison)


def test_errors_stand_beside_their_metrics(folder):
    comparison = compare("plain-*", folder).evaluate(3000)
    row, cells = comparison.table().iloc[0], readable_table(comparison.table()).iloc[0]
    assert cells["loss (nats)"] == f"{row['loss']:.4f} ± {row['loss_error']:.4f}"
    assert cells["top 1"] == f"{100 * row['top_1']:.2f} % ± {100 * row['top_1_error']:.2f} %"
    assert (cells["training time"], cells["memory"]) == ("20 s", "40.0 kB") and cells["seed"] == "0"


def test_different_tokenizers_compare_in_bits_per_byte_of_the_same_documents(folder):
    make_run(folder, "bpe", *BPE)
    comparison = compare(["plain-seed0", "bpe"], folder)
    assert comparison.table()["validation_loss"].isna().all()
    assert "tales by bpe-512; tales by byte" in repr(comparison) and "bits per byte alone" in repr(comparison)
    assert ".evaluate() measures them" in repr(comparison)
    table = comparison.evaluate(4000).table()
    assert table[["validation_loss", "loss", "perplexity", "top_1", "loss_error"]].isna().all(axis=None)
    texts = comparison.load_data("bpe").tokenizer.decode(comparison.load_data("bpe").validation.tokens.tolist())
    n_documents = {scores.n_documents for scores in comparison.evaluated.values()}
    sizes = [len(text.encode()) for text in texts.split("<|endoftext|>")]
    assert len(n_documents) == 1 and {int(s.n_bytes.sum()) for s in comparison.evaluated.values()} == {
        sum(sizes[1 : 1 + n_documents.pop()])
    }, "of the very same documents, the first one and the one cut off left out"
    for name in ("plain-seed0", "bpe"):
        scores = comparison.evaluated[name]
        expected = float(scores.losses.sum(dtype=float)) / math.log(2) / int(scores.n_bytes.sum())
        assert table.loc[name, "bits_per_byte"] == pytest.approx(expected, rel=1e-12)


def test_different_data_are_said_to_be_different(folder):
    make_run(folder, "other", train=TRAIN.replace(data=DATA.replace(seed=5)))
    comparison = compare(["plain-seed0", "other"], folder).evaluate(200)
    assert "each run's on its own held-out text" in repr(comparison)
    assert comparison.table()["loss"].isna().all() and comparison.table()["bits_per_byte"].notna().all()
    with pytest.raises(ConfigError, match="held-out documents of plain-seed0 are not those of other"):
        comparison.paired("plain-seed0", "other")


def test_validation_losses_on_other_numbers_of_tokens_are_left_blank(folder):
    make_run(folder, "longer", train=TRAIN.replace(evaluation_tokens=128))
    comparison = compare(["plain-seed0", "longer"], folder)
    assert comparison.table()["validation_loss"].isna().all() and "train.evaluation_tokens" in repr(comparison)
    assert comparison.evaluate(200).table()["loss"].notna().all()


def test_a_stopped_run_is_said_to_be_stopped(folder):
    make_run(folder, "half", n_steps=20)
    assert "half was stopped at step 20 of 40" in repr(compare(["half", "wide"], folder))


# --- exports ----------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluated(folder):
    make_run(folder, "cut", n_steps=20)
    return compare(None, folder).evaluate(2500)


def test_csv_reads_back_equal(evaluated, tmp_path):
    evaluated.export(tmp_path / "table.csv", sort="loss")
    table = evaluated.table("loss")
    back = pd.read_csv(tmp_path / "table.csv", index_col="run", dtype=str, keep_default_na=False)
    assert list(back.index) == list(table.index)
    for name in table.columns:
        kind = float if table[name].dtype.kind == "f" else str
        assert [kind(value) for value in back[name]] == [kind(value) for value in table[name]], name


def test_markdown_reads_back_equal(evaluated, tmp_path):
    evaluated.export(tmp_path / "table.md")
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    expected = readable_table(evaluated.table()).reset_index()
    assert rows[0] == list(expected.columns) and rows[2:] == expected.to_numpy().tolist()
    assert [line.removeprefix("- ") for line in lines if line.startswith("- ")] == evaluated.remarks != []


def test_latex_reads_back_equal(evaluated, tmp_path):
    evaluated.export(tmp_path / "table.tex")
    lines = (tmp_path / "table.tex").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.removesuffix(r"\\").split(" & ")] for line in lines if line.endswith(r"\\")]
    cells = [[cell.replace(r"\_", "_").replace(r"\%", "%") for cell in row] for row in cells]
    expected = readable_table(evaluated.table()).reset_index()
    assert cells == [list(expected.columns), *expected.to_numpy().tolist()]
    assert [line.removeprefix("% ") for line in lines if line.startswith("% ")] == evaluated.remarks


def test_another_kind_of_file_is_refused(evaluated, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.csv, \.md, \.tex"):
        evaluated.export(tmp_path / "table.xlsx")
    assert not (tmp_path / "table.xlsx").exists()


# --- two against each other, and the terminal -------------------------------------------------------------------


def test_paired_takes_names_and_seeds(folder):
    comparison = compare(None, folder)
    found = comparison.paired(["plain-seed0", "plain-seed1"], "wide", max_tokens=3000)
    sides = [[comparison.score(name, 3000) for name in names] for names in (["plain-seed0", "plain-seed1"], ["wide"])]
    expected = paired(*sides, labels=("plain (2 seeds)", "wide"), documents="stories")
    assert str(found) == str(expected) and "stories" in str(found) and "for the 2 of plain (2 seeds)" in str(found)
    with pytest.raises(ConfigError, match="several that differ in their seed alone, not wide, sines"):
        comparison.paired(["wide", "sines"], "plain-seed0")
    with pytest.raises(RunError, match="'wied' is not in this comparison; did you mean 'wide'"):
        comparison.paired("wied", "sines")


def test_the_best_is_held_against_each_other_configuration(folder):
    comparison = compare(None, folder)
    losses = {name: comparison.score(name, 3000).metrics["loss"] for name in comparison.runs}
    means = {"wide": losses["wide"], "sines": losses["sines"],
             "plain (2 seeds)": (losses["plain-seed0"] + losses["plain-seed1"]) / 2}
    best, *others = sorted(means, key=means.get)
    found = comparison.against_best(3000)
    assert [(one.a, one.b) for one in found] == [(best, other) for other in others]
    assert [one.difference for one in found] == pytest.approx([means[best] - means[other] for other in others])
    with pytest.raises(ConfigError, match="needs two configurations that can be scored, not plain \\(2 seeds\\)"):
        compare("plain-*", folder).against_best(3000)


def test_configurations_of_one_stem_stay_apart(folder):
    for name, train in {"a-1": TRAIN, "a-2": TRAIN.replace(seed=1), "a-3": TRAIN.replace(learning_rate=2e-3),
                        "a-4": TRAIN.replace(learning_rate=2e-3, seed=1)}.items():
        make_run(folder, name, train=train)
    comparison = compare("a-*", folder)
    assert comparison.configurations == {"a-1, a-2": ["a-1", "a-2"], "a-3, a-4": ["a-3", "a-4"]}
    assert [line.name for line in comparison.curve_data(CurveView(smoothing=1)).lines] == ["a-1, a-2", "a-3, a-4"]


def test_a_copy_of_a_run_is_no_further_seed(folder):
    make_run(folder, "again")
    comparison = compare(["plain-*", "again"], folder)
    assert list(comparison.configurations.values()) == [["plain-seed0", "plain-seed1"], ["again"]]
    assert comparison.paired("plain-seed0", "again", 3000).difference == 0
    with pytest.raises(ConfigError, match="several that differ in their seed alone, not plain-seed0, again"):
        comparison.paired(["plain-seed0", "again"], "plain-seed1")


def test_paired_of_two_tokenizers_is_in_bits_per_byte(folder):
    make_run(folder, "bpe", *BPE)
    comparison = compare(["plain-seed0", "bpe"], folder)
    found = comparison.paired("plain-seed0", "bpe", 4000)
    table = comparison.evaluate(4000).table()["bits_per_byte"]
    assert found.unit == "bits per byte" and found.difference == pytest.approx(table["plain-seed0"] - table["bpe"])
    with pytest.raises(ConfigError, match="token by token they can't be compared"):
        comparison.disagreement("plain-seed0", "bpe")


def test_a_group_is_named_after_what_its_seeds_share():
    assert group_name(["a-seed0", "a-seed1", "a-seed12"]) == "a (3 seeds)"
    assert group_name(["run", "run-2"]) == "run (2 seeds)" and group_name(["a-seed0"]) == "a-seed0"


def test_nothing_is_scored_or_read_twice(folder, monkeypatch):
    loaded, read = [], []
    load, read_csv = Run.load_model, pd.read_csv
    monkeypatch.setattr(Run, "load_model", lambda run: loaded.append(run.name) or load(run))
    monkeypatch.setattr(pd, "read_csv", lambda *a, **k: read.append(1) or read_csv(*a, **k))
    comparison = compare(None, folder)
    comparison.evaluate(200).evaluate(200)
    comparison.table(), comparison.curves(), repr(comparison), comparison.disagreement("wide", "sines", 1, 200, 5)
    assert loaded == ["plain-seed0", "plain-seed1", "sines", "wide"] and len(read) == 4


def test_choosing_and_drawing_import_no_torch(folder):
    """The first process measures the models' costs with torch and remembers them, so that the next one needs none."""
    code = (
        "import sys; from pathlib import Path; from lab.comparison.comparison import compare\n"
        f"compare(None, Path({str(folder)!r}))._repr_html_()"
    )
    for check in ("", "; assert 'torch' not in sys.modules"):
        done = subprocess.run([sys.executable, "-c", code + check], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_terminal_compares_and_exports(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lab.runs.names.TRAINED", folder)
    printed = []
    for _ in range(2):
        flags = ["--sort", "loss", "--evaluate", "True", "--max-tokens", "300", "--export", str(tmp_path / "out.md")]
        assert main(["compare", "plain-*", "model.width > 20", *flags]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and "loss (nats)" in printed[0] and "wrote " in printed[0]
    assert main(["compare", "plain-*", "wide", "--paired", "True", "--max-tokens", "3000"]) == 0
    (verdict,) = compare(["plain-*", "wide"], folder).against_best(3000)
    assert str(verdict) in capsys.readouterr().out
    assert "sines" not in printed[0] and "| wide |" in (tmp_path / "out.md").read_text(encoding="utf-8")
    for arguments, message in {("nobody",): "no run 'nobody'", ("--max-tokens", "3"): "add --evaluate True"}.items():
        assert main(["compare", *arguments]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [{"max_tokens": 0}, {"top": (0,)}])
def test_impossible_arguments_leave_no_run_out(folder, arguments):
    comparison = compare(None, folder)
    with pytest.raises(ConfigError, match=r"max_tokens|top"):
        comparison.evaluate(**arguments)
    assert len(comparison.runs) == 4 and comparison.left_out == {}
