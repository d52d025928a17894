"""Finds the averages of weights that an optimizer keeps, and copies them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from clr_native.sgd.sharding import gathered, is_dtensor

State = Mapping[torch.Tensor, Mapping[str, Any]]


def averaged(groups: Iterable[Mapping[str, Any]], state: State) -> list[torch.Tensor]:
    """Returns the parameters that have an average. Raises RuntimeError if none has.

    A tensor may exist before the group's first update of the average, because torch.distributed asks for one.
    """
    begun = [group for group in groups if group["n_averaged"] != 0]
    found = [p for group in begun for p in group["params"] if state.get(p, {}).get("average") is not None]
    if not found:
        raise RuntimeError("no average yet: set ema_decay or average='swa', and take a step (a cycle for 'swa')")
    return found


def averaged_entries(
    groups: Iterable[Mapping[str, Any]], state: State
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """Returns (parameter, average, master weight or None) of each parameter that has an average."""
    entries = [(parameter, state[parameter]) for parameter in averaged(groups, state)]
    return [
        (p, entry["average"], entry["master_weight"] if entry["average"].dtype != p.dtype else None)
        for p, entry in entries
    ]


def copy_to(model: nn.Module, groups: list[dict[str, Any]], state: State) -> None:
    """Copies the averages into a model's parameters. A parameter without an average is copied as it is."""
    pairs = _matched(dict(model.named_parameters()), groups)
    averages = {id(parameter): state[parameter]["average"] for parameter in averaged(groups, state)}
    with torch.no_grad():
        for target, parameter in pairs:
            source = averages.get(id(parameter), parameter)
            if target is not source:
                target.copy_(source if is_dtensor(target) else gathered(source))


def _matched(named: dict[str, torch.Tensor], groups: list[dict[str, Any]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs the model's parameters with the optimizer's: by identity, or by name, or by their order."""
    own = [parameter for group in groups for parameter in group["params"]]
    identities = {id(parameter) for parameter in own}
    if all(id(target) in identities for target in named.values()):
        return [(target, target) for target in named.values()]
    if all("param_names" in group for group in groups):
        of_name = {name: p for group in groups for name, p in zip(group["param_names"], group["params"], strict=True)}
        missing = sorted(named.keys() - of_name.keys())
        if missing:
            raise ValueError(f"model has a parameter {missing[0]!r} that is not one of the optimizer's")
        pairs = [(target, of_name[name]) for name, target in named.items()]
    elif len(groups) == 1:
        if len(named) != len(own):
            raise ValueError(f"model has {len(named)} parameters, the optimizer {len(own)}: give a copy of its model")
        pairs = list(zip(named.values(), own, strict=True))
    else:
        raise ValueError(
            "model cannot be matched by the order of parameters where there are several groups: construct the optimizer"
            " with model.named_parameters(), or give the very model that it trains"
        )
    for (name, target), (_, parameter) in zip(named.items(), pairs, strict=True):
        if target.shape != parameter.shape:
            raise ValueError(f"model's {name}: shape={tuple(target.shape)} must be {tuple(parameter.shape)}")
    return pairs
