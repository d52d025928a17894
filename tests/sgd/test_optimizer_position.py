"""Where the schedule stands: counters, cycles, the next update's values, and moving there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clr_native import CyclicSchedule, FusedCyclicSGD
from helpers import assert_same_training, every_parameter, gradient_sets, parameters, picture, train

LAST = 2**63 - 2


def ours(**settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(parameters([20]), 0.125, 0.5, **{"step_size_up": 2, "step_size_down": 3} | settings)


def step(optimizer: FusedCyclicSGD, steps: int = 1) -> None:
    over = every_parameter(optimizer)
    train(optimizer, over, gradient_sets(over, 3), steps)


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
        step(optimizer)


def test_the_update_uses_the_values_that_stood_there() -> None:
    optimizer = ours(base_momentum=0.5, max_momentum=0.5)
    (weight,) = every_parameter(optimizer)
    for _ in range(6):
        before = weight.detach().clone()
        (lr,) = optimizer.get_last_lr()
        weight.grad = torch.ones(20)
        optimizer.state.clear()
        optimizer.step()
        assert torch.equal(weight, before.add(torch.ones(20), alpha=-lr))


@pytest.mark.filterwarnings("ignore:3 steps in a row found no gradient")
def test_a_step_without_any_gradient_is_a_step() -> None:
    """As in torch's loop, where scheduler.step() follows optimizer.step() whatever that found."""
    optimizer = ours()
    before = every_parameter(optimizer)[0].detach().clone()
    for _ in range(5):
        optimizer.step()
    assert optimizer.applied_steps == 5
    assert optimizer.at_cycle_end
    assert not optimizer.state
    assert torch.equal(every_parameter(optimizer)[0], before)


def test_cycle_and_its_end_speak_of_the_first_group() -> None:
    groups = [{"params": parameters([2]), "step_size_up": up} for up in (1, 2)]
    optimizer = FusedCyclicSGD(groups, 0.1, 0.5)
    step(optimizer, 2)
    assert optimizer.at_cycle_end
    assert optimizer.cycle == 1


@pytest.mark.parametrize("at", [0, 1, 7, 5_000_000_001, LAST])
def test_seek(at: int) -> None:
    """Values are those of the schedule there; weights, buffers and version counters stay."""
    optimizer = ours()
    step(optimizer, 3)
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
    step(walked, 6)
    step(jumped, 6)
    assert_same_training(walked, jumped)
    assert walked.state_dict()["param_groups"] == jumped.state_dict()["param_groups"]


def test_seek_moves_all_groups() -> None:
    groups = [{"params": parameters([2]), "step_size_up": up} for up in (1, 2)]
    optimizer = FusedCyclicSGD(groups, 0.25, 0.5)
    optimizer.seek(1)
    assert [group["applied_steps"] for group in optimizer.param_groups] == [1, 1]
    assert optimizer.get_last_lr() == [0.5, 0.375]


@pytest.mark.parametrize(
    ("to", "error"), [(-1, ValueError), (LAST + 1, ValueError), (1.5, TypeError), ("3", TypeError), (True, TypeError)]
)
def test_seek_refuses(to: Any, error: type[Exception]) -> None:
    optimizer = ours()
    step(optimizer, 3)
    before = picture(optimizer)
    with pytest.raises(error, match=r"step="):
        optimizer.seek(to)
    assert picture(optimizer) == before


def test_a_seek_that_fails_moves_no_group() -> None:
    def five_steps(step: int) -> float:
        if step > 5:
            raise RuntimeError("only five steps")
        return 1.0

    settings: list[dict[str, Any]] = [{}, {"scale_fn": five_steps, "scale_mode": "iterations"}]
    optimizer, plain = (
        FusedCyclicSGD([{"params": parameters([2]), **s} for s in settings], 0.1, 0.5, step_size_up=3) for _ in range(2)
    )
    step(optimizer, 2)
    step(plain, 2)
    before = picture(optimizer)
    with pytest.raises(RuntimeError, match="only five steps"):
        optimizer.seek(7)
    assert picture(optimizer)["groups"] == before["groups"]
    step(optimizer, 2)
    step(plain, 2)
    assert_same_training(optimizer, plain)
    assert optimizer.applied_steps == 4


def test_the_last_position_is_reached() -> None:
    optimizer = ours()
    optimizer.seek(LAST - 1)
    step(optimizer)
    assert optimizer.applied_steps == LAST
    lr, momentum = CyclicSchedule(0.125, 0.5, step_size_up=2, step_size_down=3)(LAST)
    assert (optimizer.get_last_lr(), optimizer.get_last_momentum()) == ([lr], [momentum])


def test_no_step_goes_beyond_the_last_position() -> None:
    optimizer = ours()
    optimizer.seek(LAST)
    step(optimizer)
    before = picture(optimizer)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"applied_steps={LAST + 1}"):
            optimizer.step()
        assert picture(optimizer) == before
    optimizer.seek(5)
    step(optimizer)
    assert optimizer.applied_steps == 6
