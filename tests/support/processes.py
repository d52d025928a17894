"""Runs cases, functions of some modules, in several gloo processes. All cases share the processes of a world."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import traceback
import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest
import torch
from torch import distributed

from helpers import python_process

Case = Callable[[], None]
LIMIT = datetime.timedelta(seconds=60)  # of a process that waits for another


CASES: dict[str, tuple[int, ...]] = {}  # by "module.function": the numbers of processes that it runs in


def case(worlds: int | tuple[int, ...]) -> Callable[[Case], Case]:
    """Marks a function that all of so many processes call, each time with other ones if several numbers are given."""

    def mark(function: Case) -> Case:
        CASES[f"{function.__module__}.{function.__name__}"] = (worlds,) if isinstance(worlds, int) else worlds
        return function

    return mark


def parametrized(*modules: str) -> pytest.MarkDecorator:
    """Parametrizes a test by the cases of these modules, as (world, name)."""
    for module in modules:
        importlib.import_module(module)
    pairs = sorted((world, name) for name, worlds in CASES.items() for world in worlds)
    ids = [f"{name.removeprefix('cases_')}-{world}" for world, name in pairs]
    return pytest.mark.parametrize(("world", "name"), pairs, ids=ids)


class Outcomes:
    """What became of cases, in each number of processes. The first one that is asked for runs all `wanted` ones."""

    def __init__(self, wanted: Collection[tuple[int, str]], folder: Path) -> None:
        self.wanted, self.folder = wanted, folder
        self.known: dict[int, list[dict[str, str]]] = {}

    def check(self, world: int, name: str) -> None:
        if world not in self.known:
            self.known[world] = self._run(world)
        failed = [f"process {rank}: {found.get(name, 'did not come to it')}" for rank, found in self._of(world, name)]
        assert not failed, "\n".join(failed)

    def _of(self, world: int, name: str) -> list[tuple[int, dict[str, str]]]:
        return [(rank, found) for rank, found in enumerate(self.known[world]) if found.get(name) != ""]

    def _run(self, world: int) -> list[dict[str, str]]:
        code = "import processes; processes.work({}, {}, {!r}, {!r})"
        names = [name for each, name in self.wanted if each == world]
        store = str(self.folder / f"store-{world}")
        processes = [
            python_process(
                code.format(rank, world, store, names),
                GLOO_SOCKET_IFNAME="lo",
                PYTHONWARNINGS="ignore",
                OMP_NUM_THREADS="1",
            )
            for rank in range(world)
        ]
        try:
            answers = [process.communicate(timeout=600) for process in processes]
        finally:
            for process in processes:
                process.kill()
        return [json.loads(out.splitlines()[-1]) if out else {"": err} for out, err in answers]


def work(rank: int, world: int, store: str, names: Sequence[str]) -> None:
    """What one process does: runs cases and prints, for each, its traceback or an empty text."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="torch")
    warnings.simplefilter("ignore", FutureWarning)
    distributed.init_process_group("gloo", init_method=Path(store).as_uri(), rank=rank, world_size=world, timeout=LIMIT)
    found = {}
    for name in names:
        module, function = name.split(".")
        torch.manual_seed(0)
        try:
            getattr(importlib.import_module(module), function)()
            found[name] = ""
        except BaseException:
            found[name] = traceback.format_exc()
        if not _meet():
            break
    print(json.dumps(found), flush=True)
    _meet()
    os._exit(0)  # gloo's threads sometimes end in std::terminate when a group is taken down while its peer leaves


def _meet() -> bool:
    """Waits for the others. False if they do not come."""
    try:
        distributed.barrier()
    except RuntimeError:
        return False
    return True
