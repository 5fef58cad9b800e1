"""One step of speculative decoding with all its numbers: what is drafted, how likely it is kept, what replaces it."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import torch

from lab.compute.eval_mode import eval_mode
from lab.data.tokenizers import Tokenizer
from lab.display.palette import GREEN, SKY, VERMILLION
from lab.display.style import Picture, drawable, panels
from lab.display.token_box import readable
from lab.generation.acceptance import residual, verify
from lab.generation.drafters import HeadDrafter, build_drafter
from lab.generation.generate import check_probabilities
from lab.generation.request import Request
from lab.generation.sampling import pick_ids
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from lab.generation.speculative import DraftedRows, check_draft_logits
from modules.transformer import Transformer
from settings.errors import GenerationError


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AcceptanceStep:
    """The rule min(1, p / q) on one token.

    tokens: a row for each id that the drafter or the model may choose, the likeliest first: its text, q under the
    drafter, p under the model, `keep` = min(1, p / q), and `residual` = max(0, p − q) / Σ max(0, p − q).
    drafted: the id that was drawn from q. uniform: the random number from [0, 1) that it is kept below `keep`.
    chosen: the id that results, which is `drafted` where it is kept.
    """

    tokens: pd.DataFrame
    drafted: int
    uniform: float
    kept: bool
    chosen: int

    @property
    def overlap(self) -> float:
        """Σ min(p, q): the chance that a draft is kept, before it is drawn."""
        return float(np.minimum(self.tokens["p"], self.tokens["q"]).sum())

    def table(self, k: int = 8) -> pd.DataFrame:
        """The k likeliest tokens, and the drafted and the chosen one if they are not among these."""
        shown = (np.arange(len(self.tokens)) < k) | self.tokens.index.isin([self.drafted, self.chosen])
        return self.tokens[shown]

    def said(self) -> str:
        """What happened, in words."""
        row = self.tokens.loc[self.drafted]
        lines = [
            f"drafted from q: {row['text']}, with q = {row['q']:.3f}; the model gives it p = {row['p']:.3f}",
            f"it is kept with probability min(1, p / q) = {row['keep']:.3f}; the random number is {self.uniform:.3f}: "
            + ("kept" if self.kept else "refused"),
        ]
        if not self.kept:
            lines.append(f"drawn in its place from max(0, p − q), normalised: {self.tokens.loc[self.chosen, 'text']}")
        return "\n".join([*lines, f"over all drafts, the chance to be kept is Σ min(p, q) = {self.overlap:.3f}"])

    def picture(self, k: int = 8) -> Picture:
        """Bars of q and p for the likeliest tokens, and of the residual.

        q is made of what is kept and what is refused; p, of what is kept and what is drawn in place of refused drafts.
        """
        shown = self.table(k)
        q, p, left = (shown[name].to_numpy() for name in ("q", "p", "residual"))
        both, places = np.minimum(p, q), np.arange(len(shown))
        with panels(1.4 + 0.4 * len(shown), 2) as (bars, rest):
            style = dict(height=0.36)
            bars.barh(places - 0.2, both, color=GREEN, label="kept: min(p, q)", **style)
            bars.barh(places - 0.2, q - both, left=both, color=SKY, hatch="//", label="refused: rest of q", **style)
            bars.barh(places + 0.2, both, color=GREEN, **style)
            bars.barh(places + 0.2, p - both, left=both, color=VERMILLION, label="drawn in place: rest of p", **style)
            for name, values, shift in (("q", q, -0.2), ("p", p, 0.2)):
                for place, value in zip(places, values):
                    bars.text(value, place + shift, f" {name} {value:.3f}", va="center", fontsize=8)
            drawn = rest.barh(places, left, height=0.5, color=VERMILLION)
            rest.bar_label(drawn, [f"{value:.3f}" for value in left], padding=4, fontsize=8)
            for plot, most in ((bars, max(p.max(), q.max())), (rest, left.max())):
                plot.set(xlim=(0, 1.28 * most or 1), ylim=(len(shown) - 0.4, -0.6), xlabel="probability")
                plot.set_yticks(places, [self._label(id, text) for id, text in shown["text"].items()])
                plot.grid(axis="y", visible=False)
                plot.tick_params(axis="y", length=0)
            bars.set_title("draft (q) and model (p)")
            rest.set_title("max(0, p − q), normalised")
            rest.set_yticklabels([])
            bars.figure.legend(loc="outside lower center", ncols=3)
            return Picture(bars.figure, f"One step of speculative decoding. {self.said()}".replace("\n", "; "))

    def _label(self, id: int, text: str) -> str:
        roles = [name for name, own in (("drafted", self.drafted), ("chosen", self.chosen)) if own == id]
        return drawable(text, most=24) + (f" ({', '.join(roles)})" if roles else "")

    def _readable_table(self) -> pd.DataFrame:
        shown = self.table().rename(columns={"text": "token", "keep": "min(1, p / q)"})
        return shown.round(3).set_index("token")

    def __repr__(self) -> str:
        return f"{self._readable_table().to_string(na_rep='')}\n{self.said()}"

    def _repr_html_(self) -> str:
        said = "".join(f"<div>{line}</div>" for line in map(escape, self.said().splitlines()))
        return f"{self._readable_table().to_html(border=0, na_rep='')}{said}"


@torch.inference_mode()
def acceptance_step(
    model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int], *, draft: Transformer | None = None,
    sampling: SamplingConfig = STRATEGIES["balanced"], seed: int = 0,
) -> AcceptanceStep:
    """Drafts the token after the prompt, and keeps or replaces it by the rule of lab/generation/acceptance.py.

    draft: as for `speculate`; None: the model's nearest further head, which reads all of the prompt but its last token.
    Raises GenerationError as `speculate` does.
    """
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    request = Request(prompts=[ids], max_tokens=1, sampling=sampling, stop_tokens=(), seed=seed,
                      vocab_size=tokenizer.vocab_size)
    checked = request.checked(model.config)
    drafter = build_drafter(model, draft, 1, request)
    if isinstance(drafter, HeadDrafter) and len(ids) < 2:
        raise GenerationError("a further head drafts from the token before the last one; give a prompt of two tokens")
    rows = DraftedRows(drafter, checked)
    uniform = torch.rand(3, generator=rows.generators[0], dtype=torch.float64)
    with eval_mode(model), eval_mode(drafter.model):
        drafter.prepare(checked.prompts, len(ids) + 1)
        hidden = drafter.read(torch.tensor([ids], device=rows.device), model.new_cache(1, len(ids)))  # (1, T, C)
        logits = model.head(hidden[:, -1]).float()  # (1, V)
        check_probabilities(logits.log_softmax(dim=-1), 1)
        drafter.start([ids], torch.tensor([len(ids) - 2]))
        guessed = drafter.next_logits(0, None).to(rows.device)  # (1, V)
        check_draft_logits(guessed)
    p, q = (rows.distribution(each[:, : checked.vocab_size], rows.seen) for each in (logits, guessed))  # (1, V)
    guess = pick_ids(q, uniform[2:])  # (1)
    verdict = verify(guess[:, None], q[:, None], torch.stack((p, p), dim=1), uniform[None, :2], torch.ones(1).long())
    kept = bool(verdict.kept)
    return AcceptanceStep(
        tokens=_possible_tokens(tokenizer, p[0], q[0]), drafted=int(guess), uniform=float(uniform[0]), kept=kept,
        chosen=int(guess if kept else verdict.following),
    )


def _possible_tokens(tokenizer: Tokenizer, p: torch.Tensor, q: torch.Tensor) -> pd.DataFrame:
    """A row for each id with p > 0 or q > 0, from p and q (V), sorted by the larger of the two."""
    frame = pd.DataFrame({"q": q.numpy(), "p": p.numpy()}).rename_axis("id")
    with np.errstate(divide="ignore", invalid="ignore"):
        frame["keep"] = np.where(frame["q"] > 0, np.minimum(1, frame["p"] / frame["q"]), np.nan)
    frame["residual"] = residual(p, q).numpy()
    frame = frame[(frame["p"] > 0) | (frame["q"] > 0)]
    frame = frame.loc[frame[["p", "q"]].max(axis=1).sort_values(ascending=False, kind="stable").index]
    texts = [readable(tokenizer.token_bytes(id)).replace("\n", "") or "(nothing)" for id in frame.index]
    frame.insert(0, "text", texts)
    return frame
