"""The glass of the box: what a trace sees is what happened."""

import dataclasses
import gc
import linecache
import os
import re
import sys
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import MLPConfig, NormConfig
from lab.generation.generate import generate
from modules.attention import Attention
from modules.logging_module import LoggingModule
from modules.mlp import MLP, build_mlp
from modules.norms import build_norm
from modules.positions import PositionContext
from modules.transformer import Transformer
from settings.paths import ROOT
from tests.helpers.devices import DEVICE, no_default_device
from tests.helpers.plain_modules import make_plain
from tests.helpers.traced_passes import BATCH, LENGTH, cached, shallow, tokens, traced
from tests.helpers.variants import VARIANTS
from tracing.axes import AxesError
from tracing.glossary import GLOSSARY
from tracing.recorder import Recorder
from tracing.rows import file_shown
from tracing.traces import Trace, TraceError

pytestmark = pytest.mark.usefixtures("seeded")


# --- what a trace sees ----------------------------------------------------------------------------------------


def test_every_statement_of_attention_is_there_with_what_it_was():
    model = Transformer(VARIANTS["llama-grouped"])
    part, ids = model.blocks[1].attention, tokens(model)
    seen = {}
    part.qkv.register_forward_hook(lambda module, args, out: seen.update(x=args[0], qkv=out))
    shapes = traced(model, lambda: model(ids))["blocks.1.attention"]
    batch, length, heads, groups, dim = BATCH, LENGTH, 4, 2, 10
    rows = {(row.owner.rpartition(".")[2], row.variable): row.shape for row in shapes if row.kind == "statement"}
    assert rows["forward", "q"] == (batch, heads, length, dim)
    assert rows["forward", "k"] == rows["forward", "v"] == (batch, groups, length, dim)
    assert rows["project", "heads"] == (batch, heads + 2 * groups, length, dim)
    assert rows["forward", "heads"] == (batch, length, heads * dim)
    assert [row.shape for row in shapes["blocks.1.attention.qkv"] if row.kind == "module"] == [tuple(seen["qkv"].shape)]
    assert {row.shape for row in shapes["blocks.1.attention.q"]} == {(batch, heads, length, dim)}


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclasses.dataclass
class State:
    mean: Tensor
    count: int


class Everything(LoggingModule):
    """One of each thing that Python can do on the way."""

    def __init__(self):
        super().__init__()
        self.part = nn.Linear(4, 4)
        self.empty = None

    def forward(self, x: Tensor, *, times: int = 2, extra: Tensor | None = None) -> Pair:
        for _ in range(times):
            x = self.part(x)  # (B, C)
            x += 1  # (B, C)
        nothing = extra
        pair = Pair(x, x[:, :2])  # (B, C), (B, D)
        state = State(x.mean(0), 3)  # (C)
        (a, b), *rest = pair, state.mean, x
        x[0, 1:] = state.mean[1:]
        x[:, 0].add_(1)  # (B)
        both = [part + 0 for part in (a, b)]
        if nothing is None:
            a, b = both[1], rest[-1]  # (B, D), (B, C)
        return Pair(a, self.inner(b))

    def inner(self, x: Tensor) -> Tensor:
        return torch.cat(
            (x, x),
            dim=1,
        )  # (B, 2C)


def test_loops_tuples_dataclasses_none_and_stores():
    model = Everything()
    shapes = traced(model, lambda: model(torch.zeros(3, 4), times=3))
    assert shapes.mismatches() == []
    rows = [row for row in shapes if row.kind == "statement" and row.owner == "Everything.forward"]
    made = [(row.variable, row.shape) for row in rows if row.shape]
    assert made.count(("x", (3, 4))) == 6, "every turn of the loop"
    assert ("pair.left", (3, 4)) in made and ("pair.right", (3, 2)) in made
    assert ("state.mean", (4,)) in made and ("rest[0]", (4,)) in made
    assert ("x[0, 1:]", (3,)) in made and ("x[:, 0].add_", (3,)) in made
    assert ("both[1]", (3, 2)) in made
    assert [row.value for row in rows if row.variable == "nothing"] == ["None"]
    assert [row.value for row in rows if row.variable == "state.count"] == ["3"]
    assert [row.shape for row in shapes if row.owner == "Everything.inner" and row.kind == "statement"] == [(3, 8)]
    assert [row.number for row in traced(model, lambda: (model(torch.zeros(1, 4)), model(torch.zeros(2, 4))))][-1] == 2


