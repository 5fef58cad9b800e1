"""The pictures of a comparison hold the numbers of the logs; so do its panel and its disagreements."""

import base64
import math
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from lab.comparison.comparison import compare
from lab.comparison.disagreement import disagreement, stretches
from lab.comparison.panel import STRIPS, hoverable, values_at, values_html
from lab.comparison.plots import MOST_LINES, PLACES, RAW_POINTS, CurveData, CurveView, curves, front, series
from lab.costs.parameters import parameter_shapes
from lab.display.style import PlotError
from lab.runs.run import Run
from settings.errors import ConfigError, DataError, RunError
from tests.helpers.small_runs import DATA, MODEL, TRAIN, made_up, make_log, make_run


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as changes:
        changes.setenv("GLASSBOX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, cache):
    """Three seeds, the last of them slower, and one run of its own; 40 steps of 32 tokens."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        make_run(folder, f"plain-seed{seed}", train=TRAIN.replace(seed=seed))
    log = pd.read_csv(folder / "plain-seed2" / "log_data.csv")
    log.assign(seconds=1.5 * log["seconds"]).to_csv(folder / "plain-seed2" / "log_data.csv", index=False)
    make_run(folder, "wide", MODEL.replace(width=32), TRAIN.replace(seed=7))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of these runs, which a test may change."""
    return shutil.copytree(made, tmp_path / "runs")


def add_log(folder, name: str, n_steps: int, seed: int) -> None:
    """A run that was logged only: a comparison reads no more than the header of its weights."""
    train = TRAIN.replace(steps=n_steps)
    run = Run.create(name, MODEL.replace(width=16 + 2 * seed, n_heads=1), train, folder)
    make_log(n_steps, seed, validate_every=100).to_csv(run.log_path, index=False)
    weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(run.model_config).items()}
    save_file(weights, run.weights_path, {"validation_loss": "2.0"})


def lines(picture) -> dict[str, np.ndarray]:
    """Label up to its number -> points of each labelled line."""
    drawn = [line for line in picture.figure.axes[0].get_lines() if not line.get_label().startswith("_")]
    return {line.get_label().split(":")[0]: np.array(line.get_xydata(), dtype=float) for line in drawn}


def logs(folder) -> dict[str, pd.DataFrame]:
    return {path.parent.name: pd.read_csv(path) for path in folder.glob("*/log_data.csv")}


def medians(log: pd.DataFrame, width: int) -> np.ndarray:
    return log["loss"].rolling(width, center=True, min_periods=1).median().to_numpy()


# --- curves -----------------------------------------------------------------------------------------------------


def test_a_line_is_the_running_median_with_the_raw_values_behind(folder):
    picture = compare(["wide"], folder).curves(smoothing=7)
    log = logs(folder)["wide"]
    assert lines(picture)["wide"] == pytest.approx(np.stack([log["step"], medians(log, 7)], axis=1))
    raw = [line for line in picture.figure.axes[0].get_lines() if len(line.get_xdata()) == 40 and line.get_alpha()]
    assert len(raw) == 1 and raw[0].get_ydata() == pytest.approx(log["loss"]) and raw[0].get_alpha() < 0.5
    plain = compare(["wide"], folder).curves(smoothing=1)
    assert lines(plain)["wide"][:, 1] == pytest.approx(log["loss"])


def test_seeds_are_a_mean_in_a_band_from_the_lowest_to_the_highest(folder):
    picture = compare(None, folder).curves("tokens", smoothing=1)
    drawn, each = lines(picture), logs(folder)
    losses = np.stack([each[f"plain-seed{seed}"]["loss"] for seed in range(3)])
    assert set(drawn) == {"plain (3 seeds)", "wide"}
    assert drawn["plain (3 seeds)"] == pytest.approx(np.stack([each["wide"]["tokens"], losses.mean(0)], axis=1))
    (band,) = picture.figure.axes[0].collections
    corners = {(round(x, 6), round(y, 6)) for x, y in band.get_paths()[0].vertices}
    for side in (losses.min(0), losses.max(0)):
        expected = set(zip(each["wide"]["tokens"].astype(float).round(6), side.round(6)))
        assert expected <= corners
    said = "band: lowest to highest seed, line: mean"
    assert picture.figure.axes[0].get_title(loc="right") == said and "lowest to the highest seed" in repr(picture)


