"""Beside the rest of torch: learning rate schedulers, GradScaler, DDP, SWA, autograd's version counters, AMP."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.optim import SGD, lr_scheduler

from clr_native import FusedCyclicSGD
from helpers import (
    assert_same_training,
    every_parameter,
    give,
    gradient_sets,
    hand_over,
    parameters,
    sgd_beside,
    train,
)

SCHEDULERS: dict[str, Callable[[Any], lr_scheduler.LRScheduler]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch * 0.7),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3, cycle_momentum=False),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=9, cycle_momentum=False),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_torch_scheduler_drives_lr(name: str) -> None:
    """One that computes lr anew each time is obeyed; torch's SGD under it gives the same weights."""
    over = parameters([20])
    optimizer = FusedCyclicSGD(over, 0.25, 0.5, step_size_up=3, cycle_momentum=False)
    theirs, twins = sgd_beside(optimizer)
    schedulers = [SCHEDULERS[name](each) for each in (optimizer, theirs)]
    for gradients in gradient_sets(over, 8):
        for each, tensors, scheduler in zip((optimizer, theirs), (over, twins), schedulers, strict=True):
            give(tensors, gradients)
            each.step()
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    assert_same_training(optimizer, theirs)


def scaled_backward(scaler: torch.amp.GradScaler, weight: Tensor, gradient: Tensor) -> None:
    weight.grad = None
    scaler.scale((weight * gradient).sum()).backward()  # type: ignore[no-untyped-call]  # untyped in torch


def test_under_grad_scaler_a_skipped_step_does_not_advance() -> None:
    """torch's scaler does not call step() then. Weights and scales as with plain SGD."""
    (gradient,) = gradient_sets(parameters([20]), 1)[0]
    optimizer = FusedCyclicSGD(parameters([20]), 0.125, 0.5, step_size_up=3)
    theirs, _ = sgd_beside(optimizer)
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2) for _ in range(2)]
    applied = 0
    for step in range(12):
        overflows = step in (0, 4, 5)
        hand_over(optimizer, theirs)
        before = [every_parameter(each)[0].detach().clone() for each in (optimizer, theirs)]
        for each, scaler in zip((optimizer, theirs), scalers, strict=True):
            scaled_backward(scaler, every_parameter(each)[0], gradient * (float("inf") if overflows else step + 1))
            scaler.step(each)
            scaler.update()
        applied += not overflows
        assert optimizer.applied_steps == applied
        assert overflows == torch.equal(every_parameter(optimizer)[0], before[0])
        assert scalers[0].get_scale() == scalers[1].get_scale()
        assert_same_training(optimizer, theirs)


def test_under_grad_scaler_with_unscaled_and_clipped_gradients() -> None:
    (gradient,) = gradient_sets(parameters([20]), 1)[0]
    optimizer = FusedCyclicSGD(parameters([20]), 0.125, 0.5, step_size_up=3)
    theirs, _ = sgd_beside(optimizer)
    for each in (optimizer, theirs):
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        (weight,) = every_parameter(each)
        for _ in range(3):
            scaled_backward(scaler, weight, gradient)
            scaler.unscale_(each)
            torch.nn.utils.clip_grad_norm_([weight], 0.1)
            hand_over(optimizer, theirs)
            scaler.step(each)
            scaler.update()
            if each is optimizer:
                optimizer.seek(0)  # the same lr and momentum for both
    assert_same_training(optimizer, theirs)


def test_saved_weights_modified_in_place_are_noticed_by_autograd() -> None:
    weight = torch.ones(4, requires_grad=True)
    optimizer = FusedCyclicSGD([weight], 0.1, 0.5)
    loss = (weight**2).sum()
    weight.grad = torch.ones(4)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch


def test_version_counters_of_updated_parameters_move_and_no_others() -> None:
    over = [*parameters([3, 4, (2, 2)]), torch.zeros(2, 3)[:, :2].requires_grad_(), torch.ones(0).requires_grad_()]
    optimizer = FusedCyclicSGD(over, 0.1, 0.5)
    for _ in range(3):
        give(over, [torch.ones_like(p) for p in over])
        over[1].grad = None
        before = [p._version for p in over]
        gradients = [0 if p.grad is None else p.grad._version for p in over]
        optimizer.step()
        moved = [p._version > version for p, version in zip(over, before, strict=True)]
        assert moved == [True, False, True, True, True]
        assert gradients == [0 if p.grad is None else p.grad._version for p in over]


def test_a_step_under_no_grad_and_autocast() -> None:
    optimizer = FusedCyclicSGD(parameters([20]), 0.1, 0.5)
    theirs, _ = sgd_beside(optimizer)
    modes: list[Any] = [torch.no_grad(), torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16)]
    for mode in modes:
        hand_over(optimizer, theirs)
        for each in (optimizer, theirs):
            every_parameter(each)[0].grad = torch.ones(20)
            with mode:
                each.step()
    assert_same_training(optimizer, theirs)
    assert every_parameter(optimizer)[0].is_leaf
    assert not optimizer.state[every_parameter(optimizer)[0]]["momentum_buffer"].requires_grad


