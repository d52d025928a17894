"""at_cycle_end and register_cycle_end_hook: once at the end of each cycle, after its last update."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clr_native import CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.schedules import Schedule
from helpers import bits, every_parameter, give, gradient_of, gradient_sets, parameters, raised

UP, DOWN = 2, 1
CYCLE = UP + DOWN


def made(**settings: Any) -> FusedCyclicSGD:
    over = parameters([5, 7])
    groups: list[dict[str, Any]] = [{"params": over[:1]}, {"params": over[1:], "step_size_up": 4}]
    return with_gradients(FusedCyclicSGD(groups, 0.1, 0.5, step_size_up=UP, step_size_down=DOWN, **settings))


def step(optimizer: FusedCyclicSGD, times: int = CYCLE) -> None:
    for _ in range(times):
        optimizer.step()


def with_gradients(optimizer: FusedCyclicSGD) -> FusedCyclicSGD:
    over = every_parameter(optimizer)
    give(over, gradient_sets(over, 1)[0])
    return optimizer


class Ends(list[int]):
    """The positions at which a hook was called."""

    def __call__(self, optimizer: FusedCyclicSGD) -> None:
        self.append(optimizer.applied_steps)


def hooked(**settings: Any) -> tuple[FusedCyclicSGD, Ends]:
    optimizer, ends = made(**settings), Ends()
    optimizer.register_cycle_end_hook(ends)
    return optimizer, ends


# --- when ---------------------------------------------------------------------------------------------------


def test_once_at_the_end_of_each_cycle_of_the_first_group() -> None:
    optimizer, ends, seen = made(), Ends(), []
    optimizer.register_cycle_end_hook(ends)
    assert not optimizer.at_cycle_end
    for step in range(1, 3 * CYCLE + 2):
        optimizer.step()
        assert optimizer.at_cycle_end is (step % CYCLE == 0)
        seen.append(len(ends))
    assert seen == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert ends == [3, 6, 9]


@pytest.mark.filterwarnings("ignore:.*past the end of its schedule")
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (OneCycleSchedule(0.3, 5), [5]),
        (OneCycleSchedule(0.3, 5, convention="fastai"), [5]),
        (RampSchedule(0.1, 0.3, 4), []),
        (ScheduleSequence([(RampSchedule(0.1, 0.3, 2), 2), (CyclicSchedule(0.1, 0.3, step_size_up=1), 4)]), [4, 6]),
        (ScheduleSequence([(CyclicSchedule(0.1, 0.3, step_size_up=2), 6), (OneCycleSchedule(0.3, 3), None)]), [4, 9]),
    ],
    ids=lambda each: type(each).__name__,
)
def test_every_kind_of_schedule(schedule: Schedule, expected: list[int]) -> None:
    optimizer, ends = with_gradients(FusedCyclicSGD(parameters([5]), schedule=schedule)), Ends()
    optimizer.register_cycle_end_hook(ends)
    for _ in range(12):
        optimizer.step()
    assert ends == expected


@pytest.mark.parametrize("hooked", [False, True])
def test_after_the_update_and_its_average_and_before_step_returns(hooked: bool) -> None:
    """A step post hook of torch's makes step() go another way."""
    optimizer, twin = made(average="swa"), made(average="swa")
    found: list[tuple[list[bytes], int, list[float]]] = []
    losses: list[Any] = []

    def look(each: FusedCyclicSGD) -> None:
        assert each is optimizer
        assert each.at_cycle_end
        assert not losses[CYCLE - 1 :]
        found.append(([bits(p) for p in every_parameter(each)], each.param_groups[0]["n_averaged"], each.get_last_lr()))

    optimizer.register_cycle_end_hook(look)
    if hooked:
        optimizer.register_step_post_hook(lambda *_: None)
    for step in range(CYCLE):
        loss = 0.5 + step
        losses.append(optimizer.step(lambda: loss))  # noqa: B023  # called at once
        twin.step()
    assert found == [([bits(p) for p in every_parameter(twin)], 1, twin.get_last_lr())]
    assert losses == [0.5, 1.5, 2.5]


def test_the_gradient_of_a_closure_makes_the_last_update() -> None:
    (weight,) = parameters([5])
    optimizer, ends = FusedCyclicSGD([weight], 0.01, 0.05, step_size_up=1), Ends()
    optimizer.register_cycle_end_hook(ends)

    def closure() -> float:
        assert len(ends) == optimizer.applied_steps // 2
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        return float(loss.detach())

    values = [optimizer.step(closure) for _ in range(4)]
    assert values == sorted(values, reverse=True)
    assert ends == [2, 4]


@pytest.mark.parametrize("advance_on_skip", [False, True])
def test_a_skipped_step_ends_no_cycle(advance_on_skip: bool) -> None:
    optimizer, ends = hooked(skip_nonfinite=True, advance_on_skip=advance_on_skip, average="swa")
    for step in range(2 * CYCLE + 1):
        gradient_of(every_parameter(optimizer)[0])[0] = float("nan") if step == CYCLE - 1 else 0.5
        optimizer.step()
        assert optimizer.last_step_skipped is (step == CYCLE - 1)
    assert ends == ([6] if advance_on_skip else [3, 6])
    assert optimizer.param_groups[0]["n_averaged"] == len(ends)


