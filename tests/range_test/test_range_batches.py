"""Batches pass through a range test as they are; where they must move, as copies of the same kind, or as they are."""

from __future__ import annotations

import dataclasses
import threading
import types
from collections import OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from clr_native.range_test.moving import Mover
from range_helpers import linear, trial

if TYPE_CHECKING:
    from typing_extensions import Self

META = torch.device("meta")  # stands for a GPU


def t(*shape: int) -> Tensor:
    return torch.ones(*shape or (2,))


@dataclasses.dataclass
class Record:
    x: Tensor
    names: list[str]
    length: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.length = len(self.x)


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenRecord:
    x: Tensor
    more: dict[str, Tensor]
    double: Tensor = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "double", 2 * self.x)


class Attrs:
    """As a class of attrs, which says so by this name."""

    __attrs_attrs__ = ("x", "note")

    def __init__(self, x: Tensor) -> None:
        self.x, self.note = x, "n"

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(self, "note"):
            raise AttributeError(name)
        super().__setattr__(name, value)


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


class OtherPair(namedtuple("OtherPair", "x y")):  # noqa: PYI024  # with a constructor of its own
    def __new__(cls, both: Any) -> Self:
        return super().__new__(cls, both, both)


class Sized(tuple[Any, ...]):
    size: int

    def __new__(cls, size: int, members: Any) -> Self:
        made = super().__new__(cls, members)
        made.size = size
        return made


class Owned(dict[str, Any]):
    def __init__(self, owner: str, **items: Any) -> None:
        super().__init__(items)
        self.owner = owner


class Ordered(OrderedDict[str, Any]):
    def __init__(self, owner: str, items: Any) -> None:
        super().__init__(items)
        self.owner = owner

    def __setitem__(self, key: str, value: Any) -> None:
        assert not hasattr(self, "owner")
        super().__setitem__(key, value)


class Output(OrderedDict[str, Any]):
    """Items that are attributes too, as the outputs of transformers are."""

    def __init__(self, x: Tensor) -> None:
        super().__init__(x=x)
        self.x = x


class Rows(list[Any]):
    def __init__(self, *rows: Any) -> None:
        super().__init__(rows)
        self.width = 3


class Features(UserDict[str, Any]):
    """As transformers' BatchFeature: moves itself, in place."""

    def __init__(self, data: Any, kind: str) -> None:
        super().__init__(data)
        self.kind = kind

    def to(self, device: Any) -> Features:
        self.data = {key: held.to(device) if isinstance(held, Tensor) else held for key, held in self.data.items()}
        return self


class Named(UserDict[str, Any]):
    def __init__(self, data: Any, name: str) -> None:
        super().__init__(data)
        self.name = name


class View(Mapping[str, Any]):
    def __init__(self, *keys: str) -> None:
        self._held = dict.fromkeys(keys, t())

    def __getitem__(self, key: str) -> Any:
        return self._held[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class Graph:
    """As torch_geometric's Data: attributes in a store, moved in place."""

    def __init__(self, x: Tensor) -> None:
        self.store = {"x": x}

    def to(self, device: Any) -> Graph:
        self.store["x"] = self.store["x"].to(device)
        return self


class InPlace(Graph):
    def to(self, device: Any) -> None:  # type: ignore[override]  # as many do
        super().to(device)


class NewOne(Graph):
    def to(self, device: Any) -> NewOne:
        return NewOne(self.store["x"].to(device))


class HalfMoved:
    def __init__(self) -> None:
        self.x, self.y = t(), t()

    def to(self, device: Any) -> None:
        self.x = self.x.to(device)
        raise NotImplementedError


class Opaque:
    def __init__(self) -> None:
        self.x = t()


def picture(value: Any) -> Any:
    """Kind, parts and devices."""
    if isinstance(value, Tensor):
        return value.device.type, value.shape, value.requires_grad, value.is_leaf
    parts: list[Any] = [type(value)]
    if isinstance(value, (dict, Mapping)):
        parts += [(key, picture(held)) for key, held in value.items()]
    elif isinstance(value, (list, tuple, deque, UserList)):
        parts += map(picture, value)
    if hasattr(value, "__dict__"):
        parts += [(name, picture(held)) for name, held in vars(value).items()]
    slots = [name for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)]
    parts += [(name, picture(getattr(value, name))) for name in slots]
    return parts if len(parts) > 1 else (type(value), str(value)[:40])


