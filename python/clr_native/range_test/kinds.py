"""Remembers the content of one object and puts it back into that object, for each kind of object.

Each function remembers the present content of the object, and returns a function that puts it back.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from clr_native.range_test.objects import attributes_of, filled_slots, slots_of

Restore: TypeAlias = Callable[[], object]
GENERATORS: Final = (torch.Generator, random.Random, np.random.RandomState, np.random.Generator, np.random.BitGenerator)
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def tensor_content(tensor: Tensor, copied: bool) -> Restore:
    """Remembers ``requires_grad``, the gradient and, if `copied`, the values.

    Values are written in place: whoever holds a view of the tensor sees them again.
    """
    strided = tensor.layout is torch.strided
    own = tensor.detach() if strided else tensor  # keeps this memory, even if `tensor.data` is set to another
    content = _memory_of(own).clone() if copied else None
    requires_grad, gradient = tensor.requires_grad, tensor.grad

    def put_back() -> None:
        if content is not None:
            with torch.inference_mode() if own.is_inference() else contextlib.nullcontext():
                _memory_of(own).copy_(content)
        if not _same_memory(tensor, own):
            tensor.data = own
        if tensor.requires_grad != requires_grad:
            tensor.requires_grad_(requires_grad)
        if tensor.grad is not gradient:
            tensor.grad = gradient

    return put_back


def _memory_of(tensor: Tensor) -> Tensor:
    """Returns the tensor without repetitions: elements of an expanded tensor share memory and cannot be written."""
    if tensor.layout is not torch.strided or 0 not in tensor.stride():
        return tensor
    return tensor[tuple(slice(0, 1) if step == 0 else slice(None) for step in tensor.stride())]


def _same_memory(one: Tensor, other: Tensor) -> bool:
    if one.layout is not torch.strided or type(other) is not Tensor:
        return True  # no pointer to compare: a sparse tensor or a wrapper such as DTensor, whose `data` trainers leave
    return (one.data_ptr(), one.dtype, one.shape, one.stride()) == (
        other.data_ptr(),
        other.dtype,
        other.shape,
        other.stride(),
    )


def array_content(value: Array) -> Restore:
    """Remembers the elements of a numpy array. Holds no view in between: a view would forbid resizing."""
    content = value.view(np.ndarray).copy()
    return lambda: np.copyto(value.view(np.ndarray), content)


def random_state(value: object) -> Restore | None:
    """Remembers the state of one of `GENERATORS`. None for a generator of the operating system, which has no state."""
    if isinstance(value, torch.Generator):
        of_torch = value.get_state()
        return lambda: value.set_state(of_torch)
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        of_python = value.getstate()
        return lambda: value.setstate(of_python)
    if isinstance(value, np.random.RandomState):
        of_numpy = value.get_state(legacy=False)
        return lambda: value.set_state(of_numpy)
    bits = value.bit_generator if isinstance(value, np.random.Generator) else value
    if isinstance(bits, np.random.BitGenerator):
        state = bits.state
        return lambda: setattr(bits, "state", state)
    return None


def dict_items(value: dict[Any, Any]) -> Restore:
    """Remembers keys and values as objects, in order. Bypasses a subclass's methods: they may do more, or refuse."""
    base: type[dict[Any, Any]] = OrderedDict if isinstance(value, OrderedDict) else dict
    items = list(base.items(value))

    def put_back() -> None:
        now = list(base.items(value))
        if len(now) != len(items) or any(
            key is not old_key or held is not old for (key, held), (old_key, old) in zip(now, items, strict=True)
        ):
            base.clear(value)
            for key, held in items:
                base.__setitem__(value, key, held)

    return put_back


def list_members(value: list[Any]) -> Restore:
    members = list.copy(value)

    def put_back() -> None:
        if list.__len__(value) != len(members) or any(
            now is not old for now, old in zip(list.__iter__(value), members, strict=True)
        ):
            list.__setitem__(value, slice(None), members)

    return put_back


def deque_members(value: deque[Any]) -> Restore:
    members = list(deque.__iter__(value))

    def put_back() -> None:
        deque.clear(value)
        deque.extend(value, members)

    return put_back


def set_members(value: set[Any]) -> Restore:
    """Remembers the members. An unchanged set is left alone: a set that is filled anew may have another order."""
    members = list(set.__iter__(value))

    def put_back() -> None:
        if list(map(id, set.__iter__(value))) != list(map(id, members)):
            set.clear(value)
            set.update(value, members)

    return put_back


def raw_content(value: Any) -> Restore:
    """Remembers the content of a bytearray or an ``array.array``."""
    content = value[:]
    return functools.partial(value.__setitem__, slice(None), content)


def slots_content(value: object) -> Restore | None:
    """Remembers the values in the object's slots. None if its class has no slots."""
    if not slots_of(type(value)):
        return None
    filled = dict(filled_slots(value))

    def put_back() -> None:
        now = dict(filled_slots(value))
        for slot in now.keys() - filled.keys():
            slot.__delete__(value)
        for slot, held in filled.items():
            if slot not in now or now[slot] is not held:
                slot.__set__(value, held)

    return put_back


def attribute_dict(value: object, held: dict[str, Any]) -> Restore:
    """Remembers that the object has this dict of attributes. Its content is remembered as that of any dict."""

    def put_back() -> None:
        if attributes_of(value) is not held:
            object.__setattr__(value, "__dict__", held)

    return put_back
