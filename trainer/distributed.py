"""Several processes as one: who this process is, and sums and rows over all of them.

Started by `torchrun` the processes find each other through its environment variables; started
alone, everything here is the identity.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def launched() -> bool:
    """Whether `torchrun` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """Number of this process on its machine: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def process_group(kind: str) -> Iterator[None]:
    """Join the other processes while it is open: NCCL for `cuda`, gloo for `cpu`."""
    if not launched() or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=timedelta(minutes=30))
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Return once every process has come here."""
    if world() > 1:
        dist.barrier()


def main_first(make: Callable[[], T]) -> T:
    """Call `make` in the main process, then in the others, which find its files."""
    if is_main():
        made = make()
        wait_for_all()
        return made
    wait_for_all()
    return make()


def summed(values: list[float], device: str) -> list[float]:
    """Each value summed over the processes."""
    if world() == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return [float(value) for value in total]


def sharded(
    count: int, batch: int, compute: Callable[[slice], dict[str, Tensor]], device: str = "cpu"
) -> dict[str, Tensor]:
    """`compute` over `count` rows, the batches dealt out to the processes.

    `compute` gets a slice of rows and returns CPU tensors with that many rows. Every process
    returns all rows in order. Batches are dealt whole, so that numbers do not depend on how many
    processes there are.
    """
    slices = [slice(first, min(first + batch, count)) for first in range(0, count, batch)]
    mine = slices[rank() :: world()]
    parts = [compute(part) for part in mine]
    if world() == 1:
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    # A process without a batch still has to know the shapes it will receive.
    example = parts[0] if parts else compute(slices[0])
    found = {}
    for name, like in example.items():
        rows = torch.zeros(count, *like.shape[1:], dtype=like.dtype)
        for place, part in zip(mine, parts, strict=True):
            rows[place] = part[name]
        # Every byte is zero in all processes but one, so that sums are exact, of -0.0 as well.
        shared = rows.flatten().view(torch.uint8).to(device)
        dist.all_reduce(shared)
        found[name] = shared.cpu().view(like.dtype).view_as(rows)
    return found


def _statistics(model: nn.Module) -> list[tuple[Tensor, float]]:
    """Running means and variances of a model, with the momentum of their layers."""
    return [
        (buffer, float(layer.momentum))
        for layer in model.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        and layer.track_running_stats
        and layer.momentum is not None
        for buffer in (layer.running_mean, layer.running_var)
        if buffer is not None
    ]


class SequentialBatchNorm:
    """Running statistics as if the processes' batches had come one after the other.

    Each process sees only its own batches; without this its running statistics would too. With r
    the statistics before and r_k = (1 − m) r + m s_k after a forward pass in process k of W, all
    processes continue from (1 − m)^W r + Σ_k (1 − m)^(W−1−k) m s_k: what a single process reaches
    that accumulates over the same W batches. Batch statistics in the forward pass stay per batch.
    """

    def __init__(self, model: nn.Module) -> None:
        pairs = _statistics(model) if world() > 1 else []
        self._buffers = [buffer for buffer, _ in pairs]
        self._keep = torch.cat(
            [torch.full_like(buffer, 1 - momentum).flatten() for buffer, momentum in pairs]
        ) if pairs else torch.zeros(0)  # fmt: skip
        self._before = self._flat()

    def _flat(self) -> Tensor:
        flat = [buffer.flatten() for buffer in self._buffers]
        return torch.cat(flat) if flat else torch.zeros(0)

    def begin(self) -> None:
        """Remember the statistics before a forward pass."""
        if self._buffers:
            self._before = self._flat()

    def end(self) -> None:
        """Replace the statistics after its backward pass, which still needs them as they were."""
        if not self._buffers:
            return
        fresh = self._flat() - self._keep * self._before
        everyone = [torch.empty_like(fresh) for _ in range(world())]
        dist.all_gather(everyone, fresh)
        result = self._before
        for part in everyone:
            result = self._keep * result + part
        sizes = [buffer.numel() for buffer in self._buffers]
        for buffer, values in zip(self._buffers, result.split(sizes), strict=True):
            buffer.copy_(values.view_as(buffer))
