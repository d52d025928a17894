"""Meshes of two dimensions, process groups and what processes tell each other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from clr_native import FusedCyclicSGD, GradScaler
from helpers import bits, every_parameter, gradient_of
from processes import case
from shards import SCHEDULE, Both, gradients, local, mesh_of, whole

RULES: dict[str, Any] = {"max_grad_norm": 0.5, "skip_nonfinite": True, "ema_decay": 0.9, "weight_decay": 0.01}


def in_parallel(network: nn.Module) -> None:
    """Tensor parallel, and sharded over the other dimension of the mesh."""
    mesh = mesh_of(2, 2)
    parallelize_module(network, mesh["tp"], {"0": ColwiseParallel(), "3": RowwiseParallel()})
    fully_shard(network, mesh=mesh["dp"])


class Block(nn.Module):
    """Attention with two heads, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(8), nn.LayerNorm(8)
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            each(self.before(x)).unflatten(-1, (-1, 4)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        hidden: Tensor = self.down(nn.functional.gelu(self.up(self.between(x))))
        return x + hidden


def transformer(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Embedding(11, 8), Block(), Block(), nn.Linear(8, 11, bias=False)).to(dtype)


def blocks_in_parallel(network: nn.Module) -> None:
    """The weights of blocks lie on both dimensions of the mesh, norms and embeddings on one."""
    mesh = mesh_of(2, 2)
    plan: Any = dict.fromkeys(("query", "key", "value", "up"), ColwiseParallel())
    plan |= dict.fromkeys(("out", "down"), RowwiseParallel())
    for block in network.children():
        if isinstance(block, Block):
            parallelize_module(block, mesh["tp"], plan)
            fully_shard(block, mesh=mesh["dp"])
    fully_shard(network, mesh=mesh["dp"])


def replicated(network: nn.Module) -> None:
    """HSDP: replicas of shards."""
    fully_shard(network, mesh=mesh_of(2, 2, names=("replicas", "shards")))


def only_in_parallel(network: nn.Module) -> None:
    """Some parameters are DTensors; the others are the same in every process."""
    parallelize_module(network, mesh_of(2), {"0": ColwiseParallel(), "3": RowwiseParallel()})


def collectives(step: Callable[[], object]) -> int:
    with mock.patch.object(distributed, "all_reduce", side_effect=distributed.all_reduce) as counted:
        step()
    return counted.call_count


def train(both: Both, steps: int = 40) -> None:
    for number, each in enumerate(gradients(every_parameter(both.alone), steps)):
        if number % 9 == 4:
            each[number % len(each)].view(-1)[-1] = torch.inf
        both.step(each)
        assert both.sharded.last_step_skipped == both.alone.last_step_skipped == (number % 9 == 4)
        if number % 9 != 4:
            assert both.sharded.last_grad_norm == pytest.approx(both.alone.last_grad_norm, rel=1e-14)
    both.assert_same()


@case(4)
def trains_on_a_mesh_of_two_dimensions() -> None:
    both = Both(in_parallel, **RULES)
    kinds = {p.placements for p in every_parameter(both.sharded) if isinstance(p, DTensor)}
    assert {len(placements) for placements in kinds} == {1, 2}
    train(both)
    assert collectives(both.sharded.step) == 2


@case(4)
def trains_a_transformer_on_a_mesh_of_two_dimensions() -> None:
    for settings in (RULES, {"nesterov": True, "weight_decay": 0.01}):
        both = Both(blocks_in_parallel, make=transformer, **settings)
        steps = gradients(every_parameter(both.alone), 200)
        for each in steps:
            both.step(each)
        both.assert_same()


@case(4)
def trains_a_transformer_by_its_own_gradients() -> None:
    both = Both(blocks_in_parallel, make=transformer, **{**RULES, "max_grad_norm": 0.05}, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    for _ in range(20):
        words = torch.randint(11, (3, 6), generator=generator)
        for network, optimizer in ((both.model, both.sharded), (both.twin, both.alone)):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())
            torch.autograd.backward(loss)
            optimizer.step()
        assert both.sharded.last_grad_norm == pytest.approx(both.alone.last_grad_norm, rel=1e-9)
    for p, q in zip(every_parameter(both.sharded), every_parameter(both.alone), strict=True):
        torch.testing.assert_close(whole(p), q.detach(), rtol=1e-9, atol=1e-12)


@case(4)
def counts_replicas_once() -> None:
    both = Both(replicated, **RULES)
    train(both)
    assert collectives(both.sharded.step) == 2


@case(2)
def trains_beside_parameters_that_are_whole() -> None:
    both = Both(only_in_parallel, **RULES)
    assert {isinstance(p, DTensor) for p in every_parameter(both.sharded)} == {True, False}
    train(both)


@case(2)
def adds_up_only_where_a_rule_needs_it() -> None:
    for settings, wanted in ({}, 0), ({"ema_decay": 0.9}, 0), (RULES, 1), ({"trust_coefficient": 0.1}, 1):
        both = Both(**settings)
        both.give(next(gradients(every_parameter(both.alone), 1)))
        assert collectives(both.sharded.step) == wanted, settings
        both.give([None] * len(every_parameter(both.alone)))
        assert collectives(both.sharded.step) == wanted, settings


@case(2)
def our_scaler_finds_an_infinity_in_one_shard() -> None:
    both = Both()
    over = every_parameter(both.sharded)
    scaler = GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(1))
    for number, each in enumerate(gradients(every_parameter(both.alone), 6)):
        both.give([g * scaler.get_scale() for g in each])
        part = local(gradient_of(over[0]))
        if number in (1, 3) and distributed.get_rank() == number % 2:
            part.view(-1)[0] = torch.nan
        scaler.step(both.sharded)
        scaler.update()
    assert (both.sharded.applied_steps, both.sharded.skipped_steps, scaler.get_scale()) == (4, 2, 1.0)


