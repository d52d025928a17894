"""schedule.summary: what the paper advises, and what each kind of schedule does."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from clr_native import CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.schedules import Check, Schedule, Summary

# The table below has 100 steps to an epoch.
PER_EPOCH = 100


def cyclic(base_lr: float = 0.1, max_lr: float = 0.3, **arguments: Any) -> CyclicSchedule:
    return CyclicSchedule(base_lr, max_lr, **{"step_size_up": 200, **arguments})


PAPER = ScheduleSequence(
    [
        (CyclicSchedule(0.001, 0.005, step_size_up=2000, mode="triangular2"), 16_000),
        (CyclicSchedule(0.0001, 0.0005, step_size_up=1000, mode="triangular2"), 6_000),
        (CyclicSchedule(0.00001, 0.00005, step_size_up=500, mode="triangular2"), 3_000),
    ]
)


def check(schedule: Schedule, epochs: int, name: str, found: str, ok: bool | None) -> None:
    summary = schedule.summary(PER_EPOCH, epochs)
    (check,) = (check for check in summary.checks if check.name == name)
    assert (check.found, check.ok) == (found, ok)
    assert check.advised
    assert (summary.schedule, summary.steps, summary.steps_per_epoch) == (schedule, PER_EPOCH * epochs, PER_EPOCH)
    mark = {True: "  ok  ", False: "  no  ", None: "   ?  "}[ok]
    assert f"{mark}{name}: {found} (advised: {check.advised})" in str(summary)


@pytest.mark.parametrize(
    ("schedule", "epochs", "name", "found", "ok"),
    [
        (cyclic(), 12, "half-cycle", "200 steps, 2 epochs", True),
        (cyclic(step_size_up=199), 12, "half-cycle", "199 steps, 1.99 epochs", False),
        (cyclic(step_size_up=1000), 12, "half-cycle", "1,000 steps, 10 epochs", True),
        (cyclic(step_size_up=1001), 12, "half-cycle", "1,001 steps, 10.01 epochs", False),
        (cyclic(step_size_up=100), 12, "half-cycle", "100 steps, 1 epoch", False),
        (cyclic(step_size_down=1200), 12, "rising half", "200 steps, 2 epochs", True),
        (cyclic(step_size_down=1200), 12, "falling half", "1,200 steps, 12 epochs", False),
        (cyclic(), 12, "cycles", "3", True),
        (cyclic(), 11, "cycles", "2.75", False),
        (cyclic(), 1, "cycles", "0.25", False),
        (cyclic(), 12, "base_lr", "max_lr / 3", True),  # 0.3 / 0.1 is below 3
        (cyclic(0.1, 0.4), 12, "base_lr", "max_lr / 4", True),
        (cyclic(0.1, 0.35), 12, "base_lr", "max_lr / 3.5", True),
        (cyclic(0.1, 0.6), 12, "base_lr", "max_lr / 6", None),
        (cyclic(0.1, 0.2), 12, "base_lr", "max_lr / 2", None),
        (cyclic(1e-9, 1.0), 12, "base_lr", "max_lr / 1e+09", None),
        (cyclic(0.0, 0.2), 12, "base_lr", "0", None),
        (cyclic(0.2, 0.2), 12, "base_lr", "max_lr: the rate does not cycle", False),
        (OneCycleSchedule(0.1, 1200), 12, "final_lr", "4e-07, that is initial_lr / 10,000", True),
        (OneCycleSchedule(0.1, 1200, final_div_factor=10.0), 12, "final_lr", "0.0004, that is initial_lr / 10", False),
        (OneCycleSchedule(0.1, 1200, convention="fastai"), 12, "final_lr", "1e-06, that is initial_lr / 4,000", True),
        (OneCycleSchedule(0.1, 1200), 12, "momentum", "0.95 to 0.85", True),
        (OneCycleSchedule(0.1, 1200, cycle_momentum=False), 12, "momentum", "it stays", False),
        (RampSchedule(0.0, 0.1, 1200), 12, "range test", "linear, rising", True),
        (RampSchedule(0.1, 0.0, 1200), 12, "range test", "linear, not rising", None),
        (RampSchedule(0.01, 0.1, 1200, ramp="exponential"), 12, "range test", "exponential, rising", None),
    ],
)
def test_checks(schedule: Schedule, epochs: int, name: str, found: str, ok: bool | None) -> None:
    check(schedule, epochs, name, found, ok)


@pytest.mark.parametrize(
    ("schedule", "epochs", "found", "ok"),
    [
        (cyclic(), 12, "the end of cycle 3", True),
        (cyclic(), 13, "100 steps into cycle 4, which lasts from epoch 12 to 16", False),
        (cyclic(), 3, "300 steps into cycle 1, which lasts from epoch 0 to 4", False),
        (OneCycleSchedule(0.1, 1200), 12, "the end of the schedule", True),
        (
            OneCycleSchedule(0.1, 1300),
            12,
            "100 steps before the end of the schedule, which is after 1,300 steps, 13 epochs",
            False,
        ),
        (
            OneCycleSchedule(0.1, 1199),
            12,
            "1 step after the end of the schedule, in which the rate stays at 4e-07",
            False,
        ),
        (RampSchedule(0.0, 0.1, 1200), 12, "the end of the ramp", True),
        (RampSchedule(0.0, 0.1, 1199), 12, "the end of the ramp", True),  # both rates are met
        (RampSchedule(0.0, 0.1, 1100), 12, "99 steps after the end of the ramp, in which the rate stays at 0.1", False),
        (
            RampSchedule(0.0, 0.1, 1201),
            12,
            "1 step before the end of the ramp, which is after 1,201 steps, 12.01 epochs",
            False,
        ),
        (PAPER, 250, "the end of the sequence", True),
        (PAPER, 249, "100 steps before the end of the sequence, which is after 25,000 steps, 250 epochs", False),
        (PAPER, 251, "100 steps after the end of the sequence, in which the last value is held", False),
        (
            ScheduleSequence([(RampSchedule(0.0, 0.1, 500), 500), (cyclic(), None)]),
            5,
            "0 steps before the last segment begins",
            False,
        ),
    ],
)
def test_the_end_of_the_run(schedule: Schedule, epochs: int, found: str, ok: bool) -> None:
    check(schedule, epochs, "end of the run", found, ok)


def test_a_sequence_is_summed_up_by_segment() -> None:
    summary = PAPER.summary(500, 50)
    assert [each.ok for each in summary.segments] == [True, True, False]  # half-cycles of 4, 2 and 1 epochs
    assert all(check.ok for check in summary.checks)
    assert not summary.ok
    assert PAPER.summary(250, 100).ok
    assert [each.steps for each in summary.segments] == [16_000, 6_000, 3_000]
    first, *others = str(summary).splitlines()
    assert first == "ScheduleSequence: 25,000 steps, 50 epochs"
    second = "CyclicSchedule(0.0001, 0.0005, step_size_up=1000, mode='triangular2')"
    assert f"  segment 1: {second}: 6,000 steps, 12 epochs" in others


def test_a_segment_that_the_run_does_not_reach() -> None:
    summary = PAPER.summary(500, 40)
    assert [each.steps for each in summary.segments] == [16_000, 4_000, 0]
    assert summary.segments[2].checks == ()
    assert str(summary).splitlines()[-1].endswith("mode='triangular2'): not reached")


def test_the_last_segment_without_an_end_takes_the_rest() -> None:
    warm = ScheduleSequence([(RampSchedule(0.0, 0.1, 500), 500), (cyclic(), None)])
    summary = warm.summary(PER_EPOCH, 17)
    assert [each.steps for each in summary.segments] == [500, 1200]
    assert summary.checks == ()
    assert summary.ok
    assert not warm.summary(PER_EPOCH, 18).ok


def test_sequences_in_sequences() -> None:
    nested = ScheduleSequence([(PAPER, 25_000), (cyclic(), 1200)])
    summary = nested.summary(PER_EPOCH, 262)
    assert [each.steps for each in summary.segments[0].segments] == [16_000, 6_000, 3_000]
    assert "\n    segment 2: CyclicSchedule(1e-05" in str(summary)


def test_a_summary_is_plain_and_frozen() -> None:
    summary = cyclic().summary(PER_EPOCH, 12.0)  # type: ignore[arg-type]  # a whole float is taken as elsewhere
    assert summary == cyclic().summary(PER_EPOCH, 12)
    assert isinstance(summary, Summary)
    assert all(isinstance(check, Check) for check in summary.checks)
    with pytest.raises(dataclasses.FrozenInstanceError):
        summary.steps = 3  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0, 1), ValueError, "steps_per_epoch=0 must be a whole number of steps from 1 to 2**53 - 1"),
        ((1, 0), ValueError, "epochs=0 must be a whole number of epochs from 1 to 2**53 - 1"),
        ((1, 2.5), ValueError, "epochs=2.5 must be a whole number of epochs from 1 to 2**53 - 1"),
        (("a", 1), TypeError, "steps_per_epoch='a' must be a number"),
        ((1, None), TypeError, "epochs=None must be a number"),
    ],
)
def test_bad_arguments_name_themselves(arguments: tuple[Any, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        cyclic().summary(*arguments)
