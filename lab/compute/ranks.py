"""The processes that train one run together: `torchrun --nproc-per-node N tools.py train ...` starts N of them.

    with join_ranks() as ranks:      # without torchrun a world of one, which costs nothing
        run = ranks.first(lambda: Run.create(...).name)

Settings and errors travel as JSON through torchrun's key-value store, tensors through gloo (CPU) or NCCL (CUDA).
Nothing is pickled.
"""

import itertools
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from config import TrainConfig
from settings.errors import ConfigError, GlassboxError, RunError, ToldByAnotherRank
from settings.messages import short

TIMEOUT = 300  # seconds that a rank waits for the others in a step
ANSWER = 3.0  # seconds in which the ranks that still run answer after a failure
GLANCE = 0.5  # seconds between two looks whether a rank has failed
FAILURE = "failure"  # what the store has then
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets
# What PyTorch says where another rank is not there any more
LOST = re.compile(r"gloo|nccl|contact|connection|timed? ?out|socket|broken pipe|store|recv", re.IGNORECASE)
T = TypeVar("T")


@dataclass(kw_only=True, eq=False)
class Ranks:
    """One of `size` processes that train together, number `rank` from 0. launched: whether torchrun started it; else
    it is alone, and every method does the trivial thing. timeout: in seconds. sharded: whether parameters, gradients
    and the optimizer's state are split over the ranks; else each has all of them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launched: bool = False
    timeout: float = TIMEOUT
    sharded: bool = False
    store: Any = None  # torch.distributed.Store
    exchanged: int = field(init=False, default=0)
    failed: bool = field(init=False, default=False)
    step: int = field(init=False, default=0)

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes, shows and asks."""
        return self.rank == 0

    def check(self, config: TrainConfig, device: torch.device) -> None:
        """Raises ConfigError unless these ranks can share a batch of these settings, and each has a device."""
        check_divided(config, self.size)
        if self.launched and device.type == "cuda" and self.local_size > torch.cuda.device_count():
            raise ConfigError(
                f"{self.local_size} ranks on this machine need a GPU each, and it has {torch.cuda.device_count()}: "
                f"start --nproc-per-node {torch.cuda.device_count()}, or train on the CPU (--train.device cpu)"
            )
        if self.size > 1 and device.type == "mps":
            raise ConfigError("several ranks train on CPUs or on CUDA: set --train.device cpu")

    # --- before the first step: JSON through the store, as long as it takes ---

    def exchange(self, value: object) -> list:
        """What every rank gives, in their order; JSON. Waits as long as the slowest takes: if one dies, torchrun ends
        the others."""
        if self.size == 1:
            return [value]
        self.exchanged += 1
        keys = [f"exchange/{self.exchanged}/{rank}" for rank in range(self.size)]
        self.store.set(keys[self.rank], json.dumps(value))
        while not self.store.check(keys):
            if self.store.check([FAILURE]):
                raise RuntimeError("lost contact to a rank")
            time.sleep(0.02)  # a signal is handled in between
        return [json.loads(self.store.get(key)) for key in keys]

    def attempt(self, work: Callable[[], T], here: bool = True) -> T | None:
        """The result of `work` once it has succeeded on every rank. here: whether this rank does it; else None.

        If it fails on any rank, all raise: the first what was wrong and where, the others ToldByAnotherRank.
        """
        if self.size == 1:
            return work()
        result, caught = None, None
        try:
            result = work() if here else None
        except Exception as error:  # every rank must hear of it, whatever it is
            caught = error
        problems = self.exchange(caught and described(caught))
        if any(problems):
            self.failed = True
            self.raise_problem({rank: said for rank, said in enumerate(problems) if said}, caught)
        return result

    def first(self, work: Callable[[], T]) -> T:
        """What `work`, done by the first rank alone, gives to all: JSON. Raises on all ranks what it raises there."""
        return self.exchange(self.attempt(work, here=self.is_first))[0]

    def in_turn(self, work: Callable[[], T]) -> T:
        """The result of `work` on each rank: the first has done it before the others begin, who may find it cached."""
        mine = self.attempt(work, here=self.is_first)
        others = self.attempt(work, here=not self.is_first)
        return mine if self.is_first else others

    def check_same(self, facts: dict[str, object]) -> None:
        """Raises ConfigError on the first rank, and ToldByAnotherRank elsewhere, unless all ranks have these facts."""
        everywhere = self.exchange(facts)
        differing = [
            f"{name} is {short(found[name])} on rank {rank} and {short(everywhere[0][name])} on rank 0"
            for rank, found in enumerate(everywhere) for name in found if found[name] != everywhere[0][name]
        ]

        def compare():
            if differing:
                raise ConfigError(f"the ranks of a training must be the same, and {'; '.join(differing[:3])}")

        self.attempt(compare)

    # --- in a step ---

    def begin_step(self, step: int) -> None:
        """Notes which step this rank begins, so that others can say who is behind."""
        self.step = step
        if self.size > 1:
            self.store.set(f"step/{self.rank}", str(step))

    def gather(self, values: Tensor) -> Tensor:
        """The values of all ranks: (N) gives (R, N). On CUDA nothing waits for it."""
        if self.size == 1:
            return values[None]
        from torch import distributed

        found = values.new_empty(self.size, len(values))
        distributed.all_gather(list(found.unbind()), values.contiguous())
        return found

    def leave(self) -> None:
        """Ends what the ranks do together. The first goes last: it may keep the store."""
        if self.size == 1:
            return
        self.store.set(f"left/{self.rank}", "")
        while self.is_first and not self.store.check([f"left/{rank}" for rank in range(self.size)]):
            time.sleep(0.02)

    # --- after a failure ---

    @contextmanager
    def saying_that_it_lives(self) -> Iterator[None]:
        """Inside the `with`, a thread notes in the store that this process lives, once any rank has failed."""
        ended = threading.Event()

        def watch():
            with suppress(RuntimeError):  # the store is gone with the process that kept it
                while not ended.wait(GLANCE):
                    if self.store.check([FAILURE]):
                        self.store.set(f"alive/{self.rank}", "")
                        return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(GLANCE)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """What fails inside the `with` is told by one rank, in one message."""
        try:
            yield
        except Exception as error:
            told = self.explain(error)
            if told is error:
                raise
            raise told from error

    def explain(self, error: Exception) -> Exception:
        """What to raise here after `error` in a step: one rank tells what happened and on which rank, the others raise
        ToldByAnotherRank. Waits a moment for what the others say."""
        if self.size == 1 or self.failed:
            return error
        self.failed = True
        said = "" if is_lost_contact(error) else described(error)
        try:
            answers = self.answers(said)
        except Exception:  # the store is gone with the process that kept it
            answers = {self.rank: said}
        problems = {rank: text for rank, text in answers.items() if text}
        if not problems:
            missing = [rank for rank in range(self.size) if rank not in answers]
            problems = {min(answers): self.lost_contact(missing, error)}
        try:
            self.raise_problem(problems, error, speaker=min(answers))
        except Exception as told:
            return told

    def answers(self, said: str) -> dict[int, str]:
        """What each rank that still runs says of the failure."""
        keys = [f"failed/{rank}" for rank in range(self.size)]
        self.store.set(keys[self.rank], said)
        self.store.set(FAILURE, "")
        leave_group(failed=True)  # where nothing else holds the group, ranks that wait for this one hear of it
        end = time.monotonic() + ANSWER
        while not self.store.check(keys) and time.monotonic() < end:
            time.sleep(0.02)
        return {rank: self.store.get(key).decode() for rank, key in enumerate(keys) if self.store.check([key])}

    def lost_contact(self, missing: list[int], error: Exception) -> str:
        """Which ranks do not answer, in words."""
        if not missing:
            return f"the ranks lost contact in step {self.step} ({described(error)}); resume the run to go on"
        # one that lives may still wait in a collective operation for others that have left it
        missing = [rank for rank in missing if not self.store.check([f"alive/{rank}"])] or missing
        seen = {rank: self.store.get(key).decode() for rank in missing if self.store.check([key := f"step/{rank}"])}
        ranks = " and ".join(f"rank {rank} (last seen in step {seen.get(rank, 0)})" for rank in missing)
        return (
            f"lost {ranks} in step {self.step}: it has ended, or does not answer within the {self.timeout:g} s of "
            "--rank-timeout. All ranks end; resume the run to go on from its last checkpoint"
        )

    def raise_problem(self, problems: dict[int, str], own: Exception | None, speaker: int = 0) -> None:
        """Raises what is to be told, on the rank that tells it."""
        if self.rank != speaker:
            raise ToldByAnotherRank("another rank tells what is wrong") from own
        texts: dict[str, list[int]] = {}
        for rank, text in problems.items():
            texts.setdefault(text, []).append(rank)
        if len(texts) == 1 and own is not None and self.rank in problems and not is_lost_contact(own):
            raise own
        told = [text if self.rank in ranks else f"rank {ranks[0]}: {text}" for text, ranks in texts.items()]
        raise RunError("; ".join(told)) from own


