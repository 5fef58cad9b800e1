"""The run folder: everything that a training stored, explained by itself.

    trained/<name>/model_config.json   train_config.json   tokenizer.json   what it was
                   data.json                                                which text it learns, and where it lay
                   log_data.csv                                             a row per step
                   watch_data.csv  watch.png                                its layers, where they were watched
                   model.safetensors                                        the weights of the best validation
                   checkpoint/state.safetensors                             where to go on: weights, optimizer, step
                   README.md  loss.png                                      the card
                   lock  holder.json                                        who trains it, where somebody does

Only plain data: JSON, CSV, safetensors. Every file but the growing log appears by atomic rename.
"""

import io
import math
import os
import re
import subprocess
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from config import ModelConfig, Preset, TrainConfig, list_presets, preset
from lab.data.packing import TokenData, prepare
from lab.data.tokenizers import Tokenizer, tokenizer_from_json
from lab.files.reading import named_path, reading
from lab.runs.lock import delete_held, making
from lab.runs.log_table import check_numbers
from lab.runs.text import RunText, check_text, load_text
from lab.runs.weights import check_counts, check_layers, check_shapes, read_header, read_weights
from settings.errors import ConfigError, DataError, GlassboxError, RunError
from settings.messages import short, suggest
from settings.paths import ROOT

if TYPE_CHECKING:
    import torch

    from modules.transformer import Transformer

TRAINED = ROOT / "trained"
LONGEST_NAME = 80  # characters
WHOLE, TEXTS = ("step", "tokens"), ("layer", "kind")  # columns of whole numbers, and of words
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}

shared_tokenizer = lru_cache(maxsize=8)(tokenizer_from_json)  # one for all runs that stored the same


