"""Beside the rest of torch: autograd's version counters and modes, lazy modules, DDP, DTensor, a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.optim import SGD, lr_scheduler

from clr_native import FusedCyclicSGD
from helpers import Beside, assert_same_training, give, gradient_sets, parameters


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
    beside = Beside(FusedCyclicSGD(parameters([20]), 0.1, 0.5))
    modes: list[Any] = [torch.no_grad(), torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16)]
    for mode in modes:
        with mode:
            beside.step([torch.ones(20)])
    beside.assert_same()
    (weight,) = beside.over
    assert weight.is_leaf
    assert not beside.ours.state[weight]["momentum_buffer"].requires_grad


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
    beside = Beside(FusedCyclicSGD(parameters([20]), 0.1, 0.5))
    for (tensor,) in (beside.over, beside.twins):
        (tensor.grad,) = torch.autograd.grad((tensor**3).sum(), tensor, create_graph=True)
    beside.step()
    beside.assert_same()


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
def test_dtensors_of_one_process() -> None:
    """tests/sharded has those of several."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (1,))
    plain, other = parameters([(4, 3), 5])
    shards: Any = [nn.Parameter(distribute_tensor(p.detach().clone(), mesh, [Shard(0)])) for p in (plain, other)]
    settings: dict[str, Any] = {"base_lr": 0.1, "max_lr": 0.5, "max_grad_norm": 0.3, "skip_nonfinite": True}
    ours, alone = FusedCyclicSGD(shards[:1], **settings), FusedCyclicSGD([plain], **settings)
    ours.add_param_group({"params": shards[1:]})
    alone.add_param_group({"params": [other]})
    for gradients in gradient_sets([plain, other], 5):
        give([plain, other], gradients)
        give(shards, [distribute_tensor(g, mesh, [Shard(0)]) for g in gradients])
        versions = [(p._version, p._local_tensor._version) for p in shards]
        for each in (ours, alone):
            each.step()
        assert [(p._version - 1, p._local_tensor._version - 1) for p in shards] == versions
    assert ours.last_grad_norm == alone.last_grad_norm
    for p, q in zip(shards, (plain, other), strict=True):
        assert torch.equal(p.to_local(), q)
        assert torch.equal(ours.state[p]["momentum_buffer"].to_local(), alone.state[q]["momentum_buffer"])


@pytest.mark.usefixtures("process_group")
def test_a_gradient_is_sharded_if_its_parameter_is() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    mesh = init_device_mesh("cpu", (1,))
    plain, sharded = torch.zeros(4), distribute_tensor(torch.zeros(4), mesh, [Replicate()])
    for tensor, gradient in ((plain, sharded), (sharded, plain)):
        parameter = nn.Parameter(tensor.clone())
        parameter.grad = gradient
        optimizer = FusedCyclicSGD([parameter], 0.1, 0.5)
        with pytest.raises(TypeError, match=r"parameter 0 of group 0, gradient: type=\w+ must be the parameter's"):
            optimizer.step()
        assert parameter._version == 0


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
