"""A training run with a range test before it, or in its middle, equals the run without it, whatever feeds it."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from clr_native import FusedCyclicSGD, lr_range_test
from helpers import bits
from range_helpers import Batch, batches, mse, network, quick, trial

INPUTS, TARGETS = batches(1, 24)[0]
Sample = tuple[Tensor, Tensor]


class Noisy(Dataset[Sample]):
    """Adds noise from `draw`, if there is one, and from the global generators."""

    def __init__(self, draw: Any = None, *, everywhere: bool = False) -> None:
        self.draw, self.everywhere = draw, everywhere

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, index: int) -> Sample:
        noise = 0.0 if self.draw is None else float(self.draw())
        if self.everywhere:
            noise += random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002  # what transforms use
        return INPUTS[index] + 0.1 * noise, TARGETS[index]


class Draws:
    """Draws from a generator of its own, as a transform object does."""

    def __init__(self, generator: Any) -> None:
        self.generator, self.count = generator, 0

    def __call__(self) -> float:
        self.count += 1
        if isinstance(self.generator, torch.Generator):
            return float(torch.rand((), generator=self.generator))
        return float(self.generator.random()) + 0.01 * self.count

    def collate(self, samples: list[Sample]) -> Batch:
        inputs, targets = zip(*samples, strict=True)
        return torch.stack(inputs) + 0.1 * self(), torch.stack(targets)

    def __iter__(self) -> Iterator[float]:
        return iter([self()])


def pair_of_rows(sample: Sample) -> Batch:
    return torch.stack([sample[0], -sample[0]]), sample[1].expand(2, 2)


def collate(samples: list[Sample], draws: Draws) -> Batch:
    return draws.collate(samples)


class OwnOrder(Sampler[int]):
    """Shuffles a list in place, anew for each epoch, and counts the epochs."""

    def __init__(self) -> None:
        self.order, self.random, self.epoch = list(range(24)), random.Random(3), 0

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        self.random.shuffle(self.order)
        yield from self.order

    def __len__(self) -> int:
        return 24


class Stream(IterableDataset[Sample]):
    """Goes on where it has stopped, and shuffles its own array of indices."""

    def __init__(self) -> None:
        self.position, self.indices, self.seen = 0, np.arange(24), dict[int, int]()
        self.generator = np.random.default_rng(5)

    def __iter__(self) -> Iterator[Sample]:
        try:
            for _ in range(10):
                index = int(self.indices[self.position % 24])
                self.position += 1
                self.seen[index] = self.seen.get(index, 0) + 1
                yield INPUTS[index] * self.seen[index], TARGETS[index]
        finally:
            self.generator.shuffle(self.indices)


class OwnLoader:
    """No DataLoader: batches in an order of its own."""

    def __init__(self) -> None:
        self.generator = np.random.RandomState(4)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self.generator.permutation(24).reshape(4, 6):
            yield INPUTS[rows], TARGETS[rows]


class Endless:
    """An iterator whose whole state are its attributes."""

    def __init__(self) -> None:
        self.count, self.generator = 0, torch.Generator().manual_seed(3)

    def __iter__(self) -> Endless:
        return self

    def __next__(self) -> Batch:
        self.count += 1
        return torch.randn(6, 4, generator=self.generator) * self.count, TARGETS[:6]


def load(dataset: Any, **settings: Any) -> Iterable[Batch]:
    return DataLoader(dataset, **({"batch_size": 6} | settings))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(9)


def persistent(dataset: Any, **settings: Any) -> Iterable[Batch]:
    return load(dataset, num_workers=2, persistent_workers=True, **settings)


PAIRS = TensorDataset(INPUTS, TARGETS)
LOADERS: dict[str, Callable[[], Iterable[Batch]]] = {
    "shuffled": lambda: load(PAIRS, shuffle=True),
    "shuffled, own generator": lambda: load(PAIRS, shuffle=True, generator=seeded()),
    "noise of global generators": lambda: load(Noisy(everywhere=True), shuffle=True),
    "dataset with a torch.Generator": lambda: load(Noisy(Draws(seeded()))),
    "dataset with a numpy Generator": lambda: load(Noisy(Draws(np.random.default_rng(1)))),
    "dataset with a RandomState": lambda: load(Noisy(np.random.RandomState(1).rand)),
    "dataset with random.Random": lambda: load(Noisy(Draws(random.Random(1)))),
    "dataset with a closure": lambda: load(Noisy((lambda draws: lambda: draws() + 1.0)(Draws(random.Random(1))))),
    "Subset": lambda: load(Subset(Noisy(Draws(seeded())), range(12))),
    "ConcatDataset": lambda: load(ConcatDataset([Noisy(Draws(seeded())), Noisy(Draws(random.Random(2)))])),
    "collate_fn is a method": lambda: load(PAIRS, collate_fn=Draws(seeded()).collate),
    "collate_fn is a partial": lambda: load(PAIRS, collate_fn=functools.partial(collate, draws=Draws(seeded()))),
    "sampler with a generator": lambda: load(PAIRS, sampler=RandomSampler(PAIRS, generator=seeded())),
    "sampler with an order of its own": lambda: load(PAIRS, sampler=OwnOrder()),
    "batch sampler": lambda: load(
        PAIRS, batch_size=1, batch_sampler=torch.utils.data.BatchSampler(OwnOrder(), 6, drop_last=False)
    ),
    "weighted": lambda: load(PAIRS, sampler=WeightedRandomSampler(range(1, 25), 24, generator=seeded())),
    "weighted, global generator": lambda: load(PAIRS, sampler=WeightedRandomSampler(range(1, 25), 24)),
    "stream": lambda: load(Stream()),
    "stream, batches of the dataset": lambda: load(Stream(), batch_size=None, collate_fn=pair_of_rows),
    "a list of samples": lambda: load([(INPUTS[i], TARGETS[i]) for i in range(24)], shuffle=True),
    "no DataLoader": OwnLoader,
    "an iterator with its state in attributes": Endless,
    "a list": lambda: [(INPUTS[i : i + 6].clone(), TARGETS[i : i + 6]) for i in range(0, 24, 6)],
}
WORKERS: dict[str, Callable[[], Iterable[Batch]]] = {
    "workers": lambda: load(Noisy(everywhere=True), num_workers=2, shuffle=True),
    "workers, own generator": lambda: load(Noisy(Draws(seeded())), num_workers=2, shuffle=True, generator=seeded()),
    "persistent": lambda: persistent(Noisy(everywhere=True), shuffle=True),
    "persistent, own generator": lambda: persistent(Noisy(Draws(random.Random(1))), shuffle=True, generator=seeded()),
    "persistent stream": lambda: persistent(Stream()),
}


def passes(loader: Iterable[Batch], count: int) -> Iterator[Batch]:
    """`count` epochs; of a loader without end, four batches each."""
    for _ in range(count):
        for number, batch in enumerate(loader):
            yield batch
            if number == 3:
                break


def trained(make: Callable[[], Iterable[Batch]], tests_at: set[int]) -> list[Any]:
    """Two epochs, with range tests at some of their beginnings: losses, weights, buffers and random numbers."""
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002  # the global generator, which transforms draw from
    loader, model = make(), network()
    optimizer = FusedCyclicSGD(model.parameters(), base_lr=0.01, max_lr=0.1, step_size_up=3)
    seen: list[Any] = []
    for epoch in range(2):
        if epoch in tests_at:
            lr_range_test(model, optimizer, mse, loader, val_loader=loader, val_every=3, **quick(num_steps=7))
        for inputs, targets in passes(loader, 1):
            optimizer.zero_grad()
            loss = mse(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            optimizer.step()
            seen.append(loss.item())
    held = [bits(each) for each in (*model.parameters(), *model.buffers())]
    return [seen, held, random.random(), np.random.rand(), torch.rand(2).tolist()]  # noqa: NPY002  # as above


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOADERS, *WORKERS])
def test_the_run_is_the_same_with_a_test(name: str) -> None:
    if name == "an iterator with its state in attributes":
        make: Callable[[], Any] = LOADERS[name]
        ends: Callable[[], Iterable[Batch]] = lambda: OnlyFour(make())  # noqa: E731  # validation needs an end
        assert trained(ends, {0, 1}) == trained(ends, set())
        return
    make = (LOADERS | WORKERS)[name]
    assert trained(make, {0, 1}) == trained(make, set())


class OnlyFour:
    """Four batches of an iterator without end."""

    def __init__(self, endless: Iterator[Batch]) -> None:
        self.endless = endless

    def __iter__(self) -> Iterator[Batch]:
        return (next(self.endless) for _ in range(4))


def test_repeats_go_on_with_the_loaders_random_numbers_and_state() -> None:
    model, seen = network(), []
    stream = Stream()

    def step_fn(batch: Batch) -> Tensor:
        seen.append(bits(batch[0]))
        return mse(model(batch[0]), batch[1])

    for loader in (load(PAIRS, shuffle=True, generator=seeded()), load(stream, drop_last=True)):
        seen.clear()
        trial(model, None, loader, step_fn=step_fn, num_steps=4, repeats=3)
        assert len(set(map(str, seen))) == len(seen) == 12
    assert (stream.position, stream.seen) == (0, {})


def test_persistent_workers_are_the_same_and_those_of_the_test_are_gone() -> None:
    loader = persistent(PAIRS)
    assert isinstance(loader, DataLoader)
    first = iter(loader)
    next(first)
    model = network()
    before = torch.multiprocessing.active_children()
    trial(model, mse, loader)
    assert loader._iterator is first
    assert set(torch.multiprocessing.active_children()) == set(before)
    assert len(list(first)) == 3  # what was left of the epoch
    fresh = persistent(PAIRS)
    assert isinstance(fresh, DataLoader)
    trial(model, mse, fresh)
    assert fresh._iterator is None
    assert set(torch.multiprocessing.active_children()) == set(before)


def test_a_loader_in_a_closure_keeps_its_state() -> None:
    other = load(Noisy(Draws(seeded())), shuffle=True, generator=(generator := seeded()))
    model = network()
    before = generator.get_state()

    def step_fn(batch: Batch) -> Tensor:
        inputs, targets = next(iter(other))
        return mse(model(batch[0]), batch[1]) + mse(model(inputs), targets)

    trial(model, None, load(PAIRS), step_fn=step_fn)
    assert torch.equal(generator.get_state(), before)
    assert isinstance(other, DataLoader)
    assert other.dataset.draw.count == 0  # type: ignore[attr-defined]  # a Noisy


class Large(Dataset[Sample]):
    """Samples that must not be copied, in all the places in which samples are."""

    copies = 0

    class Samples(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in {Tensor.clone, Tensor.copy_, Tensor.__deepcopy__}:
                Large.copies += 1
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]  # untyped in torch

    def __init__(self) -> None:
        one = torch.zeros(1).expand(2**28).as_subclass(Large.Samples)
        self.tensor, self.tensors, self.by_name = one, [one[:]] * 3, {"x": {"y": one[1:]}}
        self.many = [torch.zeros(2).as_subclass(Large.Samples) for _ in range(2000)]
        self.generator = torch.Generator()

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Sample:
        torch.rand(1, generator=self.generator)
        return INPUTS[index], TARGETS[index]


@pytest.mark.parametrize("held_by_the_model", [False, True])
def test_large_datasets_are_not_copied(held_by_the_model: bool) -> None:
    dataset, model = Large(), network()
    before = dataset.generator.get_state()
    loss = functools.partial(lambda data, *pair: mse(*pair), dataset)
    if held_by_the_model:
        model.dataset = dataset  # type: ignore[assignment]  # as attributes come
    Large.copies = 0
    trial(model, loss, load(dataset))
    assert torch.equal(dataset.generator.get_state(), before)
    assert Large.copies == 0


@pytest.mark.parametrize("as_loader", [True, False])
def test_samples_in_a_list_that_a_closure_holds_too_are_not_copied(as_loader: bool) -> None:
    rows, model = [(Large().tensor, TARGETS)] * 12, network()

    def step_fn(batch: Sample) -> Tensor:
        return mse(model(INPUTS), batch[1]) / len(rows)

    Large.copies = 0
    loader = rows if as_loader else load(rows, batch_size=None)
    trial(model, None, loader, step_fn=step_fn)
    assert Large.copies == 0


def test_a_module_of_a_dataset_is_put_back() -> None:
    model, encoder = network(), nn.BatchNorm1d(4)

    class Encoded(Noisy):
        encode = staticmethod(encoder)

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def __getitem__(self, index: int) -> Sample:
            return self.encoder(INPUTS[index : index + 2].detach())[0].detach(), TARGETS[index]

    assert encoder.running_mean is not None
    data = load(Subset(Encoded(), range(20)))
    trial(model, mse, data)
    assert encoder.running_mean.tolist() == [0.0] * 4
