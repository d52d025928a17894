"""The three times of a step on a GPU, as bench/cuda.py has them, and what a copy reaches."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from bench.harness.contenders import Contender
from bench.harness.rounds import Spread, Visit, visit

STEPS_AT_ONCE = 4  # between two events
COPIED_BYTES = 1 << 28
CYCLES_A_SECOND = 2.5e9  # of a device, more than any has: it is to be busy for longer than the host takes


def busy(seconds: float) -> None:
    torch.cuda._sleep(int(seconds * CYCLES_A_SECOND))  # type: ignore[no-untyped-call]  # torch gives it no types


def between_events(work: Callable[[], object], ahead: float) -> float:
    """Seconds that the device takes for work that is given to it while it is busy for ``ahead`` seconds.

    NaN where it was idle before all of the work was given.
    """
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # as above
    torch.cuda.synchronize()
    busy(ahead)
    begin.record()
    work()
    end.record()
    early = begin.query()  # type: ignore[no-untyped-call]  # as above
    torch.cuda.synchronize()
    return math.nan if early else begin.elapsed_time(end) / 1e3


def visits_of(contender: Contender, turn: Callable[[], None]) -> dict[str, Visit]:
    def idle() -> None:
        turn()
        torch.cuda.synchronize()

    def done() -> None:
        contender.step()
        torch.cuda.synchronize()

    host = visit(contender.step, idle)

    def steps() -> None:
        for _ in range(STEPS_AT_ONCE):
            contender.step()

    def device() -> float:
        idle()
        contender.step()  # what the device has to be told of these gradients
        return between_events(steps, 1e-3 + 2 * STEPS_AT_ONCE * host()) / STEPS_AT_ONCE

    return {"done": visit(done, idle), "host": host, "device": device}


def copy_bandwidth() -> float:
    """Bytes a second that the device copies within its memory, read and written ones: what can be had."""
    source, target = (torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda") for _ in range(2))
    times = [between_events(lambda: target.copy_(source), 1e-3) for _ in range(20)]
    return bandwidth(times[5:])


def bandwidth(times: list[float]) -> float:
    """Of the copies that were timed: NaN where none was."""
    timed = [each for each in times if not math.isnan(each)]
    return 2 * COPIED_BYTES / Spread.of(timed).median if timed else math.nan
