"""The glass of the box: what a trace sees is what happened, and every axis comment is true."""

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

import tracing.statements
from config import MLPConfig, ModelConfig, NormConfig
from lab.generation.generate import generate
from modules.attention import Attention
from modules.logging_module import LoggingModule
from modules.mlp import MLP, build_mlp
from modules.norms import build_norm
from modules.positions import Placement
from modules.transformer import Transformer
from settings.paths import ROOT
from tests.helpers.plain_modules import make_plain
from tests.helpers.variants import VARIANTS, vary
from tracing.axes import AxesError, claims, malformed, size
from tracing.checks import letter_sizes, mismatches
from tracing.glossary import GLOSSARY, LOCAL, MAY_AGREE
from tracing.recorder import Recorder
from tracing.rows import file_shown
from tracing.traces import Trace, TraceError

BATCH, LENGTH = 5, 18  # with the lengths below different from every size in the variants

pytestmark = pytest.mark.usefixtures("seeded")


def three_layers(variant: str) -> Transformer:
    return Transformer(VARIANTS[variant].replace(n_layers=max(3, VARIANTS[variant].n_layers), context_length=20))


def tokens(model, length=LENGTH, batch=BATCH):
    return torch.randint(0, model.config.vocab_size, (batch, length))


def traced(model, run) -> Trace:
    with Trace(model) as shapes:
        run()
    return shapes


def cached(model):
    """Prompts of one length, of different lengths, and a single one: what decoding goes through."""
    ids = tokens(model)
    with torch.no_grad():
        for batch, lengths in ((BATCH, None), (BATCH, [12, 9, 6, 12, 8]), (1, None)):
            cache = model.new_cache(batch, 20)
            model(ids[:batch, :12], cache)
            if lengths:
                cache.keep(lengths)
            model(ids[:batch, :7], cache)
            model(ids[:batch, :1], cache)


def in_bfloat16(model):
    with torch.autocast("cpu", torch.bfloat16):
        model.objective(model.losses(tokens(model, LENGTH + 1))).backward()


def by_hand(model):
    for module in model.modules():
        if hasattr(module, "fused"):
            module.fused = False
    model(tokens(model))
    cached(model)


PASSES = {
    "forward": lambda model: model(tokens(model)),
    "losses and gradients": lambda model: model.objective(model.losses(tokens(model, LENGTH + 1))).backward(),
    "bfloat16": in_bfloat16,
    "cached": cached,
    "by hand": by_hand,
}


def everything(model) -> Trace:
    def run():
        for passes in PASSES.values():
            passes(model)

    return traced(model, run)


# --- the comments are true ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_comment_is_true_and_every_tensor_is_commented(variant):
    shapes = everything(three_layers(variant))
    assert shapes.mismatches(distinct=True) == []
    assert shapes.uncommented() == []
    assert re.fullmatch(r"\d{2,3} axis comments checked, all true", shapes.check())


def traces_for_lies() -> list[Trace]:
    """Passes in which together no two letters have the same size everywhere."""
    torch.manual_seed(0)
    names = ("llama-grouped", "gpt2-grouped", "alibi-grouped-six-heads", "cosine-bias", "parallel-post-norm", "untied")
    names += ("factored-head-norm-frozen", "factored-head-norm", "factored-independent", "factored-mixed", "sasp")
    names += ("future-flatten", "future-convolution", "future-self-attention", "multi-token")
    return [
        *(everything(three_layers(name)) for name in names),
        long_pass(vary("alibi", context_length=170, n_kv_heads=2, n_layers=3)),
        long_pass(vary("future", context_length=170, n_kv_heads=2)),
    ]


def long_pass(config: ModelConfig) -> Trace:
    """Several blocks of queries, in bfloat16, forwards and backwards."""
    model = Transformer(config)

    def there_and_back():
        with torch.autocast("cpu", torch.bfloat16):
            model.objective(model.losses(tokens(model, 151))).backward()

    return traced(model, there_and_back)


def mutations(claim: tuple[str, ...]):
    """Every claim that differs from this one by a swap, an axis less or more, or another letter."""
    for i in range(len(claim) - 1):
        if claim[i] != claim[i + 1] and "…" not in claim[i : i + 2]:
            yield (*claim[:i], claim[i + 1], claim[i], *claim[i + 2 :])
    if claim[:1] != ("…",):
        yield (*claim, "T")
        if claim:
            yield claim[1:]
    for i, axis in enumerate(claim):
        if len(axis) == 1 and axis not in LOCAL and axis.isalpha():
            for other in GLOSSARY.keys() - LOCAL - {axis}:
                yield (*claim[:i], other, *claim[i + 1 :])


