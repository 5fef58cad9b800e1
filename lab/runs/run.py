"""The run folder: everything that a training stores.

    trained/<name>/model_config.json   train_config.json   tokenizer.json   its settings and its tokenizer
                   data.json                                                which text it learns, and where that was
                   origin.json                                              from which run its weights come, if from any
                   log_data.csv                                             a row per step
                   watch_data.csv  watch.png                                numbers of its layers, if it was watched
                   model.safetensors                                        the weights of the best validation; or
                   adapter.safetensors                                      an adapter's, whose base is another run
                   checkpoint/state.safetensors                             where to go on: weights, optimizer, step
                   README.md  loss.png                                      the card
                   mixture.png                                              the share of each of several sources
                   idea.py                                                  source of its ideas, as text to read
                   lock  holder.json                                        which process trains it now, if any

All are plain data: JSON, CSV, safetensors, text. Nothing in a run is ever executed. Every file but the growing log
appears by atomic rename.
"""

import math
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from config import DataConfig, ModelConfig, TrainConfig
from lab.costs.parameters import count_parameters
from lab.data.packing import TokenData, prepare
from lab.data.tokenizers import Tokenizer, tokenizer_from_json
from lab.files.reading import checksum, named_path, reading
from lab.runs.classifier_record import check_is_run
from lab.runs.idea_source import IdeaNeeded, check_ideas_imported, idea_source, remark_on_change
from lab.runs.lock import build_folder
from lab.runs.log_table import read_rows
from lab.runs.names import check_name, no_run, runs_folder
from lab.runs.origin import Origin
from lab.runs.text import RunText, check_text, find_tokenizer, load_text, places, with_commits
from lab.runs.weights import check_counts, check_layers, read_header, read_weights, weights_file
from settings.errors import ConfigError, DataError, GlassboxError, RunError
from settings.messages import short
from settings.paths import ROOT

if TYPE_CHECKING:
    import torch

    from modules.transformer import Transformer

shared_tokenizer = lru_cache(maxsize=8)(tokenizer_from_json)  # runs that stored the same tokenizer share one object