def test_seeds_at_different_speeds_meet_where_all_have_been(folder):
    drawn, each = lines(compare(None, folder).curves("seconds", smoothing=1)), logs(folder)
    at, mean = drawn["plain (3 seeds)"].T
    assert at[0] == 0.75 and at[-1] == 20.0, "from the slow seed's first row to the fast seeds' last"
    here = [np.interp(10.3, log["seconds"], log["loss"]) for name, log in each.items() if name != "wide"]
    assert np.interp(10.3, at, mean) == pytest.approx(np.mean(here), abs=0.05)


@pytest.mark.parametrize(
    "x, last, label",
    [("steps", 40, "step"), ("tokens", 1280, "tokens"), ("seconds", 20, "training time (s)")],
)
def test_axes_are_named_with_units(folder, x, last, label):
    picture = compare(["wide"], folder).curves(x)
    plot = picture.figure.axes[0]
    assert plot.get_xlabel() == label and plot.get_ylabel().startswith("training loss (nats per token)")
    assert lines(picture)["wide"][-1, 0] == last


def test_flops_are_the_tables(folder):
    comparison = compare(["wide"], folder)
    drawn = lines(comparison.curves("flops"))["wide"]
    assert drawn[-1, 0] == pytest.approx(comparison.table()["flops"].iloc[0])
    assert drawn[19, 0] == pytest.approx(drawn[-1, 0] / 2), "step 20 of 40"


def test_scales_are_linear_or_logarithmic(folder):
    comparison = compare(None, folder)
    for log_x in (False, True):
        for log_y in (False, True):
            plot = comparison.curves(log_x=log_x, log_y=log_y).figure.axes[0]
            assert (plot.get_xscale(), plot.get_yscale()) == tuple("log" if on else "linear" for on in (log_x, log_y))
    low, high = comparison.curves(log_x=True).figure.axes[0].get_ylim()
    assert high > 4.5 and low < comparison.load_data("wide").floor, "nothing is cut"
    cut = comparison.curves().figure.axes[0]
    assert cut.get_ylim()[1] < 4.5 and "the first fall lies above" in cut.get_ylabel()


def test_validation_losses_are_drawn_as_logged(folder):
    drawn, log = lines(compare(["wide"], folder).curves(y="validation_loss"))["wide"], logs(folder)["wide"]
    assert drawn[:, 0].tolist() == [10, 20, 30, 40] and drawn[:, 1] == pytest.approx(log["loss"].iloc[9::10])


def test_the_floor_is_the_grammars_entropy_in_the_unit_drawn(folder):
    comparison = compare(["wide"], folder)
    held = comparison.load_data("wide").validation
    assert comparison.floors() == {"floor": held.floor}
    assert f"floor {held.floor:.4f}" in repr(comparison.curves())
    make_run(folder, "bpe", MODEL.replace(vocab_size=512), TRAIN.replace(data=DATA.replace(tokenizer="bpe-512")))
    mixed = compare(["wide", "bpe"], folder)
    picture = mixed.curves(smoothing=1)
    bits = -held.log_probability / math.log(2) / held.n_bytes
    assert mixed.floors() == {"floor": pytest.approx(bits)}, "one text, one floor, however it is cut"
    assert "training loss (bits per byte)" in picture.figure.axes[0].get_ylabel()
    train = mixed.load_data("bpe").train
    expected = logs(folder)["bpe"]["loss"] * len(train) / train.n_bytes / math.log(2)
    assert lines(picture)["bpe"][:, 1] == pytest.approx(expected)


@pytest.fixture
def unreadable(folder, tmp_path):
    """The comparison of a run with one whose text has been deleted."""
    text = tmp_path / "own.txt"
    text.write_text("\n\n".join(f"story number {i} of them " * 20 for i in range(40)), encoding="utf-8")
    make_run(folder, "own", train=TRAIN.replace(data=DATA.replace(source=str(text))))
    text.unlink()
    return compare(["wide", "own"], folder)