class Run:
    """One folder under trained/ (or the `folder` given), opened. `Run.create` starts one, `Run.open` finds one.

    Whatever its files hold, reading them ends in a value or in a RunError.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.name = self.folder.name
        self.remark = ""  # what to know of how it was opened: "'mine' is taken, so this run is 'mine-2'"
        self.listener: Callable[[str], None] | None = None
        self.model_config: ModelConfig = self._read("model_config.json", ModelConfig.from_json)
        self.train_config: TrainConfig = self._read("train_config.json", TrainConfig.from_json)
        self.tokenizer: Tokenizer = self._read("tokenizer.json", shared_tokenizer)
        recorded = os.path.lexists(self.folder / "data.json")  # not in runs made before there was such a record
        self.text: RunText | None = self._read("data.json", RunText.from_json) if recorded else None
        self._check_tokenizer()

    @classmethod
    def create(
        cls, name: str, model: ModelConfig, train: TrainConfig, folder: Path | None = None, *, numbered: bool = False
    ) -> "Run":
        """A new run folder with its settings in it. numbered: where the name is taken, take name-2, name-3, ...

        The data is prepared for it, and what keeps the training from starting is raised before a folder exists:
        RunError for a name that some file system refuses or that is taken, TokenizerError, DataError or ConfigError
        for settings that can't be trained with here.
        """
        from lab.runs.checks import check_trainable

        check_name(name)
        for value, kind, way in ((model, ModelConfig, "model"), (train, TrainConfig, "train")):
            if not isinstance(value, kind):
                raise ConfigError(
                    f"a run is made as Run.create('NAME', *preset('llama-tiny')): its {way} must be a {kind.__name__}, "
                    f"not {short(value)}"
                )
        data = prepare(train.data)
        check_trainable(model, train, data)
        folder, taken = Path(folder or TRAINED), 1
        stem = name
        while (folder / name).exists():
            if not numbered:
                raise RunError(f"a run named {name!r} exists; resume it, delete it, or choose another name")
            taken += 1
            name = f"{stem}-{taken}"
        try:
            with making(name, folder) as building:
                for file, text in {
                    "model_config.json": model.to_json(),
                    "train_config.json": train.settled().to_json(),
                    "tokenizer.json": data.tokenizer.to_json(),
                    "data.json": RunText.of(data).to_json(),
                }.items():
                    (building / file).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            reason = f"{error.strerror}; free space or choose another folder"
            raise RunError(f"can't make a run in {folder}: {reason}") from error
        run = cls(folder / name)
        run.remark = "" if name == stem else f"{stem!r} is taken, so this run is {name!r}"
        return run

    @classmethod
    def open(cls, name: "str | Path | Run", folder: Path | None = None) -> "Run":
        """The run of that name, in that folder, or that one read again. Raises RunError where there is none or it is
        damaged."""
        name = name.folder if isinstance(name, Run) else name
        folder, name = Path(folder or TRAINED), named_path(name)
        path = folder / name if os.path.isdir(folder / name) else name
        if not os.path.lexists(path / "model_config.json"):
            if os.path.isdir(folder / name):
                raise RunError(f"{path} is no run, or a damaged one: it has no model_config.json; delete or restore it")
            raise no_run(str(name), folder)
        try:
            return cls(path)
        except GlassboxError as error:
            raise RunError(f"run {path.name!r} is damaged: {error}") from error

    def __repr__(self) -> str:
        return f"Run({self.name}: {self.status()})"

    def tell(self, what: str) -> None:
        """Says what is done with the run right now, such as "measuring the precision", to the `listener`."""
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
        return self.folder / "model.safetensors"

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint" / "state.safetensors"

    @property
    def card_path(self) -> Path:
        return self.folder / "README.md"

    def _read(self, file: str, parse: Callable[[str], object]):
        with reading(self.folder / file):
            return parse((self.folder / file).read_text(encoding="utf-8"))

    def _check_tokenizer(self) -> None:
        if self.text and self.text.tokenizer != self.tokenizer.fingerprint:
            raise RunError(
                f"tokenizer.json holds another tokenizer ({self.tokenizer.fingerprint}) than the run was made with "
                f"({self.text.tokenizer}); restore it from a copy"
            )
        known, needed = self.model_config.vocab_size, self.tokenizer.vocab_size
        if known < needed:
            raise RunError(
                f"tokenizer.json has {needed:,} tokens, and the model knows {known:,} (vocab_size); it is not the "
                "one that the run was made with: restore it from a copy"
            )

    def log(self) -> pd.DataFrame:
        """The rows logged so far; a last line that a crash cut short is left out. Raises RunError."""
        if not os.path.lexists(self.log_path):
            raise RunError(f"run {self.name!r} has no log_data.csv: it has not been trained yet")
        return self._rows(self.log_path, {"step", "tokens", "loss", "validation_loss"})

    def watch(self) -> pd.DataFrame:
        """What was seen in the layers so far (lab/watch.py): a row for each step, layer and kind, with its value."""
        if not os.path.lexists(self.watch_path):
            remedy = "train it" if self.train_config.watch_every else (
                "train a new run with watch_every=50, or --train.watch-every 50 in the terminal"
            )  # fmt: skip
            raise RunError(f"run {self.name!r} has no watch_data.csv, its layers have not been watched: {remedy}")
        return self._rows(self.watch_path, {"step", "layer", "kind", "value"})

    def _rows(self, path: Path, columns: set[str]) -> pd.DataFrame:
        """A log's whole lines. Raises RunError where they are no table, lack one of `columns`, or hold no numbers."""
        with reading(path):
            text = path.read_bytes()
            rows = pd.read_csv(io.BytesIO(text[: text.rfind(b"\n") + 1]))
            missing = columns - set(rows.columns)
            if missing:
                raise RunError(f"{path.name} of {self.name!r} lacks the columns {', '.join(sorted(missing))}")
            for column in [name for name in rows if name not in TEXTS]:
                check_numbers(f"{path.name} of {self.name!r}", rows[column], whole=column in WHOLE)
            return rows

    def load_data(self) -> TokenData:
        """What the run was trained on, in the tokens of its own tokenizer. Raises DataError where it is gone or has
        become another text."""
        return load_text(self.train_config.data, self.tokenizer, self.text, self.name)

    def check_data(self, data: TokenData) -> None:
        """Raises DataError where `data` is another text than the run's, or in the tokens of another tokenizer."""
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
            return "new"
        return f"finished, {steps} steps" if done >= steps else f"stopped at step {done} of {steps}"

    def is_finished(self) -> bool:
        """Whether the last step is taken and all that a run leaves is there: weights, pictures, and the card last of
        all. `train` makes what is missing where a process was killed before that."""
        if self.steps_done() < self.train_config.steps:
            return False
        pictures = ["loss.png", *(["watch.png"] if self.watch_path.exists() else [])]
        files = [self.weights_path, self.card_path, *(self.folder / name for name in pictures)]
        return all(file.exists() for file in files) and f"| {self.status()} |" in self._read(self.card_path.name, str)

    def summary(self, floor: float | None = None) -> str:
        """Where the run is, its best validation loss beside the data's floor, and where its picture is."""
        reached = self.validation_loss() if self.weights_path.exists() else math.nan
        beside = "" if floor is None else f", floor {floor:.4f} (the entropy of the grammar that wrote the text)"
        loss = "not measured" if math.isnan(reached) else f"{reached:.4f} nats per token"
        folder = self.folder.relative_to(ROOT) if self.folder.is_relative_to(ROOT) else self.folder
        lines = [f"run:             {folder}, {self.status()}", f"validation loss: {loss}{beside}"]
        return "\n".join([*lines, f"picture:         {folder / 'loss.png'}"])

    def weights_facts(self) -> dict[str, str]:
        """What model.safetensors says of itself: the step and validation loss it was stored at."""
        return read_header(self.weights_path)[1]

    def validation_loss(self) -> float:
        """Of the stored weights, in nats per token; NaN where they were never validated. Raises RunError."""
        text = self.weights_facts().get("validation_loss", "nan")
        try:
            return float(text)
        except ValueError as error:
            raise RunError(f"{self.weights_path.name} of {self.name!r} has no number as its validation loss: "
                           f"{short(text)}; train it again, or restore it from a copy") from error  # fmt: skip

    def stored_at(self) -> int:
        """The step at which the stored weights were reached; 0 where they don't say. Raises RunError."""
        text = self.weights_facts().get("step", "0")
        if not re.fullmatch(r"[0-9]{1,12}", text):
            raise RunError(f"{self.weights_path.name} of {self.name!r} has no number as its step: {short(text)}")
        return int(text)

    def stored_parameters(self) -> int:
        """How many numbers the stored weights are. Raises RunError where the config describes others."""
        return check_counts(read_header(self.weights_path)[0], self.model_config, self.weights_path)

    def load_model(self, device: "torch.device | str" = "cpu", max_positions: int | None = None) -> "Transformer":
        """The trained model, in eval mode: the weights of the best validation.

        max_positions: how many it shall accept, if not as many as its config says. No weight depends on it, but for
        learned positions: they end with the training, and ConfigError is raised. Raises RunError for damaged weights.
        """
        from modules.transformer import Transformer

        config = self.model_config if max_positions is None else self.model_config.replace(max_positions=max_positions)
        check_layers(read_header(self.weights_path)[0], config, self.weights_path)  # before so much is built
        model = Transformer(config)
        read_weights(model, self.weights_path)
        return model.to(device).eval()


