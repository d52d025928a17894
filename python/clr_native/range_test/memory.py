"""Remembers what can be reached from some objects, and puts it back into the same objects, bit for bit."""

from __future__ import annotations

import types
from array import array
from collections import deque
from collections.abc import Collection, Iterable
from enum import Enum
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler

from clr_native.range_test import kinds
from clr_native.range_test.functions import FUNCTIONS, MANY, Variables
from clr_native.range_test.kinds import Restore
from clr_native.range_test.objects import FIXED, attributes_of, filled_slots, is_followed

# At most this many bytes of tensors, arrays and lists in a dataset or a batch are copied. Larger ones hold samples.
DATA_BYTES: Final = 2**27
_CONTAINERS: Final = (dict, list, deque, set, tuple, frozenset)


class Reach(Enum):
    """How much of an object is copied, and when it is put back."""

    WHOLE = 0  # all of it
    SMALL = 1  # only if small: the object stands in a variable and may be a data set
    DATA = 2  # only if small, put back only at the end: in a repeated test, data goes on where it is


class Memory:
    """The remembered content of objects, which can be put back into the same objects.

    Containers, tensors, arrays, generators of random numbers and attributes of objects are followed, through every
    object that can be reached, each visited once. A tensor is written in place, so that whoever else holds it, or a
    view of it, sees the old values again. Objects that cannot be copied, and objects that stand for something outside
    (threads, files), are left alone: they stay in the state that the test leaves.
    """

    def __init__(self, beside: Memory | None = None) -> None:
        self._known: dict[int, object] = {}  # id to object; holding the object keeps its id unique
        self._beside = {} if beside is None else beside._known
        self._variables = Variables(self._known)
        self._waiting: deque[tuple[object, Reach]] = deque()
        self._restores: list[Restore] = []
        self._restores_at_end: list[Restore] = []
        self._bytes_left = DATA_BYTES

    def follow_modules_of(self, *functions: object) -> None:
        """From now on follow the global variables that functions in the modules of these functions read."""
        for function in functions:
            self._variables.follow_module_of(function)

    def keep(self, *values: object) -> None:
        """Remember `values` and everything that can be reached from them."""
        self._expect(values, Reach.WHOLE)
        self._follow()

    def keep_data(self, *values: object) -> None:
        """Remember the own state of datasets, loaders, samplers or batches, but not a large amount of samples."""
        self._expect(values, Reach.DATA)
        self._follow()

    def keep_loader(self, loader: object) -> None:
        """As ``keep_data``, but without the batches of a plain list: each is remembered while it is used."""
        if type(loader) not in (list, tuple):
            self.keep_data(loader)
        elif id(loader) not in self._known:
            self._known[id(loader)] = loader
            if isinstance(loader, list):
                self._add(kinds.list_members(loader), Reach.DATA)

    @torch.no_grad()
    def put_back(self) -> None:
        """Put everything back. May be called several times. An error is raised after the rest is done."""
        _run(self._restores + self._restores_at_end)

    @torch.no_grad()
    def rewind(self) -> None:
        """As ``put_back``, but random numbers and data go on from where they are. This is for repeated tests."""
        _run(self._restores)

    @property
    def loaders(self) -> list[DataLoader[Any]]:
        """Every DataLoader that was reached."""
        found = [value for value in self._known.values() if issubclass(type(value), DataLoader)]
        return cast("list[DataLoader[Any]]", found)

    # --- the walk -----------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Visits objects without recursion, as chains may be long. Breadth first: near objects are copied first."""
        while self._waiting:
            value, reach = self._waiting.popleft()
            if id(value) in self._known or id(value) in self._beside:
                continue
            self._known[id(value)] = value
            try:
                self._visit(value, type(value), reach)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:  # an object may raise anything when it is copied: then it is left alone
                continue

    def _visit(self, value: Any, kind: type, reach: Reach) -> None:
        if issubclass(kind, FUNCTIONS):
            self._keep_variables(value, reach)
            return
        if issubclass(kind, (nn.Module, Optimizer)):  # these are state wherever they are held, also by a dataset
            reach = Reach.WHOLE
        elif issubclass(kind, (Dataset, DataLoader, Sampler)):  # these are data, even if a module holds them
            reach = Reach.DATA
        if issubclass(kind, _CONTAINERS):
            self._keep_members(value, kind, reach)
        elif issubclass(kind, Tensor):
            self._keep_tensor(value, reach)
        elif issubclass(kind, np.ndarray):
            self._keep_array(value, kind, reach)
        elif kind is types.MappingProxyType:
            self._expect(value.values(), reach)
        elif issubclass(kind, (bytearray, array)):
            self._add(kinds.raw_content(value), reach)
        elif issubclass(kind, kinds.GENERATORS):
            reach = Reach.DATA
            self._add(kinds.random_state(value), reach)
        if is_followed(kind):
            self._keep_attributes(value, reach)

    def _keep_variables(self, function: object, reach: Reach) -> None:
        objects, restores = self._variables.of(function)
        for restore in restores:
            self._add(restore, reach)
        for value in objects:
            perhaps_data = reach is Reach.WHOLE and issubclass(type(value), (Tensor, np.ndarray))
            self._expect([value], Reach.SMALL if perhaps_data else reach)

    def _keep_members(self, value: Any, kind: type, reach: Reach) -> None:
        """Remembers the members of a container. Members of a large container of data are samples, and left out."""
        if issubclass(kind, dict):
            if self._affords(16 * len(value), reach):
                self._add(kinds.dict_items(value), reach)
            members: Iterable[object] = (*dict.keys(value), *dict.values(value))
        else:
            for base, remember in ((list, kinds.list_members), (deque, kinds.deque_members), (set, kinds.set_members)):
                if issubclass(kind, base) and self._affords(8 * len(value), reach):
                    self._add(remember(value), reach)
            members = next(base.__iter__(value) for base in _CONTAINERS if issubclass(kind, base))
        if reach is Reach.WHOLE or len(value) <= MANY:
            self._expect(members, reach)

    def _keep_tensor(self, tensor: Tensor, reach: Reach) -> None:
        if is_lazy(tensor) or not tensor.is_leaf:  # the value of a graph is computed anew, not written to
            return
        if tensor.grad is not None:
            self._expect([tensor.grad], reach)
        size = tensor.nbytes if tensor.layout is torch.strided else 0
        self._add(kinds.tensor_content(tensor, self._affords(size, reach)), reach)

    def _keep_array(self, value: kinds.Array, kind: type, reach: Reach) -> None:
        if issubclass(kind, np.memmap):  # the array is a file
            return
        if value.dtype == object and (reach is Reach.WHOLE or value.size <= MANY):
            self._expect(value.ravel().tolist(), reach)
        if value.flags.writeable and self._affords(value.nbytes, reach):
            self._add(kinds.array_content(value), reach)

    def _keep_attributes(self, value: object, reach: Reach) -> None:
        held = attributes_of(value)
        if held is not None:
            self._add(kinds.attribute_dict(value, held), reach)
            self._expect([held], reach)
        self._add(kinds.slots_content(value), reach)
        self._expect([each for _, each in filled_slots(value)], reach)

    def _expect(self, values: Iterable[object], reach: Reach) -> None:
        self._waiting.extend((value, reach) for value in values if type(value) not in FIXED)

    def _add(self, restore: Restore | None, reach: Reach) -> None:
        if restore is not None:
            (self._restores_at_end if reach is Reach.DATA else self._restores).append(restore)

    def _affords(self, size: int, reach: Reach) -> bool:
        """True if that many bytes may be copied. Counts them if so."""
        if reach is Reach.WHOLE:
            return True
        affords = size <= self._bytes_left
        self._bytes_left -= size if affords else 0
        return affords


def _run(restores: Collection[Restore]) -> None:
    errors = [error for error in map(_error_of, restores) if error is not None]
    if errors:
        raise errors[0]


def _error_of(restore: Restore) -> Exception | None:
    try:
        restore()
    except Exception as error:
        return error
    return None
