"""Averages of the weights equal those of torch.optim.swa_utils, over the updates that count and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from clr_native import CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.schedules import Schedule
from helpers import (
    LAYOUTS,
    LONG,
    assert_same_training,
    assert_setting_refused,
    bits,
    every_parameter,
    give,
    go_on,
    gradient_sets,
    parameters,
)
from torch_whole_step import averaged

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CYCLE = 4
EMA: list[dict[str, Any]] = [
    *({"ema_decay": decay} for decay in (0, 0.25, 0.5, 0.50000001, 0.9, 0.999, 1, 1.0)),
    *({"ema_decay": decay, "ema_warmup": True} for decay in (0.15, 0.3, 0.999)),
]
SWA: dict[str, Any] = {"average": "swa"}


def ours(over: Sequence[Tensor], **settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(over, **{"base_lr": 0.05, "max_lr": 0.4, "step_size_up": CYCLE // 2} | settings)


def average_of(optimizer: FusedCyclicSGD, parameter: Tensor) -> Tensor | None:
    average: Tensor | None = optimizer.state.get(parameter, {}).get("average")
    return average


def averages(optimizer: FusedCyclicSGD) -> list[bytes | None]:
    found = [average_of(optimizer, p) for p in every_parameter(optimizer)]
    return [None if average is None else bits(average) for average in found]


class Beside:
    """torch's averages of the weights of an optimizer of ours, for each group as it is set."""

    def __init__(self, optimizer: FusedCyclicSGD) -> None:
        self.optimizer = optimizer
        self.snapshots = [group["average"] == "swa" for group in optimizer.param_groups]
        self.models = [nn.ParameterList(group["params"]) for group in optimizer.param_groups]
        self.torchs: list[AveragedModel | None] = [
            averaged(model, group["ema_decay"], group["ema_warmup"], group["average"])
            for model, group in zip(self.models, optimizer.param_groups, strict=True)
        ]

    def update(self, *, ends_cycle: bool) -> None:
        for torchs, model, snapshots in zip(self.torchs, self.models, self.snapshots, strict=True):
            if torchs is not None and (ends_cycle or not snapshots):
                torchs.update_parameters(model)

    def assert_same(self) -> None:
        for group, torchs in zip(self.optimizer.param_groups, self.torchs, strict=True):
            count = 0 if torchs is None else int(torchs.n_averaged)
            assert group["n_averaged"] == count
            for i, parameter in enumerate(group["params"]):
                own = average_of(self.optimizer, parameter)
                assert (own is not None) == (count > 0)
                if own is not None and torchs is not None:
                    assert own.dtype is parameter.dtype
                    assert torch.equal(own, list(torchs.parameters())[i]), f"of shape {tuple(parameter.shape)}"


def follow(optimizer: FusedCyclicSGD, ends: Sequence[bool]) -> Beside:
    """A step for each, which ends a cycle or does not, beside torch's averages."""
    over = every_parameter(optimizer)
    beside = Beside(optimizer)
    for i, ends_cycle in enumerate(ends):
        give(over, gradient_sets(over, 1, seed=i)[0])
        optimizer.step()
        assert optimizer.at_cycle_end is ends_cycle
        beside.update(ends_cycle=ends_cycle)
        beside.assert_same()
    return beside


def cycles(steps: int, length: int = CYCLE) -> list[bool]:
    return [(step + 1) % length == 0 for step in range(steps)]


# --- beside torch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [*EMA, SWA], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_torch(dtype: torch.dtype, settings: dict[str, Any]) -> None:
    over = parameters([*range(40), (3, 5), LONG], dtype)
    follow(ours(over, weight_decay=0.01, nesterov=True, **settings), cycles(5 * CYCLE))


