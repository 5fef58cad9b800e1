"""Parameters that are split over the ranks by FSDP2 (Zhao et al. 2023, arXiv 2304.11277; `fully_shard`).

Each rank keeps some rows of every parameter, of its gradient and of the optimizer's state. A block's parameters are
gathered when it runs, and let go afterwards; those of small blocks travel together, because ranks wait for each other
in every message. A parameter of a single number can't be split: every rank keeps it whole.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lab.compute.ranks import current_ranks

if TYPE_CHECKING:
    from modules.block import Block
    from modules.transformer import Transformer

GROUP_BYTES = 25 * 2**20  # of the blocks that are gathered together, at most; as much as DDP sends at once


def shard(learner: nn.Module, model: "Transformer", size: int) -> None:
    """Splits the parameters of `learner`, which is `model` or holds it, over `size` ranks.

    Blocks are gathered as `block_groups` says, and let go after their pass. The last group is not: its backward pass
    comes next. All else, and blocks that share parameters with other parts, stays gathered from the model's pass to the
    end of its backward pass.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    device = next(model.parameters()).device
    settings = {"mesh": init_device_mesh(device.type, (size,)), "ignored_params": set(single_numbers(learner))}
    groups = block_groups(model)
    for group in groups:
        fully_shard(group, reshard_after_forward=group is not groups[-1], **settings)
        for block in group:
            if block.loss_weights:  # it has losses of its own, outside its forward pass
                register_fsdp_forward_method(block, "losses")
    fully_shard(model, reshard_after_forward=False, **settings)
    if learner is not model:
        fully_shard(learner, reshard_after_forward=False, **settings)
        register_fsdp_forward_method(learner, "losses")
    for method in ("losses", "hidden"):
        register_fsdp_forward_method(model, method)


def block_groups(model: "Transformer") -> list[list["Block"]]:
    """The blocks whose parameters are gathered together: those in a row that every pass runs, up to GROUP_BYTES, and
    any other by itself. Blocks that share parameters are left out."""
    shared = shared_parameters(model)
    groups: list[list[Block]] = []
    open_group = False  # whether the next block may join the last group
    for block in model.blocks:
        if not shared.isdisjoint(map(id, block.parameters())):
            open_group = False
            continue
        joins = block.predicts_next and not block.loss_weights
        if joins and open_group and sum(map(parameter_bytes, [*groups[-1], block])) <= GROUP_BYTES:
            groups[-1].append(block)
        else:
            groups.append([block])
        open_group = joins
    return groups


def parameter_bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def shared_parameters(model: "Transformer") -> set[int]:
    """The ids of the parameters that several blocks have, or a block and the rest of the model."""
    parts = [*model.blocks, *(part for name, part in model.named_children() if name != "blocks")]
    of_parts = [set(map(id, part.parameters())) for part in parts]
    found = [parameter for ids in of_parts for parameter in ids]
    return {parameter for parameter in found if found.count(parameter) > 1}


def single_numbers(module: nn.Module) -> list[nn.Parameter]:
    """The parameters () that no rank can have a part of."""
    return [parameter for parameter in module.parameters() if not parameter.dim()]


def split_again(model: nn.Module) -> None:
    """Lets go of all that was gathered for a pass."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def without_gradients() -> AbstractContextManager:
    """A context without gradients: inference mode, whose tensors can't be used in training afterwards, as the gathered
    parameters of a sharded model must be."""
    return torch.no_grad() if current_ranks().sharded else torch.inference_mode()


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank has only a part of it (a DTensor)."""
    return hasattr(tensor, "full_tensor")


def local(tensor: Tensor) -> Tensor:
    """This rank's rows."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All rows, gathered from the ranks; every rank must ask."""
    return tensor.detach().full_tensor() if is_sharded(tensor) else tensor.detach()


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor what this rank has of `like`, which has the same shape."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    tensor = tensor.to(like.device)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)  # nothing is sent


def row_counts(n_rows: int, size: int) -> list[int]:
    """How many rows of a parameter each of `size` ranks has: ⌈rows / ranks⌉, of which the last ones may have fewer."""
    share = -(-n_rows // size)
    return [max(0, min(share, n_rows - rank * share)) for rank in range(size)]


def swap(parts: list[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Sends the i-th part to rank i, and returns what each rank sent to this one, of these shapes."""
    from torch import distributed

    sizes = [math.prod(shape) for shape in shapes]
    sent = torch.cat([part.reshape(-1) for part in parts])
    received = sent.new_empty(sum(sizes))
    distributed.all_to_all_single(received, sent, sizes, [part.numel() for part in parts])
    return [values.view(shape) for values, shape in zip(received.split(sizes), shapes)]


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The L2 norm over all of them, some of which may be split and some whole."""
    groups = [[gradient for gradient in gradients if is_sharded(gradient) == split] for split in (True, False)]
    norms = [whole(torch.nn.utils.get_total_norm(group)) for group in groups if group]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """As torch.nn.utils.clip_grad_norm_, for parameters some of which may be split and some whole.

    torch's multiplies gradients within the limit by 1. On the CPU this one leaves them alone. On a GPU it multiplies
    them too, because the CPU would have to wait for the norm.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = total_norm(gradients)
    share = (limit / (norm + 1e-6)).clamp(max=1.0)
    if share.device.type != "cpu" or share != 1:
        torch._foreach_mul_([local(gradient) for gradient in gradients], share)
    return norm


def average_single_numbers(learner: nn.Module, size: int) -> None:
    """Gives each parameter () the mean of its gradients on all ranks; `fully_shard` leaves it out."""
    from torch import distributed

    gradients = [parameter.grad for parameter in single_numbers(learner) if parameter.grad is not None]
    if gradients:
        together = torch.stack(gradients) / size
        distributed.all_reduce(together)
        torch._foreach_copy_(gradients, list(together.unbind()))
