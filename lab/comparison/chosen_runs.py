"""The runs of a comparison: chosen by name, glob or query, and what they have in common. Imports no torch.

A run that can't be opened is left out, with the reason. It never stops the others.
"""

import fnmatch
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.comparison.compared_run import ComparedRun, open_compared_run
from lab.comparison.run_query import matching_runs
from lab.data.token_file import TokenFile
from lab.files.reading import named_path
from lab.runs.names import run_names, runs_folder
from lab.runs.run import Run
from settings.errors import ConfigError, GlassboxError, RunError
from settings.json_text import is_unicode
from settings.messages import short, suggest

NAME_OR_GLOB = re.compile(r"[A-Za-z0-9._*?!\[\]/\\-]*")  # a query needs other characters too

Chosen = str | Path | Run | Iterable[str | Path | Run] | None


@dataclass(frozen=True, eq=False)
class ChosenRuns:
    """runs: by name. left_out: the others, each with the reason."""

    runs: Mapping[str, ComparedRun]
    left_out: Mapping[str, str]

    def without(self, failed: Mapping[str, str]) -> "ChosenRuns":
        """The same but for some runs, each with the reason why it is left out."""
        kept = {name: compared for name, compared in self.runs.items() if name not in failed}
        return ChosenRuns(kept, {**self.left_out, **failed})

    @property
    def same_text(self) -> bool:
        """Whether the same documents were held out for all runs: by fingerprint, and by settings beside a run without
        a record."""
        known = {compared.run.text.validation for compared in self.runs.values() if compared.run.text}
        settings = {compared.data_settings for compared in self.runs.values()}
        recorded = all(compared.run.text for compared in self.runs.values())
        return len(known) <= 1 and (len(settings) <= 1 or recorded)

    @property
    def in_nats(self) -> bool:
        """Whether all runs read the same tokens. Then losses per token compare, else bits per byte alone."""
        return len({compared.run.tokenizer.fingerprint for compared in self.runs.values()}) <= 1 and self.same_text

    @property
    def same_validation(self) -> bool:
        """Whether the trainings measured their validation losses on the same tokens."""
        lengths = {compared.run.train_config.evaluation_tokens for compared in self.runs.values()}
        return self.in_nats and len(lengths) <= 1

    @property
    def unit(self) -> str:
        return "nats per token" if self.in_nats else "bits per byte"

    def unit_factor(self, tokens: TokenFile) -> float:
        """The factor from nats per token to `unit`, for a text in a run's tokens."""
        return 1.0 if self.in_nats else len(tokens) / tokens.n_bytes / math.log(2)

    @property
    def configurations(self) -> dict[str, list[str]]:
        """The names of the runs that differ in their seed alone, by the name that they share; by all of the names where
        another group shares the same one. A copy of a run is no further seed: it stands by itself. So does a run of the
        same settings on another text."""
        groups: dict[tuple, list[str]] = {}
        copies: Counter = Counter()
        texts: dict[tuple, set] = {}
        for compared in self.runs.values():
            texts.setdefault(compared.configuration, set()).update(known_texts([compared]))
        for name, compared in self.runs.items():
            several = len(texts[compared.configuration]) > 1
            alike = compared.configuration, tuple(known_texts([compared])) if several else ()
            run = *alike, compared.run.train_config.seed
            groups.setdefault((*alike, copies[run]), []).append(name)
            copies[run] += 1
        labels = [group_name(names) for names in groups.values()]
        return {
            label if labels.count(label) == 1 else ", ".join(names): names
            for label, names in zip(labels, groups.values())
        }

    def one_side(self, names: str | Sequence[str]) -> list[str]:
        """The runs of one side of a test: a run, or seeds of one configuration. Raises RunError for a run that is not
        there, ConfigError for runs that differ in more than their seed."""
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name in self.left_out:
                raise RunError(f"{name!r} was left out: {self.left_out[name]}")
            if name not in self.runs:
                raise RunError(f"{name!r} is not in this comparison; {suggest(name, self.runs)}")
        runs = [self.runs[name] for name in names]
        seeds = {compared.run.train_config.seed for compared in runs}
        alike = len({compared.configuration for compared in runs}) == 1 and len(known_texts(runs)) <= 1
        if not alike or len(seeds) < len(names):
            given = ", ".join(names) or "none"
            raise ConfigError(f"a side is one run, or several that differ in their seed alone, not {given}")
        return names


def known_texts(runs: Iterable[ComparedRun]) -> set[tuple[str, str]]:
    """The fingerprints of the texts that the runs have a record of, to learn from and held out."""
    return {compared.known_text for compared in runs if compared.known_text}


def group_name(names: Sequence[str]) -> str:
    """The common part of the names of several seeds, with their number; a single name as it is."""
    if len(names) == 1:
        return names[0]
    stems = {re.sub(r"[-_.]*(seed)?[-_.]*\d+$", "", name) for name in names}  # as in NAME-seed0, NAME-2
    return f"{min(stems, key=len)} ({len(names)} seeds)"


def choose_runs(chosen: Chosen, folder: Path | None) -> ChosenRuns:
    """Opens the chosen runs. Raises RunError where a name or a glob chooses none, ConfigError for a query that can't be
    asked."""
    folder = runs_folder(folder)
    runs, left_out = {}, {}
    for one in chosen if isinstance(chosen, Iterable) and not isinstance(chosen, str) else [chosen]:
        is_query = isinstance(one, str) and not NAME_OR_GLOB.fullmatch(one) and not os.path.exists(one)
        if is_query and not is_unicode(one):
            raise ConfigError(f"{short(one)} is no query: it holds half of a surrogate pair, which no text can have")
        if not is_query and not isinstance(one, Run | None):
            named_path(one)
        opened, damaged = _open_all(run_names(folder) if is_query else _matches(one, folder), folder)
        if is_query:
            opened = {name: opened[name] for name in matching_runs(opened, one)}
        for name in opened.keys() & runs.keys():
            if not opened[name].run.folder.samefile(runs[name].run.folder):
                raise RunError(f"two runs are named {name!r}; rename the folder of one to compare them")
        runs |= opened
        left_out |= damaged
    return ChosenRuns(runs, left_out)


def _matches(one: str | Path | Run | None, folder: Path) -> list:
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


def _open_all(names: Iterable, folder: Path) -> tuple[dict[str, ComparedRun], dict[str, str]]:
    """The opened runs, and the reason for each that can't be opened."""
    opened, failed = {}, {}
    for one in names:
        name = one.name if isinstance(one, Run) else Path(one).name
        try:
            opened[name] = open_compared_run(one if isinstance(one, Run) else Run.open(one, folder))
        except GlassboxError as error:
            failed[name] = one_line(error)
    return opened, failed


def one_line(error: Exception) -> str:
    return str(error).replace("\n", " ")