def with_shared() -> dict[str, Any]:
    one = t()
    return {"first": one, "again": [one, (one, "x")]}


MOVED: dict[str, Callable[[], Any]] = {
    "tensor": t,
    "tuple": lambda: (t(), "name", None, 3),
    "list": lambda: [t(), [t()]],
    "dict": lambda: {"x": t(), 3: np.zeros(2)},
    "defaultdict": lambda: defaultdict(list, x=t()),
    "OrderedDict": lambda: OrderedDict(x=t(), y=t()),
    "deque": lambda: deque([t()], maxlen=3),
    "namedtuple": lambda: Pair(t(), t()),
    "namedtuple, other constructor": lambda: OtherPair(t()),
    "tuple, other constructor": lambda: Sized(3, [t()]),
    "dict, other constructor": lambda: Owned("me", x=t()),
    "OrderedDict, other constructor": lambda: Ordered("me", {"x": t(), "y": [t()]}),
    "items that are attributes": lambda: Output(t()),
    "list, other constructor": lambda: Rows(t(), 3),
    "named result": lambda: torch.max(t(2, 2), dim=0),
    "UserDict": lambda: Named({"x": t()}, "n"),
    "UserList": lambda: UserList([t()]),
    "Mapping": lambda: View("x", "y"),
    "MappingProxyType": lambda: types.MappingProxyType({"x": t()}),
    "SimpleNamespace": lambda: types.SimpleNamespace(x=t()),
    "dataclass": lambda: Record(t(), ["a"]),
    "frozen dataclass with slots": lambda: FrozenRecord(t(), {"y": t()}),
    "attrs": lambda: Attrs(t()),
    "BatchFeature": lambda: Features({"x": t(), "labels": "a"}, "kind"),
    "Graph": lambda: Graph(t()),
    "moves in place, gives None": lambda: InPlace(t()),
    "gives a new one": lambda: NewOne(t()),
    "nested": lambda: [{"a": (Record(t(), []), Graph(t()))}, [Pair(t(), t()), Features({"x": t()}, "k")]],
    "takes part in gradients": lambda: [t().requires_grad_(), t().requires_grad_() * 2],
    "shared": with_shared,
}


def there(what: Any) -> Any:
    """The picture with everything on the meta device."""
    if isinstance(what, tuple):
        return tuple(there(each) for each in what)
    if isinstance(what, list):
        return [there(each) for each in what]
    return "meta" if what == "cpu" else what


def seen_by_a_test(batch: Any, device: Any) -> list[Any]:
    """What step_fn gets, with its picture at that time."""
    model, seen = linear(), []

    def step_fn(given: Any) -> Tensor:
        seen.append((given, picture(given)))
        return model.weight.square().sum()

    trial(model, None, [batch], step_fn=step_fn, device=device, num_steps=3)
    return seen


@pytest.mark.parametrize("name", MOVED)
def test_a_batch_is_moved_and_its_kind_kept_and_the_loaders_own_is_as_it_was(name: str) -> None:
    batch = MOVED[name]()
    before = picture(batch)
    seen = seen_by_a_test(batch, "meta")
    assert [each for _, each in seen] == [there(before)] * 3
    assert picture(batch) == before


@pytest.mark.parametrize("name", MOVED)
def test_where_nothing_has_to_move_it_is_the_same_object(name: str) -> None:
    batch = MOVED[name]()
    parts = list(map(id, batch)) if isinstance(batch, (tuple, list)) else []
    for device in (None, "cpu", torch.device("cpu")):
        for given, _ in seen_by_a_test(batch, device):
            assert given is batch
    assert not parts or parts == list(map(id, batch))


