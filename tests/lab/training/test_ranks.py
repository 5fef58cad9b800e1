"""Several processes that train one run give the numbers of one, on any number of ranks, split or not; and what happens
where one of them fails."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from lab.compute.ranks import Ranks, join_ranks
from lab.runs.run import Run
from lab.runs.weights import read_header
from lab.training.loop import train
from settings.errors import ConfigError
from settings.paths import ROOT
from tests.helpers.launches import errors_in, start, start_training
from tests.helpers.rank_cases import CASES, MORE, TRAIN, numbers

PATIENCE = 120  # seconds after which a launch hangs


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One for all workers of pytest-xdist, so that what takes long is done by one of them."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "ranks"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture(scope="module")
def launched(folder) -> dict[int, list[dict]]:
    """What each rank of 2, and then of 4, wrote."""
    found = {}
    with FileLock(folder / "launched.lock"):
        for size in (2, 4):
            files = [folder / f"{size}-{rank}.json" for rank in range(size)]
            if not all(file.exists() for file in files):
                process = start(size, "-m", "tests.helpers.rank_cases", str(folder))
                out, err = process.communicate(timeout=PATIENCE)
                assert process.returncode == 0, out + err
            found[size] = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return found


@pytest.fixture(scope="module")
def alone(folder) -> dict[str, dict]:
    """The same trainings by one process."""
    file = folder / "alone.json"
    with FileLock(folder / "alone.lock"):
        if not file.exists():
            found = {
                name: numbers(train(Run.create(f"{name}-alone", *settings, folder)))
                for name, settings in (CASES | MORE).items()
            }
            file.write_text(json.dumps(found), encoding="utf-8")
        return json.loads(file.read_text(encoding="utf-8"))


def assert_alike(found: dict, expected: dict, start: int = 0, end: int | None = None) -> None:
    for name in ("loss", "others", "norm"):
        np.testing.assert_allclose(found[name], expected[name][start:end], rtol=1e-5, atol=1e-7, err_msg=name)


# --- the numbers of one process ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sharding", ["none", "full"])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_losses_gradients_and_validation_losses_are_those_of_one_process(launched, alone, name, size, sharding):
    for rank in launched[size]:
        found = rank["found"][f"{name} {sharding}"]
        assert len(found["loss"]) == TRAIN.steps
        assert_alike(found, alone[name])
        np.testing.assert_allclose(found["validation"], alone[name]["validation"], rtol=1e-5)


@pytest.mark.parametrize("sharding", ["none", "full"])
@pytest.mark.parametrize("name", MORE)
def test_so_are_those_of_parts_that_can_not_be_split_or_are_shared(launched, alone, name, sharding):
    assert_alike(launched[2][0]["found"][f"{name} {sharding}"], alone[name])


@pytest.mark.parametrize("chain", ["plain", "sharded"])
def test_a_run_goes_on_with_other_ranks_split_or_not(launched, alone, folder, chain):
    """2 ranks take 20 steps, 4 ranks 15 more in the other way, one process the rest."""
    sharding = {"plain": "none", "sharded": "full"}[chain]
    expected = alone["factored-alibi"]
    assert_alike(launched[2][0]["found"][f"chain {sharding}"], expected, 0, 20)
    assert_alike(launched[4][0]["found"][f"chain {sharding}"], expected, 20, 35)
    run = Run.open(f"chain-{sharding}", folder)
    assert run.status() == "stopped at step 35 of 50"
    assert_alike(numbers(train(run)), expected, 35)
    assert run.is_finished()


def test_a_run_of_ranks_is_a_run_like_any_other(launched, alone, folder):
    for name in ("llama-none-4", "llama-full-4"):
        run, other = Run.open(name, folder), Run.open("llama-alone", folder)
        assert run.is_finished()
        written = [{path.name for path in each.folder.rglob("*")} - {"lock"} for each in (run, other)]
        assert written[0] == written[1]
        shapes, _ = read_header(run.checkpoint_path)
        assert shapes == read_header(other.checkpoint_path)[0]
        np.testing.assert_allclose(run.validation_loss(), other.validation_loss(), rtol=1e-5)
        log, expected = run.log(), other.log()
        assert list(log.columns) == list(expected.columns)
        np.testing.assert_allclose(log["loss"], expected["loss"], rtol=1e-5)


# --- what is refused before the first step ----------------------------------------------------------------------


@pytest.mark.parametrize("case, kind, message", [
    ("uneven", "ConfigError", "2 ranks do not divide batch_size=9"),
    ("other_settings", "ConfigError", "train.seed is '1' on rank 1 and '0' on rank 0"),
    ("other_code", "ConfigError", "code is 'abd' on rank 1 and 'abc' on rank 0"),
    ("other_data", "RunError", "rank 1: "),
    ("other_model", "RunError", "other settings"),
    ("not_visible", "RunError", "trained/ must be a folder that all machines of a training share"),
])
def test_one_rank_tells_what_is_wrong_and_the_other_ends(launched, case, kind, message):
    first, second = (rank["errors"][case] for rank in launched[2])
    assert first[0] == kind and message in first[1]
    assert second[0] == "ToldByAnotherRank"


def test_nothing_is_left_of_what_was_refused(launched, folder):
    assert not (folder / "uneven").exists()


def test_sharding_needs_torchrun(folder, alone):
    run = Run.open("llama-alone", folder)
    with pytest.raises(ConfigError, match=r"torchrun --nproc-per-node 2 tools\.py train --sharding full"):
        list(train(run, sharding="full"))


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        place = dict(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        command = [sys.executable, "tools.py", "resume", "nothing", "--rank-timeout", "5"]
        ended = subprocess.run(
            command, cwd=ROOT, env=os.environ | place, capture_output=True, encoding="utf-8", timeout=PATIENCE
        )
    assert ended.returncode == 1
    assert errors_in(ended.stderr) == [
        f"error: the ranks can't meet at 127.0.0.1:{port} (the port is in use: name another, --master-port PORT)"
    ]
    assert "Traceback" not in ended.stderr


def test_a_process_alone_exchanges_with_itself():
    with join_ranks() as ranks:
        assert (ranks.rank, ranks.size, ranks.launched) == (0, 1, False)
        assert ranks.exchange(3) == [3] and ranks.first(lambda: "x") == "x"
    with pytest.raises(ConfigError, match="3 ranks do not divide micro_batch_size=4"):
        Ranks(size=3).check(TRAIN.replace(micro_batch_size=4), torch.device("cpu"))


# --- ranks that fail in a step ----------------------------------------------------------------------------------


def test_a_rank_whose_loss_is_no_number_is_named(tmp_path):
    process = start_training(tmp_path, 2, "--name", "x", "--train.steps", "9", fault="nan:1:4")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    (error,) = errors_in(err)
    assert "step 4: the output of blocks.0" in error and "on rank 1 is not finite" in error
    assert "The run still holds the checkpoint of step 2" in error
    assert steps_of(tmp_path / "trained" / "x") == [1, 2, 3]


def test_a_rank_that_dies_is_named_and_the_run_goes_on_by_itself(tmp_path):
    flags = ["--train.steps", "9", "--rank-timeout", "60"]
    process = start_training(tmp_path, 4, *flags, fault="kill:1:6", options=("--max-restarts", "1"))
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    (error,) = errors_in(err)
    assert "lost rank 1 (last seen in step 6) in step 6" in error
    runs = [path for path in (tmp_path / "trained").iterdir() if not path.name.startswith(".")]
    assert len(runs) == 1 and steps_of(runs[0]) == list(range(1, 10))
    assert "| finished, 9 steps |" in (runs[0] / "README.md").read_text(encoding="utf-8")


def test_a_rank_that_hangs_is_named_after_the_timeout(tmp_path):
    process = start_training(
        tmp_path, 2, "--name", "x", "--train.steps", "9", "--rank-timeout", "4", fault="stop:1:3"
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("error:"):
            break
    subprocess.run(["kill", "-CONT", *children(process.pid)], check=False)  # torchrun would kill it after 30 seconds
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "lost rank 1 (last seen in step 3) in step 3" in lines[-1] and "within the 4 s" in lines[-1]
    assert steps_of(tmp_path / "trained" / "x") == [1, 2]


def children(pid: int) -> list[str]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, encoding="utf-8", check=False)
    return found.stdout.split()


def test_sigterm_stops_all_ranks_after_the_same_step_with_a_checkpoint(tmp_path):
    process = start_training(tmp_path, 2, "--name", "x", "--train.steps", "100000")
    log, end = tmp_path / "trained" / "x" / "log_data.csv", time.monotonic() + PATIENCE
    while not (log.exists() and log.read_text(encoding="utf-8").count("\n") > 5):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    run = tmp_path / "trained" / "x"
    steps = steps_of(run)
    at = len(steps)
    assert steps == list(range(1, at + 1)) and at > 4
    assert json.loads(read_header(run / "checkpoint" / "state.safetensors")[1]["progress"])["step"] == at
    assert (run / "model.safetensors").exists()
    assert f"| stopped at step {at} of 100000 |" in (run / "README.md").read_text(encoding="utf-8")


def steps_of(run: Path) -> list[int]:
    """The steps in the log of a run, whose idea is not imported here."""
    return pd.read_csv(run / "log_data.csv")["step"].tolist()


def test_impossible_ranks_are_one_message(tmp_path):
    process = start_training(tmp_path, 2, "--name", "x", "--train.batch-size", "5", "--train.steps", "9")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert errors_in(err) == [
        "error: 2 ranks do not divide batch_size=5, the sequences that all ranks together pass through the model at "
        "once; set a multiple of 2, or take another number of ranks"
    ]
    assert not (tmp_path / "trained" / "x").exists()
