"""Runs opened for a comparison: chosen by name, glob or query, and those that can't be compared with the reason.

Imports no torch: what a run says of itself is in its files.
"""

import ast
import fnmatch
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from config import ARCHITECTURES, DataConfig, ModelConfig, TrainConfig
from lab.costs.estimates import estimate
from lab.data.sources import DEFAULT_TALES
from lab.files.reading import named_path
from lab.runs.log_table import check_rows
from lab.runs.names import TRAINED, run_names
from lab.runs.run import Run
from lab.runs.settings import settings_by_name
from settings.errors import ConfigError, GlassboxError, IdeaError, RunError
from settings.messages import short, suggest

NUMBERS = ("step", "tokens", "seconds", "loss", "tokens_per_second", "memory")  # of every row of the log
PATTERN = re.compile(r"[A-Za-z0-9._*?!\[\]/\\-]+")  # what a name or a glob is made of; a query needs more
# In a query: a text in quotes, or a setting, which may stand between backticks
QUERY_PARTS = re.compile(r"""('[^'\\\n]*'|"[^"\\\n]*")|`([\w.]+)`|(?<![\w.])((?:model|train)(?:\.\w+)+)""")
# All that a query is made of. Neither calls nor attributes: nothing in it can run anything.
ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Invert, ast.BinOp, ast.BitAnd,
    ast.BitOr, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Compare, ast.cmpop, ast.Name, ast.Load, ast.Constant, ast.List,
    ast.Tuple,
)  # fmt: skip
LONGEST_QUERY = 10_000  # characters
DOT = "__"  # stands for the dot of a setting while pandas reads a query

Chosen = str | Path | Run | Iterable[str | Path | Run] | None


@dataclass(frozen=True, eq=False)
class Compared:
    """A run with its log, read once."""

    run: Run
    log: pd.DataFrame
    validation_loss: float  # of the stored weights; NaN where they were never validated

    @cached_property
    def settings(self) -> dict[str, object]:
        return settings_by_name(self.run.model_config, self.run.train_config)

    @cached_property
    def configuration(self) -> tuple[ModelConfig, TrainConfig]:
        """Equal for runs whose settings differ in their seed alone."""
        data = self.data_settings.replace(tokenizer=self.run.train_config.data.tokenizer)
        return self.run.model_config, self.run.train_config.settled().replace(seed=0, data=data)

    @cached_property
    def data_settings(self) -> DataConfig:
        """The settings that decide on the text; equal where one leaves out what another one writes down."""
        data = self.run.train_config.data.replace(tokenizer="")
        return data.replace(max_documents=data.max_documents or DEFAULT_TALES) if data.source == "tales" else data

    @property
    def text_name(self) -> str:
        """Where its text came from, with the fingerprint of the held-out documents where it is recorded."""
        source, record = self.run.train_config.data.source, self.run.text
        return f"{source} [{record.validation}]" if record else source

    @cached_property
    def facts(self) -> dict[str, object]:
        """What the run is and what it took: seconds of training, bytes, FLOPs of the whole training (NaN where an idea
        keeps them from being counted; `estimate` says why)."""
        costs, tokens = estimate(self.run.model_config, self.run.train_config), int(self.log["tokens"].iloc[-1])
        try:
            flops = tokens * costs.training_flops
        except IdeaError:
            flops = math.nan
        return {
            "validation_loss": self.validation_loss,
            "architecture": architecture(self.run.model_config),
            "data": self.run.train_config.data.source,
            "parameters": costs.parameters,
            "tokens": tokens,
            "seconds": float(self.log["seconds"].iloc[-1]),
            "flops": flops,
            "tokens_per_second": float(self.log["tokens_per_second"].median()),
            "memory": int(self.log["memory"].max()),
        }

    def at(self, x: str) -> np.ndarray:
        """How far each row of the log is: "steps", "tokens", "seconds" or "flops"."""
        if x == "flops":
            return self.log["tokens"].to_numpy() * (self.facts["flops"] / self.facts["tokens"])
        return self.log["step" if x == "steps" else x].to_numpy(dtype=float)


def same_text(runs: Iterable[Compared]) -> bool:
    """Whether all were held out the same documents: by fingerprint, and by settings beside a run without a record."""
    runs = list(runs)
    known = {compared.run.text.validation for compared in runs if compared.run.text}
    settings = {compared.data_settings for compared in runs}
    return len(known) <= 1 and (len(settings) <= 1 or all(compared.run.text for compared in runs))


def same_tokens(runs: Iterable[Compared]) -> bool:
    """Whether all read the same held-out documents by the same tokenizer."""
    runs = list(runs)
    return len({compared.run.tokenizer.fingerprint for compared in runs}) <= 1 and same_text(runs)


def architecture(config: ModelConfig) -> str:
    """The architecture among the presets' that this one is in kind, or "own"."""
    for name, parts in ARCHITECTURES.items():
        kinds = (config.norm.kind, config.norm.bias, config.mlp.gated, config.position.kind, config.block.kind)
        block = parts["block"].kind if "block" in parts else "residual"
        norm, gated = parts["norm"], parts["mlp"].gated
        if kinds == (norm.kind, norm.bias, gated, parts["position"].kind, block):
            return name
    return "own"


