"""Checkpoints of shards: other numbers of processes, torch's helpers, averages, and a range test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint import state_dict as helpers_of_torch
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

from clr_native import FusedCyclicSGD, lr_range_test
from helpers import bits, every_parameter
from processes import case
from shards import SCHEDULE, Both, gradients, model, sharded, whole

RULES: dict[str, Any] = {"max_grad_norm": 0.5, "skip_nonfinite": True, "ema_decay": 0.9, "weight_decay": 0.01}
Options = helpers_of_torch.StateDictOptions


def folder() -> str:
    """One that all processes know."""
    names: list[str | None] = [tempfile.mkdtemp() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(names)
    assert names[0] is not None
    return names[0]


def states(network: nn.Module, optimizer: FusedCyclicSGD, flat: bool) -> dict[str, Any]:
    options = Options(flatten_optimizer_state_dict=flat)
    return {
        "model": helpers_of_torch.get_model_state_dict(network),
        "optimizer": helpers_of_torch.get_optimizer_state_dict(network, optimizer, options=options),
    }


Give = Callable[[nn.Module, FusedCyclicSGD, int], object]


def resharded(give: Give, flat: bool) -> tuple[FusedCyclicSGD, FusedCyclicSGD]:
    """Trains on 2, then 3, then 1 process, in mid cycle each time, and alone. Returns both optimizers; those of the
    first process are whole.
    """
    rank, at = distributed.get_rank(), folder()
    lonely = model()
    alone = FusedCyclicSGD(lonely.parameters(), **SCHEDULE, **RULES)
    for number in range(30):
        give(lonely, alone, number)
        alone.step()
    for stage, ranks in enumerate((2, 3, 1)):
        mesh = DeviceMesh("cpu", list(range(ranks)))
        if rank < ranks:
            network = model()
            fully_shard(network, mesh=mesh)
            optimizer = FusedCyclicSGD(network.parameters(), **SCHEDULE, **RULES)
            if stage > 0:
                state = states(network, optimizer, flat)
                load(state, checkpoint_id=f"{at}/{stage - 1}", process_group=mesh.get_group())
                helpers_of_torch.set_model_state_dict(network, state["model"])
                helpers_of_torch.set_optimizer_state_dict(
                    network, optimizer, state["optimizer"], options=Options(flatten_optimizer_state_dict=flat)
                )
                assert optimizer.applied_steps == 10 * stage
            for number in range(10 * stage, 10 * stage + 10):
                give(network, optimizer, number)
                optimizer.step()
            save(states(network, optimizer, flat), checkpoint_id=f"{at}/{stage}", process_group=mesh.get_group())
        distributed.barrier()
    return optimizer, alone


@case(3)
def goes_on_with_other_numbers_of_processes() -> None:
    """As one process that was never interrupted, if all get the same gradients."""
    sets = list(gradients(list(model().parameters()), 30))

    def give(network: nn.Module, optimizer: FusedCyclicSGD, number: int) -> None:
        for p, g in zip(network.parameters(), sets[number], strict=True):
            p.grad = sharded(g, p)

    for flat in (False, True):
        own, alone = resharded(give, flat)
        if distributed.get_rank() == 0:
            for p, q in zip(every_parameter(own), every_parameter(alone), strict=True):
                assert bits(whole(p)) == bits(q)
                for name, tensor in own.state[p].items():
                    assert bits(whole(tensor)) == bits(alone.state[q][name]), name
            assert own.param_groups[0]["lr"] == alone.param_groups[0]["lr"]


@case(3)
def goes_on_by_its_own_gradients() -> None:
    def give(network: nn.Module, optimizer: FusedCyclicSGD, number: int) -> None:
        optimizer.zero_grad()
        data = torch.randn(6, 5, generator=torch.Generator().manual_seed(number))
        torch.autograd.backward((network(data) ** 2).mean())

    own, alone = resharded(give, flat=False)
    if distributed.get_rank() == 0:
        for p, q in zip(every_parameter(own), every_parameter(alone), strict=True):
            torch.testing.assert_close(whole(p), q.detach(), rtol=1e-5, atol=1e-6)


@case(2)
def torch_gathers_and_scatters_states() -> None:
    for options in (Options(full_state_dict=True), Options(full_state_dict=True, cpu_offload=True), Options()):
        both = Both(**RULES)
        for each in gradients(every_parameter(both.alone), 9):
            both.step(each)
        saved = helpers_of_torch.get_state_dict(both.model, both.sharded, options=options)
        other = Both(**RULES)
        if options.full_state_dict:
            options.broadcast_from_rank0 = True
            if distributed.get_rank() != 0:
                saved = ({}, {})
        helpers_of_torch.set_model_state_dict(other.model, saved[0], options=options)
        helpers_of_torch.set_optimizer_state_dict(other.model, other.sharded, saved[1], options=options)
        other.twin, other.alone = both.twin, both.alone
        for each in gradients(every_parameter(both.alone), 9):
            other.step(each)
        other.assert_same()


@case(2)
def own_states_load() -> None:
    both, other = Both(**RULES), Both(**RULES)
    for each in gradients(every_parameter(both.alone), 9):
        both.step(each)
    other.sharded.load_state_dict(both.sharded.state_dict())
    other.model.load_state_dict(both.model.state_dict())
    other.twin, other.alone = both.twin, both.alone
    for each in gradients(every_parameter(both.alone), 9):
        other.step(each)
    other.assert_same()
    over = every_parameter(other.sharded)[0]
    kept = other.sharded.state[over]["momentum_buffer"]
    assert isinstance(kept, DTensor)
    other.sharded.state[over]["momentum_buffer"] = DTensor.from_local(kept._local_tensor, kept.device_mesh, [Shard(1)])
    other.give([torch.zeros_like(q) for q in every_parameter(other.alone)])
    with pytest.raises(TypeError, match=r"momentum_buffer: placements=\(Shard\(dim=1\),\) must be the parameter's"):
        other.sharded.step()
    other.sharded.state[over]["momentum_buffer"] = kept
    other.assert_same()
    plain = both.alone.state_dict()
    with pytest.raises(TypeError, match="momentum_buffer: type=Tensor must be a DTensor"):
        other.sharded.load_state_dict(plain)
    other.assert_same()


@case(2)
def averages_of_shards() -> None:
    forms: list[dict[str, Any]] = [{}, {"master_weights": True}]
    for settings in forms:
        dtype = torch.bfloat16 if settings else torch.float32
        both = Both(dtype=dtype, **RULES, **settings)
        for each in gradients(every_parameter(both.alone), 9):
            both.step(each)
        before = [bits(whole(p)) for p in every_parameter(both.sharded)]
        with both.sharded.averaged_weights(), both.alone.averaged_weights():
            for p, q in zip(every_parameter(both.sharded), every_parameter(both.alone), strict=True):
                assert bits(whole(p)) == bits(q)
        assert [bits(whole(p)) for p in every_parameter(both.sharded)] == before
        gathered, expected = model(dtype), model(dtype)
        both.sharded.copy_average_to(gathered)
        both.alone.copy_average_to(expected)
        for p, q in zip(gathered.parameters(), expected.parameters(), strict=True):
            assert bits(p) == bits(q)
        both.sharded.copy_average_to(both.model)
        for p, q in zip(both.model.parameters(), expected.parameters(), strict=True):
            assert bits(whole(p)) == bits(q)


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(6, 5, generator=generator), torch.zeros(6, 1)) for _ in range(count)]


@case(2)
def a_range_test_gives_everything_back() -> None:
    both = Both(max_grad_norm=1.0)
    for each in gradients(every_parameter(both.alone), 3):
        both.step(each)
    loss = nn.MSELoss()
    before = [bits(whole(p)) for p in every_parameter(both.sharded)]
    found = [
        lr_range_test(network, optimizer, loss, batches(5), start_lr=1e-3, end_lr=10.0, num_steps=30)
        for network, optimizer in ((both.model, both.sharded), (both.twin, both.alone))
    ]
    assert [bits(whole(p)) for p in every_parameter(both.sharded)] == before
    both.assert_same()
    assert found[0].losses == pytest.approx(found[1].losses, rel=1e-4)


class OneProcessFailsError(Exception):
    pass


@case(2)
def what_one_process_raises_ends_a_range_test_in_all() -> None:
    here = distributed.get_rank() == 1

    def failing_loss(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        if here and len(calls) == 7:
            raise OneProcessFailsError
        return nn.functional.mse_loss(outputs, targets)

    def failing_batches() -> Iterator[tuple[Tensor, Tensor]]:
        for number, each in enumerate(batches(20)):
            if here and number == 5:
                raise OneProcessFailsError
            yield each

    mse = nn.functional.mse_loss
    ways: list[dict[str, Any]] = [
        {"loss_fn": failing_loss, "loader": batches(5)},
        {"loss_fn": mse, "loader": failing_batches()},
        {"loss_fn": mse, "loader": batches(5), "val_loader": failing_batches()},
        {"loss_fn": mse, "loader": batches(5), "metric": lambda outputs, targets: 1.0 / (not here)},
    ]
    for way in ways:
        calls: list[int] = []
        both = Both(max_grad_norm=1.0)
        both.step(next(gradients(every_parameter(both.alone), 1)))
        wanted = (OneProcessFailsError, ZeroDivisionError) if here else RuntimeError
        with pytest.raises(wanted, match=None if here else "another rank raised"):
            lr_range_test(both.model, both.sharded, **way, end_lr=0.1, num_steps=30)
        both.assert_same()
        for each in gradients(every_parameter(both.alone), 2):
            both.step(each)
        both.assert_same()


@case(2)
def parameters_that_are_offloaded() -> None:
    from torch.distributed.fsdp import CPUOffloadPolicy

    both = Both(lambda network: fully_shard(network, offload_policy=CPUOffloadPolicy(pin_memory=False)), **RULES)
    for each in gradients(every_parameter(both.alone), 9):
        both.step(each)
    both.assert_same()
    for data, _ in batches(5):
        for network, optimizer in ((both.model, both.sharded), (both.twin, both.alone)):
            optimizer.zero_grad()
            torch.autograd.backward((network(data) ** 2).mean())
            optimizer.step()
    for p, q in zip(every_parameter(both.sharded), every_parameter(both.alone), strict=True):
        torch.testing.assert_close(whole(p), q.detach(), rtol=1e-5, atol=1e-6)


@case(2)
def mixed_precision_and_real_backward() -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policies: list[dict[str, Any]] = [{}, {"mp_policy": MixedPrecisionPolicy(torch.bfloat16, torch.float32)}]
    for policy in policies:
        networks = [model(), model()]
        for network, reshard in zip(networks, (True, False), strict=True):
            for layer in network.children():
                if list(layer.parameters()):
                    fully_shard(layer, reshard_after_forward=reshard, **policy)
            fully_shard(network, reshard_after_forward=reshard, **policy)
        optimizers = [FusedCyclicSGD(network.parameters(), **SCHEDULE, **RULES) for network in networks]
        for data, _ in batches(12):
            for network, optimizer in zip(networks, optimizers, strict=True):
                optimizer.zero_grad()
                torch.autograd.backward((network(data).float() ** 2).mean())
                optimizer.step()
        for p, q in zip(*map(every_parameter, optimizers), strict=True):
            assert isinstance(p, DTensor)
            assert bits(whole(p)) == bits(whole(q))
