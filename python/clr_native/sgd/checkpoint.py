"""Checks and copies a checkpoint, beyond what ``torch.optim.Optimizer.load_state_dict`` does."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from clr_native import _core
from clr_native.sgd.settings import TORCH_IMPLEMENTATION_KEYS
from clr_native.sgd.sharding import is_dtensor

Group = dict[str, Any]
Path = tuple[object, ...]  # the keys that lead to a value in a state dict

COUNTERS = ("applied_steps", "skipped_steps", "n_averaged", "n_updates")
_POSITION = ("schedule", "lr", "momentum", *COUNTERS)
_PLAIN = frozenset({int, float, bool, str, bytes, type(None)})


def checked(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a state dict in the form that torch reads, with groups that share nothing with the given one.

    Raises TypeError or ValueError that names the key.
    """
    for key, kind, must in (("state", Mapping, "a dict"), ("param_groups", (list, tuple), "a list of dicts")):
        if key not in state_dict:
            raise ValueError(f"state_dict has lost its key {key!r}")
        _require(state_dict[key], kind, (key,), must)
    try:
        groups = [_checked_group(group, index) for index, group in enumerate(state_dict["param_groups"])]
    except RecursionError:
        raise ValueError("state_dict['param_groups'] holds itself, or is nested too deeply") from None
    state = state_dict["state"]
    for key in state:
        if isinstance(key, torch.Tensor):
            raise TypeError("state_dict['state'] has a tensor for a key, which must be a number of a parameter")
    for group in groups:
        for key in group["params"]:
            _require(state.get(key, {}), Mapping, ("state", key), "a dict")
    return {**state_dict, "state": state, "param_groups": groups}


def _checked_group(group: object, index: int) -> Group:
    path: Path = ("param_groups", index)
    _require(group, Mapping, path, "a dict")
    assert isinstance(group, Mapping)
    if "params" not in group:
        raise ValueError(f"{_name(path)} has lost its key 'params'")
    own = {key: _own(value, (*path, key)) for key, value in group.items()}
    _require(own["params"], (list, tuple), (*path, "params"), "a list of numbers")
    for place, key in enumerate(own["params"]):
        _require(key, (int, str), (*path, "params", place), "a number")
    _require(own.get("overridden", False), bool, (*path, "overridden"), "True or False")
    return own


def _name(path: Path) -> str:
    return "state_dict" + "".join(f"[{key if type(key) not in _PLAIN else repr(key)}]" for key in path)


def _require(value: object, kind: type | tuple[type, ...], path: Path, must: str) -> None:
    if not isinstance(value, kind):
        shown = f"={value!r}" if type(value) in _PLAIN else f" of type={type(value).__name__}"
        raise TypeError(f"{_name(path)}{shown} must be {must}")


