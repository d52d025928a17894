"""Tensors on the CPU that pass for tensors on CUDA devices, for code that reads them through DLPack's exchange API."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NAME = b"dlpack_exchange_api"


def _tensors(tree: Any) -> list[Tensor]:
    """Those of a tree; of a DTensor, the one with its numbers."""
    return [getattr(leaf, "_local_tensor", leaf) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


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
        self._followed: dict[int, torch.UntypedStorage] = {}

    def set_default(self, device: int) -> None:
        """Where tensors lie that were not placed; -1: on the CPU."""
        self._c.exchange_set_default(device)

    # --- as twins.Home

    kind = "cpu"

    def copy(self, tensor: Tensor) -> Tensor:
        return tensor.clone()

    @contextmanager
    def cpu(self) -> Iterator[None]:
        self.set_default(-1)
        yield
        self.set_default(0)

    # ---

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

    def follow(self, tensor: Tensor) -> None:
        """Kernels may touch it until the test ends, and its memory stays, as torch gives memory of a device to nobody
        else before what was launched has run."""
        storage = tensor.untyped_storage()
        if storage.nbytes():
            self._followed[storage.data_ptr()] = storage

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follows all that torch makes; what it makes of a tensor lies where the tensor lies."""
        exchange = self

        class Follow(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types for it
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                made = func(*args, **(kwargs or {}))
                of = next(iter(_tensors((args, kwargs))), None)
                for tensor in _tensors(made):
                    if of is not None and exchange.device(of) != exchange.device(tensor):
                        exchange.place(tensor, exchange.device(of))
                    exchange.follow(tensor)
                return made

        with Follow():  # type: ignore[no-untyped-call]  # as above
            yield

    def storages(self, device: int) -> dict[int, int]:
        """Addresses and bytes of what kernels of a device may touch: Gpu.tensors."""
        return {
            address: storage.nbytes()
            for address, storage in self._followed.items()
            if self._c.exchange_device(address) == device
        }
