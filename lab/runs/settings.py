"""The settings of a run by name, and the settings that a new training can start from."""

from config import ModelConfig, Preset, TrainConfig, list_presets, preset
from lab.files.reading import named_path
from lab.runs.names import run_names
from lab.runs.run import Run
from settings.errors import ConfigError
from settings.messages import suggest


def settings_by_name(model: ModelConfig, train: TrainConfig) -> dict[str, object]:
    """All settings of a run by dotted name, such as "model.block.kind" and "train.data.source"."""

    def flat(values: dict, prefix: str) -> dict[str, object]:
        found = {}
        for key, value in values.items():
            found |= flat(value, f"{prefix}.{key}") if isinstance(value, dict) else {f"{prefix}.{key}": value}
        return found

    return flat(model.to_dict(), "model") | flat(train.to_dict(), "train")


def with_own_warmup(train: TrainConfig) -> TrainConfig:
    """The stored settings of a run, with a warm-up that follows from the steps again, if it did so."""
    schedule = train.schedule.replace(warmup_steps=None)
    return train.replace(schedule=schedule) if train.schedule.warmup_steps == train.steps // 10 else train


def starting_settings(start: str) -> Preset:
    """The settings of a preset, or of a run given by its name or folder. Raises ConfigError if it is neither."""
    if start in list_presets():
        return preset(start)
    names = [*list_presets(), *run_names()]
    if start not in names and not named_path(start).is_dir():
        raise ConfigError(f"{start!r} is neither a preset nor a run; {suggest(start, names)}")
    run = Run.open(start)
    return Preset(run.model_config, run.train_config.replace(data=run.data_settings()))
