"""The changing parts of an optimizer other than torch's ``state`` and ``param_groups``."""

from __future__ import annotations

import dataclasses
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch

from clr_native import _core
from clr_native.schedules.arguments import read_schedule
from clr_native.sgd import cuda_graphs
from clr_native.sgd.gradient_options import GradientOptions
from clr_native.sgd.sharding import Sharding, is_process_group

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Owner(Protocol):
    """The optimizer itself, where a wrapper may have taken its place."""

    param_groups: list[dict[str, Any]]
    state: Any  # torch declares what each key may be
    _binding: Binding

    def _averaged_entries(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]: ...


class Binding:
    """One object that an optimizer keeps as long as it lives.

    A wrapper that has copied the optimizer's attributes holds the same object, and so acts on the same optimizer.
    """

    def __init__(self, owner: Owner, options: GradientOptions) -> None:
        self.owner = weakref.ref(owner)
        self.sharding = Sharding()
        self.native = _core.NativeOptimizer(read_schedule, owner._averaged_entries, self.sharding)
        self.cycle_end_hooks: OrderedDict[int, Callable[[Any], None]] = OrderedDict()
        self.options = options
        self.members: set[torch.Tensor] | None = None  # all parameters, while a constructor appends groups
        options.apply_to(self.native)
        cuda_graphs.watch()

    def set_process_group(self, group: ProcessGroup | None) -> None:
        if group is not None and not is_process_group(group):
            raise TypeError(f"process_group of type={type(group).__name__} must be a torch.distributed.ProcessGroup")
        self.sharding.process_group = group
        self.native.refresh_sharding()

    def set_options(self, options: GradientOptions) -> None:
        self.options = options
        options.apply_to(self.native)


def global_option(doc: str) -> Any:
    """Makes an attribute of an option of an optimizer, which may be set between steps. The class annotates its type."""
    return _GlobalOption(doc)


class _GlobalOption:
    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: Owner | None, owner: type) -> Any:
        return self if optimizer is None else getattr(optimizer._binding.options, self.name)

    def __set__(self, optimizer: Owner, value: Any) -> None:
        change: dict[str, Any] = {self.name: value}
        optimizer._binding.set_options(dataclasses.replace(optimizer._binding.options, **change))
