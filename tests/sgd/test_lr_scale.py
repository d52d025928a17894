"""lr_scale: the factor of a group's rate, under every schedule, in the optimizer and in CyclicLR."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from clr_native import CyclicLR, CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.schedules import Schedule
from helpers import assert_same_training, every_parameter, give, gradient_sets, parameters

SCALES = (1.0, 64.0, 0.1, 0.0)
CYCLIC = CyclicSchedule(0.01, 0.1, step_size_up=3)
SCHEDULES: list[Schedule] = [
    CYCLIC,
    CyclicSchedule(0.01, 0.1, step_size_up=3, scale_fn=lambda k: 1 / k),
    CyclicSchedule(0.01, 0.01, cycle_momentum=False),
    OneCycleSchedule(0.1, 9),
    RampSchedule(0.01, 0.1, 5),
    ScheduleSequence([(RampSchedule(0.01, 0.1, 5), 5), (CYCLIC, None)]),
]


def groups(shapes: tuple[int, ...] = (3, 17, 65, 5)) -> list[dict[str, Any]]:
    return [{"params": [p], "lr_scale": scale} for p, scale in zip(parameters(shapes), SCALES, strict=True)]


@pytest.mark.filterwarnings("ignore:.*past the end:UserWarning")
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: type(each).__name__)
def test_every_update_uses_the_product(schedule: Schedule) -> None:
    """As torch's SGD with the product written by hand; log and groups say the same, also from a checkpoint on."""
    ours = FusedCyclicSGD(groups(), schedule=schedule, momentum=None)
    theirs = torch.optim.SGD(groups(), lr=0.0, momentum=0.9)
    for step, gradients in enumerate(gradient_sets(every_parameter(ours), 12)):
        lr, momentum = schedule(step)
        expected = [scale * lr for scale in SCALES]
        for group, rate in zip(theirs.param_groups, expected, strict=True):
            group.update(lr=rate, momentum=group["momentum"] if momentum is None else momentum)
        assert ours.get_last_lr() == [group["lr"] for group in ours.param_groups] == expected
        for optimizer in (ours, theirs):
            give(every_parameter(optimizer), [g.clone() for g in gradients])
            optimizer.step()
        assert ours.last_lr == expected
        if step == 5:
            saved = ours.state_dict()
            assert not any(group["overridden"] for group in saved["param_groups"])
            ours.load_state_dict(saved)
    assert_same_training(ours, theirs)
    assert ours.applied_steps == 12


def test_a_scale_may_change_between_steps() -> None:
    optimizer = FusedCyclicSGD(groups(), schedule=CYCLIC)
    for scale in (2.0, 0.5, 1.0):
        step = optimizer.applied_steps
        optimizer.param_groups[1]["lr_scale"] = scale
        give(every_parameter(optimizer), [torch.ones_like(p) for p in every_parameter(optimizer)])
        optimizer.step()
        assert optimizer.last_lr[1] == scale * CYCLIC(step).lr
        assert optimizer.applied_steps == step + 1


def test_a_rate_by_itself_or_by_hand_is_used_as_it_is() -> None:
    """timm's schedulers multiply by lr_scale themselves."""
    optimizer = FusedCyclicSGD(groups(), lr=0.1)
    assert optimizer.get_last_lr() == [0.1] * 4
    again = FusedCyclicSGD(groups(), lr=0.3)
    again.load_state_dict(optimizer.state_dict())
    assert again.get_last_lr() == [0.1] * 4
    optimizer = FusedCyclicSGD(groups(), schedule=CYCLIC)
    optimizer.param_groups[1]["lr"] = 0.3
    give(every_parameter(optimizer), [torch.ones_like(p) for p in every_parameter(optimizer)])
    optimizer.step()
    assert optimizer.last_lr[1] == 0.3


@pytest.mark.filterwarnings("ignore:.*past the end:UserWarning")
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("by_beta1", [False, True])
def test_a_scheduler_writes_the_product(by_beta1: bool, schedule: Schedule) -> None:
    optimizer = torch.optim.AdamW(groups()) if by_beta1 else torch.optim.SGD(groups(), momentum=0.9)
    optimizer.param_groups[2]["lr"] = torch.tensor(1.0, dtype=torch.float64)
    scheduler = CyclicLR(optimizer, schedule=schedule)
    for step in range(12):
        expected = [scale * schedule(step).lr for scale in SCALES]
        assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups] == expected
        if step == 5:
            scheduler.load_state_dict(scheduler.state_dict())
            assert scheduler.get_last_lr() == expected
        optimizer.step()
        scheduler.step()


def test_get_lr_of_a_subclass_gives_the_product() -> None:
    class Half(CyclicLR):
        def get_lr(self) -> list[float | torch.Tensor]:
            return [0.5 * float(lr) for lr in super().get_lr()]

    scheduler = Half(torch.optim.SGD(groups(), lr=1.0, momentum=0.9), schedule=CYCLIC)
    assert scheduler.get_last_lr() == [0.5 * scale * 0.01 for scale in SCALES]


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf, "2", None])
def test_a_scale_that_cannot_be_used_is_named(scale: Any) -> None:
    bad = [*groups()[:1], {"params": parameters([3]), "lr_scale": scale}]
    with pytest.raises((ValueError, TypeError), match="parameter group 1: lr_scale="):
        FusedCyclicSGD(bad, schedule=CYCLIC)
    optimizer = torch.optim.SGD([*groups()[:1], {"params": parameters([3]), "lr_scale": scale}], lr=1.0, momentum=0.9)
    with pytest.raises((ValueError, TypeError), match="parameter group 1: lr_scale="):
        CyclicLR(optimizer, schedule=CYCLIC)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0]


def test_a_product_that_overflows_is_refused() -> None:
    big = [{"params": parameters([3]), "lr_scale": 1e300}]
    optimizer = FusedCyclicSGD(big, 1.0, 1e10, step_size_up=2)
    optimizer.param_groups[0]["params"][0].grad = torch.zeros(3)
    optimizer.step()
    with pytest.raises(ValueError, match="lr=inf at applied_steps=1 must be finite"):
        optimizer.step()
    sgd = torch.optim.SGD([{"params": parameters([3]), "lr_scale": 1e300}], lr=1.0)
    scheduler = CyclicLR(sgd, 1.0, 1e10, step_size_up=2, cycle_momentum=False)
    sgd.step()
    with pytest.raises(ValueError, match="lr=inf at last_epoch=1 must be finite"):
        scheduler.step()


def test_a_pair_taken_over_goes_on_without_the_scale_that_torch_ignored() -> None:
    sgd = torch.optim.SGD(groups(), lr=0.1, momentum=0.9)
    optimizer = FusedCyclicSGD.from_torch(sgd, torch.optim.lr_scheduler.CyclicLR(sgd, 0.1, 0.5))
    assert optimizer.get_last_lr() == [0.1] * 4
    with pytest.raises(ValueError, match=r"lr_scale=64\.0: torch\.optim\.SGD does not do that"):
        FusedCyclicSGD(groups(), 0.1, 0.5).to_torch()
