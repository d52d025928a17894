"""Tells which objects are looked into, and reads their attributes and slots.

Nothing here calls code of an object's class. Attributes are read without properties and ``__getattr__``, which may
fail, compute or count.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import sys
import types
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import dataloader

# Objects of these kinds cannot change, or their changes are nobody's state.
FIXED: Final = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, slice, type(...), torch.device, torch.dtype, torch.Size}
)
# Other classes of the standard library stand for things outside, such as threads, locks, queues, files and loggers.
_LIBRARY: Final = frozenset(
    {"abc", "argparse", "array", "builtins", "collections", "_collections", "configparser", "contextlib", "dataclasses"}
    | {"functools", "random", "_random", "string", "types", "typing", "_typing"}
)
STANDARD: Final = frozenset(sys.stdlib_module_names)
# Other classes of torch are machinery, such as compilers and process groups, that manages its own state.
_TORCH: Final = ("nn", "optim", "amp", "cuda.amp", "utils.data", "distributions")


def is_followed(kind: type) -> bool:
    """True if the attributes of such an object are its state, not a handle on something outside this process's data."""
    return _is_followed(cast("Any", kind))  # for the cache: mypy thinks that `type` has no hash


@functools.lru_cache(maxsize=4096)
def _is_followed(kind: Any) -> bool:
    if issubclass(kind, (nn.Module, Optimizer, Tensor)):
        return True
    if issubclass(kind, (type, enum.Enum, types.ModuleType, dataloader._BaseDataLoaderIter)):
        return False
    return all(_is_plain(base) for base in kind.__mro__)


def _is_plain(base: type) -> bool:
    root, _, rest = str(base.__module__).partition(".")
    if root == "torch":
        return any(rest == name or rest.startswith(name + ".") for name in _TORCH)
    return root in _LIBRARY or root not in STANDARD


def attributes_of(value: object) -> dict[str, Any] | None:
    """Returns the object's own dict of attributes, not a copy. Returns None if it has none."""
    try:
        held = object.__getattribute__(value, "__dict__")
    except Exception:  # the class may do anything here
        return None
    return held if type(held) is dict else None


def slots_of(kind: type) -> tuple[types.MemberDescriptorType, ...]:
    """Returns the slots of a class and of its bases."""
    return _slots_of(cast("Any", kind))


@functools.lru_cache(maxsize=4096)
def _slots_of(kind: Any) -> tuple[types.MemberDescriptorType, ...]:
    named = [vars(base).values() for base in kind.__mro__ if "__slots__" in vars(base)]
    return tuple(each for names in named for each in names if type(each) is types.MemberDescriptorType)


def filled_slots(value: object) -> list[tuple[types.MemberDescriptorType, Any]]:
    """Returns the slots that hold something, with their values."""
    filled = []
    for slot in slots_of(type(value)):
        with contextlib.suppress(AttributeError):
            filled.append((slot, slot.__get__(value)))
    return filled
