"""Trainings that start from another run's weights, which never change."""

import json

import pytest
import torch

from config import LoRAConfig, ScheduleConfig
from lab.adapting.adapters import AdaptedModel, merge_adapter
from lab.adapting.fine_tuning import fine_tune
from lab.files.reading import checksum
from lab.runs.listing import list_runs
from lab.runs.run import Run
from lab.runs.weights import read_tensors
from lab.sharing import export_run, import_run
from lab.terminal import main
from lab.training.loop import train
from settings.errors import ConfigError, RunError
from tests.helpers.small_trainings import MODEL, assert_same, new_run, numbers, stored

pytestmark = pytest.mark.usefixtures("seeded")
LORA = LoRAConfig(rank=2, dropout=0.1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 12 steps with its checkpoint; tests copy nothing and change nothing in it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bases")
    run = new_run(folder, "base")
    take(run)
    return run


@pytest.fixture
def base(finished):
    before = checksum(finished.weights_path)
    yield finished
    assert checksum(finished.weights_path) == before, "the base was changed"


def take(run: Run, steps: int | None = None) -> Run:
    """Trains the run for that many steps, or to its end."""
    training = train(run)
    for step in training:
        if step.step == steps:
            break
    training.close()
    return Run.open(run.folder)


def logits(run: Run) -> torch.Tensor:
    with torch.no_grad():
        return run.load_model()(torch.arange(12)[None])


def test_full_fine_tuning_starts_from_the_weights(base, tmp_path):
    run = fine_tune(base, base.train_config.replace(seed=1), folder=tmp_path, name="tuned")
    assert "begin anew: train.seed differs from those of base" in run.remark
    training = train(run)
    first = next(training)
    training.close()
    whole = base.load_model().train()
    expected = first_loss(whole, run)
    assert first.loss == pytest.approx(expected, rel=0.05)  # but for dropout
    assert json.loads((run.folder / "origin.json").read_text())["weights"] == checksum(base.weights_path)


def first_loss(model, run: Run) -> float:
    windows = torch.from_numpy(run.load_data().train.batch(1, 0, 4, MODEL.context_length))
    with torch.no_grad():
        return model.eval().losses(windows)["loss"].item()


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_stop_changes_no_number(base, tmp_path, lora):
    settings = base.train_config.replace(seed=1)
    whole = take(fine_tune(base, settings, lora=lora, folder=tmp_path, name="whole"))
    stopped = fine_tune(base, settings, lora=lora, folder=tmp_path, name="stopped")
    for steps in (3, 7, None):
        stopped = take(stopped, steps)
    assert_same_weights(whole, stopped)
    assert numbers(whole.log()).equals(numbers(stopped.log()))
    first, second = stored(whole), stored(stopped)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def assert_same_weights(one: Run, other: Run) -> None:
    (first, facts), (second, others) = read_tensors(one.weights_path), read_tensors(other.weights_path)
    assert facts == others and all(torch.equal(first[name], second[name]) for name in first | second)


def test_an_adapter_stores_its_own_tensors_alone(base, tmp_path):
    run = take(fine_tune(base, lora=LORA, folder=tmp_path, name="adapter"))
    assert not (run.folder / "model.safetensors").exists()
    for path in (run.weights_path, run.checkpoint_path):
        assert {name.rpartition(".")[2] for name in read_tensors(path)[0] if "optimizer" not in name} == {"down", "up"}
    assert not torch.equal(logits(run), logits(base))
    assert list_runs(tmp_path).loc["adapter", "status"] == "finished, 12 steps"
    assert f"adapter for {base.name}" in run.card_path.read_text() and "--from base --lora.rank 2" in (
        run.card_path.read_text()
    )


def test_a_base_of_usual_width_is_five_times_as_large_as_an_adapter_of_rank_8():
    from config import preset
    from lab.costs.parameters import parameter_shapes, stored_shapes

    for name in ("gpt2-tiny", "llama-tiny", "factored-alibi-tiny", "sasp-tiny", "future-tiny", "multi-token-tiny"):
        model = preset(name).model
        sizes = [sum(map(torch.Size.numel, map(torch.Size, shapes.values()))) for shapes in (
            stored_shapes(model.replace(lora=LoRAConfig(rank=8))), parameter_shapes(model))]
        assert sizes[0] < sizes[1] / 5, name


def test_the_training_of_the_base_goes_on(base, tmp_path):
    """As if it had had more steps from the start."""
    longer = base.train_config.replace(steps=18)
    run = fine_tune(base, longer, folder=tmp_path, name="longer")
    assert "continues the training of base" in run.remark and "from step 12, now to step 18" in run.remark
    other = new_run(tmp_path, "resumed")
    take(other)
    (other.folder / "train_config.json").write_text(longer.to_json())
    assert_same(take(run), take(Run.open(other.folder)))


@pytest.mark.parametrize(
    "changes, why",
    [
        (dict(restart=True), "as asked"),
        (dict(train=dict(steps=18, batch_size=2)), r"train\.batch_size differs"),
        (dict(train=dict(steps=10)), "it takes 10 steps, and base has done 12"),
    ],
)
def test_why_a_training_begins_anew(base, tmp_path, changes, why):
    settings = base.train_config.replace(**changes.pop("train", dict(steps=18)))
    run = fine_tune(base, settings, folder=tmp_path, **changes)
    assert run.name == "base-tuned" and run.origin.how == "fine_tuned"
    assert f"anew: {why}".replace("\\", "") in run.remark.replace("\\", "")


def test_a_base_without_a_checkpoint_is_started_from_anew(base, tmp_path):
    shipped = import_run(export_run(base, tmp_path / "base.zip"), tmp_path / "trained")
    run = fine_tune(shipped, shipped.train_config.replace(steps=18), folder=tmp_path / "trained")
    assert "base has no checkpoint" in run.remark


def test_adapters_of_one_base_take_turns_and_merge(base, tmp_path):
    adapters = [
        take(fine_tune(base, base.train_config.replace(seed=seed), lora=LORA, folder=tmp_path, name=f"adapter{seed}"))
        for seed in (1, 2)
    ]
    several, ids = AdaptedModel(adapters), torch.arange(12)[None]
    with torch.no_grad():
        for name in ("adapter1", None, "adapter2", "adapter1"):
            expected = logits(base if name is None else adapters[int(name[-1]) - 1])
            assert torch.equal(several.use(name)(ids), expected)
    with pytest.raises(ConfigError, match="no adapter 'adapter3'; did you mean"):
        several.use("adapter3")
    merged = merge_adapter(adapters[0], folder=tmp_path)
    assert (merged.name, merged.model_config.lora) == ("adapter1-merged", None)
    torch.testing.assert_close(logits(merged), logits(adapters[0]), rtol=1e-5, atol=1e-5)
    assert merged.validation_loss() == adapters[0].validation_loss()
    again = import_run(export_run(merged, tmp_path / "merged.zip"), tmp_path / "elsewhere")
    assert torch.equal(logits(again), logits(merged))


def test_a_shared_adapter_needs_its_base_and_no_path_of_this_machine(base, tmp_path):
    run = take(fine_tune(base, lora=LORA, folder=tmp_path, name="adapter"))
    shared = import_run(export_run(run, tmp_path / "adapter.zip"), tmp_path / "elsewhere")
    assert shared.origin.path is None
    with pytest.raises(RunError, match=r"adapter for base .* is not there: neither as 'base' in"):
        shared.load_model()
    import_run(export_run(base, tmp_path / "base.zip"), tmp_path / "elsewhere")
    assert torch.equal(logits(shared), logits(run))


def test_a_base_with_other_weights_is_refused(tmp_path):
    base = take(new_run(tmp_path, "base"), 4)
    run = take(fine_tune(base, lora=LORA, folder=tmp_path, name="adapter"), 4)
    take(base)
    for act in (run.load_model, lambda: next(train(run))):
        with pytest.raises(RunError, match=r"the weights in .* are others now"):
            act()


def test_what_can_not_be_started_from(base, tmp_path):
    adapter = take(fine_tune(base, lora=LORA, folder=tmp_path, name="adapter"), 2)
    before = sorted(path.name for path in tmp_path.iterdir())
    config = base.train_config
    other = config.data.replace(tokenizer="bpe-512")
    wide = base.model_config.replace(width=32)
    for message, act in {
        "is an adapter for 'base'. Merge it": lambda: fine_tune(adapter, folder=tmp_path),
        "know the tokens of 'byte'": lambda: fine_tune(base, config.replace(data=other), folder=tmp_path),
        "does not fit its model_config.json": lambda: fine_tune(base, model=wide, folder=tmp_path),
        "no linear layer of this model matches 'attn'": lambda: fine_tune(
            base, lora=LoRAConfig(layers="attn"), folder=tmp_path),
        "is taken|exists": lambda: fine_tune(base, lora=LORA, folder=tmp_path, name="adapter"),
        "is no adapter, so there is nothing to merge": lambda: merge_adapter(base, folder=tmp_path),
        "give runs that are adapters": lambda: AdaptedModel([base]),
    }.items():
        with pytest.raises((RunError, ConfigError), match=message.replace(".", r"\.")):
            act()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_from_the_terminal(base, tmp_path, monkeypatch, capsys):
    trained = tmp_path / "trained"
    import_run(export_run(base, tmp_path / "base.zip"), trained)
    monkeypatch.setattr("lab.runs.names.TRAINED", trained)
    monkeypatch.setenv("GLASSBOX_PLAIN", "1")
    few = ["--train.steps", "2", "--train.schedule.warmup-steps", "0"]
    assert main(["train", "--from", "base", "--lora.rank", "3", "--name", "mine", *few]) == 0
    run = Run.open("mine")
    assert run.model_config.lora == LoRAConfig(rank=3) and run.train_config.schedule == ScheduleConfig(warmup_steps=0)
    assert "mine trains an adapter on the weights of base" in capsys.readouterr().out
    assert main(["merge", "mine"]) == 0 and main(["train", "--from", "base", *few]) == 0
    assert list(list_runs().index) == ["base", "base-tuned", "mine", "mine-merged"]
    for flags, message in {
        ("--lora.rank", "3"): "--lora and --restart need a run to start from",
        ("--restart", "True"): "--lora and --restart need a run to start from",
        ("--from", "base", "--preset", "llama-tiny"): "each name a starting point; give one of them",
        ("--from", "base", "--lora.layers", "attn"): "no linear layer of this model matches 'attn'",
    }.items():
        assert main(["train", *flags]) == 1
        assert message in capsys.readouterr().err
