"""Saving and loading an optimizer under schedules of every kind: continues bit for bit, and shares nothing."""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clr_native import CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.schedules import Schedule
from helpers import assert_same_training, clones, every_parameter, gradient_sets, parameters, picture, train

RAMP = RampSchedule(0.01, 0.1, 5)
CYCLES = CyclicSchedule(0.1, 0.5, step_size_up=3)


def halved(cycle: int) -> float:
    return 0.5 ** (cycle - 1)


def third(cycle: int) -> float:
    return 1 / (cycle + 2)


HALVED = CyclicSchedule(0.1, 0.5, step_size_up=2, scale_fn=halved)
THIRD = CyclicSchedule(0.1, 0.4, step_size_up=2, scale_fn=third, cycle_momentum=False)

KINDS: dict[str, Schedule] = {
    "one cycle": OneCycleSchedule(0.4, 30, three_phase=True),
    "ramp": RAMP,
    "sequence": ScheduleSequence([(RAMP, 4), (CYCLES, 7), (RampSchedule(0.1, 0.01, 4), 4), (CYCLES, None)]),
    "functions": ScheduleSequence([(HALVED, 6), (ScheduleSequence([(RAMP, 2), (THIRD, 9)]), None)]),
}


def made(schedule: Schedule, *, seed: int = 0) -> FusedCyclicSGD:
    return FusedCyclicSGD(parameters([17, (3, 5)], seed=seed), schedule=schedule)


def step(optimizer: FusedCyclicSGD, steps: int) -> None:
    over = every_parameter(optimizer)
    train(optimizer, over, gradient_sets(over), steps, optimizer.applied_steps)


def go_on_alike(optimizer: FusedCyclicSGD, other: FusedCyclicSGD) -> None:
    for _ in range(14):
        assert other.get_last_lr() == optimizer.get_last_lr()
        assert other.get_last_momentum() == optimizer.get_last_momentum()
        assert (other.cycle, other.applied_steps) == (optimizer.cycle, optimizer.applied_steps)
        step(optimizer, 1)
        step(other, 1)
    assert_same_training(optimizer, other)


def _loaded(optimizer: FusedCyclicSGD, state_dict: dict[str, Any]) -> FusedCyclicSGD:
    """Into one with the same functions, position 0 and other numbers."""
    schedule = optimizer._schedule_of(optimizer.param_groups[0])
    functions = schedule._functions()
    own: Schedule = CYCLES
    if functions:
        own = ScheduleSequence([(CyclicSchedule(0.2, 0.3, scale_fn=each), 5) for each in functions])
    other = made(own, seed=1)
    for parameter, source in zip(every_parameter(other), every_parameter(optimizer), strict=True):
        parameter.data.copy_(source.data)
    other.load_state_dict(state_dict)
    return other


def _through_torch(optimizer: FusedCyclicSGD) -> FusedCyclicSGD:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return _loaded(optimizer, torch.load(file, weights_only=True))


WAYS: dict[str, Callable[[FusedCyclicSGD], FusedCyclicSGD]] = {
    "state_dict": lambda optimizer: _loaded(optimizer, optimizer.state_dict()),
    "torch.save": _through_torch,
    "deepcopy": copy.deepcopy,
    "pickle": lambda optimizer: pickle.loads(pickle.dumps(optimizer)),
}


