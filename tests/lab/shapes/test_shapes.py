"""What a traced pass looks like: tree, frame, annotated source, difference, diagram; and `show`."""

import re
import textwrap
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from collections import Counter
from html import escape, unescape
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lab.display.source_view
import modules.attention
from config import ResidualBlockConfig
from lab.display.source_view import INKS, SourceError
from lab.shapes.axis_colours import AXIS_COLOURS
from lab.shapes.tree import MOST_ROWS
from modules.attention import Attention, DotProductAttention
from modules.logging_module import LoggingModule
from modules.mlp import MLP, GatedMLP
from modules.norms import CosineNorm
from modules.residual import ResidualBlock
from modules.transformer import Transformer
from settings.errors import GlassboxError
from tests.helpers.measures import contrast
from tests.helpers.variants import GROUPED, PARALLEL, vary
from tools import show, trace
from tracing.glossary import GLOSSARY
from tracing.traces import TraceError

BATCH, TIME = 3, 17


def tokens(time: int = TIME) -> Tensor:
    return torch.arange(BATCH * time).view(BATCH, time)


def run(config, time: int = TIME, **options):
    """Traced, with the model's own choice of kernels."""
    model = Transformer(config).eval()
    with trace(model, **options) as shapes:
        model(tokens(time))
    return shapes


@pytest.fixture(scope="module")
def shapes():
    torch.manual_seed(0)
    return run(vary("llama", **GROUPED))


