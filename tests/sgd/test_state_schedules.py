"""Saving and loading an optimizer under schedules of every kind: continues bit for bit, and shares nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clr_native import CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, ScheduleSequence
from clr_native.schedules import Schedule
from distributed import QUIET, asked, put
from helpers import (
    COPIES,
    assert_goes_on_alike,
    assert_refused,
    assert_same_training,
    clones,
    every_parameter,
    go_on,
    halving,
    parameters,
    take_weights,
    through_a_file,
)
from test_optimizer_schedules import CYCLES, FUNCTIONS, HALVED, MIXED, RAMP

KINDS: dict[str, Schedule] = {
    "one cycle": OneCycleSchedule(0.4, 30, three_phase=True),
    "ramp": RAMP,
    "sequence": MIXED,
    "functions": FUNCTIONS,
}


def made(schedule: Schedule, *, seed: int = 0) -> FusedCyclicSGD:
    return FusedCyclicSGD(parameters([17, (3, 5)], seed=seed), schedule=schedule)


def _loaded(optimizer: FusedCyclicSGD, state_dict: dict[str, Any]) -> FusedCyclicSGD:
    """Into one with the same functions, position 0 and other numbers."""
    schedule = optimizer._schedule_of(optimizer.param_groups[0])
    functions = schedule._functions()
    own: Schedule = CYCLES
    if functions:
        own = ScheduleSequence([(CyclicSchedule(0.2, 0.3, scale_fn=each), 5) for each in functions])
    other = made(own, seed=1)
    take_weights(other, optimizer)
    other.load_state_dict(state_dict)
    return other


WAYS: dict[str, Callable[[FusedCyclicSGD], FusedCyclicSGD]] = {
    "state_dict": lambda optimizer: _loaded(optimizer, optimizer.state_dict()),
    "torch.save": lambda optimizer: _loaded(optimizer, through_a_file(optimizer.state_dict())),
    **COPIES,
}


@pytest.mark.parametrize("before", [0, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_continues_bit_for_bit(kind: str, way: str, before: int) -> None:
    optimizer = made(KINDS[kind])
    go_on(optimizer, before)
    assert_goes_on_alike(optimizer, WAYS[way](optimizer), 14)


@pytest.mark.parametrize("kind", ["sequence", "one cycle"])
def test_the_written_schedule_is_plain_data_and_shares_nothing(kind: str) -> None:
    optimizer = made(KINDS[kind])
    optimizer.add_param_group({"params": parameters([3])})
    first, second = (group["schedule"] for group in optimizer.state_dict()["param_groups"])
    assert json.loads(json.dumps(first)) == KINDS[kind].to_dict()
    if kind == "sequence":
        first["segments"][1][0]["max_lr"] = 9.0
        first["segments"].pop()
    first["kind"] = "spoilt"
    assert second == optimizer.state_dict()["param_groups"][0]["schedule"] == KINDS[kind].to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_put_into_a_group_is_saved_as_plain_data_before_any_step(kind: str) -> None:
    optimizer = made(CYCLES)
    go_on(optimizer, 3)
    optimizer.param_groups[0]["schedule"] = KINDS[kind]
    group = optimizer.state_dict()["param_groups"][0]
    assert json.loads(json.dumps(group["schedule"])) == KINDS[kind]._to_dict()
    assert group["lr"] == KINDS[kind](3).lr
    if not KINDS[kind]._scale_fns:
        one, other = (_loaded(optimizer, optimizer.state_dict()) for _ in range(2))
        assert_goes_on_alike(one, other)
    optimizer.seek(3)
    assert optimizer.get_last_lr() == [KINDS[kind](3).lr]
    json.dumps(optimizer.state_dict()["param_groups"][0]["schedule"])


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_made_before_the_first_step_under_a_new_schedule(way: str) -> None:
    """The lr that stands in the group is the old schedule's, not one set by hand."""
    optimizer = made(CYCLES)
    go_on(optimizer, 3)
    optimizer.param_groups[0]["schedule"] = KINDS["one cycle"]
    other = WAYS[way](optimizer)
    for each in (optimizer, other):
        go_on(each, 15)
    assert_same_training(optimizer, other)
    assert other.get_last_lr() == optimizer.get_last_lr() == [KINDS["one cycle"](18).lr]


