"""Ranks and devices: who am I, where do I compute, and how are gradients shared.

Applied to a finished model from outside: nothing in `model.py` knows of it. Ranks are told by the environment that
elastic launch (or Ray, or Slurm) sets: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. To shard a model that
does not fit one device, change `distribute`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from evergreen.training.dataset import Part


@dataclass(frozen=True)
class Place:
    """One rank's place in the job."""

    rank: int
    ranks: int
    device: torch.device

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


@contextmanager
def process_group() -> Iterator[Place]:
    """Join the other ranks: nccl between GPUs, gloo between CPUs, nothing when alone. Leaves them at a good end."""
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = choose_device(int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    place = Place(rank, ranks, device)
    _make_repeatable(device)
    if ranks == 1:
        yield place
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield place
    dist.destroy_process_group()  # after a failure the others may never answer: then the end of the process does it


def distribute(model: nn.Module, place: Place) -> nn.Module:
    """On its device and, if there are other ranks, with gradients averaged over them."""
    model.to(place.device)
    if place.ranks == 1:
        return model
    return DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)


def total(value: Tensor, place: Place) -> float:
    """Sum of a number over all ranks; the same on each of them."""
    value = value.detach().clone()
    if place.ranks > 1:
        dist.all_reduce(value)
    return float(value)


def _make_repeatable(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    # Not every CUDA kernel has a repeatable twin: there a warning must do.
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
