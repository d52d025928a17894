"""What can be reached from some objects, remembered and put back into the same objects, bit for bit."""

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

# Of a dataset or a batch, as many bytes of tensors, arrays and lists are copied; what is larger holds samples.
DATA_BYTES: Final = 2**27
_CONTAINERS: Final = (dict, list, deque, set, tuple, frozenset)


class Reach(Enum):
    """How much is copied of what is reached, and when it is put back."""

    WHOLE = 0  # all of it
    SMALL = 1  # if it is small: it stands in a variable and may be a data set
    DATA = 2  # if it is small, and only at the end: data goes on where it is when a test is repeated


class Memory:
    """What objects held, and how to put it back into the same objects.

    Containers, tensors, arrays, generators of random numbers and attributes of objects are followed, through every
    object that can be reached, each visited once. A tensor is written in place, so that whoever else holds it, or a
    view of it, sees the old values again. What cannot be copied, and what stands for something outside (threads,
    files), is left alone: the same object, in the state that it has then.
    """

    def __init__(self, beside: Memory | None = None) -> None:
        self._known: dict[int, object] = {}  # id to object; holding it keeps the id its own
        self._beside = {} if beside is None else beside._known
        self._variables = Variables(self._known)
        self._waiting: deque[tuple[object, Reach]] = deque()
        self._restores: list[Restore] = []
        self._restores_at_end: list[Restore] = []
        self._bytes_left = DATA_BYTES

    def follow_modules_of(self, *functions: object) -> None:
        """From now on global variables of the modules of these functions are followed where functions read them."""
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
        """As ``keep_data``; of a plain list the batches are left out: each is remembered while it is used."""
        if type(loader) not in (list, tuple):
            self.keep_data(loader)
        elif id(loader) not in self._known:
            self._known[id(loader)] = loader
            if isinstance(loader, list):
                self._add(kinds.list_members(loader), Reach.DATA)

    @torch.no_grad()
    def put_back(self) -> None:
        """Make everything what it was. May be called several times. An error is raised when the rest is done."""
        _run(self._restores + self._restores_at_end)

    @torch.no_grad()
    def rewind(self) -> None:
        """As ``put_back``, but random numbers and data go on from where they are: for a test that is repeated."""
        _run(self._restores)

    @property
    def loaders(self) -> list[DataLoader[Any]]:
        """Every DataLoader that was reached."""
        found = [value for value in self._known.values() if issubclass(type(value), DataLoader)]
        return cast("list[DataLoader[Any]]", found)

    # --- the walk -----------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Without recursion, as chains of objects may be long; breadth first, so that what is near is copied first."""
        while self._waiting:
            value, reach = self._waiting.popleft()
            if id(value) in self._known or id(value) in self._beside:
                continue
            self._known[id(value)] = value
            try:
                self._visit(value, type(value), reach)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:  # objects may do anything when they are copied: such a one is left alone
                continue

    def _visit(self, value: Any, kind: type, reach: Reach) -> None:
        if issubclass(kind, FUNCTIONS):
            self._keep_variables(value, reach)
            return
        if issubclass(kind, (nn.Module, Optimizer)):  # state wherever it hangs, also on a dataset
            reach = Reach.WHOLE
        elif issubclass(kind, (Dataset, DataLoader, Sampler)):  # data, also where a module holds it
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
        """A container is put back as one; members of a large one are samples if it is data."""
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
        if is_lazy(tensor) or not tensor.is_leaf:  # a value that some graph made is made anew, not written to
            return
        if tensor.grad is not None:
            self._expect([tensor.grad], reach)
        size = tensor.nbytes if tensor.layout is torch.strided else 0
        self._add(kinds.tensor_content(tensor, self._affords(size, reach)), reach)

    def _keep_array(self, value: kinds.Array, kind: type, reach: Reach) -> None:
        if issubclass(kind, np.memmap):  # a file
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
        """True if that many bytes may be copied; they are then counted."""
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