AS_IT_IS: dict[str, Callable[[], Any]] = {
    "half moved": HalfMoved,
    "opaque": Opaque,
    "string": lambda: "batch",
    "None": lambda: None,
    "array": lambda: np.zeros(3),
    "array of objects": lambda: np.array([t(), None], dtype=object),
    "generator": lambda: (each for each in (1, 2)),
    "module": linear,
    "class": lambda: Opaque,
    "lock": threading.Lock,
    "no tensors": lambda: {"x": [1, ("a", Sized(2, [3]))], "y": Owned("me", z=np.zeros(2))},
}


@pytest.mark.parametrize("name", AS_IT_IS)
def test_what_cannot_be_moved_passes_as_it_is(name: str) -> None:
    batch = AS_IT_IS[name]()
    before = picture(batch)
    for given, then in seen_by_a_test(batch, "meta"):
        assert given is batch
        assert then == before


def test_packed_sequences_keep_their_sizes_on_the_cpu() -> None:
    batch = {"x": pack_sequence([t(3, 2), t(1, 2)]), "y": t()}
    moved = Mover(META)(batch)
    packed = moved["x"]
    assert type(packed) is PackedSequence
    assert (packed.data.device.type, packed.batch_sizes.device.type) == ("meta", "cpu")
    assert Mover(torch.device("cpu"))(batch) is batch


def test_what_is_one_object_stays_one_and_rings_end() -> None:
    ring: list[Any] = [t()]
    ring.append(ring)
    moved = Mover(META)(
        with_shared() | {"ring": ring, "factory": defaultdict(list, {"x": [t()]}), "d": deque([t()], 3)}
    )
    assert moved["first"] is moved["again"][0] is moved["again"][1][0]
    assert moved["ring"][0].device == META
    assert moved["factory"]["new"] == []
    assert moved["d"].maxlen == 3


def test_a_part_that_has_nothing_to_move_is_the_same_object() -> None:
    names, arrays = ["a"], {"x": np.zeros(2)}
    moved = Mover(META)({"x": t(), "names": names, "arrays": arrays, "there": (there_already := [t().to("meta")])})
    assert moved["names"] is names
    assert moved["arrays"] is arrays
    assert moved["there"] is there_already


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "a key": (lambda: {"x": t(), "labels": t()}, lambda batch: batch.pop("labels")),
    "values": (lambda: [t(), np.zeros(3)], lambda batch: (batch[0].mul_(2.0), batch[1].fill(1.0))),
    "an attribute": (lambda: Record(t(), []), lambda batch: (batch.names.append("a"), vars(batch).pop("x"))),
    "a gradient": (
        lambda: (t().requires_grad_(), t()),
        lambda batch: (batch[0] * batch[1].requires_grad_()).sum().backward(),
    ),
    "on demand": (lambda: defaultdict(list, x=t()), lambda batch: batch["new"].append(1)),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("how", ["step_fn", "train_step", "val_loader"])
def test_a_batch_that_the_step_changes_is_as_it_was_at_the_next_step(name: str, how: str) -> None:
    make, change = CHANGES[name]
    batch, model, pictures = make(), linear(), []

    def step_fn(given: Any) -> Tensor:
        with torch.enable_grad():
            pictures.append((str(given), picture(given)))
            change(given)
            return model.weight.square().sum()

    settings: dict[str, Any] = (
        {"train_step": lambda given: step_fn(given).item()} if how == "train_step" else {"step_fn": step_fn}
    )
    if how == "val_loader":
        settings["val_loader"] = [batch]
    before, gradient = (str(batch), picture(batch)), getattr(batch[0], "grad", None) if name == "a gradient" else None
    trial(model, None, [batch], **settings)
    assert pictures == [before] * len(pictures)
    assert (str(batch), picture(batch)) == before
    assert gradient is None


def test_an_unknown_device_is_refused_before_anything() -> None:
    with pytest.raises(RuntimeError, match="nowhere"):
        seen_by_a_test([t()], "nowhere")
