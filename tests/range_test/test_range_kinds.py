"""Objects of every kind that change during a range test hold afterwards what they held, wherever they hang."""

from __future__ import annotations

import array
import dataclasses
import functools
import random
import threading
import types
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from clr_native import lr_range_test
from range_helpers import batches, linear, mse, quick

DATA = batches(dtype=torch.float64)


@functools.cache
def opened() -> IO[str]:
    return open(__file__)  # closed when all tests are done


@pytest.fixture(autouse=True, scope="module")
def _closed() -> Iterator[None]:
    yield
    opened().close()


class Plain:
    calls: Any
    total: Any
    other: Any
    own: Any

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


class Slots:
    __slots__ = ("__hidden", "absent", "count")

    def __init__(self) -> None:
        self.count = 1
        self.__hidden = [1]

    def change(self) -> None:
        self.count += 1
        self.__hidden.append(2)
        self.absent = 3

    def picture(self) -> object:
        return self.count, list(self.__hidden), hasattr(self, "absent")


class MoreSlots(Slots):
    __slots__ = ("more",)


class Difficult:
    """Refuses what copying and comparing would ask of it."""

    def __init__(self) -> None:
        vars(self).update(tensor=torch.zeros(2), count=0, lock=threading.Lock(), file=opened())

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError

    def __deepcopy__(self, memo: object) -> None:
        raise RuntimeError

    def __reduce_ex__(self, protocol: object) -> Any:
        raise RuntimeError

    @property
    def broken(self) -> None:
        raise RuntimeError

    def change(self) -> None:
        self.tensor.add_(1.0)
        vars(self)["count"] += 1

    def picture(self) -> object:
        return self.tensor.tolist(), self.count


class Frozen(dict[str, Any]):
    def __setitem__(self, key: str, value: object) -> None:
        raise TypeError

    clear = update = pop = __setitem__  # type: ignore[assignment]  # all refuse


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    total: Tensor
    names: list[str]
    made: int = dataclasses.field(init=False, default=3)


class Average:
    """A moving average as people write it: copies in a dict by name."""

    def __init__(self) -> None:
        self.model = linear()
        self.shadow = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.backup: dict[str, Tensor] = {}

    def change(self) -> None:
        self.backup = self.shadow
        self.shadow = {name: 0.9 * held for name, held in self.shadow.items()}
        next(iter(self.backup.values())).mul_(2.0)

    def picture(self) -> object:
        return {name: (id(held), held.tolist()) for name, held in self.shadow.items()}, len(self.backup)


