"""Many trainings, one after another: each variant with each seed. The same sweep again goes on where it was stopped.

    variants = overridden(preset("llama-tiny"), grid({"train.learning_rate": (1e-3, 4e-3)}), name="rates")
    for run, step in sweep(variants, seeds=range(3), show=True):
        ...
    compare_sweep(variants, seeds=range(3)).table(sort="validation_loss")
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd

from config import DataConfig, Preset
from lab.comparison.chosen_runs import ChosenRuns, choose_runs
from lab.comparison.comparison import Comparison
from lab.costs.estimates import estimate
from lab.data.packing import TokenData, prepare
from lab.data.tokenizers import Tokenizer
from lab.runs.checks import check_trainable, check_vocabulary
from lab.runs.lock import hold
from lab.runs.names import check_name, run_names
from lab.runs.run import Run
from lab.runs.text import find_tokenizer, with_commits_of
from lab.training.checkpoint import check_resumption
from lab.training.live import live
from lab.training.loop import Step, train
from settings.errors import ConfigError, GlassboxError, RunError, TokenizerError

SEED = "-seed"  # between a variant's name and the seed in the name of a run


def sweep(
    variants: Mapping[str, Preset], seeds: Iterable[int], folder: Path | None = None, *, show: bool = False
) -> Iterator[tuple[Run, Step]]:
    """Trains every variant with every seed in `folder` (None: trained/), seed by seed; yields each step with its run.

    The runs are called NAME-seedN. Finished runs stay as they are, stopped ones go on. Leaving the loop, Ctrl-C and the
    Stop button stop the whole sweep after the step. A training that fails, because it diverges for example, does not
    stop the others; at the end, RunError names the failed ones. show: the live view of each run, which begins with its
    number in the sweep.

    Problems of any run are raised before the first step: RunError for a name that can't be a run's, and where a run of
    that name was made with other settings, is held by another process or can't go on; ConfigError, TokenizerError or
    DataError for settings, tokenizers and data.
    """
    plan = planned(variants, seeds, folder)
    found = {name: find_run(name, settings, folder) for name, settings in plan.items()}
    plan = {name: with_own_commits(settings, found[name]) for name, settings in plan.items()}
    waiting = {name: settings for name, settings in plan.items() if not is_finished(found[name])}
    teachers = {name: Run.open_teacher(config, folder) for name, (_, config) in waiting.items()}
    data = {
        config: prepare(config, find_tokenizer(config.tokenizer, *found.values(), *teachers.values()))
        for config in dict.fromkeys(settings.train.data for settings in waiting.values())
    }
    for name, (model, config) in waiting.items():
        with naming(name):
            if not found[name]:
                own = find_tokenizer(config.data.tokenizer, teachers[name])
                check_means_the_same(config.data.tokenizer, own, data[config.data].tokenizer)
            check_trainable(model, config, data[config.data], teachers[name])
            if found[name]:
                with hold(found[name].folder):
                    check_resumption(found[name])
    return _train_all(plan, data, folder, show)


def check_means_the_same(name: str, own: Tokenizer, stored: Tokenizer) -> None:
    """Raises TokenizerError unless a new run's own tokenizer is the one that the sweep's other runs have stored."""
    if own.fingerprint != stored.fingerprint:
        raise TokenizerError(
            f"{name!r} is another tokenizer here than the one that runs of this sweep have stored: sweep under another "
            "name, or in another folder"
        )


def planned(variants: Mapping[str, Preset], seeds: Iterable[int], folder: Path | None) -> dict[str, Preset]:
    """The settings of each run of a sweep by its name, seed by seed, as a run stores them. Raises RunError, ConfigError
    or TokenizerError for impossible ones."""
    seeds = list(seeds)
    if not variants or not seeds:
        raise ConfigError(f"a sweep needs variants and seeds, not {len(variants)} and {len(seeds)} of them")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds {seeds} hold one twice; give each once")
    settled: dict[str, Preset] = {}
    for name, (model, config) in variants.items():
        with naming(name):
            there = (open_run(run_name(name, seed), folder) for seed in seeds)
            tokenizer = find_tokenizer(config.data.tokenizer, *there, Run.open_teacher(config, folder))
            settled[name] = Preset(model.settled(tokenizer.vocab_size), config)
            check_vocabulary(settled[name].model, tokenizer)
    plan = {
        run_name(name, seed): Preset(model, config.replace(seed=seed))
        for seed in seeds
        for name, (model, config) in settled.items()
    }
    for name in plan:
        check_name(name)
    return plan


def run_name(variant: str, seed: int) -> str:
    return f"{variant}{SEED}{seed}"


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Puts the name of a variant or run in front of the message of any error inside."""
    try:
        yield
    except GlassboxError as error:
        raise type(error)(f"{name}: {error}") from error