def test_an_update_by_hand_ends_no_cycle() -> None:
    """Nor does one of which only the first group's momentum was set; another group's does not matter."""
    optimizer, ends = hooked()
    for group, name in ((0, "lr"), (0, "momentum"), (1, "lr")):
        while optimizer.applied_steps % CYCLE != CYCLE - 1:
            optimizer.step()
        before = len(ends)
        optimizer.param_groups[group][name] = 0.125
        optimizer.step()
        assert len(ends) == before + group
        assert optimizer.at_cycle_end is (group == 1)
        if group == 0:
            optimizer.step()
            assert len(ends) == before + 1
    assert ends == [3, 6, 9]


def test_a_step_that_is_refused_ends_no_cycle() -> None:
    optimizer, ends = hooked(max_grad_norm=1.0, error_if_nonfinite=True)
    optimizer.step()
    optimizer.step()
    gradient_of(every_parameter(optimizer)[0])[0] = float("inf")
    assert isinstance(raised(optimizer.step), RuntimeError)
    assert ends == []
    gradient_of(every_parameter(optimizer)[0])[0] = 0.5
    optimizer.step()
    assert ends == [3]


def test_seek_ends_no_cycle_by_itself() -> None:
    optimizer, ends = hooked()
    optimizer.seek(CYCLE)
    optimizer.seek(2 * CYCLE - 1)
    assert ends == []
    optimizer.step()
    assert ends == [6]


# --- hooks --------------------------------------------------------------------------------------------------


def test_several_hooks_in_order_until_each_is_removed() -> None:
    optimizer = made()
    calls: list[str] = []

    def noting(name: str) -> Callable[[FusedCyclicSGD], None]:
        return lambda _: calls.append(name)

    handles = [optimizer.register_cycle_end_hook(noting(name)) for name in "abc"]
    for handle in (handles[1], handles[0], handles[2]):
        step(optimizer)
        calls.append("|")
        handle.remove()
        handle.remove()
    step(optimizer)
    assert "".join(calls) == "abc|ac|c|"


def test_a_handle_is_a_context() -> None:
    optimizer, ends = made(), Ends()
    with optimizer.register_cycle_end_hook(ends):
        step(optimizer)
    step(optimizer)
    assert ends == [3]


def test_a_hook_may_add_and_remove_hooks() -> None:
    """From the next cycle on. Hooks after it are called in this one."""
    optimizer, later, ends = made(), Ends(), Ends()
    calls: list[int] = []

    def once(each: FusedCyclicSGD) -> None:
        calls.append(each.applied_steps)
        each.register_cycle_end_hook(later)
        handle.remove()

    handle = optimizer.register_cycle_end_hook(once)
    optimizer.register_cycle_end_hook(ends)
    step(optimizer, 3 * CYCLE)
    assert (calls, later, ends) == ([3], [6, 9], [3, 6, 9])


def test_an_error_in_a_hook_comes_out_of_step_and_the_update_stands() -> None:
    """Hooks after it are not called; the next cycle is as if nothing had been."""
    optimizer, twin, ends = made(), made(), Ends()

    def fail(each: FusedCyclicSGD) -> None:
        if each.applied_steps == CYCLE:
            raise KeyError("stop")

    optimizer.register_cycle_end_hook(fail)
    optimizer.register_cycle_end_hook(ends)
    for step in range(2 * CYCLE):
        twin.step()
        error = raised(optimizer.step)
        assert type(error) is (KeyError if step == CYCLE - 1 else type(None))
        assert [bits(p) for p in every_parameter(optimizer)] == [bits(p) for p in every_parameter(twin)]
        assert optimizer.get_last_lr() == twin.get_last_lr()
    assert ends == [6]


def test_a_hook_may_use_the_optimizer() -> None:
    """What snapshots need: state, averages, seek."""
    optimizer = made(ema_decay=0.5)
    snapshots: list[dict[str, Any]] = []
    averages: list[list[bytes]] = []

    def snapshot(each: FusedCyclicSGD) -> None:
        snapshots.append(copy.deepcopy(each.state_dict()))
        with each.averaged_weights():
            averages.append([bits(p) for p in every_parameter(each)])
        if len(snapshots) == 2:
            each.seek(0)

    optimizer.register_cycle_end_hook(snapshot)
    step(optimizer, 2 * CYCLE + 1)
    assert [saved["param_groups"][0]["applied_steps"] for saved in snapshots] == [3, 6]
    assert averages[0] == [bits(snapshots[0]["state"][i]["average"]) for i in range(2)]
    assert optimizer.applied_steps == 1


def test_copies_have_no_hooks() -> None:
    optimizer, ends = hooked()
    twin = with_gradients(copy.deepcopy(optimizer))
    step(twin)
    assert twin.at_cycle_end
    assert ends == []
    step(optimizer)
    assert ends == [3]


@pytest.mark.parametrize("hook", [None, 3, "hook", torch.ones(1)])
def test_what_cannot_be_called_is_refused(hook: Any) -> None:
    with pytest.raises(TypeError, match=r"hook=.* must be callable with the optimizer"):
        made().register_cycle_end_hook(hook)
