"""Reads the attributes that a GradScaler sets on an optimizer before its step."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

from clr_native import _core

Scaling: TypeAlias = tuple[float | torch.Tensor, bool | torch.Tensor | None, torch.Tensor | None]


def scaling_in(attributes: Mapping[str, Any], parameter: torch.Tensor | None) -> Scaling:
    """Returns the gradient multiplier, found_inf (None if step() must check), and the tensor that receives the result.

    If the parameter is on a GPU, these may be tensors on that GPU, so that nobody waits for their values. The first one
    is then the scale of the loss, not its inverse.
    """
    grad_scale, found_inf = attributes.get("grad_scale"), attributes.get("found_inf")
    if found_inf is not None and getattr(parameter, "_fsdp_flattened", False):
        raise RuntimeError(
            "FullyShardedDataParallel: each process sees its own part of the gradients, and would skip by itself: use "
            "torch's ShardedGradScaler, which asks all of them, and grad_scale_in_step=False, or clr_native.GradScaler "
            "and process_group="
        )
    on_gpu = _core.is_on_gpu(parameter)
    scale: float | torch.Tensor = 1.0
    if grad_scale is not None:
        scale = grad_scale if on_gpu and _core.is_on_gpu(grad_scale) else inverse_scale(grad_scale)
    if found_inf is None:
        return scale, None if grad_scale is not None else False, attributes.get("_report_inf")
    return scale, found_inf if on_gpu and _core.is_on_gpu(found_inf) else is_found(found_inf), None


def inverse_scale(grad_scale: object) -> float:
    """Returns the factor of gradients if the loss was multiplied by ``grad_scale``, in float32 as in torch."""
    scale = _number("grad_scale", grad_scale)
    if not (0.0 < scale < math.inf):
        raise ValueError(f"grad_scale={grad_scale!r} must be finite and above 0")
    inverse = ctypes.c_float(1.0 / scale).value
    if not (0.0 < inverse < math.inf):
        raise ValueError(f"grad_scale={grad_scale!r} must have a reciprocal that float32 holds: call update(new_scale)")
    return inverse


def is_found(found_inf: object) -> bool:
    """True if ``found_inf`` is not zero, NaN included: GradScaler adds up the results of devices and ranks."""
    return _number("found_inf", found_inf) != 0.0


def _number(name: str, value: object) -> float:
    if isinstance(value, torch.Tensor):
        try:
            return float(value.item())
        except RuntimeError:
            if value.numel() == 1:
                raise
            raise ValueError(f"{name} of shape={tuple(value.shape)} must be one number") from None
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name}={value!r} must be a number, a tensor of one, or None")
    return float(value)
