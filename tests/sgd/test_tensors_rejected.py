"""A step that cannot be done raises TypeError or ValueError with name=value, and then nothing has changed.

Each case spoils one parameter or group of several, the first or the last, before the first step or later; the step is
refused twice, the harm undone, and training goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import (
    assert_refused,
    assert_same_state,
    every_parameter,
    give,
    gradient_of,
    gradient_sets,
    parameters,
    picture,
    raised,
)

Undo = Callable[[], object]
NAN, INF = float("nan"), float("inf")


class Spoiled(NamedTuple):
    optimizer: FusedCyclicSGD
    parameter: Tensor
    group: dict[str, Any]


def attribute(name: str, replacement: Callable[[Tensor], Tensor]) -> Callable[[Spoiled], Undo]:
    def spoil(at: Spoiled) -> Undo:
        kept = getattr(at.parameter, name)
        setattr(at.parameter, name, replacement(at.parameter.detach()))
        return lambda: setattr(at.parameter, name, kept)

    return spoil


gradient = partial(attribute, "grad")
parameter_data = partial(attribute, "data")


def freed(t: Tensor) -> Tensor:
    made = torch.zeros_like(t)
    made.untyped_storage().resize_(0)
    return made


def gradient_data(replacement: Callable[[Tensor], Tensor]) -> Callable[[Spoiled], Undo]:
    """Past torch's own checks of `p.grad = ...`."""

    def spoil(at: Spoiled) -> Undo:
        undo = gradient(torch.zeros_like)(at)
        gradient_of(at.parameter).data = replacement(at.parameter.detach())
        return undo

    return spoil


def freed_storage(at: Spoiled) -> Undo:
    storage, kept = at.parameter.untyped_storage(), at.parameter.detach().clone()
    size = storage.nbytes()
    storage.resize_(0)

    def undo() -> None:
        storage.resize_(size)
        at.parameter.data.copy_(kept)

    return undo


def state(replacement: Callable[[Tensor], Any]) -> Callable[[Spoiled], Undo]:
    def spoil(at: Spoiled) -> Undo:
        kept = at.optimizer.state.pop(at.parameter, None)
        at.optimizer.state[at.parameter] = replacement(at.parameter.detach())

        def undo() -> None:
            del at.optimizer.state[at.parameter]
            if kept is not None:
                at.optimizer.state[at.parameter] = kept

        return undo

    return spoil


def buffer(replacement: Callable[[Tensor], object]) -> Callable[[Spoiled], Undo]:
    return state(lambda t: {"momentum_buffer": replacement(t)})


def entry(**values: Any) -> Callable[[Spoiled], Undo]:
    def spoil(at: Spoiled) -> Undo:
        kept = {name: at.group[name] for name in values}
        at.group.update(values)
        return lambda: at.group.update(kept)

    return spoil


def without(name: str) -> Callable[[Spoiled], Undo]:
    def spoil(at: Spoiled) -> Undo:
        kept = at.group.pop(name)
        return lambda: at.group.update({name: kept})

    return spoil