def test_an_update_within_backward() -> None:
    """One optimizer a parameter, stepped as soon as its gradient is there."""
    over = parameters([5, 7])
    optimizers = {p: FusedCyclicSGD([p], 0.1, 0.5) for p in over}
    expected = [p.detach().add(2 * p.detach(), alpha=-0.1) for p in over]

    def hook(parameter: Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for p in over:
        p.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]  # untyped in torch
    torch.stack([(p**2).sum() for p in over]).sum().backward()  # type: ignore[no-untyped-call]  # untyped in torch
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(over, expected, strict=True))


def test_lazy_modules() -> None:
    """Parameters without a shape until the first forward pass."""
    model = nn.LazyLinear(3)
    optimizer = FusedCyclicSGD(model.parameters(), 0.1, 0.5)
    optimizer.step()
    model(torch.ones(2, 4)).sum().backward()
    before, (lr,) = model.weight.detach().clone(), optimizer.get_last_lr()
    optimizer.step()
    assert model.weight.grad is not None
    assert torch.equal(model.weight, before.add(model.weight.grad, alpha=-lr))


def test_gradients_that_carry_a_graph() -> None:
    (weight,) = parameters([20])
    optimizer = FusedCyclicSGD([weight], 0.1, 0.5)
    theirs, (twin,) = sgd_beside(optimizer)
    for each, tensor in ((optimizer, weight), (theirs, twin)):
        (gradient,) = torch.autograd.grad((tensor**3).sum(), tensor, create_graph=True)
        tensor.grad = gradient
        hand_over(optimizer, theirs)
        each.step()
        if each is optimizer:
            optimizer.seek(0)
    assert_same_training(optimizer, theirs)


@pytest.fixture
def process_group() -> Iterator[None]:
    """One process alone, with gloo."""
    if not torch.distributed.is_available():
        pytest.skip("this torch was built without torch.distributed")
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]  # not in the stubs
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(5, 6, generator=generator), torch.randn(5, 2, generator=generator)


@pytest.mark.usefixtures("process_group")
def test_under_ddp() -> None:
    def losses(wrap: Callable[[nn.Module], nn.Module], make: Callable[[Any], Any]) -> list[float]:
        torch.manual_seed(0)
        model = wrap(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)))
        optimizer = make(model.parameters())
        found = []
        for step in range(6):
            optimizer.zero_grad()
            x, y = batch(step)
            loss = ((model(x) - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    ddp = losses(nn.parallel.DistributedDataParallel, lambda ps: FusedCyclicSGD(ps, 0.25, 0.25, cycle_momentum=False))
    assert ddp == losses(lambda m: m, lambda ps: SGD(ps, lr=0.25, momentum=0.9, foreach=False))


@pytest.mark.usefixtures("process_group")
def test_dtensor_is_refused_by_name() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    mesh = init_device_mesh("cpu", (1,))
    sharded = nn.Parameter(distribute_tensor(torch.zeros(4), mesh, [Replicate()]))
    with pytest.raises(TypeError, match="DTensor"):
        FusedCyclicSGD([sharded], 0.1, 0.5)
    optimizer = FusedCyclicSGD(parameters([4]), 0.1, 0.5)
    with pytest.raises(TypeError, match="DTensor"):
        optimizer.add_param_group({"params": [sharded]})
    assert len(optimizer.param_groups) == 1


def test_under_averaged_model() -> None:
    model = nn.Linear(6, 2)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    optimizer = FusedCyclicSGD(model.parameters(), 0.1, 0.5, step_size_up=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(4):
            x, y = batch(step)
            ((model(x) - y) ** 2).mean().backward()
            optimizer.step()
            if optimizer.at_cycle_end:
                averaged.update_parameters(model)
    assert averaged.n_averaged == 2


def test_training_a_network_beside_torch() -> None:
    """Forward and backward passes of a real model: every loss is the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    twin = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    twin.load_state_dict(model.state_dict())
    optimizer = FusedCyclicSGD(model.parameters(), 0.01, 0.1, step_size_up=4, weight_decay=1e-3)
    theirs = SGD(twin.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
    scheduler = lr_scheduler.CyclicLR(theirs, 0.01, 0.1, step_size_up=4)
    for step in range(20):
        x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        y = torch.arange(6) % 3
        losses = []
        for net, each in ((model, optimizer), (twin, theirs)):
            each.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
            each.step()
            losses.append(loss.item())
        scheduler.step()
        assert losses[0] == losses[1], step
    assert_same_training(optimizer, theirs)
    train(optimizer, every_parameter(optimizer), [[torch.zeros_like(p) for p in every_parameter(optimizer)]], 1)