def test_data_that_can_no_longer_be_read_leave_a_run_out_of_the_picture(unreadable, folder):
    picture = unreadable.curves(smoothing=1)
    drawn, plot = lines(picture), picture.figure.axes[0]
    assert set(drawn) == {"wide"} and drawn["wide"][:, 1] == pytest.approx(logs(folder)["wide"]["loss"])
    assert "nats per token" in plot.get_ylabel(), "alone again, it needs no common unit"
    assert re.search("left out: own: .*there is no file or folder", repr(picture))
    assert plot.get_xlabel().startswith("step\nleft out: own: ")


def test_only_an_evaluation_leaves_runs_out_of_a_comparison(unreadable):
    """Drawing, testing and measuring name the damaged run in their result, and the comparison stays as it was."""
    for draw in (unreadable.curves, unreadable.pareto, unreadable.curves_widget, unreadable.floors):
        with suppress(ConfigError):  # no loss that may be compared yet
            draw()
        assert list(unreadable.runs) == ["wide", "own"] and unreadable.left_out == {}
    with pytest.raises(ConfigError, match="two configurations that can be scored, not wide"):
        unreadable.against_best(200)
    assert "left out: own: " in repr(unreadable.extrapolation((1,), 640))
    assert list(unreadable.runs) == ["wide", "own"] and unreadable.left_out == {} and not unreadable.evaluated
    assert list(unreadable.evaluate(200).runs) == ["wide"] and list(unreadable.left_out) == ["own"]


def test_a_test_against_the_best_names_a_run_that_cannot_be_scored(folder, monkeypatch):
    load_model = Run.load_model

    def load(run):
        if run.name == "plain-seed2":
            raise RunError("its weights are gone")
        return load_model(run)

    monkeypatch.setattr(Run, "load_model", load)
    comparison = compare(None, folder)
    found = comparison.against_best(3000)
    assert [{test.a, test.b} for test in found] == [{"plain (2 seeds)", "wide"}]
    assert repr(found).endswith("left out: plain-seed2: its weights are gone")
    assert len(comparison.runs) == 4 and comparison.left_out == {}


def test_lines_are_told_apart_without_colour():
    styles = [series(i) for i in range(42)]
    assert len({(style["color"], style["marker"]) for style in styles}) == 42
    assert len({(style["linestyle"], style["marker"]) for style in styles[:35]}) == 35
    for one, other in pairwise(styles):
        assert all(one[key] != other[key] for key in ("color", "marker", "linestyle"))


def test_the_picture_is_the_same_on_every_page_and_twice(folder):
    first, second = (compare(None, folder).curves() for _ in range(2))
    assert first.png == second.png and first.figure.get_facecolor()[3] == 1.0, "its own opaque card, light or dark page"


def test_long_logs_are_drawn_with_few_points_and_read_once(tmp_path, monkeypatch):
    for seed in range(6):
        add_log(tmp_path, f"run{seed}", 10_000, seed)
    read, read_csv = [], pd.read_csv
    monkeypatch.setattr(pd, "read_csv", lambda *a, **k: read.append(1) or read_csv(*a, **k))
    comparison = compare(None, tmp_path)
    picture = comparison.curves()
    comparison.table(), repr(comparison), comparison.curves("flops")
    assert len(read) == 6
    drawn = picture.figure.axes[0].get_lines()
    assert sum(len(line.get_xdata()) for line in drawn) <= 6 * PLACES + RAW_POINTS + 2 * 6 + 2
    assert all(lines(picture)[f"run{seed}"][[0, -1], 0].tolist() == [1, 10_000] for seed in range(6))
    spike = logs(tmp_path)["run0"]["loss"].idxmax()
    raw = [line for line in drawn if line.get_alpha()]
    assert spike + 1 in raw[0].get_xdata(), "a thinned line keeps its highest point"
    (first, *_) = (line for line in comparison.curves(log_x=True).figure.axes[0].get_lines() if line.get_alpha())
    assert first.get_xdata()[:9].tolist() == list(range(1, 10)), "a logarithmic beginning shows every step"
    wide_median = medians(logs(tmp_path)["run3"], 201)
    points = lines(picture)["run3"]
    assert points[:, 1] == pytest.approx(wide_median[points[:, 0].astype(int) - 1])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"x": "hours"}, "x is one of steps, tokens, seconds, flops"),
        ({"y": "memory"}, "x is one of steps, tokens, seconds, flops"),
        ({"smoothing": 0}, "1 or more, not 0"),
        ({"y": "validation_loss"}, "validated on different tokens"),
    ],
)
def test_what_cannot_be_drawn_is_refused(folder, arguments, message):
    make_run(folder, "longer", train=TRAIN.replace(evaluation_tokens=128))
    with pytest.raises(ConfigError, match=message):
        compare(None, folder).curves(**arguments)


