"""What the host asks of the driver: launches, copies, streams, devices, errors, and that all is given back."""

from __future__ import annotations

import gc
import math
from typing import Any

import pytest
import torch

import clr_native
from clr_native import CyclicSchedule, FusedCyclicSGD
from helpers import give, parameters
from standin.exchange import Exchange
from standin.gpu import Gpu
from standin.results import Result
from twins import Twins, make, step

COPIES = ("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemsetD8Async")
WAITS = ("cuStreamSynchronize", "cuEventSynchronize")
ALLOCATIONS = ("cuMemAlloc_v2", "cuMemHostAlloc", "cuMemFreeHost", "cuEventCreate", "cuStreamCreate")


def calls_of_a_step(gpu: Gpu, optimizer: FusedCyclicSGD) -> list[str]:
    """In steady state, but for the context and the question for a capture."""
    gpu.log.clear()
    optimizer.step()
    names = [call.kernel or call.name for call in gpu.log]
    assert names.count("cuStreamIsCapturing") == 1
    left = [name for name in names if not name.startswith("cuCtx") and name != "cuStreamIsCapturing"]
    assert left[-1] == "cuEventRecord"  # behind the step, for those who read what it has counted
    return left[:-1]


@pytest.mark.parametrize(("tensors", "groups"), [(1, 1), (7, 3), (2000, 1), (1000, 1000)])
@pytest.mark.parametrize("clips", [False, True])
def test_one_launch_a_step(gpu: Gpu, exchange: Exchange, tensors: int, groups: int, clips: bool) -> None:
    gpu.runs_kernels = False
    over = [torch.zeros(1, requires_grad=True) for _ in range(tensors)]
    give(over, [torch.ones(1) for _ in over])
    share = -(-tensors // groups)
    each = [{"params": over[i * share : (i + 1) * share], "max_lr": 0.1 + i} for i in range(groups)]
    optimizer = FusedCyclicSGD(each, 0.01, 0.1, max_grad_norm=1.0 if clips else None)
    optimizer.step()
    optimizer.step()
    launches = ["clr_norm", "clr_step"] if clips else ["clr_step_float32"]
    assert calls_of_a_step(gpu, optimizer) == launches


def test_what_is_copied_when_gradients_move(gpu: Gpu, exchange: Exchange) -> None:
    twins = Twins(exchange)
    twins.step(2)
    assert calls_of_a_step(gpu, twins.there) == ["clr_step_float32"]
    kept = []
    for move in range(6):
        kept.append(twins.on_gpu[0].grad)
        twins.on_gpu[0].grad = torch.ones(5, 7)
        calls = calls_of_a_step(gpu, twins.there)
        assert calls[-1] == "clr_step_float32"
        assert [name for name in calls if name in COPIES] == ["cuMemcpyHtoDAsync_v2"]
        assert move < 4 or not [name for name in calls if name in ALLOCATIONS]  # four places for copies, made once
    assert calls_of_a_step(gpu, twins.there) == ["clr_step_float32"]


def test_a_value_set_by_hand_costs_one_small_copy(gpu: Gpu, exchange: Exchange) -> None:
    twins = Twins(exchange)
    twins.step(2)
    twins.there.param_groups[1]["lr"] = 0.5
    calls = calls_of_a_step(gpu, twins.there)
    assert calls[-1] == "clr_step_float32"
    copies = gpu.calls(*COPIES)
    assert sum(call["size"] for call in copies) < 512
    assert calls_of_a_step(gpu, twins.there) == ["clr_step_float32"]


def test_what_is_known_is_not_read_again(gpu: Gpu, exchange: Exchange) -> None:
    twins = Twins(exchange)
    twins.step()
    for reads in (True, False):
        gpu.log.clear()
        assert twins.there.applied_steps == 1
        assert twins.there.get_last_lr() == twins.here.get_last_lr()
        assert bool(gpu.calls("cuMemcpyDtoHAsync_v2")) == reads


def test_launches_go_to_the_current_stream(gpu: Gpu, exchange: Exchange) -> None:
    twins = Twins(exchange)
    for stream in (gpu.new_stream(), 0, gpu.new_stream()):
        exchange.set_stream(0, stream)
        gpu.log.clear()
        twins.step()
        assert {call["stream"] for call in gpu.calls("cuLaunchKernel", "cuMemcpyHtoDAsync_v2")} == {stream}
    twins.assert_same()


@pytest.mark.parametrize("clips", [False, True])
def test_a_graph_holds_launches_and_nothing_else(gpu: Gpu, exchange: Exchange, clips: bool) -> None:
    twins, stream = Twins(exchange, max_grad_norm=0.25 if clips else None), gpu.new_stream()
    exchange.set_stream(0, stream)
    twins.step(2)
    with gpu.capture(stream) as graph:
        twins.there.step()
    assert graph.names == ["cuLaunchKernel"] * (2 if clips else 1)


def test_everything_is_given_back(gpu: Gpu, exchange: Exchange) -> None:
    Twins(exchange).step()  # contexts and modules stay for the process
    gc.collect()
    before = gpu.held()
    twins, stream = Twins(exchange, ema_decay=0.5), gpu.new_stream()
    exchange.set_stream(0, stream)
    twins.step(2)
    with gpu.capture(stream):
        twins.there.step()
    twins.there.seek(5)
    twins.step()
    assert gpu.held() > before
    del twins
    gc.collect()
    assert gpu.held() == before


FAILING = {
    "CUDA out of memory": ("cuMemAlloc_v2", Result.OUT_OF_MEMORY),  # torch.OutOfMemoryError
    "cuMemHostAlloc": ("cuMemHostAlloc", Result.OUT_OF_MEMORY),
    "cuMemcpyHtoDAsync": ("cuMemcpyHtoDAsync_v2", Result.INVALID_VALUE),
    "cuMemsetD8Async": ("cuMemsetD8Async", Result.INVALID_VALUE),
    "cuEventCreate": ("cuEventCreate", Result.OUT_OF_MEMORY),
    "cuEventRecord": ("cuEventRecord", Result.INVALID_HANDLE),
    "cuLaunchKernel": ("cuLaunchKernel", Result.INVALID_VALUE),
    "cuStreamIsCapturing": ("cuStreamIsCapturing", Result.INVALID_HANDLE),
}


@pytest.mark.parametrize(("function", "fails"), FAILING.items(), ids=FAILING)
def test_errors_of_the_driver(gpu: Gpu, exchange: Exchange, function: str, fails: tuple[str, Result]) -> None:
    twins = Twins(exchange)
    before = gpu.held()
    gpu.fail(*fails)
    twins.give()
    words = f": {fails[1].constant}: {fails[1].text}" if function.startswith("cu") else ""
    with pytest.raises(RuntimeError, match=f"^{function}{words}"):
        twins.there.step()
    assert not any(twins.there.state.values())
    assert [group["applied_steps"] for group in twins.there.param_groups] == [0, 0]
    twins.both(FusedCyclicSGD.step)  # as if nothing had happened
    twins.assert_same()
    del twins
    gc.collect()
    assert {thing for thing in gpu.held() - before if "context" not in thing and "module" not in thing} == set()


def moves_all(twins: Twins) -> None:
    """Everything that can be copied to the device is another than before."""
    for optimizer in (twins.here, twins.there):
        optimizer.param_groups[0].update(applied_steps=9, weight_decay=0.5)
        optimizer.param_groups[1].update(lr=0.5)
    for parameter in twins.on_gpu:
        parameter.grad = None


@pytest.mark.parametrize("copy", range(1, 6))
def test_an_error_in_the_middle(gpu: Gpu, exchange: Exchange, copy: int) -> None:
    """What was copied before it and what was not is known afterwards."""
    twins = Twins(exchange)
    twins.step(2)
    moves_all(twins)
    twins.give()
    gpu.fail("cuMemcpyHtoDAsync_v2" if copy < 4 else "cuLaunchKernel", Result.INVALID_VALUE, copy if copy < 4 else 1)
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        twins.there.step()
    if copy == 5:
        twins.both(lambda optimizer: optimizer.param_groups[1].update(lr=0.25))
    twins.both(FusedCyclicSGD.step)
    twins.step()
    twins.assert_same()


def test_the_counts_after_an_error_in_the_middle(gpu: Gpu, exchange: Exchange) -> None:
    """Of steps before it, of which the host has not asked yet."""
    twins = Twins(exchange)
    twins.step(2)
    twins.both(lambda optimizer: optimizer.param_groups[1].update(weight_decay=0.5))
    twins.give()
    gpu.fail("cuMemcpyHtoDAsync_v2", Result.INVALID_VALUE)
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        twins.there.step()
    twins.assert_same()
    twins.both(FusedCyclicSGD.step)
    twins.assert_same()


def test_what_a_failed_first_step_left(gpu: Gpu, exchange: Exchange) -> None:
    twins = Twins(exchange)
    twins.give()
    gpu.fail("cuMemcpyHtoDAsync_v2", Result.INVALID_VALUE)
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        twins.there.step()
    assert not twins.there.last_step_skipped
    assert (twins.there.last_grad_norm, twins.there.applied_steps) == (None, 0)


def test_an_order_that_a_replay_carried_out(gpu: Gpu, exchange: Exchange) -> None:
    """The step that brought it to the device was refused: the next value by hand is another order all the same."""
    twins, stream = Twins(exchange, max_grad_norm=1.0), gpu.new_stream()
    exchange.set_stream(0, stream)
    twins.step(2)
    with gpu.capture(stream) as graph:
        twins.there.step()
    twins.give()
    twins.there.error_if_nonfinite = True
    twins.there.param_groups[0]["lr"] = 0.5
    assert twins.on_gpu[0].grad is not None
    kept = twins.on_gpu[0].grad[0, 0].item()
    twins.on_gpu[0].grad[0, 0] = math.nan
    with pytest.raises(RuntimeError, match="norm of all gradients"):
        twins.there.step()
    twins.on_gpu[0].grad[0, 0] = kept
    gpu.replay(graph, stream)
    twins.here.param_groups[0]["lr"] = 0.5
    with twins.home.cpu():
        twins.here.step()
    twins.there.error_if_nonfinite = False
    twins.both(lambda optimizer: optimizer.param_groups[0].update(lr=0.25))
    twins.step(2)
    twins.assert_same()


def test_errors_of_reading(gpu: Gpu, exchange: Exchange) -> None:
    twins = Twins(exchange)
    twins.step()
    for function in ("cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"):
        gpu.fail(function, Result.INVALID_VALUE)
        with pytest.raises(RuntimeError, match=function.removesuffix("_v2")):
            twins.there.state_dict()
    twins.step()
    twins.assert_same()


def test_garbage_during_a_capture_does_not_spoil_it(gpu: Gpu, exchange: Exchange) -> None:
    other, twins, stream = Twins(exchange), Twins(exchange), gpu.new_stream()
    other.step(2)
    exchange.set_stream(0, stream)
    twins.step(2)
    with gpu.capture(stream):
        del other
        gc.collect()
        twins.there.step()
    twins.step()
    twins.assert_same()


def test_build_info_with_a_driver(gpu: Gpu) -> None:
    assert clr_native.build_info()["cuda"] == {"compiled": True, "available": True, "reason": ""}
    gpu.devices = 0
    cuda = clr_native.build_info()["cuda"]
    assert not cuda["available"]
    assert "no device" in cuda["reason"]


def on_devices(exchange: Exchange, **settings: Any) -> FusedCyclicSGD:
    """One parameter on each of two devices."""
    over = parameters([5, 3])
    for device, parameter in enumerate(over):
        parameter.grad = torch.ones_like(parameter)
        exchange.place(parameter, device)
        exchange.place(parameter.grad, device)
    return FusedCyclicSGD(over, 0.01, 0.1, step_size_up=3, **settings)


def test_two_devices(gpu: Gpu, exchange: Exchange) -> None:
    gpu.devices = 2
    streams = [gpu.new_stream(device) for device in range(2)]
    for device, stream in enumerate(streams):
        exchange.set_stream(device, stream)
    optimizer = on_devices(exchange)
    optimizer.step()
    optimizer.step()
    gpu.log.clear()
    optimizer.step()
    launches = gpu.calls("cuLaunchKernel")
    assert [(call["stream"], call.device) for call in launches] == [(streams[0], 0), (streams[1], 1)]
    exchange.set_default(-1)
    exchange._c.exchange_forget_places()
    beside = FusedCyclicSGD(parameters([5, 3]), 0.01, 0.1, step_size_up=3)
    for _ in range(3):
        for parameter in beside.param_groups[0]["params"]:
            parameter.grad = torch.ones_like(parameter)
        beside.step()
    for mine, other in zip(beside.param_groups[0]["params"], optimizer.param_groups[0]["params"], strict=True):
        assert torch.equal(mine, other)
    assert optimizer.applied_steps == 3


REFUSED_OVER_DEVICES: dict[str, dict[str, Any]] = {
    "max_grad_norm": {"max_grad_norm": 1.0},
    "skip_nonfinite": {"skip_nonfinite": True},
    "a GradScaler": {},
}


@pytest.mark.parametrize(("words", "settings"), REFUSED_OVER_DEVICES.items(), ids=REFUSED_OVER_DEVICES)
def test_what_two_devices_cannot_do(gpu: Gpu, exchange: Exchange, words: str, settings: dict[str, Any]) -> None:
    gpu.devices = 2
    optimizer = on_devices(exchange, **settings)
    amp = {"grad_scale": torch.ones(())} if words == "a GradScaler" else {}
    with pytest.raises(RuntimeError, match=f"^{words} needs all gradients on one device"):
        step(optimizer, **amp)
    assert not any(optimizer.state.values())


@pytest.mark.parametrize("released", [1, 4])
def test_a_launch_for_each_release(gpu: Gpu, exchange: Exchange, released: int) -> None:
    twins = Twins(exchange)
    twins.step(2)
    twins.there.release_gradients()
    for parameter in twins.on_gpu:
        parameter.grad = None
    for _ in range(2):
        for parameter in twins.on_gpu[:released]:
            torch.autograd.backward(parameter, torch.ones_like(parameter))
        twins.there.step()
    gpu.log.clear()
    for parameter in twins.on_gpu[:released]:
        torch.autograd.backward(parameter, torch.ones_like(parameter))
    twins.there.step()
    launches = [call.kernel for call in gpu.calls("cuLaunchKernel")]
    assert launches[:-1] == ["clr_release"] * released
    assert launches[-1].startswith("clr_step")
    assert not gpu.calls(*COPIES, *WAITS)


def test_releases_on_two_streams_of_a_capture(gpu: Gpu, exchange: Exchange) -> None:
    twins, stream, side = Twins(exchange), gpu.new_stream(), gpu.new_stream()
    exchange.set_stream(0, stream)
    twins.step(2)
    twins.give()
    kept = [parameter.grad for parameter in twins.on_gpu]
    twins.there.release_gradients()
    with gpu.capture(stream) as graph:
        gpu.fork(stream, side)
        for i, (parameter, gradient) in enumerate(zip(twins.on_gpu, kept, strict=True)):
            exchange.set_stream(0, side if i % 2 else stream)
            parameter.grad = None
            torch.autograd.backward(parameter, gradient)
        exchange.set_stream(0, stream)
        gpu.log.clear()
        twins.there.step()
    assert gpu.calls("cuStreamWaitEvent")  # the last release was on the other stream, which so joins
    assert graph.names == ["cuLaunchKernel"] * 5
    for _ in range(3):
        gpu.replay(graph, stream)
        with twins.home.cpu():
            twins.here.step()
    twins.assert_same()


def test_a_rate_on_another_device(gpu: Gpu, exchange: Exchange) -> None:
    gpu.devices = 2
    twins, rate = Twins(exchange), torch.tensor(0.5)
    exchange.place(rate, 1)
    twins.there.param_groups[1]["lr"] = rate
    twins.give()
    with pytest.raises(ValueError, match=r"^lr on cuda:1 must lie on the device of the group's parameters, cuda:0"):
        twins.there.step()
    assert not any(twins.there.state.values())


def test_a_rate_on_the_device_costs_nothing(gpu: Gpu, exchange: Exchange) -> None:
    twins = Twins(exchange)
    twins.there.param_groups[1]["lr"] = rate = torch.tensor(0.5)
    twins.step(2)
    for lr in (0.25, 0.125):
        rate.fill_(lr)
        assert calls_of_a_step(gpu, twins.there) == ["clr_step"]


def test_cpu_and_gpu_do_not_mix(gpu: Gpu, exchange: Exchange) -> None:
    over = parameters([3, 4])
    give(over, [torch.ones(3), torch.ones(4)])
    exchange.set_default(-1)
    for tensor in (over[1], over[1].grad):
        assert tensor is not None
        exchange.place(tensor, 0)
    with pytest.raises(RuntimeError, match="on cpu and on cuda"):
        FusedCyclicSGD(over, 0.01, 0.1).step()


def test_a_schedule_of_many_pieces(gpu: Gpu, exchange: Exchange) -> None:
    """Each schedule lies on the device once, and a group that gets another one finds it there."""
    twins = Twins(exchange)
    twins.step(2)
    other = clr_native.OneCycleSchedule(0.5, 12)
    twins.both(lambda optimizer: optimizer.param_groups[0].update(schedule=other))
    twins.step(3)
    twins.assert_same()
    sequence = clr_native.ScheduleSequence([(other, 6), (CyclicSchedule(0.2, 0.4, step_size_up=2), None)])
    twins.both(lambda optimizer: optimizer.param_groups[1].update(schedule=sequence))
    twins.step(4)
    twins.assert_same()


def test_gapped_parameters(gpu: Gpu, exchange: Exchange) -> None:
    results = []
    for device in (-1, 0):
        exchange.set_default(device)
        whole = torch.arange(24.0).reshape(4, 6)
        weight = whole[:, ::2].requires_grad_()
        optimizer = make([weight, torch.ones(3, requires_grad=True)])
        for _ in range(3):
            for parameter in optimizer.param_groups[0]["params"]:
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        results.append(whole.clone())
    assert torch.equal(*results)
