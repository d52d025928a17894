"""A torch pair with OneCycleLR taken over in mid run, and given back: training goes on as it would have, to the end."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from clr_native import FusedCyclicSGD, OneCycleSchedule
from helpers import assert_same_training, every_parameter, gradient_sets, parameters, train
from one_cycle_pairs import LISTS, SGDS, SHAPES, STEPS, assert_within_torchs_rounding, run, standing, torch_pair

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


def assert_goes_on(ours: Any, theirs: Any) -> None:
    """Equal in float32; in float64 within the rounding of torch's own schedule."""
    if every_parameter(ours)[0].dtype == torch.float32:
        assert_same_training(ours, theirs)
        return
    for p, q in zip(every_parameter(ours), every_parameter(theirs), strict=True):
        torch.testing.assert_close(p, q, rtol=0.0, atol=1e-13)


CASES = pytest.mark.parametrize(
    ("cycle", "sgd", "dtype"),
    [*itertools.product(CYCLES, SGDS, [torch.float32]), ("cos", "nesterov", torch.float64)],
)


@CASES
@pytest.mark.parametrize("before", [0, 1, 23, STEPS - 1])
def test_a_pair_taken_over_goes_on_as_it_would_have(cycle: str, sgd: str, dtype: torch.dtype, before: int) -> None:
    theirs, scheduler = torch_pair(SGDS[sgd], CYCLES[cycle], dtype)
    expected = run(theirs, range(STEPS), scheduler)
    pair = torch_pair(SGDS[sgd], CYCLES[cycle], dtype)
    run(pair[0], range(before), pair[1])
    ours = FusedCyclicSGD.from_torch(*pair)
    assert ours.applied_steps == before
    assert_within_torchs_rounding(run(ours, range(before, STEPS)), expected[before:])
    assert_goes_on(ours, theirs)


@CASES
@pytest.mark.parametrize("before", [0, 1, 23, STEPS - 1])
def test_a_pair_given_back_goes_on_as_we_would_have(cycle: str, sgd: str, dtype: torch.dtype, before: int) -> None:
    ours, other = (FusedCyclicSGD.from_torch(*torch_pair(SGDS[sgd], CYCLES[cycle], dtype)) for _ in range(2))
    expected = run(ours, range(STEPS))
    run(other, range(before))
    theirs, scheduler = other.to_torch()
    assert (type(theirs), type(scheduler), scheduler.last_epoch) == (SGD, OneCycleLR, before)
    again = FusedCyclicSGD.from_torch(theirs, scheduler)
    assert [group["schedule"] for group in again.param_groups] == [group["schedule"] for group in ours.param_groups]
    assert_within_torchs_rounding(run(theirs, range(before, STEPS), scheduler), expected[before:])
    assert_goes_on(ours, theirs)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    total=st.integers(2, 40),
    place=st.fractions(0, 1),
    rates=st.tuples(st.floats(1e-4, 10), st.floats(1, 1e3), st.floats(1, 1e6)),
    momenta=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    share=st.floats(0, 1),
    strategy=st.sampled_from(("cos", "linear")),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_any_options(
    total: int,
    place: Any,
    rates: tuple[float, float, float],
    momenta: tuple[float, float],
    share: float,
    strategy: str,
    flags: tuple[bool, bool],
) -> None:
    assume(abs(share * total - 1) > 1e-9)  # torch divides by zero, or by its own rounding
    assume(abs(share * total - total) > 1e-9 or share == 1.0)
    cycle = {"total_steps": total, "pct_start": share, "anneal_strategy": strategy, "three_phase": flags[0]}
    cycle |= {"max_lr": rates[0], "div_factor": rates[1], "final_div_factor": rates[2], "cycle_momentum": flags[1]}
    cycle |= {"base_momentum": min(momenta), "max_momentum": max(momenta)}
    pairs = [torch_pair(SGDS["plain"], cycle) for _ in range(2)]
    before = int(place * (total - 1))
    expected = run(pairs[0][0], range(total), pairs[0][1])
    run(pairs[1][0], range(before), pairs[1][1])
    ours = FusedCyclicSGD.from_torch(*pairs[1])
    found = run(ours, range(before, total))
    for own, other in zip(found, expected[before:], strict=True):
        assert (np.abs(own - other) <= 2**-51 * np.array([rates[0], 1])).all()
    if np.array_equal(np.array(found, np.float32), np.array(expected[before:], np.float32)):
        assert_same_training(ours, pairs[0][0])


def test_the_arguments_are_found_again() -> None:
    """torch keeps what they come to: rates in the groups, ends of phases in the scheduler."""
    pair = torch_pair(SGDS["plain"], {"pct_start": 0.237, "div_factor": 7.3, "final_div_factor": 333.3})
    optimizer = FusedCyclicSGD.from_torch(*pair)
    for index, group in enumerate(optimizer.param_groups):
        own = {name: values[index] for name, values in LISTS.items()}
        expected = OneCycleSchedule(total_steps=STEPS, pct_start=0.237, div_factor=7.3, final_div_factor=333.3, **own)
        assert group["schedule"] == expected.to_dict()
        assert not group.keys() & {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "foreach"}
    assert optimizer.param_groups[1]["name"] == "late"


def test_after_its_end_the_last_value_is_held() -> None:
    """torch's scheduler counts to total_steps, with a rate that rises again, and raises after that."""
    sgd, scheduler = torch_pair(SGDS["plain"], {})
    run(sgd, range(STEPS), scheduler)
    last = standing(sgd)
    scheduler.step()
    optimizer = FusedCyclicSGD.from_torch(sgd, scheduler)
    assert optimizer.applied_steps == STEPS
    assert (standing(optimizer) == last).all()
    with pytest.warns(UserWarning, match="applied_steps=60 is past the end of its schedule"):
        run(optimizer, range(STEPS, STEPS + 3))
    assert (standing(optimizer) == last).all()


@pytest.mark.parametrize("kind", [CyclicLR, OneCycleLR])
def test_the_position_is_that_of_the_values_in_the_groups(kind: Any) -> None:
    """Before scheduler.step() too, where torch's next update would take the same values once more."""
    optimizers: list[Any] = []
    for is_taken in (False, True):
        sgd = SGD(parameters(SHAPES), lr=1.0, momentum=0.9, foreach=False)
        scheduler = kind(sgd, 0.1, **({"max_lr": 0.3} if kind is CyclicLR else {"total_steps": 20}))
        sets = gradient_sets(every_parameter(sgd))
        optimizer: Any = sgd
        for step in range(12):
            if is_taken and step == 5:
                optimizer = FusedCyclicSGD.from_torch(sgd, scheduler)
                assert optimizer.applied_steps == 4
            train(optimizer, every_parameter(sgd), sets, 1, step)
            if optimizer is sgd and step != 4:
                scheduler.step()
        optimizers.append(optimizer)
    assert_same_training(*optimizers)
