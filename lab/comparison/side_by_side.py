"""Several runs continue one prompt with the same seed."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from config import SAMPLE_PROMPT
from lab.display.plots import SideBySide, side_by_side
from lab.evaluation.evaluate import token_lengths
from lab.generation.generate import transcribe
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from lab.runs.run import Run
from settings.errors import RunError


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Continuations:
    """Texts in columns, in a notebook and in a terminal; `frame` has their numbers.

    frame: a row for each run: its text, the number of generated tokens (an end of text among them), their mean
    log-probability under the run itself (nats per token), and the same in bits per byte, which compares tokenizers.
    """

    frame: pd.DataFrame

    def columns(self) -> SideBySide:
        return side_by_side({
            run: f"{row['text']}\n\nmean log-probability {row['log_probability']:.3f} nats per token, that is "
            f"{row['bits_per_byte']:.3f} bits per byte, over {row['tokens']} tokens"
            for run, row in self.frame.iterrows()
        })

    def _repr_html_(self) -> str:
        return self.columns()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.columns())


def generate_side_by_side(
    runs: Iterable[Run], prompt: str = SAMPLE_PROMPT, *, seed: int = 0,
    sampling: SamplingConfig = STRATEGIES["balanced"], max_tokens: int | None = None, decode: str = "auto",
) -> Continuations:
    """Each run continues the prompt as it would alone, with the same settings and seed.

    max_tokens: None is 200 for each run, or as many as it has positions for, if those are fewer. decode: as in
    `generate`. Raises RunError for no
    runs or two of one name, GenerationError where a run can't continue the prompt.
    """
    runs = list(runs)
    names = [run.name for run in runs]
    if not runs or len(set(names)) < len(names):
        raise RunError(f"give one run or more, each with a name of its own, not {', '.join(names) or 'none'}")
    settings = dict(seed=seed, sampling=sampling, max_tokens=max_tokens, decode=decode)
    rows = {}
    for run in runs:
        (made,) = transcribe(run.load_model(), run.tokenizer, [prompt], **settings)
        total = sum(made.log_probabilities)
        n_bytes = token_lengths(run.tokenizer)[made.tokens].sum()
        rows[run.name] = {
            "text": made.text, "tokens": len(made.tokens), "log_probability": total / len(made.tokens),
            "bits_per_byte": -total / n_bytes / math.log(2) if n_bytes else math.nan,
        }
    return Continuations(frame=pd.DataFrame.from_dict(rows, orient="index").rename_axis("run"))
