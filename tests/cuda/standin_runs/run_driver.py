"""The stand-in does what a driver would, to a client that finds it as clr_native does."""

from __future__ import annotations

import ctypes
import re
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

import standin
from ptx import MemoryFaultError
from standin.answers import ANSWERS
from standin.client import SAMPLE, Adding, Client, Sum, pinned_floats
from standin.driver import Driver
from standin.gpu import Gpu
from standin.objects import Module, memory_at
from standin.results import Attribute, Result
from toolkit import include_flags, nvcc

# The library


def test_dlopen_finds_the_stand_in(client: Client, driver: Driver) -> None:
    assert client.library._handle == driver.library._handle


def test_every_function_has_an_answer(driver: Driver) -> None:
    text = (Path(standin.__file__).parent / "libcuda.c").read_text()
    assert len(re.findall(r"^CUresult cu\w+\(", text, re.MULTILINE)) == len(ANSWERS)
    assert all(hasattr(driver.library, name) for name in ANSWERS)


def test_codes_are_those_of_the_toolkit(client: Client) -> None:
    folders = [flag.removeprefix("-I") for flag in include_flags()] or ["/usr/include"]
    header = next(file for folder in folders if (file := Path(folder) / "cuda.h").exists()).read_text()
    told = ctypes.c_char_p()
    for result in Result:
        client.do("cuGetErrorName", int(result), ctypes.byref(told))
        assert re.search(rf"\b{(told.value or b'').decode()}\s*=\s*{int(result)}\b", header), result
    for attribute in Attribute:
        assert re.search(rf"\bCU_DEVICE_ATTRIBUTE_{attribute.name}\s*=\s*{int(attribute)}\b", header), attribute
    client.do("cuGetErrorString", 2, ctypes.byref(told))
    assert told.value == b"out of memory"
    assert client.ask("cuGetErrorName", 12345, ctypes.byref(told)) is Result.INVALID_VALUE
    assert told.value is None


def test_before_init_and_after_the_end(client: Client, gpu: Gpu, driver: Driver) -> None:
    version = client.get("cuDriverGetVersion")
    assert version == gpu.version
    gpu.initialised = False
    assert client.ask("cuDeviceGetCount", None) is Result.NOT_INITIALIZED
    gpu.devices = 0
    assert client.ask("cuInit", 0) is Result.NO_DEVICE
    gpu.devices = 2
    client.do("cuInit", 0)
    assert client.get("cuDeviceGetCount") == 2
    assert client.get("cuDeviceGet", 1) == 1
    assert client.ask("cuDeviceGet", ctypes.byref(ctypes.c_int()), 2) is Result.INVALID_DEVICE
    assert client.get("cuDeviceGetAttribute", Attribute.COMPUTE_CAPABILITY_MAJOR, 1) == 8
    assert client.ask("cuDeviceGetAttribute", None, 12345, 1) is Result.INVALID_VALUE
    driver.close()
    assert client.ask("cuInit", 0) is Result.DEINITIALIZED
    driver.open()


# Kernels and copies


@pytest.mark.parametrize("lazy", [False, True])
def test_a_kernel_runs_and_all_calls_are_in_the_log(client: Client, adding: Adding, gpu: Gpu, lazy: bool) -> None:
    gpu.lazy = lazy
    gpu.log.clear()
    adding.upload()
    for factor in (2.0, 0.5):
        adding.add(factor)
    assert adding.result() == [2.5, 5.0]
    copy, first, *_ = gpu.log
    assert (copy.name, copy["to"], copy["source"], copy["size"]) == (
        "cuMemcpyHtoDAsync_v2",
        adding.source,
        adding.at_host,
        8,
    )
    assert (first.kernel, first["grid_x"], first["block_x"], first["stream"]) == ("add", 1, 64, adding.stream)
    assert [call.device for call in gpu.log] == [0] * 4
    assert [done.blocks for done in gpu.statistics] == [1, 1]


def test_launches_without_kernels(adding: Adding, gpu: Gpu) -> None:
    gpu.runs_kernels = False
    adding.upload()
    adding.add()
    assert adding.result() == [0.0, 0.0]
    assert [call.kernel for call in gpu.calls("cuLaunchKernel")] == ["add"]


def test_variables_of_a_module_stay_between_launches(client: Client, adding: Adding) -> None:
    count = client.function(adding.module, "count")
    for _ in range(3):
        extra = client.get("cuMemAlloc_v2", 4)  # memory that comes and goes
        assert client.launch(count, adding.stream, ctypes.c_uint64(adding.to), block=1) is Result.SUCCESS
        client.do("cuMemFree_v2", extra)
    assert np.array(adding.result(), np.float32).view(np.uint32)[0] == 3


