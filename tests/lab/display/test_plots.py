"""Pictures: what they contain, that they stay small, readable and alike everywhere, and that they leave no trace."""

import io
import math
import re
import warnings
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from lab.compute.schedule_preview import schedule_preview
from lab.display.palette import BLUE, CARD, INK, VERMILLION, translucent
from lab.display.plots import bars, loss_curve, next_token_bars, shaded_tokens, side_by_side
from lab.display.style import Picture, axes, series
from lab.display.token_box import token_box
from settings.errors import GlassboxError
from tests.helpers.measures import contrast


def noisy_log(rows: int, every: int = 50) -> pd.DataFrame:
    step = np.arange(1, rows + 1)
    loss = 2 + 5 * np.exp(-step / 30) + np.random.default_rng(0).normal(0, 0.1, rows)
    validation = np.where(step % every == 0, 2 + 5 * np.exp(-step / 30), np.nan)
    return pd.DataFrame({"step": step, "tokens": step * 512, "loss": loss, "validation_loss": validation})


def lines(picture) -> dict[str, np.ndarray]:
    """Label (up to its number) -> points (N, 2) of every line drawn."""
    drawn = picture.figure.axes[0].get_lines()
    return {re.split(r"[:,]", line.get_label())[0]: np.array(line.get_xydata(), dtype=float) for line in drawn}


def rgb(name: str) -> tuple:
    return tuple(int(name[i : i + 2], 16) for i in (1, 3, 5))


# --- the loss curve -------------------------------------------------------------------------------------------


def test_the_loss_curve_shows_the_log_and_says_what_it_shows():
    log = noisy_log(200)
    picture = loss_curve(log, floor=1.9, title="mine")
    drawn = lines(picture)
    assert list(drawn) == [
        "training loss of each step", "training loss", "validation loss", "grammar's entropy (floor)",
    ]
    assert np.array_equal(drawn["training loss of each step"], log[["step", "loss"]].to_numpy())
    assert np.array_equal(drawn["validation loss"][:, 0], [50, 100, 150, 200])
    assert np.array_equal(drawn["grammar's entropy (floor)"][:, 1], [1.9, 1.9])
    median = dict(drawn["training loss"])
    assert median[100.0] == pytest.approx(np.median(log["loss"][97:102]))  # five steps, of which step 100 is the third
    plot = picture.figure.axes[0]
    assert (plot.get_xlabel(), plot.get_ylabel(), plot.get_title("left")) == ("step", "loss (nats per token)", "mine")
    text = [entry.get_text() for entry in picture.figure.legends[0].get_texts()]
    assert "training loss, median of 5 steps" in text[1]
    assert text[2:] == ["validation loss: 2.006 at step 200", "grammar's entropy (floor): 1.900"]
    assert repr(picture).startswith("Loss curve of mine: training loss ") and "floor 1.900" in repr(picture)


def test_the_upper_axis_counts_tokens():
    plot = loss_curve(noisy_log(200)).figure.axes[0]
    (tokens,) = plot.child_axes
    assert tokens.get_xlabel() == "tokens"
    assert np.allclose(tokens.get_xlim(), np.array(plot.get_xlim()) * 512)


def test_lines_differ_in_more_than_colour():
    drawn = loss_curve(noisy_log(200), floor=1.9).figure.axes[0].get_lines()
    assert len({(line.get_linestyle(), line.get_linewidth(), line.get_marker()) for line in drawn}) == 4


@pytest.mark.parametrize("rows", [1, 2, 9, 10])
def test_a_curve_of_few_steps_can_be_seen(rows):
    drawn = lines(loss_curve(noisy_log(rows)))
    assert len(drawn["training loss of each step"]) == rows
    assert ("training loss" in drawn) == (rows >= 10)
    low, high = loss_curve(noisy_log(rows)).figure.axes[0].get_xlim()
    assert low == 0 and high > rows


def test_ten_thousand_steps_are_thinned_but_keep_their_spikes():
    log = noisy_log(10_000)
    log.loc[4321, "loss"] = 9.5
    log.loc[7654, "loss"] = 0.5
    raw = lines(loss_curve(log))["training loss of each step"]
    assert len(raw) <= 1_002
    assert [4322.0, 9.5] in raw.tolist() and [7655.0, 0.5] in raw.tolist()
    assert raw[-1].tolist() == log[["step", "loss"]].iloc[-1].tolist()


def test_a_log_without_rows_is_an_error_of_ours():
    with pytest.raises(GlassboxError, match="no rows yet"):
        loss_curve(noisy_log(3).iloc[:0])


# --- schedule and bars ----------------------------------------------------------------------------------------


def test_the_schedule_names_warm_up_peak_and_end():
    rates = [0.1, 0.2, 0.3, 0.2, 0.1, 0.05]
    picture = schedule_preview(rates)
    points = [np.column_stack(line.get_data()).tolist() for line in picture.figure.axes[0].get_lines()]
    assert points == [[[i + 1, rate] for i, rate in enumerate(rates)], [[3, 0.3]], [[6, 0.05]]]
    assert [entry.get_text() for entry in picture.figure.legends[0].get_texts()] == [
        "warm-up: 3 steps", "peak: 0.3 at step 3", "final: 0.05 at step 6",
    ]


