"""What the host knows while the device has not done its work, and after."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils.hooks import RemovableHandle

from clr_native import FusedCyclicSGD
from clr_native.sgd import cuda_graphs
from standin.allocator import Allocator
from standin.exchange import Exchange
from standin.gpu import Gpu
from standin.results import Attribute, Result
from twins import Twins


@pytest.mark.parametrize(
    ("capability", "words"),
    [
        ((7, 0), "a GPU of compute capability 7.0, where the kernels need 7.5 or more"),
        ((8, 0), "update the driver, or build with an older CUDA toolkit"),
    ],
)
def test_why_kernels_are_not_loaded(gpu: Gpu, exchange: Exchange, capability: tuple[int, int], words: str) -> None:
    """This comes first in its process: kernels are loaded once."""
    names = (Attribute.COMPUTE_CAPABILITY_MAJOR, Attribute.COMPUTE_CAPABILITY_MINOR)
    gpu.attributes |= dict(zip(names, capability, strict=True))
    gpu.fail("cuModuleLoadData", Result.NO_BINARY_FOR_GPU)
    over = torch.zeros(5, requires_grad=True)
    over.grad = torch.ones(5)
    optimizer = FusedCyclicSGD([over], 0.01, 0.1)
    with pytest.raises(RuntimeError, match=words):
        optimizer.step()
    assert torch.equal(over, torch.zeros(5))


def test_a_device_that_runs_late(gpu: Gpu, exchange: Exchange) -> None:
    """Nothing is done before it is waited for: memory that the host used again too early would be seen."""
    gpu.lazy = True
    twins = Twins(exchange, ema_decay=0.5)
    for lr in (None, 0.25, None, 0.125, 0.5):  # each by hand is another copy
        if lr is not None:
            for optimizer in (twins.here, twins.there):
                optimizer.param_groups[0]["lr"] = lr
        for parameter in twins.on_gpu:
            parameter.grad = None  # the next lies elsewhere
        twins.give()
        twins.both(FusedCyclicSGD.step)
        twins.assert_same_groups()
    twins.assert_same()


def test_nobody_waits_with_pythons_lock(gpu: Gpu, exchange: Exchange) -> None:
    """Another thread may have to run before the device can answer."""
    gpu.lazy = True
    over = torch.zeros(5, requires_grad=True)
    kept = [torch.ones(5) for _ in range(6)]  # more than there are places for copies
    optimizer = FusedCyclicSGD([over], 0.01, 0.1, max_grad_norm=0.5)
    for gradient in kept:
        over.grad = gradient
        optimizer.step()
    assert optimizer.applied_steps == 6
    assert optimizer.last_grad_norm == 5**0.5
    optimizer.state_dict()
    waits = gpu.calls("cuStreamSynchronize", "cuEventSynchronize")
    assert {call.name for call in waits} == {"cuStreamSynchronize", "cuEventSynchronize"}
    assert not any(call.holds_gil for call in waits)
    assert all(call.holds_gil for call in gpu.calls("cuLaunchKernel"))  # or this test would see nothing


def test_counts_are_read_behind_a_step_on_another_stream(gpu: Gpu, exchange: Exchange) -> None:
    gpu.lazy = True
    twins = Twins(exchange, ema_decay=0.5)
    twins.step()
    gpu.finish()  # a stream that somebody changes to has to wait for the one before
    exchange.set_stream(0, gpu.new_stream())
    for optimizer in (twins.here, twins.there):
        optimizer.param_groups[0]["lr"] = 0.125  # used once
    twins.step()
    exchange.set_stream(0, 0)  # which waits for nothing
    assert twins.there.applied_steps == twins.here.applied_steps
    assert twins.there.get_last_lr() == twins.here.get_last_lr()
    twins.step()
    twins.assert_same()


def test_memory_is_given_back_when_the_last_step_is_done(gpu: Gpu, exchange: Exchange, allocator: Allocator) -> None:
    gpu.lazy = True
    twins = Twins(exchange)
    twins.step()
    assert allocator.streams
    gpu.log.clear()
    del twins.there
    gc.collect()
    assert not allocator.streams
    assert not any(call.holds_gil for call in gpu.calls("cuEventSynchronize"))
    for mine, other in zip(twins.on_cpu, twins.on_gpu, strict=True):
        assert torch.equal(mine, other)


def test_a_step_waits_for_releases_on_other_streams(gpu: Gpu, exchange: Exchange) -> None:
    """Each waits for the one before, too: their parameters may share memory."""
    twins = Twins(exchange)
    twins.step(2)
    twins.there.release_gradients()
    gpu.lazy = True
    streams = [gpu.new_stream() for _ in twins.on_gpu]
    for lr in (0.5, 0.25):
        twins.give()
        with twins.home.cpu():
            twins.here.param_groups[0]["lr"] = lr
            twins.here.step()
        kept = [parameter.grad for parameter in twins.on_gpu]
        for parameter in twins.on_gpu:
            parameter.grad = None
        twins.there.param_groups[0]["lr"] = lr
        for stream, parameter, gradient in zip(streams, twins.on_gpu, kept, strict=True):
            exchange.set_stream(0, stream)
            torch.autograd.backward(parameter, gradient)
        exchange.set_stream(0, 0)
        twins.there.step()
        for stream in (0, *reversed(streams)):  # the last that came are the first to run
            gpu.run(stream)
        for parameter, gradient in zip(twins.on_gpu, kept, strict=True):
            parameter.grad = gradient
    twins.assert_same()


class NotedGraph:
    """A graph as torch tells of it from 2.14 on. Its methods have the names of torch.cuda.CUDAGraph's."""

    def __init__(self, gpu: Gpu, stream: int) -> None:
        self.gpu, self.stream = gpu, stream
        self.kept: list[object] = []
        self.replay_hooks: OrderedDict[int, Callable[[NotedGraph], None]] = OrderedDict()
        self.callbacks: list[Callable[[], None]] = []

    def retain_object(self, kept: object, *, synchronize_before_release: bool) -> None:
        assert synchronize_before_release
        self.kept.append(kept)

    def register_replay_end_hook(self, hook: Callable[[NotedGraph], None]) -> RemovableHandle:
        handle = RemovableHandle(self.replay_hooks)
        self.replay_hooks[handle.id] = hook
        return handle

    def register_destroy_callback(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    @contextmanager
    def capture(self, begins: list[Any], ends: list[Any]) -> Iterator[None]:
        with self.gpu.capture(self.stream) as self.graph:
            begins[0](self)
            yield
        ends[0](self)

    def replay(self) -> None:
        self.gpu.replay(self.graph, self.stream)
        for hook in self.replay_hooks.values():
            hook(self)

    def reset(self) -> None:
        self.gpu.finish()
        for callback in self.callbacks:
            callback()
        self.kept.clear()


@pytest.fixture
def noted(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> tuple[NotedGraph, list[Any], list[Any]]:
    begins: list[Any] = []
    ends: list[Any] = []
    monkeypatch.setattr(cuda_graphs, "_watched", False)
    monkeypatch.setattr("torch.cuda.graphs.register_graph_capture_start_hook", begins.append, raising=False)
    monkeypatch.setattr("torch.cuda.graphs.register_graph_capture_end_hook", ends.append, raising=False)
    return NotedGraph(gpu, gpu.new_stream()), begins, ends


Noted = tuple[NotedGraph, list[Any], list[Any]]


def test_replays_that_torch_tells_of(gpu: Gpu, exchange: Exchange, noted: Noted) -> None:
    """The device is asked only where one has run, and behind it, whatever stream the reader is in."""
    graph, *hooks = noted
    twins = Twins(exchange, max_grad_norm=0.5)
    exchange.set_stream(0, graph.stream)
    twins.step(2)
    with graph.capture(*hooks):
        twins.there.step()
        twins.there.step()
    assert len(graph.replay_hooks) == 1
    assert twins.there.applied_steps == 2
    gpu.log.clear()
    assert twins.there.applied_steps == 2
    assert not gpu.calls("cuMemcpyDtoHAsync_v2")
    gpu.lazy = True
    for steps in (4, 6):
        graph.replay()
        exchange.set_stream(0, 0)  # which waits for nothing
        assert twins.there.applied_steps == steps
        exchange.set_stream(0, graph.stream)
    graph.reset()
    assert not graph.replay_hooks


def test_a_graph_keeps_what_it_needs(gpu: Gpu, exchange: Exchange, noted: Noted, allocator: Allocator) -> None:
    graph, *hooks = noted
    twins = Twins(exchange)
    exchange.set_stream(0, graph.stream)
    twins.step(2)
    with graph.capture(*hooks):
        twins.there.step()
    del twins.there
    gc.collect()
    assert allocator.streams
    gpu.lazy = True
    graph.replay()
    with twins.home.cpu():
        twins.here.step()
    graph.reset()
    gc.collect()
    assert not allocator.streams
    for mine, other in zip(twins.on_cpu, twins.on_gpu, strict=True):
        assert torch.equal(mine, other)


def test_a_capture_that_torch_did_not_tell_of(gpu: Gpu, exchange: Exchange, noted: Noted) -> None:
    """It began before the first optimizer was made, or an earlier torch has made it."""
    graph, *hooks = noted
    twins = Twins(exchange)
    exchange.set_stream(0, graph.stream)
    twins.step(2)
    with graph.capture(*hooks):
        twins.there.step()
    with gpu.capture(graph.stream) as other:
        twins.there.step()
    assert not graph.kept[1:]
    gpu.replay(other, graph.stream)
    assert twins.there.applied_steps == 3


def test_the_host_learns_of_a_skip_at_the_next_step(gpu: Gpu, exchange: Exchange) -> None:
    twins = Twins(exchange)
    twins.step()
    twins.step(grad_scale=2.0, found_inf=1.0)
    assert [group["applied_steps"] for group in twins.there.param_groups] == [2, 2]  # taken for applied
    gpu.log.clear()
    twins.step()
    assert len(gpu.calls("cuStreamSynchronize")) == 1
    twins.assert_same_groups()
    gpu.log.clear()
    twins.step()
    assert gpu.calls("cuStreamSynchronize") == []
    twins.assert_same()
