"""Gradient release: the same weights as ever, with no gradient left standing, and clear refusals."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clr_native
from clr_native import FusedCyclicSGD
from helpers import assert_same_state, assert_same_training, clones

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "nesterov": {"nesterov": True, "weight_decay": 1e-2},
    "maximize": {"maximize": True, "dampening": 0.25},
    "ema": {"ema_decay": 0.75, "ema_warmup": True},
    "swa": {"average": "swa"},
    "bfloat16 momentum": {"momentum_dtype": "bfloat16"},
    "stochastic": {"dtype": torch.bfloat16, "rounding": "stochastic", "seed": 3},
    "kahan": {"dtype": torch.bfloat16, "kahan": True},
    "master weights": {"dtype": torch.bfloat16, "master_weights": True, "ema_decay": 0.5},
}


class Model(nn.Module):
    """Two layers; the second is left out of odd batches."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 4, dtype=dtype), nn.Linear(4, 4, dtype=dtype)

    def forward(self, batch: int) -> Tensor:
        x = torch.randn(3, 5, generator=torch.Generator().manual_seed(batch)).to(self.first.weight.dtype)
        hidden = self.first(x).tanh()
        output = hidden if batch % 2 else self.second(hidden)
        loss: Tensor = output.square().sum()
        return loss


def made(dtype: torch.dtype = torch.float32, **settings: Any) -> tuple[Model, FusedCyclicSGD]:
    model = Model(dtype)
    groups: list[dict[str, Any]] = [
        {"params": model.first.parameters()},
        {"params": model.second.parameters(), "max_lr": 0.125},
    ]
    return model, FusedCyclicSGD(groups, 0.01, 0.1, step_size_up=2, **settings)


def refused(text: str) -> Any:
    return pytest.raises(RuntimeError, match=re.escape(text))


@contextmanager
def unchanged(model: Model) -> Iterator[None]:
    before = clones([*model.parameters()])
    yield
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def train(model: Model, optimizer: FusedCyclicSGD, steps: range) -> None:
    for batch in steps:
        model(batch).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_weights_are_those_of_ordinary_training(settings: dict[str, Any]) -> None:
    model, optimizer = made(**settings)
    other, released = made(**settings)
    released.release_gradients()
    train(model, optimizer, range(13))
    train(other, released, range(13))
    assert_same_state(optimizer, released)


def test_no_gradient_is_left_after_backward() -> None:
    model, optimizer = made()
    optimizer.release_gradients()
    before = clones([*model.parameters()])
    versions = [p._version for p in model.parameters()]
    model(0).backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert all(p._version > version for p, version in zip(model.parameters(), versions, strict=True))
    assert optimizer.applied_steps == 0
    optimizer.step()
    assert optimizer.applied_steps == 1


def test_lr_and_momentum_hold_from_the_first_gradient_to_the_step() -> None:
    model, optimizer = made()
    other, released = made()
    released.release_gradients()

    def meddle(_: Tensor) -> None:
        for group in released.param_groups:
            group["lr"], group["momentum"] = 7.0, 0.0

    register: Any = other.first.weight.register_post_accumulate_grad_hook  # torch gives it no types
    register(meddle)  # the second layer is updated by then
    for batch in range(0, 6, 2):
        model(batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        other(batch).backward()
        released.step()
        assert released.get_last_lr() == optimizer.get_last_lr()
    assert_same_training(optimizer, released)


def test_an_lr_set_by_hand_before_backward_is_obeyed() -> None:
    model, optimizer = made()
    other, released = made()
    released.release_gradients()
    for each in (optimizer, released):
        each.param_groups[0]["lr"] = 0.5
    train(model, optimizer, range(1))
    train(other, released, range(1))
    assert released.param_groups[0]["applied_steps"] == 0
    assert_same_training(optimizer, released)


def test_a_second_gradient_is_refused_and_training_can_go_on() -> None:
    model, optimizer = made()
    optimizer.release_gradients()
    model(1).backward()
    with unchanged(model), refused("accumulated over several backward passes"):
        model(1).backward()
    with refused("got a second gradient before step()"):  # it still stands there
        optimizer.step()
    assert optimizer.applied_steps == 0
    optimizer.zero_grad()
    optimizer.step()
    train(model, optimizer, range(3))
    assert optimizer.applied_steps == 4


def test_parameters_without_a_hook_are_updated_in_step() -> None:
    model, optimizer = made()
    handle = optimizer.release_gradients()
    late = nn.Parameter(torch.ones(3))
    optimizer.add_param_group({"params": [late]})
    (model(0) + late.sum()).backward()
    assert late.grad is not None
    optimizer.step()
    assert not torch.equal(late, torch.ones(3))
    late.grad = None
    handle.remove()
    model(0).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_block_ends_it() -> None:
    model, optimizer = made()
    with optimizer.release_gradients():
        train(model, optimizer, range(2))
    model(0).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_closure_and_step_hooks_work() -> None:
    model, optimizer = made()
    optimizer.release_gradients()
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))

    def closure() -> Tensor:
        loss: Tensor = model(0)
        torch.autograd.backward(loss)
        return loss

    assert optimizer.step(closure) is not None  # type: ignore[arg-type]  # torch's own closures return tensors too
    assert calls == ["pre", "post"]
    assert optimizer.applied_steps == 1