def test_no_comment_could_say_anything_else():
    """Each comment of each file, changed in every way there is, becomes a lie that some pass shows."""
    passes = [(rows, trace.model.axis_sizes) for trace in traces_for_lies() for rows in telling_rows(trace)]
    said = {}
    for rows, known in passes:
        for row in rows:
            said.setdefault((row.where, row.variable, row.claim), {})[id(rows)] = rows, known
    assert len(said) > 150
    unseen = []
    for (where, variable, claim), places in said.items():
        sizes = [letter_sizes(rows, known) for rows, known in places.values()]
        alike = [pair for pair in MAY_AGREE if all(len({n.get(letter) for letter in pair} - {None}) < 2 for n in sizes)]
        for lie in mutations(claim):
            if renamed(lie, alike) == renamed(claim, alike):
                continue
            if not any(shown(rows, known, where, variable, claim, lie) for rows, known in places.values()):
                unseen.append(f"{where} {variable}: {claim} as {lie}")
    assert unseen == []


def renamed(claim, alike) -> str:
    text = " ".join(claim)
    for pair in alike:
        text = text.replace(max(pair), min(pair))
    return text


def telling_rows(trace) -> list[list]:
    """Of each pass the rows with a comment; a line that ran again with the same shape tells nothing new."""
    found = {}
    for row in trace:
        if row.kind == "statement" and row.claim is not None:
            turn = row.turn if LOCAL & set("".join(row.claim)) else None
            rows = found.setdefault((row.number, row.backward), {})
            rows.setdefault((row.where, row.variable, row.claim, row.shape, turn), row)
    return [list(rows.values()) for rows in found.values()]


def shown(rows, known, where, variable, claim, lie) -> bool:
    """Whether the pass tells that `lie` is one; other comments may be blamed as well."""
    changed = [row for row in rows if (row.where, row.variable, row.claim) == (where, variable, claim)]
    for row in changed:
        row.claim = lie
    try:
        return bool(mismatches(rows, GLOSSARY, known, distinct=True))
    finally:
        for row in changed:
            row.claim = claim


