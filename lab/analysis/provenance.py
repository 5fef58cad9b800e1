"""Provenance: what each token of a prompt contributes to a prediction of a token-factored transformer, exactly.

The output of an MLP counts as one part for its layer; it is not divided among the tokens.

The token stream xt is a linear function of the model's start (it follows from arXiv 2603.07461):

    xt[t, i, c] = Σ_{s, j} M[t, i, s, j] · start[s, j, c]        M ← M + O·A·V·M in each layer, from M = I

with positions t, s, heads i, j and the channels c of a head; A are the attention weights of the layer, V and O the
matrices over heads of its value and output mixing. With frozen tokens M stays I, and attention writes into xe.
Layer 0 is the start, layer l the output of the l-th block. Heads count from 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from lab.analysis.forward_pass import LIMIT, AnalysisError, check_size, read_prompt, record, token_label
from lab.data.tokenizers import Tokenizer
from lab.display.html import render
from lab.display.palette import AGAINST, FOR, translucent
from lab.display.token_box import token_box
from modules.norms import Norm
from modules.transformer import Transformer
from settings.errors import ConfigError

COPIES = 4  # of a matrix, while it is computed
SPLIT = """
<div style="line-height:1.9"><b>{{ split.title() }}</b>
<div>what the token stream carried from each token, all heads together:</div>
<div style="overflow-wrap:anywhere">{{ tokens|safe }}</div></div>
<table>
{% for words, value in split.largest() %}
<tr><td style="text-align:right">{{ "%+.3f"|format(value) }}</td><td style="text-align:left">{{ words }}</td></tr>
{% endfor %}
</table>
"""


class Move(NamedTuple):
    """What one layer's attention does to the token stream: weights A (H, T, T), value V and output O (H, H)."""

    weights: Tensor
    value: Tensor
    output: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Provenance:
    """One prompt of T tokens on its way through the streams; H heads of D channels, C = H · D.

    moves: one for each layer; none if the tokens are frozen. start: the parts of the token stream at layer 0: "token"
    and, if positions are added there, "position", each (T, H, D). written: what each layer wrote into xe: "mlp" and,
    with frozen tokens, "attention", each (T, C). streams: xt at layers 0 to L, each (T, C). final and hidden (T, C):
    the inputs of the final norm and of the head.
    """

    model: Transformer
    tokenizer: Tokenizer | None
    labels: list[str]
    moves: list[Move]
    start: dict[str, Tensor]
    written: dict[str, list[Tensor]]
    streams: list[Tensor]
    final: Tensor
    hidden: Tensor
    limit: int

    def __repr__(self) -> str:
        return (
            f"Provenance of {len(self.labels)} tokens, {self.n_layers} layers, {self.n_heads} heads: "
            "matrix(layer), rebuilt(layer), split(position, token)"
        )

    @property
    def n_layers(self) -> int:
        return len(self.model.next_token_blocks)

    @property
    def n_heads(self) -> int:
        return self.model.config.n_heads

    def matrix(
        self, layer: int, positions: Iterable[int] | None = None, heads: Iterable[int] | None = None
    ) -> Tensor:
        """M of a layer from 0 to L, (positions, heads, T, H): the rows of these positions and heads (None: all).

        M = (I + O·A·V of layer l) ⋯ (I + O·A·V of layer 1) is multiplied from the left, and only in these rows:
        4 · positions · heads · T · H numbers at most. Raises AnalysisError if they exceed the limit.
        """
        positions = self.places("position", positions, len(self.labels))
        heads = self.places("head", heads, self.n_heads)
        (layer,) = self.places("layer", [layer], self.n_layers + 1)
        shape = (len(positions), len(heads), len(self.labels), self.n_heads)
        start = self.streams[0]
        check_size(
            COPIES * torch.Size(shape).numel() * start.element_size(), self.limit,
            f"{COPIES} · {shape[0]} positions · {shape[1]} heads · {shape[2]} tokens · {shape[3]} heads",
            "name fewer positions=[...] or heads=[...]",
        )
        rows = start.new_zeros(shape)  # (P, I, T, H)
        for p, position in enumerate(positions):
            rows[p, range(shape[1]), position, heads] = 1
        for move in reversed(self.moves[:layer]):
            moved = torch.einsum("pith,hk->pitk", rows, move.output)
            moved = torch.einsum("pitk,kts->pisk", moved, move.weights)
            rows += torch.einsum("pisk,kj->pisj", moved, move.value)
        return rows

    def rebuilt(self, layer: int, positions: Iterable[int] | None = None) -> Tensor:
        """xt of a layer, computed from M and the start alone: (positions, C). The model's own xt is in `streams`."""
        start = sum(self.start.values())
        return torch.einsum("pisj,sjc->pic", self.matrix(layer, positions), start).flatten(1)

    def split(self, position: int = -1, token: int | None = None) -> "LogitSplit":
        """The logit of `token` (None: the likeliest) after `position`, as a sum of parts.

        The parts "token" and "position" are what xt carried from a source position and head. "mlp" and "attention" are
        what a layer wrote into xe. "bias" is that of the final norm. The norm's scale is kept at its computed value,
        and so is the factor by which a cap lowers the logit. That makes the logit linear.
        """
        (position,) = self.places("position", [position], len(self.labels))
        with torch.no_grad():
            logits = self.model.head(self.hidden[position])
        token = int(logits.argmax()) if token is None else token
        if not 0 <= token < len(logits):
            raise AnalysisError(f"token id {token} is out of range, this model has ids 0 to {len(logits) - 1}")
        direction, bias = logit_direction(self.model.norm, self.model.head.unembedding()[token], self.final[position])
        if self.model.head.cap is not None:
            direction, bias = lowered(direction, bias, self.final[position], logits[token])
        rows, parts = self.matrix(self.n_layers, [position])[0], []
        by_head = direction.unflatten(0, (self.n_heads, -1))
        for part, start in self.start.items():
            carried = torch.einsum("ic,isj,sjc->sj", by_head, rows, start)[: position + 1].tolist()
            parts += [
                (part, 0, source, head, self.labels[source], value)
                for source, values in enumerate(carried)
                for head, value in enumerate(values)
            ]
        for part, writes in self.written.items():
            parts += [
                (part, layer, position, None, self.labels[position], (write[position] @ direction).item())
                for layer, write in enumerate(writes, 1)
            ]
        parts.append(("bias", self.n_layers, position, None, self.labels[position], float(bias)))
        frame = pd.DataFrame(parts, columns=["part", "layer", "source", "head", "label", "logit"])
        return LogitSplit(
            frame=frame.astype({"head": "Int64"}), position=position, token=token,
            token_label=token_label(token, self.tokenizer), labels=self.labels[: position + 1],
            logit=logits[token].item(),
        )

    def places(self, name: str, asked: Iterable[int] | None, count: int) -> list[int]:
        """The indices, each below `count`; negative ones count from the end, None means all."""
        asked = list(range(count)) if asked is None else list(asked)
        wrong = [place for place in asked if not -count <= place < count]
        if wrong or not asked:
            raise AnalysisError(f"there is no {name} {wrong}; this prompt has {name}s 0 to {count - 1}")
        return [place % count for place in asked]


