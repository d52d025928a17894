"""Tensors on the CPU that pass for tensors on CUDA devices, for code that reads them through DLPack's exchange API."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NAME = b"dlpack_exchange_api"


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Exchange:
    """Takes the place of torch's exchange API for good. To be made before clr_native reads its first tensor."""

    def __init__(self, library: Path) -> None:
        c = self._c = ctypes.CDLL(str(library))
        c.exchange_over.argtypes, c.exchange_over.restype = [ctypes.c_void_p], ctypes.c_void_p
        c.exchange_place.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        c.exchange_device.argtypes = [ctypes.c_void_p]
        c.exchange_set_stream.argtypes = [ctypes.c_int, ctypes.c_void_p]
        python = ctypes.pythonapi
        python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        python.PyCapsule_GetPointer.restype = ctypes.c_void_p
        python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        python.PyCapsule_New.restype = ctypes.py_object
        of_torch = torch.Tensor.__dlpack_c_exchange_api__
        ours = c.exchange_over(python.PyCapsule_GetPointer(of_torch, _NAME))
        capsule = python.PyCapsule_New(ours, _NAME, None)
        torch.Tensor.__dlpack_c_exchange_api__ = capsule
        self._keep = of_torch
        self.begin()

    def begin(self) -> None:
        """All memory lies on device 0, and nothing is known of tensors."""
        self._c.exchange_forget_places()
        self.set_default(0)
        for device in range(8):
            self.set_stream(device, 0)
        self._watched: list[Callable[[], Tensor | Optimizer | None]] = []
        self._followed: list[Tensor] = []

    def set_default(self, device: int) -> None:
        """Where tensors lie that were not placed; -1: on the CPU."""
        self._c.exchange_set_default(device)

    def set_stream(self, device: int, stream: int) -> None:
        """What torch's current stream of a device is."""
        self._c.exchange_set_stream(device, stream)

    def place(self, tensor: Tensor, device: int) -> None:
        """The whole storage."""
        begin = tensor.untyped_storage().data_ptr()
        if begin and not self._c.exchange_place(begin, begin + tensor.untyped_storage().nbytes(), device):
            raise RuntimeError("exchange.c has no room for more places")

    def device(self, tensor: Tensor) -> int:
        return int(self._c.exchange_device(tensor.untyped_storage().data_ptr()))

    @contextmanager
    def following(self) -> Iterator[None]:
        """What torch makes of a tensor lies where the tensor lies, and kernels may touch it until the test ends."""
        exchange = self

        class Follow(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types for it
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                made = func(*args, **(kwargs or {}))
                given = _tensors((args, kwargs))
                for tensor in _tensors(made):
                    if given:
                        exchange.place(tensor, exchange.device(given[0]))
                    exchange._followed.append(tensor)
                return made

        with Follow():  # type: ignore[no-untyped-call]  # as above
            yield

    def watch(self, *what: Tensor | Optimizer) -> None:
        """Kernels may touch these tensors, and an optimizer's parameters, gradients and state, while they live."""
        self._watched += [weakref.ref(one) for one in what]

    def _seen(self) -> Iterator[Tensor]:
        yield from self._followed
        for alive in self._watched:
            one = alive()
            if isinstance(one, Tensor):
                yield one
            elif one is not None:
                yield from self._of_optimizer(one)

    def _of_optimizer(self, optimizer: Optimizer) -> Iterator[Tensor]:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield parameter
                if parameter.grad is not None:
                    yield parameter.grad
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))
        given = (getattr(optimizer, name, None) for name in ("grad_scale", "found_inf"))
        yield from (value for value in given if isinstance(value, Tensor))

    def storages(self, device: int) -> dict[int, int]:
        """Addresses and bytes of what kernels of a device may touch: Gpu.tensors."""
        found: dict[int, int] = {}
        for tensor in self._seen():
            storage = tensor.untyped_storage()
            if storage.nbytes() and self._c.exchange_device(storage.data_ptr()) == device:
                found[storage.data_ptr()] = storage.nbytes()
        return found
