"""The averages of the weights that an optimizer keeps: swapped in, and copied out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import ParamsT

from clr_native import _core
from clr_native.schedules.arguments import ScheduleArguments
from clr_native.sgd.gradient_rules import GradientRules
from clr_native.sgd.scheduled_groups import Group, ScheduledGroups

State = Mapping[torch.Tensor, Mapping[str, Any]]


def averaged(groups: Iterable[Mapping[str, Any]], state: State) -> list[torch.Tensor]:
    """The parameters that have an average. Raises RuntimeError if none has.

    Before a group's first update of it there may be a tensor for it already: torch.distributed asks for one.
    """
    begun = [group for group in groups if group["n_averaged"] != 0]
    found = [p for group in begun for p in group["params"] if state.get(p, {}).get("average") is not None]
    if not found:
        raise RuntimeError("no average yet: set ema_decay or average='swa', and take a step (a cycle for 'swa')")
    return found


def copy_to(model: nn.Module, groups: list[dict[str, Any]], state: State) -> None:
    """Copies the averages into a model's parameters; what has none is copied as it is."""
    pairs = _matched(dict(model.named_parameters()), groups)
    averages = {id(parameter): state[parameter]["average"] for parameter in averaged(groups, state)}
    with torch.no_grad():
        for target, parameter in pairs:
            source = averages.get(id(parameter), parameter)
            if target is not source:
                target.copy_(source)


def _matched(named: dict[str, torch.Tensor], groups: list[dict[str, Any]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each parameter of the model with the optimizer's: the same object, or of the same name, or in the same place."""
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


class AveragedWeights(ScheduledGroups):
    """What an optimizer does with the averages that its steps keep."""

    def __init__(self, params: ParamsT, arguments: ScheduleArguments, rules: GradientRules, defaults: Group) -> None:
        self._averages = _core.AveragesInPlace(self._averaged_entries)
        super().__init__(params, arguments, rules, defaults)

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Within the block the parameters hold their averages, in place and without a copy of the model.

        Batch-norm statistics are not averaged: recompute them inside with ``torch.optim.swa_utils.update_bn``. Steps,
        copies of the optimizer, ``state_dict()`` and ``load_state_dict()`` raise RuntimeError inside. Entering raises
        RuntimeError if there is no average yet. Neither way can be interrupted in the middle.

        >>> import clr_native
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = clr_native.FusedCyclicSGD([weight], 1.0, 1.0, cycle_momentum=False, momentum=0.0, ema_decay=0.75)
        >>> for _ in range(2):
        ...     weight.grad = torch.ones(1)
        ...     opt.step()
        >>> with opt.averaged_weights():
        ...     weight.data
        tensor([-0.2500])
        >>> weight.data
        tensor([-1.])
        """
        self._refuse_inside_averages("averaged_weights()")
        return self._averages

    def _averaged_entries(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        """Each parameter that has an average, with that, and with the master weight that keeps the weight meanwhile."""
        self._synchronise()
        entries = [(parameter, self.state[parameter]) for parameter in averaged(self.param_groups, self.state)]
        return [
            (p, entry["average"], entry["master_weight"] if entry["average"].dtype != p.dtype else None)
            for p, entry in entries
        ]

    def _refuse_inside_averages(self, what: str) -> None:
        if self._averages.is_inside:
            raise RuntimeError(f"{what} inside averaged_weights(): leave it first")

    def copy_average_to(self, model: nn.Module) -> None:
        """Copy the averages into the parameters of ``model``, a copy of the one that is trained, or that one itself.

        Parameters are matched by name where the optimizer was given names (``model.named_parameters()``), else by their
        order in its only group. Parameters without an average are copied as they are. Raises ValueError if the model
        does not fit, and RuntimeError if there is no average yet.
        """
        self._refuse_inside_averages("copy_average_to()")
        self._synchronise()
        copy_to(model, self.param_groups, self.state)

    def state_dict(self) -> dict[str, Any]:
        """``{"state": ..., "param_groups": ...}`` as in torch; the schedule and its position stand in the groups."""
        self._refuse_inside_averages("state_dict()")
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in ``ScheduledGroups``, outside of ``averaged_weights()``."""
        self._refuse_inside_averages("load_state_dict()")
        super().load_state_dict(state_dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_schedules" in state:  # unpickled or copied, not load_state_dict
            self._averages = _core.AveragesInPlace(self._averaged_entries)
        super().__setstate__(state)

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_inside_averages("copying or pickling")  # a copy would not know which of the two are its weights
        return super().__getstate__()
