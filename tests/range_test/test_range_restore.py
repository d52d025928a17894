"""A range test leaves everything as it was, bit for bit and in the same objects, however it ends."""

from __future__ import annotations

import copy
import random
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from clr_native import FusedCyclicSGD, lr_range_test
from clr_native.range_test.memory import Memory
from helpers import bits
from range_helpers import Network, batches, mse, network, quick, trial

Make = Callable[[Network], Optimizer]


def fused(model: nn.Module) -> FusedCyclicSGD:
    return FusedCyclicSGD(model.parameters(), base_lr=0.001, max_lr=0.1, step_size_up=5, weight_decay=0.01)


def two_groups(model: Network) -> SGD:
    groups: list[dict[str, Any]] = [{"params": list(part.parameters())} for part in (model.first, model.last)]
    groups[0]["lr"] = 0.5
    return SGD(groups, lr=0.01, momentum=0.5)


OPTIMIZERS: dict[str, Make] = {
    "FusedCyclicSGD": fused,
    "SGD": lambda model: SGD(model.parameters(), lr=0.01),
    "SGD, momentum": lambda model: SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True),
    "AdamW": lambda model: AdamW(model.parameters(), lr=0.01, amsgrad=True),
    "Adam, lr a tensor": lambda model: Adam(model.parameters(), lr=torch.tensor(0.01), foreach=False),
    "groups": two_groups,
}