def test_measures_agree_with_pytorch():
    model = Transformer(VARIANTS["llama"])
    ids = tokens(model)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    kernel = 2 * 2 * 4 * BATCH * LENGTH * LENGTH * 10  # of each layer: q·k and p·v, four heads of ten
    missing = kernel if DEVICE == "cpu" else 0
    with Trace(model, values=True, gradients=True, costs=True, keep=True) as shapes:
        model(ids).square().mean().backward()
    top = shapes.rows[0]
    assert top.flops == counter.get_total_flops() + 2 * missing  # its registry has the kernel of a GPU alone
    assert top.parameters == sum(p.numel() for p in model.parameters())
    assert top.seconds >= max(row.seconds for row in shapes if row.path and row.kind == "module") > 0
    for row in shapes:
        if row.tensor is not None and row.tensor.is_floating_point():
            x = row.tensor.double()
            zeros = float((x == 0).double().mean())
            expected = (float(x.mean()), float(x.std(correction=0)), float(x.min()), float(x.max()), zeros, 0)
            assert row.statistics == pytest.approx(expected, abs=1e-9)
            assert row.nbytes == row.tensor.nbytes
    logits = next(row for row in shapes if row.owner == "Transformer.forward" and row.variable == "return")
    assert logits.shape == (BATCH, LENGTH, 61)
    gradient = 2 * logits.tensor.double() / logits.tensor.numel()
    assert logits.gradient.std == pytest.approx(float(gradient.std(correction=0)))
    assert all(row.gradient for row in shapes["blocks.0.mlp"] if row.kind == "statement" and row.shape)


def test_numbers_that_are_not_finite_are_counted():
    model = nn.Sequential(nn.Identity())
    with Trace(model, values=True) as shapes:
        model(torch.tensor([1.0, float("nan"), float("inf"), 3.0]))
    found = shapes.rows[0].statistics
    assert (found.nonfinite, found.mean, found.max) == (2, 2.0, 3.0)


def test_cached_decoding_is_a_pass_per_call():
    model = Transformer(VARIANTS["alibi"])
    shapes = traced(model, lambda: cached(model))
    tops = [row for row in shapes if row.kind == "module" and row.path == ""]
    assert [row.shape[1] for row in tops] == [12, 7, 1] * 3
    numbers = [row.number for row in tops]
    assert numbers == sorted(set(numbers)), "each its own"
    keys = [row.shape[2] for row in shapes["blocks.0.attention.k"] if row.owner == "Attention.forward"]
    assert keys == [12, 19, 20] * 3


def test_the_shape_of_a_part_is_that_of_its_first_tensor():
    model = Transformer(VARIANTS["llama-grouped"])
    shapes = traced(model, lambda: model(tokens(model)))
    assert shapes["blocks.1.attention.k"].shape == (BATCH, 2, LENGTH, 10)
    assert shapes["head"].shape == shapes.shape == (BATCH, LENGTH, 61)
    with pytest.raises(TraceError, match="no tensor was traced here"):
        _ = shapes["blocks.0.attention.queries_and_keys"].shape


def test_a_cell_of_a_notebook_is_called_by_its_number():
    assert file_shown("/tmp/ipykernel_1234/5678.py") == file_shown("C:\\Temp\\ipykernel_9\\5678.py") == "cell 5678"
    assert file_shown(str(ROOT / "modules" / "mlp.py")) == "modules/mlp.py".replace("/", os.sep)


def test_a_compiled_model_is_traced_as_what_it_was_compiled_from():
    model = Transformer(VARIANTS["llama"]).eval()
    ids = tokens(model)
    compiled = torch.compile(model, backend="eager")
    expected = [(row.path, row.variable, row.shape) for row in traced(model, lambda: model(ids))]
    assert [(row.path, row.variable, row.shape) for row in traced(compiled, lambda: compiled(ids))] == expected


