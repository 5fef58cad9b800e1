"""Adapters of a run: several on one base in memory, and one merged into a run of its own."""

from collections.abc import Iterable
from pathlib import Path

from lab.adapting.derived import Derived, choose_name, derive_run
from lab.runs.run import Run
from lab.runs.weights import read_weights
from modules.lora import Adapter
from modules.transformer import Transformer
from settings.errors import ConfigError, RunError
from settings.messages import suggest


class AdaptedModel:
    """One base model in memory, and several adapters for it, which take turns without reading the base again.

    adapted = AdaptedModel([Run.open("base-lora"), Run.open("base-lora-2")])
    model = adapted.use("base-lora")     # None: the base alone
    """

    def __init__(self, runs: Iterable[Run]):
        """Raises RunError where a run is no adapter, or they are for different bases."""
        runs = list(runs)
        strange = [run.name for run in runs if not run.model_config.lora]
        if strange or not runs:
            raise RunError(f"give runs that are adapters, as `train --from RUN --lora.rank 8` makes; not {strange}")
        if len({run.origin.weights for run in runs}) > 1:
            bases = ", ".join(f"{run.name} for {run.origin.run}" for run in runs)
            raise RunError(f"these adapters have different bases: {bases}; give those of one base")
        self.base, self.adapters, self.on = runs[0].base(), {}, None
        self.model: Transformer = self.base.load_model()
        for run in runs:
            adapter = Adapter.attach(self.model, run.model_config.lora)
            read_weights(self.model, run.weights_path)
            self.model.eval()
            adapter.take_off()
            self.adapters[run.name] = adapter

    def use(self, name: str | None) -> Transformer:
        """The base with the adapter of that run on it, or with none. It is the same model at each call."""
        if name is not None and name not in self.adapters:
            raise ConfigError(f"no adapter {name!r}; {suggest(str(name), self.adapters)}")
        if self.on is not None:
            self.adapters[self.on].take_off()
        if name is not None:
            self.adapters[name].put_on()
        self.on = name
        return self.model


def merge_adapter(run: Run, name: str | None = None, folder: Path | None = None) -> Run:
    """A run of its own that computes what the adapter and its base compute together, to rounding.

    It needs the base no longer. name: None adds -merged. Raises RunError for a run that is no adapter,
    ConfigError for an adapter on a quantised base.
    """
    if not run.model_config.lora:
        raise RunError(f"{run.name!r} is no adapter, so there is nothing to merge")
    name, model = choose_name(run, "-merged", name, folder), run.load_model()
    Adapter.of(model).merge()
    return derive_run(run, Derived("merged", model, model.stored_tensors(), run.weights_facts()), name, folder)