@case(2)
def a_refusal_of_one_is_a_refusal_of_all() -> None:
    both = Both(**RULES)
    train(both, 3)
    over, sets = every_parameter(both.sharded), gradients(every_parameter(both.alone), 20)
    for spoil in ("setting", "gradient", "shape"):
        both.give(next(sets))
        here = distributed.get_rank() == 1
        group = both.sharded.param_groups[0]
        kept = group["weight_decay"]
        if here and spoil == "setting":
            group["weight_decay"] = -1.0
        if here and spoil == "gradient":
            over[1].grad = torch.zeros(over[1].shape)
        if here and spoil == "shape":
            both.sharded.state[over[0]]["momentum_buffer"]._local_tensor = torch.zeros(1)
            group["average"] = "swa"
        before = [bits(local(p)) for p in over], both.sharded.applied_steps
        words = "weight_decay=-1.0|gradient: type=|are two averages" if here else "another process refused this step"
        for _ in range(2):
            with pytest.raises((ValueError, TypeError, RuntimeError), match=words):
                both.sharded.step()
        assert ([bits(local(p)) for p in over], both.sharded.applied_steps) == before
        group.update(weight_decay=kept, average=None)
        if spoil == "gradient":
            both.sharded.zero_grad()


@case(2)
def a_refusal_at_the_first_step() -> None:
    for settings in (RULES, {"trust_coefficient": 0.1}, {"trust_coefficient": 0.1, "average": "swa"}):
        both = Both(**settings)
        over = every_parameter(both.sharded)
        both.give(next(gradients(every_parameter(both.alone), 1)))
        here = distributed.get_rank() == 0
        if here:
            both.sharded.param_groups[0]["weight_decay"] = -1.0
        with pytest.raises(
            (ValueError, RuntimeError), match="weight_decay=-1.0" if here else "another process refused"
        ):
            both.sharded.step()
        if here:
            both.sharded.param_groups[0]["weight_decay"] = settings.get("weight_decay", 0.0)
        both.sharded.step()
        assert both.sharded.applied_steps == 1
        assert len(over) == len(both.sharded.state)