ALONE = Ranks()
_joined: list[Ranks] = []  # the one that is open
_meetings = itertools.count()  # of this process: each has its own names in the store


def check_divided(config: TrainConfig, size: int) -> None:
    """Raises ConfigError unless `size` ranks can take equal parts of what passes the model at once."""
    if config.at_once % size:
        setting = "batch_size" if config.micro_batch_size in (None, "auto") else "micro_batch_size"
        raise ConfigError(
            f"{size} ranks do not divide {setting}={config.at_once}, the sequences that all ranks together pass "
            f"through the model at once; set a multiple of {size}, or take another number of ranks"
        )


def current_ranks() -> Ranks:
    """The ranks that this process has joined; else it is alone."""
    return _joined[-1] if _joined else ALONE


@contextmanager
def join_ranks(sharded: bool = False, timeout: float = TIMEOUT) -> Iterator[Ranks]:
    """Inside the `with`, this process is one of the ranks that torchrun started; without torchrun it is alone.

    timeout: seconds that a step waits for the other ranks. An inner `with` joins the same ranks again. Raises RunError
    where the ranks can't meet, as with a port that is in use, and ConfigError for `sharded` without torchrun. After an
    error inside, one rank raises it, with the rank that it comes from, and the others raise ToldByAnotherRank;
    meanwhile SIGTERM, which torchrun sends to all ranks when one ends, does not keep it from being told.
    """
    launched = all(name in os.environ for name in LAUNCHED)
    if sharded and not launched:
        raise ConfigError(
            "sharding 'full' splits a model over the processes that torchrun starts: torchrun --nproc-per-node 2 "
            "tools.py train --sharding full. Start it so, or leave --sharding out"
        )
    if _joined or not launched:
        ranks = current_ranks()
        if sharded != ranks.sharded:
            raise ConfigError("these ranks have joined with another sharding; give both `with` the same")
        yield ranks
        return
    ranks = meet(timeout, sharded)
    _joined.append(ranks)
    try:
        with ranks.saying_that_it_lives(), told_before_sigterm(ranks):
            with ranks.explaining():
                yield ranks
            ranks.leave()
    finally:
        _joined.clear()
        leave_group(ranks.failed)


