"""A plugin of pytest, for processes that build.run_tests() starts: the stand-in is there before all that uses it."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Iterator

import pytest

from standin.allocator import Allocator
from standin.build import built_folder
from standin.client import Adding, Client
from standin.driver import Driver
from standin.exchange import Exchange
from standin.gpu import Gpu
from standin.machine import StandIn

assert "clr_native" not in sys.modules, "clr_native was imported before the stand-in"
_GPU = Gpu()
_DRIVER = Driver(_GPU, built_folder() / "libcuda.so.1")
_EXCHANGE = Exchange(built_folder() / "exchange.so")
_ALLOCATOR = Allocator(_GPU, _DRIVER)
_GPU.tensors = _EXCHANGE.storages
atexit.register(_DRIVER.close)  # what is destroyed later finds no driver any more


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    """The devices of this process, with the settings of the beginning. What went wrong unseen fails the test."""
    _GPU.begin()
    _EXCHANGE.begin()
    yield _GPU
    _GPU.finish()
    _GPU.check()


@pytest.fixture
def driver(gpu: Gpu) -> Driver:
    return _DRIVER


@pytest.fixture
def exchange(gpu: Gpu) -> Iterator[Exchange]:
    """Kernels may touch every tensor that the test makes, or has made for it."""
    with _EXCHANGE.following():
        yield _EXCHANGE


@pytest.fixture
def allocator(gpu: Gpu) -> Allocator:
    return _ALLOCATOR


@pytest.fixture
def stand_in(gpu: Gpu, exchange: Exchange) -> StandIn:
    """For the fixture `machine` of tests that run on real hardware too."""
    return StandIn(gpu, exchange)


@pytest.fixture
def client(gpu: Gpu) -> Iterator[Client]:
    """With a current context on device 0. Nothing that it makes is left behind."""
    client, before = Client(gpu), gpu.held()
    client.enter()
    yield client
    client.leave()
    assert gpu.held() == before


@pytest.fixture
def adding(client: Client) -> Iterator[Adding]:
    adding = Adding(client)
    yield adding
    adding.end()
