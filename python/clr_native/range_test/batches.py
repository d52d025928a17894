"""Batches without end, on the right device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Device: TypeAlias = torch.device | str | int


class Batches:
    """The batches of a loader; when it ends, it starts again."""

    def __init__(self, loader: Iterable[Any], device: Device | None) -> None:
        self._loader = loader
        self._device = device
        self._iterator: Iterator[Any] | None = None

    def next(self) -> Any:
        for _ in range(2):
            if self._iterator is None:
                self._iterator = iter(self._loader)
            try:
                return to_device(next(self._iterator), self._device)
            except StopIteration:
                self._iterator = None
        raise ValueError(
            f"loader={self._loader!r} gives no batch when it is started (again): pass a DataLoader or a list of "
            "batches, not an iterator that can be walked through once"
        )


def device_of(model: nn.Module) -> torch.device | None:
    """Where the model's first parameter is."""
    parameter = next(model.parameters(), None)
    return None if parameter is None else parameter.device


def to_device(value: Any, device: Device | None) -> Any:
    """Tensors inside tuples, lists and mappings are moved; other things are left as they are."""
    if device is None:
        return value
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return type(value)({key: to_device(held, device) for key, held in value.items()})  # type: ignore[call-arg]  # what every mapping here takes
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(held, device) for held in value))
    if isinstance(value, (tuple, list)):
        return type(value)(to_device(held, device) for held in value)
    return value
