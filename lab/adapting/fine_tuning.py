"""Training that starts from another run's weights: all of them trained further, or frozen with an adapter on top.

    run = fine_tune(Run.open("llama-tiny-tales"), train.replace(data=DataConfig(source="my texts")))
    run = fine_tune(Run.open("llama-tiny-tales"), train, lora=LoRAConfig(rank=8))
    for step in live(train(run), run): ...

The other run never changes.
"""

import shutil
from pathlib import Path

from config import LoRAConfig, ModelConfig, TrainConfig
from lab.files.atomic import atomic_write_text
from lab.runs.lock import hold
from lab.runs.names import check_name, name_from, runs_folder
from lab.runs.run import Run, fill_folder, free_name
from lab.runs.settings import settings_by_name
from lab.runs.weights import check_shapes, read_header
from lab.training.checkpoint import check_resumption, may_change_in
from settings.errors import ConfigError, RunError

# What a run that is continued takes over, beside its checkpoint
KEPT = ("tokenizer.json", "data.json", "log_data.csv", "watch_data.csv", "model.safetensors", "adapter.safetensors",
        "idea.py")


def fine_tune(
    base: Run, train: TrainConfig | None = None, *, model: ModelConfig | None = None, lora: LoRAConfig | None = None,
    name: str | None = None, restart: bool = False, folder: Path | None = None,
) -> Run:
    """Makes a run that starts from the weights of `base`. `train(run)` then trains it.

    train, model: its settings (None: those of `base`); the model may differ in what no weight depends on, such as
    dropout. lora: freezes the weights and trains an adapter. name: None makes one from the names of `base` and of the
    text, numbered where it is taken. An adapter has no hidden matrices: it is trained by AdamW, where `base` had Muon.

    With the text and the settings of `base`, and more steps than it has done, its training is continued: optimizer,
    schedule and batches go on from its checkpoint. In any other case, and with restart=True, they begin anew from its
    weights. The run's `remark` says which, and why.

    Raises ConfigError or RunError, before a folder exists, where the weights do not fit.
    """
    train = train or base.train_config.replace(distil=None)
    model = (model or base.model_config).settled(base.model_config.vocab_size)
    check_base(base, train, model, lora)
    adapted = model.replace(lora=lora)
    if lora and train.optimizer == base.train_config.optimizer:
        train = train.replace(optimizer=None)
    anew = why_anew(base, train, adapted, restart)
    if not anew:
        return continue_run(base, train, model, name, folder)
    origin = base.as_origin("adapter" if lora else "fine_tuned")
    wanted = name or default_name(base, train, lora)
    run = Run.create(wanted, adapted, train, folder, numbered=name is None, origin=origin)
    what = "trains an adapter on" if lora else "starts from"
    said = f"{run.name} {what} the weights of {base.name} (step {origin.step:,}). Optimizer, schedule and batches begin"
    run.remark = f"{said} anew: {anew}"
    return run


def check_base(base: Run, train: TrainConfig, model: ModelConfig, lora: LoRAConfig | None) -> None:
    """Raises RunError or ConfigError where a training can't start from the weights of `base`."""
    if base.model_config.lora:
        raise RunError(
            f"{base.name!r} is an adapter for {base.origin.run!r}. Merge it into a run of its own first: "
            f"python tools.py merge {base.name}"
        )
    if model.lora:
        raise ConfigError("give the adapter's settings as lora=LoRAConfig(...), and not in the model's settings")
    check_shapes(read_header(base.weights_path)[0], model, base.weights_path)
    if train.data.tokenizer != base.train_config.data.tokenizer:
        raise ConfigError(
            f"the weights of {base.name!r} know the tokens of {base.train_config.data.tokenizer!r}, and not those of "
            f"{train.data.tokenizer!r}; leave train.data.tokenizer as it is, or train a new run"
        )


def why_anew(base: Run, train: TrainConfig, model: ModelConfig, restart: bool) -> str:
    """Why the training of `base` can't be continued with these settings, in words; "" if it can."""
    before = settings_by_name(base.model_config, base.train_config)
    now = settings_by_name(model, train.settled(model))
    differing = [name for name in now | before if now.get(name) != before.get(name)]
    changed = [name for name in differing if not name.startswith(may_change_in(train))]
    if model.lora:
        return "an adapter has an optimizer of its own"
    if restart:
        return "as asked"
    if changed:
        return f"{', '.join(changed[:3])} differ{'s' * (len(changed) == 1)} from those of {base.name}"
    if train.steps <= base.steps_done():
        return f"it takes {train.steps:,} steps, and {base.name} has done {base.steps_done():,}"
    if not base.checkpoint_path.exists():
        return f"{base.name} has no checkpoint (shipped runs have none)"
    return ""


def continue_run(base: Run, train: TrainConfig, model: ModelConfig, name: str | None, folder: Path | None) -> Run:
    """A copy of `base` with its checkpoint, whose training goes on under other settings."""
    folder, wanted = runs_folder(folder), name or default_name(base, train, None)
    check_name(wanted)
    free = free_name(wanted, folder, numbered=name is None)
    with hold(base.folder):  # it must not be trained meanwhile
        check_resumption(base)
        files = [file for file in KEPT if (base.folder / file).exists()]
        origin = base.as_origin("continued")

        def fill(building: Path) -> None:
            for file in files:
                shutil.copyfile(base.folder / file, building / file)
            (building / "checkpoint").mkdir()
            shutil.copyfile(base.checkpoint_path, building / "checkpoint" / base.checkpoint_path.name)
            atomic_write_text(building / "origin.json", origin.to_json())
            atomic_write_text(building / "model_config.json", model.to_json())
            atomic_write_text(building / "train_config.json", train.settled(model).to_json())

        run = fill_folder(free, folder, fill)
    run.remark = (
        f"{run.name} continues the training of {base.name}: optimizer, schedule and batches go on from step "
        f"{base.steps_done():,}, now to step {train.steps:,}"
    )
    return run


def default_name(base: Run, train: TrainConfig, lora: LoRAConfig | None) -> str:
    """A name from that of the base, that of the text if it is another one, and what is done."""
    same = train.data.sources == base.train_config.data.sources
    parts = [base.name, *([] if same else [Path(source).stem for source in train.data.sources])]
    return name_from("-".join([*parts, "lora" if lora else "tuned"]))
