"""What the constructor and parameter groups take, what they refuse, and in which words."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import CyclicSchedule, FusedCyclicSGD
from helpers import parameters

BOUNDS: dict[str, Any] = {"base_lr": 0.1, "max_lr": 0.5}
NAN, INF = float("nan"), float("inf")


def one() -> list[Tensor]:
    return parameters([3])


def refused(error: type[Exception], text: str) -> Any:
    return pytest.raises(error, match=re.escape(text))


@pytest.mark.parametrize("name", ["last_epoch", "foreach", "fused", "capturable", "differentiable"])
def test_arguments_of_torch_that_do_not_exist_here(name: str) -> None:
    unknown: dict[str, Any] = {name: None}
    with refused(TypeError, name):
        FusedCyclicSGD(one(), 0.1, 0.5, **unknown)


def test_signature_is_the_contracts() -> None:
    signature = inspect.signature(FusedCyclicSGD)
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
    assert defaults.pop("params") is inspect.Parameter.empty
    assert defaults == {
        "base_lr": None,
        "max_lr": None,
        "step_size_up": 2000,
        "step_size_down": None,
        "mode": "triangular",
        "gamma": 1.0,
        "decay_steps": None,
        "decay_base": False,
        "scale_fn": None,
        "scale_mode": "cycle",
        "window": "triangular",
        "cycle_momentum": True,
        "base_momentum": 0.8,
        "max_momentum": 0.9,
        "momentum": None,
        "schedule": None,
        "dampening": 0.0,
        "weight_decay": 0.0,
        "nesterov": False,
        "maximize": False,
        "lr_scale": 1.0,
        "max_grad_norm": None,
        "max_grad_value": None,
        "error_if_nonfinite": False,
        "skip_nonfinite": False,
        "advance_on_skip": False,
        "write_unscaled_grad": False,
        "grad_scale_in_step": False,
        "ema_decay": None,
        "ema_warmup": False,
        "average": None,
        "trust_coefficient": None,
        "trust_eps": 1e-8,
        "trust_min_ndim": 2,
        "momentum_dtype": None,
        "rounding": "nearest",
        "seed": 0,
        "kahan": False,
        "master_weights": False,
        "lr": None,
        "process_group": None,
    }
    by_position = [name for name, p in signature.parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert by_position == ["params", "base_lr", "max_lr"]


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"base_lr": None}, ValueError, "base_lr=None"),
    ({"max_lr": None}, ValueError, "max_lr=None"),
    ({"base_lr": None, "max_lr": None}, ValueError, "base_lr=None"),
    ({"base_lr": -0.1}, ValueError, "base_lr=-0.1"),
    ({"base_lr": NAN}, ValueError, "base_lr=nan"),
    ({"base_lr": 1e-271}, ValueError, "base_lr=1e-271"),
    ({"max_lr": 1.1e270}, ValueError, "max_lr=1.1e+270"),
    ({"base_momentum": 5e-324}, ValueError, "base_momentum=5e-324"),
    ({"max_lr": INF}, ValueError, "max_lr=inf"),
    ({"base_lr": 0.6}, ValueError, "base_lr=0.6"),
    ({"base_lr": "0.1"}, TypeError, "base_lr='0.1'"),
    ({"max_lr": [0.1, 0.5]}, TypeError, "max_lr=[0.1, 0.5]"),
    ({"step_size_up": 0}, ValueError, "step_size_up=0"),
    ({"step_size_up": -3}, ValueError, "step_size_up=-3"),
    ({"step_size_up": 2.5}, ValueError, "step_size_up=2.5"),
    ({"step_size_up": 2**53}, ValueError, f"step_size_up={2**53}"),
    ({"step_size_up": None}, TypeError, "step_size_up=None"),
    ({"step_size_down": 0}, ValueError, "step_size_down=0"),
    ({"mode": "square"}, ValueError, "mode='square'"),
    ({"gamma": NAN}, ValueError, "gamma=nan"),
    ({"gamma": -1.0}, ValueError, "gamma=-1.0"),
    ({"mode": "linear_range"}, ValueError, "decay_steps=None"),
    ({"decay_steps": -1}, ValueError, "decay_steps=-1"),
    ({"decay_base": 1}, TypeError, "decay_base=1"),
    ({"scale_fn": 3}, TypeError, "scale_fn=3"),
    ({"scale_mode": "epoch"}, ValueError, "scale_mode='epoch'"),
    ({"window": "box"}, ValueError, "window='box'"),
    ({"cycle_momentum": "no"}, TypeError, "cycle_momentum='no'"),
    ({"max_momentum": 1.5}, ValueError, "max_momentum=1.5"),
    ({"base_momentum": -0.1}, ValueError, "base_momentum=-0.1"),
    ({"base_momentum": 0.95}, ValueError, "base_momentum=0.95"),
    ({"momentum": 0.9}, ValueError, "momentum=0.9"),
    ({"momentum": 0.9, "cycle_momentum": True}, ValueError, "momentum=0.9"),
    ({"momentum": 1.5, "cycle_momentum": False}, ValueError, "momentum=1.5"),
    ({"momentum": "a", "cycle_momentum": False}, TypeError, "momentum='a'"),
    ({"weight_decay": -0.1}, ValueError, "weight_decay=-0.1"),
    ({"weight_decay": NAN}, ValueError, "weight_decay=nan"),
    ({"weight_decay": "a"}, TypeError, "weight_decay='a'"),
    ({"dampening": NAN}, ValueError, "dampening=nan"),
    ({"nesterov": True, "dampening": 0.1}, ValueError, "dampening=0.1"),
    ({"nesterov": True, "momentum": 0.0, "cycle_momentum": False}, ValueError, "momentum=0.0"),
    ({"nesterov": "yes"}, TypeError, "nesterov='yes'"),
    ({"maximize": None}, TypeError, "maximize=None"),
    ({"schedule": CyclicSchedule(0.1, 0.5)}, ValueError, "base_lr=0.1"),
    ({"schedule": "triangular", "base_lr": None, "max_lr": None}, TypeError, "schedule='triangular'"),
]
# With lr= in the place of bounds.
RATES_REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"lr": -0.1}, ValueError, "lr=-0.1"),
    ({"lr": NAN}, ValueError, "lr=nan"),
    ({"lr": "0.1"}, TypeError, "lr='0.1'"),
    ({"lr": True}, TypeError, "lr=True"),
    ({"lr": torch.ones(2)}, TypeError, "lr=tensor"),
    ({"lr": 0.1, "mode": "triangular2"}, ValueError, "base_lr=None"),
    ({"lr": 0.1, "base_lr": 0.1}, ValueError, "max_lr=None"),
    ({"lr": 0.1, "momentum": 1.5}, ValueError, "momentum=1.5"),
]


@pytest.mark.parametrize(("settings", "error", "text"), REFUSED, ids=[str(case[0]) for case in REFUSED])
def test_refused_by_the_constructor(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with refused(error, text):
        FusedCyclicSGD(one(), **{**BOUNDS, **settings})


@pytest.mark.parametrize(("settings", "error", "text"), RATES_REFUSED)
def test_an_lr_that_is_none(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with refused(error, text):
        FusedCyclicSGD(one(), **settings)
    with refused(error, text):
        FusedCyclicSGD([{"params": one(), **settings}])


OF_GROUPS = [case for case in REFUSED if None not in (case[0].get("base_lr", 0), case[0].get("max_lr", 0))]


@pytest.mark.parametrize(("settings", "error", "text"), OF_GROUPS, ids=[str(case[0]) for case in OF_GROUPS])
def test_refused_of_a_group(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    """Given with a group, by the constructor or later; later, nothing is added."""
    with refused(error, text):
        FusedCyclicSGD([{"params": one(), **BOUNDS, **settings}], 0.1, 0.5)
    optimizer = FusedCyclicSGD(one(), 0.1, 0.5)
    with refused(error, text):
        optimizer.add_param_group({"params": one(), **BOUNDS, **settings})
    assert len(optimizer.param_groups) == 1
    optimizer.step()
    assert optimizer.applied_steps == 1


FLAT: list[tuple[str, object]] = [
    ("max_lr", 0.5),
    ("step_size_up", 3),
    ("step_size_down", 5),
    ("mode", "triangular2"),
    ("gamma", 0.9),
    ("decay_steps", 4),
    ("decay_base", True),
    ("scale_fn", float),
    ("scale_mode", "iterations"),
    ("window", "hann"),
    ("cycle_momentum", False),
    ("base_momentum", 0.7),
    ("max_momentum", 0.99),
    ("momentum", 0.5),
]


@pytest.mark.parametrize(("name", "value"), FLAT)
def test_a_schedule_with_flat_arguments_is_refused(name: str, value: object) -> None:
    flat: dict[str, Any] = {name: value}
    with refused(ValueError, f"{name}="):
        FusedCyclicSGD(one(), schedule=CyclicSchedule(0.1, 0.5), **flat)
    with refused(ValueError, f"{name}="):
        FusedCyclicSGD([{"params": one(), "schedule": CyclicSchedule(0.1, 0.5), **flat}])


# What lr= says: (constructor, group, what stands there first).
RATES: list[tuple[dict[str, Any], dict[str, Any], tuple[float, float]]] = [
    ({"lr": 0.3}, {}, (0.3, 0.9)),
    ({"lr": 0.3, "momentum": 0.5}, {}, (0.3, 0.5)),
    ({"lr": 0.3, "cycle_momentum": False, "momentum": 0.5}, {}, (0.3, 0.5)),
    ({"lr": torch.tensor(0.25)}, {}, (0.25, 0.9)),
    ({"lr": 0.3}, {"lr": 0.4}, (0.4, 0.9)),
    ({"lr": 0}, {"lr": 1, "momentum": 0.0}, (1.0, 0.0)),
    ({}, {"lr": 0.4}, (0.4, 0.9)),
    ({"momentum": 0.25, "cycle_momentum": False}, {"lr": 0.4}, (0.4, 0.25)),
    ({"lr": 0.3}, {"base_lr": 0.1, "max_lr": 0.5}, (0.1, 0.9)),
    ({"lr": 0.3}, {"schedule": CyclicSchedule(0.1, 0.5)}, (0.1, 0.9)),
    ({"lr": 0.3, **BOUNDS}, {}, (0.1, 0.9)),
    ({"lr": 0.3, "schedule": CyclicSchedule(0.1, 0.5)}, {"lr": 0.4}, (0.1, 0.9)),
    (BOUNDS, {"lr": 0.4}, (0.1, 0.9)),
    ({"lr": 0.3, "base_lr": 0.2, "max_lr": 0.2, "cycle_momentum": False}, {"lr": 0.4}, (0.2, 0.9)),
    ({"schedule": CyclicSchedule(0.2, 0.2, cycle_momentum=False)}, {"lr": 0.4}, (0.2, 0.9)),
]


@pytest.mark.parametrize(("constructor", "group", "first"), RATES, ids=[str(case[:2]) for case in RATES])
def test_lr_is_a_constant_rate_unless_a_schedule_is_said(
    constructor: dict[str, Any], group: dict[str, Any], first: tuple[float, float]
) -> None:
    optimizer = FusedCyclicSGD([{"params": one(), **group}], **constructor)
    assert (optimizer.get_last_lr(), optimizer.get_last_momentum()) == ([first[0]], [first[1]])


def test_bounds_come_from_anywhere() -> None:
    FusedCyclicSGD([{"params": one(), **BOUNDS}])
    FusedCyclicSGD([{"params": one(), "schedule": CyclicSchedule(0.1, 0.5)}])
    FusedCyclicSGD([{"params": one(), "max_lr": 0.5}, {"params": one(), "max_lr": 0.7}], base_lr=0.1)
    FusedCyclicSGD(one(), schedule=CyclicSchedule(0.1, 0.5))
    with refused(ValueError, "base_lr=None"):
        FusedCyclicSGD([{"params": one(), **BOUNDS}, {"params": one()}])
    optimizer = FusedCyclicSGD([{"params": one(), **BOUNDS}])
    with refused(ValueError, "base_lr=None"):
        optimizer.add_param_group({"params": one()})


def test_whole_floats_are_sizes_and_equal_bounds_are_constant() -> None:
    weight = one()
    optimizer = FusedCyclicSGD(weight, 0.25, 0.25, step_size_up=2.0, step_size_down=3.0)  # type: ignore[arg-type]  # taken, whole
    for _ in range(7):
        assert optimizer.get_last_lr() == [0.25]
        weight[0].grad = torch.ones(3)
        optimizer.step()


@pytest.mark.parametrize("settings", [{"gamma": 0.5}, {"scale_mode": "iterations"}, {"decay_steps": 3}], ids=str)
def test_idle_arguments_are_kept(settings: dict[str, Any]) -> None:
    optimizer = FusedCyclicSGD(one(), 0.1, 0.5, **settings)
    saved = optimizer.state_dict()["param_groups"][0]["schedule"]
    assert settings.items() <= saved.items()


def test_not_parameters() -> None:
    integer = torch.zeros(3, dtype=torch.int64)
    for tensor, dtype in ((integer, "int64"), (torch.zeros(3, dtype=torch.complex64), "complex64")):
        with refused(TypeError, f"dtype=torch.{dtype}"):
            FusedCyclicSGD([tensor], 0.1, 0.5)
    with refused(ValueError, "empty parameter list"):
        FusedCyclicSGD([], 0.1, 0.5)
    with refused(ValueError, "non-leaf"):
        FusedCyclicSGD([one()[0] * 2], 0.1, 0.5)
    with refused(TypeError, "param_group"):
        FusedCyclicSGD(one(), 0.1, 0.5).add_param_group(one())  # type: ignore[arg-type]  # wrong on purpose