def meet(timeout: float, sharded: bool) -> Ranks:
    """Joins the process group that torchrun's environment describes."""
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    seconds, address = timedelta(seconds=timeout), f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    cuda, local_rank = torch.cuda.is_available(), int(os.environ["LOCAL_RANK"])
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    if cuda and local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    try:
        store, rank, size = next(rendezvous("env://", timeout=seconds))
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # a further one may find the store of the first
        store = distributed.PrefixStore(f"glassbox/{attempt}/{next(_meetings)}", store)
        group = distributed.PrefixStore("group", store)
        distributed.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=seconds)
    except (RuntimeError, ValueError, OSError) as error:
        in_use = "EADDRINUSE" in str(error) or "address already in use" in str(error).lower()
        why = "the port is in use: name another, --master-port PORT" if in_use else described(error)
        raise RunError(f"the ranks can't meet at {address} ({why})") from error
    return Ranks(
        rank=rank, size=size, local_rank=local_rank, local_size=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        launched=True, timeout=timeout, sharded=sharded, store=store,
    )


def leave_group(failed: bool) -> None:
    """Ends this process's part in the process group. NCCL would wait for ranks that have failed: there it ends with the
    process."""
    from torch import distributed

    if distributed.is_initialized() and not (failed and torch.cuda.is_available()):
        distributed.destroy_process_group()


@contextmanager
def told_before_sigterm(ranks: Ranks) -> Iterator[None]:
    """Inside the `with`, SIGTERM has its usual effect; once a rank has failed it has none, so that this process can
    still tell why before it ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.getsignal(signal.SIGTERM)

    def end(number, frame):
        if not ranks.failed:
            signal.signal(number, usual)
            signal.raise_signal(number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if not ranks.failed:
            signal.signal(signal.SIGTERM, usual)


def is_lost_contact(error: Exception) -> bool:
    """Whether the error only says that another rank is not there any more."""
    return isinstance(error, RuntimeError) and bool(LOST.search(str(error)))


def described(error: Exception) -> str:
    """An error in one line."""
    text = str(error) if isinstance(error, GlassboxError | OSError) else f"{type(error).__name__}: {error}"
    lines = text.strip().splitlines()
    return text if isinstance(error, GlassboxError) or not lines else f"{lines[0]:.300}"

