"""Every axis comment in modules/ is true, and none could say anything else."""

import re

import pytest
import torch

import tracing.statements
from config import ModelConfig
from modules.transformer import Transformer
from settings.paths import ROOT
from tests.helpers.traced_passes import everything, shallow, tokens, traced
from tests.helpers.variants import VARIANTS, vary
from tracing.axes import AxesError, claims, malformed, size
from tracing.checks import check_row, letter_sizes, mismatches
from tracing.glossary import GLOSSARY, LOCAL, MAY_AGREE
from tracing.traces import Trace

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_comment_is_true_and_every_tensor_is_commented(variant):
    shapes = everything(shallow(variant, 1))
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
        *(everything(shallow(name, 1)) for name in names),
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
    passes.sort(key=lambda found: len(found[0]))  # a short pass is checked sooner
    sizes = [letter_sizes(rows, known) for rows, known in passes]
    said = {}
    for number, (rows, _) in enumerate(passes):
        for row in rows:
            said.setdefault((row.where, row.variable, row.claim), {})[number] = None
    assert len(said) > 400
    unseen = []
    for (where, variable, claim), places in said.items():
        alike = [
            pair for pair in MAY_AGREE
            if all(len({sizes[number].get(letter) for letter in pair} - {None}) < 2 for number in places)
        ]
        for lie in mutations(claim):
            if renamed(lie, alike) == renamed(claim, alike):
                continue
            if not any(shown(*passes[number], where, variable, claim, lie) for number in places):
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
    """Whether the pass tells that `lie` is one; other comments may be blamed as well.

    Where the changed rows are blamed by themselves, `mismatches` blames them too; to ask this first is much quicker.
    """
    changed = [row for row in rows if (row.where, row.variable, row.claim) == (where, variable, claim)]
    for row in changed:
        row.claim = lie
    try:
        if not LOCAL & set("".join(lie)):
            sizes = letter_sizes(rows, known)
            if any(check_row(row, sizes) for row in changed):
                return True
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
}


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
    shapes = everything(shallow("llama-grouped" if "gate" in true or "chunk" in true else variant, 1))
    with pytest.raises(AxesError, match=f"modules/{file}.py:{line}: "):
        shapes.check()


def test_grammar_of_axes():
    assert claims("(B, H+2G, T), ()") == ((("B", "H+2G", "T"),), ((),))
    assert claims("(B, T): and why") == ((("B", "T"),),)
    assert claims("(B, T, C) or (B, T, H, D), (T)") == ((("B", "T", "C"), ("B", "T", "H", "D")), (("T",),))
    assert claims("half of them (T)") is None
    sizes = {"H": 6, "G": 2, "B": 5, "T": 17}
    assert [size(text, sizes) for text in ("H+2G", "BT", "T-1", "H/2", "3", "K")] == [10, 85, 16, 3, 3, None]
    letters = frozenset(GLOSSARY)
    assert malformed(("…", "B|1", "2G"), letters) is None
    assert "in front" in malformed(("B", "…"), letters)
    assert "not in the glossary" in malformed(("B", "Q"), letters)
