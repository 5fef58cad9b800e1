"""Runs that torchrun's processes make together, and find again where torchrun starts them once more."""

import json
import os
import platform
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import torch

from lab.compute.ranks import Ranks
from lab.files.atomic import atomic_write_text
from lab.runs.code_version import code_version
from lab.runs.run import Run
from lab.runs.settings import settings_by_name
from settings.errors import RunError
from settings.paths import cache_folder


def machine_facts(ranks: Ranks) -> dict[str, object]:
    """What must be the same on all ranks beside settings and data."""
    sharding = "full" if ranks.sharded else "none"
    return {"code": code_version(), "torch": torch.__version__, "sharding": sharding, "ranks": ranks.size}


def check_same_request(ranks: Ranks, request: object) -> None:
    """Raises ConfigError unless all ranks were started with the same arguments, code and versions."""
    if ranks.size > 1:
        settings = settings_by_name(request.model, request.train)
        flags = {name: str(value) for name, value in vars(request).items() if name not in ("model", "train")}
        ranks.check_same(machine_facts(ranks) | flags | {name: str(value) for name, value in settings.items()})


def create_together(ranks: Ranks, create: Callable[[], Run]) -> Run:
    """The run that the first rank makes by `create`, opened on every rank.

    torchrun --max-restarts starts all processes again after one has died. Then it is the run that the first attempt
    made. Raises RunError where the run's folder is not visible to a rank.
    """
    made = []

    def make() -> list[str]:
        run = find_made(ranks) or create()
        note_made(ranks, run)
        made.append(run)
        return [str(run.folder.resolve()), run.remark]

    folder, remark = ranks.first(make)
    return ranks.attempt(lambda: made[0] if made else open_visible(Path(folder), remark))


def open_visible(folder: Path, remark: str) -> Run:
    """The run that another rank made."""
    if not folder.is_dir():
        raise RunError(
            f"{folder}, which rank 0 made, is not there on {platform.node()}: trained/ must be a folder that all "
            "machines of a training share"
        )
    run = Run.open(folder)
    run.remark = remark
    return run


def record_of(ranks: Ranks) -> Path | None:
    """The file that names the run of this launch; None without torchrun. torchrun is the parent of all its attempts."""
    if not ranks.launched:
        return None
    import psutil

    launch = f"{platform.node()} {os.getppid()} {psutil.Process(os.getppid()).create_time()}"
    return cache_folder() / "launches" / f"{blake2b(launch.encode(), digest_size=8).hexdigest()}.json"


def find_made(ranks: Ranks) -> Run | None:
    """The run that an earlier attempt of this launch made, if this is a further one."""
    path = record_of(ranks)
    if path is None or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" or not path.exists():
        return None
    return Run.open(Path(json.loads(path.read_text(encoding="utf-8"))))


def note_made(ranks: Ranks, run: Run) -> None:
    """Keeps which run this launch makes, for a further attempt."""
    path = record_of(ranks)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(str(run.folder.resolve())))
