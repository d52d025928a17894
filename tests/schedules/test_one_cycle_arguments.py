"""The arguments of OneCycleSchedule: a length by epochs, and what is refused."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest

from clr_native import OneCycleSchedule
from clr_native.schedules import from_dict
from refusals import Row, refusals

ONE = OneCycleSchedule(0.3, 40)

# --- the length of OneCycleSchedule by epochs -----------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"epochs": 4, "steps_per_epoch": 10},
        {"epochs": 4.0, "steps_per_epoch": np.int64(10)},
        {"total_steps": 40, "epochs": 8, "steps_per_epoch": 5},
    ],
)
def test_epochs_times_steps_per_epoch_is_the_same_schedule(arguments: dict[str, Any]) -> None:
    schedule = OneCycleSchedule(0.3, **arguments)
    assert (schedule, repr(schedule), schedule.to_dict()) == (ONE, repr(ONE), ONE.to_dict())
    assert pickle.dumps(schedule) == pickle.dumps(ONE)
    assert dataclasses.replace(schedule, total_steps=41) == OneCycleSchedule(0.3, 41)
    assert schedule.extended(41).total_steps == 41
    assert from_dict({"kind": "one_cycle", "max_lr": 0.3, **arguments}) == ONE


# --- what OneCycleSchedule refuses ----------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
NOT_NUMBERS = [True, "0.1", 1j, [0.1], np.array([0.1, 0.2])]
NUMBERS = ("max_lr", "total_steps", "pct_start", "div_factor", "final_div_factor", "base_momentum")

REFUSED: list[Row] = [
    *refusals(NUMBERS, [], NOT_NUMBERS),
    *refusals(("max_lr", "total_steps", "div_factor"), [], [None]),
    *refusals("max_lr", [NAN, INF, -0.1, 1e-271, 1e271], []),
    ({"max_lr": 10**400}, ValueError, "must be within the range of a float"),
    *refusals("total_steps", [0, -5, 2.5, NAN, INF, 2**53, 10**400], []),
    *refusals("epochs", [0, -5, 2.5], [True, "4"], total_steps=None, steps_per_epoch=10),
    *refusals("steps_per_epoch", [0, -5, 2.5], [True, "4"], total_steps=None, epochs=4),
    ({"total_steps": None}, TypeError, "total_steps=None must be given, or epochs and steps_per_epoch"),
    *(
        ({"total_steps": total, given: 4}, ValueError, f"{missing}=None must be given with {given}=4")
        for total in (None, 40)
        for given, missing in (("epochs", "steps_per_epoch"), ("steps_per_epoch", "epochs"))
    ),
    (
        {"epochs": 4, "steps_per_epoch": 11},
        ValueError,
        "total_steps=40 must be epochs * steps_per_epoch, 4 * 11 = 44, where these are given: leave one of them out",
    ),
    ({"total_steps": None, "epochs": 2**27, "steps_per_epoch": 2**26}, ValueError, f"total_steps={2**53} must be"),
    *refusals("pct_start", [-0.1, 1.1, NAN, INF, 30.0], []),
    *(
        ({"div_factor": value}, ValueError, f"div_factor={value!r} must be finite and at least 1")
        for value in (0.0, -1.0, 0.99, NAN, INF)
    ),
    *(
        ({"final_div_factor": value}, ValueError, f"final_div_factor={float(value)!r} must be finite, above 0")
        for value in (0, -1.0, NAN, INF, 1e-3, 5e-324)
    ),
    ({"final_div_factor": 0.9, "three_phase": True}, ValueError, "final_div_factor=0.9 must be"),
    ({"final_div_factor": 24.0, "three_phase": True, "convention": "fastai"}, ValueError, "final_div_factor=24.0"),
    ({"div_factor": 1e200, "max_lr": 1e-100}, ValueError, "max_lr / div_factor=1e-300 must be"),
    ({"final_div_factor": 1e290}, ValueError, "final_lr="),
    *refusals(("base_momentum", "max_momentum"), [NAN, INF, -0.1, 1.5, 1e-300], []),
    ({"base_momentum": 0.97}, ValueError, "base_momentum=0.97 must not be above max_momentum=0.95"),
    *(
        ({"convention": value}, ValueError, f"convention={value!r} must be one of 'torch', 'fastai'")
        for value in ("keras", None, True, ["torch"])
    ),
    *(
        ({"anneal_strategy": value}, ValueError, f"anneal_strategy={value!r} must be one of 'cos', 'linear'")
        for value in ("cosine", None, 0, b"cos")
    ),
    *(
        ({name: value}, TypeError, f"{name}={value!r} must be True or False")
        for name in ("three_phase", "cycle_momentum")
        for value in (None, 0, 1, "yes", np.True_)
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED)
def test_refused_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        OneCycleSchedule(**{"max_lr": 0.3, "total_steps": 40, **arguments})
    assert message in str(caught.value)
