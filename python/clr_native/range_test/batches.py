"""Batches without end, on the right device, lent for one pass and then as they were."""

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
    """The batches of a loader; when it ends, it starts again."""

    def __init__(self, loader: Iterable[Any], device: torch.device | None, memory: Memory) -> None:
        self._loader = loader
        self._device = device
        self._memory = memory
        self._iterator: Iterator[Any] | None = None

    @contextmanager
    def next(self) -> Iterator[Any]:
        """The next batch, inside the block."""
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
        """Let the iterator go, and its workers with it, before what it has touched is put back."""
        self._iterator = None


@contextmanager
def lent(batch: Any, device: torch.device | None, memory: Memory) -> Iterator[Any]:
    """The batch on `device` inside the block; afterwards it is as it was, for it may be one that the loader keeps.

    What `memory` knows, such as the model, is left to it.
    """
    before = Memory(beside=memory)
    before.keep_data(batch)
    try:
        yield batch if device is None else Mover(device)(batch)
    finally:
        with interrupts_held():
            before.put_back()


def device_for(model: nn.Module, device: Device | None) -> torch.device | None:
    """The device that was asked for, with its number, or else the one where the model's first parameter is."""
    if device is not None:
        return torch.empty(0, device=device).device
    parameter = next(model.parameters(), None)
    return None if parameter is None else parameter.device
