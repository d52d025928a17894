"""The options for all gradients of an optimizer: clipping, and the treatment of infinities."""

from __future__ import annotations

import dataclasses
import math

from clr_native import _core
from clr_native.sgd.settings import GLOBAL_DEFAULTS


@dataclasses.dataclass(frozen=True)
class GradientOptions:
    """The global arguments of ``FusedCyclicSGD``. Raises ValueError or TypeError if one cannot be used."""

    max_grad_norm: float | None = GLOBAL_DEFAULTS["max_grad_norm"]
    max_grad_value: float | None = GLOBAL_DEFAULTS["max_grad_value"]
    error_if_nonfinite: bool = GLOBAL_DEFAULTS["error_if_nonfinite"]
    skip_nonfinite: bool = GLOBAL_DEFAULTS["skip_nonfinite"]
    advance_on_skip: bool = GLOBAL_DEFAULTS["advance_on_skip"]
    write_unscaled_grad: bool = GLOBAL_DEFAULTS["write_unscaled_grad"]
    grad_scale_in_step: bool = GLOBAL_DEFAULTS["grad_scale_in_step"]  # for torch's GradScaler, which asks in Python

    def __post_init__(self) -> None:
        _check_limit("max_grad_norm", self.max_grad_norm)
        _check_limit("max_grad_value", self.max_grad_value)
        for name, default in GLOBAL_DEFAULTS.items():
            value = getattr(self, name)
            if isinstance(default, bool) and not isinstance(value, bool):
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

    def apply_to(self, native: _core.NativeOptimizer) -> None:
        native.set_options(
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
    if isinstance(value, int) and value.bit_length() > 1023:  # too large for a float
        raise ValueError(f"{name} of {value.bit_length()} bits must be math.inf, or None for no clipping")
    if math.isnan(value) or value <= 0:
        raise ValueError(f"{name}={value!r} must be above 0, or None for no clipping")