@pytest.mark.parametrize(
    ("schedule", "ends"),
    [
        (OneCycleSchedule(0.3, 6), [6]),
        (CyclicSchedule(0.1, 0.3, step_size_up=1, step_size_down=2), [3, 6, 9, 12]),
        (
            ScheduleSequence(
                [
                    (RampSchedule(0.0, 0.1, 3), 3),
                    (CyclicSchedule(0.1, 0.3, step_size_up=1), 4),
                    (OneCycleSchedule(0.3, 5), None),
                ]
            ),
            [5, 7, 12],
        ),
        (RampSchedule(0.0, 0.1, 3), []),
    ],
    ids=lambda each: type(each).__name__,
)
@pytest.mark.filterwarnings("ignore:.*past the end of its schedule")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_snapshots_follow_the_cycles_of_any_schedule(dtype: torch.dtype, schedule: Schedule, ends: list[int]) -> None:
    optimizer = FusedCyclicSGD(parameters([17, 65], dtype), schedule=schedule, average="swa")
    follow(optimizer, [step in ends for step in range(1, 14)])


def test_each_group_as_it_is_set_and_the_first_one_decides_when_a_cycle_ends() -> None:
    over = parameters([9, 17, 33, 65])
    each: list[dict[str, Any]] = [
        {"params": over[:1]},
        {"params": over[1:2], "ema_decay": 0.9, "step_size_up": 3},
        {"params": over[2:3], "average": "swa", "step_size_up": 1},
        {"params": over[3:], "ema_decay": 0.4, "ema_warmup": True},
    ]
    optimizer = ours(each)  # type: ignore[arg-type]  # groups, not parameters
    follow(optimizer, cycles(3 * CYCLE))
    assert [group["n_averaged"] for group in optimizer.param_groups] == [0, 12, 3, 12]


@pytest.mark.parametrize("settings", [{"ema_decay": 0.75}, {"ema_decay": 0.3, "ema_warmup": True}, SWA], ids=str)
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout not in ("contiguous", "expanded")])
def test_every_layout(layout: str, settings: dict[str, Any]) -> None:
    start = parameters([(6, 5, 4, 3)])
    turned = [LAYOUTS[layout](start[0].detach()).requires_grad_()]
    plain, other = ours(start, **settings), ours(turned, **settings)
    for gradients in gradient_sets(start, 2 * CYCLE):
        give(start, gradients)
        give(turned, [LAYOUTS[layout](g) for g in gradients])
        plain.step()
        other.step()
        assert averages(plain) == averages(other)
    assert averages(plain) != [None]


# --- which updates count ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"ema_decay": 0.75}, SWA], ids=str)
def test_a_parameter_without_a_gradient_moves_its_average(settings: dict[str, Any]) -> None:
    """Once it stands still, or has not begun, too; in the first step nothing has a gradient."""
    over = parameters([17, 33, 65])
    optimizer = ours(over, **settings)
    beside = Beside(optimizer)
    for step in range(3 * CYCLE):
        gradients: list[Tensor | None] = [*gradient_sets(over, 1, seed=step)[0]]
        if step >= 2:
            gradients[1] = None
        gradients[2] = None
        if step == 0:
            gradients = [None] * 3
        give(over, gradients)
        versions = [p._version for p in over]
        optimizer.step()
        moved = [p._version > before for p, before in zip(over, versions, strict=True)]
        assert moved == [g is not None for g in gradients], "no weight moves for its average"
        beside.update(ends_cycle=(step + 1) % CYCLE == 0)
        beside.assert_same()
    assert "momentum_buffer" not in optimizer.state[over[2]]


@pytest.mark.parametrize("settings", [{"ema_decay": 0.75, "ema_warmup": True}, SWA], ids=str)
def test_a_late_group_begins_an_average_of_its_own(settings: dict[str, Any]) -> None:
    over = parameters([17, 33])
    optimizer = ours(over[:1], **settings)
    follow(optimizer, cycles(2 * CYCLE))
    optimizer.add_param_group({"params": over[1:]})
    assert optimizer.param_groups[1]["n_averaged"] == 0
    late = nn.ParameterList(over[1:])
    theirs = averaged(late, settings.get("ema_decay"), settings.get("ema_warmup", False), settings.get("average"))
    assert theirs is not None
    for step in range(3 * CYCLE):
        give(over, gradient_sets(over, 1, seed=step)[0])
        optimizer.step()
        if (step + 1) % CYCLE == 0 or settings != SWA:
            theirs.update_parameters(late)
            assert torch.equal(optimizer.state[over[1]]["average"], next(iter(theirs.parameters())))
    assert optimizer.param_groups[1]["n_averaged"] == int(theirs.n_averaged)