def open_runs(chosen: Chosen, folder: Path | None) -> tuple[dict[str, Compared], dict[str, str]]:
    """The chosen runs that can be compared, by name, and for each other one the reason. Raises RunError where a name
    or a glob chooses none, ConfigError for a query that can't be asked."""
    folder = Path(folder or TRAINED)
    runs, left_out = {}, {}
    for one in chosen if isinstance(chosen, Iterable) and not isinstance(chosen, str) else [chosen]:
        is_query = isinstance(one, str) and not PATTERN.fullmatch(one) and not os.path.exists(one)
        if not is_query and not isinstance(one, Run | None):
            named_path(one)
        names = run_names(folder) if is_query else _matching(one, folder)
        opened, damaged = _open_each(names, folder)
        if is_query:
            asked = query(opened, one)
            opened = {name: opened[name] for name in asked}
        for name in opened.keys() & runs.keys():
            if not opened[name].run.folder.samefile(runs[name].run.folder):
                raise RunError(f"two runs are named {name!r}; rename the folder of one to compare them")
        runs |= opened
        left_out |= damaged
    return runs, left_out


def _matching(one, folder: Path) -> list:
    """The runs that a name, a path or a glob means; all of them for None."""
    names = run_names(folder)
    if one is None:
        return names
    if isinstance(one, Run) or one in names or (Path(one) / "model_config.json").exists():
        return [one]
    matches = fnmatch.filter(names, str(one))
    if not matches:
        raise RunError(f"no run {str(one)!r} in {folder}; {suggest(str(one), names)}")
    return matches


def _open_each(names: Iterable, folder: Path) -> tuple[dict[str, Compared], dict[str, str]]:
    opened, left_out = {}, {}
    for one in names:
        name = one.name if isinstance(one, Run) else Path(one).name
        try:
            opened[name] = open_one(one if isinstance(one, Run) else Run.open(one, folder))
        except GlassboxError as error:
            left_out[name] = str(error).replace("\n", " ")
    return opened, left_out


def open_one(run: Run) -> Compared:
    """The run with its log. Raises RunError where a comparison would rest on what is not there or is damaged."""
    run.stored_parameters()  # what the config claims is held against the weights before it is counted
    log = run.log()
    missing = [name for name in NUMBERS if name not in log.columns]
    if missing:
        raise RunError(f"log_data.csv of {run.name!r} lacks the columns {', '.join(missing)}; train it again")
    if not len(log):
        raise RunError(f"run {run.name!r} has taken no step yet; train it")
    for name in (*NUMBERS, "validation_loss"):
        column = log[name] if log[name].dtype.kind in "if" else pd.to_numeric(log[name], errors="coerce")
        wrong = ~np.isfinite(column.to_numpy(dtype=float))
        if name == "validation_loss":
            wrong &= log[name].notna().to_numpy()
        if wrong.any():
            row = int(np.argmax(wrong))
            raise RunError(
                f"log_data.csv of {run.name!r} is damaged or its training diverged: {name} is {log[name].iloc[row]} "
                f"in row {row + 1}; train it again, with a lower learning rate if it diverged"
            )
    check_rows(run.name, log["step"].tolist(), run.stored_at())
    return Compared(run, log, run.validation_loss())


def query(runs: dict[str, Compared], text: str) -> list[str]:
    """Names of the runs for which a query holds. Raises ConfigError where it can't be asked."""
    values = {name: compared.facts | compared.settings for name, compared in runs.items()}
    rows = pd.DataFrame(values).T.infer_objects()
    columns = dict.fromkeys(name for row in values.values() for name in row)
    try:
        safe = safe_query(text, columns if runs else None)
        return list(rows.rename(columns=_plain_name).query(safe, engine="python").index) if runs else []
    except Exception as error:  # pandas raises whatever Python's parser and operators do
        facts = ", ".join(name for name in columns if "." not in name)
        raise ConfigError(
            f"{short(text)} is no name, no glob and no query that can be asked ({error}); a query compares {facts} and "
            "all settings, as in \"parameters < 1e6 and architecture == 'llama'\" or \"train.seed == 0\""
        ) from error


def safe_query(text: str, columns: Iterable[str] | None) -> str:
    """The query for pandas, with plain names for the settings, written anew from what has been allowed.

    columns: what it may compare; None: anything. Raises ConfigError or SyntaxError for everything that is more than
    comparisons of columns with numbers and texts.
    """
    if len(text) > LONGEST_QUERY:
        raise ConfigError(f"it has {len(text):,} characters; {LONGEST_QUERY:,} are the most")
    plain = QUERY_PARTS.sub(lambda part: part[1] or _plain_name(part[2] or part[3]), text)
    tree = ast.parse(plain, mode="eval")
    for node in ast.walk(tree):
        if not isinstance(node, ALLOWED):
            raise ConfigError(f"it holds a {type(node).__name__}; a query compares, and calls or looks up nothing")
        if isinstance(node, ast.Name) and columns is not None and node.id not in map(_plain_name, columns):
            raise ConfigError(f"{short(node.id.replace(DOT, '.'))} is not defined")
    return ast.unparse(tree)


def _plain_name(column: str) -> str:
    return column.replace(".", DOT)