LIES = {  # file, what it says, what it might have said: a lie of every kind
    "swapped letters": ("attention", "v, place)  # (B, H, T, D)", "v, place)  # (B, T, H, D)"),
    "swapped after an edit": ("attention", "flatten(2)  # (B, T, C)", "flatten(2)  # (B, C, T)"),
    "missing axis": ("mlp", "self.activation(gate) * up  # (B, T, F)", "self.activation(gate) * up  # (B, T)"),
    "an axis too many": ("norms", "self.eps)  # (B, T, C) or (B, T, H, D)", "self.eps)  # (B, T, C, D)"),
    "missing batch": ("transformer", "self.embedding_scale  # (B, T, C)", "self.embedding_scale  # (T, C)"),
    "no axes at all": ("transformer", "self.embedding_scale  # (B, T, C)", "self.embedding_scale  # ()"),
    "stale letter, C for F": ("mlp", "chunk(2, dim=-1)  # (B, T, F)", "chunk(2, dim=-1)  # (B, T, C)"),
    "stale letter, H for G": ("attention", "# (B, H, T, D), (B, G, S, D), (B, G, S, D)", "# (B, H, T, D)"),
    "stale letter, C for V": ("transformer", "cache))  # (B, T, V)", "cache))  # (B, T, C)"),
    "T for S": ("attention", "* self.scale  # (B, H, T, S)", "* self.scale  # (B, H, T, T)"),
    "S for T": ("attention", "softmax(dim=-1)  # (B, H, T, S)", "softmax(dim=-1)  # (B, H, S, T)"),
    "a letter that is in no glossary": ("mlp", "self.down(hidden)  # (B, T, C)", "self.down(hidden)  # (B, T, X)"),
    "a lower-case letter": ("mlp", "self.down(hidden)  # (B, T, C)", "self.down(hidden)  # (B, t, C)"),
    "no commas": ("mlp", "self.down(hidden)  # (B, T, C)", "self.down(hidden)  # (B T C)"),
    "a word": ("mlp", "self.down(hidden)  # (B, T, C)", "self.down(hidden)  # (batch, time, width)"),
    "a wrong sum": ("attention", "# (B, H+2G, T, D)", "# (B, H+G, T, D)"),
    "a wrong multiple": ("attention", "# (B, H+2G, T, D)", "# (B, 3H, T, D)"),
    "a wrong fraction": ("attention", "# (B, H+2G, T, D)", "# (B, C/2, T, D)"),
    "a wrong number": ("positions", "[:, None, None]  # (H, 1, 1)", "[:, None, None]  # (H, 1, 2)"),
    "a wrong alternative": ("positions", "self.positions[None]  # (B|1, T)", "self.positions[None]  # (B|2, T)"),
    "an ellipsis in the middle": ("dropout", "else x  # (…)", "else x  # (B, …, C)"),
    "an ellipsis and a wrong end": ("dropout", "else x  # (…)", "else x  # (…, F)"),
    "too few shapes": ("attention", "# (B, H, T, D), (B, G, T, D)", "# (B, H, T, D), (B, G, T, D), (T)"),
    "shapes in the wrong order": ("attention", "# (B, H+G, T, D), (B, G, T, D)", "# (B, G, T, D), (B, H+G, T, D)"),
    "a number called a tensor": ("attention", "queries_and_keys = self.n_heads + self.n_kv_heads",
                                 "queries_and_keys = self.n_heads + self.n_kv_heads  # (H, D)"),
    "half a second claim": ("attention", "# (B, H, T, D), (B, G, T, D)", "# (B, H, T, D), (B, G, T, D"),
    "half a claim": ("mlp", "self.down(hidden)  # (B, T, C)", "self.down(hidden)  # (B, T, C"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LIES)
def test_a_lie_in_the_source_is_told_with_its_line(kind, monkeypatch):
    file, true, lie = LIES[kind]
    path = ROOT / "modules" / f"{file}.py"
    source = path.read_text(encoding="utf-8")
    assert true in source
    line = source[: source.index(true)].count("\n") + true.split("# ")[0].count("\n") + 1
    lines = source.replace(true, lie, 1).splitlines(keepends=True)
    real = tracing.statements.source_lines
    patched = lambda name: lines if name == str(path) else real(name)  # noqa: E731
    monkeypatch.setattr(tracing.statements, "source_lines", patched)
    variant = {"positions": "alibi-grouped-six-heads", "mlp": "gpt2-grouped"}.get(file, "llama-grouped")
    shapes = everything(three_layers("llama-grouped" if "gate" in true or "chunk" in true else variant))
    with pytest.raises(AxesError, match=f"modules/{file}.py:{line}: "):
        shapes.check()


def test_grammar_of_axes():
    assert claims("(B, H+2G, T), ()") == ((("B", "H+2G", "T"),), ((),))
    assert claims("(B, T): and why") == ((("B", "T"),),)
    assert claims("(B, T, C) or (B, T, H, D), (T)") == ((("B", "T", "C"), ("B", "T", "H", "D")), (("T",),))
    assert claims("half of them (T)") is None
    sizes = {"H": 6, "G": 2, "B": 5, "T": 17}
    assert [size(text, sizes) for text in ("H+2G", "BT", "T-1", "H/2", "3", "K")] == [10, 85, 16, 3, 3, None]
    assert malformed(("…", "B|1", "2G"), GLOSSARY) is None
    assert "in front" in malformed(("B", "…"), GLOSSARY)
    assert "not in the glossary" in malformed(("B", "Q"), GLOSSARY)


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
    kernel = 2 * 2 * 4 * BATCH * LENGTH * LENGTH * 10  # two layers: q·k and p·v, four heads of ten; not in its registry
    with Trace(model, values=True, gradients=True, costs=True, keep=True) as shapes:
        model(ids).square().mean().backward()
    top = shapes.rows[0]
    assert top.flops == counter.get_total_flops() + 2 * kernel
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
    model = three_layers("gpt2")
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
)  # fmt: skip
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
    model = three_layers(variant)
    before = dict(vars(model.blocks[0].attention))
    for fails in (False, True):
        ids = tokens(model).float() if fails else tokens(model)
        shapes = Trace(model, gradients=True, costs=True)
        try:
            with shapes:
                model(ids)
        except RuntimeError:
            assert fails
        assert hooks(model) == 0 and sys.gettrace() is None
        assert torch.overrides._get_current_function_mode() is None
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
    x, place = torch.zeros(2, 3, 8), Placement(True, None)
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
