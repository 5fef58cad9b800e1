"""The bytes of all tensors alive while a model runs on fake tensors: tensors with a shape, a type and a device, but no
numbers, so that a step of a large model takes seconds and hardly any memory.

PyTorch has no public name for fake tensors and dispatch modes. All that is private is used in this file alone.
"""

import gc
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lab.costs.parts import BACKWARD, part_of
from settings.errors import ConfigError, GlassboxError, IdeaError


class Inside:
    """Which modules of a model are computing, by path, and the innermost one that an exception came out of."""

    def __init__(self):
        self.paths: list[str] = []
        self.failed = ""

    def follow(self, model: nn.Module) -> None:
        for path, module in model.named_modules():
            if path:
                module.register_forward_pre_hook(lambda *_, path=path: self.paths.append(path))
                module.register_forward_hook(self.leave, always_call=True)

    def leave(self, *_) -> None:
        path = self.paths.pop()
        if sys.exc_info()[1] is not None and not self.failed.startswith(path):  # the modules around it follow
            self.failed = path

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Raises IdeaError for whatever keeps a model from running without numbers."""
        try:
            yield
        except GlassboxError:
            raise
        except Exception as error:  # an idea may raise anything
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise IdeaError(
                f"the costs of {self.failed or 'this model'} can't be measured: {reason:.300}. They are measured on "
                "tensors without numbers: a forward pass must not depend on values, as .item() and `if tensor:` do"
            ) from error


class Allocation:
    """The bytes of one storage, and what they are for: "" for what only passes by."""

    def __init__(self, storage: torch.UntypedStorage, released: Callable[[], None]):
        self.nbytes, self.kind = storage.nbytes(), ""
        self.reference = weakref.ref(storage, lambda _: released())


class AliveBytes(TorchDispatchMode):
    """Counts the storages that operations make, until nothing refers to them any more.

    phase: "forward", "backward", or another thing that is being done, in words.
    """

    def __init__(self, inside: Inside):
        super().__init__()
        self.inside, self.phase = inside, ""
        self.alive: dict[int, Allocation] = {}  # by the storage's address
        self.now = 0
        self.moments: dict[str, tuple[int, list[Allocation]]] = {}  # in words: the most bytes then, and what was alive
        self.fresh: list[Allocation] | None = None  # made since the forward pass began; None: no forward pass runs

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and saying so again for each operation takes a fifth of the time

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        if operation is torch.ops.prim.device.default:
            return arguments[0].fake_device  # as FakeTensorMode answers, which takes longer
        if self.in_forward() != (self.fresh is not None):
            self.turn()
        result = operation(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.allocation(tensor)
        moment = self.describe()
        if moment not in self.moments or self.now > self.moments[moment][0]:
            self.moments[moment] = self.now, list(self.alive.values())
        return result

    def allocation(self, tensor: Tensor) -> Allocation:
        """That of the tensor's storage, counted from now on if it is a new one."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self.alive:
            self.alive[address] = made = Allocation(storage, lambda: self.release(address))
            self.now += made.nbytes
            if self.fresh is not None:
                self.fresh.append(made)
        return self.alive[address]

    def release(self, address: int) -> None:
        self.now -= self.alive.pop(address).nbytes

    def name(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Says what these tensors are for."""
        for tensor in tensors:
            self.allocation(tensor).kind = kind

    def forget_moments(self) -> None:
        self.moments.clear()

    def in_forward(self) -> bool:
        """Whether the forward pass runs, or the backward pass computes a checkpointed part of it again."""
        recomputing = self.phase == "backward" and (self.inside.paths or torch.is_grad_enabled())
        return self.phase == "forward" or bool(recomputing)

    def turn(self) -> None:
        """A forward pass begins, or ends: what it has made and is still alive is kept for the backward pass."""
        if self.fresh is None:
            self.fresh = []
            return
        kept = set(map(id, self.alive.values()))
        for allocation in self.fresh:
            if id(allocation) in kept and not allocation.kind:
                allocation.kind = "activations"
        self.fresh = None

    def describe(self) -> str:
        if self.phase == "forward":
            return f"the forward pass of {part_of(self.inside.paths[-1])}" if self.inside.paths else "the loss"
        return BACKWARD if self.phase == "backward" else self.phase  # the next gradient will tell which part that was

    def follow(self, model: nn.Module) -> None:
        """Keeps track of which part of the model is computing, and of its gradients."""
        self.inside.follow(model)
        for path, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            parameter.register_post_accumulate_grad_hook(lambda owner, path=path: self.gradient_came(owner, path))

    def gradient_came(self, parameter: Tensor, path: str) -> None:
        self.allocation(parameter.grad).kind = "gradients"
        moment = f"{BACKWARD} of {part_of(path)}"
        reached = [self.moments.pop(BACKWARD, (0, [])), self.moments.get(moment, (0, []))]
        self.moments[moment] = max(reached, key=lambda found: found[0])

    def by_moment(self) -> dict[str, dict[str, int]]:
        """The bytes alive when each moment was fullest, by what they were for."""
        found: dict[str, dict[str, int]] = {}
        for moment, (_, alive) in self.moments.items():
            kinds = found[moment] = {}
            for allocation in alive:
                kind = allocation.kind or "temporary"
                kinds[kind] = kinds.get(kind, 0) + allocation.nbytes
        return found


@contextmanager
def fake_tensors(device: str) -> Iterator[AliveBytes]:
    """All tensors made inside are fake ones on this device, and their bytes are counted. Raises IdeaError for what
    can't run without numbers, ConfigError for "cuda" where PyTorch is built without it."""
    if device == "cuda" and not torch.backends.cuda.is_built():  # it would end the process
        raise ConfigError(
            "device 'cuda': this PyTorch is built without CUDA and does not know its kernels; estimate for 'cpu', or "
            "install a PyTorch with CUDA"
        )
    collecting, inside = gc.isenabled(), Inside()
    gc.disable()  # it would release memory at moments that depend on what ran before
    try:
        with inside.explaining(), FakeTensorMode(), torch.device(device), AliveBytes(inside) as alive:
            yield alive
    finally:
        if collecting:
            gc.enable()
