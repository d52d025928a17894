"""A torch pair with OneCycleLR taken over with any options, its arguments found again, at its end and beyond."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from clr_native import FusedCyclicSGD, OneCycleSchedule
from helpers import assert_same_training, every_parameter, gradient_sets, parameters, train
from torch_pairs import LISTS, SGDS, SHAPES, STEPS, one_cycle_pair, run, standing


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
    pairs = [one_cycle_pair(SGDS["plain"], cycle) for _ in range(2)]
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
    pair = one_cycle_pair(SGDS["plain"], {"pct_start": 0.237, "div_factor": 7.3, "final_div_factor": 333.3})
    optimizer = FusedCyclicSGD.from_torch(*pair)
    for index, group in enumerate(optimizer.param_groups):
        own = {name: values[index] for name, values in LISTS.items()}
        expected = OneCycleSchedule(total_steps=STEPS, pct_start=0.237, div_factor=7.3, final_div_factor=333.3, **own)
        assert group["schedule"] == expected.to_dict()
        assert not group.keys() & {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "foreach"}
    assert optimizer.param_groups[1]["name"] == "late"


def test_after_its_end_the_last_value_is_held() -> None:
    """torch's scheduler counts to total_steps, with a rate that rises again, and raises after that."""
    sgd, scheduler = one_cycle_pair(SGDS["plain"], {})
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