class Page(HTMLParser):
    """A parsed page: fails on tags that are not closed in order; keeps the text of each tag's kind."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[tuple[str, int]] = []  # a tag, and which one of its kind
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs
        self.text.setdefault(tag, []).append("")
        self.open.append((tag, len(self.text[tag]) - 1))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop()[0] == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        for tag, index in self.open:
            self.text[tag][index] += data


def check_static(page: Page) -> None:
    """Nothing runs and nothing is fetched."""
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "img"}
    assert not [name for name, value in page.attributes if name.startswith("on") or "url(" in (value or "")]


# --- the tree ---------------------------------------------------------------------------------------------------


def test_tree_has_every_call_once_and_needs_no_script(shapes):
    page = Page(shapes._repr_html_())
    check_static(page)
    calls = Counter(row.path or "model" for row in shapes if row.kind == "module")
    titles = Counter(text.split(" · ")[0] for text in page.text["summary"] if " · " in text)
    assert titles == calls and len(calls) > 20
    assert calls["blocks.0.dropout"] == 2
    assert page.tags["details"] == page.tags["summary"]
    assert [name for name, _ in page.attributes].count("open") == 1  # the model's own


def test_tree_names_axes_and_parameters(shapes):
    text = " ".join(Page(shapes._repr_html_()).text["div"])
    assert "(B=3, H=4, T=17, D=10)" in text and "(B=3, G=2, S=17, D=10)" in text
    parameters = sum(p.numel() for p in shapes.model.parameters())
    assert f"{parameters:,} parameters" in text


def test_every_letter_has_a_hue():
    assert AXIS_COLOURS.keys() == GLOSSARY.keys()


def test_tree_shows_every_pass_and_measures_only_where_asked():
    model = Transformer(vary("gpt2", n_layers=1)).eval()
    with trace(model) as plain:
        model(tokens(5))
        model(tokens(7))
    page = Page(plain._repr_html_())
    assert [text for text in page.text["b"] if text.startswith("pass")] == ["pass 1", "pass 2"]
    assert Counter(page.text["b"])["blocks.0"] == 2
    assert "mean" not in page.text["div"][0]
    with trace(model, values=True, costs=True) as measured:
        model(tokens(5))
    text = Page(measured._repr_html_()).text["div"][0]
    assert "FLOP" in text and " sd " in text and "pass 1" not in text


class Comparing(LoggingModule):
    """Source with signs that HTML would take for its own, in a loop."""

    def forward(self, x: Tensor) -> Tensor:
        for bound in (1, 2, 3):
            x = x * (x.sum() < bound) * (bound > 0 & 1)  # (B, C)
        label = "<b>bold</b>"
        return x if label else -x  # (B, C)


class Lying(LoggingModule):
    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten()  # (B, C)
        return y  # (C)


def test_tree_escapes_source_and_shows_every_turn():
    part = Comparing()
    with trace(part) as shapes:
        part(torch.ones(3, 5))
    html = shapes._repr_html_()
    assert "<b>bold" not in html and "&lt;b&gt;bold" in html
    assert html.count("x.sum() &lt; bound") == 3
    Page(html)
    annotated = shapes.annotate(Comparing)._repr_html_()
    assert "<b>bold" not in annotated
    assert 'label = "<b>bold</b>"' in unescape(re.sub(r"<[^>]*>", "", annotated))


def test_a_lie_is_marked_where_it_is():
    part = Lying()
    with trace(part) as shapes:
        part(torch.ones(3, 5))
    marked = [text for text in Page(shapes._repr_html_()).text["span"] if text.startswith("✗")]
    assert len(marked) == len(shapes.mismatches()) > 0
    assert any("y is (15)" in text for text in marked)


def test_a_long_trace_is_cut_with_a_hint():
    part = Comparing()
    with trace(part) as shapes:
        for _ in range(MOST_ROWS // 5):
            part(torch.ones(3, 5))
    page = Page(shapes._repr_html_())
    assert page.tags["tr"] <= MOST_ROWS
    assert f"{len(shapes) - MOST_ROWS:,} more rows" in page.text["div"][0]


def test_nothing_recorded_says_so():
    model = Transformer(vary("gpt2", n_layers=1))
    with trace(model) as shapes:
        pass
    assert "call the model inside" in Page(shapes._repr_html_()).text["div"][0]
    assert len(shapes.frame()) == 0 and "path" in shapes.frame().columns


# --- the frame --------------------------------------------------------------------------------------------------


def test_frame_agrees_with_hooks():
    model = Transformer(vary("llama")).eval()
    seen = []
    paths = {id(module): path for path, module in model.named_modules()}
    handles = [
        module.register_forward_hook(lambda module, _, out: seen.append((paths[id(module)], tuple(out.shape))))
        for module in model.modules()
    ]
    model(tokens())
    for handle in handles:
        handle.remove()
    with trace(model, costs=True) as shapes:
        model(tokens())
    frame = shapes.frame()
    calls = frame[frame.kind == "module"]
    assert Counter(zip(calls.path, calls["shape"])) == Counter(seen)
    assert len(frame) == len(shapes)
    tensors = frame[frame.dtype == "float32"]
    assert (tensors.bytes == tensors["shape"].map(lambda shape: 4 * torch.Size(shape).numel())).all()
    assert frame.flops.max() == calls.flops.iloc[0] and "mean" not in frame.columns


# --- annotated source -------------------------------------------------------------------------------------------


def test_margin_has_the_true_sizes(shapes):
    annotated = shapes.annotate(Attention)
    lines = dict(enumerate(annotated.source.lines, annotated.source.first))
    noted = {lines[number].strip(): [str(note) for note in notes] for number, notes in annotated.notes.items()}
    q, k = "q (B=3, H=4, T=17, D=10)", "k, v (B=3, G=2, S=17, D=10)"
    assert noted["q, k, v = self.project(x, place, cache)  # (B, H, T, D), (B, G, S, D), (B, G, S, D)"] == [q, k]
    assert noted["heads = heads.transpose(1, 2).flatten(2)  # (B, T, C)"] == ["(B=3, T=17, C=40)"]
    assert noted["queries_and_keys = self.n_heads + self.n_kv_heads"] == ["6"]
    for number, notes in annotated.notes.items():
        for note in notes:
            assert note.row.line == number
            assert all(str(n) in str(note) for n in note.row.shape or ())
    idle = {lines[number].strip() for number in annotated.idle}
    assert "self.out = Linear(width, width, bias=bias)" in idle and "k, v = cache.append(k, v)  # (B, G, S, D)" in idle
    assert "if cache is not None:" not in idle and not annotated.idle & annotated.notes.keys()
    by_hand = shapes.annotate(DotProductAttention)
    lines = dict(enumerate(by_hand.source.lines, by_hand.source.first))
    assert "return scores.softmax(dim=-1)  # (B, H, T, S)" in {lines[number].strip() for number in by_hand.idle}


def test_margin_and_text_line_up(shapes):
    lines = str(shapes.annotate(Attention)).splitlines()[1:]
    bars = {min(line.find(bar) for bar in "│┊" if bar in line) for line in lines}
    assert len(bars) == 1
    page = Page(shapes.annotate(Attention)._repr_html_())
    check_static(page)
    assert "(B=3, H+2G=8, T=17, D=10)" in page.text["div"][0] and "# (B, H+2G, T, D)" in page.text["div"][0]


# page and text of JupyterLab's themes, GitHub's and VS Code's, the texts' opacity in the last place
THEMES = [
    ((255, 255, 255), (0, 0, 0, 0.87)), ((17, 17, 17), (255, 255, 255, 1)), ((255, 255, 255), (31, 35, 40, 1)),
    ((13, 17, 23), (240, 246, 252, 1)), ((31, 31, 31), (204, 204, 204, 1)),
]


@pytest.mark.parametrize("page, text", THEMES)
def test_source_can_be_read_on_light_and_on_dark_pages(shapes, page, text):
    html = shapes.annotate(Attention)._repr_html_() + show(Attention)._repr_html_()
    page, ground = np.array(page), float(re.search(r"background:rgba\(128,128,128,([.\d]+)\)", html)[1])
    ground = ground * 128 + (1 - ground) * page
    ink = text[3] * np.array(text[:3]) + (1 - text[3]) * ground
    styles = set(re.findall(r"[^-]color:([^;\"]+)", html))
    mixtures = [re.fullmatch(r"color-mix\(in srgb,(#\w{6}) (\d+)%,currentColor\)", style) for style in styles]
    assert len(mixtures) > 4 and all(mixtures), styles
    for mixture in mixtures:
        hue = [int(mixture[1][i : i + 2], 16) for i in (1, 3, 5)]
        share = float(mixture[2]) / 100
        assert contrast(tuple(share * np.array(hue) + (1 - share) * ink), tuple(ground)) >= 4.5, mixture[0]
    faintest = min(map(float, re.findall(r"opacity:([\d.]+)", html)))
    assert contrast(tuple(faintest * ink + (1 - faintest) * ground), tuple(ground)) >= 4.5
    idle = re.findall(r"opacity:[^>]*dashed\">([^<]*)(<?)", html)
    assert idle and all(end == "<" and "color" not in line for line, end in idle), "no colours of their own"


def test_one_method_or_one_place_alone(shapes):
    head = str(shapes.annotate(Attention.project)).splitlines()[1:4]
    ends = "def project(", "self, x: Tensor, place: PositionContext, cache: LayerCache | None = None"
    assert all(line.endswith(end) for line, end in zip(head, (*ends, ") -> tuple[Tensor, Tensor, Tensor]:")))
    up, down = shapes.annotate("blocks.1.mlp.gate_up"), shapes.annotate("blocks.1.mlp.down")
    assert "O=208" in str(up) and "O=40" in str(down)
    both = str(shapes.annotate(type(shapes.model.blocks[0].attention.out)))
    assert re.search(r"O=\d+\) … \d shapes", both)


@pytest.mark.parametrize("thing", [CosineNorm, MLP, "blocks.7", "embedding", nn.Linear, int, torch.add, 5])
def test_what_was_not_traced_is_refused_with_advice(shapes, thing):
    with pytest.raises(GlassboxError) as error:
        shapes.annotate(thing)
    assert len(str(error.value)) > 40


def test_an_unknown_class_gets_suggestions(shapes):
    with pytest.raises(TraceError, match=r"nothing of MLP ran .* choose from: .*GatedMLP"):
        shapes.annotate(MLP)
    with pytest.raises(TraceError, match=r"blocks\.1"):
        shapes.annotate("blocks.7")


CELL = '''
import torch
from torch import Tensor, nn

class Doubled(nn.Module):
    """Made in a notebook."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((x, x), dim=-1)  # (B, 2C)
        if len(x) > 100:
            return x  # (B, C)
        return y  # (B, 2C)
