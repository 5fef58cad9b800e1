"""Lenses: what each layer would predict if the model's final norm and head read its state.

The logit lens reads a state as it is (nostalgebraist 2020). The tuned lens first maps it by x + W·x + b, trained for
each layer to give the model's final distribution (Belrose et al. 2023, arXiv 2303.08112; tuned_lens.py). A factored
model has three streams to read: xt, xe and xt+xe. Layer 0 is the input of the first block, layer l the output of the
l-th block. The layers are those that compute the next token (`model.next_token_blocks`).

The numbers of a lens mean little alone, so there are two baselines. "random" reads the states of an untrained model.
"shuffled" compares with the model's predictions in another sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from lab.analysis.forward_pass import AnalysisError, read_prompt, readers, record, token_label
from lab.compute.device import seeded_by
from lab.data.token_file import TokenFile
from lab.data.tokenizers import Tokenizer
from lab.display.html import render
from lab.display.plots import percent, shade
from modules.transformer import Transformer
from settings.messages import suggest

BASELINES = ("model", "random", "shuffled")
WINDOWS = 4  # sequences read at once; "shuffled" takes a window's targets from the next window
MOST_COLUMNS = 16  # of the table in a notebook
TABLE = """
{% set style = "text-align:left;white-space:nowrap;padding:2px 5px" %}
<div><b>{{ title }}</b>: the likeliest next token by layer{{ cut }}</div>
<div style="overflow-x:auto"><table>
{% for name, cells in rows %}
<tr><th style="{{ style }}">{{ name }}</th>
{% for cell in cells %}<td style="{{ style }}">{{ cell|safe }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
"""


class Translator(NamedTuple):
    """x + W·x + b: weight W (C, C), bias b (C)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x + torch.nn.functional.linear(x, self.weight.to(x), self.bias.to(x))


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedLens:
    """translators: by (baseline, stream, layer); without one, x does not change. seed: of the untrained model."""

    translators: dict[tuple[str, str, int], Translator]
    seed: int

    def __repr__(self) -> str:
        streams = dict.fromkeys(stream for _, stream, _ in self.translators)
        return f"TunedLens({len(self.translators)} translators; streams {', '.join(streams)})"

    def __call__(self, x: Tensor, stream: str, layer: int, baseline: str = "model") -> Tensor:
        translator = self.translators.get((baseline, stream, layer))
        return x if translator is None else translator(x)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerReadings:
    """What a lens reads in each layer after each token of a prompt.

    frame: layer, position, rank (from 1), token, text, probability. kl (L+1, T): Σ p·log(p/q) in nats, with the model's
    final distribution p and the layer's q; 0 if the layer predicts the same as the model.
    """

    labels: list[str]
    stream: str
    lens: str
    frame: pd.DataFrame
    kl: Tensor

    def title(self) -> str:
        return f"{self.lens} lens on {self.stream}"

    def __str__(self) -> str:
        last = self.frame[self.frame["position"] == len(self.labels) - 1]
        lines = [
            f"layer {layer:>2}, KL {self.kl[layer, -1]:6.3f}: " + in_line(rows) for layer, rows in last.groupby("layer")
        ]
        return "\n".join([f"{self.title()}: what may follow «{self.labels[-1]}»", *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        first = max(0, len(self.labels) - MOST_COLUMNS)
        read_at = dict(iter(self.frame.groupby(["layer", "position"])))

        def cell(rows: pd.DataFrame) -> str:
            best = rows.iloc[0]
            return shade(f"{best['text']} {percent(best['probability'])}", best["probability"], in_line(rows))

        rows = [("after", [shade(text, 0, f"position {i}") for i, text in enumerate(self.labels[first:], first)])]
        rows += [
            (f"layer {layer}", [cell(read_at[layer, position]) for position in range(first, len(self.labels))])
            for layer in range(len(self.kl))
        ]
        cut = f" (the last {MOST_COLUMNS} of {len(self.labels)} tokens)" if first else ""
        return render(TABLE, title=self.title(), cut=cut, rows=rows)


def in_line(rows: pd.DataFrame) -> str:
    return ", ".join(f"«{row.text}» {percent(row.probability)}" for row in rows.itertuples())


def read_layers(
    model: Transformer, prompt: str | Sequence[int], tokenizer: Tokenizer | None = None, *, stream: str | None = None,
    norm: bool = True, lens: TunedLens | None = None, k: int = 5,
) -> LayerReadings:
    """The k likeliest next tokens by layer and position, and how far each layer is from the final distribution.

    Layer 0 is the first block's input. stream: for a factored model "xt", "xe" or "xt+xe" (None: what the final norm
    reads). norm=False leaves the final norm out. lens: a tuned lens; None: the logit lens.
    """
    streams = readers(model)
    stream = list(streams)[-1] if stream is None else stream
    if stream not in streams:
        raise AnalysisError(f"unknown stream {stream!r}; {suggest(stream, streams)}")
    if lens is not None and not norm:
        raise AnalysisError("a tuned lens is trained with the final norm; leave norm=False out, or the lens")
    if not 1 <= k <= model.config.vocab_size:
        raise AnalysisError(f"k must lie between 1 and the vocabulary's {model.config.vocab_size}, not {k}")
    ids, labels = read_prompt(model, prompt, tokenizer)
    seen = record(model, torch.tensor([ids]))
    final, rows, divergences = log_p(model, seen.hidden[0]), [], []
    for layer, state in enumerate(seen.states):
        x = streams[stream](state)[0]
        found = log_p(model, normed(model, x if lens is None else lens(x, stream, layer), norm))
        divergences.append(kl(final, found))
        values, tokens = (part.tolist() for part in found.exp().topk(k))
        rows += [
            (layer, position, rank, token, token_label(token, tokenizer), value)
            for position in range(len(ids))
            for rank, (token, value) in enumerate(zip(tokens[position], values[position]), 1)
        ]
    name = "tuned" if lens is not None else "logit" if norm else "logit (no norm)"
    frame = pd.DataFrame(rows, columns=["layer", "position", "rank", "token", "text", "probability"])
    return LayerReadings(labels=labels, stream=stream, lens=name, frame=frame, kl=torch.stack(divergences).cpu())


def lens_quality(
    model: Transformer, tokens: TokenFile, lens: TunedLens | None = None, *, batches: int = 4, seed: int = 0
) -> pd.DataFrame:
    """The mean KL to the model's final distribution, in nats. Columns: stream, layer, lens, baseline, kl.

    It is measured on `batches` · 4 windows of the tokens, the same for every lens. The column lens has "logit",
    "logit (no norm)" and, if one is given, "tuned"; each with the model and the two baselines.
    """
    sums: dict[tuple, float] = {}
    other = untrained_copy(model, seed if lens is None else lens.seed)
    for step in range(batches):
        windows = torch.from_numpy(tokens.batch(seed, step, WINDOWS, model.config.context_length))
        states, ends = baselines(model, other, windows[:, :-1])
        for window in range(WINDOWS):  # one at a time, to bound the memory
            targets = {baseline: log_p(model, end[window]) for baseline, end in ends.items()}
            for (baseline, stream, layer), state in states.items():
                x = state[window]
                ways = {"logit": normed(model, x, True), "logit (no norm)": x}
                if lens is not None:
                    ways["tuned"] = normed(model, lens(x, stream, layer, baseline), True)
                for name, hidden in ways.items():
                    key = stream, layer, name, baseline
                    value = kl(targets[baseline], log_p(model, hidden)).mean().item()
                    sums[key] = sums.get(key, 0.0) + value / (batches * WINDOWS)
    rows = [(*key, value) for key, value in sums.items()]
    return pd.DataFrame(rows, columns=["stream", "layer", "lens", "baseline", "kl"])


def baselines(
    model: Transformer, other: Transformer, tokens: Tensor
) -> tuple[dict[tuple[str, str, int], Tensor], dict[str, Tensor]]:
    """The states to read, by (baseline, stream, layer), and the head's inputs to compare them with, by baseline.

    All are (B, T, C). other: the untrained model.
    """
    seen, untaught = record(model, tokens), record(other, tokens)
    read = {"model": seen.states, "random": untaught.states, "shuffled": seen.states}
    states = {
        (baseline, stream, layer): reader(state)
        for stream, reader in readers(model).items()
        for baseline in BASELINES
        for layer, state in enumerate(read[baseline])
    }
    return states, {"model": seen.hidden, "random": seen.hidden, "shuffled": seen.hidden.roll(1, dims=0)}


def untrained_copy(model: Transformer, seed: int) -> Transformer:
    """A new model with the same settings, on the same device."""
    with seeded_by(seed, model.embedding.weight.device):
        return Transformer(model.config).to(model.embedding.weight).eval()


def normed(model: Transformer, x: Tensor, norm: bool) -> Tensor:
    """The head's input (…, C) from a state (…, C)."""
    with torch.no_grad():
        return model.norm(x) if norm else x


def log_p(model: Transformer, hidden: Tensor) -> Tensor:
    """The next token's log-probabilities (…, V) from the head's input (…, C)."""
    with torch.no_grad():
        return model.head(hidden).log_softmax(-1)


def kl(target: Tensor, log_q: Tensor) -> Tensor:
    """Σ p·(log p − log q) over the last axis, the target being log p."""
    return (target.exp() * (target - log_q)).sum(-1)
