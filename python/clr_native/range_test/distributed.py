"""The mean over ranks of the values that each rank has measured."""

from __future__ import annotations

import torch


def is_distributed() -> bool:
    """True if there is an initialised process group with more than one rank."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def is_first_rank() -> bool:
    """True on the rank that shows progress."""
    return not is_distributed() or torch.distributed.get_rank() == 0


def mean_over_ranks(*values: float) -> tuple[float, ...]:
    """Returns the means over all ranks, with the same bits on each, or the values themselves without a process group.

    Every rank must call it. Summed in float64; a NaN on one rank is a NaN on all.
    """
    if not is_distributed():
        return values
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return tuple((total / torch.distributed.get_world_size()).tolist())
