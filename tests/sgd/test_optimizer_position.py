"""Where the schedule stands: counters, cycles, the next update's values, and moving there."""

from __future__ import annotations

from typing import Any

import pytest

from clr_native import CyclicSchedule, FusedCyclicSGD
from helpers import assert_goes_on_alike, assert_refused, assert_same_training, go_on, parameters, picture

LAST = 2**63 - 2


def ours(**settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(parameters([20]), 0.125, 0.5, **{"step_size_up": 2, "step_size_down": 3} | settings)


def test_counters_and_values_of_the_next_update() -> None:
    optimizer = ours(mode="triangular2")
    schedule = CyclicSchedule(0.125, 0.5, step_size_up=2, step_size_down=3, mode="triangular2")
    for n in range(13):
        assert (optimizer.applied_steps, optimizer.skipped_steps) == (n, 0)
        assert type(optimizer.applied_steps) is int
        lr, momentum = schedule(n)
        assert optimizer.get_last_lr() == [optimizer.param_groups[0]["lr"]] == [lr]
        assert optimizer.get_last_momentum() == [optimizer.param_groups[0]["momentum"]] == [momentum]
        assert type(optimizer.get_last_lr()[0]) is float
        assert optimizer.cycle == n // 5
        assert optimizer.at_cycle_end == (n > 0 and n % 5 == 0)
        go_on(optimizer)


@pytest.mark.parametrize("at", [0, 1, 7, 5_000_000_001, LAST])
def test_seek(at: int) -> None:
    """Values are those of the schedule there; weights, buffers and version counters stay."""
    optimizer = ours()
    go_on(optimizer, 3)
    before = picture(optimizer)
    optimizer.seek(at)
    after = picture(optimizer)
    assert {**before, "groups": None} == {**after, "groups": None}
    assert (optimizer.applied_steps, optimizer.cycle) == (at, at // 5)
    schedule = CyclicSchedule(0.125, 0.5, step_size_up=2, step_size_down=3)
    assert (optimizer.get_last_lr()[0], optimizer.get_last_momentum()[0]) == schedule(at)


@pytest.mark.filterwarnings("ignore:3 steps in a row found no gradient")
def test_seek_continues_as_if_it_had_come_there() -> None:
    walked, jumped = ours(weight_decay=0.01), ours(weight_decay=0.01)
    for _ in range(17):
        walked.step()  # no gradients
    jumped.seek(17)
    go_on(walked, 6)
    go_on(jumped, 6)
    assert_same_training(walked, jumped)
    assert walked.state_dict()["param_groups"] == jumped.state_dict()["param_groups"]


@pytest.mark.parametrize(
    ("to", "error"), [(-1, ValueError), (LAST + 1, ValueError), (1.5, TypeError), ("3", TypeError), (True, TypeError)]
)
def test_seek_refuses(to: Any, error: type[Exception]) -> None:
    optimizer = ours()
    go_on(optimizer, 3)
    assert_refused(lambda: optimizer.seek(to), error, "step=", optimizer)


def test_a_seek_that_fails_moves_no_group() -> None:
    def five_steps(step: int) -> float:
        if step > 5:
            raise RuntimeError("only five steps")
        return 1.0

    settings: list[dict[str, Any]] = [{}, {"scale_fn": five_steps, "scale_mode": "iterations"}]
    optimizer, plain = (
        FusedCyclicSGD([{"params": parameters([2]), **s} for s in settings], 0.1, 0.5, step_size_up=3) for _ in range(2)
    )
    for each in (optimizer, plain):
        go_on(each, 2)
    assert_refused(lambda: optimizer.seek(7), RuntimeError, "only five steps", optimizer)
    assert_goes_on_alike(optimizer, plain, 2)
    assert optimizer.applied_steps == 4


def test_the_last_position_is_reached_and_no_step_goes_beyond_it() -> None:
    optimizer = ours()
    optimizer.seek(LAST - 1)
    go_on(optimizer)
    assert optimizer.applied_steps == LAST
    lr, momentum = CyclicSchedule(0.125, 0.5, step_size_up=2, step_size_down=3)(LAST)
    assert (optimizer.get_last_lr(), optimizer.get_last_momentum()) == ([lr], [momentum])
    go_on(optimizer)
    assert_refused(optimizer.step, ValueError, f"applied_steps={LAST + 1}", optimizer)
    optimizer.seek(5)
    go_on(optimizer)
    assert optimizer.applied_steps == 6