@case(2)
def parameters_become_shards_after_construction() -> None:
    """As under Accelerate, which replaces them in the group's list."""
    both = Both(**RULES)
    shards = every_parameter(both.sharded)
    for group in both.sharded.param_groups:
        group["params"] = [nn.Parameter(whole(p).clone()) for p in shards]
    own = FusedCyclicSGD(both.sharded.param_groups[0]["params"], **SCHEDULE, **RULES)
    own.param_groups[0]["params"][:] = shards
    both.sharded = own
    train(both)


@case(2)
def copies_know_that_they_share_a_model() -> None:
    both = Both(only_in_parallel, max_grad_norm=0.01)
    both.model, both.sharded = copy.deepcopy((both.model, both.sharded))
    for each in gradients(every_parameter(both.alone), 3):
        both.step(each)
    both.assert_same()


@case(2)
def a_refusal_without_a_rule_stays_where_it_is() -> None:
    for settings in ({}, RULES):
        both = Both(**settings)
        both.give(next(gradients(every_parameter(both.alone), 1)))
        group = both.sharded.param_groups[0]
        group["nesterov"] = 3 if distributed.get_rank() == 0 or settings else False
        if group["nesterov"] == 3:
            with pytest.raises((TypeError, RuntimeError), match=r"nesterov=3|another process"):
                both.sharded.step()
        else:
            both.sharded.step()


@case(2)
def asking_for_state_that_is_not_kept_leaves_nothing() -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    both = Both(cycle_momentum=False, momentum=0.0)
    for each in gradients(every_parameter(both.alone), 3):
        both.step(each)
        both.sharded.zero_grad()
        get_optimizer_state_dict(both.model, both.sharded)
    both.assert_same()
    assert both.sharded.applied_steps == 3


@case(2)
def gradients_in_other_placements_are_redistributed() -> None:
    both = Both(**RULES)
    over = every_parameter(both.sharded)
    for number, each in enumerate(gradients(every_parameter(both.alone), 10)):
        both.give(each)
        for p, g in zip(over, each, strict=True):
            assert isinstance(p, DTensor)
            mesh, placement = p.device_mesh, (Replicate(), Shard(0), Partial())[number % 3]
            half = DTensor.from_local(g / 2, mesh, [placement]) if number % 3 == 2 else None
            p.grad = distribute_tensor(g, mesh, [placement], src_data_rank=None) if half is None else half
        both.sharded.step()
        both.alone.step()
    both.assert_same()
    both.sharded.write_unscaled_grad = True
    first = over[0]
    assert isinstance(first, DTensor)
    first.grad = distribute_tensor(each[0], first.device_mesh, [Replicate()], src_data_rank=None)
    with pytest.raises(TypeError, match=r"placements=\(Replicate\(\),\) must be the parameter's"):
        both.sharded.step()


@case(2)
def what_only_one_process_can_tell_is_asked() -> None:
    """A step at rate zero: for a process with empty shards it looks as if only state were asked for."""
    both = Both()
    for optimizer in (both.sharded, both.alone):
        optimizer.param_groups[0]["lr"] = 0.0
    only_first = [torch.zeros_like(p) for p in every_parameter(both.alone)]
    only_first[0].view(-1)[0] = 1.0
    both.step(only_first)
    both.assert_same()
    assert both.sharded.param_groups[0]["lr"] != 0.0


@case(2)
def torch_asks_for_state() -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    for settings in ({}, RULES, {"trust_coefficient": 0.1, "weight_decay": 0.1}):
        both = Both(**settings)
        before = [bits(whole(p)) for p in every_parameter(both.sharded)]
        get_optimizer_state_dict(both.model, both.sharded)
        assert [bits(whole(p)) for p in every_parameter(both.sharded)] == before
        assert both.sharded.applied_steps == 0
        for each in gradients(every_parameter(both.alone), 5):
            both.step(each)
        if "trust_coefficient" not in settings:
            both.assert_same()


@case(2)
def a_parameter_in_pieces_that_are_to_be_added_is_refused() -> None:
    parameter = nn.Parameter(DTensor.from_local(torch.ones(4), mesh_of(), [Partial()]))
    with pytest.raises(ValueError, match=r"placements=\(Partial\(sum\),\) must be Shard or Replicate"):
        FusedCyclicSGD([parameter], **SCHEDULE)