def one_step(model: nn.Module, optimizer: Optimizer, batch: tuple[Tensor, Tensor]) -> None:
    optimizer.zero_grad()
    mse(model(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
    optimizer.step()


def tensor_picture(tensor: Tensor | None) -> object:
    if tensor is None:
        return None
    grad = tensor.grad if tensor.is_leaf else None
    return id(tensor), tensor.data_ptr(), bits(tensor), tensor.requires_grad, tensor_picture(grad)


def value_picture(value: object) -> object:
    return tensor_picture(value) if isinstance(value, Tensor) else copy.deepcopy(value)


def whole_picture(model: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler | None = None) -> dict[str, Any]:
    return {
        "weights": {name: tensor_picture(p) for name, p in model.named_parameters()},
        "buffers": {name: tensor_picture(b) for name, b in model.named_buffers()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "groups": [
            (
                id(group),
                [id(p) for p in group["params"]],
                *((name, value_picture(value)) for name, value in group.items() if name != "params"),
            )
            for group in optimizer.param_groups
        ],
        "state": (
            id(optimizer.state),
            [(id(p), id(s), {k: value_picture(v) for k, v in s.items()}) for p, s in optimizer.state.items()],
        ),
        "optimizer": {k: id(v) for k, v in vars(optimizer).items()},
        "random": (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()),  # noqa: NPY002  # the global one is what must not move
        "scaler": None if scaler is None else (scaler.state_dict(), list(vars(scaler))),
    }


def disturb(model: Network, step: int) -> None:
    """What a careless training step does."""
    random.random()
    np.random.rand()  # noqa: NPY002  # the global one is what must not move
    torch.rand(3)
    model.frozen.requires_grad_(step % 2 == 0)
    model.frozen_norm.train(step % 2 == 0)
    model.norm.running_mean = torch.full((6,), 7.0)  # another tensor in its place
    model.first.weight.data = model.first.weight.data.clone()


@pytest.mark.parametrize("trained_before", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_is_as_it_was(name: str, trained_before: bool) -> None:
    model = network()
    optimizer = OPTIMIZERS[name](model)
    data = batches()
    for batch in data if trained_before else ():
        one_step(model, optimizer, batch)
    model.first.bias.grad = None
    before = whole_picture(model, optimizer)
    result = lr_range_test(model, optimizer, mse, data, **quick(repeats=2))
    assert len(result.lr) == 6
    assert result.losses[0, 0] != result.losses[0, -1]
    assert whole_picture(model, optimizer) == before


class StopError(Exception):
    pass


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def raise_stop() -> None:
    raise StopError


@pytest.mark.parametrize(("how", "error"), [(raise_stop, StopError), (ctrl_c, KeyboardInterrupt)])
@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("name", ["FusedCyclicSGD", "AdamW"])
@pytest.mark.parametrize("place", ["forward", "step"])
def test_all_is_as_it_was_when_it_stops_at_any_step(
    name: str, at: int, how: Callable[[], None], error: type[BaseException], place: str
) -> None:
    model = network()
    optimizer = OPTIMIZERS[name](model)
    data = batches()
    one_step(model, optimizer, data[0])
    calls = 0

    def step_fn(batch: tuple[Tensor, Tensor]) -> Tensor:
        nonlocal calls
        disturb(model, calls)
        loss = mse(model(batch[0]), batch[1])
        if calls == at and place == "forward":
            how()
        calls += 1
        return loss

    def hook(*_: object) -> None:
        if calls == at + 1 and place == "step":
            how()

    optimizer.register_step_post_hook(hook)
    before = whole_picture(model, optimizer)
    with pytest.raises(error):
        lr_range_test(model, optimizer, None, data, step_fn=step_fn, **quick())
    assert calls == at + (place == "step")
    assert whole_picture(model, optimizer) == before


def test_ctrl_c_while_things_are_put_back_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    optimizer = fused(model)
    before = whole_picture(model, optimizer)
    put_back = Memory.put_back

    def interrupted(self: Memory) -> None:
        ctrl_c()
        put_back(self)

    monkeypatch.setattr(Memory, "put_back", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trial(model, optimizer=optimizer)
    monkeypatch.undo()
    assert whole_picture(model, optimizer) == before


def test_a_gradient_is_the_same_tensor_with_the_same_values() -> None:
    model = network()
    optimizer = OPTIMIZERS["SGD"](model)
    mse(model(batches()[0][0]), batches()[0][1]).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
    held = model.first.weight.grad
    assert held is not None
    values = bits(held)

    def train_step(batch: tuple[Tensor, Tensor]) -> float:
        held.zero_()  # as DistributedDataParallel does, whose gradients are views of its buckets
        model.first.bias.grad = torch.ones(6)
        return 1.0

    lr_range_test(model, optimizer, None, batches(), train_step=train_step, **quick())
    assert model.first.weight.grad is held
    assert bits(held) == values


def test_gradients_of_before_are_not_in_the_test() -> None:
    model = network()
    optimizer = SGD(model.first.parameters(), lr=0.1)
    model.first.weight.grad = torch.full((6, 4), 1e30)
    model.last.weight.grad = torch.full((2, 6), 1e30)
    result = trial(model, optimizer=optimizer)
    assert result.stopped.startswith("the end of the ramp")
    assert (model.last.weight.grad == 1e30).all()


def test_the_scaler_is_as_it_was() -> None:
    model = network()
    optimizer = OPTIMIZERS["SGD, momentum"](model)
    for used in (False, True):
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        if used:
            scaler.scale(mse(model(batches()[0][0]), batches()[0][1])).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            scaler.step(optimizer)
            scaler.update()
        before = whole_picture(model, optimizer, scaler)
        scale = scaler._scale
        lr_range_test(model, optimizer, mse, batches(), scaler=scaler, **quick())
        assert whole_picture(model, optimizer, scaler) == before
        assert scaler._scale is scale
        assert scaler.get_scale() == 8.0


def test_a_loaders_own_generator_is_as_it_was() -> None:
    inputs, targets = batches(1, 40)[0]
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=8, shuffle=True, generator=generator)
    before = generator.get_state()
    model = network()
    lr_range_test(model, OPTIMIZERS["SGD"](model), mse, loader, val_loader=loader, **quick())
    assert torch.equal(generator.get_state(), before)


def test_fused_cyclic_sgd_goes_on_as_if_there_had_been_no_test() -> None:
    """Also where an lr was written by hand and not yet used, and where a rate of the test is the schedule's own."""
    for by_hand, start_lr in ((None, 0.0406), (0.033, 1e-3)):
        tested, twin = network(), network()
        ours, theirs = fused(tested), fused(twin)
        for step, batch in enumerate(batches()):
            if step == 2:
                if by_hand is not None:
                    ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = by_hand
                else:
                    start_lr = float(ours.param_groups[0]["lr"])
                state = torch.get_rng_state()
                lr_range_test(tested, ours, mse, batches(seed=9), start_lr=start_lr, end_lr=1.0, num_steps=12)
                assert torch.equal(torch.get_rng_state(), state)
            seed = torch.get_rng_state()
            one_step(tested, ours, batch)
            torch.set_rng_state(seed)
            one_step(twin, theirs, batch)
            assert ours.applied_steps == theirs.applied_steps
            assert ours.get_last_lr() == theirs.get_last_lr()
            assert ours.get_last_momentum() == theirs.get_last_momentum()
            for p, q in zip(tested.parameters(), twin.parameters(), strict=True):
                assert bits(p) == bits(q)


class Odd(nn.Module):
    """State of other kinds, in the places where modules have it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("positions", torch.arange(3.0).expand(2, 3))
        self.register_buffer("absent", None)
        self.register_buffer("signs", torch.tensor([-0.0, float("nan")]), persistent=False)
        self.history: list[Any] = [1, {"seen": {2}}]
        self.count = 0
        self.tied = self.layer.weight

    def forward(self, inputs: Tensor) -> Tensor:
        self.count += 1
        self.history.append(self.count)
        self.history[1]["seen"].add(self.count + 10)
        self.get_buffer("signs").zero_()
        self.absent = torch.ones(1)
        self.extra = 5
        outputs: Tensor = self.layer(inputs)
        return outputs


def test_what_else_hangs_on_a_module() -> None:
    model = Odd()
    before = whole_picture(model, SGD(model.parameters(), lr=0.1))["buffers"]
    trial(model, mse, batches())
    assert model.count == 0
    assert model.history == [1, {"seen": {2}}]
    assert dict(model.named_buffers(remove_duplicate=False)).keys() == {"positions", "signs"}
    assert not hasattr(model, "extra")
    assert model.tied is model.layer.weight
    assert whole_picture(model, SGD(model.parameters(), lr=0.1))["buffers"] == before


def test_lazy_modules_are_refused_before_anything() -> None:
    with pytest.raises(ValueError, match="run one batch through it first"):
        trial(nn.Sequential(nn.LazyLinear(2)), mse, batches())
