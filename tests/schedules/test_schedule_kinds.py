"""Schedules of every kind as values: plain data, repr, equality and copies."""

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

import clr_native
from clr_native import CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence, ScheduleValue
from clr_native.schedules import Schedule, from_dict
from helpers import case_name


def _halved(cycle: int) -> float:
    return 0.5**cycle


def _third(cycle: int) -> float:
    return 1 / (cycle + 2)


CYCLES = CyclicSchedule(0.1, 0.5, step_size_up=3)
RAMP = RampSchedule(0.0, 0.1, 5)
ONE = OneCycleSchedule(0.3, 40)
HALVED = CyclicSchedule(0.1, 0.5, step_size_up=3, scale_fn=_halved)
THIRD = CyclicSchedule(0.1, 0.5, step_size_up=2, scale_fn=_third, scale_mode="iterations")

# Each with its repr.
PLAIN: list[tuple[Schedule, str]] = [
    (CYCLES, "CyclicSchedule(0.1, 0.5, step_size_up=3)"),
    (
        CyclicSchedule(0, 1e-270, step_size_up=3, step_size_down=7, window="hann", scale_mode="iterations"),
        "CyclicSchedule(0.0, 1e-270, step_size_up=3, step_size_down=7, scale_mode='iterations', window='hann')",
    ),
    (
        CyclicSchedule(0.1, 0.5, mode="exp_range", gamma=0.99994, decay_base=True),
        "CyclicSchedule(0.1, 0.5, mode='exp_range', gamma=0.99994, decay_base=True)",
    ),
    (
        CyclicSchedule(0.1, 0.5, mode="linear_range", decay_steps=12345, window="welch"),
        "CyclicSchedule(0.1, 0.5, mode='linear_range', decay_steps=12345, window='welch')",
    ),
    (
        CyclicSchedule(0.1, 0.5, cycle_momentum=False, base_momentum=0.1, max_momentum=1 / 3),
        "CyclicSchedule(0.1, 0.5, cycle_momentum=False, base_momentum=0.1, max_momentum=0.3333333333333333)",
    ),
    (RAMP, "RampSchedule(0.0, 0.1, 5)"),
    (
        RampSchedule(1, 0.1, 5.0, ramp="exponential", momentum=1),  # type: ignore[arg-type]  # a whole float is taken
        "RampSchedule(1.0, 0.1, 5, ramp='exponential', momentum=1.0)",
    ),
    (ONE, "OneCycleSchedule(0.3, 40)"),
    (OneCycleSchedule(0.3, 40, div_factor=25, pct_start=None), "OneCycleSchedule(0.3, 40)"),
    (
        OneCycleSchedule(
            0.3, 40, convention="fastai", pct_start=0.5, anneal_strategy="linear", div_factor=3, three_phase=True
        ),
        "OneCycleSchedule(0.3, 40, convention='fastai', pct_start=0.5, anneal_strategy='linear', div_factor=3.0, "
        "three_phase=True)",
    ),
    (
        OneCycleSchedule(0.3, 40, final_div_factor=100, cycle_momentum=False, base_momentum=0, max_momentum=1),
        "OneCycleSchedule(0.3, 40, final_div_factor=100.0, cycle_momentum=False, base_momentum=0.0, max_momentum=1.0)",
    ),
    (
        ScheduleSequence([(RAMP, 5), (CYCLES, None)]),
        "ScheduleSequence([(RampSchedule(0.0, 0.1, 5), 5), (CyclicSchedule(0.1, 0.5, step_size_up=3), None)])",
    ),
    (
        ScheduleSequence([(ScheduleSequence([(RAMP, 3)]), 4), (ONE, 7)]),
        "ScheduleSequence([(ScheduleSequence([(RampSchedule(0.0, 0.1, 5), 3)]), 4), (OneCycleSchedule(0.3, 40), 7)])",
    ),
]
ALL = [schedule for schedule, _ in PLAIN]
WITH_FUNCTIONS = [HALVED, ScheduleSequence([(HALVED, 5), (ScheduleSequence([(RAMP, 2), (THIRD, 3)]), None)])]


