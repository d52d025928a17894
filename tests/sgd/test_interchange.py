"""A torch pair taken over in mid run, and given back: training goes on as it would have."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CyclicLR, ExponentialLR

from clr_native import CyclicSchedule, FusedCyclicSGD, RampSchedule
from helpers import assert_refused, assert_same_training, every_parameter
from torch_pairs import SGDS, STEPS, assert_within_torchs_rounding, cyclic_pair, one_cycle_pair, run

MODES: dict[str, dict[str, Any]] = {
    "triangular": {"step_size_up": 7},
    "triangular2": {"step_size_up": 5, "step_size_down": 11, "mode": "triangular2"},
    "exp_range": {"step_size_up": 9, "mode": "exp_range", "gamma": 0.995},
    "scale_fn": {"step_size_up": 4, "scale_fn": lambda x: 1 / (1 + x), "scale_mode": "iterations"},
    "no momentum cycle": {"step_size_up": 6, "cycle_momentum": False},
}

CYCLES: dict[str, dict[str, Any]] = {
    "cos": {},
    "linear": {"anneal_strategy": "linear"},
    "three phases": {"three_phase": True, "pct_start": 0.4},
    "three linear phases": {"three_phase": True, "anneal_strategy": "linear", "pct_start": 1 / 7},
    "a peak between steps": {"pct_start": 0.237},
    "all in rising": {"pct_start": 1.0},
    "no rise": {"pct_start": 0.0},
    "factors": {"div_factor": 7.3, "final_div_factor": 333.0},
    "one rate at the end": {"final_div_factor": 1, "div_factor": 1.0},
    "no momentum cycle": {"cycle_momentum": False},
    "one momentum": {"base_momentum": 0.9, "max_momentum": 0.9},
    "by epochs": {"total_steps": None, "epochs": 6, "steps_per_epoch": 10},
}

NOT_WHOLE: Any = 2.5


KINDS: dict[str, Callable[..., Any]] = {
    **{f"CyclicLR, {name}": partial(cyclic_pair, cycle=cycle) for name, cycle in MODES.items()},
    **{f"OneCycleLR, {name}": partial(one_cycle_pair, cycle=cycle) for name, cycle in CYCLES.items()},
}


def assert_same(ours: Any, theirs: Any, kind: str) -> None:
    """Equal in float32; in float64 within the rounding of torch's own schedule."""
    if every_parameter(ours)[0].dtype == torch.float32:
        assert_same_training(ours, theirs)
        return
    for p, q in zip(every_parameter(ours), every_parameter(theirs), strict=True):
        for a, b in ((p, q), (ours.state[p]["momentum_buffer"], theirs.state[q]["momentum_buffer"])):
            limit = 1e-13 if kind.startswith("One") else 1e-12 * float(b.detach().abs().max())
            torch.testing.assert_close(a, b, rtol=0.0, atol=limit)


CASES = pytest.mark.parametrize(
    ("kind", "sgd", "dtype"),
    [
        *itertools.product(KINDS, SGDS, [torch.float32]),
        *((kind, sgd, torch.float64) for kind in KINDS for sgd in SGDS if kind.startswith("Cyclic")),
        ("OneCycleLR, cos", "nesterov", torch.float64),
    ],
)


@CASES
@pytest.mark.parametrize("before", [0, 1, 23, STEPS - 1])
def test_a_pair_taken_over_goes_on_as_it_would_have(kind: str, sgd: str, dtype: torch.dtype, before: int) -> None:
    theirs, scheduler = KINDS[kind](SGDS[sgd], dtype=dtype)
    expected = run(theirs, range(STEPS), scheduler)
    pair = KINDS[kind](SGDS[sgd], dtype=dtype)
    run(pair[0], range(before), pair[1])
    ours = FusedCyclicSGD.from_torch(*pair)
    assert ours.applied_steps == before
    found = run(ours, range(before, STEPS))
    if kind.startswith("One"):
        assert_within_torchs_rounding(found, expected[before:])
    assert_same(ours, theirs, kind)


@CASES
@pytest.mark.parametrize("before", [0, 1, 23, STEPS - 1])
def test_a_pair_given_back_goes_on_as_we_would_have(kind: str, sgd: str, dtype: torch.dtype, before: int) -> None:
    ours, other = (FusedCyclicSGD.from_torch(*KINDS[kind](SGDS[sgd], dtype=dtype)) for _ in range(2))
    expected = run(ours, range(STEPS))
    run(other, range(before))
    theirs, scheduler = other.to_torch()
    assert (type(theirs), type(scheduler).__name__) == (torch.optim.SGD, kind.split(",")[0])
    assert scheduler.last_epoch == before
    again = FusedCyclicSGD.from_torch(theirs, scheduler)
    if kind.startswith("One"):
        assert [group["schedule"] for group in again.param_groups] == [group["schedule"] for group in ours.param_groups]
    found = run(theirs, range(before, STEPS), scheduler)
    if kind.startswith("One"):
        assert_within_torchs_rounding(found, expected[before:])
    assert_same(theirs, ours, kind)


