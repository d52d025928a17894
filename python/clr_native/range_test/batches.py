"""Gives batches without end, on the right device. Each is lent for one pass and is afterwards as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn

from clr_native.range_test.memory import Memory
from clr_native.range_test.moving import Mover
from clr_native.range_test.restore import interrupts_held

Device: TypeAlias = torch.device | str | int


class Batches:
    """The batches of a loader, which is started again when it ends."""

    def __init__(self, loader: Iterable[Any], device: torch.device | None, memory: Memory) -> None:
        self._loader = loader
        self._device = device
        self._memory = memory
        self._iterator: Iterator[Any] | None = None

    @contextmanager
    def next(self) -> Iterator[Any]:
        """Gives the next batch inside the block."""
        with lent(self._next(), self._device, self._memory) as batch:
            yield batch

    def _next(self) -> Any:
        for _ in range(2):
            if self._iterator is None:
                self._iterator = iter(self._loader)
            try:
                return next(self._iterator)
            except StopIteration:
                self._iterator = None
        raise ValueError(
            f"loader={self._loader!r} gives no batch when it is started (again): pass a DataLoader or a list of "
            "batches, not an iterator that can be walked through once"
        )

    def close(self) -> None:
        """Release the iterator and its workers, before the objects that it has changed are put back."""
        self._iterator = None


@contextmanager
def lent(batch: Any, device: torch.device | None, memory: Memory) -> Iterator[Any]:
    """Gives the batch on `device` inside the block. Puts it back afterwards, because the loader may keep it.

    Objects that `memory` knows, such as the model, are left to `memory`.
    """
    before = Memory(beside=memory)
    before.keep_data(batch)
    try:
        yield batch if device is None else Mover(device)(batch)
    finally:
        with interrupts_held():
            before.put_back()


def device_for(model: nn.Module, device: Device | None) -> torch.device | None:
    """Returns the given device, with its number, or else the device of the model's first parameter."""
    if device is not None:
        return torch.empty(0, device=device).device
    parameter = next(model.parameters(), None)
    return None if parameter is None else parameter.device
