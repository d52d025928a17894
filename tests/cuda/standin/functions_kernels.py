"""The driver: modules, and kernels run on the interpreter."""

from __future__ import annotations

import ctypes

import ptx
from standin.answers import answers
from standin.functions_context import put_handle
from standin.functions_streams import stream_of
from standin.gpu import Gpu
from standin.objects import Function, Module
from standin.results import Result, refuse


@answers("cuModuleLoadData", in_context=True, may_wait=True)
def module_load_data(gpu: Gpu, module: int, image: int) -> None:
    context, code = gpu.current, gpu.module_of(image)
    put_handle(module, gpu.handle(lambda handle: Module(handle, context, code)).handle)


@answers("cuModuleUnload", in_context=True, may_wait=True)
def module_unload(gpu: Gpu, module: int) -> None:
    unloaded = gpu.find(Module, module)
    refuse(unloaded.context is not gpu.current, Result.INVALID_HANDLE)
    gpu.wait_for_device(unloaded.context)
    for handle, thing in list(gpu.handles.items()):
        if thing is unloaded or (isinstance(thing, Function) and thing.module is unloaded):
            del gpu.handles[handle]


@answers("cuModuleGetFunction", in_context=True)
def module_get_function(gpu: Gpu, function: int, module: int, name: int) -> None:
    found = gpu.find(Module, module)
    kernel = found.code.kernels.get(ctypes.string_at(name).decode())
    refuse(kernel is None, Result.NOT_FOUND)
    assert kernel
    put_handle(function, gpu.handle(lambda handle: Function(handle, found, kernel)).handle)


@answers("cuLaunchKernel", in_context=True)
def launch_kernel(
    gpu: Gpu,
    function: int,
    grid_x: int,
    grid_y: int,
    grid_z: int,
    block_x: int,
    block_y: int,
    block_z: int,
    shared_bytes: int,
    stream: int,
    parameters: int,
    extra: int,
) -> None:
    """The parameters are read before this returns, as a driver does, and the kernel runs when its turn comes."""
    into, found = stream_of(gpu, stream), gpu.find(Function, function)
    kernel, grid, block = found.kernel, (grid_x, grid_y, grid_z), (block_x, block_y, block_z)
    gpu.log[-1].kernel = kernel.function.name
    refuse(found.module.context is not into.context, Result.INVALID_HANDLE)
    most = kernel.function.max_threads or 1024
    refuse(0 in grid or not 0 < block_x * block_y * block_z <= most or extra != 0, Result.INVALID_VALUE)
    places = (ctypes.c_uint64 * len(kernel.parameters)).from_address(parameters)
    arguments = [ctypes.string_at(at, told.size) for at, told in zip(places, kernel.parameters, strict=True)]

    def run() -> None:
        if not gpu.runs_kernels:
            return
        memory = gpu.memory(into.context.device)
        done = ptx.launch(kernel, grid, block, arguments, memory, seed=gpu.seed, shared_bytes=shared_bytes)
        gpu.statistics.append(done)

    gpu.enqueue("cuLaunchKernel", into, run)
