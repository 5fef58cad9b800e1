"""The card of a run: a README.md with its settings, its results and the command to train it again."""

import platform
import shlex
from typing import TYPE_CHECKING

import torch

from config import list_presets, preset
from lab.compute.mixture_preview import mixture_preview
from lab.display.plots import loss_curve
from lab.files.atomic import atomic_write_text
from lab.runs.code_version import code_version
from lab.runs.run import Run
from lab.runs.settings import settings_by_name
from lab.training.watch import watch_warnings
from lab.training.watch_plots import watch_heatmap
from settings.checked import Config
from settings.errors import RunError

if TYPE_CHECKING:
    from lab.data.packing import TokenData


def write_card(run: Run, data: "TokenData", sample: str, computed: str = "", per_token: float | None = None) -> None:
    """Writes loss.png, watch.png if the layers were watched, mixture.png if there are several sources, and README.md
    last into the run's folder.

    computed: device and precision, in words. per_token: the MFU of one token per second, where it is known. The card
    does not name the run, so it stays true if the run is renamed or imported under another name.
    """
    log, config = run.log(), run.train_config
    title = f"A transformer like {nearest_preset(run)[0]}, trained on {config.data.label}"
    loss_curve(log, floor=data.floor, title=title).save(run.folder / "loss.png")
    facts = run.weights_facts()
    best = f"{float(facts['validation_loss']):.4f}" if "validation_loss" in facts else "not validated yet"
    floor = "" if data.floor is None else f" (the data's own entropy, the floor: {data.floor:.4f})"
    speed = log["tokens_per_second"].median()
    used = "" if per_token is None else f" (MFU {speed * per_token:.0%})"
    rows = {
        "status": run.status(),
        "validation loss": f"{best} nats per token at step {facts['step']}{floor}",
        "trained on": f"{int(log['tokens'].max()):,} tokens of {config.data.label}, {data.tokenizer.name} tokens",
        "training time": f"{log['seconds'].max() / 60:.1f} minutes, {speed:,.0f} tokens/s{used}",
        "machine": f"{platform.system()} {platform.machine()}, torch {torch.__version__}",
        "code": facts.get("code", code_version()),
    }
    if run.text and run.text.needs():
        rows["to go on"] = run.text.needs()
    if run.origin:
        rows["weights"] = str(run.origin)
    if "quantised" in facts:
        rows["quantised"] = facts["quantised"]
    if computed:
        rows["computed on"] = computed
    if "rounded" in facts:
        rows["weights"] = f"rounded to {facts['rounded']} after the training"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    pictures = f"![loss curve](loss.png)\n\n{write_mixture(run)}{write_layers(run)}"
    quoted = "\n".join(f"> {line}" if line else ">" for line in sample.splitlines())
    atomic_write_text(
        run.card_path,
        f"# {title}\n\n|   |   |\n| --- | --- |\n{table}\n\n{pictures}"
        f"## A sample\n\nPrompt: `{config.sample_prompt}`\n\n{quoted}\n\n"
        f"## Make it again\n\n```\n{training_command(run)}\n```\n",
    )


def write_mixture(run: Run) -> str:
    """Writes mixture.png; returns the card's part about it. Does nothing if all text is from one source."""
    if not run.train_config.data.mixture.sources:
        return ""
    picture = mixture_preview(run.train_config, run.log())
    picture.save(run.folder / "mixture.png")
    return f"## The sources\n\n![share of each source by step](mixture.png)\n\n{picture}.\n\n"


def write_layers(run: Run) -> str:
    """Writes watch.png; returns the card's part about the layers. Does nothing if they were not watched."""
    if not run.watch_path.exists():
        return ""
    frame = run.watch()
    watch_heatmap(frame).save(run.folder / "watch.png")
    found = "\n".join(f"- {warning}" for warning in watch_warnings(frame)) or "No layer vanishes, explodes or is dead."
    return f"## The layers\n\n![activations and gradients by layer](watch.png)\n\n{found}\n\n"


def training_command(run: Run) -> str:
    """The terminal command that trains the same model: the nearest preset and the settings that differ from it."""
    if run.origin:
        return command_from(run)
    name, changes = nearest_preset(run)
    flags = [flag(key, value) for key, value in changes.items()]
    return " ".join([f"python tools.py train --preset {name}", *flags])


def command_from(run: Run) -> str:
    """The same for a run that comes from another one."""
    origin = run.origin
    if origin.how == "merged":
        return f"python tools.py merge {origin.run}"
    if origin.how == "quantised":
        return " ".join([f"python tools.py quantise {origin.run}", *settings_flags("", run.model_config.quantised)])
    flags = settings_flags("lora.", run.model_config.lora)
    try:
        before = settings_by_name(run.model_config, run.base().train_config)
    except RunError:  # it is gone, or was trained on
        return f"python tools.py train --from {origin.run} {' '.join(flags)}    # and what train_config.json says"
    now = settings_by_name(run.model_config, run.train_config)
    flags += [flag(key, now[key]) for key in now if now[key] != before.get(key)]
    return " ".join([f"python tools.py train --from {origin.run}", *flags])


def settings_flags(prefix: str, settings: Config | None) -> list[str]:
    """The flags that give these settings: all that are set."""
    values = settings.to_dict() if settings else {}
    return [flag(f"{prefix}{key}", value) for key, value in values.items() if value is not None]


def flag(name: str, value: object) -> str:
    """A setting as a flag of the terminal, as in `--train.steps 100`."""
    words = value if isinstance(value, list | tuple) else [value]
    return " ".join([f"--{name.replace('_', '-')}", *(shlex.quote(str(word)) for word in words)])


def nearest_preset(run: Run) -> tuple[str, dict[str, object]]:
    """The preset with the fewest differences from the run, and the run's differing settings by dotted name."""
    mine = settings_by_name(run.model_config, run.train_config)
    changes = {name: _changes(mine, name) for name in list_presets()}
    name = min(changes, key=lambda preset_name: len(changes[preset_name]))
    return name, changes[name]


def _changes(mine: dict[str, object], preset_name: str) -> dict[str, object]:
    model, train = preset(preset_name)
    theirs = settings_by_name(model, train.settled(model))  # as a run stores them
    return {key: value for key, value in mine.items() if theirs.get(key) != value or key not in theirs}
