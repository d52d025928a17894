"""What holds for all gradients of an optimizer: clipping, and what becomes of infinities."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from typing import Any, Protocol

import torch

from clr_native import _core


@dataclasses.dataclass(frozen=True)
class GradientRules:
    """The global arguments of ``FusedCyclicSGD``. Raises ValueError or TypeError for what cannot be used."""

    max_grad_norm: float | None = None
    max_grad_value: float | None = None
    error_if_nonfinite: bool = False
    skip_nonfinite: bool = False
    advance_on_skip: bool = False
    write_unscaled_grad: bool = False

    def __post_init__(self) -> None:
        _check_limit("max_grad_norm", self.max_grad_norm)
        _check_limit("max_grad_value", self.max_grad_value)
        for name in ("error_if_nonfinite", "skip_nonfinite", "advance_on_skip", "write_unscaled_grad"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"{name}={value!r} must be True or False")
        if self.max_grad_norm is not None and self.max_grad_value is not None:
            raise ValueError(
                f"max_grad_norm={self.max_grad_norm!r} and max_grad_value={self.max_grad_value!r} are two ways to "
                "clip: set one of them to None"
            )
        if self.error_if_nonfinite and self.max_grad_norm is None:
            raise ValueError(
                "error_if_nonfinite=True is about the norm: set max_grad_norm, or to math.inf to only measure"
            )
        if self.error_if_nonfinite and self.skip_nonfinite:
            raise ValueError("error_if_nonfinite=True and skip_nonfinite=True exclude each other: choose one")

    def give_to(self, plan: _core.Step) -> None:
        plan.set_rules(
            max_norm=self.max_grad_norm or 0.0,
            max_value=self.max_grad_value or 0.0,
            error_if_nonfinite=self.error_if_nonfinite,
            skip_nonfinite=self.skip_nonfinite,
            advance_on_skip=self.advance_on_skip,
            write_unscaled=self.write_unscaled_grad,
        )


def _check_limit(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}={value!r} must be a number, or None for no clipping")
    if isinstance(value, int) and value.bit_length() > 1023:  # no float has it
        raise ValueError(f"{name} of {value.bit_length()} bits must be math.inf, or None for no clipping")
    if math.isnan(value) or value <= 0:
        raise ValueError(f"{name}={value!r} must be above 0, or None for no clipping")


class HasRules(Protocol):
    """An optimizer whose native plan is told its rules."""

    _rules: GradientRules
    _plan: _core.Step


def rule(doc: str) -> Any:
    """A field of an optimizer's rules as an attribute, to be set between steps; of the type that it is said to have."""
    return _Rule(doc)


class _Rule:
    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: HasRules | None, owner: type) -> Any:
        return self if optimizer is None else getattr(optimizer._rules, self.name)

    def __set__(self, optimizer: HasRules, value: Any) -> None:
        change: dict[str, Any] = {self.name: value}
        optimizer._rules = dataclasses.replace(optimizer._rules, **change)
        optimizer._rules.give_to(optimizer._plan)


def inverse_scale(grad_scale: object) -> float:
    """What gradients are multiplied by where the loss was multiplied by ``grad_scale``, in float32 as in torch."""
    scale = _number("grad_scale", grad_scale)
    if not (0.0 < scale < math.inf):
        raise ValueError(f"grad_scale={grad_scale!r} must be finite and above 0")
    inverse = ctypes.c_float(1.0 / scale).value
    if not (0.0 < inverse < math.inf):
        raise ValueError(f"grad_scale={grad_scale!r} must have a reciprocal that float32 holds: call update(new_scale)")
    return inverse


def is_found(found_inf: object) -> bool:
    """GradScaler adds up what devices and ranks found: anything but zero counts, NaN too."""
    return _number("found_inf", found_inf) != 0.0


def _number(name: str, value: object) -> float:
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} of shape={tuple(value.shape)} must be one number")
        return float(value.item())
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name}={value!r} must be a number, a tensor of one, or None")
    return float(value)
