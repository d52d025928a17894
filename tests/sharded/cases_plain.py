"""Shards in plain tensors: FullyShardedDataParallel and ZeroRedundancyOptimizer with process_group=."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.nn.parallel import DistributedDataParallel

import clr_native
from clr_native import FusedCyclicSGD
from processes import case
from shards import SCHEDULE, model

RULES: dict[str, Any] = {"max_grad_norm": 0.01, "skip_nonfinite": True}
CPU = torch.device("cpu")


def batch(step: int) -> Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(step))


def loss_of(network: nn.Module, step: int) -> Tensor:
    result: Tensor = (network(batch(step)) ** 2).mean()
    return result


def zero_of(network: nn.Module, process_group: Any = None, **settings: Any) -> Any:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # its import warns of torch itself

    kind: Any = functools.partial(FusedCyclicSGD, process_group=process_group)
    return ZeroRedundancyOptimizer(network.parameters(), optimizer_class=kind, **settings)


def fsdp(network: nn.Module, *, originals: bool) -> nn.Module:
    return FullyShardedDataParallel(network, device_id=CPU, use_orig_params=originals)


def norms_of(network: nn.Module, optimizer: Any, steps: int) -> list[float | None]:
    """Trains, and returns the norm of each step."""
    inner, norms = getattr(optimizer, "optim", optimizer), []  # the one that ZeroRedundancyOptimizer wraps
    for step in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(loss_of(network, step))
        optimizer.step()
        norms.append(inner.last_grad_norm)
    return norms


def run_alone(steps: int, **settings: Any) -> tuple[nn.Module, list[float | None]]:
    network = model()
    return network, norms_of(network, FusedCyclicSGD(network.parameters(), **SCHEDULE, **settings), steps)


def check_norms(own: list[float | None], alone: list[float | None]) -> None:
    assert own == [pytest.approx(norm, rel=1e-5) for norm in alone]


@case((2, 3))
def zero_has_the_norm_of_the_whole_model() -> None:
    expected, norms = run_alone(10, **RULES)
    network = DistributedDataParallel(model())
    check_norms(norms_of(network, zero_of(network, distributed.group.WORLD, **SCHEDULE, **RULES), 10), norms)
    apart = DistributedDataParallel(model())  # by itself, a process has the norm of its own part
    unaware = norms_of(apart, zero_of(apart, **SCHEDULE, **RULES), 1)
    assert unaware[0] != pytest.approx(norms[0], rel=1e-2)
    for p, q in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@case(2)
def flat_parameters_have_the_norm_of_the_whole_model() -> None:
    expected, norms = run_alone(10, **RULES)
    for originals in (False, True):
        network = fsdp(model(), originals=originals)
        group: Any = network.process_group
        optimizer = FusedCyclicSGD(network.parameters(), **SCHEDULE, **RULES, process_group=group)
        check_norms(norms_of(network, optimizer, 10), norms)
        with FullyShardedDataParallel.summon_full_params(network):
            for p, q in zip(network.parameters(), expected.parameters(), strict=False):
                if p.shape == q.shape:
                    torch.testing.assert_close(p.detach(), q.detach())


@case(2)
def parameters_that_all_have_are_counted_once() -> None:
    _, norms = run_alone(5, **RULES)
    network: Any = model()
    whole = network[4]
    wrapped = FullyShardedDataParallel(network, device_id=CPU, use_orig_params=False, ignored_modules=[whole])
    optimizer = FusedCyclicSGD(wrapped.parameters(), **SCHEDULE, **RULES, process_group=distributed.group.WORLD)
    check_norms(norms_of(wrapped, optimizer, 5), norms)


def spoil(network: nn.Module, step: int) -> None:
    """In one process only."""
    if step not in (1, 4) or distributed.get_rank() != step % 2:
        return
    for p in network.parameters():
        if p.grad is not None and p.grad.numel():
            p.grad.view(-1)[0] = torch.inf
            return


@case(2)
def all_skip_together() -> None:
    scalers: list[Callable[[], torch.amp.GradScaler | None]] = [
        lambda: None,
        lambda: ShardedGradScaler("cpu", init_scale=8.0, growth_interval=1000),
        lambda: clr_native.GradScaler("cpu", init_scale=8.0, growth_interval=1000),
    ]
    for originals in (False, True):
        for make in scalers:
            network, scaler = fsdp(model(), originals=originals), make()
            optimizer = FusedCyclicSGD(
                network.parameters(),
                **SCHEDULE,
                process_group=distributed.group.WORLD,
                **RULES if scaler is None else {},
            )
            for step in range(6):
                optimizer.zero_grad()
                loss = loss_of(network, step)
                torch.autograd.backward(loss if scaler is None else scaler.scale(loss))
                spoil(network, step)
                if scaler is None:
                    optimizer.step()
                else:
                    scaler.step(optimizer)
                    scaler.update()
            assert optimizer.applied_steps == 4
            assert scaler is None or scaler.get_scale() == 2.0


@case(2)
def a_rule_over_flat_parameters_without_a_group_is_refused_by_name() -> None:
    network = fsdp(model(), originals=False)
    torch.autograd.backward(loss_of(network, 0))
    for settings, words in (
        ({"max_grad_norm": 1.0}, "max_grad_norm .*needs process_group="),
        ({"skip_nonfinite": True}, "skip_nonfinite .*needs process_group="),
        ({"trust_coefficient": 0.1}, "trust_coefficient .*FullyShardedDataParallel"),
        ({"trust_coefficient": 0.1, "process_group": distributed.group.WORLD}, "trust_coefficient .*Fully"),
    ):
        optimizer = FusedCyclicSGD(network.parameters(), **SCHEDULE, **settings)
        with pytest.raises(RuntimeError, match=words):
            optimizer.step()
    FusedCyclicSGD(network.parameters(), **SCHEDULE).step()


@case(2)
def copies_share_the_group_and_pickles_drop_it() -> None:
    group = distributed.group.WORLD
    optimizer = FusedCyclicSGD(model().parameters(), **SCHEDULE, process_group=group)
    assert copy.deepcopy(optimizer).process_group is group
    assert pickle.loads(pickle.dumps(optimizer)).process_group is None
    assert "process_group" not in optimizer.defaults
    assert "process_group" not in optimizer.param_groups[0]
    assert "process_group" not in str(optimizer.state_dict())
    optimizer.process_group = None
    wrong: Any = "gloo"
    with pytest.raises(TypeError, match="process_group of type=str must be"):
        optimizer.process_group = wrong
    assert optimizer.process_group is None