class Run:
    """One folder under trained/ (or the `folder` given), opened. `Run.create` makes one, `Run.open` finds one.

    Reading its files gives a value or raises RunError, whatever they hold.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.name = self.folder.name
        self.remark = ""  # what there is to say about it: "'mine' is taken, so this run is 'mine-2'"
        self.listener: Callable[[str], None] | None = None
        self.model_config: ModelConfig = self._read("model_config.json", self._model_config)
        self.train_config: TrainConfig = self._read("train_config.json", TrainConfig.from_json)
        self.tokenizer: Tokenizer = self._read("tokenizer.json", shared_tokenizer)
        recorded = os.path.lexists(self.folder / "data.json")  # runs of earlier versions have none
        self.text: RunText | None = self._read("data.json", RunText.from_json) if recorded else None
        comes_from = os.path.lexists(self.folder / "origin.json")
        self.origin: Origin | None = self._read("origin.json", Origin.from_json) if comes_from else None
        self._check_tokenizer()
        if self.model_config.lora and not self.origin:
            raise RunError("it has an adapter, and no origin.json that names its base; restore it from a copy")
        if os.path.lexists(self.folder / "idea.py"):
            self.remark = self._read("idea.py", lambda kept: remark_on_change(kept, self.model_config))
        self.remark = self.remark or (self.text.needs() if self.text else "")

    @classmethod
    def create(
        cls, name: str, model: ModelConfig, train: TrainConfig, folder: Path | None = None, *, numbered: bool = False,
        origin: Origin | None = None, tell: Callable[[str], None] | None = None,
    ) -> "Run":
        """Makes a run folder with these settings. numbered: if the name is taken, use name-2, name-3, ...

        A vocabulary that is None becomes the tokenizer's. origin: the run that this one starts from or learns from; its
        tokenizer is this one's, too. tell: hears how far the data is, while a set of the hub is read. The run keeps the
        commit that was read.

        Prepares the data, and raises everything that would keep the training from starting before a folder exists:
        RunError for a name that is taken or that some file system refuses, TokenizerError, DataError or ConfigError
        for settings that can't be trained with here, IdeaError for an idea whose source can't be kept.
        """
        from lab.runs.checks import check_device, check_trainable

        check_name(name)
        check_are_settings(model, train)
        check_device(train)
        folder = runs_folder(folder)
        teacher = cls.open_teacher(train, folder)
        if teacher and (origin or model.lora):
            raise ConfigError(
                "a run that starts from another run's weights can't have a teacher, too: leave train.distil out"
            )
        origin = teacher.as_origin("distilled") if teacher else origin
        base = cls(origin.find(folder)) if origin else None
        same = base is not None and base.train_config.data.sources == train.data.sources
        text = places(train.data, base.text, base.folder)[0] if same else train.data
        data = prepare(text, find_tokenizer(train.data.tokenizer, base), tell=tell)
        typed, train = train.data, train.replace(data=with_commits(train.data, data.config))
        model = model.settled(data.tokenizer.vocab_size)
        check_trainable(model, train, data, teacher)
        free = free_name(name, folder, numbered)
        files = new_files(model, train, data, origin, RunText.of(data, typed, folder / free))

        def fill(building: Path) -> None:
            for file, text in files.items():
                (building / file).write_text(text, encoding="utf-8", newline="\n")

        run = fill_folder(free, folder, fill)
        taken = "" if free == name else f"{name!r} is taken, so this run is {free!r}"
        run.remark = "; ".join(filter(None, (taken, run.text.needs())))
        return run

    @classmethod
    def open(cls, name: "str | Path | Run", folder: Path | None = None) -> "Run":
        """The run of that name in that folder; an opened run is read again. Raises RunError if there is none, or if it
        is damaged."""
        name = name.folder if isinstance(name, Run) else name
        folder, name = runs_folder(folder), named_path(name)
        path = folder / name if os.path.isdir(folder / name) else name
        check_is_run(path)
        if not os.path.lexists(path / "model_config.json"):
            if os.path.isdir(folder / name):
                raise RunError(f"{path} is no run, or a damaged one: it has no model_config.json; delete or restore it")
            raise no_run(str(name), folder)
        try:
            return cls(path)
        except IdeaNeeded:
            raise
        except GlassboxError as error:
            raise RunError(f"run {path.name!r} is damaged: {error}") from error

    @classmethod
    def open_teacher(cls, train: TrainConfig, folder: Path | None = None) -> "Run | None":
        """The run that a training with these settings distils; None if it distils none. Raises RunError for a run
        that is not there or has no weights."""
        if train.distil is None:
            return None
        beside = folder if (runs_folder(folder) / train.distil.teacher).is_dir() else None  # else among all runs
        teacher = cls.open(train.distil.teacher, beside)
        read_header(teacher.weights_path)
        return teacher

    def __repr__(self) -> str:
        return f"Run({self.name}: {self.status()})"

    def tell(self, what: str) -> None:
        """Says to the `listener` what is done with the run right now, such as "reading the data"."""
        if self.listener:
            self.listener(what)

    @property
    def log_path(self) -> Path:
        return self.folder / "log_data.csv"

    @property
    def watch_path(self) -> Path:
        return self.folder / "watch_data.csv"

    @property
    def weights_path(self) -> Path:
        return self.folder / weights_file(self.model_config)

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint" / "state.safetensors"

    @property
    def card_path(self) -> Path:
        return self.folder / "README.md"

    def _read(self, file: str, parse: Callable[[str], object]):
        with reading(self.folder / file):
            return parse((self.folder / file).read_text(encoding="utf-8"))

    def _model_config(self, text: str) -> ModelConfig:
        if os.path.lexists(self.folder / "idea.py"):
            check_ideas_imported(text, self.name)
        return ModelConfig.from_json(text)

    def _check_tokenizer(self) -> None:
        if self.text and self.text.tokenizer != self.tokenizer.fingerprint:
            raise RunError(
                f"tokenizer.json holds another tokenizer ({self.tokenizer.fingerprint}) than the run was made with "
                f"({self.text.tokenizer}); restore it from a copy"
            )
        known, needed = self.model_config.vocab_size, self.tokenizer.vocab_size
        if known is None:
            raise RunError(f"model_config.json has no vocab_size; add it ({needed} tokens), or restore it from a copy")
        if known < needed:
            raise RunError(
                f"tokenizer.json has {needed:,} tokens, and the model knows {known:,} (vocab_size); it is not the "
                "one that the run was made with: restore it from a copy"
            )

    def log(self) -> pd.DataFrame:
        """The rows logged so far. Raises RunError."""
        if not os.path.lexists(self.log_path):
            raise RunError(f"run {self.name!r} has no log_data.csv: it has not been trained yet")
        return read_rows(self.log_path, ("step", "tokens", "loss", "validation_loss"))

    def watch(self) -> pd.DataFrame:
        """What was measured in the layers so far (lab/training/watch.py): step, layer, kind and value. Raises
        RunError."""
        if not os.path.lexists(self.watch_path):
            remedy = "train a new run with watch_every=50, or --train.watch-every 50 in the terminal"
            if self.train_config.watch_every:
                remedy = "train it"
            raise RunError(f"run {self.name!r} has no watch_data.csv, its layers have not been watched: {remedy}")
        return read_rows(self.watch_path, ("step", "layer", "kind", "value"))

    def load_data(self) -> TokenData:
        """The data that the run was trained on, in the tokens of its own tokenizer. Raises DataError if it is gone or
        has changed."""
        return load_text(self.train_config.data, self.tokenizer, self.text, self.folder, self.tell)

    def data_settings(self) -> DataConfig:
        """The settings of its data, with a source that opens from the working folder if its text is still there."""
        return places(self.train_config.data, self.text, self.folder)[0]

    def check_data(self, data: TokenData) -> None:
        """Raises DataError if `data` is another text than the run's, or in the tokens of another tokenizer."""
        check_text(data, self.text, self.name)
        if data.tokenizer.fingerprint != self.tokenizer.fingerprint:
            raise DataError(
                f"these tokens are made by another {data.tokenizer.name!r} than {self.name!r} was trained with (its "
                "tokenizer.json); run.load_data() gives those that fit"
            )

    def steps_done(self) -> int:
        rows = self.log()["step"] if os.path.lexists(self.log_path) else ()
        return int(rows.max()) if len(rows) else 0

    def status(self) -> str:
        done, steps = self.steps_done(), self.train_config.steps
        if done == 0:
            return "trained elsewhere" if self.is_trained_elsewhere() else "new"
        return f"finished, {steps} steps" if done >= steps else f"stopped at step {done} of {steps}"

    def is_trained_elsewhere(self) -> bool:
        """Whether its weights come from outside of Glassbox, as `import_hf` notes it: then it has no log."""
        return os.path.lexists(self.weights_path) and "trained_by" in self.weights_facts()

    def is_finished(self) -> bool:
        """Whether the last step is taken and all files are there: weights, pictures, and the card, which comes last.
        If a process was killed before that, `train` makes the missing ones."""
        if self.steps_done() < self.train_config.steps:
            return False
        pictures = ["loss.png", *(["watch.png"] if self.watch_path.exists() else [])]
        pictures += ["mixture.png"] if self.train_config.data.mixture.sources else []
        files = [self.weights_path, self.card_path, *(self.folder / name for name in pictures)]
        return all(file.exists() for file in files) and f"| {self.status()} |" in self._read(self.card_path.name, str)

    def summary(self, floor: float | None = None) -> str:
        """The run's folder and status, its best validation loss beside the data's floor, and its picture's path."""
        reached = self.validation_loss() if self.weights_path.exists() else math.nan
        beside = "" if floor is None else f", floor {floor:.4f} (the entropy of the grammar that wrote the text)"
        loss = "not measured" if math.isnan(reached) else f"{reached:.4f} nats per token"
        folder = self.folder.relative_to(ROOT) if self.folder.is_relative_to(ROOT) else self.folder
        lines = [f"run:             {folder}, {self.status()}", f"validation loss: {loss}{beside}"]
        return "\n".join([*lines, f"picture:         {folder / 'loss.png'}"])

    def weights_facts(self) -> dict[str, str]:
        """The facts in the header of model.safetensors: step and validation loss of the weights, and the code."""
        return read_header(self.weights_path)[1]

    def validation_loss(self) -> float:
        """Of the stored weights, in nats per token; NaN if they were never validated. Raises RunError."""
        text = self.weights_facts().get("validation_loss", "nan")
        try:
            return float(text)
        except ValueError as error:
            raise RunError(
                f"{self.weights_path.name} of {self.name!r} has no number as its validation loss: {short(text)}; train "
                "it again, or restore it from a copy"
            ) from error

    def stored_at(self) -> int:
        """The step of the stored weights; 0 if they don't say. Raises RunError."""
        text = self.weights_facts().get("step", "0")
        if not re.fullmatch(r"[0-9]{1,12}", text):
            raise RunError(f"{self.weights_path.name} of {self.name!r} has no number as its step: {short(text)}")
        return int(text)

    def stored_parameters(self) -> int:
        """The number of parameters that the model computes with. Raises RunError if others are stored than the config
        describes."""
        check_counts(read_header(self.weights_path)[0], self.model_config, self.weights_path)
        return count_parameters(self.model_config)

    def as_origin(self, how: str) -> Origin:
        """This run's weights as the origin of another run. Raises RunError if there are none."""
        return Origin(
            how=how, run=self.name, path=str(self.folder.resolve()), weights=checksum(self.weights_path),
            step=self.stored_at(),
        )

    def base(self) -> "Run":
        """The run that `origin` names. Raises RunError where it is gone or has other weights now."""
        if not self.origin:
            raise RunError(f"run {self.name!r} comes from no other run: it has no origin.json")
        try:
            return Run.open(self.origin.find(self.folder.parent))
        except RunError as error:
            raise RunError(f"run {self.name!r} needs another run: {error}") from error

    def read_base(self, model: "Transformer") -> None:
        """Copies the weights of `base()` into the model; below its adapter, if it has one. Raises RunError."""
        from modules.lora import Adapter

        base, adapter = self.base(), Adapter.of(model) if model.config.lora else None
        if adapter:
            adapter.take_off()
        read_weights(model, base.weights_path)
        if adapter:
            adapter.put_on()

    def load_model(self, device: "torch.device | str" = "cpu", max_positions: int | None = None) -> "Transformer":
        """The trained model in eval mode, with the weights of the best validation.

        max_positions: how many positions it accepts, if not as many as its config says. ConfigError is raised if its
        positions are learned, because each needs a trained vector. Raises RunError for damaged weights.
        """
        from modules.transformer import Transformer

        config = self.model_config if max_positions is None else self.model_config.replace(max_positions=max_positions)
        check_layers(read_header(self.weights_path)[0], config, self.weights_path)  # before a large model is built
        if config.lora:
            base = self.base()
            check_layers(read_header(base.weights_path)[0], config.replace(lora=None), base.weights_path)
        model = Transformer(config)
        if config.lora:
            self.read_base(model)
        read_weights(model, self.weights_path)
        return model.to(device).eval()


