"""The study of distillation, at a size of seconds: what it trains, picks and writes."""

import pandas as pd
import pytest

from bench.studies import distillation, study
from config import DistilConfig, Preset
from lab.runs.names import run_names
from lab.runs.run import Run
from tests.helpers.small_trainings import MODEL, TRAIN

WAYS = {"alone": None, "blocks": DistilConfig(teacher="teacher-seed0", mode="blocks")}


def tiny(width: int, n_layers: int, steps: int, learning_rate: float) -> Preset:
    model = MODEL.replace(width=width // 8, n_layers=n_layers)
    return Preset(model, TRAIN.replace(steps=steps, learning_rate=learning_rate, compile="off"))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The folder of the tables, after the study."""
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    for name, value in {"small_llama": tiny, "WAYS": WAYS, "RATES": (1e-6, 1e-2)}.items():
        monkeypatch.setattr(distillation, name, value)
    distillation.main(tmp_path / "runs", seeds=2, steps=3, teacher_steps=3)
    return tmp_path / "results"


def test_each_way_gets_the_same_trials_and_its_best_rate(results, tmp_path, capsys):
    folder = tmp_path / "runs"
    tried = {f"{way}-rate{rate}-seed100" for way in WAYS for rate in ("1e-06", "0.01")}
    final = {f"{way}-seed{seed}" for way in WAYS for seed in range(2)}
    assert set(run_names(folder)) == {"teacher-seed0"} | tried | final
    assert {Run.open(name, folder).train_config.learning_rate for name in final} == {1e-2}
    rows = pd.read_csv(results / "distillation.csv")
    assert len(rows) == 1 + len(tried) + len(final)
    students = rows[rows["variant"].isin(WAYS)]
    assert students["tokens"].nunique() == 1 and students["parameters"].nunique() == 1
    difference = pd.read_csv(results / "distillation_differences.csv").iloc[0]
    assert difference["variant"] == "blocks" and difference["low"] <= difference["difference"] <= difference["high"]
    by_seed = [float(value) for value in difference["by_seed"].split()]
    assert sum(by_seed) / 2 == pytest.approx(difference["difference"], abs=1e-4)