NEEDS_ALL: dict[str, Any] = {
    "max_grad_norm": 1.0,
    "max_grad_value": 1.0,
    "skip_nonfinite": True,
    "trust_coefficient": 0.01,
}


@pytest.mark.parametrize("name", NEEDS_ALL)
def test_what_needs_all_gradients_is_refused_by_name(name: str) -> None:
    _, optimizer = made(**{name: NEEDS_ALL[name]})
    with refused(f"{name}={NEEDS_ALL[name]!r} cannot be used with release_gradients()"):
        optimizer.release_gradients()


@pytest.mark.parametrize("name", NEEDS_ALL)
def test_it_is_refused_where_it_is_set_later(name: str) -> None:
    model, optimizer = made()
    optimizer.release_gradients()
    if name == "trust_coefficient":
        optimizer.param_groups[1][name] = NEEDS_ALL[name]
    else:
        setattr(optimizer, name, NEEDS_ALL[name])
    with unchanged(model), refused(f"{name}={NEEDS_ALL[name]!r} cannot be used with release_gradients()"):
        model(0).backward()
    assert not any(optimizer.state.values())


@pytest.mark.parametrize("kind", [clr_native.GradScaler, torch.amp.GradScaler])
def test_a_grad_scaler_is_refused(kind: type[torch.amp.GradScaler]) -> None:
    model, optimizer = made(grad_scale_in_step=True)
    optimizer.release_gradients()
    scaler = kind("cpu", init_scale=2.0)
    scaler.scale(model(0)).backward()
    with refused("a GradScaler cannot be used with release_gradients()"):
        scaler.step(optimizer)
    assert optimizer.applied_steps == 0


IN_THE_MIDDLE: dict[str, Any] = {
    "seek": (5,),
    "state_dict": (),
    "load_state_dict": ({"state": {}, "param_groups": []},),
    "to_torch": (),
    "add_param_group": ({"params": [nn.Parameter(torch.ones(3))]},),
}


@pytest.mark.parametrize("what", IN_THE_MIDDLE)
def test_in_the_middle_of_a_step_positions_and_groups_do_not_move(what: str) -> None:
    model, optimizer = made()
    optimizer.release_gradients()
    model(0).backward()
    groups = len(optimizer.param_groups)
    with refused("call step() first"):
        getattr(optimizer, what)(*IN_THE_MIDDLE[what])
    assert len(optimizer.param_groups) == groups
    optimizer.step()
    assert optimizer.applied_steps == 1


def test_parameters_do_not_keep_the_optimizer_alive() -> None:
    model, optimizer = made()
    optimizer.release_gradients()
    train(model, optimizer, range(2))
    gone = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None
    model(0).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_in_the_middle_of_a_step_averages_are_refused() -> None:
    """Some of them would be of this update and the others of the one before."""
    model, optimizer = made(ema_decay=0.5)
    handle = optimizer.release_gradients()
    for batch in range(2):
        model(batch).backward()
        if batch == 0:
            optimizer.step()
    with refused("call step() first"), optimizer.averaged_weights():
        pass
    with refused("call step() first"):
        optimizer.copy_average_to(model)
    optimizer.step()
    handle.remove()
    with optimizer.averaged_weights():
        pass


def pretend_processes(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: count)


def test_several_processes_are_refused_at_the_call_and_at_the_first_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """DistributedDataParallel averages gradients after they have been released."""
    model, optimizer = made()
    before = [p.detach().clone() for p in model.parameters()]
    with optimizer.release_gradients():
        pretend_processes(monkeypatch, 2)
        with refused("release_gradients() in one of 2 processes"):
            model(0).backward()
    with refused("process_local=True"):
        optimizer.release_gradients()
    optimizer.zero_grad()
    model(0).backward()
    assert all(p.grad is not None for p in model.first.parameters())  # nothing was hooked
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_processes_that_train_models_of_their_own_may_release(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, settings in ((2, {"process_local": True}), (1, {})):
        pretend_processes(monkeypatch, count)
        model, optimizer = made()
        optimizer.release_gradients(**settings)
        model(0).backward()
        optimizer.step()
        assert optimizer.applied_steps == 1


@pytest.mark.parametrize("settings", [{}, {"process_local": True}], ids=str)
def test_a_flattened_parameter_of_fsdp_is_refused(settings: dict[str, Any]) -> None:
    model, optimizer = made()
    flat: Any = model.first.weight
    flat._fsdp_flattened = True
    with refused("FullyShardedDataParallel"):
        optimizer.release_gradients(**settings)


@pytest.mark.parametrize(
    ("kind", "words"), [(clr_native.GradScaler, "process_group="), (torch.amp.GradScaler, "ShardedGradScaler")]
)
def test_a_scaler_over_a_flattened_parameter_of_fsdp_is_refused(kind: type[torch.amp.GradScaler], words: str) -> None:
    """Each process would skip by itself."""
    model, optimizer = made(grad_scale_in_step=True)
    flat: Any = model.first.weight
    flat._fsdp_flattened = True
    scaler = kind("cpu", init_scale=2.0)
    torch.autograd.backward(scaler.scale(model(0)))
    with refused(words):
        scaler.step(optimizer)
    assert optimizer.applied_steps == 0
