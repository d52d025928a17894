"""A step is done or not done, whatever interrupts it: here, an exception at every event in which Python runs at all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import CyclicSchedule, FusedCyclicSGD, GradScaler
from helpers import every_parameter, give, gradient_sets, interrupted, parameters, train

SHAPES: list[tuple[int, ...]] = [(4, 3), (5,), ()]


def described(optimizer: FusedCyclicSGD) -> list[Any]:
    """Weights, state tensors, counters, lr. Version counters and empty dicts in the state do not count."""
    over = every_parameter(optimizer)
    state = [{name: tensor.reshape(-1).tolist() for name, tensor in optimizer.state.get(p, {}).items()} for p in over]
    groups = [{name: value for name, value in g.items() if name != "params"} for g in optimizer.param_groups]
    return [[p.detach().reshape(-1).tolist() for p in over], state, groups, optimizer.applied_steps]


def plain(optimizer: FusedCyclicSGD) -> None: ...


def skipped(optimizer: FusedCyclicSGD) -> None:
    gradient = every_parameter(optimizer)[1].grad
    assert gradient is not None
    gradient[0] = torch.inf


def late(optimizer: FusedCyclicSGD) -> None:
    """A parameter that has no state yet, a buffer that is lost, and one in another layout."""
    over = every_parameter(optimizer)
    optimizer.state[over[1]].pop("momentum_buffer", None)
    if optimizer.state[over[0]]:
        optimizer.state[over[0]]["momentum_buffer"] = optimizer.state[over[0]]["momentum_buffer"].t().contiguous().t()
    optimizer.state.pop(over[2], None)


def by_hand(optimizer: FusedCyclicSGD) -> None:
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(0.3)


def new_schedule(optimizer: FusedCyclicSGD) -> None:
    optimizer.param_groups[0]["schedule"] = CyclicSchedule(0.2, 0.4, step_size_up=2)


def other_groups(optimizer: FusedCyclicSGD) -> None:
    optimizer.param_groups[:] = [dict(group) for group in optimizer.param_groups]


# Settings, steps before, and what happens before the step that is interrupted.
LIVES: dict[str, tuple[dict[str, Any], int, Callable[[FusedCyclicSGD], None]]] = {
    "plain": ({}, 3, plain),
    "first": ({}, 0, plain),
    "late": ({}, 3, late),
    "by hand": ({}, 3, by_hand),
    "new schedule": ({}, 3, new_schedule),
    "other groups": ({}, 3, other_groups),
    "skipped": ({"skip_nonfinite": True}, 3, skipped),
    "skipped, advancing": ({"skip_nonfinite": True, "advance_on_skip": True}, 0, skipped),
    "averaged": ({"ema_decay": 0.5}, 2, plain),
    "first average": ({"ema_decay": 0.5, "max_grad_norm": 1.0}, 0, plain),
    "cycle's end": ({"average": "swa", "step_size_up": 1}, 3, late),
    "scale_fn": ({"scale_fn": lambda n: 0.5, "scale_mode": "iterations"}, 3, plain),
    "LARS": ({"trust_coefficient": 0.01, "max_grad_value": 0.5}, 0, plain),
    "16 bits": ({"kahan": True, "ema_decay": 0.5}, 0, plain),
    "masters": ({"master_weights": True, "ema_decay": 0.5}, 1, late),
}


def made(name: str) -> FusedCyclicSGD:
    settings, steps, before = LIVES[name]
    half = {"kahan", "master_weights"} & settings.keys()
    over = parameters(SHAPES, torch.bfloat16 if half else torch.float32)
    over[0].data = over[0].detach().t().contiguous().t() if name == "late" else over[0].detach()
    groups: list[dict[str, Any]] = [{"params": over[:2]}, {"params": over[2:], "weight_decay": 0.1}]
    optimizer = FusedCyclicSGD(groups, 0.1, 0.5, **{"step_size_up": 3, **settings})
    train(optimizer, over, gradient_sets(over), steps)
    give(over, gradient_sets(over, 1, seed=5)[0])
    before(optimizer)
    return optimizer


def steps_of(name: str, step: Callable[[FusedCyclicSGD], object]) -> Iterator[tuple[int, FusedCyclicSGD, bool]]:
    for event in range(10_000):
        optimizer = made(name)
        stopped = interrupted(partial(step, optimizer), event)
        yield event, optimizer, stopped
        if not stopped:
            return


@pytest.mark.parametrize("name", LIVES)
def test_a_step_is_done_or_not_done(name: str) -> None:
    _, _, before = LIVES[name]
    untouched, done, twice = made(name), made(name), made(name)
    done.step()
    for _ in range(2):
        twice.step()
    for event, optimizer, stopped in steps_of(name, FusedCyclicSGD.step):
        found = described(optimizer)
        is_done = found == described(done)
        assert stopped or is_done
        assert is_done or before in (new_schedule, other_groups) or found == described(untouched), event
        optimizer.step()
        assert described(optimizer) == described(twice if is_done else done), event
    assert event > 2  # the step ran Python, and was interrupted


def scaled_step(optimizer: FusedCyclicSGD) -> None:
    scaler = GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(()))
    scaler.step(optimizer)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a generator that is closed
@pytest.mark.parametrize("name", ["plain", "first", "averaged"])
def test_a_step_under_a_scaler_is_done_or_not_done(name: str) -> None:
    untouched, done = made(name), made(name)
    scaled_step(done)
    for event, optimizer, _ in steps_of(name, scaled_step):
        assert described(optimizer) in (described(untouched), described(done)), event


def loss_of(over: list[Tensor]) -> Tensor:
    return torch.stack([(p * (i + 1)).sum() for i, p in enumerate(over)]).sum()


@pytest.mark.parametrize("name", ["plain", "first", "late", "averaged"])
def test_a_released_parameter_is_updated_or_not(name: str) -> None:
    """Each by itself: its gradient is there and it is as before, or it is updated and the gradient is gone."""

    def begun() -> tuple[FusedCyclicSGD, list[Tensor]]:
        optimizer = made(name)
        over = every_parameter(optimizer)
        optimizer.zero_grad()
        optimizer.release_gradients()
        return optimizer, over

    untouched = described(made(name))
    done, over = begun()
    loss_of(over).backward()  # type: ignore[no-untyped-call]  # untyped in torch
    done.step()
    after = described(done)
    for event in range(10_000):
        optimizer, over = begun()
        loss = loss_of(over)
        stopped = interrupted(loss.backward, event)
        for i, parameter in enumerate(over):
            weight = parameter.detach().reshape(-1).tolist()
            if weight == untouched[0][i]:
                assert optimizer.state.get(parameter, {}).keys() == untouched[1][i].keys()
                if stopped and parameter.grad is None:  # backward ended before it came here
                    parameter.grad = torch.full_like(parameter, i + 1.0)
            else:
                assert weight == after[0][i], event
                assert parameter.grad is None, event
        optimizer.step()
        assert described(optimizer) == after, event
        if not stopped:
            return


def test_averages_come_and_go_in_one_native_call() -> None:
    """Nothing of Python runs in `with`: a signal finds weights or averages, never a part of both."""
    optimizer = made("averaged")
    context = optimizer.averaged_weights()
    assert not isinstance(type(context).__enter__, type(test_averages_come_and_go_in_one_native_call))
    with context:
        averages = [p.detach().clone() for p in every_parameter(optimizer)]
    for event in range(1000):
        optimizer = made("averaged")
        weights = [p.detach().clone() for p in every_parameter(optimizer)]

        def use(optimizer: FusedCyclicSGD = optimizer) -> None:
            with optimizer.averaged_weights():
                copy.copy(1)

        stopped = interrupted(use, event)
        assert all(map(torch.equal, every_parameter(optimizer), weights)), event
        optimizer.step()
        if not stopped:
            break
    assert averages


@pytest.mark.parametrize("name", ["first", "late", "by hand", "averaged", "masters", "skipped"])
def test_a_checkpoint_that_a_signal_handler_saves_is_of_before_or_after(name: str) -> None:
    """At every event in which Python runs; the step goes on as if nobody had looked."""
    untouched, done = made(name), made(name)
    done.step()
    sides = [described(untouched), described(done)]
    for event in range(10_000):
        optimizer = made(name)
        saved: list[dict[str, Any]] = []

        def save(optimizer: FusedCyclicSGD = optimizer, saved: list[dict[str, Any]] = saved) -> None:
            saved.append(copy.deepcopy(optimizer.state_dict()))

        interrupted(optimizer.step, event, save)
        assert described(optimizer) == sides[1]
        if not saved:
            break
        resumed = made(name)
        resumed.load_state_dict(saved[0])
        for parameter, weight in zip(every_parameter(resumed), every_parameter(untouched), strict=True):
            parameter.data.copy_(weight.detach())
        found = described(resumed)[1:]
        assert found in (sides[0][1:], sides[1][1:]), event
    assert event > 2