def test_checkpointed_blocks_are_traced():
    model = shallow("gpt2", 3)
    model.gradient_checkpointing = True
    shapes = traced(model, lambda: model(tokens(model)))
    assert {"blocks.0.attention", "blocks.1.mlp"} <= {row.path for row in shapes}
    assert shapes.mismatches() == []


CELL = """
class Doubler(nn.Module):
    def forward(self, x):
        y = torch.cat((x, x), dim=-1)  # (B, 2C)
        return y  # (B, C)
"""


def test_a_module_from_a_notebook_cell_is_traced_and_checked():
    name = "/tmp/ipykernel_1/cell.py"
    linecache.cache[name] = (len(CELL), None, CELL.splitlines(keepends=True), name)
    scope = {"nn": nn, "torch": torch, "__name__": "__main__"}
    exec(compile(CELL, name, "exec"), scope)
    model = scope["Doubler"]()
    shapes = traced(model, lambda: model(torch.zeros(3, 5)))
    assert [row.variable for row in shapes] == ["Doubler", "x", "y", "return y"]
    assert [row.shape for row in shapes] == [(3, 10), (3, 5), (3, 10), (3, 10)]
    with pytest.raises(AxesError):
        shapes.check()
    with Trace(model, letters={"W": "window"}) as shapes:
        model(torch.zeros(3, 5))
    assert "W" in shapes.glossary


# --- when it goes wrong ---------------------------------------------------------------------------------------


def failing(model, *inputs) -> tuple[Exception, str, Trace]:
    shapes = Trace(model)
    with pytest.raises(Exception) as caught, shapes:
        model(*inputs)
    return caught.value, "\n".join(getattr(caught.value, "__notes__", [])), shapes


def test_a_mismatch_names_the_statement_and_both_operands():
    model = Transformer(VARIANTS["llama"])
    model.blocks[1].attention.out = nn.Linear(41, 40)
    error, note, shapes = failing(model, tokens(model))
    assert isinstance(error, RuntimeError) and "cannot be multiplied" in str(error)
    assert "blocks.1.attention" in note and "return self.out(heads)" in note
    assert "heads  (B=5, T=18, C=40)  float32" in note and "blocks.1.attention.out.weight" in note
    assert "the last axis of heads, C=40, meets the last axis of blocks.1.attention.out.weight, 41; make them" in note
    assert "blocks.0.mlp" in {row.path for row in shapes}, "what went before is kept"
    assert sys.gettrace() is None


class Products(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x, y):
        x = x * 1  # (B, T, C)
        return self.act(x, y)


@pytest.mark.parametrize(
    ("act", "shape", "said"),
    [
        (lambda x, y: torch.einsum("btc,bcd->btd", x, y), (3, 6, 7), "'c': the last axis of x, C=5, meets the last"),
        (lambda x, y: torch.einsum("btc,bc->bt", x, y), (3, 6, 7), "'bc' names 2 axes of y"),
        (lambda x, y: x @ y, (3, 6, 7), "the last axis of x, C=5, meets the last axis but one of y, 6"),
        (lambda x, y: x + y, (3, 4, 6), "the last axis of x, C=5, meets the last axis of y, 6"),
        (lambda x, y: x @ y.double(), (3, 5, 6), "their types differ: float32 and float64"),
        (lambda x, y: x.view(7, 7), (1,), "view was given:\n    x  (B=3, T=4, C=5)  float32"),
    ],
)
def test_what_is_said_of_each_kind_of_failure(act, shape, said):
    _, note, _ = failing(Products(act), torch.zeros(3, 4, 5), torch.zeros(shape))
    assert said in note


