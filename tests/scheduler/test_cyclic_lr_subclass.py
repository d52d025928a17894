"""Classes derived from CyclicLR with a get_lr() of their own: beside the same ones derived from torch's."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Optimizer, lr_scheduler

from clr_native import CyclicLR, CyclicSchedule, RampSchedule
from schedulers import COPIES, adam, advance, assert_same_run, load, momenta, rates, refused, sgd, tensor_lr, values

Rule = Callable[[Any], Any]
ARGUMENTS: dict[str, Any] = {
    **{"base_lr": [1, 2], "max_lr": [5, 10], "base_momentum": [0.25, 0.5], "max_momentum": [0.75, 1]},
    "step_size_up": 4,
}


def constant(self: Any) -> Any:
    return [7.0] * len(self.optimizer.param_groups)


def halved(self: Any) -> Any:
    return [lr / 2 for lr in self.inherited()]


def chained(self: Any) -> Any:
    return (group["lr"] * 0.5 for group in self.optimizer.param_groups)


def by_attributes(self: Any) -> Any:
    """Exponential between torch's bounds, with a momentum of its own, as scripts copy torch's formula."""
    cycle = math.floor(1 + self.last_epoch / self.total_size)
    x = 1.0 + self.last_epoch / self.total_size - cycle
    s = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
    for group, low, high in zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True):
        momentum = high - (high - low) * s * self.scale_fn(cycle)
        if self.use_beta1:
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum
    return [low * (high / low) ** s for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]


def warning_outside_steps(self: Any) -> Any:
    if not self._get_lr_called_within_step:
        warnings.warn("outside", UserWarning, stacklevel=2)
    return [0.5, 0.25]


RULES: dict[str, Rule] = {
    "constant": constant,
    "halved": halved,
    "chained": chained,
    "by attributes": by_attributes,
    "with torch's flag": warning_outside_steps,
}


def derived(base: Any, rule: Rule, name: str = "get_lr") -> Any:
    def inherited(self: Any) -> Any:
        return base.get_lr(self)

    def own(self: Any, *arguments: Any) -> Any:
        return rule(self)

    own.__name__ = name
    return type("Mine", (base,), {name: own, "inherited": inherited})


def pair(optimizer_of: Callable[[int], Optimizer], rule: Rule, name: str = "get_lr") -> list[Any]:
    """Returns the class derived from ours and that derived from torch's, each with an optimizer of its own."""
    return [derived(base, rule, name)(optimizer_of(2), **ARGUMENTS) for base in (CyclicLR, lr_scheduler.CyclicLR)]


OPTIMIZERS = [sgd, adam, tensor_lr]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("optimizer_of", OPTIMIZERS)
def test_step_writes_what_get_lr_says_as_torchs_does(optimizer_of: Callable[[int], Optimizer], rule: str) -> None:
    ours, theirs = pair(optimizer_of, RULES[rule])
    for _ in range(12):
        assert ours.get_last_lr() == rates(ours)
        assert ours.last_epoch == theirs.last_epoch
        assert not ours._get_lr_called_within_step
        assert_same_run(ours, theirs, 1)


@pytest.mark.parametrize("name", ["get_lr", "_get_closed_form_lr"])
@pytest.mark.parametrize("rule", ["constant", "halved"])
def test_a_step_to_an_epoch_asks_the_closed_form_if_there_is_one(rule: str, name: str) -> None:
    ours, theirs = pair(sgd, RULES[rule], name)
    for epoch in (None, 3, 7, None, 2):
        for scheduler in (ours, theirs):
            scheduler.optimizer.step()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scheduler.step(epoch)
        assert values(ours) == values(theirs)
        assert (ours.last_epoch, ours.get_last_lr()) == (theirs.last_epoch, theirs.get_last_lr())


@pytest.mark.parametrize("base", [CyclicLR, lr_scheduler.CyclicLR])
def test_one_of_a_sequence(base: Any) -> None:
    optimizer = sgd(2)
    warm_up = lr_scheduler.ConstantLR(optimizer, 0.5, 99)
    scheduler = lr_scheduler.SequentialLR(optimizer, [warm_up, derived(base, halved)(optimizer, **ARGUMENTS)], [2])
    advance(scheduler, steps=2)
    for expected in ([(0.5, 0.75), (1.0, 1.0)], [(1.0, 0.625), (2.0, 0.875)], [(1.5, 0.5), (3.0, 0.75)]):
        assert values(scheduler) == expected
        advance(scheduler)


def test_a_get_lr_of_one_scheduler_alone() -> None:
    scheduler: Any = CyclicLR(sgd(2), **ARGUMENTS)
    scheduler.get_lr = lambda: [7.0, 9.0]
    advance(scheduler)
    assert rates(scheduler) == scheduler.get_last_lr() == [7.0, 9.0]
    del scheduler.get_lr
    advance(scheduler)
    assert rates(scheduler) == scheduler.get_last_lr() == [3.0, 6.0]


def test_a_late_group_is_asked_for() -> None:
    scheduler = derived(CyclicLR, halved)(sgd(), 1, 5, step_size_up=4)
    scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))], "max_lr": 9})
    advance(scheduler)
    assert rates(scheduler) == [1.0, 1.5]


