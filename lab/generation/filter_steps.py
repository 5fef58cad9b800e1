"""The distribution of the next token before and after each setting of `sampling`, one setting after the other.

    steps = filter_steps(model, tokenizer, "Once there was", STRATEGIES["balanced"])
    steps                   a table: the likeliest tokens, their probability under the model and after each step
    filter_picture(steps)   the same as bars, and as cumulative curves with the cut (lab/generation/filter_plots.py)

The distribution after a step is that of `probabilities` with the settings up to this step and none of the later ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd
from torch import Tensor

from lab.data.tokenizers import Tokenizer
from lab.display.plots import percent
from lab.display.token_box import readable
from lab.generation.generate import UNTOUCHED, next_token_logits
from lab.generation.sampling import probabilities
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from modules.transformer import Transformer

# In the order in which they are applied, with the value that changes nothing
NEUTRAL = {"repetition_penalty": 1.0, "temperature": 1.0, "top_k": None, "top_p": None, "min_p": None}
NAMES = {name: name.replace("_", " ") for name in NEUTRAL} | {"top_k": "top-k", "top_p": "top-p", "min_p": "min-p"}
SHOWN = 10  # tokens of a table or picture
LABELLED = 50  # tokens that have a label


@dataclass(frozen=True, kw_only=True, eq=False)
class FilterStep:
    """One setting, and the probabilities (V) before and after it. Token i is the same in all steps: the model's i-th
    likeliest."""

    setting: str
    value: float
    before: Tensor
    after: Tensor

    @property
    def name(self) -> str:
        """The setting and its value, as in "top-p 0.95"."""
        return f"{NAMES[self.setting]} {self.value:g}"

    @property
    def possible(self) -> int:
        """How many tokens had a probability above 0 before it."""
        return int((self.before > 0).sum())

    @property
    def kept(self) -> int:
        """How many tokens have one after it."""
        return int((self.after > 0).sum())

    @property
    def kept_share(self) -> float:
        """What the kept tokens had together before it."""
        return float(self.before[self.after > 0].double().sum())


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FilterSteps:
    """own (V): the probabilities under the model itself, falling. labels: of the likeliest tokens. steps: of the
    settings that change something, in their order."""

    prompt: str
    labels: list[str]
    own: Tensor
    steps: list[FilterStep]

    def table(self, k: int = SHOWN) -> pd.DataFrame:
        """A row for each of the k likeliest tokens (at most 50): its probability in the model and after each step."""
        labels = self.labels[:k]
        columns = {"model": self.own} | {step.name: step.after for step in self.steps}
        shares = {name: share[: len(labels)].tolist() for name, share in columns.items()}
        return pd.DataFrame(shares, index=pd.Index(labels, name="token"))

    def readable_table(self, k: int = SHOWN) -> pd.DataFrame:
        """The same in per cent, "–" for a token that is excluded, and below it how many tokens are possible."""
        table = self.table(k).map(lambda share: percent(share) if share else "–")
        counts = [int((self.own > 0).sum()), *(step.kept for step in self.steps)]
        table.loc["tokens that can come"] = [f"{count:,}" for count in counts]
        return table

    def __repr__(self) -> str:
        return f"the next token after “{self.prompt}”\n{self.readable_table().rename_axis(None).to_string()}"

    def _repr_html_(self) -> str:
        table = self.readable_table().rename_axis(None).to_html(border=0)
        return f"<div>the next token after “{escape(self.prompt)}”</div>{table}"


def filter_steps(
    model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int],
    sampling: SamplingConfig = STRATEGIES["balanced"],
) -> FilterSteps:
    """What each setting of `sampling` makes of the next token's distribution. Raises GenerationError for a prompt that
    the model can't take."""
    logits, seen = next_token_logits(model, tokenizer, prompt)
    own = probabilities(logits, seen, UNTOUCHED)[0]
    order = own.argsort(descending=True, stable=True)
    steps, config, before = [], UNTOUCHED, own
    for setting, neutral in NEUTRAL.items():
        value = getattr(sampling, setting)
        if value == neutral or config.temperature == 0:  # greedy leaves nothing to cut
            continue
        config = config.replace(**{setting: value})
        after = probabilities(logits, seen, config)[0]
        steps.append(FilterStep(setting=setting, value=value, before=before[order], after=after[order]))
        before = after
    labels = [readable(tokenizer.token_bytes(id)).replace("\n", "") for id in order[:LABELLED].tolist()]
    text = prompt if isinstance(prompt, str) else tokenizer.decode(prompt)
    return FilterSteps(prompt=text, labels=labels, own=own[order], steps=steps)
