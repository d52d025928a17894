"""Accelerate makes shards of a model when the optimizer has its parameters already, and puts them into its groups."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from clr_native import FusedCyclicSGD
from processes import case
from shards import SCHEDULE, model, whole

RULES: dict[str, Any] = {"max_grad_norm": 0.05, "skip_nonfinite": True, "ema_decay": 0.9, "weight_decay": 0.01}


def accelerator() -> Any:
    """With FSDP2 on the CPU, which Accelerate offers on GPUs only."""
    from accelerate import Accelerator
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    rank = str(distributed.get_rank())
    os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=str(distributed.get_world_size()))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")  # asked for, and not used: the processes are together
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    made = Accelerator(fsdp_plugin=plugin, cpu=True)
    made.state.distributed_type, made.state.fsdp_plugin = DistributedType.FSDP, plugin
    assert made.is_fsdp2
    return made


@case(2)
def trains_under_fsdp2() -> None:
    with_shards = accelerator()
    network, twin = model(), model()
    alone = FusedCyclicSGD(twin.parameters(), **SCHEDULE, **RULES)
    first = FusedCyclicSGD(network.parameters(), **SCHEDULE, **RULES)
    network, wrapped = with_shards.prepare(network, first)
    for step in range(12):
        data = torch.randn(6, 5, generator=torch.Generator().manual_seed(step))
        for each, optimizer, backward in (
            (network, wrapped, with_shards.backward),
            (twin, alone, torch.autograd.backward),
        ):
            optimizer.zero_grad()
            backward(loss_of(each, data))
            optimizer.step()
        assert first.last_grad_norm == pytest.approx(alone.last_grad_norm, rel=1e-5)
    for p, q in zip(network.parameters(), twin.parameters(), strict=True):
        assert isinstance(p, DTensor)
        torch.testing.assert_close(whole(p), q.detach(), rtol=1e-5, atol=1e-6)
    assert wrapped.optimizer.applied_steps == 12


def loss_of(network: nn.Module, data: Tensor) -> Tensor:
    loss: Tensor = (network(data) ** 2).mean()
    return loss