# --- saved and loaded -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "optimizer, then construct"])
@pytest.mark.parametrize("optimizer_of", OPTIMIZERS)
@pytest.mark.parametrize("rule", ["constant", "halved", "by attributes"])
def test_a_state_goes_on(rule: str, optimizer_of: Callable[[int], Optimizer], order: str) -> None:
    kind = derived(CyclicLR, RULES[rule])
    scheduler, resumed = kind(optimizer_of(2), **ARGUMENTS), optimizer_of(2)
    advance(scheduler, steps=3)
    assert scheduler.state_dict()["in_charge"]
    if order == "optimizer, then construct":
        resumed.load_state_dict(copy.deepcopy(scheduler.optimizer.state_dict()))
        other = kind(resumed, 0.5, 0.75)
        other.load_state_dict(scheduler.state_dict())
    else:
        other = kind(resumed, 0.5, 0.75)
        load(other, scheduler, optimizer_last=order == "scheduler first")
    for _ in range(5):
        assert rates(other) == rates(scheduler)
        # What no get_lr() writes comes with the optimizer's state, if nothing writes it afterwards, as with torch's.
        assert momenta(other) == momenta(scheduler) or (rule, order[:11]) == ("constant", "optimizer, ")
        assert other.get_last_lr() == scheduler.get_last_lr()
        advance(scheduler, other)


class Halved(CyclicLR):
    def get_lr(self) -> Any:
        return [lr / 2 for lr in super().get_lr()]


@pytest.mark.parametrize("copied", COPIES)
def test_copies_go_on(copied: Callable[[Any], Any]) -> None:
    scheduler = Halved(sgd(2), **ARGUMENTS)
    advance(scheduler, steps=3)
    other = copied(scheduler)
    assert other.get_last_lr() == scheduler.get_last_lr() == [2.0, 4.0]
    for each in (other, scheduler):
        each._update_lr()
        assert values(each) == [(2.5, 0.25), (5.0, 0.5)]


def test_other_schedules_are_asked_for_anew() -> None:
    scheduler = Halved(sgd(2), **ARGUMENTS)
    advance(scheduler)
    scheduler.schedules = RampSchedule(0, 4, 4)
    assert rates(scheduler) == scheduler.get_last_lr() == [0.5, 0.5]
    assert momenta(scheduler) == [0.5, 0.5]  # the optimizer's own, as the ramp has none


# --- refused --------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Rule, type[Exception], str]] = {
    "nothing": (lambda self: None, TypeError, r"get_lr\(\) gave None: it must give a list of learning rates"),
    "one number": (lambda self: 0.5, TypeError, r"get_lr\(\) gave 0\.5: it must give a list"),
    "too few": (lambda self: [0.5], ValueError, r"get_lr\(\) gave 1 learning rates for 2 parameter groups"),
    "too many": (lambda self: [0.5] * 3, ValueError, r"get_lr\(\) gave 3 learning rates"),
    "negative": (lambda self: [0.5, -1.0], ValueError, r"parameter group 1: lr=-1\.0 of get_lr\(\) must be finite"),
    "NaN": (lambda self: [0.5, math.nan], ValueError, "parameter group 1: lr=nan"),
    "text": (lambda self: ["0.5", 1], TypeError, "parameter group 0: lr='0.5' must be a number"),
    "its own error": (lambda self: [r for r in self.inherited() if 1 / 0], ZeroDivisionError, "division by zero"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("optimizer_of", OPTIMIZERS)
def test_what_cannot_be_written_changes_nothing(optimizer_of: Callable[[int], Optimizer], name: str) -> None:
    rule, error, message = REFUSED[name]

    def late(self: Any) -> Any:
        return rule(self) if self.last_epoch == 2 else halved(self)

    scheduler = derived(CyclicLR, late)(optimizer_of(2), **ARGUMENTS)
    state = {**scheduler.state_dict(), "last_epoch": 2}
    advance(scheduler)
    with refused(f"^{message}", scheduler, error=error):
        scheduler._update_lr()
    with refused(f"^{message}", scheduler, error=error):
        scheduler.load_state_dict(state)
    assert not scheduler._get_lr_called_within_step
    fresh = optimizer_of(2)
    with refused(f"^{message}", fresh, error=error):
        derived(CyclicLR, rule)(fresh, **ARGUMENTS)


def test_a_tensor_that_groups_share_cannot_hold_two_rates() -> None:
    optimizer = sgd(2, lr=torch.tensor(7.0))
    with pytest.raises(ValueError, match=r"parameter group 0: lr=0\.5 .* give each group a tensor of its own"):
        derived(CyclicLR, lambda self: [0.5, 0.25])(optimizer, 1, 5)
    assert rates(optimizer) == [7.0, 7.0]


@pytest.mark.parametrize("name", ["scale_fn", "mode", "max_lrs", "total_size"])
def test_other_things_of_a_subclass_would_not_be_read(name: str) -> None:
    optimizer = sgd()
    with refused(f"Mine.{name} would not be read: say it by the arguments of CyclicLR", optimizer, error=TypeError):
        derived(CyclicLR, constant, name)(optimizer, 1, 5)


def test_a_subclass_without_them_is_as_before() -> None:
    scheduler = derived(CyclicLR, constant, "other")(sgd(), schedule=CyclicSchedule(1, 5, step_size_up=4))
    advance(scheduler)
    assert (rates(scheduler), scheduler._last) == ([2.0], None)
