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


def checked(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict, if it has the form that torch goes through. Raises TypeError or ValueError that names the key."""
    for key, kind in (("state", Mapping), ("param_groups", (list, tuple))):
        if key not in state_dict:
            raise ValueError(f"state_dict has lost its key {key!r}")
        _require(state_dict[key], kind, f"state_dict[{key!r}]", "a dict" if key == "state" else "a list of dicts")
    for index, group in enumerate(state_dict["param_groups"]):
        where = f"state_dict['param_groups'][{index}]"
        _require(group, Mapping, where, "a dict")
        if "params" not in group:
            raise ValueError(f"{where} has lost its key 'params'")
        _require(group["params"], (list, tuple), f"{where}['params']", "a list of numbers")
        for key in group["params"]:
            _require(key, (int, str), f"an entry of {where}['params']", "a number")
            if isinstance(state_dict["state"].get(key, {}), Mapping):
                continue
            raise TypeError(f"state_dict['state'][{key!r}]={state_dict['state'][key]!r} must be a dict")
        _require(group.get("overridden", False), bool, f"{where}['overridden']", "True or False")
    return state_dict


def _require(value: object, kind: type | tuple[type, ...], name: str, must: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}={value!r} must be {must}")


def complete_groups(groups: list[Group], before: list[Group], settings: Iterable[str]) -> None:
    """Keeps, in loaded groups, what a checkpoint of another optimizer does not say."""
    for group, old in zip(groups, before, strict=True):
        for name in _TORCH_ONLY:
            group.pop(name, None)
        for name in (*_POSITION, *settings):
            group.setdefault(name, old[name])


def own_tensors(state: dict[torch.Tensor, Any], groups: list[Group], loaded: Mapping[str, Any]) -> None:
    """Replaces loaded tensors by copies: torch may have kept the caller's, and rounds all to the parameter's dtype.

    Those that steps use get the parameter's layout and the dtype that the group says; all else keeps its own.
    """
    for index, (group, saved) in enumerate(zip(groups, loaded["param_groups"], strict=True)):
        for i, (parameter, key) in enumerate(zip(group["params"], saved["params"], strict=True)):
            entry = loaded["state"].get(key)
            if entry is None:
                continue
            dtypes: dict[str, str] | None = None
            for name, value in entry.items():
                if name in _core.STATE_TENSORS:
                    if isinstance(value, Mapping) and not value:
                        # torch.distributed loads {} where a flat state dict lacks what a fresh optimizer would have.
                        del state[parameter][name]
                    elif value is not None:
                        if dtypes is None:
                            dtypes = _core.state_dtypes(group, str(parameter.dtype).removeprefix("torch."))
                        where = f"parameter {i} of group {index}, {name}"
                        state[parameter][name] = _copy(value, parameter, dtypes[name], where)
                elif isinstance(value, torch.Tensor):
                    state[parameter][name] = value.detach().to(device=parameter.device, copy=True)


def _copy(value: object, parameter: torch.Tensor, dtype: str, where: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{where}={value!r} must be a tensor")
    if not value.is_floating_point():
        raise TypeError(f"{where}: dtype={value.dtype} must be a floating-point dtype")
    if value.shape != parameter.shape:
        raise ValueError(f"{where}: shape={tuple(value.shape)} must be the parameter's, {tuple(parameter.shape)}")
    if value.is_meta and not parameter.is_meta:
        raise ValueError(f"{where}: device=meta holds no numbers: load a checkpoint with them")
    copy: torch.Tensor = torch.empty_like(parameter.detach(), dtype=getattr(torch, dtype))
    return copy.copy_(value.detach())
