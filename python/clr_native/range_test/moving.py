"""Moves batches to another device. Tensors already there are passed on, and the rest as copies of the same kind."""

from __future__ import annotations

import dataclasses
import types
from collections import OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clr_native.range_test.memory import Memory
from clr_native.range_test.objects import FIXED, attributes_of, filled_slots, is_followed

_MAPPINGS: tuple[Any, ...] = (OrderedDict, defaultdict, dict)
_COLLECTIONS: tuple[Any, ...] = (list, deque, tuple, set, frozenset)


class Mover:
    """Moves the tensors in a value: in containers and records of any class, and in objects that move themselves.

    A container or record in which nothing has to move is returned itself. A copy has all attributes. It is made without
    a call of its class, whose constructor may take other arguments. Parts that are one object stay one object. An
    object of another kind, or one that cannot be copied, is returned as it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._moved: dict[int, tuple[object, object]] = {}  # id to (object, which keeps its id unique, moved object)

    def __call__(self, value: Any) -> Any:
        kind = type(value)
        if kind in FIXED:
            return value
        if id(value) not in self._moved:
            self._moved[id(value)] = value, value  # for its parts that refer back to it
            self._moved[id(value)] = value, self._move(value, kind)
        return self._moved[id(value)][1]

    def _move(self, value: Any, kind: type) -> Any:
        if issubclass(kind, Tensor):
            return self._move_tensor(value)
        if issubclass(kind, nn.Module):
            return value
        if callable(getattr(kind, "to", None)):
            return self._move_itself(value)
        if kind is types.MappingProxyType:
            moved = self(dict(value))
            return types.MappingProxyType(moved) if _differ(moved.values(), value.values()) else value
        for base in _MAPPINGS:
            if issubclass(kind, base):
                held = list(base.values(value))
                return self._copied(value, base, held, [self(each) for each in held])
        for base in _COLLECTIONS:
            if issubclass(kind, base):
                held = list(base.__iter__(value))
                return self._copied(value, base, held, [self(each) for each in held])
        if not _is_record(kind):
            return value
        return self._copied(value, types.SimpleNamespace if issubclass(kind, types.SimpleNamespace) else object, [], [])

    def _move_tensor(self, tensor: Tensor) -> Tensor:
        """Moves a tensor. A leaf that requires a gradient stays a leaf, so that the moved tensor gets the gradient."""
        moved = tensor.to(self._device)
        if moved is tensor or not (tensor.is_leaf and tensor.requires_grad):
            return moved
        return tensor.detach().to(self._device).requires_grad_()

    def _move_itself(self, value: Any) -> Any:
        """Calls the object's own ``to()``, which returns another object, or moves the object and returns it or None."""
        tensors = list(_tensors_in(value))
        if tensors and all(tensor.device == self._device for tensor in tensors):
            return value
        memory = Memory()
        memory.keep_data(value)
        try:
            moved = value.to(self._device)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # returned as it was, not half moved
            memory.put_back()
            return value
        return value if moved is None else moved

    def _copied(self, value: Any, base: Any, held: list[Any], moved: list[Any]) -> Any:
        """Returns a copy of `value` with `moved` in the places of `held`, and with its attributes moved too."""
        attributes = attributes_of(value) or {}
        new_attributes = {name: self(each) for name, each in attributes.items()}
        slots = filled_slots(value)
        new_slots = [(slot, self(each)) for slot, each in slots]
        if not (
            _differ(moved, held)
            or _differ(new_attributes.values(), attributes.values())
            or _differ([each for _, each in new_slots], [each for _, each in slots])
        ):
            return value
        try:
            copy = _with_members(value, base, moved)
            if new_attributes:
                object.__getattribute__(copy, "__dict__").update(new_attributes)
            for slot, each in new_slots:
                slot.__set__(copy, each)
        except Exception:  # a class may forbid all of this
            return value
        return copy


def _with_members(value: Any, base: Any, members: list[Any]) -> Any:
    """Returns an object of the class of `value` with these members, made by `base` alone."""
    kind: Any = type(value)
    if issubclass(base, tuple):
        try:
            return tuple.__new__(kind, members)
        except TypeError:  # named results of torch and other C types, whose class takes the members
            return kind(members)
    if base is frozenset:
        return frozenset.__new__(kind, members)
    copy = base.__new__(kind)
    if isinstance(value, dict):
        for key, each in zip(base.keys(value), members, strict=True):
            base.__setitem__(copy, key, each)
        if isinstance(value, defaultdict):
            copy.default_factory = value.default_factory
    elif isinstance(value, deque):
        deque.__init__(copy, members, value.maxlen)
    elif base is list:
        list.extend(copy, members)
    elif base is set:
        set.update(copy, members)
    return copy


def _is_record(kind: type) -> bool:
    """True for classes whose objects are nothing but their attributes."""
    if dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__") or issubclass(kind, types.SimpleNamespace):
        return True
    return is_followed(kind) and issubclass(kind, (UserDict, UserList, Mapping, Sequence))


def _differ(some: Any, others: Any) -> bool:
    return any(one is not other for one, other in zip(some, others, strict=True))


def _tensors_in(value: object) -> Iterator[Tensor]:
    """Yields the tensors that can be reached through containers and attributes."""
    waiting, seen = [value], {}
    while waiting:
        each: Any = waiting.pop()
        kind = type(each)
        if kind in FIXED or id(each) in seen:
            continue
        seen[id(each)] = each
        if issubclass(kind, Tensor):
            yield each
            continue
        if issubclass(kind, dict):
            waiting.extend(dict.values(each))
        for base in _COLLECTIONS:
            if issubclass(kind, base):
                waiting.extend(base.__iter__(each))
        if is_followed(kind) and not issubclass(kind, nn.Module):
            waiting.extend((attributes_of(each) or {}).values())
            waiting.extend(held for _, held in filled_slots(each))
