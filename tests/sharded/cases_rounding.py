"""Stochastic rounding: the numbers belong to elements of the whole tensor, so the bits are those of one process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from clr_native import FusedCyclicSGD
from helpers import bits, every_parameter
from processes import case
from shards import SCHEDULE, Both, gradients, mesh_of, whole


def along_last(network: nn.Module) -> None:
    """Where it divides evenly: FSDP asks for that."""
    fully_shard(network, shard_placement_fn=lambda p: Shard(p.dim() - 1) if p.shape[-1] % 2 == 0 else None)


def colwise(network: nn.Module) -> None:
    parallelize_module(network, mesh_of(), {"0": ColwiseParallel(), "3": ColwiseParallel()})


def rowwise(network: nn.Module) -> None:
    parallelize_module(network, mesh_of(), {"0": RowwiseParallel(), "3": RowwiseParallel()})


def both_ways(network: nn.Module) -> None:
    mesh = mesh_of(2, 2)
    parallelize_module(network, mesh["tp"], {"0": ColwiseParallel(), "3": RowwiseParallel()})
    fully_shard(network, mesh=mesh["dp"])


def train(shard: Callable[[nn.Module], object], dtype: torch.dtype) -> None:
    both = Both(shard, dtype=dtype, rounding="stochastic", seed=5, ema_decay=0.9)
    for each in gradients(every_parameter(both.alone), 10, scale=0.05):
        both.step(each)
    both.assert_same()


@case((2, 3))
def sharded_by_rows() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        train(fully_shard, dtype)


@case(2)
def sharded_otherwise() -> None:
    for shard in (along_last, colwise, rowwise):
        train(shard, torch.bfloat16)


@case(4)
def sharded_along_two_dimensions() -> None:
    train(both_ways, torch.bfloat16)


@case(2)
def sharded_in_the_middle() -> None:
    """Runs of several lengths in tensors of four dimensions, with vectors' tails; then what is no regular run."""
    torch.manual_seed(0)
    mesh = mesh_of()
    for shape, dim in ((3, 6, 5, 2), 1), ((3, 2, 4, 7), 2), ((2, 3, 2, 66), 3), ((4, 9), 0), ((4, 6), 1), ((1, 2), 1):
        start = torch.randn(shape).bfloat16()
        plain = nn.Parameter(start.clone())
        cut = nn.Parameter(distribute_tensor(start.clone(), mesh, [Shard(dim)], src_data_rank=None))
        ours, alone = (FusedCyclicSGD([p], **SCHEDULE, rounding="stochastic") for p in (cut, plain))
        for _ in range(3):
            plain.grad = torch.randn(shape).bfloat16() * 0.01
            cut.grad = distribute_tensor(plain.grad, mesh, [Shard(dim)], src_data_rank=None)
            ours.step()
            alone.step()
        assert bits(whole(cut)) == bits(plain), (shape, dim)


@case(4)
def what_has_no_runs_is_refused() -> None:
    mesh = mesh_of(2, 2)
    cut = nn.Parameter(distribute_tensor(torch.zeros(2, 4, 4).bfloat16(), mesh, [Shard(1), Shard(2)]))
    cut.grad = torch.zeros_like(cut)
    optimizer = FusedCyclicSGD([cut], **SCHEDULE, rounding="stochastic")
    with pytest.raises(TypeError, match=r"rounding='stochastic' with placements=.*Shard\(dim=1\)"):
        optimizer.step()
    assert isinstance(cut, DTensor)
    assert optimizer.applied_steps == 0