def values(schedule: Schedule) -> bytes:
    return np.array(schedule.values(60)).tobytes()


def through_torch_save(d: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(d, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


COPIES: dict[str, Callable[[Schedule], Schedule]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": lambda schedule: dataclasses.replace(schedule),  # type: ignore[type-var]  # every kind is a dataclass
    **{
        f"pickle {protocol}": lambda schedule, protocol=protocol: pickle.loads(  # type: ignore[misc]  # a lambda with a default
            pickle.dumps(schedule, protocol)
        )
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("evaluated", [False, True])
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("schedule", [*ALL, *WITH_FUNCTIONS], ids=case_name)
def test_copies_are_equal_and_give_the_same_values(schedule: Schedule, way: str, evaluated: bool) -> None:
    before = COPIES["deepcopy"](schedule)
    if evaluated:
        before(1)
    copied = COPIES[way](before)
    assert copied == schedule
    assert hash(copied) == hash(schedule)
    assert repr(copied) == repr(schedule)
    assert values(copied) == values(schedule)


@pytest.mark.parametrize("schedule", ALL, ids=case_name)
def test_to_dict_is_plain_data_that_json_carries(schedule: Schedule) -> None:
    d = schedule.to_dict()
    carried = json.loads(json.dumps(d, allow_nan=False))
    assert carried == d
    for back in (from_dict(carried), type(schedule).from_dict(carried), from_dict(through_torch_save(d))):
        assert back == schedule
        assert values(back) == values(schedule)
    assert carried == d  # from_dict took nothing out of it
    assert d is not schedule.to_dict()


@pytest.mark.parametrize(("schedule", "text"), PLAIN, ids=[text for _, text in PLAIN])
def test_repr_shows_what_is_not_default_and_can_be_evaluated(schedule: Schedule, text: str) -> None:
    assert repr(schedule) == text
    assert eval(text, vars(clr_native)) == schedule


def test_all_kinds_and_arguments_make_a_difference() -> None:
    changed: dict[str, Any] = {
        "max_lr": 0.4,
        "total_steps": 41,
        "convention": "fastai",
        "pct_start": 0.3,
        "anneal_strategy": "linear",
        "div_factor": 24.0,
        "final_div_factor": 1e4,
        "three_phase": True,
        "cycle_momentum": False,
        "base_momentum": 0.8,
        "max_momentum": 0.9,
    }
    assert changed.keys() == {field.name for field in dataclasses.fields(OneCycleSchedule)}
    ramps: dict[str, Any] = {"start_lr": 0.01, "end_lr": 0.2, "num_steps": 6, "ramp": "exponential", "momentum": 0.0}
    assert ramps.keys() == {field.name for field in dataclasses.fields(RampSchedule)}
    cyclic: dict[str, Any] = {
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
    assert cyclic.keys() == {field.name for field in dataclasses.fields(CyclicSchedule)}
    plain = CyclicSchedule(0.1, 0.5)
    start = RampSchedule(0.05, 0.1, 5)
    different = [
        *{*ALL},
        *(dataclasses.replace(ONE, **{name: value}) for name, value in changed.items()),
        plain,
        *(dataclasses.replace(plain, **{name: value}) for name, value in cyclic.items()),
        start,
        *(dataclasses.replace(start, **{name: value}) for name, value in ramps.items()),
        ScheduleSequence([(CYCLES, None)]),
        ScheduleSequence([(CYCLES, 6)]),
        ScheduleSequence([(CYCLES, 5), (RAMP, None)]),
        *WITH_FUNCTIONS,
    ]
    assert len(set(different)) == len(different)
    other: object = plain.to_dict()
    assert plain != other


@pytest.mark.parametrize("schedule", ALL, ids=case_name)
def test_it_cannot_be_changed(schedule: Schedule) -> None:
    before = repr(schedule)
    for name in [*schedule._fields(), "new"]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(schedule, name, 0.2)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(schedule, name)
    assert repr(schedule) == before


def test_a_list_of_segments_changed_later_changes_nothing() -> None:
    segments: list[Any] = [(RAMP, 5), [CYCLES, None]]
    schedule = ScheduleSequence(segments)
    before = schedule.to_dict()
    segments[1][0] = ONE
    segments.pop()
    schedule.to_dict()["segments"].clear()
    schedule.to_dict()["segments"][0][0]["end_lr"] = 7.0
    assert schedule.to_dict() == before


# --- functions ------------------------------------------------------------------------------------------------


TWO = WITH_FUNCTIONS[1]


def test_functions_come_back_in_their_order_or_one_for_all() -> None:
    with pytest.raises(TypeError, match=re.escape(f"scale_fn={_halved!r} cannot be saved")):
        TWO.to_dict()
    saved = json.loads(json.dumps(TWO._to_dict()))
    for back in (from_dict(saved, [_halved, _third]), ScheduleSequence.from_dict(saved, scale_fn=(_halved, _third))):
        assert back == TWO
        assert values(back) == values(TWO)
    assert from_dict(saved, [_third, _halved]) != TWO
    one_for_all = from_dict(saved, _halved)
    assert one_for_all._functions() == [_halved, _halved]


@pytest.mark.parametrize(
    ("schedule", "scale_fn", "error", "message"),
    [
        (TWO, None, ValueError, "scale_fn=None: this schedule was saved without its scale_fn"),
        (TWO, [], ValueError, "scale_fn=None: this schedule was saved without its scale_fn"),
        (TWO, [_halved], ValueError, "scale_fn=None: this schedule was saved without its scale_fn"),
        (TWO, [_halved, _third, _halved], ValueError, f"scale_fn={[_halved]!r} is left over"),
        (TWO, [_halved, 5], TypeError, "scale_fn=5 must be callable"),
        (TWO, 5, TypeError, "scale_fn=5 must be a function or a list of functions"),
        (TWO, "ab", TypeError, "scale_fn='ab' must be a function or a list of functions"),
        (RAMP, _halved, ValueError, f"scale_fn={[_halved]!r} is left over"),
        (ONE, [_halved], ValueError, f"scale_fn={[_halved]!r} is left over"),
        (ALL[-1], _halved, ValueError, f"scale_fn={[_halved]!r} is left over"),
        (CYCLES, [_halved], ValueError, f"scale_fn={[_halved]!r} is left over"),
        (HALVED, None, ValueError, "scale_fn=None: this schedule was saved without its scale_fn"),
        (HALVED, [_halved, _third], ValueError, f"scale_fn={[_third]!r} is left over"),
    ],
    ids=case_name,
)
def test_functions_that_do_not_fit(schedule: Schedule, scale_fn: Any, error: type[Exception], message: str) -> None:
    for read in (from_dict, type(schedule).from_dict):
        with pytest.raises(error, match=re.escape(message)):
            read(schedule._to_dict(), scale_fn)


@pytest.mark.parametrize(
    ("d", "error", "message"),
    [
        (None, TypeError, "d=None must be a dict"),
        ([], TypeError, "d=[] must be a dict"),
        ({"kind": "sine"}, ValueError, "kind='sine' must be one of 'cyclic', 'one_cycle', 'ramp', 'sequence'"),
        ({"kind": None}, ValueError, "kind=None must be one of"),
        ({"kind": []}, ValueError, "kind=[] must be one of"),
        ({}, ValueError, "base_lr is missing, which CyclicSchedule needs"),
        ({"base_lr": 1}, ValueError, "max_lr is missing, which CyclicSchedule needs"),
        ({**CYCLES.to_dict(), "step_size": 5}, ValueError, "step_size=5"),
        ({**CYCLES.to_dict(), "gamma": 0.0}, ValueError, "gamma=0.0"),
        ({**CYCLES.to_dict(), "base_lr": None}, TypeError, "base_lr=None"),
        ({**CYCLES.to_dict(), "mode": "sine"}, ValueError, "mode='sine'"),
        ({"kind": "ramp"}, ValueError, "start_lr is missing, which RampSchedule needs"),
        ({3: 4, "x": 5}, ValueError, "3=4 is not an argument of CyclicSchedule"),
        ({**RAMP.to_dict(), "gamma": 0.5}, ValueError, "gamma=0.5 is not an argument of RampSchedule"),
        ({**RAMP.to_dict(), "num_steps": 0}, ValueError, "num_steps=0"),
        ({**ONE.to_dict(), "max_lr": None}, TypeError, "max_lr=None"),
        ({"kind": "sequence"}, ValueError, "segments is missing, which ScheduleSequence needs"),
        ({"kind": "sequence", "segments": None}, TypeError, "segments=None must be a list of pairs"),
        ({"kind": "sequence", "segments": {}}, TypeError, "segments={} must be a list of pairs"),
        ({"kind": "sequence", "segments": []}, ValueError, "segments=[] must hold at least one pair"),
        ({"kind": "sequence", "segments": [5]}, TypeError, "segment 0: 5 must be a pair"),
        ({"kind": "sequence", "segments": [[RAMP.to_dict(), 5], [5]]}, TypeError, "segment 1: [5] must be a pair"),
        ({"kind": "sequence", "segments": [[5, 5]]}, TypeError, "segment 0: 5 must be a dict"),
        ({"kind": "sequence", "segments": [[RAMP, 5]]}, TypeError, f"segment 0: {RAMP!r} must be a dict"),
        ({"kind": "sequence", "segments": [[RAMP.to_dict(), 0]]}, ValueError, "segment 0: n_steps=0"),
        ({"kind": "sequence", "segments": [[{"kind": "sine"}, 5]]}, ValueError, "kind='sine' must be one of"),
    ],
)
def test_from_dict_checks_what_it_is_given(d: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        from_dict(d)


def test_a_users_own_class_does_not_take_the_place_of_ours() -> None:
    class Own(CyclicSchedule):
        pass

    own = Own(1, 2)
    assert type(Own.from_dict(own.to_dict())) is Own
    assert type(from_dict(own.to_dict())) is CyclicSchedule


@pytest.mark.parametrize("d", [3, None, "cyclic", ["kind"]])
def test_from_dict_of_one_kind_refuses_what_is_no_dict(d: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"d={d!r} must be a dict")):
        CyclicSchedule.from_dict(d)


def test_from_dict_of_one_kind_refuses_another() -> None:
    for cls in (CyclicSchedule, RampSchedule, ScheduleSequence):
        with pytest.raises(ValueError, match=f"kind='one_cycle' must be '.*' for a {cls.__name__}"):
            cls.from_dict(ONE.to_dict())


def test_an_optimizers_state_has_a_schedule_to_which_the_function_is_given_back() -> None:
    optimizer = FusedCyclicSGD([torch.zeros(1)], schedule=HALVED)
    saved = json.loads(json.dumps(optimizer.state_dict()["param_groups"][0]["schedule"]))
    assert CyclicSchedule.from_dict(saved, scale_fn=_halved) == HALVED
    assert CyclicSchedule.from_dict(CYCLES.to_dict(), scale_fn=_halved) == HALVED


def test_a_value_is_a_plain_named_pair() -> None:
    value = CYCLES(3)
    assert value == ScheduleValue(lr=0.5, momentum=0.8) == (0.5, 0.8)
    assert [type(number) for number in value] == [float, float]


def test_without_cycled_momentum_there_is_none() -> None:
    schedule = CyclicSchedule(0.1, 0.5, cycle_momentum=False)
    assert schedule(7).momentum is None
    assert np.isnan(schedule.values(9)[1]).all()