@pytest.mark.parametrize("lr", [0.0, 0.25])
def test_an_update_by_hand_counts_for_ema_and_ends_no_cycle(lr: float) -> None:
    """A zero by hand too, once something has been averaged: before, it is how torch.distributed asks for state."""
    over = parameters([17])
    ema, swa = ours(over, ema_decay=0.75), ours([over[0].detach().clone().requires_grad_()], average="swa")
    for optimizer in (ema, swa):
        beside = follow(optimizer, cycles(2 * CYCLE - 1))
        optimizer.param_groups[0]["lr"] = lr
        give(every_parameter(optimizer), gradient_sets(over, 1)[0])
        optimizer.step()
        assert not optimizer.at_cycle_end
        beside.update(ends_cycle=False)
        beside.assert_same()
        optimizer.step()
        assert optimizer.at_cycle_end
        beside.update(ends_cycle=True)
        beside.assert_same()
    assert [each.param_groups[0]["n_averaged"] for each in (ema, swa)] == [2 * CYCLE + 1, 2]


@pytest.mark.parametrize("advance_on_skip", [False, True])
@pytest.mark.parametrize("settings", [{"ema_decay": 0.75}, SWA], ids=str)
def test_a_skipped_step_moves_nothing(settings: dict[str, Any], advance_on_skip: bool) -> None:
    """At the end of a cycle, in the middle, and before there is anything to move."""
    over = parameters([17, 33])
    optimizer = ours(over, skip_nonfinite=True, advance_on_skip=advance_on_skip, **settings)
    beside = Beside(optimizer)
    for step in range(4 * CYCLE):
        position = optimizer.applied_steps
        give(over, gradient_sets(over, 1, seed=step)[0])
        skipped = step in (0, 1, CYCLE + 1, 2 * CYCLE - 1, 2 * CYCLE)
        if skipped and over[1].grad is not None:
            over[1].grad[3] = float("nan")
        optimizer.step()
        assert optimizer.last_step_skipped is skipped
        if not skipped:
            beside.update(ends_cycle=(position + 1) % CYCLE == 0)
        beside.assert_same()


def test_the_decay_may_change_between_steps() -> None:
    """What stands in the group is obeyed: off, on, another decay."""
    over = parameters([17])
    optimizer = ours(over)
    (group,) = optimizer.param_groups
    go_on(optimizer, 2)
    assert averages(optimizer) == [None]
    group["ema_decay"] = 0.5
    go_on(optimizer)
    assert averages(optimizer) == [bits(over[0])]
    before = optimizer.state[over[0]]["average"].clone()
    group["ema_decay"] = 0.0
    go_on(optimizer)
    assert averages(optimizer) == [bits(over[0])]
    assert averages(optimizer) != [bits(before)]
    group["ema_decay"] = None
    kept = averages(optimizer)
    go_on(optimizer, 2)
    assert averages(optimizer) == kept
    assert group["n_averaged"] == 2


def test_averages_do_not_change_the_training() -> None:
    plain, other = ours(parameters([17, 33])), ours(parameters([17, 33]), ema_decay=0.75)
    for optimizer in (plain, other):
        go_on(optimizer, 2 * CYCLE)
    assert_same_training(plain, other)


# --- wrong values -------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], type[Exception]]] = [
    *(({"ema_decay": value}, ValueError) for value in (-0.1, 1.1, 2, float("nan"), float("inf"))),
    *(({"ema_decay": value}, TypeError) for value in ("0.9", [0.9], torch.tensor(0.9), 1j)),
    *(({"ema_decay": 0.9, "ema_warmup": value}, TypeError) for value in (1, None, "yes")),
    ({"ema_warmup": True}, ValueError),
    *(({"average": value}, ValueError) for value in ("ema", "SWA", True, 1, 0.9)),
    ({"average": "swa", "ema_decay": 0.9}, ValueError),
    ({"average": "swa", "ema_warmup": True}, ValueError),
]


@pytest.mark.parametrize(("settings", "error"), WRONG, ids=lambda each: str(each)[:50])
def test_a_wrong_value_is_named_and_nothing_has_changed(settings: dict[str, Any], error: type[Exception]) -> None:
    words = "|".join(f"{name}=" for name in settings)
    assert_setting_refused(ours, parameters([17, 33]), settings, error, words)