def test_a_constant_rate_has_no_warm_up():
    assert "warm-up" not in repr(schedule_preview([0.1]))
    assert "warm-up" not in repr(schedule_preview([0.1] * 5_000))


def test_bars_are_as_long_as_their_values_first_on_top():
    picture = bars(["with cache", "without"], [2.31, 14.2], "ms per token", "Timing")
    plot = picture.figure.axes[0]
    assert [patch.get_width() for patch in plot.patches] == [2.31, 14.2]
    assert [label.get_text() for label in plot.get_yticklabels()] == ["with cache", "without"]
    assert plot.yaxis_inverted() and plot.get_xlabel() == "ms per token"
    assert [text.get_text() for text in plot.texts] == ["2.31 ms per token", "14.2 ms per token"]


def test_next_tokens_carry_percentages_and_visible_controls():
    plot = next_token_bars([" the", "\n", "\t", "\x00", "", "中", "$x$"], [0.5, 0.25, 0.0625, 0.0004, 0, 0.01, 0.01])
    plot = plot.figure.axes[0]
    names = [label.get_text() for label in plot.get_yticklabels()]
    assert names == ["·the", "⏎", "⇥", "⟨U+2400⟩", "(nothing)", "⟨U+4E2D⟩", "$x$"]
    assert [text.get_text() for text in plot.texts][:5] == ["50.0 %", "25.0 %", "6.2 %", "<0.1 %", "0.0 %"]
    assert [patch.get_width() for patch in plot.patches][:2] == [50, 25]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: next_token_bars(["a"], [1.5]), "between 0 and 1"),
        (lambda: next_token_bars(["a"], [math.nan]), "0 or more"),
        (lambda: next_token_bars(["a", "b"], [0.5]), "2 labels for 1 numbers"),
        (lambda: bars([], [], "s"), "one number or more"),
        (lambda: bars(["a"], [-1], "s"), "0 or more"),
        (lambda: bars(["a"] * 51, [1] * 51, "s"), "50"),
        (lambda: schedule_preview([]), "learning rates"),
        (lambda: shaded_tokens(["a"], []), "1 labels for 0 numbers"),
        (lambda: side_by_side({}), "no texts"),
    ],
)
def test_what_cannot_be_drawn_is_said(call, message):
    with pytest.raises(GlassboxError, match=message):
        call()


# --- what all pictures share ----------------------------------------------------------------------------------

EVERY_PICTURE = [
    lambda: loss_curve(noisy_log(10_000), floor=1.9, title="ten thousand steps"),
    lambda: schedule_preview(np.abs(np.sin(np.arange(1, 5_000) / 300))),
    lambda: next_token_bars([f"token {i}" for i in range(30)], [1 / 30] * 30, "After '…'"),
    lambda: bars(["a", "b"], [1, 2], "s"),
]


