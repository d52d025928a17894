"""CyclicSchedule as a value: written down, copied, compared, never changed."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from clr_native import CyclicSchedule, FusedCyclicSGD, ScheduleValue
from helpers import schedule_with


def _halved(cycle: int) -> float:
    return 0.5**cycle


PLAIN: list[dict[str, Any]] = [
    {},
    {"step_size_up": 3, "step_size_down": 7, "window": "hann"},
    {"mode": "exp_range", "gamma": 0.99994, "decay_base": True},
    {"mode": "linear_range", "decay_steps": 12345, "window": "welch"},
    {"cycle_momentum": False, "base_momentum": 0.1, "max_momentum": 1 / 3},
    {"scale_mode": "iterations", "base_lr": 0.0, "max_lr": 1e-270},
]


def _through_torch(schedule: CyclicSchedule) -> CyclicSchedule:
    file = io.BytesIO()
    torch.save(schedule.to_dict(), file)
    file.seek(0)
    return CyclicSchedule.from_dict(torch.load(file, weights_only=True))


COPIES: dict[str, Callable[[CyclicSchedule], CyclicSchedule]] = {
    "to_dict": lambda schedule: CyclicSchedule.from_dict(schedule.to_dict()),
    "json": lambda schedule: CyclicSchedule.from_dict(json.loads(json.dumps(schedule.to_dict()))),
    "torch": _through_torch,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": dataclasses.replace,
    **{
        f"pickle {protocol}": lambda schedule, protocol=protocol: pickle.loads(  # type: ignore[misc]  # a lambda with a default
            pickle.dumps(schedule, protocol)
        )
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("evaluated", [False, True])
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("arguments", PLAIN)
def test_copies_are_equal_and_give_the_same_values(arguments: dict[str, Any], way: str, evaluated: bool) -> None:
    schedule = schedule_with(**arguments)
    if evaluated:
        schedule(1)
    copied = COPIES[way](schedule)
    assert copied == schedule
    assert hash(copied) == hash(schedule)
    assert repr(copied) == repr(schedule)
    assert np.array(copied.values(20)).tobytes() == np.array(schedule.values(20)).tobytes()


@pytest.mark.parametrize("arguments", PLAIN)
def test_to_dict_is_plain_data_of_its_own(arguments: dict[str, Any]) -> None:
    schedule = schedule_with(**arguments)
    d = schedule.to_dict()
    assert {type(value) for value in d.values()} <= {str, int, float, bool, type(None)}
    assert d.items() >= {"base_lr": 0.1, "max_lr": 0.5, **arguments}.items()
    before = dict(d)
    CyclicSchedule.from_dict(d)
    assert d == before
    d["base_lr"] = 99.0
    assert schedule.to_dict() == before


def test_one_that_differs_in_any_argument_is_not_equal() -> None:
    changed: dict[str, Any] = {
        "base_lr": 0.2,
        "max_lr": 0.4,
        "step_size_up": 5,
        "step_size_down": 5,
        "mode": "triangular2",
        "gamma": 0.5,
        "decay_steps": 5,
        "decay_base": True,
        "scale_fn": _halved,
        "scale_mode": "iterations",
        "window": "hann",
        "cycle_momentum": False,
        "base_momentum": 0.7,
        "max_momentum": 0.95,
    }
    assert changed.keys() == {field.name for field in dataclasses.fields(CyclicSchedule)}
    different = [schedule_with(), *(schedule_with(**{name: value}) for name, value in changed.items())]
    assert len(set(different)) == len(different)
    for name, value in changed.items():
        assert schedule_with(**{name: value}) != schedule_with()
    other: object = schedule_with().to_dict()
    assert schedule_with() != other


@pytest.mark.parametrize("name", [*(field.name for field in dataclasses.fields(CyclicSchedule)), "new"])
def test_it_cannot_be_changed(name: str) -> None:
    schedule = schedule_with()
    before = schedule.to_dict()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(schedule, name, 0.2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(schedule, name)
    assert schedule.to_dict() == before


def test_a_scale_fn_is_not_plain_data() -> None:
    with pytest.raises(TypeError, match=re.escape(f"scale_fn={_halved!r}")):
        schedule_with(scale_fn=_halved).to_dict()


def test_from_dict_takes_a_scale_fn_back() -> None:
    schedule = schedule_with(scale_fn=_halved, step_size_up=3)
    optimizer = FusedCyclicSGD([torch.zeros(1)], schedule=schedule)
    saved = json.loads(json.dumps(optimizer.state_dict()["param_groups"][0]["schedule"]))
    assert CyclicSchedule.from_dict(saved, scale_fn=_halved) == schedule
    with pytest.raises(ValueError, match="scale_fn=None"):
        CyclicSchedule.from_dict(saved)
    assert CyclicSchedule.from_dict(schedule_with().to_dict(), scale_fn=_halved) == schedule_with(scale_fn=_halved)


@pytest.mark.parametrize("way", ["copy", "deepcopy", "replace", "pickle 2", "pickle 5"])
def test_copies_keep_a_scale_fn(way: str) -> None:
    schedule = schedule_with(scale_fn=_halved, step_size_up=3)
    assert COPIES[way](schedule) == schedule
    assert COPIES[way](schedule)(9) == schedule(9)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kind": "ramp"}, ValueError, "kind='ramp'"),
        ({"step_size": 5}, ValueError, "step_size=5"),
        ({"gamma": 0.0}, ValueError, "gamma=0.0"),
        ({"base_lr": None}, TypeError, "base_lr=None"),
        ({"mode": "sine"}, ValueError, "mode='sine'"),
    ],
)
def test_from_dict_checks_what_it_is_given(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        CyclicSchedule.from_dict({**schedule_with().to_dict(), **change})


def test_a_value_is_a_plain_named_pair() -> None:
    value = schedule_with(step_size_up=4)(4)
    assert value == ScheduleValue(lr=0.5, momentum=0.8) == (0.5, 0.8)
    assert [type(number) for number in value] == [float, float]


def test_without_cycled_momentum_there_is_none() -> None:
    schedule = schedule_with(cycle_momentum=False)
    assert schedule(7).momentum is None
    assert np.isnan(schedule.values(9)[1]).all()


@pytest.mark.parametrize("d", [3, None, "cyclic", ["kind"]])
def test_from_dict_refuses_what_is_no_dict(d: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"d={d!r} must be a dict")):
        CyclicSchedule.from_dict(d)