def fill_folder(name: str, folder: Path, fill: Callable[[Path], object]) -> Run:
    """The run that `fill` writes into a new folder of that name; nothing is left where it fails. Raises RunError."""
    try:
        with build_folder(name, folder) as building:
            fill(building)
    except OSError as error:
        reason = f"{error.strerror}; free space or choose another folder"
        raise RunError(f"can't make a run in {folder}: {reason}") from error
    return Run(folder / name)


def check_are_settings(model: ModelConfig, train: TrainConfig) -> None:
    """Raises ConfigError unless these are the settings of a model and of a training."""
    for value, kind, way in ((model, ModelConfig, "model"), (train, TrainConfig, "train")):
        if not isinstance(value, kind):
            raise ConfigError(
                f"a run is made as Run.create('NAME', *preset('llama-tiny')): its {way} must be a {kind.__name__}, not "
                f"{short(value)}"
            )


def free_name(name: str, folder: Path, numbered: bool) -> str:
    """`name`, or with `numbered` the first of name-2, name-3, ... that is free. Raises RunError if it is taken."""
    free, number = name, 1
    while (folder / free).exists():
        if not numbered:
            raise RunError(f"a run named {name!r} exists; resume it, delete it, or choose another name")
        number += 1
        free = f"{name}-{number}"
    return free


def new_files(
    model: ModelConfig, train: TrainConfig, data: TokenData, origin: Origin | None, text: RunText
) -> dict[str, str]:
    """The files of a run that has not been trained, by name."""
    source = idea_source(model)
    return {
        "model_config.json": model.to_json(),
        "train_config.json": train.settled(model).to_json(),
        "tokenizer.json": data.tokenizer.to_json(),
        "data.json": text.to_json(),
    } | ({"idea.py": source} if source else {}) | ({"origin.json": origin.to_json()} if origin else {})
