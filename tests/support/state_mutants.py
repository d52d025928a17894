"""State dicts of optimizers of many kinds, with something wrong at a random place."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clr_native import CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence
from helpers import gradient_sets, parameters, train

SEQUENCE = ScheduleSequence([(RampSchedule(0.0, 0.2, 3), 3), (CyclicSchedule(0.1, 0.5, step_size_up=2), None)])
HALF = torch.bfloat16


def halving(cycle: int) -> float:
    return float(0.5 ** min(cycle - 1, 99))


def _settings(*, dtype: torch.dtype = torch.float32, by_hand: float | None = None, **settings: Any) -> FusedCyclicSGD:
    over = parameters([3, (3, 2), ()], dtype)
    if not settings.keys() & {"lr", "schedule"}:
        settings = {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2, **settings}
    optimizer = FusedCyclicSGD([{"params": over[:1]}, {"params": over[1:]}], **settings)
    train(optimizer, over, gradient_sets(over, 2), 5)
    if by_hand is not None:
        optimizer.param_groups[1]["lr"] = by_hand
    return optimizer


def _own_schedules() -> FusedCyclicSGD:
    over = parameters([3, (3, 2), ()])
    groups: list[dict[str, Any]] = [
        {"params": over[:1], "window": "hann", "weight_decay": 0.1},
        {"params": over[1:2], "schedule": SEQUENCE},
        {"params": over[2:], "cycle_momentum": False, "momentum": 0.5, "mine": [1, {"two": 3.0}]},
    ]
    optimizer = FusedCyclicSGD(groups, 0.1, 0.5, step_size_up=2)
    train(optimizer, over, gradient_sets(over, 2), 4)
    return optimizer


def _with_gaps() -> FusedCyclicSGD:
    over = [torch.ones(2, 2, 2, 2).contiguous(memory_format=torch.channels_last), torch.ones(4, 6)[:, ::2]]
    over = [p.detach().requires_grad_() for p in over]
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, ema_decay=0.5)
    train(optimizer, over, gradient_sets(over, 2), 2)
    return optimizer


KINDS: dict[str, Callable[[], FusedCyclicSGD]] = {
    "plain": _settings,
    "own schedules": _own_schedules,
    "ema": lambda: _settings(ema_decay=0.9, ema_warmup=True),
    "swa": lambda: _settings(average="swa", mode="triangular2"),
    "kahan": lambda: _settings(dtype=HALF, kahan=True),
    "master weights": lambda: _settings(dtype=HALF, master_weights=True, ema_decay=0.5),
    "stochastic": lambda: _settings(dtype=HALF, rounding="stochastic", momentum_dtype="float32"),
    "momentum_dtype": lambda: _settings(momentum_dtype="bfloat16", nesterov=True),
    "float64": lambda: _settings(dtype=torch.float64, mode="exp_range", gamma=0.9, dampening=0.5),
    "LARS": lambda: _settings(trust_coefficient=0.01, weight_decay=0.1),
    "rate": lambda: _settings(lr=0.1),
    "sequence": lambda: _settings(schedule=SEQUENCE, momentum=0.5),
    "one cycle": lambda: _settings(schedule=OneCycleSchedule(0.5, 9)),
    "by hand": lambda: _settings(by_hand=0.3),
    "scale_fn": lambda: _settings(scale_fn=halving, decay_base=True),
    "gaps": _with_gaps,
}

_NUMBERS: list[object] = [
    -1,
    0,
    1,
    2,
    0.0,
    0.25,
    1.5,
    -0.5,
    1e300,
    5e-324,
    2**53,
    2**63 - 2,
    2**63 - 1,
    2**63,
    2**64 - 1,
]
_NUMBERS += [
    2**70,
    -(2**70),
    10**400,
    float("nan"),
    float("inf"),
    -float("inf"),
    np.float64(0.5),
    np.int64(3),
    Fraction(1, 3),
]
_TEXTS: list[object] = ["", "1", "swa", "float32", "bfloat16", "stochastic", "linear_range", "sequence", "é\x00", b"1"]
_OTHERS: list[object] = [None, True, False, 1j, object(), object, len, set(), {1}, frozenset(), range(2), np.ones(2)]


def _containers() -> list[object]:
    return [[], (), {}, [None], [[]], [1, 2, 3], {"kind": 1}, {None: 2}, {"params": [0]}, [{}], {0: {}}, ((), ())]


def _freed(like: Tensor) -> Tensor:
    freed = torch.ones_like(like)
    freed.untyped_storage().resize_(0)
    return freed


# Replacements of a tensor: unfit values, and some that are as good.
_TENSORS: list[Callable[[Tensor], Tensor]] = [
    lambda like: torch.ones(7),
    lambda like: torch.ones(()),
    lambda like: torch.ones(0),
    lambda like: torch.ones(1, *like.shape),
    lambda like: torch.full(like.shape, float("nan")),
    lambda like: torch.ones(like.shape, dtype=torch.int64),
    lambda like: torch.ones(like.shape, dtype=torch.bool),
    lambda like: torch.ones(like.shape, dtype=torch.complex64),
    lambda like: torch.ones(like.shape, dtype=torch.float64),
    lambda like: torch.ones(like.shape, dtype=torch.float16),
    lambda like: torch.ones(like.shape, dtype=torch.bfloat16),
    lambda like: torch.ones(like.shape).to(torch.float8_e5m2),
    lambda like: torch.ones(like.shape, device="meta"),
    lambda like: torch.ones(like.shape).to_sparse(),
    lambda like: torch.ones(like.shape, requires_grad=True),
    lambda like: torch.ones(()).expand(like.shape),
    lambda like: torch.ones(like.shape[::-1]).permute(tuple(range(like.ndim))[::-1]),
    lambda like: torch._neg_view(torch.ones(like.shape)),
    lambda like: torch.quantize_per_tensor(torch.ones(like.shape), 1.0, 0, torch.quint8),
    lambda like: torch.nn.Parameter(torch.ones(like.shape)),
    lambda like: torch.ones(like.shape),
    lambda like: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    _freed,
]


class Place(NamedTuple):
    container: Any  # a dict or a list
    key: Any
    path: tuple[Any, ...]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[Place]:
    """Yields every place of a nested dict or list."""
    if not isinstance(value, (dict, list)) or len(path) > 7:
        return
    for key in value if isinstance(value, dict) else range(len(value)):
        yield Place(value, key, (*path, key))
        yield from places(value[key], (*path, key))


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value.clone() if isinstance(value, Tensor) else value


class Mutants:
    """Mutated copies of one state dict. The seed determines them."""

    def __init__(self, state: dict[str, Any], seed: int) -> None:
        self.state = copied(state)
        self.random = random.Random(seed)
        everywhere = [place.key for place in places(state) if isinstance(place.key, str)]
        # These also include keys of other kinds.
        more = ["master_weight", "compensation", "average", "step", "scale_fn", "segments", "kind", "base_lr", "seed"]
        self.names = sorted({*everywhere, *more, "param_names", "foreach", "fused", "capturable", "differentiable"})

    def next(self) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
        """Returns a mutant, and the paths to the places that are wrong in it."""
        mutant = copied(self.state)
        changes = [self.replace, self.replace, self.replace, self.delete, self.insert, self.swap, self.repeat]
        first = self.random.choice(changes)(mutant)
        if self.random.random() < 0.75 or len(first) == 0:
            return mutant, first
        return mutant, first + self.random.choice(changes[:5])(mutant)

    def place(self, mutant: dict[str, Any]) -> Place:
        """Returns a random place. Half of the places are in the state, which is smaller."""
        at = self.random.choice(("", "state", "param_groups"))
        found = [place for place in places(mutant) if not at or place.path[0] == at]
        return self.random.choice(found or list(places(mutant)))

    def junk(self, instead_of: object) -> object:
        like = instead_of if isinstance(instead_of, Tensor) and not instead_of.is_nested else None
        if self.random.random() < (0.03 if like is None else 0.8):
            return self.random.choice(_TENSORS)(torch.empty(3) if like is None else like)
        return self.random.choice(self.random.choice((_NUMBERS, _TEXTS, _OTHERS, _containers())))

    def replace(self, mutant: dict[str, Any]) -> list[tuple[Any, ...]]:
        container, key, path = self.place(mutant)
        container[key] = self.junk(container.get(key) if isinstance(container, dict) else container[key])
        return [path]

    def delete(self, mutant: dict[str, Any]) -> list[tuple[Any, ...]]:
        container, key, path = self.place(mutant)
        del container[key]
        return [path]

    def insert(self, mutant: dict[str, Any]) -> list[tuple[Any, ...]]:
        container, key, path = self.place(mutant)
        if isinstance(container, list):
            container.insert(key, self.junk(container[key]))
            return [path]
        new = self.random.choice([*self.names, 7, -1, 0.5, None, (), b"lr", "0", True, 2**70, len, torch.ones(2)])
        container[new] = self.junk(container[key])
        return [(*path[:-1], new)]

    def swap(self, mutant: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Swaps two places, often of the same kind: groups, entries, tensors."""
        one, other = self.place(mutant), self.place(mutant)
        if self.random.random() < 0.7:
            near = [p for p in places(mutant) if len(p.path) == len(one.path) and p.path[0] == one.path[0]]
            other = self.random.choice(near or [one])
        if one.path[: len(other.path)] == other.path or other.path[: len(one.path)] == one.path:
            return [one.path]
        values = other.container[other.key], one.container[one.key]
        one.container[one.key], other.container[other.key] = values
        return [one.path, other.path]

    def repeat(self, mutant: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Puts the value at one place at another place as well."""
        one, other = self.place(mutant), self.place(mutant)
        if other.path[: len(one.path)] == one.path:  # the value would hold itself
            return [one.path]
        other.container[other.key] = one.container[one.key]
        return [other.path]
