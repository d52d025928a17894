"""No step reads or writes memory that is not there: cases that crash where it does, each in its own process."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clr_native import CyclicSchedule, FusedCyclicSGD
from helpers import give, output_of, parameters, picture, python_process, raised


def made(scale_fn: Callable[[int], float] | None = None) -> tuple[FusedCyclicSGD, Tensor]:
    (weight,) = parameters([300_000])
    optimizer = FusedCyclicSGD([weight], 0.1, 0.5, step_size_up=3, scale_fn=scale_fn, scale_mode="iterations")
    weight.grad = torch.ones(300_000)
    return optimizer, weight


def not_a_tensor(what: object) -> Callable[[], str]:
    """In the list of parameters, where torch would raise AttributeError."""

    def case() -> str:
        optimizer, _ = made()
        optimizer.step()
        optimizer.param_groups[0]["params"].append(what)
        error = raised(optimizer.step)
        optimizer.param_groups[0]["params"].pop()
        optimizer.step()
        return f"{type(error).__name__}, then {optimizer.applied_steps}"

    return case


def scale_fn_that(acts: Callable[[FusedCyclicSGD, Tensor], object]) -> Callable[[], str]:
    """Called in the middle of a step, it changes what the step has looked at."""

    def case() -> str:
        def scale_fn(step: int) -> float:
            if step == 2:
                acts(optimizer, weight)
                gc.collect()
            return 1.0

        optimizer, weight = made(scale_fn)
        for _ in range(3):
            raised(optimizer.step)
        return "alive"

    return case


def moved(optimizer: FusedCyclicSGD, weight: Tensor) -> None:
    weight.grad = None
    weight.data = torch.zeros(5_000_000)


def freed(optimizer: FusedCyclicSGD, weight: Tensor) -> None:
    weight.untyped_storage().resize_(0)


def gradient_freed(optimizer: FusedCyclicSGD, weight: Tensor) -> None:
    assert weight.grad is not None
    weight.grad.untyped_storage().resize_(0)


def state_cleared(optimizer: FusedCyclicSGD, weight: Tensor) -> None:
    optimizer.state.clear()


def list_freed() -> str:
    """The list of parameters, taken out of its group."""
    optimizer, _ = made()
    for _ in range(3):
        optimizer.load_state_dict(optimizer.state_dict())  # puts params last
        optimizer.step()
        kept = optimizer.param_groups[0].pop("params")
        error = raised(optimizer.step)
        optimizer.param_groups[0]["params"] = kept[:]
        kept.clear()
        gc.collect()
    return f"{type(error).__name__}"


def list_replaced_while_a_position_is_read() -> str:
    def scale_fn(step: int) -> float:
        if step == 9:
            optimizer.param_groups[0]["params"] = weights[:1]
            kept.extend([None] * 3 for _ in range(100))
        return 1.0

    kept: list[object] = []
    weights = parameters([5, 5, 5])
    other = CyclicSchedule(0.1, 0.5, scale_fn=scale_fn, scale_mode="iterations")
    optimizer = FusedCyclicSGD([{"params": weights[:2]}], 0.1, 0.5)
    optimizer.add_param_group({"params": weights[2:], "schedule": other})
    for weight in weights:
        weight.grad = torch.ones(5)
    optimizer.step()
    optimizer.step()
    optimizer.param_groups[1]["applied_steps"] = 9
    optimizer.param_groups[1]["params"].append(parameters([2])[0])
    optimizer.step()
    return "alive"


def position_replaced_while_it_is_read() -> str:
    def scale_fn(step: int) -> float:
        if step == 10**8 + 1:
            optimizer.param_groups[0]["applied_steps"] = 1
            kept.extend(f"x{i}" for i in range(100))
        return 1.0

    kept: list[str] = []
    optimizer, _ = made(scale_fn)
    optimizer.step()
    optimizer.param_groups[0].update(applied_steps=int("100000001"), lr=0.0)
    optimizer.step()
    return repr(optimizer.applied_steps)


def tensor_setting_replaced_by_another_thread() -> str:
    """float(tensor) lets other threads run."""

    def replace() -> None:
        while not done.is_set():
            optimizer.param_groups[0]["weight_decay"] = torch.tensor(0.25)

    done = threading.Event()
    optimizer, _ = made()
    optimizer.param_groups[0]["params"][0] = weight = parameters([5])[0]
    weight.grad = torch.ones(5)
    thread = threading.Thread(target=replace)
    thread.start()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        optimizer.step()
    done.set()
    thread.join()
    return "alive"


def asked_after_a_refused_group() -> str:
    optimizer, _ = made()
    optimizer.step()
    optimizer.param_groups[0] = dict(optimizer.param_groups[0], weight_decay=-1.0)
    error = raised(optimizer.step)
    return f"{type(error).__name__}, {optimizer.at_cycle_end}"


def wrapped() -> str:
    """A tensor without memory of its own."""
    from torch.testing._internal.two_tensor import TwoTensor

    weight = torch.nn.Parameter(TwoTensor(torch.zeros(3), torch.zeros(3)))  # type: ignore[no-untyped-call]  # untyped in torch
    error = raised(lambda: FusedCyclicSGD([weight], 0.1, 0.5))
    return f"{type(error).__name__}, {'TwoTensor' in str(error)}"


def short_storage() -> str:
    """A gradient whose storage was cut below its shape."""
    optimizer, weight = made()
    assert weight.grad is not None
    weight.grad.untyped_storage().resize_(0)
    before = picture(optimizer)["weights"]
    error = raised(optimizer.step)
    return f"{type(error).__name__}, {picture(optimizer)['weights'] == before}"


CASES: dict[str, tuple[Callable[[], str], str]] = {
    "a string among the parameters": (not_a_tensor("weight"), "TypeError, then 2"),
    "None among the parameters": (not_a_tensor(None), "TypeError, then 2"),
    "an object among the parameters": (not_a_tensor(object()), "TypeError, then 2"),
    "scale_fn gives the weight other memory": (scale_fn_that(moved), "alive"),
    "scale_fn frees the weight": (scale_fn_that(freed), "alive"),
    "scale_fn frees the gradient": (scale_fn_that(gradient_freed), "alive"),
    "scale_fn clears the state": (scale_fn_that(state_cleared), "alive"),
    "scale_fn removes the groups": (scale_fn_that(lambda o, w: o.param_groups.clear()), "alive"),
    "scale_fn empties the group": (scale_fn_that(lambda o, w: o.param_groups[0].clear()), "alive"),
    "scale_fn removes the parameters": (scale_fn_that(lambda o, w: o.param_groups[0]["params"].clear()), "alive"),
    "scale_fn adds a group": (scale_fn_that(lambda o, w: o.add_param_group({"params": parameters([3])})), "alive"),
    "scale_fn seeks": (scale_fn_that(lambda o, w: o.seek(1)), "alive"),
    "scale_fn loads": (scale_fn_that(lambda o, w: o.load_state_dict(o.state_dict())), "alive"),
    "the list of parameters is freed": (list_freed, "ValueError"),
    "a list replaced while a position is read": (list_replaced_while_a_position_is_read, "alive"),
    "a position replaced while it is read": (position_replaced_while_it_is_read, "100000001"),
    "a tensor setting replaced by another thread": (tensor_setting_replaced_by_another_thread, "alive"),
    "at_cycle_end after a refused group": (asked_after_a_refused_group, "ValueError, False"),
    "a wrapper subclass": (wrapped, "TypeError, True"),
    "a gradient without storage": (short_storage, "TypeError, True"),
}


def report() -> None:
    """Each case in a process of its own, forked before torch has started any thread. No core files."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    optimizer = FusedCyclicSGD(parameters([1]), 0.1, 0.5)
    optimizer.load_state_dict(optimizer.state_dict())  # torch imports much of itself at the first call
    for name, (case, _) in CASES.items():
        child = os.fork()
        if child == 0:
            print(json.dumps([name, case()]), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps([name, f"ended with status {status}"]), flush=True)