def test_nothing_to_draw_is_said(folder):
    with pytest.raises(PlotError, match=f"0 configurations have a training loss to draw; choose 1 to {MOST_LINES}"):
        compare("parameters > 1e9", folder).curves()


# --- pareto -----------------------------------------------------------------------------------------------------


def test_the_front_holds_the_runs_that_no_other_beats():
    costs, losses = np.random.default_rng(0).integers(0, 12, (2, 60)).astype(float)
    expected = {
        i for i in range(60)
        if not any(
            costs[j] <= costs[i] and losses[j] <= losses[i] and (costs[j] < costs[i] or losses[j] < losses[i])
            for j in range(60)
        )
    }
    found = front(costs, losses)
    assert {(costs[i], losses[i]) for i in found} == {(costs[i], losses[i]) for i in expected}
    assert sorted(found, key=lambda i: costs[i]) == found


def test_pareto_shows_every_run_at_its_cost(folder):
    comparison = compare(None, folder)
    table = comparison.table()
    labels = {"parameters": "parameters", "seconds": "training time (s)", "flops": "training FLOPs"}
    for against, label in labels.items():
        picture = comparison.pareto(against)
        drawn = lines(picture)
        for name, row in table.iterrows():
            assert drawn[name].tolist() == [[row[against], row["validation_loss"]]]
        plot = picture.figure.axes[0]
        assert (plot.get_xlabel(), plot.get_ylabel()) == (label, "validation loss (nats per token)")
    comparison.evaluate(200)
    drawn = lines(comparison.pareto())
    assert drawn["wide"][0, 1] == comparison.table().loc["wide", "loss"]
    with pytest.raises(ConfigError, match="against is one of parameters, seconds, flops, not 'money'"):
        comparison.pareto("money")


def test_pareto_of_two_tokenizers_needs_bits_per_byte(folder):
    make_run(folder, "bpe", MODEL.replace(vocab_size=512), TRAIN.replace(data=DATA.replace(tokenizer="bpe-512")))
    comparison = compare(["wide", "bpe"], folder)
    with pytest.raises(ConfigError, match="no loss that may be compared yet"):
        comparison.pareto()
    assert "bits per byte" in comparison.evaluate(4000).pareto().figure.axes[0].get_ylabel()


# --- the panel --------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The panel's HTML as a browser reads it. image, strips: attributes; box: left, top, width and height of all
    strips together, in % of the picture."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.strips = [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append(tag)
        found = dict(attributes)
        if tag == "img":
            self.image = found
        if tag == "i":
            self.strips.append(found)
        if found.get("class") == "glassbox-strips":
            self.box = {side: float(share) for side, share in re.findall(r"(\w+):([\d.]+)%", found["style"])}


def png(html: str) -> bytes:
    return base64.b64decode(Page(html).image["src"].removeprefix("data:image/png;base64,"))


def child(panel, description: str):
    found = [c for row in panel.children for c in getattr(row, "children", [row])
             if getattr(c, "description", None) == description]
    assert len(found) == 1, description
    return found[0]


def test_the_panel_shows_what_the_static_call_draws(folder):
    comparison = compare(None, folder)
    panel = comparison.curves_widget()
    shown, values = panel.children[-2:]
    assert png(shown.value) == comparison.curves().png
    child(panel, "x").value = "flops"
    child(panel, "logarithmic y").value = True
    assert png(shown.value) == comparison.curves("flops", log_y=True).png
    child(panel, "usual smoothing").value = False
    child(panel, "median of").value = 9
    assert png(shown.value) == comparison.curves("flops", log_y=True, smoothing=9).png
    child(panel, "x").value = "steps"
    child(panel, "median of").value = 1
    child(panel, "values at (%)").value = 50
    each = logs(folder)
    seeds = [each[f"plain-seed{seed}"]["loss"][19] for seed in range(3)]
    for text in ("step 20", f"{each['wide']['loss'][19]:.4f}", f"{np.mean(seeds):.4f}",
                 f"{min(seeds):.4f} to {max(seeds):.4f}", "nats per token"):
        assert text in values.value