@dataclass(frozen=True, kw_only=True, eq=False)
class LogitSplit:
    """The parts of one logit. frame: part, layer, source (position), head, label (of the source's token), logit.

    labels: the tokens up to this position. logit: the model's own, which the parts sum to.
    """

    frame: pd.DataFrame
    position: int
    token: int
    token_label: str
    labels: list[str]
    logit: float

    def carried(self) -> pd.Series:
        """What xt carried from each source position, all heads together."""
        return self.frame[self.frame["part"].isin(["token", "position"])].groupby("source")["logit"].sum()

    def title(self) -> str:
        return f"logit of «{self.token_label}» after «{self.labels[-1]}» at {self.position}: {self.logit:+.2f}"

    def largest(self, most: int = 12) -> list[tuple[str, float]]:
        """The largest parts, described, and the sum of all others."""
        ordered = self.frame.reindex(self.frame["logit"].abs().sort_values(ascending=False).index)
        named = [(in_words(row), row.logit) for row in ordered.head(most).itertuples()]
        rest = ordered["logit"].iloc[most:]
        return named + ([(f"the other {len(rest)} parts", float(rest.sum()))] if len(rest) else [])

    def __str__(self) -> str:
        return "\n".join([self.title(), *(f"{value:+8.3f}  {words}" for words, value in self.largest())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return split_html(self)


def in_words(part) -> str:
    if part.part in ("token", "position"):
        place = "" if part.part == "token" else "the place of "
        return f"{place}«{part.label}» at {part.source}, head {part.head}"
    return "the final norm's bias" if part.part == "bias" else f"{part.part} of layer {part.layer}"


def provenance(
    model: Transformer, prompt: str | Sequence[int], tokenizer: Tokenizer | None = None, *, limit: int = LIMIT
) -> Provenance:
    """Follows a prompt, a text or token ids, through the streams of a factored model.

    limit: the most bytes for a result; this one takes L · H · T² numbers. Raises AnalysisError if it needs more, and
    for a model whose token stream is not such a sum; GenerationError for a prompt that the model can't take.
    """
    check_streams(model)
    config = model.config
    ids, labels = read_prompt(model, prompt, tokenizer)
    check_size(
        config.n_layers * config.n_heads * len(ids) ** 2 * model.embedding.weight.element_size(), limit,
        f"{config.n_layers} layers · {config.n_heads} heads · {len(ids)}² tokens", "shorten the prompt",
    )
    moves, reads, mlps = [], [], []

    def moved(attention, inputs, output):
        reads.append(output[0])
        if not config.block.frozen_tokens:
            x, _, place = inputs[:3]
            weights = attention.weights(*attention.queries_and_keys(x, place), place)[0]
            mixings = (attention.value_mixing.heads_matrix(), attention.output_mixing.heads_matrix())
            moves.append(Move(weights, *(mixing.detach().to(weights) for mixing in mixings)))

    blocks = model.next_token_blocks
    hooks = {block.attention: moved for block in blocks}
    hooks |= {block.mlp: lambda _, __, output: mlps.append(output[0]) for block in blocks}
    seen = record(model, torch.tensor([ids]), hooks)
    return Provenance(
        model=model, tokenizer=tokenizer, labels=labels, moves=moves, start=starting_parts(model, ids),
        written={"attention": reads, "mlp": mlps} if config.block.frozen_tokens else {"mlp": mlps},
        streams=[state.xt[0] for state in seen.states], final=model.blocks[-1].join(seen.states[-1])[0],
        hidden=seen.hidden[0], limit=limit,
    )


def check_streams(model: Transformer) -> None:
    """Raises AnalysisError unless xt is a sum over whole heads of the embeddings."""
    block = model.config.block
    if not model.blocks[0].has_token_stream:
        raise AnalysisError(
            f"provenance needs a separate token stream, and a {block.kind} block has none; choose an architecture "
            "with the factored block, such as factored-alibi"
        )
    if not block.frozen_tokens:
        try:
            model.blocks[0].attention.value_mixing.heads_matrix()
            model.blocks[0].attention.output_mixing.heads_matrix()
        except ConfigError as error:
            raise AnalysisError(f"provenance follows whole heads: {error}, or with frozen_tokens=True") from error


@torch.no_grad()
def starting_parts(model: Transformer, ids: list[int]) -> dict[str, Tensor]:
    """The parts of the token stream at layer 0: the scaled embeddings and, if there are any, the position vectors."""
    tokens = torch.tensor(ids, device=model.embedding.weight.device)
    token = model.embedding(tokens) * model.embedding_scale
    position = model.position.embed(torch.zeros_like(token), torch.arange(len(ids), device=tokens.device))
    parts = {"token": token} | ({"position": position} if position.any() else {})
    return {name: part.unflatten(-1, (model.config.n_heads, -1)) for name, part in parts.items()}


@torch.no_grad()
def logit_direction(norm: Norm, output: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Direction (C) and bias with direction · x + bias = output · norm(x), at the norm's scale for this x (C).

    A layer norm is weight · scale · (x − mean(x)) + bias; the others do not subtract the mean.
    """
    direction = norm.scale(x) * (output if norm.weight is None else output * norm.weight)
    bias = output.new_zeros(()) if norm.bias is None else output @ norm.bias
    return (direction - direction.mean() if norm.centres else direction), bias


def lowered(direction: Tensor, bias: Tensor, x: Tensor, logit: Tensor) -> tuple[Tensor, Tensor]:
    """Direction and bias times the factor by which a cap lowers direction · x + bias to this logit."""
    uncapped = direction @ x + bias
    factor = logit / uncapped if uncapped else 1.0
    return direction * factor, bias * factor


def split_html(split: LogitSplit) -> str:
    """The text up to the prediction: a token is blue if it raises the logit, red if it lowers it."""
    carried = split.carried()
    most = carried.abs().max() or 1.0
    tokens = " ".join(
        token_box(
            label, f"{label} at {source}: {value:+.3f}",
            translucent(FOR if value >= 0 else AGAINST, round(0.65 * abs(value) / most, 2)), note=f"{value:+.2f}",
        )
        for source, (label, value) in enumerate(zip(split.labels, carried))
    )
    return render(SPLIT, split=split, tokens=tokens)
