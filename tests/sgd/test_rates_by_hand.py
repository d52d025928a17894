"""Rates by hand under ``lr=`` alone: whatever is written between steps, in any order, trains as torch's SGD."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clr_native import FusedCyclicSGD
from helpers import every_parameter, give, gradient_sets, parameters

Group = dict[str, Any]

# What may be done to a group between two steps. The first ones come most often. At momentum 0 torch leaves buffers out.
CHANGES: list[Callable[[Group, random.Random], object]] = [
    *[lambda group, choose: group.update(lr=choose.random())] * 4,
    *[lambda group, choose: group.update(lr=choose.random(), momentum=choose.random())] * 4,
    lambda group, choose: group.update(momentum=choose.random()),
    lambda group, choose: group.update(lr=group["lr"]),
    lambda group, choose: group.update(lr=1, momentum=1),
    lambda group, choose: group.update(lr=torch.tensor(choose.random(), dtype=torch.float64)),
    lambda group, choose: group.update(weight_decay=choose.random()),
    lambda group, choose: group.update(lr=choose.random(), maximize=not group["maximize"]),
    lambda group, choose: group.update({f"foreign {choose.random()}": 1}),
    lambda group, choose: group.update(momentum=group.pop("momentum")),  # behind all others
    lambda group, choose: group["lr"].fill_(choose.random()) if isinstance(group["lr"], torch.Tensor) else None,
    lambda group, choose: None,
]


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence_of_changes_trains_as_sgd(seed: int) -> None:
    def made(kind: Any, **settings: Any) -> Any:
        return kind([{"params": parameters([9]), "dampening": 0.0}, {"params": parameters([3, 5])}], **settings)

    ours = made(FusedCyclicSGD, lr=0.1)
    theirs = made(torch.optim.SGD, lr=0.1, momentum=0.9, foreach=False)
    choices = [random.Random(seed) for _ in range(2)]
    for step, gradients in enumerate(gradient_sets(every_parameter(ours), 60)):
        for optimizer, choose in zip((ours, theirs), choices, strict=True):
            for group in optimizer.param_groups:
                choose.choice(CHANGES)(group, choose)
            give(every_parameter(optimizer), [g.clone() for g in gradients])
            optimizer.step()
        assert [float(lr) for lr in ours.last_lr] == [float(group["lr"]) for group in theirs.param_groups], step
    for p, q in zip(every_parameter(ours), every_parameter(theirs), strict=True):
        assert torch.equal(p, q)
    assert ours.applied_steps == 60


@pytest.mark.parametrize(
    "bad", [{"lr": -1.0}, {"lr": float("nan")}, {"momentum": 1.5}, {"lr": "2"}, {"momentum": None}]
)
def test_a_bad_value_after_many_good_ones_is_refused(bad: Group) -> None:
    optimizer = FusedCyclicSGD(parameters([9]), lr=0.1)
    (p,) = every_parameter(optimizer)
    for step in range(5):
        optimizer.param_groups[0].update(lr=0.1 + step, momentum=0.5)
        p.grad = torch.ones(9)
        optimizer.step()
    before = p.detach().clone()
    optimizer.param_groups[0].update(bad)
    with pytest.raises((ValueError, TypeError), match=f"parameter group 0: {next(iter(bad))}="):
        optimizer.step()
    assert torch.equal(p, before)
    optimizer.param_groups[0].update(lr=0.1, momentum=0.5)
    optimizer.step()
    assert (optimizer.applied_steps, optimizer.last_lr) == (6, [0.1])
