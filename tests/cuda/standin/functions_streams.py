"""The driver: streams, captures, events."""

from __future__ import annotations

import ctypes

from standin.answers import answers
from standin.functions_context import put_handle, put_int
from standin.gpu import Gpu
from standin.objects import GLOBAL, RELAXED, Event, Stream
from standin.results import Result, refuse

_NULL = (0, 1)  # handles of the stream that every context has


def stream_of(gpu: Gpu, handle: int) -> Stream:
    """The stream of a handle, which must belong to the current context."""
    context = gpu.current
    if handle in _NULL:
        captures = (
            s.graph for s in list(gpu.handles.values()) if isinstance(s, Stream) and s.context is context and s.blocking
        )
        refuse(any(captures), Result.STREAM_CAPTURE_IMPLICIT)
        return gpu.null_stream(context)
    stream = gpu.find(Stream, handle)
    refuse(stream.context is not context, Result.INVALID_HANDLE)
    return stream


@answers("cuStreamCreate", in_context=True, may_wait=True)
def stream_create(gpu: Gpu, stream: int, flags: int) -> None:
    refuse(flags not in (0, 1), Result.INVALID_VALUE)
    put_handle(stream, gpu.make_stream(gpu.current, blocking=flags == 0, by_test=False).handle)


@answers("cuStreamDestroy_v2", in_context=True, may_wait=True)
def stream_destroy(gpu: Gpu, stream: int) -> None:
    """Its work is still done, some time."""
    refuse(gpu.find(Stream, stream).by_test, Result.INVALID_HANDLE)
    del gpu.handles[stream]


@answers("cuStreamSynchronize", in_context=True, may_wait=True)
def stream_synchronize(gpu: Gpu, stream: int) -> None:
    waited = stream_of(gpu, stream)
    if waited.graph:
        waited.graph.valid = False
        refuse(True, Result.STREAM_CAPTURE_UNSUPPORTED)
    gpu.wait(waited)


@answers("cuStreamWaitEvent", in_context=True)
def stream_wait_event(gpu: Gpu, stream: int, event: int, flags: int) -> None:
    into, found = stream_of(gpu, stream), gpu.find(Event, event)
    refuse(flags != 0, Result.INVALID_VALUE)
    if found.graph and found.graph.valid and into.graph in (None, found.graph) and gpu.is_captured(found.graph):
        into.graph = found.graph  # its work joins the graph, behind what stands there
        return
    refuse(found.captured or into.graph is not None, Result.STREAM_CAPTURE_ISOLATION)
    waited, behind = found.stream, found.behind
    if waited:
        gpu.enqueue("cuStreamWaitEvent", into, lambda: waited.run(behind))


@answers("cuStreamIsCapturing", in_context=True)
def stream_is_capturing(gpu: Gpu, stream: int, status: int) -> None:
    graph = stream_of(gpu, stream).graph
    put_int(status, 0 if graph is None else 1 if graph.valid else 2)


@answers("cuThreadExchangeStreamCaptureMode")
def thread_exchange_stream_capture_mode(gpu: Gpu, mode: int) -> None:
    thread = gpu.thread()
    new = ctypes.c_int32.from_address(mode).value
    refuse(not GLOBAL <= new <= RELAXED, Result.INVALID_VALUE)
    put_int(mode, gpu.modes.get(thread, GLOBAL))
    gpu.modes[thread] = new


@answers("cuEventCreate", in_context=True)
def event_create(gpu: Gpu, event: int, flags: int) -> None:
    refuse(flags & ~7 != 0, Result.INVALID_VALUE)
    context = gpu.current
    put_handle(event, gpu.handle(lambda handle: Event(handle, context)).handle)


@answers("cuEventDestroy_v2", in_context=True)
def event_destroy(gpu: Gpu, event: int) -> None:
    gpu.find(Event, event)
    del gpu.handles[event]


@answers("cuEventRecord", in_context=True)
def event_record(gpu: Gpu, event: int, stream: int) -> None:
    found, into = gpu.find(Event, event), stream_of(gpu, stream)
    refuse(found.context is not into.context, Result.INVALID_HANDLE)
    found.graph = into.graph
    found.stream, found.behind = into, into.issued


@answers("cuEventQuery", in_context=True, may_wait=True)
def event_query(gpu: Gpu, event: int) -> None:
    found = gpu.find(Event, event)
    refuse(found.captured, Result.CAPTURED_EVENT)
    refuse(found.stream is not None and found.stream.done < found.behind, Result.NOT_READY)


@answers("cuEventSynchronize", in_context=True, may_wait=True)
def event_synchronize(gpu: Gpu, event: int) -> None:
    found = gpu.find(Event, event)
    refuse(found.captured, Result.CAPTURED_EVENT)
    if found.stream:
        gpu.wait(found.stream, found.behind)