def test_bad_inputs_keep_the_models_own_error():
    model = Transformer(VARIANTS["llama"])
    wrong_type, note, _ = failing(model, tokens(model).float())
    assert "indices" in str(wrong_type)
    assert "self.embedding(tokens)" in note and re.search(r"tokens  \(.*5, .*18\)  float32", note)
    wrong_rank, note, _ = failing(model, tokens(model)[0])
    assert isinstance(wrong_rank, IndexError) and "n_tokens = tokens.shape[1]" in note
    too_long, note, _ = failing(model, tokens(model, 99))
    assert isinstance(too_long, ValueError) and "return self.head(self.hidden(tokens, cache))" in note
    with pytest.raises(TraceError, match=r"only a torch.nn.Module can be traced, not str"):
        Trace("llama-tiny")
    with pytest.raises(TraceError, match=r"nothing called 'blocks.9' was traced; did you mean 'blocks.[01]'"):
        traced(model, lambda: model(tokens(model)))["blocks.9"]
    assert "call the model inside" in str(traced(model, lambda: None))


# --- off means off --------------------------------------------------------------------------------------------


def hooks(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


@pytest.mark.parametrize("variant", ["gpt2", "llama-grouped", "alibi"])
def test_a_trace_leaves_nothing_behind(variant):
    model = shallow(variant, 3)
    before, mode = dict(vars(model.blocks[0].attention)), torch.overrides._get_current_function_mode()
    for fails in (False, True):
        ids = tokens(model).float() if fails else tokens(model)
        shapes = Trace(model, gradients=True, costs=True)
        try:
            with shapes:
                model(ids)
        except RuntimeError:
            assert fails
        assert hooks(model) == 0 and sys.gettrace() is None
        assert torch.overrides._get_current_function_mode() is mode  # None, or that of a default device
    assert vars(model.blocks[0].attention) == before
    gc.collect()


def test_another_tracer_goes_on_seeing_everything():
    model, seen = MLP(8, 16, "relu", False), []

    def tracer(frame, event, argument):
        seen.append((frame.f_code.co_name, event))
        return tracer

    sys.settrace(tracer)
    try:
        traced(model, lambda: model(torch.zeros(2, 3, 8)))
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(None)
    assert seen.count(("forward", "call")) >= 1 and seen.count(("forward", "return")) >= 1
    assert ("forward", "line") in seen


def instructions(run) -> int:
    """How many bytecode instructions Python executes."""
    count = 0

    def tracer(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return tracer

    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks at it when a tracer is set, and not later
    sys.settrace(tracer)
    try:
        run()
    finally:
        sys.settrace(None)
    return count


def logged_once() -> tuple[Transformer, Tensor]:
    """A model whose logging was on and is off again, and its input."""
    model = Transformer(VARIANTS["llama"]).eval()
    ids = tokens(model)
    model.enable_logging(write=lambda text: None)
    model(ids)
    model.disable_logging()
    return model, ids


def test_off_costs_not_one_instruction():
    model, ids = logged_once()
    after = instructions(lambda: model(ids))
    assert hooks(model) == 0
    plain = make_plain(model)
    assert after == instructions(lambda: plain(ids)) > 1000


def test_off_compiles_whole():
    model, ids = logged_once()
    with no_default_device():
        explained = torch._dynamo.explain(model)(ids)
        assert explained.graph_break_count == 0 and explained.graph_count == 1
        whole = torch.compile(model, fullgraph=True, backend="eager")
        assert torch.equal(whole(ids), model(ids))


# --- live -----------------------------------------------------------------------------------------------------


def test_logging_writes_what_a_trace_sees():
    model = Transformer(VARIANTS["llama"])
    ids, written = tokens(model), []
    model.enable_logging(write=written.append)
    model(ids)
    model(ids)
    model.disable_logging()
    model(ids)
    lines = "".join(written).splitlines()
    assert len(lines) % 2 == 0 and lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    shapes = traced(model, lambda: model(ids))
    assert len(lines) // 2 == len(shapes) - 1, "all but the line of the model's own call"
    assert any("(B=5, H=4, T=18, D=10)" in text and "modules/attention.py" in text for text in lines)


def test_logging_of_one_part_one_method_and_in_full(capsys):
    attention = Attention(8, 2, 2)
    x, place = torch.zeros(2, 3, 8), PositionContext(True, None)
    attention.enable_logging(methods=("project",), recursive=False, full=True)
    attention(x, place)
    text = capsys.readouterr().out
    assert "(B=2, H=2, T=3, D=4)" in text and "tensor([[[" in text and "Linear" not in text and "attend" not in text
    attention.disable_logging()
    attention.enable_logging(values=True)
    attention(x, place)
    assert "mean 0 sd 0 in [0, 0]" in capsys.readouterr().out
    attention.disable_logging()
    attention.disable_logging()
    attention(x, place)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="no part of Attention has a method atend"):
        attention.enable_logging(methods=("atend",))
    with attention.logging() as shapes:
        attention(x, place)
    assert shapes.mismatches() == [] and shapes["q"].rows[0].shape == (2, 2, 3, 4)


def test_attention_weights_are_logged_during_generation():
    model, written = Transformer(VARIANTS["llama"]), []
    attention = model.blocks[1].attention
    attention.fused = False
    attention.enable_logging(methods=("weights",), full=True, write=written.append)
    for _ in generate(model, [[1, 2, 3]], max_tokens=3):
        pass
    attention.disable_logging()
    weights = [text for text in written if "softmax" in text]
    sizes = [re.search(r"T=(\d+), S=(\d+)", text).groups() for text in weights]
    assert sizes == [("2", "2"), ("1", "3"), ("1", "4"), ("1", "5")], "the prompt but its last token, then one by one"
    assert all("tensor([[[[" in text for text in weights)


def test_an_error_while_logging_is_explained_and_logging_goes_on():
    part = build_mlp(MLPConfig(), 8, False)
    written = []
    part.enable_logging(write=written.append)
    with pytest.raises(RuntimeError) as caught:
        part(torch.zeros(2, 3, 9))
    note = caught.value.__notes__[0]
    assert "gate, up = self.gate_up(x).chunk(2, dim=-1)" in note and "the last axis of x, 9, meets" in note
    assert sys.gettrace() is None
    written.clear()
    part(torch.zeros(2, 3, 8))
    assert written


def test_every_component_is_a_logging_module():
    model = Transformer(VARIANTS["gpt2"])
    own = [module for module in model.modules() if type(module).__module__.startswith("modules")]
    assert len(own) > 15 and all(isinstance(module, LoggingModule) for module in own)
    norm = build_norm(NormConfig(), 8)
    assert F.rms_norm(torch.ones(1, 1, 8), (8,)).shape == norm(torch.ones(1, 1, 8)).shape
    assert isinstance(Recorder(norm), torch.overrides.TorchFunctionMode)


# --- letters of one's own -------------------------------------------------------------------------------------


class LowRank(LoggingModule):
    axis_letters = {"R": "rank"}

    def __init__(self):
        super().__init__()
        self.narrow, self.widen = nn.Linear(8, 3), nn.Linear(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        low = self.narrow(x)  # (B, T, R)
        return self.widen(low)  # (B, T, C)


class WronglyLettered(LowRank):
    def forward(self, x: Tensor) -> Tensor:
        low = self.narrow(x)  # (B, T, R)
        return self.widen(low)  # (B, T, R)


def test_a_class_brings_axis_letters_of_its_own():
    for model, mistakes in ((nn.Sequential(LowRank()), 0), (nn.Sequential(WronglyLettered()), 1)):
        with Trace(model) as shapes:
            model(torch.zeros(2, 5, 8))
        assert shapes.glossary == GLOSSARY | {"R": "rank"}
        assert len(shapes.mismatches()) == mistakes
        assert [row.claim for row in shapes if row.variable == "low"] == [("B", "T", "R")]


@pytest.mark.parametrize("letters, meaning", [({"C": "colours"}, "channels"), ({"R": "rows"}, "rank")])
def test_a_letter_has_one_meaning(letters, meaning):
    other = type("Other", (LowRank,), {"axis_letters": letters})
    with pytest.raises(AxesError, match=f"Other.axis_letters: {next(iter(letters))!r} already means '{meaning}"):
        Trace(nn.Sequential(LowRank(), other()))