@pytest.mark.parametrize("before", [0, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_continues_bit_for_bit(kind: str, way: str, before: int) -> None:
    optimizer = made(KINDS[kind])
    step(optimizer, before)
    go_on_alike(optimizer, WAYS[way](optimizer))


@pytest.mark.parametrize("kind", ["sequence", "one cycle"])
def test_the_written_schedule_is_plain_data_and_shares_nothing(kind: str) -> None:
    optimizer = made(KINDS[kind])
    first = optimizer.state_dict()["param_groups"][0]["schedule"]
    assert json.loads(json.dumps(first)) == KINDS[kind].to_dict()
    if kind == "sequence":
        first["segments"][1][0]["max_lr"] = 9.0
        first["segments"].pop()
    first["kind"] = "spoilt"
    assert optimizer.state_dict()["param_groups"][0]["schedule"] == KINDS[kind].to_dict()
    go_on_alike(optimizer, made(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_put_into_a_group_is_saved_as_plain_data_before_any_step(kind: str) -> None:
    optimizer = made(CYCLES)
    step(optimizer, 3)
    optimizer.param_groups[0]["schedule"] = KINDS[kind]
    saved = optimizer.state_dict()["param_groups"][0]["schedule"]
    assert json.loads(json.dumps(saved)) == KINDS[kind]._to_dict()
    if not KINDS[kind]._scale_fns:
        go_on_alike(*(_loaded(optimizer, optimizer.state_dict()) for _ in range(2)))
    optimizer.seek(3)
    assert optimizer.get_last_lr() == [KINDS[kind](3).lr]
    json.dumps(optimizer.state_dict()["param_groups"][0]["schedule"])


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_made_before_the_first_step_under_a_new_schedule(way: str) -> None:
    """The lr that stands in the group is the old schedule's, not one set by hand."""
    optimizer = made(CYCLES)
    step(optimizer, 3)
    optimizer.param_groups[0]["schedule"] = KINDS["one cycle"]
    other = WAYS[way](optimizer)
    step(optimizer, 1)
    step(other, 1)
    go_on_alike(optimizer, other)
    assert optimizer.get_last_lr() == [KINDS["one cycle"](18).lr]


def test_a_checkpoint_can_be_loaded_twice_and_is_not_touched() -> None:
    optimizer = made(KINDS["functions"])
    step(optimizer, 7)
    state_dict = optimizer.state_dict()
    before = copy.deepcopy(state_dict["param_groups"])
    others = [_loaded(optimizer, state_dict) for _ in range(2)]
    step(others[0], 5)
    assert state_dict["param_groups"] == before
    go_on_alike(optimizer, others[1])


def test_a_schedule_whose_functions_are_missing_is_refused_with_nothing_changed() -> None:
    state_dict = made(KINDS["functions"]).state_dict()
    one = ScheduleSequence([(CYCLES, 3), (HALVED, None)])
    for schedule in (CYCLES, KINDS["sequence"], KINDS["one cycle"]):
        other = made(schedule)
        step(other, 3)
        before = picture(other)
        with pytest.raises(ValueError, match="scale_fn=None"):
            other.load_state_dict(state_dict)
        assert picture(other) == before
    other = made(one)
    other.load_state_dict(state_dict)  # one function serves wherever one is needed
    assert other._schedule_of(other.param_groups[0])._functions() == [halved, halved]


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "sine"}, {"kind": "sequence", "segments": [5]}, {"kind": "ramp", "num_steps": 0}, {"kind": []}, 5, None],
    ids=str,
)
def test_a_spoilt_schedule_is_refused_with_nothing_changed(wrong: Any) -> None:
    optimizer = made(KINDS["sequence"])
    step(optimizer, 3)
    state_dict = optimizer.state_dict()
    state_dict["param_groups"][0]["schedule"] = wrong
    before = picture(optimizer)
    with pytest.raises((TypeError, ValueError)):
        optimizer.load_state_dict(state_dict)
    assert picture(optimizer) == before
    go_on_alike(optimizer, made_and_stepped(3))


def made_and_stepped(steps: int) -> FusedCyclicSGD:
    optimizer = made(KINDS["sequence"])
    step(optimizer, steps)
    return optimizer


def test_a_checkpoint_of_torchs_sgd_keeps_the_sequence() -> None:
    optimizer = made(KINDS["sequence"])
    twins = clones(every_parameter(optimizer))
    theirs = torch.optim.SGD(twins, lr=0.7, momentum=0.3)
    train(theirs, twins, gradient_sets(twins), 2)
    optimizer.load_state_dict(theirs.state_dict())
    assert optimizer._schedule_of(optimizer.param_groups[0]) == KINDS["sequence"]
    assert optimizer.get_last_lr() == [KINDS["sequence"](0).lr]


# --- torch.distributed.checkpoint's helpers -------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("through_files", [False, True])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_distributed_checkpoint(kind: str, flat: bool, through_files: bool, tmp_path: Path) -> None:
    state_dicts = pytest.importorskip(
        "torch.distributed.checkpoint.state_dict", reason="this torch was built without torch.distributed"
    )
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save

    options = state_dicts.StateDictOptions(flatten_optimizer_state_dict=flat)

    def model_and_optimizer() -> tuple[nn.Module, FusedCyclicSGD]:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        return model, FusedCyclicSGD(model.parameters(), schedule=KINDS[kind])

    model, optimizer = model_and_optimizer()
    before = copy.deepcopy(optimizer.param_groups[0]["schedule"])
    state_dicts.get_optimizer_state_dict(model, optimizer, options=options)
    assert (optimizer.applied_steps, optimizer.param_groups[0]["schedule"]) == (0, before)
    step(optimizer, 5)
    saved = copy.deepcopy(state_dicts.get_optimizer_state_dict(model, optimizer, options=options))
    twin, other = model_and_optimizer()
    twin.load_state_dict(model.state_dict())
    if through_files:
        save(saved, checkpoint_id=tmp_path)
        saved = state_dicts.get_optimizer_state_dict(twin, other, options=options)
        load(saved, checkpoint_id=tmp_path)
    state_dicts.set_optimizer_state_dict(twin, other, saved, options=options)
    assert other.param_groups[0]["schedule"] == before
    go_on_alike(optimizer, other)