def test_a_checkpoint_can_be_loaded_twice_and_is_not_touched() -> None:
    optimizer = made(KINDS["functions"])
    go_on(optimizer, 7)
    state_dict = optimizer.state_dict()
    before = copy.deepcopy(state_dict["param_groups"])
    others = [_loaded(optimizer, state_dict) for _ in range(2)]
    go_on(others[0], 5)
    assert state_dict["param_groups"] == before
    assert_goes_on_alike(optimizer, others[1])


def test_a_schedule_whose_functions_are_missing_is_refused_with_nothing_changed() -> None:
    state_dict = made(KINDS["functions"]).state_dict()
    one = ScheduleSequence([(CYCLES, 3), (HALVED, None)])
    for schedule in (CYCLES, KINDS["sequence"], KINDS["one cycle"]):
        other = made(schedule)
        go_on(other, 3)
        assert_refused(partial(other.load_state_dict, state_dict), ValueError, "scale_fn=None", other)
    other = made(one)
    other.load_state_dict(state_dict)  # one function serves wherever one is needed
    assert other._schedule_of(other.param_groups[0])._functions() == [halving, halving]


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "sine"}, {"kind": "sequence", "segments": [5]}, {"kind": "ramp", "num_steps": 0}, {"kind": []}, 5, None],
    ids=str,
)
def test_a_spoilt_schedule_is_refused_with_nothing_changed(wrong: Any) -> None:
    optimizer = made(KINDS["sequence"])
    go_on(optimizer, 3)
    state_dict = optimizer.state_dict()
    state_dict["param_groups"][0]["schedule"] = wrong
    assert_refused(lambda: optimizer.load_state_dict(state_dict), (TypeError, ValueError), None, optimizer)
    untouched = made(KINDS["sequence"])
    go_on(untouched, 3)
    assert_goes_on_alike(optimizer, untouched)


def test_a_checkpoint_of_torchs_sgd_keeps_the_sequence() -> None:
    optimizer = made(KINDS["sequence"])
    twins = clones(every_parameter(optimizer))
    theirs = torch.optim.SGD(twins, lr=0.7, momentum=0.3)
    go_on(theirs, 2)
    optimizer.load_state_dict(theirs.state_dict())
    assert optimizer._schedule_of(optimizer.param_groups[0]) == KINDS["sequence"]
    assert optimizer.get_last_lr() == [KINDS["sequence"](0).lr]


# --- torch.distributed.checkpoint's helpers -------------------------------------------------------------------


@QUIET
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")  # torch 2.10 uses its own
@pytest.mark.parametrize("through_files", [False, True])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_distributed_checkpoint(kind: str, flat: bool, through_files: bool, tmp_path: Path) -> None:
    def model_and_optimizer() -> tuple[nn.Module, FusedCyclicSGD]:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        return model, FusedCyclicSGD(model.parameters(), schedule=KINDS[kind])

    model, optimizer = model_and_optimizer()
    before = copy.deepcopy(optimizer.param_groups[0]["schedule"])
    asked(model, optimizer, flat=flat)
    assert (optimizer.applied_steps, optimizer.param_groups[0]["schedule"]) == (0, before)
    go_on(optimizer, 5)
    saved = asked(model, optimizer, flat=flat)
    twin, other = model_and_optimizer()
    twin.load_state_dict(model.state_dict())
    if through_files:
        from torch.distributed.checkpoint.state_dict_loader import load
        from torch.distributed.checkpoint.state_dict_saver import save

        save(saved, checkpoint_id=tmp_path)
        saved = asked(twin, other, flat=flat)
        load(saved, checkpoint_id=tmp_path)
    put(twin, other, saved, flat=flat)
    assert other.param_groups[0]["schedule"] == before
    assert_goes_on_alike(optimizer, other, 14)
