"""FusedCyclicSGD under schedules of every kind: weights as torch's SGD driven by hand, momentum left alone, ends."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from torch import Tensor

from clr_native import CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.schedules import Schedule
from helpers import Beside, assert_refused, every_parameter, give, go_on, gradient_sets, halving, parameters


def third(cycle: int) -> float:
    return 1 / (cycle + 2)


CYCLES = CyclicSchedule(0.1, 0.5, step_size_up=3)
RAMP = RampSchedule(0.01, 0.1, 5)
HALVED = CyclicSchedule(0.1, 0.5, step_size_up=2, scale_fn=halving)
THIRD = CyclicSchedule(0.1, 0.4, step_size_up=2, scale_fn=third, cycle_momentum=False)
# Momentum comes, goes and comes again.
MIXED = ScheduleSequence([(RAMP, 4), (CYCLES, 7), (RampSchedule(0.1, 0.01, 4), 4), (CYCLES, None)])
FUNCTIONS = ScheduleSequence([(HALVED, 6), (ScheduleSequence([(RAMP, 2), (THIRD, 9)]), None)])

KINDS: dict[str, Schedule] = {
    "cyclic": CYCLES,
    "one cycle": OneCycleSchedule(0.4, 30),
    "one cycle, fastai": OneCycleSchedule(0.4, 30, convention="fastai", three_phase=True, anneal_strategy="linear"),
    "one cycle without momentum": OneCycleSchedule(0.4, 30, cycle_momentum=False),
    "ramp": RAMP,
    "ramp with momentum": RampSchedule(0.5, 1e-6, 20, ramp="exponential", momentum=0.5),
    "mixed": MIXED,
    "functions": FUNCTIONS,
    "nested, ending": ScheduleSequence([(ScheduleSequence([(MIXED, 9), (RAMP, 3)]), 15), (CYCLES, 5)]),
}


def of(schedule: Schedule, over: Sequence[Tensor] | None = None, **settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(parameters([17, 65]) if over is None else over, schedule=schedule, **settings)


def train_beside(optimizer: FusedCyclicSGD, momenta: list[float], steps: int = 26) -> None:
    """Each step beside torch's SGD with the schedules' own values; ``momenta`` where there is none."""
    beside = Beside(optimizer)
    schedules = [optimizer._schedule_of(group) for group in optimizer.param_groups]
    for number, gradients in enumerate(gradient_sets(beside.over, steps)):
        values = [schedule(number) for schedule in schedules]
        momenta = [kept if momentum is None else momentum for kept, (_, momentum) in zip(momenta, values, strict=True)]
        assert optimizer.get_last_lr() == [lr for lr, _ in values]
        assert optimizer.get_last_momentum() == momenta
        beside.step(gradients)
        beside.assert_same()


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.01, "nesterov": True}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_torch_driven_by_hand(kind: str, settings: dict[str, Any]) -> None:
    train_beside(of(KINDS[kind], **settings), [0.9])


def test_every_group_with_a_schedule_of_its_own() -> None:
    groups: list[dict[str, Any]] = [{"params": parameters([9]), "schedule": each} for each in KINDS.values()]
    groups[4]["momentum"] = 0.25
    optimizer = FusedCyclicSGD([*groups, {"params": parameters([5])}], schedule=MIXED, momentum=0.75)
    momenta = [0.75 if schedule(0).momentum is None else 0.9 for schedule in KINDS.values()]
    momenta[4] = 0.25
    train_beside(optimizer, [*momenta, 0.75])


# --- momentum where the schedule has none ---------------------------------------------------------------------


@pytest.mark.parametrize("when", range(1, 18))
def test_momentum_by_hand_around_a_transition(when: int) -> None:
    """Where the schedule has none it is a setting that stays until the schedule has one; else obeyed once."""
    optimizer = of(MIXED)
    beside = Beside(optimizer)
    position, momentum = 0, 0.9
    for number, gradients in enumerate(gradient_sets(beside.over, 22)):
        lr, scheduled = MIXED(position)
        momentum = momentum if scheduled is None else scheduled
        by_hand = number == when
        assert (optimizer.get_last_lr(), optimizer.get_last_momentum()) == ([lr], [momentum])
        assert optimizer.applied_steps == position
        if by_hand:
            optimizer.param_groups[0]["momentum"] = momentum = 0.125
        beside.step(gradients)
        beside.assert_same()
        position += not (by_hand and scheduled is not None)


@pytest.mark.parametrize("key", ["lr", "weight_decay", "applied_steps", "unknown"])
@pytest.mark.parametrize("when", [3, 4, 5, 10, 11, 12, 14, 15, 16])
def test_what_is_written_into_a_group_around_a_transition_is_seen(when: int, key: str) -> None:
    optimizer = of(MIXED)
    beside = Beside(optimizer)
    (group,), (others,) = optimizer.param_groups, beside.theirs.param_groups
    for number, gradients in enumerate(gradient_sets(beside.over, 22)):
        if number == when:
            group[key] = 8 if key == "applied_steps" else 0.0625
            if key == "applied_steps":
                group["lr"], group["momentum"] = MIXED(8)
            if key == "weight_decay":
                others["weight_decay"] = 0.0625
        beside.step(gradients)
        beside.assert_same()
    expected = {"lr": 21, "applied_steps": 8 + 22 - when}.get(key, 22)
    assert optimizer.applied_steps == expected
    assert optimizer.get_last_lr() == [MIXED(expected).lr]
    assert group.get("unknown") == (0.0625 if key == "unknown" else None)


CONSTANT = CyclicSchedule(0.1, 0.1, base_momentum=0.9, max_momentum=0.9)


@pytest.mark.parametrize(
    ("schedule", "number"), [*((MIXED, n) for n in (0, 1, 4, 11, 13, 15)), (CONSTANT, 0)], ids=repr
)
def test_a_momentum_that_no_update_can_use_is_refused(schedule: Schedule, number: int) -> None:
    optimizer = of(schedule)
    go_on(optimizer, number)
    kept = optimizer.param_groups[0]["momentum"]
    for wrong, error in [(1.5, ValueError), (float("nan"), ValueError), ("0.9", TypeError)]:
        optimizer.param_groups[0]["momentum"] = wrong
        assert_refused(optimizer.step, error, "parameter group 0: momentum=", optimizer)
    optimizer.param_groups[0]["momentum"] = kept
    go_on(optimizer, 2)
    assert optimizer.applied_steps == number + 2


BEGINS_WITH = ScheduleSequence([(CYCLES, 5), (RAMP, None)])


@pytest.mark.parametrize("schedule", [CYCLES, KINDS["one cycle"], KINDS["ramp with momentum"], BEGINS_WITH], ids=repr)
@pytest.mark.parametrize("momentum", [0.5, 0.9, 1.5, "a", float("nan")])
def test_a_momentum_that_nothing_would_use_is_refused(schedule: Schedule, momentum: Any) -> None:
    for settings in ({"momentum": momentum, "schedule": schedule}, {"schedule": RAMP}):
        over = {"params": parameters([3]), "schedule": schedule, "momentum": momentum}
        with pytest.raises(ValueError, match=r"momentum=.* is for a schedule that begins without one"):
            FusedCyclicSGD([over], **settings)


@pytest.mark.parametrize("schedule", [RAMP, MIXED, KINDS["one cycle without momentum"]], ids=repr)
def test_a_momentum_that_is_used_is_checked(schedule: Schedule) -> None:
    assert of(schedule, momentum=0.5).get_last_momentum() == [0.5]
    assert of(schedule).get_last_momentum() == [0.9]
    for wrong, error in [(1.5, ValueError), (-0.1, ValueError), (float("nan"), ValueError), ("a", TypeError)]:
        with pytest.raises(error, match=f"momentum={wrong!r}"):
            of(schedule, momentum=wrong)


# --- cycles and ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:parameter group 0. applied_steps=30 is past the end:UserWarning")
def test_cycles_are_counted_where_they_end(kind: str) -> None:
    schedule = KINDS[kind]
    optimizer = of(schedule)
    ends: list[int] = []
    for number in range(40):
        assert optimizer.cycle == len(ends)
        go_on(optimizer)
        if optimizer.at_cycle_end:
            ends.append(number + 1)
    expected = {
        "cyclic": [6, 12, 18, 24, 30, 36],
        "mixed": [10, 21, 27, 33, 39],
        "functions": [4, 12, 16],
        "nested, ending": [],
    }
    if kind.startswith("one"):
        assert ends == [30]
    else:
        assert ends == expected.get(kind, [])


def warnings_of(call: Callable[[], object]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return caught


ENDING = [
    (OneCycleSchedule(0.4, 5), 5),
    (ScheduleSequence([(RAMP, 3), (OneCycleSchedule(0.4, 5), None)]), 8),
    (
        ScheduleSequence([(OneCycleSchedule(0.4, 5), 6), (ScheduleSequence([(OneCycleSchedule(0.4, 2), None)]), None)]),
        8,
    ),
]


@pytest.mark.parametrize(("schedule", "end"), ENDING)
def test_one_warning_at_the_first_update_past_the_end(schedule: Schedule, end: int) -> None:
    optimizer = of(schedule)
    assert warnings_of(lambda: go_on(optimizer, end)) == []
    (caught,) = warnings_of(lambda: go_on(optimizer))
    assert caught.category is UserWarning
    assert f"parameter group 0: applied_steps={end} is past the end of its schedule" in str(caught.message)
    assert warnings_of(lambda: go_on(optimizer, 20)) == []
    assert optimizer.get_last_lr() == [schedule(end - 1).lr]
    assert optimizer.applied_steps == end + 21


@pytest.mark.parametrize(("schedule", "end"), ENDING)
def test_with_warnings_as_errors_that_update_is_refused(schedule: Schedule, end: int) -> None:
    optimizer = of(schedule)
    go_on(optimizer, end)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_refused(optimizer.step, UserWarning, "is past the end", optimizer)
    assert len(warnings_of(optimizer.step)) == 1
    assert optimizer.applied_steps == end + 1


@pytest.mark.parametrize(
    "schedule", [CYCLES, RAMP, ScheduleSequence([(OneCycleSchedule(0.4, 5), 9), (RAMP, 3)]), OneCycleSchedule(0.4, 99)]
)
def test_no_warning_of_what_has_no_end_or_has_not_come_to_it(schedule: Schedule) -> None:
    optimizer = of(schedule)
    assert warnings_of(lambda: go_on(optimizer, 30)) == []


def test_an_update_by_hand_at_the_end_does_not_warn() -> None:
    optimizer = of(OneCycleSchedule(0.4, 5))
    go_on(optimizer, 5)
    optimizer.param_groups[0]["lr"] = 0.01
    assert warnings_of(lambda: go_on(optimizer)) == []
    assert len(warnings_of(lambda: go_on(optimizer))) == 1


def test_extended_in_the_middle_of_a_run() -> None:
    schedule = OneCycleSchedule(0.4, 20)
    optimizer = of(schedule)
    go_on(optimizer, 15)
    optimizer.param_groups[0]["schedule"] = schedule.extended(40)
    longer = OneCycleSchedule(0.4, 40, pct_start=0.15)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        beside = Beside(optimizer)
        for number, gradients in enumerate(gradient_sets(beside.over, 25), 15):
            beside.give(gradients)
            beside.theirs.param_groups[0]["lr"], beside.theirs.param_groups[0]["momentum"] = longer(number)
            optimizer.step()
            beside.theirs.step()
            beside.assert_same()
    assert optimizer.at_cycle_end
    assert optimizer.param_groups[0]["schedule"] == longer.to_dict()


def test_steps_over_sequences_leave_no_blocks_behind() -> None:
    optimizer = FusedCyclicSGD(
        [{"params": parameters([8] * 10), "schedule": each} for each in (MIXED, KINDS["nested, ending"])]
    )
    over = every_parameter(optimizer)
    give(over, gradient_sets(over, 1)[0])
    for _ in range(30):
        optimizer.step()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(50):
        optimizer.step()
    assert sys.getallocatedblocks() - before < 10
