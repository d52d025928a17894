"""What loading a checkpoint does beyond ``torch.optim.Optimizer.load_state_dict``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from clr_native import _core

Group = dict[str, Any]

# What a checkpoint of torch.optim.SGD carries that only steers torch's own implementations.
_TORCH_ONLY = ("foreach", "fused", "capturable", "differentiable")
COUNTERS = ("applied_steps", "skipped_steps", "n_averaged", "n_updates")
_POSITION = ("schedule", "lr", "momentum", *COUNTERS)
# Tensors of a parameter's shape, in its layout, of a dtype that the group's settings say.
_STATE = ("momentum_buffer", "average", "compensation", "master_weight")


def complete_groups(groups: list[Group], before: list[Group], settings: Iterable[str]) -> None:
    """Keeps, in loaded groups, what a checkpoint of another optimizer does not say."""
    for group, old in zip(groups, before, strict=True):
        for name in _TORCH_ONLY:
            group.pop(name, None)
        for name in (*_POSITION, *settings):
            group.setdefault(name, old[name])


def own_tensors(state: dict[torch.Tensor, Any], groups: list[Group], loaded: Mapping[str, Any]) -> None:
    """Replaces loaded tensors by copies: torch may have kept the caller's, and rounds all to the parameter's dtype.

    What steps keep gets the parameter's layout and the dtype that the group says; everything else keeps its own.
    """
    for index, (group, saved) in enumerate(zip(groups, loaded["param_groups"], strict=True)):
        for i, (parameter, key) in enumerate(zip(group["params"], saved["params"], strict=True)):
            entry = loaded["state"].get(key)
            if not isinstance(entry, Mapping):
                continue
            for name, value in entry.items():
                if name in _STATE and value is not None:
                    dtypes = _core.state_dtypes(group, str(parameter.dtype).removeprefix("torch."))
                    dtype = getattr(torch, dtypes[name])
                    where = f"parameter {i} of group {index}, {name}"
                    state[parameter][name] = _state_copy(value, parameter, dtype, where)
                elif isinstance(value, torch.Tensor):
                    state[parameter][name] = value.detach().to(device=parameter.device, copy=True)


def _state_copy(value: object, parameter: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}={value!r} must be a tensor")
    if value.shape != parameter.shape:
        raise ValueError(f"{name}: shape={value.shape} must be {parameter.shape}")
    return torch.empty_like(parameter.detach(), dtype=dtype).copy_(value.detach())
