"""What torch's CyclicLR and OneCycleLR do to an optimizer and CyclicLR does not: each trap with the peer in it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from clr_native import CyclicLR, CyclicSchedule, OneCycleSchedule
from helpers import raised
from schedulers import advance, momenta, rates, sgd, values


def mended(what: str) -> None:
    pytest.skip(f"this torch has no such trap any more: {what}")


# Constructed after anything that set initial_lr, the first batch runs at that stale value.


def first_rate(kind: Any) -> float:
    optimizer = sgd()
    lr_scheduler.StepLR(optimizer, 3)
    kind(optimizer, 0.25, 0.5)
    assert optimizer.param_groups[0]["initial_lr"] == 7.0
    return rates(optimizer)[0]


def test_first_batch_is_at_base_lr_despite_a_stale_initial_lr() -> None:
    assert first_rate(CyclicLR) == 0.25


def test_others_find_the_optimizers_own_rate_in_initial_lr() -> None:
    optimizer = sgd()
    CyclicLR(optimizer, 0.25, 0.5)
    assert lr_scheduler.ConstantLR(optimizer, 0.5).base_lrs == [7.0]


def test_tensor_initial_lr_is_a_copy() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=torch.tensor(7.0), momentum=0.9)
    CyclicLR(optimizer, 0.25, 0.5)
    assert optimizer.param_groups[0]["initial_lr"].item() == 7.0


# Groups that got one lr tensor from the optimizer all run at the last one's rate.


def rates_of_a_shared_tensor(kind: Any) -> list[float]:
    optimizer = sgd(2, lr=torch.tensor(7.0))
    kind(optimizer, [0.25, 0.5], 1.0)
    return rates(optimizer)


def test_groups_that_share_a_tensor_are_refused_two_rates() -> None:
    with pytest.raises(ValueError, match="give each group a tensor of its own"):
        rates_of_a_shared_tensor(CyclicLR)


def test_torch_gives_all_groups_the_last_rate() -> None:
    if rates_of_a_shared_tensor(lr_scheduler.CyclicLR) == [0.25, 0.5]:
        mended("one lr tensor for all groups")
    assert rates_of_a_shared_tensor(lr_scheduler.CyclicLR) == [0.5, 0.5]


# add_param_group after construction: ValueError at the next step.


def step_after_adding(kind: Any) -> None:
    optimizer = sgd()
    scheduler = kind(optimizer, 0.25, 0.5)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))]})
    advance(scheduler, optimizer)


def test_a_group_added_after_construction_is_stepped() -> None:
    step_after_adding(CyclicLR)


def test_torch_refuses_the_step() -> None:
    if raised(lambda: step_after_adding(lr_scheduler.CyclicLR)) is None:
        mended("late groups join")


# load_state_dict eats a key of the caller's dict.


def load_twice(kind: Any) -> None:
    scheduler = kind(sgd(), 0.25, 0.5)
    state = scheduler.state_dict()
    scheduler.load_state_dict(state)
    scheduler.load_state_dict(state)


def test_a_state_loads_twice() -> None:
    load_twice(CyclicLR)


def test_torchs_second_load_is_a_key_error() -> None:
    if raised(lambda: load_twice(lr_scheduler.CyclicLR)) is None:
        mended("a state loads twice")


# triangular2 raises OverflowError at cycle 1025.


def rate_far_on(kind: Any) -> float:
    optimizer = sgd()
    scheduler = kind(optimizer, 0.25, 0.5, step_size_up=1, mode="triangular2")
    scheduler.last_epoch = 2 * 1100
    advance(scheduler, optimizer)
    return rates(optimizer)[0]


def test_triangular2_far_on_is_the_base_rate() -> None:
    assert rate_far_on(CyclicLR) == 0.25


def test_torch_overflows() -> None:
    error = raised(lambda: rate_far_on(lr_scheduler.CyclicLR))
    if error is None:
        mended("the scale underflows")
    assert isinstance(error, OverflowError)


# Peaks miss max_lr by ulps.


def missed_peaks(kind: Any) -> int:
    optimizer = sgd()
    scheduler = kind(optimizer, 0.1, 0.7, step_size_up=333, step_size_down=667)
    missed = 0
    for cycle in range(50):
        scheduler.last_epoch = cycle * 1000 + 332
        advance(scheduler, optimizer)
        missed += rates(optimizer) != [0.7]
    return missed


def test_peaks_are_max_lr() -> None:
    assert missed_peaks(CyclicLR) == 0


def test_torchs_peaks_are_not() -> None:
    if missed_peaks(lr_scheduler.CyclicLR) == 0:
        mended("peaks are exact")


# A builtin scale_fn crashes state_dict.


def state_with_builtin(kind: Any) -> None:
    kind(sgd(), 0.25, 0.5, scale_fn=(2.0).__rpow__).state_dict()


def test_a_builtin_scale_fn_can_be_saved_beside() -> None:
    state_with_builtin(CyclicLR)


def test_torch_crashes() -> None:
    if raised(lambda: state_with_builtin(lr_scheduler.CyclicLR)) is None:
        mended("builtins are left out")


# 'iterations' counts from the start, not within the cycle.


@pytest.mark.parametrize("kind", [CyclicLR, lr_scheduler.CyclicLR])
def test_scale_mode_iterations_counts_from_the_start(kind: Any) -> None:
    seen: list[int] = []

    def scale(iteration: int) -> float:
        seen.append(iteration)
        return 1.0

    optimizer = sgd()
    arguments = {"step_size_up": 1, "scale_fn": scale, "scale_mode": "iterations", "cycle_momentum": False}
    advance(kind(optimizer, 0.25, 0.5, **arguments), optimizer, 4)
    assert seen == [0, 1, 2, 3, 4]


# OneCycleLR rewrites others' initial_lr, is over with an error, and cannot be extended on resume.


def initial_lr_of_others(kind: Any) -> float:
    optimizer = sgd()
    lr_scheduler.StepLR(optimizer, 3)
    kind(optimizer)
    initial: float = optimizer.param_groups[0]["initial_lr"]
    return initial


def test_one_cycle_leaves_others_initial_lr_alone() -> None:
    assert initial_lr_of_others(lambda o: CyclicLR(o, schedule=OneCycleSchedule(0.5, 9))) == 7.0


def test_torchs_one_cycle_rewrites_it() -> None:
    if initial_lr_of_others(lambda o: lr_scheduler.OneCycleLR(o, 0.5, 9)) == 7.0:
        mended("initial_lr is kept")


@pytest.mark.parametrize("max_lrs", [[0.5], [0.5, 0.5], [0.5, 0.25, 0.125]])
def test_one_cycle_holds_after_its_end_with_one_warning(max_lrs: list[float]) -> None:
    schedules = [OneCycleSchedule(max_lr, 9) for max_lr in max_lrs]
    optimizer = sgd(len(schedules))
    scheduler = CyclicLR(optimizer, schedule=schedules)
    advance(scheduler, optimizer, 8)
    end = values(optimizer)
    assert end == [schedule(8) for schedule in schedules]
    optimizer.step()
    with pytest.warns(UserWarning, match="parameter group 0: last_epoch=9 is past the end of its schedule") as caught:
        scheduler.step()
    assert [warning.filename for warning in caught] == [__file__]
    advance(scheduler, optimizer, 3)  # without another one
    assert values(optimizer) == end


def test_a_warning_made_an_error_leaves_the_position() -> None:
    optimizer = sgd()
    scheduler = CyclicLR(optimizer, schedule=OneCycleSchedule(0.5, 2))
    advance(scheduler, optimizer)
    before = values(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="past the end"):
            scheduler.step()
    assert (scheduler.last_epoch, values(optimizer)) == (1, before)


def test_one_cycle_is_extended_on_resume() -> None:
    schedule = OneCycleSchedule(0.5, 9)
    optimizer = sgd()
    scheduler = CyclicLR(optimizer, schedule=schedule)
    advance(scheduler, optimizer, 8)
    resumed = sgd()
    other = CyclicLR(resumed, schedule=schedule)
    other.load_state_dict(scheduler.state_dict())
    longer = schedule.extended(20)
    other.schedules = longer
    for step in range(8, 20):
        assert values(resumed) == [longer(step)]
        advance(other, resumed) if step < 19 else None
    assert other.schedules == (longer,)


# SequentialLR with CyclicLR forces the momentum during the other's warm-up.


def momentum_during_warm_up(kind: Any) -> float:
    optimizer = sgd()
    schedulers = [lr_scheduler.ConstantLR(optimizer, 0.5, 9), kind(optimizer, 0.25, 0.75)]
    lr_scheduler.SequentialLR(optimizer, schedulers, [5])
    return momenta(optimizer)[0]


def test_momentum_during_anothers_warm_up_is_the_optimizers() -> None:
    assert momentum_during_warm_up(CyclicLR) == 0.5


def test_torch_forces_it() -> None:
    if momentum_during_warm_up(lr_scheduler.CyclicLR) == 0.5:
        mended("momentum is given back")


# Step sizes that are not whole, max below base and the like: test_cyclic_lr_groups.py, bad arguments.


def test_base_lrs_say_what_the_schedules_say() -> None:
    scheduler = CyclicLR(sgd(2), schedule=[CyclicSchedule(0.25, 1), OneCycleSchedule(1.0, 9)])
    assert scheduler.base_lrs == [0.25, 0.04]
    with pytest.raises(AttributeError, match="set schedules instead"):
        scheduler.base_lrs = [1.0]