def test_parameters_are_read_at_once(client: Client, adding: Adding, gpu: Gpu) -> None:
    gpu.lazy = True
    adding.upload()
    to, source, total = ctypes.c_uint64(adding.to), ctypes.c_uint64(adding.source), Sum(2, 4.0)
    assert client.launch(adding.function, adding.stream, to, source, total) is Result.SUCCESS
    to.value, total.factor = 0, 0.0
    assert adding.result() == [4.0, 8.0]


def test_the_ptx_of_a_fatbinary(client: Client, tmp_path: Path) -> None:
    to = tmp_path / "image"
    code = "-gencode=arch=compute_80,code=[sm_80,compute_80]"
    subprocess.run([nvcc(), "-fatbin", code, "--no-compress", str(SAMPLE), "-o", str(to)], check=True, timeout=60)
    module = client.load(to.read_bytes())
    assert client.gpu.find(Module, module).code.kernels.keys() == {"add", "count"}
    function = client.function(module)
    client.do("cuModuleUnload", module)
    assert client.launch(function, 0) is Result.INVALID_HANDLE


def test_images_and_names_that_are_none(client: Client, adding: Adding) -> None:
    out = ctypes.byref(ctypes.c_uint64())
    assert client.ask("cuModuleLoadData", out, ctypes.c_char_p(b"no code at all")) is Result.INVALID_IMAGE
    assert client.ask("cuModuleGetFunction", out, adding.module, ctypes.c_char_p(b"sub")) is Result.NOT_FOUND
    assert client.ask("cuModuleGetFunction", out, adding.function, ctypes.c_char_p(b"add")) is Result.INVALID_HANDLE
    assert client.launch(adding.function, adding.stream, block=0) is Result.INVALID_VALUE
    assert client.launch(adding.function, adding.stream, block=1025) is Result.INVALID_VALUE


def test_an_error_of_a_kernel_stays_with_the_context(client: Client, adding: Adding, gpu: Gpu) -> None:
    assert client.add(adding.function, adding.stream, adding.to, adding.source, 3, 1.0) is Result.ILLEGAL_ADDRESS
    assert client.ask("cuEventCreate", ctypes.byref(ctypes.c_uint64()), 0) is Result.ILLEGAL_ADDRESS
    with pytest.raises(MemoryFaultError, match=f"behind device memory of 8 bytes at {adding.to:#x}|{adding.source:#x}"):
        gpu.check()
    gpu.begin()


def test_nothing_runs_after_an_error(client: Client, adding: Adding, gpu: Gpu) -> None:
    gpu.lazy = True
    for size in (2, 3, 2):
        assert client.add(adding.function, adding.stream, adding.to, adding.source, size, 1.0) is Result.SUCCESS
    assert client.ask("cuStreamSynchronize", adding.stream) is Result.ILLEGAL_ADDRESS
    assert (len(gpu.statistics), len(gpu.faults)) == (1, 1)
    gpu.begin()


@pytest.mark.parametrize("captured", [False, True])
def test_a_kernel_on_freed_memory(client: Client, adding: Adding, gpu: Gpu, captured: bool) -> None:
    address, stream = client.get("cuMemAlloc_v2", 8), gpu.new_stream()
    with gpu.capture(stream) as graph:
        assert client.add(adding.function, stream, address, adding.source, 2, 1.0) is Result.SUCCESS
    gpu.replay(graph, stream)
    gpu.check()
    client.do("cuMemFree_v2", address)
    if captured:
        gpu.replay(graph, stream)
    else:
        assert client.add(adding.function, stream, address, adding.source, 2, 1.0) is Result.ILLEGAL_ADDRESS
    with pytest.raises(MemoryFaultError):
        gpu.check()
    gpu.begin()


def test_a_failure_on_demand(client: Client, gpu: Gpu) -> None:
    gpu.fail("cuMemAlloc_v2", Result.OUT_OF_MEMORY, call=2)
    address = client.get("cuMemAlloc_v2", 8)
    with pytest.raises(AssertionError, match="did not come"):
        gpu.check()
    before = gpu.held()
    assert client.ask("cuMemAlloc_v2", ctypes.byref(ctypes.c_uint64()), 8) is Result.OUT_OF_MEMORY
    assert gpu.held() == before
    client.do("cuMemFree_v2", address)


# Contexts


def test_no_current_context(gpu: Gpu) -> None:
    client = Client(gpu)
    out = ctypes.byref(ctypes.c_uint64())
    for name, answer in ANSWERS.items():
        if answer.in_context:
            assert client.ask(name, *[out] * len(answer.parameters)) is Result.INVALID_CONTEXT
    assert client.ask("cuCtxPopCurrent_v2", out) is Result.INVALID_CONTEXT
    context = client.enter()
    client.leave()
    assert client.ask("cuCtxPushCurrent_v2", context) is Result.INVALID_CONTEXT, "released"
    assert client.ask("cuDevicePrimaryCtxRelease_v2", 0) is Result.INVALID_CONTEXT