@pytest.mark.parametrize("draw", EVERY_PICTURE)
def test_a_picture_is_one_small_png_with_a_description(draw):
    picture = draw()
    assert picture.png.startswith(b"\x89PNG\r\n\x1a\n") and 2_000 < len(picture.png) < 60_000
    bundle, metadata = DisplayFormatter().format(picture)
    assert set(bundle) == {"image/png", "text/plain"}
    assert bundle["text/plain"] == metadata["image/png"]["alt"] == picture.description
    width, height = Image.open(io.BytesIO(picture.png)).size
    assert (metadata["image/png"]["width"], metadata["image/png"]["height"]) == (width // 2, height // 2)


@pytest.mark.parametrize("draw", EVERY_PICTURE)
def test_the_users_own_style_neither_changes_nor_matters(draw):
    plain, figures = draw().png, plt.get_fignums()
    with plt.style.context("dark_background"), plt.rc_context({"font.size": 25, "lines.linewidth": 9}):
        before = dict(plt.rcParams)
        assert draw().png == plain
        assert dict(plt.rcParams) == before
    assert plt.get_fignums() == figures


def test_any_text_can_be_drawn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of glyphs its font lacks
        picture = bars(["$\\frac{", "\U0001f4a1"], [1, 2], "s", "100 $ \\ 中\n" + "long " * 50)
    title = picture.figure.axes[0].get_title("left")
    assert title.startswith("100 $ \\ ⟨U+4E2D⟩⟨U+000A⟩long") and title.endswith("…")


def test_saving_writes_the_png_alone(tmp_path):
    picture = bars(["a"], [1], "s")
    picture.save(tmp_path / "deep" / "bars.png")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bars.png"]
    assert (tmp_path / "deep" / "bars.png").read_bytes() == picture.png


def test_the_card_is_opaque_and_what_is_on_it_stands_out():
    image = Image.open(io.BytesIO(bars(["a"], [1], "s").png)).convert("RGBA")
    assert image.getextrema()[3] == (255, 255)
    assert np.allclose(image.getpixel((1, 1))[:3], rgb(CARD), atol=4)
    assert contrast(rgb(INK), rgb(CARD)) > 7
    assert min(contrast(rgb(colour), rgb(CARD)) for colour in (BLUE, VERMILLION)) > 3


@pytest.mark.parametrize("ends", [(1, 80), (3, 40), (20, 60), (1e-6, 1), (30, 300_000)])
@pytest.mark.parametrize("base", [2, 10])
def test_ticks_of_logarithmic_axes_are_plain_numbers(ends, base):
    with axes(3, "any") as plot:
        plot.plot(ends, ends)
        plot.set_xscale("log", base=base)
        plot.set_yscale("log", base=base)
        picture = Picture(plot.figure, "any")
    for axis in (plot.xaxis, plot.yaxis):
        labels = [label for minor in (False, True) for label in axis.get_ticklabels(minor=minor) if label.get_text()]
        assert labels and [float(label.get_text()) for label in labels] == pytest.approx(
            [label.get_position()[axis is plot.yaxis] for label in labels], rel=1e-4)
    assert picture.png.startswith(b"\x89PNG")


def test_a_picture_as_html_says_what_it_shows():
    picture = bars(['a<"'], [1], "s")
    assert picture.html.startswith('<img src="data:image/png;base64,') and 'alt="Bars: a&lt;&quot; 1 s"' in picture.html


# --- texts ----------------------------------------------------------------------------------------------------


def test_shades_grow_with_probability_and_stay_readable_on_any_page():
    shares = [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1]
    html = shaded_tokens([f"w{i}" for i in range(7)], shares)._repr_html_()
    shades = re.findall(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\);[^>]*>w\d", html)
    colours = [np.array(shade[:3], dtype=float) for shade in shades]
    strengths = [float(shade[3]) for shade in shades]
    assert strengths == sorted(set(strengths)) and len(strengths) == 7
    for page, text in (((255, 255, 255), (33, 33, 33)), ((17, 17, 17), (255, 255, 255))):
        mixed = [strength * hue + (1 - strength) * np.array(page) for hue, strength in zip(colours, strengths)]
        assert min(contrast(tuple(colour), text) for colour in mixed) > 4.5


def test_shaded_tokens_keep_the_text_in_both_forms():
    shown = shaded_tokens(["Once", " <b>", "\n", "end\t"], [0.05, 0.999, 0.5, 1.0])
    text = re.sub(r"<[^>]*>", "", shown._repr_html_().split("</div>")[1])
    assert text == "Once &lt;b&gt;⏎\nend⇥"
    assert 'title=" &lt;b&gt; 99.9 %"' in shown._repr_html_()
    assert str(shown).split("\n", 1)[1] == "Once⁰ <b>⁹⏎⁵\nend⇥⁹"
    assert str(shaded_tokens([], [])).endswith("\n")


def test_texts_side_by_side_fit_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = {"precise": "one two three " * 9, "balanced": "four\n\nfive", "creative": "<b>"}
    shown = side_by_side(words)
    rows = str(shown).splitlines()
    assert [name.strip() for name in rows[0].split("│")] == list(words)
    assert max(map(len, rows)) <= 80
    columns = list(zip(*(([*row.split("│"), "", ""])[:3] for row in rows[2:])))
    assert [" ".join(" ".join(column).split()) for column in columns] == [" ".join(t.split()) for t in words.values()]
    assert "&lt;b&gt;" in shown._repr_html_() and "<b>" not in shown._repr_html_()


# --- colours --------------------------------------------------------------------------------------------------

# What each kind of colour blindness makes of linear red, green and blue (Machado et al. 2009)
SEEN = {
    "all colours": np.eye(3),
    "without red": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "without green": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
}


def perceived(colour: str, matrix: np.ndarray) -> np.ndarray:
    """CIELAB's lightness, red-green and blue-yellow of a colour, as such an eye sees it."""
    share = np.array(rgb(colour)) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(matrix @ linear, 0, 1) / (0.9505, 1, 1.0888))
    return np.array([116 * y, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", SEEN)
def test_nine_lines_have_nine_colours_that_every_eye_tells_apart(eye):
    """A difference of 2.3 in CIELAB is just seen (Mahy et al. 1994)."""
    nine = [series(i) for i in range(9)]
    colours = [perceived(style["color"], SEEN[eye]) for style in nine]
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 6 * 2.3
    assert all(contrast(rgb(style["color"]), rgb(CARD)) > 2 for style in nine)
    assert len({(style["marker"], style["linestyle"]) for style in nine}) == 9, "and without colour, too"


def test_a_colour_is_the_same_in_hex_and_translucent():
    assert translucent("#0072B2", 0.5) == "rgba(0,114,178,0.5)" and translucent("#D55E00", 0) == "rgba(213,94,0,0)"


def test_a_token_box_keeps_its_line_break_outside():
    assert token_box("a<\n", 'say "x"').endswith("\">a&lt;</span>\n") and "&quot;x&quot;" in token_box("a", 'say "x"')
    assert "background" not in token_box("a", "") and "<sub>+1</sub></span>" in token_box("a", "", note="+1")
