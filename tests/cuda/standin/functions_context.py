"""The driver: itself, devices, contexts."""

from __future__ import annotations

import ctypes

from standin.answers import answers
from standin.gpu import Gpu
from standin.objects import Context
from standin.results import RefusedError, Result, refuse


def put_int(at: int, value: int) -> None:
    """Into an `int*` or a pointer to an enumeration."""
    ctypes.c_int32.from_address(at).value = value


def put_handle(at: int, value: int) -> None:
    """Into a pointer to a handle, an address or a pointer."""
    ctypes.c_uint64.from_address(at).value = value


def signed(argument: int) -> int:
    return ctypes.c_int32(argument).value


@answers("cuInit", before_init=True)
def init(gpu: Gpu, flags: int) -> None:
    refuse(flags != 0, Result.INVALID_VALUE)
    refuse(gpu.devices == 0, Result.NO_DEVICE)
    gpu.initialised = True


@answers("cuDriverGetVersion", before_init=True)
def driver_get_version(gpu: Gpu, version: int) -> None:
    put_int(version, gpu.version)


def _put_text(gpu: Gpu, error: int, at: int, of: str) -> None:
    try:
        text = str(getattr(Result(error), of))
    except ValueError:
        put_handle(at, 0)
        raise RefusedError(Result.INVALID_VALUE) from None
    kept = gpu.texts.setdefault(text, ctypes.create_string_buffer(text.encode()))
    put_handle(at, ctypes.addressof(kept))


@answers("cuGetErrorName", before_init=True)
def get_error_name(gpu: Gpu, error: int, name: int) -> None:
    _put_text(gpu, error, name, "constant")


@answers("cuGetErrorString", before_init=True)
def get_error_string(gpu: Gpu, error: int, text: int) -> None:
    _put_text(gpu, error, text, "text")


@answers("cuDeviceGetCount")
def device_get_count(gpu: Gpu, count: int) -> None:
    put_int(count, gpu.devices)


@answers("cuDeviceGet")
def device_get(gpu: Gpu, device: int, ordinal: int) -> None:
    put_int(device, gpu.context(signed(ordinal)).device)


@answers("cuDeviceGetAttribute")
def device_get_attribute(gpu: Gpu, value: int, attribute: int, device: int) -> None:
    gpu.context(signed(device))
    refuse(attribute not in gpu.attributes, Result.INVALID_VALUE)
    put_int(value, gpu.attributes[attribute])


@answers("cuDevicePrimaryCtxRetain")
def device_primary_ctx_retain(gpu: Gpu, context: int, device: int) -> None:
    found = gpu.context(signed(device))
    found.retained += 1
    put_handle(context, found.handle)


@answers("cuDevicePrimaryCtxRelease_v2")
def device_primary_ctx_release(gpu: Gpu, device: int) -> None:
    found = gpu.context(signed(device))
    refuse(found.retained == 0, Result.INVALID_CONTEXT)
    found.retained -= 1


@answers("cuCtxPushCurrent_v2")
def ctx_push_current(gpu: Gpu, context: int) -> None:
    found = gpu.handles.get(context)
    if not isinstance(found, Context) or found.retained == 0:
        raise RefusedError(Result.INVALID_CONTEXT)
    gpu.stack.append(found)


@answers("cuCtxPopCurrent_v2")
def ctx_pop_current(gpu: Gpu, context: int) -> None:
    popped = gpu.current
    gpu.stack.pop()
    if context:
        put_handle(context, popped.handle)