def _train_all(
    plan: Mapping[str, Preset], data: Mapping[DataConfig, TokenData], folder: Path | None, show: bool
) -> Iterator[tuple[Run, Step]]:
    """Trains the runs of a plan that has been checked."""
    stopping, failed = threading.Event(), {}
    for number, (name, settings) in enumerate(plan.items(), start=1):
        if stopping.is_set():
            break
        run = find_or_create_run(name, settings, folder)
        if is_finished(run):
            continue
        tokens = data[settings.train.data]
        steps = train(run, tokens, stopping)
        if show:
            before = "".join(f"{other} failed; the others are trained all the same\n" for other in failed)
            run.remark = f"{before}run {number} of {len(plan)}: {name}, {run.status()}"
            steps = live(steps, run, tokens.floor, stopping=stopping)
        try:
            with closing(steps):
                for step in steps:
                    yield run, step
        except RunError as error:
            failed[name] = error
    if failed:
        reasons = "".join(f"\n  {name}: {error}" for name, error in failed.items())
        raise RunError(f"{len(failed)} of {len(plan)} trainings failed:{reasons}")


def is_finished(run: Run | None) -> bool:
    return run is not None and run.is_finished()


def open_run(name: str, folder: Path | None) -> Run | None:
    """The run of that name; None where there is none."""
    return Run.open(name, folder) if name in run_names(folder) else None


def with_own_commits(settings: Preset, run: Run | None) -> Preset:
    """The settings with the commits of the hub's sets that the run keeps, where there is one."""
    if run is None:
        return settings
    data = with_commits_of(run, settings.train.data)
    return settings._replace(train=settings.train.replace(data=data))


def find_run(name: str, settings: Preset, folder: Path | None = None) -> Run | None:
    """The run of that name; None where there is none. Raises RunError where it has other settings."""
    run = open_run(name, folder)
    model, train = with_own_commits(settings, run)
    if run and (run.model_config, run.train_config) != (model, train.settled(model)):
        raise RunError(
            f"run {name!r} in {run.folder.parent} was made with other settings; delete it, choose another name, or "
            "sweep in another folder"
        )
    return run


def find_or_create_run(name: str, settings: Preset, folder: Path | None = None) -> Run:
    """The run of that name, created where there is none. Raises RunError where it has other settings."""
    return find_run(name, settings, folder) or Run.create(name, *settings, folder=folder)


def compare_sweep(variants: Mapping[str, Preset], seeds: Iterable[int], folder: Path | None = None) -> Comparison:
    """The comparison of exactly this sweep's runs, variant by variant. Runs not yet begun are left out and listed.

    Raises the errors of `sweep` for names and settings.
    """
    seeds = list(seeds)
    plan = planned(variants, seeds, folder)
    names = [run_name(variant, seed) for variant in variants for seed in seeds]
    found = {name: find_run(name, plan[name], folder) for name in names}
    waiting = {name: "it has not begun; the same sweep trains it" for name, run in found.items() if run is None}
    chosen = choose_runs([run for run in found.values() if run is not None], folder)
    return Comparison(ChosenRuns(chosen.runs, {**chosen.left_out, **waiting}))


def sweep_results(runs: Iterable[Run]) -> pd.DataFrame:
    """A row for each finished run: variant, seed, parameters, tokens, best validation loss in nats, seconds."""
    rows = []
    for run in runs:
        log = run.log()
        rows.append({
            "variant": run.name.rpartition(SEED)[0], "seed": run.train_config.seed,
            "parameters": estimate(run.model_config, run.train_config).parameters, "tokens": int(log["tokens"].max()),
            "validation_loss": float(run.weights_facts()["validation_loss"]), "seconds": float(log["seconds"].max()),
        })
    return pd.DataFrame(rows)


def mean_and_spread(results: pd.DataFrame, values: tuple[str, ...] = ("validation_loss",)) -> pd.DataFrame:
    """By variant, in the order of first appearance: the number of seeds, mean and sample sd of each of `values`."""
    by_variant = results.groupby("variant", sort=False)
    columns = {"seeds": by_variant.size(), "parameters": by_variant["parameters"].first()}
    for value in values:
        columns |= {value: by_variant[value].mean(), f"{value} sd": by_variant[value].std()}
    return pd.DataFrame(columns)


def matched(settings: Preset, parameters: int, tolerance: float = 0.02) -> Preset:
    """The same settings with the MLP's width changed, so that the model has `parameters` parameters: for a comparison
    at equal size. Raises ConfigError where no width comes within the tolerance."""
    model, train_config = settings

    def count(ratio: float) -> int:
        return estimate(model.replace(mlp=model.mlp.replace(ratio=ratio)), train_config).parameters

    slope = (count(8.0) - count(4.0)) / 4
    ratio = 4.0 + (parameters - count(4.0)) / slope
    if ratio <= 0 or abs(count(ratio) / parameters - 1) > tolerance:
        raise ConfigError(
            f"no MLP brings this model to {parameters:,} parameters: at ratio 4 it has {count(4.0):,}, each unit of "
            f"the ratio adds {slope:,.0f}; change the width or the layers"
        )
    return Preset(model.replace(mlp=model.mlp.replace(ratio=ratio)), train_config)