def test_the_panel_says_what_cannot_be_drawn(folder):
    for path in folder.glob("*/log_data.csv"):
        pd.read_csv(path).assign(validation_loss=math.nan).to_csv(path, index=False)
    panel = compare(None, folder).curves_widget()
    child(panel, "y").value = "validation_loss"
    assert "<b>0 configurations have a validation loss to draw" in panel.children[-1].value
    assert panel.children[-2].value == "", "no picture of another choice"


@pytest.mark.parametrize("log_x", [False, True])
def test_a_strip_shows_the_values_at_its_middle(folder, log_x):
    """One run goes on for longer than the others, so that not all runs have values everywhere."""
    log = make_log(60, seed=7)
    log.to_csv(folder / "wide" / "log_data.csv", index=False)
    comparison = compare(None, folder)
    picture = comparison.curves(log_x=log_x)
    data = comparison.curve_data(CurveView())
    page = Page(hoverable(picture, data, "steps"))
    assert page.image["alt"] == repr(picture) and len(page.strips) == STRIPS
    assert all(strip["style"] == "flex:1" for strip in page.strips), "equal shares of the box over the axes"
    plot, (width, height) = picture.figure.axes[0], picture.figure.canvas.get_width_height()
    box = plot.get_window_extent()
    assert page.box == pytest.approx(
        {"left": 100 * box.x0 / width, "top": 100 * (1 - box.y1 / height),
         "width": 100 * box.width / width, "height": 100 * box.height / height}, abs=0.1)
    n_elsewhere = set()
    for i, strip in enumerate(page.strips):
        at, _ = plot.transData.inverted().transform((box.x0 + (i + 0.5) / STRIPS * box.width, box.y0))
        where, *told = strip["title"].split("\n")
        assert where == f"step {at:,.0f}, nats per token"
        expected = values_at(data.lines, "steps", at)
        assert told == [
            f"{value:.4f}  {name}" + f"  ({span})" * bool(span) + f"  ({elsewhere})" * bool(elsewhere)
            for value, name, span, elsewhere in expected
        ]
        ends = {"plain (3 seeds)": (1, 40), "wide": (1, 60)}
        assert sorted(name for _, name, _, _ in expected) == sorted(ends), "every line has a value everywhere"
        for _, name, _, elsewhere in expected:
            first, last = ends[name]
            assert elsewhere == ("first: step 1" if at < first else f"last: step {last}" if at > last else "")
        n_elsewhere.add(sum(bool(elsewhere) for *_, elsewhere in expected))
    assert n_elsewhere == {0, 1, 2}, "before the first step and after the last it is said where a value is from"


def test_values_are_the_lines_lowest_first(folder):
    lines = compare(None, folder).curve_data(CurveView(smoothing=1)).lines
    each = logs(folder)
    seeds = np.stack([each[f"plain-seed{seed}"]["loss"] for seed in range(3)])
    for mark, step, elsewhere in (
        (1, 1, ""), (20, 20, ""), (40, 40, ""), (0.9, 1, "first: step 1"), (41, 40, "last: step 40"),
    ):
        here = seeds[:, step - 1]
        expected = sorted([
            (pytest.approx(here.mean()), "plain (3 seeds)", f"{here.min():.4f} to {here.max():.4f}", elsewhere),
            (pytest.approx(each["wide"]["loss"][step - 1]), "wide", "", elsewhere),
        ], key=lambda told: told[0].expected)
        assert values_at(lines, "steps", mark) == expected


