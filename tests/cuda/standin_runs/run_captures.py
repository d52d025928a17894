"""Captures on the stand-in: what becomes part of a graph, what is forbidden meanwhile, and in which mode."""

from __future__ import annotations

import ctypes
import threading

import pytest

from standin.answers import ANSWERS
from standin.client import Adding, Client
from standin.gpu import Gpu
from standin.results import Result


@pytest.mark.parametrize("lazy", [False, True])
def test_a_captured_launch_runs_when_it_is_replayed(client: Client, adding: Adding, gpu: Gpu, lazy: bool) -> None:
    gpu.lazy = lazy
    stream = gpu.new_stream()
    adding.upload()
    client.do("cuStreamSynchronize", adding.stream)
    status = ctypes.c_int(7)
    with gpu.capture(stream) as graph:
        assert client.add(adding.function, stream, adding.to, adding.source, 2, 2.0) is Result.SUCCESS
        client.do("cuStreamIsCapturing", stream, ctypes.byref(status))
    assert (status.value, graph.names) == (1, ["cuLaunchKernel"])
    client.do("cuStreamIsCapturing", stream, ctypes.byref(status))
    assert (status.value, adding.result()) == (0, [0.0, 0.0])
    for _ in range(3):
        gpu.replay(graph, stream)
    client.do("cuStreamSynchronize", stream)
    assert adding.result() == [6.0, 12.0]


FORBIDDEN = [name for name, answer in ANSWERS.items() if answer.may_wait]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_capture_forbids(client: Client, gpu: Gpu, name: str) -> None:
    stream, out = gpu.new_stream(), ctypes.byref(ctypes.c_uint64())
    status = ctypes.c_int()
    before = gpu.held()

    def spoil() -> None:
        with gpu.capture(stream):
            assert client.ask(name, *[out] * len(ANSWERS[name].parameters)) is Result.STREAM_CAPTURE_UNSUPPORTED
            client.do("cuStreamIsCapturing", stream, ctypes.byref(status))

    with pytest.raises(RuntimeError, match="the capture is invalid"):
        spoil()
    assert (status.value, gpu.held()) == (2, before)


@pytest.mark.parametrize("mode", ["global", "thread_local", "relaxed"])
def test_what_relaxed_mode_allows(client: Client, adding: Adding, gpu: Gpu, mode: str) -> None:
    stream, thread_mode = gpu.new_stream(), ctypes.c_int(2)
    with gpu.capture(stream, mode) as graph:
        client.do("cuThreadExchangeStreamCaptureMode", ctypes.byref(thread_mode))
        address = client.get("cuMemAlloc_v2", 8)
        adding.upload()
        client.do("cuStreamSynchronize", adding.stream)
        client.do("cuMemFree_v2", address)
        with pytest.raises(AssertionError, match="was not put back"):
            gpu.check()
        client.do("cuThreadExchangeStreamCaptureMode", ctypes.byref(thread_mode))
    assert (thread_mode.value, graph.names) == (2, [])


def test_a_relaxed_capture_forbids_little(client: Client, gpu: Gpu) -> None:
    with gpu.capture(gpu.new_stream(), "relaxed"):
        client.do("cuMemFree_v2", client.get("cuMemAlloc_v2", 8))


def test_what_is_never_allowed_in_a_capture(client: Client, gpu: Gpu) -> None:
    stream, event, mode = gpu.new_stream(), client.get("cuEventCreate", 0), ctypes.c_int(2)
    client.do("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))

    def spoil() -> None:
        with gpu.capture(stream):
            client.do("cuEventRecord", event, stream)
            assert client.ask("cuEventSynchronize", event) is Result.CAPTURED_EVENT
            assert client.ask("cuStreamSynchronize", stream) is Result.STREAM_CAPTURE_UNSUPPORTED
            assert client.ask("cuMemsetD8Async", 64, 0, 8, stream) is Result.STREAM_CAPTURE_INVALIDATED

    with pytest.raises(RuntimeError, match="the capture is invalid"):
        spoil()
    client.do("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
    client.do("cuEventDestroy_v2", event)


@pytest.mark.parametrize(("mode", "forbidden"), [("global", True), ("thread_local", False), ("relaxed", False)])
def test_a_capture_of_another_thread(client: Client, gpu: Gpu, mode: str, forbidden: bool) -> None:
    stream, entered, done = gpu.new_stream(), threading.Event(), threading.Event()
    spoilt: list[bool] = []

    def capture() -> None:
        try:
            with gpu.capture(stream, mode):
                entered.set()
                done.wait(10)
            spoilt.append(False)
        except RuntimeError:
            spoilt.append(True)

    thread = threading.Thread(target=capture)
    thread.start()
    entered.wait(10)
    out = ctypes.c_uint64()
    answer = client.ask("cuMemAlloc_v2", ctypes.byref(out), 8)
    done.set()
    thread.join()
    assert (answer is Result.STREAM_CAPTURE_UNSUPPORTED, spoilt) == (forbidden, [forbidden])
    if not forbidden:
        client.do("cuMemFree_v2", out.value)


def test_the_null_stream_beside_a_capture(client: Client, gpu: Gpu) -> None:
    address = client.get("cuMemAlloc_v2", 8)
    for blocking in (False, True):
        with gpu.capture(gpu.new_stream(blocking=blocking)):
            answer = client.ask("cuMemsetD8Async", address, 0, 8, 0)
        assert answer is (Result.STREAM_CAPTURE_IMPLICIT if blocking else Result.SUCCESS)
    client.do("cuMemFree_v2", address)
