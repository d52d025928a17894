"""Two processes that share a model on CUDA devices: what they find is added up between two launches, on the device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from clr_native import FusedCyclicSGD
from helpers import bits
from standin.exchange import Exchange
from standin.gpu import Gpu

RULES: dict[str, dict[str, Any]] = {
    "clipped": {"max_grad_norm": 0.5},
    "skips": {"skip_nonfinite": True, "ema_decay": 0.5},
    "LARS": {"trust_coefficient": 0.1, "weight_decay": 0.01, "trust_min_ndim": 1},
    "all": {"max_grad_norm": 0.5, "skip_nonfinite": True, "trust_coefficient": 0.1, "weight_decay": 0.01},
}
# The last but one has nothing in the second process.
SHAPES: list[tuple[int, ...]] = [(5, 7), (3,), (1, 4), (6, 2)]


@pytest.fixture(scope="module", autouse=True)
def mesh() -> Iterator[DeviceMesh]:
    store = Path(os.environ["SHARED_STORE"]) / "store"
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=world)
    yield init_device_mesh("cpu", (world,))
    distributed.barrier()
    distributed.destroy_process_group()


def is_second() -> bool:
    return distributed.get_rank() == 1


class Twins:
    """An optimizer over shards on the CPU and one over shards on the GPU, which get the same gradients."""

    def __init__(self, exchange: Exchange, mesh: DeviceMesh, *, with_plain: bool = True, **settings: Any) -> None:
        self.exchange, self.mesh = exchange, mesh
        self.generator = torch.Generator().manual_seed(1)
        starts = [torch.randn(shape, generator=self.generator) for shape in SHAPES]
        self.here, self.there = ([self.shard(i, start) for i, start in enumerate(starts)] for _ in range(2))
        if with_plain:  # a parameter that both have whole
            plain = torch.randn(130, generator=self.generator)
            self.here.append(nn.Parameter(plain.clone()))
            self.there.append(nn.Parameter(plain.clone()))
        self.on_cpu, self.on_gpu = (
            FusedCyclicSGD(over, 0.01, 0.1, step_size_up=3, **settings) for over in (self.here, self.there)
        )

    def shard(self, i: int, tensor: Tensor) -> nn.Parameter:
        placement = Replicate() if i == len(SHAPES) - 1 else Shard(0)
        cut = distribute_tensor(tensor.clone(), self.mesh, [placement], src_data_rank=None)
        return nn.Parameter(self.place(cut))

    def place(self, tensor: DTensor) -> DTensor:
        self.exchange.follow(tensor._local_tensor)
        return tensor

    def give(self, spoilt: bool = False) -> None:
        for i, (p, q) in enumerate(zip(self.here, self.there, strict=True)):
            gradient = torch.randn(p.shape, generator=self.generator)
            for over in (p, q):
                if isinstance(over, DTensor):
                    own = distribute_tensor(gradient.clone(), self.mesh, over.placements, src_data_rank=None)
                    if spoilt and is_second() and i == 0:
                        own._local_tensor.view(-1)[-1] = torch.inf
                    over.grad = self.place(own)
                else:
                    over.grad = gradient.clone()

    def step(self, spoilt: bool = False) -> None:
        self.give(spoilt)
        with self.exchange.cpu():
            self.on_cpu.step()
        self.on_gpu.step()

    def assert_same(self) -> None:
        assert self.on_cpu.applied_steps == self.on_gpu.applied_steps
        assert self.on_cpu.skipped_steps == self.on_gpu.skipped_steps
        for i, (p, q) in enumerate(zip(self.here, self.there, strict=True)):
            assert bits(local(p)) == bits(local(q)), f"parameter {i}"
            mine, other = self.on_cpu.state[p], self.on_gpu.state[q]
            assert mine.keys() == other.keys()
            for name, tensor in mine.items():
                assert bits(local(tensor)) == bits(local(other[name])), f"{name} of parameter {i}"


def local(tensor: Tensor) -> Tensor:
    return (tensor._local_tensor if isinstance(tensor, DTensor) else tensor).detach()


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_bits_of_the_cpu(gpu: Gpu, exchange: Exchange, mesh: DeviceMesh, rules: dict[str, Any]) -> None:
    twins = Twins(exchange, mesh, **rules)
    for number in range(4):
        twins.step(spoilt=number == 1 and "skip_nonfinite" in rules)
        assert twins.on_gpu.last_step_skipped == twins.on_cpu.last_step_skipped
        assert repr(twins.on_gpu.last_grad_norm) == repr(twins.on_cpu.last_grad_norm)
    twins.assert_same()


def launches(gpu: Gpu) -> list[str | None]:
    return [call.kernel for call in gpu.calls("cuLaunchKernel")]


def test_what_a_step_asks_of_the_driver(gpu: Gpu, exchange: Exchange, mesh: DeviceMesh) -> None:
    for rules, wanted in ((RULES["clipped"], ["clr_norm", "clr_share", "clr_step"]), ({}, ["clr_step_float32"])):
        twins = Twins(exchange, mesh, **rules)
        twins.step()
        twins.on_gpu.step()
        gpu.log.clear()
        twins.on_gpu.step()
        assert launches(gpu) == wanted
        assert not gpu.calls("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize")


def test_a_graph_holds_three_launches_and_needs_a_step_before(gpu: Gpu, exchange: Exchange, mesh: DeviceMesh) -> None:
    twins, stream = Twins(exchange, mesh, **RULES["clipped"]), gpu.new_stream()
    exchange.set_stream(0, stream)
    twins.step()
    twins.step()
    with gpu.capture(stream) as graph:
        twins.on_gpu.step()
    assert graph.names == ["cuLaunchKernel"] * 3
    # The setting needs other numbers, and their memory would be the graph's own.
    twins.on_gpu.param_groups[0]["trust_coefficient"] = 0.1
    with gpu.capture(stream), pytest.raises(RuntimeError, match="for the first time cannot be captured"):
        twins.on_gpu.step()


def refuse_in_second(twins: Twins) -> None:
    """A step that one process refuses, which the other cannot know yet."""
    group = twins.on_gpu.param_groups[0]
    kept = group["weight_decay"]
    if is_second():
        group["weight_decay"] = -1.0
        with pytest.raises(ValueError, match=r"weight_decay=-1\.0"):
            twins.on_gpu.step()
        group["weight_decay"] = kept
    else:
        twins.on_gpu.step()


@pytest.mark.parametrize("steps", [0, 1])
def test_a_refusal_of_one_changes_nothing_in_any(gpu: Gpu, exchange: Exchange, mesh: DeviceMesh, steps: int) -> None:
    twins = Twins(exchange, mesh, **RULES["all"])
    for _ in range(steps):
        twins.step()
    twins.give()
    norm = twins.on_gpu.last_grad_norm if steps else None
    refuse_in_second(twins)
    assert not steps or twins.on_gpu.last_grad_norm == norm
    with exchange.cpu():
        twins.on_cpu.step()
    if is_second():
        twins.on_gpu.step()
    else:  # the step is made, for the other process waits for it
        with pytest.raises(RuntimeError, match="another process refused an earlier step"):
            twins.on_gpu.step()
    for _ in range(3):
        twins.step()
    twins.assert_same()


def test_a_refusal_is_told_by_whatever_is_read_first(gpu: Gpu, exchange: Exchange, mesh: DeviceMesh) -> None:
    twins = Twins(exchange, mesh, **RULES["clipped"], weight_decay=0.01)
    twins.step()
    twins.give()
    refuse_in_second(twins)
    if not is_second():
        with pytest.raises(RuntimeError, match="another process refused an earlier step"):
            _ = twins.on_gpu.applied_steps
    assert twins.on_gpu.applied_steps == 1
    twins.on_gpu.error_if_nonfinite = True  # waits for the norm, and so learns of a refusal at once
    if is_second():
        refuse_in_second(twins)
    else:
        with pytest.raises(RuntimeError, match="another process refused this step"):
            twins.on_gpu.step()
    with exchange.cpu():
        twins.on_cpu.step()
    twins.on_gpu.step()
    twins.assert_same()


def test_a_process_without_gradients_takes_part(gpu: Gpu, exchange: Exchange, mesh: DeviceMesh) -> None:
    """From its first step on, when nothing else says where the work is done."""
    twins = Twins(exchange, mesh, **RULES["all"])
    for number in range(4):
        twins.give()
        if is_second() == (number % 2 == 0):
            for p in (*twins.here, *twins.there):
                p.grad = None
        with exchange.cpu():
            twins.on_cpu.step()
        twins.on_gpu.step()
        assert repr(twins.on_gpu.last_grad_norm) == repr(twins.on_cpu.last_grad_norm)
    twins.assert_same()


def test_shards_in_plain_tensors(gpu: Gpu, exchange: Exchange) -> None:
    """Two processes with the same plain parameters, each as if they were its own part."""
    start = torch.randn(40, generator=torch.Generator().manual_seed(2))
    over = [nn.Parameter(start.clone()) for _ in range(2)]
    group = distributed.group.WORLD
    on_cpu, on_gpu = (FusedCyclicSGD([p], 0.01, 0.1, max_grad_norm=0.5, process_group=group) for p in over)
    for number in range(3):
        for p in over:
            p.grad = start * (1 + number + distributed.get_rank())
        with exchange.cpu():
            on_cpu.step()
        on_gpu.step()
        assert on_gpu.last_grad_norm == on_cpu.last_grad_norm
        assert on_cpu.last_grad_norm is not None
        ranks = torch.tensor([1.0 + number, 2.0 + number], dtype=torch.float64)
        expected = float(start.double().norm() * ranks.norm())
        assert on_cpu.last_grad_norm == pytest.approx(expected, rel=1e-6)
    assert bits(over[0]) == bits(over[1])