def test_settings_keys_and_buffers_are_taken_over() -> None:
    sgd, scheduler = cyclic_pair(SGDS["nesterov"], MODES["triangular"])
    run(sgd, range(6), scheduler)
    over = every_parameter(sgd)
    before = [sgd.state[p]["momentum_buffer"] for p in over]
    optimizer = FusedCyclicSGD.from_torch(sgd, scheduler)
    assert all(optimizer.state[p]["momentum_buffer"] is b for p, b in zip(over, before, strict=True))
    assert optimizer.param_groups[1]["name"] == "late"
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.1]
    assert "foreach" not in optimizer.param_groups[0]
    expected = CyclicSchedule(0.01, 0.1, step_size_up=7, base_momentum=0.7, max_momentum=0.9)
    assert optimizer.param_groups[0]["schedule"] == expected.to_dict()
    back, _ = optimizer.to_torch()
    assert back.param_groups[1]["name"] == "late"
    assert all(back.state[p]["momentum_buffer"] is b for p, b in zip(over, before, strict=True))


def test_a_pair_with_whole_floats_for_sizes_is_taken() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    sgd = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    scheduler = CyclicLR(sgd, 0.1, 0.5, step_size_up=3.0)  # type: ignore[arg-type]  # what users of epochs write
    assert FusedCyclicSGD.from_torch(sgd, scheduler).param_groups[0]["schedule"]["step_size_up"] == 3


def test_a_pair_with_a_rate_in_a_tensor_is_taken() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    sgd = torch.optim.SGD([weight], lr=torch.tensor(1.0), momentum=0.9, foreach=False)
    scheduler = CyclicLR(sgd, 0.1, 0.5, step_size_up=3)
    sgd.step()
    scheduler.step()
    assert FusedCyclicSGD.from_torch(sgd, scheduler).get_last_lr() == [scheduler.base_lrs[0] + 0.4 / 3]


class Halved(CyclicLR):
    def get_lr(self) -> list[float | Tensor]:
        return [0.5 * lr for lr in super().get_lr()]


def altered(name: str, value: float) -> Callable[..., Any]:
    def make(sgd: torch.optim.SGD, cyclic: CyclicLR) -> Any:
        sgd.param_groups[1][name] = value
        return sgd, cyclic

    return make


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda sgd, cyclic: (torch.optim.Adam(sgd.param_groups[0]["params"]), cyclic), TypeError, "type=Adam"),
        (lambda sgd, cyclic: (sgd, ExponentialLR(sgd, 0.9)), TypeError, "type=ExponentialLR"),
        (lambda sgd, cyclic: (copy.deepcopy(sgd), cyclic), ValueError, "another optimizer"),
        (
            lambda sgd, cyclic: (sgd, CyclicLR(sgd, 0.1, 0.2, step_size_up=NOT_WHOLE)),
            ValueError,
            "whole numbers of steps",
        ),
        (lambda sgd, cyclic: (sgd, CyclicLR(sgd, 0.2, 0.1)), ValueError, "base_lr=0.2 must not be above max_lr=0.1"),
        (altered("lr", 0.05), ValueError, r"parameter group 1: lr=0\.05 is not the scheduler's value at last_epoch=0"),
        (altered("momentum", 0.8), ValueError, r"parameter group 1: momentum=0\.8 is not the scheduler's value"),
        (lambda sgd, cyclic: (sgd, Halved(sgd, 0.1, 0.5)), TypeError, r"type=Halved has a get_lr\(\) of its own"),
    ],
)
def test_what_cannot_be_taken_over(make: Callable[..., Any], error: type[Exception], message: str) -> None:
    pair = make(*cyclic_pair(SGDS["plain"], MODES["triangular"]))
    assert_refused(lambda: FusedCyclicSGD.from_torch(*pair), error, message, pair[0])


@pytest.mark.parametrize(
    "schedule",
    [
        CyclicSchedule(0.1, 0.5, window="hann"),
        CyclicSchedule(0.1, 0.5, mode="linear_range", decay_steps=9),
        CyclicSchedule(0.1, 0.5, mode="exp_range", gamma=0.9, decay_base=True),
        RampSchedule(0.1, 0.5, 9, momentum=0.9),
    ],
    ids=repr,
)
def test_schedules_that_torch_does_not_have(schedule: Any) -> None:
    optimizer = FusedCyclicSGD([torch.nn.Parameter(torch.ones(2))], schedule=schedule)
    with pytest.raises(ValueError, match="schedule="):
        optimizer.to_torch()


def test_groups_that_differ_in_sizes_or_position_cannot_be_given_back() -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    sizes = [{"params": [weight], "step_size_up": up} for weight, up in zip(weights, (3, 4), strict=True)]
    with pytest.raises(ValueError, match="same sizes"):
        FusedCyclicSGD(sizes, base_lr=0.1, max_lr=0.2).to_torch()
    places = [{"params": [weight], "applied_steps": n} for weight, n in zip(weights, (3, 4), strict=True)]
    with pytest.raises(ValueError, match=r"applied_steps=\[3, 4\]"):
        FusedCyclicSGD(places, base_lr=0.1, max_lr=0.2).to_torch()


@pytest.mark.parametrize("values", [{"lr": 0.3}, {"momentum": 0.2}], ids=str)
def test_a_value_set_by_hand_cannot_be_given_back(values: dict[str, float]) -> None:
    """Our schedule stands still in an update whose values are set by hand, and torch's would go on."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(2)]
    optimizer = FusedCyclicSGD(groups, base_lr=0.1, max_lr=0.5, step_size_up=4)
    ((name, value),) = values.items()
    scheduled = optimizer.param_groups[1][name]
    optimizer.param_groups[1][name] = value
    with pytest.raises(ValueError, match=f"parameter group 1: {name}={value} is set by hand.*put {scheduled} there"):
        optimizer.to_torch()
    optimizer.param_groups[1][name] = scheduled
    assert optimizer.to_torch()[0].param_groups[1][name] == scheduled
