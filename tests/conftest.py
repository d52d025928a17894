"""What every test gets: fixed random numbers, and torch's threads left as they were."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# A waiting thread sleeps (libgomp reads this once): spinning on a busy machine costs a time slice a step.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

# A shell's background job ignores Ctrl-C, and so would the processes that are tested for it.
signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from hardware import Hardware
    from processes import Outcomes
    from twins import Machine

# Tests marked cuda that ask for a `machine` and nothing else run with this plugin too, in a process of their own: where
# there is no GPU their logic is tested all the same.
STAND_IN = "standin.plugin"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Here, so that all of them are told of in one line."""
    if item.get_closest_marker("cuda") is None or item.config.pluginmanager.has_plugin(STAND_IN):
        return
    from hardware import why_no_gpu  # imports the package under test

    if why := why_no_gpu():
        pytest.skip(why)  # in words: no CUDA in torch, no GPU, or why clr-native cannot use it


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file comes first: of two processes, one takes that, and the other the rest of tests/cuda."""
    items.sort(key=lambda item: item.path.stem != "test_standin")


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """The GPU of a test marked cuda."""
    if request.config.pluginmanager.has_plugin(STAND_IN):
        yield request.getfixturevalue("stand_in")
        return
    from hardware import Hardware

    real = Hardware()
    yield real
    real.end()


@pytest.fixture
def hardware(request: pytest.FixtureRequest) -> Hardware:
    """The same, for what no stand-in can do."""
    if request.config.pluginmanager.has_plugin(STAND_IN):
        pytest.skip("asks torch for what the stand-in does not have")
    real: Hardware = request.getfixturevalue("machine")
    return real


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Of those cases of a module that this session asks for. They run in several processes."""
    from processes import Outcomes

    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = [item.callspec.params for item in items if item.module is request.module]
    return Outcomes(
        [(int(str(each["world"])), str(each["name"])) for each in asked], tmp_path_factory.mktemp("processes")
    )


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Of the CPU's random numbers: torch.manual_seed() asks every kind of device, and takes milliseconds."""
    torch.default_generator.manual_seed(0)


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """A test's thread count is its own."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a command runs, on a terminal of no special size."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
