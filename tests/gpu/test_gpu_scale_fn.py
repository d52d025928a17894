"""Schedules with a scale_fn, which devices cannot call: its results are worked out ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clr_native import CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, ScheduleSequence
from helpers import parameters
from twins import Machine, Twins

pytestmark = pytest.mark.cuda


def shrinking(number: int) -> float:
    return 0.9**number


def twins_with(machine: Machine, *schedules: CyclicSchedule | ScheduleSequence) -> Twins:
    """A group of one parameter for each schedule."""

    def made(over: list[torch.Tensor]) -> FusedCyclicSGD:
        return FusedCyclicSGD([{"params": [p], "schedule": s} for p, s in zip(over, schedules, strict=True)])

    return Twins(machine, over=parameters([3] * len(schedules)), made=made)


def cyclic(scale_fn: Callable[[int], float] = shrinking, **settings: Any) -> CyclicSchedule:
    return CyclicSchedule(0.01, 0.1, step_size_up=1, scale_fn=scale_fn, **settings)


SHARED = cyclic()
SCHEDULES: dict[str, list[Any]] = {
    "cycle": [cyclic()],
    "iterations": [cyclic(scale_mode="iterations")],
    "shared": [SHARED, SHARED, cyclic(scale_mode="iterations")],
    "sequence": [ScheduleSequence([(OneCycleSchedule(0.2, 3), 3), (cyclic(), 4), (SHARED, None)])],
}


@pytest.mark.parametrize("schedules", SCHEDULES.values(), ids=SCHEDULES)
def test_as_on_the_cpu(machine: Machine, schedules: list[Any]) -> None:
    twins = twins_with(machine, *schedules)
    twins.step(9)
    twins.assert_same()
    twins.both(lambda optimizer: optimizer.seek(1))
    twins.step(2)
    twins.both(lambda optimizer: optimizer.seek(10**6))
    twins.step(2)
    twins.assert_same()


def test_another_function_in_the_place_of_one(machine: Machine) -> None:
    """The pieces of a new schedule may lie where those of the one before it lay."""
    twins = twins_with(machine, cyclic())
    twins.step()
    for share in (0.5, 0.25, 0.75):
        other = cyclic(lambda cycle, share=share: share)  # type: ignore[misc]  # mypy cannot tell its type
        twins.both(lambda optimizer, other=other: optimizer.param_groups[0].update(schedule=other))  # type: ignore[misc]
        del other
        twins.step(2)
    twins.assert_same()


def captured(machine: Machine, *schedules: CyclicSchedule) -> tuple[Twins, Callable[[], None]]:
    twins, stream = twins_with(machine, *schedules), machine.new_stream()
    machine.use(stream)
    twins.step(2)
    with machine.capture(stream) as graph:
        twins.there.step()

    def replay() -> None:
        twins.give()
        with machine.cpu():
            twins.here.step()
        machine.replay(graph)

    return twins, replay


def test_replays_and_a_table_that_is_filled_again(machine: Machine) -> None:
    asked: list[int] = []

    def scale(cycle: int) -> float:
        asked.append(cycle)
        return shrinking(cycle)

    twins, replay = captured(machine, cyclic(scale))
    assert max(asked) == 64
    for _ in range(100):  # into cycle 52
        replay()
    twins.step()
    assert max(asked) == 115
    for _ in range(30):  # past cycle 64
        replay()
    twins.assert_same()


def replay_past_the_end(machine: Machine, scale: Callable[[int], float]) -> tuple[Twins, Callable[[], None]]:
    """Two steps, and six replays, of which the last have no value."""
    twins, stream = twins_with(machine, cyclic(scale)), machine.new_stream()
    machine.use(stream)
    twins.step(2)
    with machine.capture(stream) as graph:
        twins.there.step()
    for _ in range(6):
        machine.replay(graph)
    machine.finish()
    return twins, lambda: machine.replay(graph)


def step_on_cpu(machine: Machine, twins: Twins, count: int) -> None:
    with machine.cpu():
        for _ in range(count):
            twins.here.step()


def test_replays_past_the_end_of_a_table(machine: Machine) -> None:
    """It ends where the function does, which may have no results for cycles behind the end of the training."""
    scales = [1.0, 0.5, 0.25]
    twins, replay = replay_past_the_end(machine, lambda cycle: scales[cycle - 1])
    scales += [0.125] * 64
    step_on_cpu(machine, twins, 4)
    twins.assert_same_tensors()
    with pytest.raises(RuntimeError, match=r"has changed nothing.* call step\(\) between replays"):
        _ = twins.there.applied_steps
    assert twins.there.applied_steps == 6
    twins.both(FusedCyclicSGD.step)
    replay()
    step_on_cpu(machine, twins, 1)
    twins.assert_same()


def test_replays_to_a_rate_that_no_update_can_use(machine: Machine) -> None:
    twins, _ = replay_past_the_end(machine, lambda cycle: -100.0 if cycle == 3 else 1.0)
    step_on_cpu(machine, twins, 3)
    with pytest.raises(RuntimeError, match="no lr and momentum to use"):
        twins.there.step()
    twins.assert_same()
    for _ in range(2):
        twins.both(lambda optimizer: optimizer.param_groups[0].update(lr=0.5, momentum=0.9))
        twins.both(FusedCyclicSGD.step)
    twins.assert_same()
    for optimizer in (twins.here, twins.there):
        with pytest.raises(ValueError, match="must be finite and not negative"):
            optimizer.step()
