"""Wrappers that take the optimizer's place: whatever is called or set on them acts on the optimizer itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from clr_native import FusedCyclicSGD
from helpers import bits, every_parameter, give, gradient_sets, parameters

ATTRIBUTES: dict[str, Any] = {
    "max_grad_norm": 0.5,
    "max_grad_value": 0.25,
    "skip_nonfinite": True,
    "advance_on_skip": True,
    "write_unscaled_grad": True,
    "grad_scale_in_step": True,
}


class ByClass:
    """As LightningOptimizer: an heir of both classes that starts with the attributes of the wrapped one."""

    def __init__(self, optimizer: FusedCyclicSGD) -> None:
        self.__dict__ = {name: value for name, value in optimizer.__dict__.items() if name != "step"}
        self.__class__ = type("Wrapped", (ByClass, type(optimizer)), {})
        self._optimizer = optimizer

    def step(self, *arguments: Any) -> Any:
        return self._optimizer.step(*arguments)


class ByForwarding:
    """Forwards what it has not itself, to read; what is set stays on it."""

    def __init__(self, optimizer: FusedCyclicSGD) -> None:
        self._optimizer = optimizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


WRAPPERS = [ByClass, ByForwarding]


def made(**settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(parameters([3, 17]), 0.01, 0.1, step_size_up=3, **settings)


def train(optimizer: Any, over: FusedCyclicSGD, steps: int, seed: int = 1) -> None:
    for gradients in gradient_sets(every_parameter(over), steps, seed=seed):
        give(every_parameter(over), [g.clone() for g in gradients])
        optimizer.step()


def same(a: FusedCyclicSGD, b: FusedCyclicSGD) -> bool:
    weights = [[bits(p) for p in every_parameter(each)] for each in (a, b)]
    return weights[0] == weights[1] and a.state_dict()["param_groups"] == b.state_dict()["param_groups"]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_set_on_a_class_wrapper_is_the_optimizers(name: str) -> None:
    optimizer = made()
    wrapper = ByClass(optimizer)
    setattr(wrapper, name, ATTRIBUTES[name])
    assert getattr(optimizer, name) == getattr(wrapper, name) == ATTRIBUTES[name]


@pytest.mark.parametrize("kind", WRAPPERS)
def test_every_method_acts_on_the_optimizer(kind: Any) -> None:
    plain, optimizer = made(ema_decay=0.5), made(ema_decay=0.5)
    wrapper = kind(optimizer)
    train(plain, plain, 4)
    train(wrapper, optimizer, 4)
    saved = copy.deepcopy(wrapper.state_dict())
    for each in (plain, wrapper):
        each.seek(1)
    train(plain, plain, 2)
    train(wrapper, optimizer, 2)
    assert same(plain, optimizer)
    for each in (plain, wrapper):
        each.load_state_dict(copy.deepcopy(saved))
        each.add_param_group({"params": parameters([5], seed=9)})
    train(plain, plain, 5)
    train(wrapper, optimizer, 5)
    assert same(plain, optimizer)
    assert wrapper.state is optimizer.state
    assert wrapper.param_groups is optimizer.param_groups
    assert wrapper.applied_steps == optimizer.applied_steps == 9
    assert wrapper.get_last_lr() == wrapper.as_scheduler().get_last_lr() == plain.get_last_lr()
    assert (wrapper.last_lr, wrapper.last_momentum, wrapper.cycle) == (plain.last_lr, plain.last_momentum, 1)
    held = [bits(p) for p in every_parameter(optimizer)]
    with wrapper.averaged_weights():
        assert [bits(p) for p in every_parameter(optimizer)] != held
    assert [bits(p) for p in every_parameter(optimizer)] == held


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_checkpoint_that_does_not_fit_changes_nothing(kind: Any) -> None:
    optimizer = made()
    wrapper = kind(optimizer)
    train(wrapper, optimizer, 2)
    before, groups, state = copy.deepcopy(optimizer.state_dict()), optimizer.param_groups, optimizer.state
    bad = copy.deepcopy(before)
    bad["state"][0]["momentum_buffer"] = torch.ones(4)
    with pytest.raises(ValueError, match="shape"):
        wrapper.load_state_dict(bad)
    after = optimizer.state_dict()
    assert str(after) == str(before)
    assert (optimizer.param_groups is groups, optimizer.state is state) == (True, True)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_release_lives_as_long_as_the_optimizer(kind: Any) -> None:
    """The wrapper on which it was asked for may be gone."""
    optimizer = made()
    handle = kind(optimizer).release_gradients()
    torch.cat(every_parameter(optimizer)).sum().backward()  # type: ignore[no-untyped-call]  # torch's
    assert all(p.grad is None for p in every_parameter(optimizer))
    optimizer.step()
    assert optimizer.applied_steps == 1
    handle.remove()


def test_no_state_stands_in_the_class() -> None:
    """Every wrapper's class would share it."""
    mutable = [name for name, value in vars(FusedCyclicSGD).items() if isinstance(value, list | set)]
    assert mutable == []
