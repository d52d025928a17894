"""The settings of the optimizer as a table, and the check whether a parameter can be updated."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn.parameter import is_lazy

from clr_native import _core


class Setting(NamedTuple):
    """The properties of a setting of ``FusedCyclicSGD`` other than its formula."""

    default: Any
    of_group: bool = True  # True if each group has its own; False if it holds for all gradients
    in_torch: bool = False  # True if torch.optim.SGD has it
    by_itself: bool = True  # True if it changes what an update does without another setting


SETTINGS: dict[str, Setting] = {
    "dampening": Setting(0.0, in_torch=True),
    "weight_decay": Setting(0.0, in_torch=True),
    "nesterov": Setting(False, in_torch=True),
    "maximize": Setting(False, in_torch=True),
    "lr_scale": Setting(1.0),
    "ema_decay": Setting(None),
    "ema_warmup": Setting(False, by_itself=False),
    "average": Setting(None),
    "trust_coefficient": Setting(None),
    "trust_eps": Setting(1e-8, by_itself=False),
    "trust_min_ndim": Setting(2, by_itself=False),
    "momentum_dtype": Setting(None, by_itself=False),  # it may name the parameter's own dtype
    "rounding": Setting("nearest"),
    "seed": Setting(0, by_itself=False),
    "kahan": Setting(False),
    "master_weights": Setting(False),
    "max_grad_norm": Setting(None, of_group=False),
    "max_grad_value": Setting(None, of_group=False),
    "error_if_nonfinite": Setting(False, of_group=False, by_itself=False),
    "skip_nonfinite": Setting(False, of_group=False),
    "advance_on_skip": Setting(False, of_group=False, by_itself=False),
    "write_unscaled_grad": Setting(False, of_group=False, by_itself=False),
    "grad_scale_in_step": Setting(False, of_group=False, by_itself=False),
}
GROUP_DEFAULTS = {name: setting.default for name, setting in SETTINGS.items() if setting.of_group}
GLOBAL_DEFAULTS = {name: setting.default for name, setting in SETTINGS.items() if not setting.of_group}

# Keys in a group of torch.optim.SGD that only choose between its implementations.
TORCH_IMPLEMENTATION_KEYS = ("foreach", "fused", "capturable", "differentiable")

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def as_number(value: object) -> object:
    """Returns the number in a tensor of one element, which may change in place later; returns others as they are."""
    try:
        return value.item() if isinstance(value, torch.Tensor) else value
    except RuntimeError:
        return value


def dtype_name(dtype: object) -> object:
    """Returns the name of a dtype, the plain data that a group holds. Returns other values as they are."""
    return str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype


def check_parameter(parameter: torch.Tensor, name: str) -> None:
    """Refuses a parameter that every step would refuse. The steps check parameters that have no memory yet."""
    if parameter.dtype not in _DTYPES:
        raise TypeError(f"{name}: dtype={parameter.dtype} must be float32, float64, bfloat16 or float16")
    if parameter.is_meta or is_lazy(parameter):
        return
    if parameter.layout is not torch.strided:
        raise TypeError(f"{name}: layout={parameter.layout} is not supported: make it dense with .to_dense()")
    if type(parameter) not in (torch.Tensor, torch.nn.Parameter) and not _core.is_readable(parameter):
        raise TypeError(
            f"{name}: type={type(parameter).__name__} is a wrapper without memory of its own, which is not supported: "
            "use torch.optim.SGD for it"
        )