def settings_by_name(model: ModelConfig, train: TrainConfig) -> dict[str, object]:
    """All settings of a run by dotted name, as in "model.block.kind" and "train.data.source"."""

    def flat(values: dict, prefix: str) -> dict[str, object]:
        found = {}
        for key, value in values.items():
            found |= flat(value, f"{prefix}.{key}") if isinstance(value, dict) else {f"{prefix}.{key}": value}
        return found

    return flat(model.to_dict(), "model") | flat(train.to_dict(), "train")


def starting_settings(start: str) -> Preset:
    """The settings of a preset, or of a run by its name or folder. Raises ConfigError where it is neither."""
    if start in list_presets():
        return preset(start)
    names = [*list_presets(), *run_names()]
    if start not in names and not named_path(start).is_dir():
        raise ConfigError(f"{start!r} is neither a preset nor a run; {suggest(start, names)}")
    run = Run.open(start)
    return Preset(run.model_config, run.train_config)


def no_run(name: str, folder: Path) -> RunError:
    return RunError(f"no run {short(name)} in {folder}; {suggest(name[:LONGEST_NAME], run_names(folder))}")


def check_name(name: str) -> None:
    """Raises RunError unless every common file system takes `name` as a folder."""
    name = os.fspath(named_path(name))
    fits = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) and not name.endswith(".")
    if not fits or len(name) > LONGEST_NAME or name.split(".")[0].lower() in RESERVED:
        raise RunError(
            f"{short(name)} can't be a run's name; use up to {LONGEST_NAME} letters, digits, '-', '_' and '.', "
            "starting with a letter or digit, and none of Windows' device names"
        )


def run_names(folder: Path | None = None) -> list[str]:
    """The folders of runs, damaged ones among them. Raises RunError where they can't be listed."""
    folder = Path(folder or TRAINED)
    try:
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as error:
        raise RunError(f"{folder} can't be read: {error.strerror}; mend its permissions") from error
    return [name for name in names if os.path.isdir(folder / name) and not name.startswith(".")]


def list_runs(folder: Path | None = None) -> pd.DataFrame:
    """A row for each run; a damaged one is there too, with the reason."""
    return pd.DataFrame([_summary(name, folder) for name in run_names(folder)], columns=_SUMMARY).set_index("run")


_SUMMARY = ["run", "status", "parameters", "data", "tokenizer", "tokens", "validation_loss"]


def _summary(name: str, folder: Path) -> dict:
    try:
        run = Run.open(name, folder)
        row = {"run": name, "status": run.status()}
        row |= {"data": run.train_config.data.source, "tokenizer": run.tokenizer.name}
        if os.path.lexists(run.weights_path):
            row |= {"parameters": run.stored_parameters(), "validation_loss": run.validation_loss()}
            check_shapes(read_header(run.weights_path)[0], run.model_config, run.weights_path)
        if row["status"] != "new":
            row["tokens"] = int(run.log()["tokens"].max())
        return row
    except GlassboxError as error:
        return {"run": name, "status": f"damaged: {error}"}


def delete_run(name: str, *, confirm: str, folder: Path | None = None) -> None:
    """Deletes the run's folder for good, if `confirm` repeats its name.

    Raises RunError for a link to a folder, which is not followed, for a run that somebody is training, and where files
    can't be deleted.
    """
    if name not in run_names(folder):  # a copied folder may have a name that no new run can have
        check_name(name)
        raise no_run(name, Path(folder or TRAINED))
    if confirm != name:
        raise RunError(f"to delete {name!r} for good, repeat its name: confirm={name!r}")
    path = Path(folder or TRAINED) / name
    if path.is_symlink():
        raise RunError(f"{path} is a link to {path.resolve()}; delete the link itself, or the run where it lies")
    delete_held(path)


def code_version() -> str:
    """The commit this code is at, with a mark where files differ from it; "unknown" outside a git checkout."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", ROOT, *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()