def test_contexts_are_of_a_thread(client: Client) -> None:
    found, out = list[Result](), ctypes.c_uint64()
    thread = threading.Thread(target=lambda: found.append(client.ask("cuMemAlloc_v2", ctypes.byref(out), 8)))
    thread.start()
    thread.join()
    assert found == [Result.INVALID_CONTEXT]


def test_what_belongs_to_another_context(client: Client, adding: Adding, gpu: Gpu) -> None:
    gpu.devices = 2
    event = client.get("cuEventCreate", 2)
    client.enter(1)
    assert gpu.log[-1].device == 0
    other = client.get("cuStreamCreate", 1)
    assert gpu.log[-1].device == 1
    assert client.add(adding.function, other, adding.to, adding.source, 2, 1.0) is Result.INVALID_HANDLE
    assert client.add(adding.function, adding.stream, adding.to, adding.source, 2, 1.0) is Result.INVALID_HANDLE
    assert client.ask("cuEventRecord", event, other) is Result.INVALID_HANDLE
    assert client.ask("cuMemsetD8Async", adding.to, 0, 8, other) is Result.ILLEGAL_ADDRESS, "memory of device 0"
    with pytest.raises(MemoryFaultError):
        gpu.check()
    gpu.begin()
    gpu.devices = 2
    client.do("cuStreamDestroy_v2", other)
    client.leave(1)
    client.do("cuEventDestroy_v2", event)


def test_leaks_have_names(client: Client, gpu: Gpu) -> None:
    before = gpu.held()
    client.enter()
    made = {
        "cuMemFree_v2": client.get("cuMemAlloc_v2", 16),
        "cuMemFreeHost": client.get("cuMemHostAlloc", 16, 1),
        "cuStreamDestroy_v2": client.get("cuStreamCreate", 0),
        "cuEventDestroy_v2": client.get("cuEventCreate", 0),
        "cuModuleUnload": client.load(),
    }
    gpu.new_stream()
    leaks = sorted(name.split()[0] for name in gpu.held() - before)
    assert leaks == ["context", "current", "device", "event", "module", "pinned", "stream"]
    for name, handle in made.items():
        client.do(name, handle)
        assert client.ask(name, handle) in (Result.INVALID_VALUE, Result.INVALID_HANDLE), f"{name} twice"
    client.leave()
    assert gpu.held() == before


# A device that is late


@pytest.mark.parametrize("wait", [False, True])
def test_pinned_memory_used_again_too_early(client: Client, adding: Adding, gpu: Gpu, wait: bool) -> None:
    gpu.lazy = True
    event = client.get("cuEventCreate", 2)
    adding.upload()
    client.do("cuEventRecord", event, adding.stream)
    adding.add()
    if wait:
        client.do("cuEventSynchronize", event)
        assert not gpu.statistics, "waits for what is before the event only"
    adding.host[:] = 9.0
    assert adding.result() == ([1.0, 2.0] if wait else [9.0, 9.0])
    client.do("cuEventDestroy_v2", event)


def test_pageable_memory_is_read_at_once(client: Client, adding: Adding, gpu: Gpu) -> None:
    gpu.lazy = True
    values = (ctypes.c_float * 2)(3.0, 4.0)
    client.do("cuMemcpyHtoDAsync_v2", adding.source, values, 8, adding.stream)
    values[:] = [0.0, 0.0]
    adding.add()
    assert adding.result() == [3.0, 4.0]


def test_a_copy_from_freed_memory(client: Client, adding: Adding, gpu: Gpu) -> None:
    gpu.lazy = True
    address, _ = pinned_floats(client, [5.0, 6.0])
    client.do("cuMemcpyHtoDAsync_v2", adding.source, address, 8, adding.stream)
    client.do("cuMemFreeHost", address)
    assert client.ask("cuStreamSynchronize", adding.stream) is Result.LAUNCH_FAILED
    with pytest.raises(ValueError, match="which was freed"):
        gpu.check()
    gpu.begin()


def test_freeing_device_memory_waits(client: Client, adding: Adding, gpu: Gpu) -> None:
    gpu.lazy = True
    address = client.get("cuMemAlloc_v2", 8)
    adding.upload()
    assert client.add(adding.function, adding.stream, address, adding.source, 2, 1.0) is Result.SUCCESS
    client.do("cuMemFree_v2", address)
    assert len(gpu.statistics) == 1


@pytest.mark.parametrize("late", [False, True])
def test_the_host_writes_where_it_must_not(client: Client, gpu: Gpu, late: bool) -> None:
    address, _ = pinned_floats(client, [1.0])
    wrong = memory_at(address if late else address + 4, 1)
    if not late:
        kept, wrong[0] = wrong[0], 0
    client.do("cuMemFreeHost", address)
    if late:
        kept, wrong[0] = wrong[0], 0
    with pytest.raises(AssertionError, match=f"pinned memory of 4 bytes at {address:#x}"):
        gpu.check()
    wrong[0] = kept
