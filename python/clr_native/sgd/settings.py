"""What a parameter group says besides its schedule, and what parameters can be updated."""

from __future__ import annotations

import torch
from torch.nn.parameter import is_lazy

from clr_native import _core

# What a group says besides its schedule, with the defaults of the constructor.
SETTINGS = {
    "dampening": 0.0,
    "weight_decay": 0.0,
    "nesterov": False,
    "maximize": False,
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
}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def as_number(value: object) -> object:
    """A tensor of one element as its number: it may change in place afterwards. What has no number stays as it is."""
    try:
        return value.item() if isinstance(value, torch.Tensor) else value
    except RuntimeError:
        return value


def dtype_name(dtype: object) -> object:
    """As it stands in a group: plain data."""
    return str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype


def check_parameter(parameter: torch.Tensor, name: str) -> None:
    """Refuses what every step would refuse. Parameters without memory yet are for the steps to look at."""
    if any(cls.__name__ == "DTensor" for cls in type(parameter).__mro__):
        raise TypeError(f"{name}: type=DTensor is not supported yet: use torch.optim.SGD for sharded parameters")
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
