"""Ranks and devices: who am I, where do I compute, and how is one model spread over many ranks.

Applied to a finished model from outside: nothing in `network/model.py` knows of it. Ranks are told by the environment that
elastic launch (or Ray, or Slurm) sets: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. `distribute` is the one
place that decides how: compile, then shard or copy, in that order (as torchtitan does, arXiv:2410.06511).
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from evergreen.spec import TrainConfig
from evergreen.training.data.dataset import Part
from evergreen.training.network.model import Network

_LARGE = 1 << 20
"""A layer of this many parameters (a large embedding table) is gathered by itself, the smaller ones of a member together."""


@dataclass(frozen=True)
class Place:
    """One rank's place in the job."""

    rank: int
    ranks: int
    device: torch.device
    here: int = 1
    """Ranks on this machine."""

    @property
    def leads(self) -> bool:
        """Rank 0 writes and speaks; the others only compute."""
        return self.rank == 0

    def send(self, part: Tensor) -> Tensor:
        """A tensor on this rank's device; to a GPU from pinned memory, without waiting for it."""
        if part.device == self.device:
            return part
        return part.pin_memory().to(self.device, non_blocking=True)

    def hold(self, part: Part) -> Part:
        """The rows on this rank's device where they take at most half of its free memory, else where they are."""
        if self.device.type == "cpu" or part.size_bytes > torch.cuda.mem_get_info(self.device)[0] / 2:
            return part
        return part.to(self.device)


def choose_device(local_rank: int, local_ranks: int) -> torch.device:
    """A GPU of its own for every rank of this machine, or the CPU for all of them."""
    if torch.cuda.is_available() and torch.cuda.device_count() >= local_ranks:
        return torch.device("cuda", local_rank)
    return torch.device("cpu")


_LEFT: list[object] = []
"""Groups this process was in, held until it ends."""


@contextmanager
def process_group() -> Iterator[Place]:
    """Join the other ranks: nccl between GPUs, gloo between CPUs, nothing when alone. Leaves them at a good end.

    A launcher that has joined them already, as Ray Train does, also leaves them.
    """
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    device = choose_device(int(os.environ.get("LOCAL_RANK", 0)), here)
    place = Place(rank, ranks, device, here)
    _make_repeatable(device)
    if ranks == 1 or dist.is_initialized():
        yield place
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    # The last to let go of a group must not be DDP's reducer: it would wait for the group's threads under the lock they need.
    _LEFT.append(dist.group.WORLD)
    yield place
    dist.destroy_process_group()  # after a failure the others may never answer: then the end of the process does it


def distribute(network: Network, config: TrainConfig, place: Place) -> nn.Module:
    """The network as `[train]` wants it spread: the module to go forward through while training.

    Alone: the network on its device. `ddp`: a copy on every rank, gradients averaged over them. `fsdp`: every rank keeps its
    share of each parameter, gradient and moment, and gathers a layer's only while it computes (FSDP2, arXiv:2304.11277).
    """
    if config.compile:
        for member in network.members:
            member.compile(dynamic=True)
    if place.ranks > 1 and config.parallelism == "fsdp":
        return _shard(network, place)
    network.to(place.device)
    if place.ranks == 1:
        return network
    return DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)


def _shard(network: Network, place: Place) -> nn.Module:
    """Each large layer, then what is left of each member, then of the network: parameters move to the device sharded."""
    mesh = init_device_mesh(place.device.type, (place.ranks,))
    for member in network.members:
        for layer in member.modules():
            if sum(parameter.numel() for parameter in layer.parameters(recurse=False)) >= _LARGE:
                fully_shard(layer, mesh=mesh)
        fully_shard(member, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def is_sharded(network: nn.Module) -> bool:
    """Do its ranks hold parts of it? Then all of them must go forward together."""
    return isinstance(network, FSDPModule)


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, gathered from the ranks that hold parts of them; to be called on all ranks."""
    return {name: v.full_tensor() if isinstance(v, DTensor) else v for name, v in tensors.items()}


def without_exchange(module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Inside it gradients add up on this rank alone, unless this is the `last` piece of a step."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
        return nullcontext()
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale gradients down to `max_norm` together; returns their norm before, over all shards of all ranks."""
    held = list(parameters)
    norm = nn.utils.get_total_norm([p.grad for p in held if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    nn.utils.clip_grads_with_norm_(held, max_norm, norm)
    return float(norm)


def totals(values: Tensor, place: Place) -> list[float]:
    """Sums of some numbers over all ranks; the same on each of them."""
    summed = values.detach().clone()
    if place.ranks > 1:
        dist.all_reduce(summed)
    return summed.tolist()


def _make_repeatable(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    # Not every CUDA kernel has a repeatable twin: there a warning must do.
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
