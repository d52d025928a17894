"""Tensors on the CPU pass for tensors on CUDA devices, to clr_native and to kernels."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from ptx import MemoryFaultError
from standin.client import Client
from standin.exchange import Exchange
from standin.gpu import Gpu
from standin.results import Result

CPU, CUDA = 1, 2  # kDLCPU and kDLCUDA


class DLTensor(ctypes.Structure):
    """The beginning of one: the last of the fields are not looked at."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("rest", ctypes.c_uint64 * 8),
    )


class Api(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint32 * 2),
        ("previous", ctypes.c_void_p),
        ("managed", ctypes.c_void_p * 3),
        ("read", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(DLTensor))),
        ("stream", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p))),
    )


@pytest.fixture
def api() -> Api:
    """What a library finds that asks for torch's exchange API now."""
    capsule = torch.Tensor.__dlpack_c_exchange_api__
    return Api.from_address(ctypes.pythonapi.PyCapsule_GetPointer(capsule, b"dlpack_exchange_api"))


def read(api: Api, tensor: Tensor) -> tuple[int, int, int | None]:
    view = DLTensor()
    assert api.read(tensor, ctypes.byref(view)) == 0
    return view.device_type, view.device_id, view.data


def test_where_tensors_lie(api: Api, exchange: Exchange) -> None:
    first, second = torch.ones(4), torch.ones(4)
    exchange.place(second, 1)
    assert read(api, first) == (CUDA, 0, first.data_ptr())
    assert read(api, second[3:]) == (CUDA, 1, second.data_ptr() + 12)
    exchange.place(second, 2)
    exchange.set_default(-1)
    assert read(api, first)[:2] == (CPU, 0)
    assert read(api, second)[:2] == (CUDA, 2)
    exchange.begin()
    assert read(api, second)[:2] == (CUDA, 0)


def test_what_the_current_stream_is(api: Api, exchange: Exchange) -> None:
    exchange.set_stream(1, 0x1230)
    for device, stream in ((0, None), (1, 0x1230)):
        found = ctypes.c_void_p(77)
        assert api.stream(CUDA, device, ctypes.byref(found)) == 0
        assert found.value == stream


# A torch with CUDA looks for GPUs in a backward pass.
@pytest.mark.filterwarnings("ignore:CUDA initialization")
def test_results_lie_where_their_tensors_lie(exchange: Exchange) -> None:
    first, second = torch.ones(4), torch.ones(4, requires_grad=True)
    exchange.place(second, 1)
    made = [torch.empty_like(first), torch.empty_like(second), second.detach().clone(), first + 1]
    torch.autograd.backward((second * 2).sum())
    assert second.grad is not None
    assert [exchange.device(tensor) for tensor in (*made, second.grad)] == [0, 1, 1, 0, 1]


def test_kernels_may_touch_what_the_test_makes(exchange: Exchange) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    other = torch.from_numpy(np.ones(3, np.float32))
    exchange.follow(other)
    optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.5)
    torch.autograd.backward((parameter * 2).sum())
    optimizer.step()
    assert parameter.grad is not None
    mine = [
        parameter,
        parameter.grad,
        optimizer.state[parameter]["momentum_buffer"],
        torch.tensor([1.0, 2.0, 3.0]),
        other,
    ]
    assert {tensor.data_ptr(): 12 for tensor in mine}.items() <= exchange.storages(0).items()
    assert not exchange.storages(1)
    exchange.place(other, 1)
    assert exchange.storages(1) == {other.data_ptr(): 12}
    exchange.begin()
    assert not exchange.storages(0)


def test_clr_native_sees_the_device(exchange: Exchange) -> None:
    exchange.set_default(-1)
    parameter = torch.ones(3, requires_grad=True)
    parameter.grad = torch.ones(3)
    optimizer = FusedCyclicSGD([parameter], 0.1, 0.5)
    exchange.place(parameter, 1)  # its gradient stays on the CPU
    with pytest.raises((TypeError, ValueError), match=r"gradient: .* must be the parameter's"):
        optimizer.step()
    exchange.begin()
    exchange.set_default(-1)
    optimizer.step()
    assert torch.equal(parameter, torch.full((3,), 0.9))


@pytest.mark.parametrize("device", [0, 1])
def test_a_kernel_on_tensors(gpu: Gpu, exchange: Exchange, device: int) -> None:
    to, source = torch.zeros(5), torch.arange(6.0)
    exchange.place(source, device)
    client = Client(gpu)
    client.enter()
    module = client.load()
    answer = client.add(client.function(module), 0, to.data_ptr(), source.data_ptr() + 4, 5, 2.0)
    if device == 0:
        assert answer is Result.SUCCESS
        assert to.tolist() == [2.0, 4.0, 6.0, 8.0, 10.0]
    else:
        assert answer is Result.ILLEGAL_ADDRESS
        with pytest.raises(MemoryFaultError):
            gpu.check()
        gpu.begin()
    client.do("cuModuleUnload", module)
    client.leave()


def test_thousands_of_tensors_cost_little(gpu: Gpu, exchange: Exchange) -> None:
    tensors = [torch.zeros(5) for _ in range(6000)]
    memory = gpu.memory(0)
    assert memory is gpu.memory(0)
    for tensor in tensors[::999]:
        memory.write(tensor.data_ptr() + 16, torch.ones(1).numpy())
        assert tensor[4] == 1.0
    gone = tensors[0].data_ptr()
    exchange.begin()
    with pytest.raises(MemoryFaultError):
        gpu.memory(0).read(gone, "f4", 1)
