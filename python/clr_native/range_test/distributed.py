"""What the ranks of a range test tell each other: the values that each has measured, and that one has failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from clr_native.sgd.sharding import served


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
    return tuple(total / torch.distributed.get_world_size() for total in _summed(*values))


@contextmanager
def on_all_ranks() -> Iterator[None]:
    """Ends the block with an error on every rank if it raises on one: RuntimeError on those where it did not.

    Every rank must come to the end of the block. Without this block the others would wait for the rank that failed.
    """
    if not is_distributed():
        yield
        return
    try:
        yield
    except BaseException:
        _summed(1.0)
        raise
    if _summed(0.0)[0] != 0.0:
        raise RuntimeError("another rank raised, and says why: the range test ends on all of them")


def _summed(*values: float) -> list[float]:
    everyone = torch.distributed.group.WORLD
    assert everyone is not None  # is_distributed() was asked
    total = torch.tensor(values, dtype=torch.float64, device=served(torch.device("cpu"), everyone))
    torch.distributed.all_reduce(total)
    return [float(each) for each in total.tolist()]