@pytest.mark.parametrize("x", ["steps", "tokens", "seconds", "flops"])
def test_the_table_names_every_run_at_both_ends_of_the_slider(folder, x):
    make_log(60, seed=7).to_csv(folder / "wide" / "log_data.csv", index=False)
    panel = compare(None, folder).curves_widget()
    child(panel, "x").value = x
    for percent in (0, 0.5, 50, 99.5, 100):
        child(panel, "values at (%)").value = percent
        table = panel.children[-1].value
        assert "<td>plain (3 seeds)</td>" in table and "<td>wide</td>" in table, (x, percent, table)
    assert f"<td>last: {'step 40' if x == 'steps' else ''}" in table, "it is said that one had ended before"
    child(panel, "values at (%)").value = 0
    if x == "steps":
        assert "<th>step 1</th>" in panel.children[-1].value


def test_the_twin_of_the_panel_is_what_it_shows(folder):
    panel = compare(None, folder).curves_widget()
    for percent in (100, 50):
        child(panel, "values at (%)").value = percent
        assert panel.twin.html == panel.children[-2].value + panel.children[-1].value and "step" in panel.twin.text


def test_names_of_runs_are_no_html(folder):
    lines = compare(["wide"], folder).curve_data(CurveView()).lines
    data = CurveData(lines=[replace(line, name='w<b>&"') for line in lines], unit="nats")
    page = Page(hoverable(curves(data, CurveView()), data, "steps"))
    assert 'w<b>&"' in page.image["alt"] and 'w<b>&"' in page.strips[50]["title"]
    assert page.tags == ["style", "div", "img", "div"] + ["i"] * STRIPS
    assert "<td>w&lt;b&gt;&amp;&quot;</td>" in values_html(data, "steps", 20)


# --- disagreement -----------------------------------------------------------------------------------------------


def test_stretches_are_the_largest_sums_apart_and_within_a_document():
    random = np.random.default_rng(0)
    values, documents = random.random(200), np.repeat([0, 1, 2, 3], [60, 5, 75, 60])
    found = stretches(values, documents, 4, 10)
    allowed = [s for s in range(191) if documents[s] == documents[s + 9]]
    for start in found:
        best = max(allowed, key=lambda s: values[s : s + 10].sum())
        assert start == best
        allowed = [s for s in allowed if abs(s - start) >= 10]
    assert stretches(values, documents, 99, 76) == [] and stretches(values[:5], documents[:5], 1, 6) == []


def test_the_planted_disagreement_is_found_and_shown_without_colour_too():
    losses = [[1.0] * 30, [1.0] * 30]
    other = [[1.0] * 30, [1.0] * 10 + [5.0, 0.25] + [1.0] * 18]
    scores = [made_up(one) for one in (losses, other)]
    tokenizer = type("Letters", (), {"decode": staticmethod(lambda ids: "<x")})()
    found = disagreement(("A", scores[0]), ("B&B", scores[1]), tokenizer, n=1, length=4)
    rows = found.tokens
    assert rows["document"].unique().tolist() == [1] and len(rows) == 4
    assert dict(zip(rows["position"], rows["difference"]))[10] == -4.0
    assert (rows["loss_a"] - rows["loss_b"]).tolist() == rows["difference"].tolist()
    text = str(found)
    assert "<x▲4.0 " in text and "<x▼0.8 " in text and text.count("▲") == 2
    html = found._repr_html_()
    assert "&lt;x" in html and "<x" not in html and "B&amp;B" in html and "B&B" not in html
    assert len(re.findall("border-bottom:2px solid", html)) == 2 and "border-bottom:2px dotted" in html
    assert "A: 1.00 nats, rank " in html


def test_disagreements_that_cannot_be_looked_for_are_refused(folder):
    comparison = compare(None, folder)
    with pytest.raises(ConfigError, match="n and length must be 1 or more"):
        comparison.disagreement("wide", "plain-seed0", n=0)
    with pytest.raises(DataError, match="no document has 900000 tokens in a row"):
        comparison.disagreement("wide", "plain-seed0", max_tokens=200, length=900_000)
    found = comparison.disagreement("wide", "plain-seed0", n=3, max_tokens=2000, length=10)
    assert found.tokens.groupby("stretch").size().tolist() == [10, 10, 10]
    held = comparison.load_data("wide")
    texts = held.tokenizer.decode(held.validation.tokens.tolist())
    for _, rows in found.tokens.groupby("stretch"):
        assert "".join(rows["token"]) in texts
