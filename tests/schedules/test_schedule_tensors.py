"""Tensors of one element in place of numbers: copied as plain floats and ints, wherever a schedule is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import CyclicLR, CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence
from schedulers import sgd, weights

ONE: dict[str, Callable[[Any], Tensor]] = {
    "float32": torch.tensor,
    "float64": lambda value: torch.tensor(value, dtype=torch.float64),
    "bfloat16": lambda value: torch.tensor(value, dtype=torch.bfloat16),
    "of one dimension": lambda value: torch.tensor([value]),
    "of three": lambda value: torch.tensor([[[value]]]),
    "a parameter": lambda value: torch.nn.Parameter(torch.tensor(float(value))),
    "part of a computation": lambda value: torch.tensor(float(value), requires_grad=True) * 1,
    "a view": lambda value: torch.tensor([9.0, value, 9.0])[1],
}
Maker = Callable[..., Any]
# A kind of schedule, arguments that may be tensors and others; binary fractions, which every dtype holds.
KINDS: dict[str, tuple[Maker, dict[str, Any], dict[str, Any]]] = {
    "cyclic": (
        CyclicSchedule,
        {"base_lr": 0.25, "max_lr": 0.5, "gamma": 0.5, "base_momentum": 0.25, "max_momentum": 0.75},
        {},
    ),
    "its sizes": (
        CyclicSchedule,
        {"step_size_up": 4, "step_size_down": 8, "decay_steps": 16},
        {"base_lr": 0.25, "max_lr": 0.5, "mode": "linear_range"},
    ),
    "one cycle": (
        OneCycleSchedule,
        {"max_lr": 0.5, "total_steps": 8, "pct_start": 0.25, "div_factor": 4, "final_div_factor": 64},
        {},
    ),
    "ramp": (RampSchedule, {"start_lr": 0.25, "end_lr": 0.5, "num_steps": 4, "momentum": 0.5}, {}),
    "sequence": (lambda n: ScheduleSequence([(RampSchedule(0.25, 0.5, 4), n)]), {"n": 4}, {}),
    "CyclicLR": (lambda **each: CyclicLR(sgd(2), **each).schedules, {"base_lr": 0.25, "max_lr": 0.5}, {}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("one", ONE)
def test_a_tensor_of_one_element_is_a_number(one: str, kind: str) -> None:
    make, numbers, others = KINDS[kind]
    tensors = {name: ONE[one](value) for name, value in numbers.items()}
    made = make(**tensors, **others)
    plain = make(**numbers, **others)
    assert repr(made) == repr(plain)  # floats and ints, no tensors
    for tensor in tensors.values():
        tensor.detach().fill_(1.0)
    assert repr(made) == repr(plain)
    assert made == plain


def test_lists_may_hold_them() -> None:
    bounds = [torch.tensor(0.25), 0.5], (torch.tensor([1.0]), torch.tensor(2))
    scheduler = CyclicLR(sgd(2), *bounds, step_size_up=[torch.tensor(4), 8])  # type: ignore[arg-type, list-item]
    assert scheduler.schedules == (CyclicSchedule(0.25, 1, step_size_up=4), CyclicSchedule(0.5, 2, step_size_up=8))
    assert scheduler.get_last_lr() == [0.25, 0.5]


def test_a_late_group_gets_the_numbers_of_the_beginning() -> None:
    base_lr, optimizer = torch.tensor(0.25), sgd()
    scheduler = CyclicLR(optimizer, base_lr, 0.5)  # type: ignore[arg-type]
    base_lr.fill_(0.125)
    optimizer.add_param_group({**weights(1)[0], "max_lr": 0.75})
    optimizer.add_param_group({**weights(1)[0], "max_lr": torch.tensor(1.0)})
    scheduler._update_lr()
    assert scheduler.schedules[1:] == (CyclicSchedule(0.25, 0.75), CyclicSchedule(0.25, 1.0))


def test_float32_is_taken_as_it_is() -> None:
    assert CyclicSchedule(torch.tensor(0.1), 1).base_lr == torch.tensor(0.1).item()  # type: ignore[arg-type]


NO_NUMBERS: dict[str, Any] = {
    "of several": torch.tensor([0.25, 0.5]),
    "empty": torch.tensor([]),
    "of bool": torch.tensor(True),
    "complex": torch.tensor(0.25 + 0j),
    "without memory": torch.empty((), device="meta"),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
@pytest.mark.parametrize("kind", KINDS)
def test_other_tensors_are_refused_by_name(kind: str, name: str) -> None:
    make, numbers, others = KINDS[kind]
    for argument in numbers:
        with pytest.raises(TypeError, match=rf"{argument}_?\w*=tensor\(.*must be a number"):
            make(**{**numbers, argument: NO_NUMBERS[name]}, **others)


@pytest.mark.parametrize("value", [2.5, 0, -1, float("nan"), 2**53])
def test_sizes_in_tensors_are_checked_as_others(value: float) -> None:
    with pytest.raises(ValueError, match=r"step_size_up=tensor\(.*must be a whole number of steps"):
        CyclicSchedule(1, 5, step_size_up=torch.tensor(value, dtype=torch.float64))  # type: ignore[arg-type]
