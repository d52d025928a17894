"""Classes derived from CyclicLR with a get_lr() of their own: beside the same ones derived from torch's."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Optimizer, lr_scheduler

from clr_native import CyclicLR, CyclicSchedule, RampSchedule
from helpers import picture
from schedulers import adam, advance, momenta, rates, sgd, values

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


def tensor_lr(groups: int) -> Optimizer:
    optimizer = sgd(groups)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(7.0)
    return optimizer


OPTIMIZERS = [sgd, adam, tensor_lr]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("optimizer_of", OPTIMIZERS)
def test_step_writes_what_get_lr_says_as_torchs_does(optimizer_of: Callable[[int], Optimizer], rule: str) -> None:
    both = [
        (derived(base, RULES[rule])(optimizer := optimizer_of(2), **ARGUMENTS), optimizer)
        for base in (CyclicLR, lr_scheduler.CyclicLR)
    ]
    for _ in range(12):
        (ours, optimizer), (theirs, reference) = both
        assert values(optimizer) == values(reference)
        assert ours.get_last_lr() == theirs.get_last_lr() == rates(optimizer)
        assert ours.last_epoch == theirs.last_epoch
        assert not ours._get_lr_called_within_step
        for each, of in both:
            advance(each, of)


@pytest.mark.parametrize("name", ["get_lr", "_get_closed_form_lr"])
@pytest.mark.parametrize("rule", ["constant", "halved"])
def test_a_step_to_an_epoch_asks_the_closed_form_if_there_is_one(rule: str, name: str) -> None:
    both = [
        (derived(base, RULES[rule], name)(optimizer := sgd(2), **ARGUMENTS), optimizer)
        for base in (CyclicLR, lr_scheduler.CyclicLR)
    ]
    for epoch in (None, 3, 7, None, 2):
        for scheduler, optimizer in both:
            optimizer.step()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scheduler.step(epoch)
        (ours, optimizer), (theirs, reference) = both
        assert values(optimizer) == values(reference)
        assert (ours.last_epoch, ours.get_last_lr()) == (theirs.last_epoch, theirs.get_last_lr())


@pytest.mark.parametrize("base", [CyclicLR, lr_scheduler.CyclicLR])
def test_one_of_a_sequence(base: Any) -> None:
    optimizer = sgd(2)
    warm_up = lr_scheduler.ConstantLR(optimizer, 0.5, 99)
    scheduler = lr_scheduler.SequentialLR(optimizer, [warm_up, derived(base, halved)(optimizer, **ARGUMENTS)], [2])
    advance(scheduler, optimizer, 2)
    seen = []
    for _ in range(3):
        seen.append(values(optimizer))
        advance(scheduler, optimizer)
    assert seen == [
        [(0.5, 0.75), (1.0, 1.0)],
        [(1.0, 0.625), (2.0, 0.875)],
        [(1.5, 0.5), (3.0, 0.75)],
    ]


def test_a_get_lr_of_one_scheduler_alone() -> None:
    optimizer = sgd(2)
    scheduler: Any = CyclicLR(optimizer, **ARGUMENTS)
    scheduler.get_lr = lambda: [7.0, 9.0]
    advance(scheduler, optimizer)
    assert rates(optimizer) == scheduler.get_last_lr() == [7.0, 9.0]
    del scheduler.get_lr
    advance(scheduler, optimizer)
    assert rates(optimizer) == scheduler.get_last_lr() == [3.0, 6.0]


def test_a_late_group_is_asked_for() -> None:
    optimizer = sgd()
    scheduler = derived(CyclicLR, halved)(optimizer, 1, 5, step_size_up=4)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))], "max_lr": 9})
    advance(scheduler, optimizer)
    assert rates(optimizer) == [1.0, 1.5]


# --- saved and loaded -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "optimizer, then construct"])
@pytest.mark.parametrize("optimizer_of", OPTIMIZERS)
@pytest.mark.parametrize("rule", ["constant", "halved", "by attributes"])
def test_a_state_goes_on(rule: str, optimizer_of: Callable[[int], Optimizer], order: str) -> None:
    kind = derived(CyclicLR, RULES[rule])
    optimizer, resumed = optimizer_of(2), optimizer_of(2)
    scheduler = kind(optimizer, **ARGUMENTS)
    advance(scheduler, optimizer, 3)
    saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    assert saved[1]["in_charge"]
    if order == "optimizer, then construct":
        resumed.load_state_dict(saved[0])
    other = kind(resumed, 0.5, 0.75)
    if order == "optimizer first":
        resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    if order == "scheduler first":
        resumed.load_state_dict(saved[0])
    for _ in range(5):
        assert rates(resumed) == rates(optimizer)
        # What no get_lr() writes comes with the optimizer's state, if nothing writes it afterwards, as with torch's.
        assert momenta(resumed) == momenta(optimizer) or (rule, order[:11]) == ("constant", "optimizer, ")
        assert other.get_last_lr() == scheduler.get_last_lr()
        advance(scheduler, optimizer)
        advance(other, resumed)


class Halved(CyclicLR):
    def get_lr(self) -> Any:
        return [lr / 2 for lr in super().get_lr()]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_copies_go_on(copied: Callable[[Any], Any]) -> None:
    optimizer = sgd(2)
    scheduler = Halved(optimizer, **ARGUMENTS)
    advance(scheduler, optimizer, 3)
    other_optimizer, other = copied((optimizer, scheduler))
    assert other.get_last_lr() == scheduler.get_last_lr() == [2.0, 4.0]
    for each in (other, scheduler):
        each._update_lr()
    assert values(other_optimizer) == values(optimizer) == [(2.5, 0.25), (5.0, 0.5)]


def test_other_schedules_are_asked_for_anew() -> None:
    optimizer = sgd(2)
    scheduler = Halved(optimizer, **ARGUMENTS)
    advance(scheduler, optimizer)
    scheduler.schedules = RampSchedule(0, 4, 4)
    assert rates(optimizer) == scheduler.get_last_lr() == [0.5, 0.5]
    assert momenta(optimizer) == [0.5, 0.5]  # the optimizer's own, as the ramp has none


# --- refused --------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Rule, str]] = {
    "nothing": (lambda self: None, r"TypeError: get_lr\(\) gave None: it must give a list of learning rates"),
    "one number": (lambda self: 0.5, r"TypeError: get_lr\(\) gave 0\.5: it must give a list"),
    "too few": (lambda self: [0.5], r"ValueError: get_lr\(\) gave 1 learning rates for 2 parameter groups"),
    "too many": (lambda self: [0.5] * 3, r"ValueError: get_lr\(\) gave 3 learning rates"),
    "negative": (lambda self: [0.5, -1.0], r"ValueError: parameter group 1: lr=-1\.0 of get_lr\(\) must be finite"),
    "NaN": (lambda self: [0.5, math.nan], "ValueError: parameter group 1: lr=nan"),
    "text": (lambda self: ["0.5", 1], "TypeError: parameter group 0: lr='0.5' must be a number"),
    "its own error": (lambda self: [rate for rate in self.inherited() if 1 / 0], "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("optimizer_of", OPTIMIZERS)
def test_what_cannot_be_written_changes_nothing(optimizer_of: Callable[[int], Optimizer], name: str) -> None:
    rule, message = REFUSED[name]
    kind, text = message.split(": ", 1)

    def late(self: Any) -> Any:
        return rule(self) if self.last_epoch == 2 else halved(self)

    optimizer = optimizer_of(2)
    scheduler = derived(CyclicLR, late)(optimizer, **ARGUMENTS)
    state = {**scheduler.state_dict(), "last_epoch": 2}
    advance(scheduler, optimizer)
    optimizer.step()
    before = picture(optimizer), scheduler.state_dict()
    actions: list[Callable[[], Any]] = [scheduler._update_lr, lambda: scheduler.load_state_dict(state)]
    for action in actions:
        with pytest.raises((TypeError, ValueError, ZeroDivisionError)) as caught:
            action()
        assert (type(caught.value).__name__, bool(caught.match(f"^{text}"))) == (kind, True)
        assert (picture(optimizer), scheduler.state_dict()) == before
        assert not scheduler._get_lr_called_within_step
    fresh = optimizer_of(2)
    before_it = picture(fresh)
    with pytest.raises((TypeError, ValueError, ZeroDivisionError)):
        derived(CyclicLR, rule)(fresh, **ARGUMENTS)
    assert picture(fresh) == before_it


def test_a_tensor_that_groups_share_cannot_hold_two_rates() -> None:
    optimizer = sgd(2, lr=torch.tensor(7.0))
    with pytest.raises(ValueError, match=r"parameter group 0: lr=0\.5 .* give each group a tensor of its own"):
        derived(CyclicLR, lambda self: [0.5, 0.25])(optimizer, 1, 5)
    assert rates(optimizer) == [7.0, 7.0]


@pytest.mark.parametrize("name", ["scale_fn", "mode", "max_lrs", "total_size"])
def test_other_things_of_a_subclass_would_not_be_read(name: str) -> None:
    optimizer = sgd()
    before = picture(optimizer)
    with pytest.raises(TypeError, match=f"Mine.{name} would not be read: say it by the arguments of CyclicLR"):
        derived(CyclicLR, constant, name)(optimizer, 1, 5)
    assert picture(optimizer) == before


def test_a_subclass_without_them_is_as_before() -> None:
    optimizer = sgd()
    scheduler = derived(CyclicLR, constant, "other")(optimizer, schedule=CyclicSchedule(1, 5, step_size_up=4))
    advance(scheduler, optimizer)
    assert (rates(optimizer), scheduler._last) == ([2.0], None)