class Metric(nn.Module):
    """States that are tensors or lists of them, as torchmetrics has."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(()), persistent=False)
        self.seen: list[Tensor] = []
        self._computed: Tensor | None = None

    def change(self) -> None:
        self.total += 1.0
        self.seen.append(self.total.clone())
        self._computed = self.total

    def picture(self) -> object:
        return id(self.total), self.total.item(), len(self.seen), self._computed is None


def ring() -> Plain:
    first, second = Plain(count=0), Plain(count=0)
    first.other, second.other, first.own = second, first, first
    return first


def chain(length: int) -> Plain:
    last = link = Plain(count=0)
    for _ in range(length):
        link = Plain(next=link)
    return Plain(first=link, last=last)


def masked() -> Any:
    return np.ma.masked_array([1.0, 2.0], mask=[True, False])


def change_masked(value: Any) -> None:
    value[0] = 5.0


def tensor_with_notes() -> Tensor:
    tensor = torch.zeros(2)
    tensor.notes = {"main_grad": torch.zeros(2)}  # type: ignore[attr-defined]  # what Megatron does
    return tensor


def inferred() -> Tensor:
    with torch.inference_mode():
        return torch.zeros(2)


def change_inferred(tensor: Tensor) -> None:
    with torch.inference_mode():
        tensor.add_(1.0)


def grow(value: Any) -> None:
    value["new"] = 1
    value["old"].append(1)


def append(value: Any) -> None:
    value.append(7)


def call(name: str, *arguments: Any) -> Callable[[Any], object]:
    return lambda value: getattr(value, name)(*arguments)


def draw_and_note(value: Any) -> None:
    value.random()
    value.note = 1


CHANGE, PICTURE = call("change"), call("picture")
Case = tuple[Callable[[], Any], Callable[[Any], object], Callable[[Any], object]]
KINDS: dict[str, Case] = {
    "array": (lambda: np.zeros(3), lambda v: v.__iadd__(1.0), np.ndarray.tobytes),
    "array, a view": (lambda: np.zeros((4, 4))[::2, 1:3], lambda v: v.fill(-0.0), np.ndarray.tobytes),
    "array of objects": (lambda: np.array([[1], {2}], dtype=object), lambda v: v[0].append(2), repr),
    "array with names": (lambda: np.zeros(2, "f4, i8"), lambda v: v["f1"].fill(3), np.ndarray.tobytes),
    "masked array": (masked, change_masked, repr),
    "bytearray": (lambda: bytearray(b"ab"), lambda v: v.append(3), bytes),
    "array.array": (lambda: array.array("d", [1.0]), lambda v: v.append(3.0), repr),
    "deque": (lambda: deque([1, [2]], maxlen=2), append, repr),
    "set": (lambda: {1, 2}, lambda v: v.add(3), repr),
    "Counter": (lambda: Counter("aab"), lambda v: v.update("abc"), repr),
    "OrderedDict": (lambda: OrderedDict(a=1, b=2), lambda v: v.move_to_end("a"), repr),
    "defaultdict": (lambda: defaultdict(list, old=[]), grow, repr),
    "UserDict": (lambda: UserDict(old=[]), grow, repr),
    "dict that refuses": (lambda: Frozen(old=[1]), lambda v: dict.__setitem__(v, "new", 2), repr),
    "list in a tuple": (lambda: ([1], "x"), lambda v: v[0].append(2), repr),
    "list in a read-only dict": (lambda: types.MappingProxyType({"x": [1]}), lambda v: v["x"].append(2), repr),
    "key of a dict": (
        lambda: {Plain(count=0): 1},
        lambda v: setattr(next(iter(v)), "count", 9),
        lambda v: next(iter(v)).count,
    ),
    "SimpleNamespace": (lambda: types.SimpleNamespace(n=1), lambda v: v.__init__(n=2, m=3), repr),
    "nested object": (lambda: Plain(a=Plain(t=torch.zeros(2))), lambda v: v.a.t.add_(1), lambda v: v.a.t.tolist()),
    "attributes replaced as a whole": (
        lambda: Plain(count=0),
        lambda v: setattr(v, "__dict__", {"count": 5}),
        lambda v: v.count,
    ),
    "slots": (Slots, CHANGE, PICTURE),
    "slots of a base": (MoreSlots, CHANGE, PICTURE),
    "frozen record": (lambda: Record(torch.zeros(2), []), lambda v: (v.total.add_(1), v.names.append("a")), repr),
    "ring": (ring, lambda v: v.other.__init__(count=3, other=None), lambda v: (v.other.count, v.other.other is v)),
    "long chain": (lambda: chain(20_000), lambda v: setattr(v.last, "count", 1), lambda v: v.last.count),
    "difficult": (Difficult, CHANGE, PICTURE),
    "moving average": (Average, CHANGE, PICTURE),
    "metric": (Metric, CHANGE, PICTURE),
    "tensor's attributes": (
        tensor_with_notes,
        lambda v: v.notes["main_grad"].add_(1.0),
        lambda v: v.notes["main_grad"].tolist(),
    ),
    "inference tensor": (inferred, change_inferred, Tensor.tolist),
    "tensor moved elsewhere": (lambda: torch.zeros(2), lambda v: setattr(v, "data", torch.ones(3)), Tensor.tolist),
    "sparse tensor": (lambda: torch.eye(2).to_sparse(), lambda v: v.mul_(2.0), lambda v: v.to_dense().tolist()),
    "torch.Generator": (torch.Generator, lambda v: torch.rand(1, generator=v), lambda v: v.get_state().tolist()),
    "random.Random": (lambda: random.Random(1), call("gauss", 0.0, 1.0), call("getstate")),
    "numpy Generator": (lambda: np.random.default_rng(1), call("normal"), lambda v: repr(v.bit_generator.state)),
    "RandomState": (lambda: np.random.RandomState(1), call("normal"), lambda v: repr(v.get_state())),
    "Philox": (lambda: np.random.Philox(1), call("random_raw"), lambda v: repr(v.state)),
    "bound method": (lambda: Slots().change, lambda v: v(), lambda v: v.__self__.picture()),
    "partial": (lambda: functools.partial(Slots.change, Slots()), lambda v: v(), lambda v: v.args[0].picture()),
    "SystemRandom": (random.SystemRandom, call("random"), type),
    "lock": (threading.Lock, lambda v: None, type),
    "file": (lambda: opened(), lambda v: v.read(1), lambda v: v.closed),
    "module": (lambda: math_module(), lambda v: None, id),
    "class": (lambda: Plain, lambda v: None, id),
    "iterator": (lambda: iter([1, 2, 3]), lambda v: None, type),
}


def math_module() -> types.ModuleType:
    return types


class Holder(nn.Linear):
    def __init__(self, held: Any, change: Callable[[Any], object]) -> None:
        super().__init__(4, 2, dtype=torch.float64)
        self.held, self.change = held, change

    def forward(self, inputs: Tensor) -> Tensor:
        self.change(self.held)
        return super().forward(inputs)


class HolderLoss(Holder):
    def forward(self, outputs: Tensor, targets: Tensor | None = None) -> Tensor:
        self.change(self.held)
        assert targets is not None
        return mse(outputs, targets)


class CallableLoss:
    def __init__(self, held: Any, change: Callable[[Any], object]) -> None:
        self.held, self.change = held, change

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.change(self.held)
        return mse(outputs, targets)

    method = __call__

    def measure(self, outputs: Tensor, targets: Tensor) -> float:
        self.change(self.held)
        return 1.0

    def note(self, *_: object) -> None:
        self.change(self.held)


def run_with(place: str, held: Any, change: Callable[[Any], object]) -> None:
    """A range test in which the object that hangs at the place is changed."""
    model: nn.Module = linear()
    owner = CallableLoss(held, change)
    optimizer = SGD(model.parameters(), lr=0.1)
    settings: dict[str, Any] = {"loss_fn": mse}
    if place == "module":
        model = Holder(held, change)
        optimizer = SGD(model.parameters(), lr=0.1)
    elif place == "optimizer":
        optimizer.held = held  # type: ignore[attr-defined]  # as attributes come
        optimizer.register_step_post_hook(lambda *_: [change(held)].clear())
    elif place == "hook of a module":
        model.register_forward_hook(owner.note)
    elif place == "metric":
        settings["metric"] = owner.measure
    elif place == "also_restore":
        settings |= {"loss_fn": lambda *pair: (change(held), mse(*pair))[1], "also_restore": [held]}
    else:
        losses: dict[str, Callable[[], Callable[..., Tensor]]] = {
            "loss module": lambda: HolderLoss(held, change),
            "callable object": lambda: owner,
            "bound method": lambda: owner.method,
            "partial": lambda: functools.partial(CallableLoss.method, owner),
            "closure": lambda: lambda *pair: owner(*pair),
        }
        settings["loss_fn"] = losses[place]()
    lr_range_test(model, optimizer, loader=DATA, **settings, **quick(repeats=2))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_on_a_module(name: str) -> None:
    make, change, picture = KINDS[name]
    held = make()
    before = picture(held)
    run_with("module", held, change)
    assert picture(held) == before
    change(held)
    assert picture(held) != before or name in {"SystemRandom", "lock", "file", "module", "class", "iterator"}


PLACES = ["optimizer", "hook of a module", "metric", "also_restore", "loss module", "callable object"]


@pytest.mark.parametrize("place", [*PLACES, "bound method", "partial", "closure"])
@pytest.mark.parametrize("name", ["array", "slots", "numpy Generator", "moving average"])
def test_some_kinds_in_every_place(name: str, place: str) -> None:
    make, change, picture = KINDS[name]
    held = make()
    before = picture(held)
    run_with(place, held, change)
    assert picture(held) == before