@pytest.fixture(scope="module")
def happened() -> dict[str, str]:
    """Large blocks are given back to the system when freed, so that touching one is a crash."""
    process = python_process("import test_tensors_unsafe as t; t.report()", MALLOC_MMAP_THRESHOLD_="65536")
    return dict(json.loads(line) for line in output_of(process).splitlines())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a crash ends a child made by os.fork(), which Windows lacks")
@pytest.mark.parametrize("name", CASES)
def test_nothing_crashes(name: str, happened: dict[str, str]) -> None:
    assert happened[name] == CASES[name][1]


def test_no_garbage_is_collected_while_a_step_reads_tensors() -> None:
    """A finalizer may do anything, as move memory whose address has just been read."""
    over = parameters([3] * 40)
    optimizer = FusedCyclicSGD(over, 0.1, 0.5)
    give(over, [torch.ones(3)] * 40)
    errors: list[Exception | None] = []

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            errors.append(raised(optimizer.step))

    optimizer.step()
    threshold = gc.get_threshold()
    gc.collect()
    gc.disable()
    try:
        optimizer.zero_grad()
        torch.autograd.backward(torch.cat(over).sum())  # gradients that Python has yet to make objects of
        Garbage()
        gc.set_threshold(gc.get_count()[0] + 30)  # reached at about the thirtieth object
        gc.enable()
        optimizer.step()
    finally:
        gc.enable()
        gc.set_threshold(*threshold)
    gc.collect()
    assert errors == [None]