def _own(value: Any, path: Path) -> Any:
    """Returns a deep copy. Raises a TypeError that names the value if it cannot be copied."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {key: _own(item, (*path, key)) for key, item in value.items()}
    if kind is list or kind is tuple:
        return kind([_own(item, (*path, place)) for place, item in enumerate(value)])
    if isinstance(value, torch.Tensor):
        _require_memory(value, path)
    try:
        return copy.deepcopy(value)
    except RecursionError:
        raise
    except Exception as error:
        raise TypeError(f"{_name(path)} of type={kind.__name__} cannot be copied: {error}") from error


def _require_memory(value: torch.Tensor, path: Path) -> None:
    """Refuses a tensor whose storage was freed: torch would read its memory all the same."""
    is_ordinary = type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout is torch.strided
    if is_ordinary and not value.is_meta and not _core.is_readable(value):
        raise TypeError(f"{_name(path)} is a tensor without memory that could be read: its storage may have been freed")


def complete_groups(groups: list[Group], before: list[Group], loaded: list[Group], settings: Iterable[str]) -> None:
    """Fills in the entries of the checkpoint. Keeps entries that a checkpoint of another optimizer does not have."""
    for group, old, saved in zip(groups, before, loaded, strict=True):
        group.update(
            (name, value) for name, value in saved.items() if name not in ("params", *TORCH_IMPLEMENTATION_KEYS)
        )
        for name in (*_POSITION, *settings):
            group.setdefault(name, old[name])
        group["overridden"] = False


def own_state(groups: list[Group], loaded: Mapping[str, Any]) -> defaultdict[Any, Any]:
    """The state of the parameters, as copies: those that steps use in the parameter's layout, in the dtype that the
    group says; torch would round all to the parameter's. What belongs to no parameter is kept as it is, as in torch.
    """
    state: defaultdict[Any, Any] = defaultdict(dict)
    parameters: dict[int | str, torch.Tensor] = {}  # by the number in the checkpoint
    for index, (group, saved) in enumerate(zip(groups, loaded["param_groups"], strict=True)):
        dtypes: dict[torch.dtype, dict[str, str]] = {}
        for place, (parameter, key) in enumerate(zip(group["params"], saved["params"], strict=True)):
            if parameters.setdefault(key, parameter) is not parameter:
                raise ValueError(f"{_name(('param_groups', index, 'params', place))}={key!r} is another parameter too")
            if key not in loaded["state"]:
                continue
            if parameter.dtype not in dtypes:
                dtypes[parameter.dtype] = _core.state_dtypes(group, str(parameter.dtype).removeprefix("torch."))
            where = f"parameter {place} of group {index}"
            state[parameter] = _own_entry(parameter, loaded["state"][key], dtypes[parameter.dtype], key, where)
    state.update((key, entry) for key, entry in loaded["state"].items() if key not in parameters)
    return state


def _own_entry(
    parameter: torch.Tensor, entry: Mapping[Any, Any], dtypes: Mapping[str, str], key: object, where: str
) -> dict[Any, Any]:
    own: dict[Any, Any] = {}
    for name, value in entry.items():
        if name in dtypes:
            # torch.distributed loads {} if a flat state dict lacks a tensor that a fresh optimizer would have.
            if not isinstance(value, Mapping) or value:
                own[name] = None if value is None else _copy(value, parameter, dtypes[name], f"{where}, {name}")
        elif isinstance(value, torch.Tensor):
            path = ("state", key, name)
            _require_memory(value, path)
            if value.is_meta and not parameter.is_meta:
                raise ValueError(f"{_name(path)}: device=meta holds no numbers: load a checkpoint with them")
            own[name] = value.detach().to(device=parameter.device, copy=True)
        else:
            own[name] = _own(value, ("state", key, name))
    return own


def _copy(value: object, parameter: torch.Tensor, dtype: str, where: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        shown = f"={value!r}" if type(value) in _PLAIN else f" of type={type(value).__name__}"
        raise TypeError(f"{where}{shown} must be a tensor")
    if is_dtensor(value) != is_dtensor(parameter):
        raise TypeError(
            f"{where}: type={type(value).__name__} must be a DTensor if the parameter is one, and only then: "
            "torch.distributed.checkpoint.state_dict gathers and scatters states"
        )
    if not value.is_floating_point():
        raise TypeError(f"{where}: dtype={value.dtype} must be a floating-point dtype")
    if is_lazy(parameter):
        raise ValueError(f"{where}: the parameter has no shape yet: run the model once, then load")
    if value.layout is not torch.strided or value.is_nested:
        raise TypeError(f"{where}: layout={value.layout} is not supported: make it dense with .to_dense()")
    if value.shape != parameter.shape:
        raise ValueError(f"{where}: shape={tuple(value.shape)} must be the parameter's, {tuple(parameter.shape)}")
    if value.is_meta and not parameter.is_meta:
        raise ValueError(f"{where}: device=meta holds no numbers: load a checkpoint with them")
    if not value.is_meta and not _core.is_readable(value):
        raise TypeError(f"{where}: type={type(value).__name__} has no memory that could be read")
    own: torch.Tensor = torch.empty_like(parameter.detach(), dtype=getattr(torch, dtype))
    return own.copy_(value.detach())
