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
# What steps keep. torch.distributed loads {} where a flat state dict lacks what a fresh optimizer would have.
_TENSORS = ("momentum_buffer", "average", "compensation", "master_weight")


def complete_groups(groups: list[Group], before: list[Group], settings: Iterable[str]) -> None:
    """Keeps, in loaded groups, what a checkpoint of another optimizer does not say."""
    for group, old in zip(groups, before, strict=True):
        for name in _TORCH_ONLY:
            group.pop(name, None)
        for name in (*_POSITION, *settings):
            group.setdefault(name, old[name])


def own_tensors(state: dict[torch.Tensor, Any], groups: list[Group], loaded: Mapping[str, Any]) -> None:
    """Replaces loaded tensors by copies: torch may have kept the caller's, and rounds all to the parameter's dtype.

    Buffers get the parameter's layout, and the dtype that the group says: they may be torch's. All else keeps its own.
    """
    for index, (group, saved) in enumerate(zip(groups, loaded["param_groups"], strict=True)):
        for i, (parameter, key) in enumerate(zip(group["params"], saved["params"], strict=True)):
            entry = loaded["state"].get(key)
            if not isinstance(entry, Mapping):
                continue
            for name, value in entry.items():
                if name in _TENSORS and isinstance(value, Mapping) and not value:
                    del state[parameter][name]
                elif name == "momentum_buffer" and value is not None:
                    state[parameter][name] = _buffer_copy(value, parameter, group, f"parameter {i} of group {index}")
                elif isinstance(value, torch.Tensor):
                    state[parameter][name] = value.detach().to(device=parameter.device, copy=True)


def _buffer_copy(value: object, parameter: torch.Tensor, group: Group, name: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}, momentum_buffer={value!r} must be a tensor")
    if value.shape != parameter.shape:
        raise ValueError(f"{name}, momentum_buffer: shape={value.shape} must be {parameter.shape}")
    dtype = getattr(torch, _core.buffer_dtype(group, str(parameter.dtype).removeprefix("torch.")))
    return torch.empty_like(parameter.detach(), dtype=dtype).copy_(value.detach())