'''


def test_a_class_of_a_notebook_is_annotated():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.run_cell(CELL)
    part = shell.user_ns["Doubled"]()
    with trace(part) as shapes:
        part(torch.ones(3, 5))
    text = str(shapes.annotate(shell.user_ns["Doubled"]))
    assert re.search(r"\(B=3, 2C=10\) +│ +y = torch.cat", text)
    assert re.search(r"┊ +return x ", text)
    assert str(show(shell.user_ns["Doubled"])).splitlines()[1:] == CELL.strip().splitlines()[3:]


# --- the difference ---------------------------------------------------------------------------------------------


def test_diff_of_two_lengths_lists_what_has_time(shapes):
    longer, shorter = run(vary("llama", **GROUPED)), run(vary("llama", **GROUPED), time=9)
    difference = longer.diff(shorter)
    changed = {id(left) for left, right in difference.pairs if left.shape is not None}
    assert changed == {id(row) for row in longer if row.shape and TIME in row.shape}
    assert all(left is not None and right is not None for left, right in difference.pairs)
    assert [row.variable for row, _ in difference.pairs if row.shape is None] == ["n_tokens"]
    assert len(difference) + difference.alike == len(longer)
    text = str(difference)
    assert "(B=3, T=17, C=40) float32" in text and "(B=3, T=9, C=40) float32" in text
    assert "(T=9)" in Page(difference._repr_html_()).text["table"][0]


def test_diff_of_two_architectures_has_both_sides(shapes):
    difference = shapes.diff(run(vary("gpt2", **GROUPED)))
    left = {row.owner for row, other in difference.pairs if other is None}
    right = {row.owner for other, row in difference.pairs if other is None}
    assert {"RMSNorm", "GatedMLP.forward", "RotaryContext.turn"} <= left
    assert {"LayerNorm", "MLP.forward", "LearnedPosition.embed"} <= right
    check_static(Page(difference._repr_html_()))


def test_diff_of_the_same_is_nothing(shapes):
    difference = shapes.diff(run(vary("llama", **GROUPED)))
    assert len(difference) == 0 and str(difference) == f"nothing differs: all {len(shapes)} rows are equal"
    assert "nothing differs" in Page(difference._repr_html_()).text["div"][0]


# --- the diagram ------------------------------------------------------------------------------------------------


def test_a_notebook_shows_the_drawing_as_a_picture_that_needs_no_trust(shapes):
    diagram = shapes.diagram("blocks.0")
    (picture,) = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)"', diagram._repr_html_())
    assert b64decode(picture[0]).decode() == diagram.svg and picture[1] == escape(str(diagram))
    assert "<svg" not in diagram._repr_html_(), "JupyterLab would leave its texts alone, run together"


def test_a_wide_diagram_stays_legible_in_a_column():
    diagram = run(vary("factored-alibi")).diagram("blocks.0")
    width = int(ElementTree.fromstring(diagram.svg).get("width"))
    assert width < 900, "a tensor that goes several ways is labelled once"
    assert f"min-width:{0.85 * width:.0f}px" in diagram._repr_html_() and "overflow-x:auto" in diagram._repr_html_()


def named_edges(diagram) -> list[tuple[str, str]]:
    names = diagram.names()
    return [(names[a], names[b]) for a, b, _ in diagram.edges]


def check_picture(diagram) -> ElementTree.Element:
    """Valid XML that says what it is; no edge runs through a box."""
    picture = ElementTree.fromstring(diagram.svg)
    space = "{http://www.w3.org/2000/svg}"
    assert picture.get("role") == "img" and picture[0].tag == f"{space}title" and picture[1].tag == f"{space}desc"
    boxes = [r for r in picture.iter(f"{space}rect") if r.get("stroke")]
    assert len(boxes) == len(diagram.nodes)
    areas = [tuple(float(r.get(name)) for name in ("x", "y", "width", "height")) for r in boxes]
    for path in picture.iter(f"{space}path"):
        numbers = [float(number) for number in re.findall(r"-?\d+\.\d", path.get("d"))]
        if path.get("stroke") == "none":
            continue
        for segment in re.finditer(r"([\d.-]+) ([\d.-]+)V([\d.-]+)", path.get("d")):
            x, y0, y1 = map(float, segment.groups())
            for left, top, width, height in areas:
                crosses = left < x < left + width and y0 < top + height - 0.2 and y1 > top + 0.2
                assert not crosses, (path.get("d"), (left, top, width, height))
        assert min(numbers) >= -1
    for a, (left, top, width, height) in enumerate(areas):
        for other in areas[a + 1 :]:
            apart = left + width <= other[0] or other[0] + other[2] <= left
            assert apart or top + height <= other[1] or other[1] + other[3] <= top
    return picture


def test_block_has_both_residual_branches(shapes):
    diagram = shapes.diagram("blocks.0")
    assert named_edges(diagram) == [
        ("x", "attention_norm"), ("attention_norm", "attention"), ("x", "+ (1)"), ("attention", "+ (1)"),
        ("+ (1)", "mlp_norm"), ("mlp_norm", "mlp"), ("+ (1)", "+ (2)"), ("mlp", "+ (2)"), ("+ (2)", "return"),
    ]
    assert all(edge.axes == ("B", "T", "C") and edge.shape == (3, 17, 40) for _, _, edge in diagram.edges)
    check_picture(diagram)


def test_parallel_block_reads_one_norm():
    edges = named_edges(run(vary("gpt2", block=PARALLEL)).diagram("blocks.1"))
    assert ("attention_norm", "attention") in edges and ("attention_norm", "mlp") in edges
    assert ("x", "+ (1)") in edges and ("mlp", "+ (2)") in edges and ("+ (1)", "+ (2)") in edges


def test_attention_shows_queries_keys_and_values(shapes):
    diagram = shapes.diagram("blocks.1.attention")
    into = {edge.name: edge.shape for _, target, edge in diagram.edges if diagram.nodes[target].name == "attention"}
    assert into == {"q": (3, 4, 17, 10), "k": (3, 2, 17, 10), "v": (3, 2, 17, 10)}
    check_picture(diagram)


@pytest.mark.parametrize("n_layers, boxes", [(1, 1), (4, 4), (5, 3), (9, 3)])
def test_a_row_of_blocks_is_folded_when_it_is_long(n_layers, boxes):
    diagram = run(vary("gpt2", n_layers=n_layers)).diagram()
    names = [node.name for node in diagram.nodes.values()]
    assert names[:3] == ["tokens", "embedding", "position"] and names[-3:] == ["norm", "head", "return"]
    assert len([name for name in names if name.startswith("blocks")]) == boxes
    edges = named_edges(diagram)
    assert [a for a, _ in edges] == names[:-1] and [b for _, b in edges] == names[1:]
    assert boxes == n_layers or names[4] == f"blocks.1 … blocks.{n_layers - 2}"
    check_picture(diagram)


class State(NamedTuple):
    xt: Tensor
    xe: Tensor


class TwoStreams(LoggingModule):
    """Each stream is changed by what the other one says."""

    def __init__(self, width: int):
        super().__init__()
        self.read, self.write = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, state: State) -> State:
        xe = state.xe + self.read(state.xt)  # (B, T, C)
        xt = state.xt + self.write(xe)  # (B, T, C)
        return State(xt, xe)  # (B, T, C)


class TwoStreamModel(LoggingModule):
    def __init__(self, width: int = 10, n_layers: int = 2):
        super().__init__()
        self.token, self.context = nn.Embedding(60, width), nn.Embedding(60, width)
        self.blocks = nn.ModuleList(TwoStreams(width) for _ in range(n_layers))

    def forward(self, tokens: Tensor) -> Tensor:
        state = State(self.token(tokens), self.context(tokens))  # (B, T, C)
        for block in self.blocks:
            state = block(state)  # (B, T, C)
        return state.xt + state.xe  # (B, T, C)


def test_both_streams_have_a_lane():
    model = TwoStreamModel()
    with trace(model) as shapes:
        model(tokens())
    whole, block = shapes.diagram(), shapes.diagram("blocks.0")
    between = [edge.name for a, b, edge in whole.edges if whole.nodes[b].name == "blocks.1"]
    assert between == ["state.xt", "state.xe"]
    edges = named_edges(block)
    assert ("state.xe", "+ (1)") in edges and ("state.xt", "+ (2)") in edges
    assert ("+ (2)", "return.xt") in edges and ("+ (1)", "return.xe") in edges
    assert edges.count(("+ (1)", "write")) == 1
    for diagram in (whole, block):
        check_picture(diagram)
    paths = check_picture(whole).iter("{http://www.w3.org/2000/svg}path")
    lanes = {path.get("d") for path in paths if path.get("fill") == "none"}
    assert len(lanes) == len(whole.edges)  # none is on top of another


def test_both_lanes_run_through_folded_blocks():
    model = TwoStreamModel(n_layers=7)
    with trace(model) as shapes:
        model(tokens())
    diagram = shapes.diagram()
    edges = named_edges(diagram)
    for a, b in (("blocks.0", "blocks.1 … blocks.5"), ("blocks.1 … blocks.5", "blocks.6"), ("blocks.6", "+")):
        assert edges.count((a, b)) == 2
    check_picture(diagram)


def test_outputs_stand_at_the_bottom():
    model = TwoStreamModel()
    with trace(model) as shapes:
        model(tokens())
    texts = check_picture(shapes.diagram("blocks.0")).iter("{http://www.w3.org/2000/svg}text")
    heights = {text.text: float(text.get("y")) for text in texts if text.text}
    assert heights["return.xt"] == heights["return.xe"] == max(heights.values())
    assert heights["state.xt"] == heights["state.xe"] == min(heights.values())


def test_diagram_reads_as_text(shapes):
    text = str(shapes.diagram("blocks.0.mlp"))
    assert "  ×\n    ← silu: (B=3, T=17, F=104)\n    ← gate_up: up (B=3, T=17, F=104)" in text
    assert escape_free(shapes.diagram("blocks.0.mlp").svg) == text


def escape_free(svg: str) -> str:
    return ElementTree.fromstring(svg)[1].text


@pytest.mark.parametrize("path", ["blocks.0.attention.qkv", "embedding", "nowhere"])
def test_what_has_no_parts_is_not_drawn(shapes, path):
    with pytest.raises(TraceError, match=r"choose from: .*blocks\.0\.attention"):
        shapes.diagram(path)


def test_a_method_called_on_its_own_does_not_hide_the_modules_call(shapes):
    """The model calls the last block's `join` after its forward, and the first one's `split` before."""
    assert named_edges(shapes.diagram("blocks.0")) == named_edges(shapes.diagram("blocks.1"))


# --- show -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thing, first, last",
    [
        (Attention.attend_by_hand, "def attend_by_hand(self", "return self.dropout(self.weights(q, k, place)) @ v"),
        (GatedMLP, "class GatedMLP(BaseMLP):", "return projected.chunk(2, dim=-1)[0]"),
        (ResidualBlock, '@built_in("block", "residual")', "return x + self.dropout(self.mlp_post_norm"),
        (ResidualBlockConfig, "@settings", "parallel: bool = False"),
        (modules.attention, '"""Attention:', "return place.turn(qk).chunk(2, dim=1)"),
        (run, "def run(config", "return shapes"),
        (MLP(4, 8, "relu", False).forward, "def forward(self", "return self.down(hidden)"),
    ],
)
def test_show_is_the_file_as_it_stands(thing, first, last):
    source = show(thing)
    assert source.lines[0].startswith(first) and source.lines[-1].strip().startswith(last)
    with open(source.file, encoding="utf-8") as file:
        there = file.read().splitlines()[source.first - 1 :][: len(source.lines)]
    assert textwrap.dedent("\n".join(there)).splitlines() == list(source.lines)
    page = Page(source._repr_html_())
    check_static(page)
    assert f"{source.first}" in page.text["div"][1] and "\n".join(source.lines) in page.text["div"][0]
    assert str(source).startswith(f"# {source.name} · ")


@pytest.mark.parametrize("thing", [torch.add, len, int, 5, "text", torch._C, MLP(4, 8, "relu", False)])
def test_what_has_no_source_is_refused(thing):
    with pytest.raises(SourceError, match="source"):
        show(thing)


def test_inks_can_be_read_on_light_and_dark():
    """WCAG contrast of at least 4 against white and against near-black."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for ink in lab.display.source_view.INKS.values():
        assert 1.05 / (luminance(ink) + 0.05) >= 4, ink
        assert (luminance(ink) + 0.05) / (luminance("#111111") + 0.05) >= 4, ink
    assert len(set(INKS.values())) > 5
