"""clr_native.GradScaler after errors, and its state: as torch's, and never half done."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable

import pytest
import torch
from torch.optim import Optimizer

from amp_helpers import INF, SCALERS, amp_attributes, scaled, with_gradients
from clr_native import GradScaler
from helpers import COPIES, assert_refused, every_parameter, raised

# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("own", [{}, {"grad_scale": 2.0}])
def test_after_an_error_all_is_as_before_and_the_step_can_be_repeated(own: dict[str, float], by_hand: bool) -> None:
    scaler, optimizer = scaled(), with_gradients()
    weight = every_parameter(optimizer)[0]
    if by_hand:
        scaler.unscale_(optimizer)
    gradient = weight.grad
    vars(optimizer).update(own)
    weight.grad = None
    weight.grad = torch.zeros(9)
    weight.grad.data = torch.zeros(3)
    assert_refused(lambda: scaler.step(optimizer), ValueError, "shape=", optimizer)
    assert amp_attributes(optimizer) == own
    weight.grad = gradient
    scaler.step(optimizer)
    assert not amp_attributes(optimizer)
    scaler.update()


def test_an_error_of_a_pre_hook_leaves_nothing_behind() -> None:
    scaler, optimizer = scaled(), with_gradients()

    def fail(*_: object) -> None:
        raise KeyError("hook")

    handle = optimizer.register_step_pre_hook(fail)
    assert_refused(lambda: scaler.step(optimizer), KeyError, "hook", optimizer)
    assert not amp_attributes(optimizer)
    handle.remove()
    scaler.step(optimizer)


def refused(what: str, scaler: torch.amp.GradScaler, optimizer: Optimizer) -> None:
    if what == "closure":
        scaler.step(optimizer, closure=lambda: 0.0)
    elif what == "no scale yet":
        type(scaler)("cpu").step(optimizer)
    elif what == "no step before update":
        scaler.update()
    elif what == "unscale_ twice":
        scaler.unscale_(optimizer)
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    if what == "step twice":
        scaler.step(optimizer)
    elif what == "unscale_ after step":
        scaler.unscale_(optimizer)
    elif what == "pickled before update":
        pickle.dumps(scaler)


WHAT = ["closure", "no scale yet", "no step before update", "unscale_ twice"]
WHAT += ["step twice", "unscale_ after step", "pickled before update"]


@pytest.mark.parametrize("what", WHAT)
def test_refuses_what_torchs_refuses(what: str) -> None:
    errors = [raised(functools.partial(refused, what, scaled(kind), with_gradients())) for kind in SCALERS]
    assert errors[0] is not None
    assert repr(errors[0]) == repr(errors[1])


def test_the_second_step_changes_nothing() -> None:
    scaler, optimizer = scaled(), with_gradients()
    scaler.step(optimizer)
    words = r"step\(\) has already been called since the last update\(\)"
    assert_refused(lambda: scaler.step(optimizer), RuntimeError, words, optimizer)
    assert not amp_attributes(optimizer)
    scaler.update()
    scaler.step(optimizer)


# --- state --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [SCALERS, SCALERS[::-1]])
def test_state_dicts_go_from_one_class_to_the_other(order: list[type[torch.amp.GradScaler]]) -> None:
    settings = {"growth_factor": 1.7, "backoff_factor": 0.3, "growth_interval": 3}
    first = scaled(order[0], 11.0, **settings)
    optimizer = with_gradients()
    for _ in range(5):
        first.step(optimizer)
        first.update()
    second = scaled(order[1])
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    for _ in range(5):
        for scaler in (first, second):
            scaler.step(optimizer)
            scaler.update()
        assert second.state_dict() == first.state_dict()


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_go_on(copied: Callable[[GradScaler], GradScaler]) -> None:
    scaler = scaled(growth_interval=3)
    optimizer = with_gradients(value=INF)
    scaler.step(optimizer)
    scaler.update()
    twin = copied(scaler)  # type: ignore[arg-type]  # scaled() gives either class
    assert type(twin) is GradScaler
    assert twin.state_dict() == scaler.state_dict()
    twin.scale(torch.ones(()))
    twin.step(optimizer)
    twin.update()
    assert twin.get_scale() == 2.0
    assert scaler.get_scale() == 4.0


def test_a_scale_by_hand_clears_what_was_recorded() -> None:
    scaler, optimizer = scaled(), with_gradients(value=INF)
    scaler.step(optimizer)
    scaler.update(32.0)
    assert scaler.get_scale() == 32.0
    assert scaler._found_inf_per_device(optimizer) == {}