def of(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda t: torch.zeros(t.shape, dtype=dtype)


def shorter(t: Tensor) -> Tensor:
    return torch.zeros(t.shape[0] - 1, *t.shape[1:])


CASES: dict[str, tuple[Callable[[Spoiled], Undo], type[Exception], str]] = {
    "gradient: short": (gradient_data(shorter), ValueError, r"shape=.*\[2, 4\]"),
    "gradient: long": (gradient_data(lambda t: torch.zeros(4, 4)), ValueError, r"shape=.*\[4, 4\]"),
    "gradient: same size": (gradient_data(lambda t: torch.zeros(4, 3)), ValueError, r"shape=.*\[4, 3\]"),
    "gradient: more dimensions": (gradient_data(lambda t: t[None]), ValueError, r"shape=.*\[1, 3, 4\]"),
    "gradient: one value": (gradient_data(lambda t: torch.zeros(())), ValueError, r"shape=.*\[\]"),
    "gradient: float64": (gradient_data(of(torch.float64)), TypeError, "dtype=torch.float64"),
    "gradient: int32": (gradient_data(of(torch.int32)), TypeError, "dtype=torch.int32"),
    "gradient: complex64": (gradient_data(of(torch.complex64)), TypeError, "dtype=torch.complex64"),
    "gradient: conj": (
        gradient_data(lambda t: torch.zeros(3, 4, dtype=torch.complex64).conj()),
        TypeError,
        "is_conj=True|dtype=torch.complex64",
    ),
    "gradient: sparse": (gradient(lambda t: t.to_sparse()), TypeError, "layout=torch.sparse_coo"),
    "gradient: neg": (gradient(torch._neg_view), TypeError, "is_neg=True"),
    "gradient: freed": (gradient(freed), TypeError, "type=Tensor"),
    "parameter: freed": (freed_storage, TypeError, "type=Tensor"),
    "parameter: complex64": (parameter_data(of(torch.complex64)), TypeError, "dtype=torch.complex64"),
    "parameter: float8": (parameter_data(of(torch.float8_e4m3fn)), TypeError, "dtype=torch.float8_e4m3fn"),
    "parameter: other shape": (parameter_data(shorter), ValueError, r"shape=.*\[3, 4\]"),
    "parameter: expanded": (parameter_data(lambda t: t[:1].expand(3, 4)), ValueError, r"stride=\(0, 1\)"),
    "parameter: overlapping": (
        parameter_data(lambda t: torch.zeros(9).as_strided((3, 4), (2, 1))),
        ValueError,
        r"stride=\(2, 1\)",
    ),
    "buffer: short": (buffer(shorter), ValueError, r"momentum_buffer.*shape=.*\[2, 4\]"),
    "buffer: float64": (buffer(of(torch.float64)), TypeError, "momentum_buffer.*dtype=torch.float64"),
    "buffer: meta": (buffer(lambda t: t.to("meta")), TypeError, "momentum_buffer.*device=meta"),
    "buffer: sparse": (buffer(lambda t: t.to_sparse()), TypeError, "momentum_buffer.*layout=torch.sparse_coo"),
    "buffer: neg": (buffer(torch._neg_view), TypeError, "momentum_buffer.*is_neg=True"),
    "buffer: list": (buffer(lambda t: [0.0]), TypeError, "momentum_buffer.*type=list"),
    "buffer: number": (buffer(lambda t: 0.0), TypeError, "momentum_buffer.*type=float"),
    "state: no dict": (state(lambda t: []), TypeError, "state"),
    "lr: NaN": (entry(lr=NAN), ValueError, "lr=nan"),
    "lr: inf": (entry(lr=INF), ValueError, "lr=inf"),
    "lr: negative": (entry(lr=-0.1), ValueError, r"lr=-0\.1"),
    "lr: str": (entry(lr="0.1"), TypeError, r"lr='0\.1'"),
    "lr: None": (entry(lr=None), TypeError, "lr=None"),
    "lr: two values": (entry(lr=torch.ones(2)), TypeError, "lr=tensor"),
    "lr: NaN tensor": (entry(lr=torch.tensor(NAN)), ValueError, "lr=nan"),
    "lr: huge int": (entry(lr=10**400), TypeError, "lr=1000"),
    "lr: lost": (without("lr"), ValueError, "lr"),
    "momentum: above 1": (entry(momentum=1.5), ValueError, r"momentum=1\.5"),
    "momentum: negative": (entry(momentum=-0.1), ValueError, r"momentum=-0\.1"),
    "momentum: NaN": (entry(momentum=NAN), ValueError, "momentum=nan"),
    "momentum: str": (entry(momentum="0.9"), TypeError, r"momentum='0\.9'"),
    "weight_decay: negative": (entry(weight_decay=-0.5), ValueError, r"weight_decay=-0\.5"),
    "weight_decay: NaN": (entry(weight_decay=NAN), ValueError, "weight_decay=nan"),
    "weight_decay: str": (entry(weight_decay="0"), TypeError, "weight_decay='0'"),
    "weight_decay: lost": (without("weight_decay"), ValueError, "weight_decay"),
    "dampening: inf": (entry(dampening=INF), ValueError, "dampening=inf"),
    "dampening with nesterov": (entry(dampening=0.5, nesterov=True), ValueError, r"dampening=0\.5"),
    "nesterov: str": (entry(nesterov="yes"), TypeError, "nesterov='yes'"),
    "maximize: number": (entry(maximize=2), TypeError, "maximize=2"),
    "applied_steps: negative": (entry(applied_steps=-1), ValueError, "applied_steps=-1"),
    "applied_steps: float": (entry(applied_steps=1.5), ValueError, r"applied_steps=1\.5"),
    "applied_steps: too large": (entry(applied_steps=2**63 - 1), ValueError, f"applied_steps={2**63 - 1}"),
    "schedule: number": (entry(schedule=3), TypeError, "schedule=3"),
    "schedule: bad value": (entry(schedule={"base_lr": -1.0, "max_lr": 0.5}), ValueError, r"base_lr=-1\.0"),
    "schedule: unknown key": (entry(schedule={"base_lr": 0.1, "max_lr": 0.5, "up": 3}), ValueError, "up=3"),
    "params: tuple": (entry(params=()), TypeError, "params"),
}


def made(steps: int) -> FusedCyclicSGD:
    """Eight parameters of shape (3, 4) in two groups."""
    over = parameters([(3, 4)] * 8)
    optimizer = FusedCyclicSGD([{"params": over[:5]}, {"params": over[5:]}], 0.1, 0.5, step_size_up=3)
    for gradients in gradient_sets(over, 5)[:steps]:
        give(over, gradients)
        optimizer.step()
    give(over, gradient_sets(over, 1, seed=3)[0])
    return optimizer


def goes_on(optimizer: FusedCyclicSGD, untouched: FusedCyclicSGD, steps: int) -> None:
    for each in (optimizer, untouched):
        for _ in range(3):
            each.step()
    assert_same_state(optimizer, untouched)
    assert [g["applied_steps"] for g in optimizer.param_groups] == [steps + 3] * 2


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("case", CASES)
def test_refused_with_nothing_changed(case: str, place: str, steps: int) -> None:
    spoil, error, words = CASES[case]
    optimizer, untouched = made(steps), made(steps)
    at = 0 if place == "first" else -1
    undo = spoil(Spoiled(optimizer, every_parameter(optimizer)[at], optimizer.param_groups[at]))
    assert_refused(optimizer.step, error, words, optimizer)
    undo()
    goes_on(optimizer, untouched, steps)


CHANGED: list[dict[str, Any]] = [
    {"weight_decay": 0.5},
    {"dampening": 0.5},
    {"maximize": True},
    {"nesterov": True},
    {"lr": 0.01},
    {"momentum": 0.1},
    {"applied_steps": 17},
]


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("changed", CHANGED, ids=str)
def test_what_stood_in_a_group_at_a_refused_step_is_forgotten(changed: dict[str, Any], steps: int) -> None:
    """A setting, hand-written lr or position that was there only while the step was refused."""
    optimizer, untouched = made(steps), made(steps)
    undo = entry(**changed)(Spoiled(optimizer, every_parameter(optimizer)[0], optimizer.param_groups[0]))
    restore = gradient(torch._neg_view)(Spoiled(optimizer, every_parameter(optimizer)[-1], {}))
    assert_refused(optimizer.step, TypeError, "is_neg", optimizer)
    restore()
    undo()
    goes_on(optimizer, untouched, steps)


def test_a_state_that_makes_no_entries_of_its_own() -> None:
    """A plain dict in place of torch's defaultdict: taken, or refused with nothing changed."""
    optimizer = made(0)
    optimizer.state = {}  # type: ignore[assignment]  # wrong on purpose
    before = picture(optimizer)
    error = raised(optimizer.step)
    if error is not None:
        assert picture(optimizer) == before
    else:
        assert len(optimizer.state) == 8
