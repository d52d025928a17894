"""What the paper advises on a run, and what a schedule does in it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from clr_native.checks import size
from clr_native.schedules.base import Schedule
from clr_native.schedules.cyclic import CyclicSchedule
from clr_native.schedules.one_cycle import OneCycleSchedule
from clr_native.schedules.ramp import RampSchedule
from clr_native.schedules.sequence import ScheduleSequence


@dataclasses.dataclass(frozen=True)
class Check:
    """One piece of advice beside what a schedule does.

    ``ok`` is True where the two agree, False where they do not, and None where only the user can tell.
    """

    name: str
    advised: str
    found: str
    ok: bool | None

    def __str__(self) -> str:
        mark = {True: "ok", False: "no", None: " ?"}[self.ok]
        return f"{mark}  {self.name}: {self.found} (advised: {self.advised})"


@dataclasses.dataclass(frozen=True)
class Summary:
    """A schedule in a run of ``steps`` steps, ``steps_per_epoch`` to an epoch; ``str()`` says it in words.

    ``segments`` are the summaries of a sequence's segments, each for the steps that it has in the run.
    """

    schedule: Schedule
    steps: int
    steps_per_epoch: int
    checks: tuple[Check, ...]
    segments: tuple[Summary, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no check, of the segments' either, is False."""
        return all(check.ok is not False for check in self.checks) and all(each.ok for each in self.segments)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        kind = type(self.schedule).__name__ if self.segments else repr(self.schedule)
        yield f"{kind}: {_length(self.steps, self.steps_per_epoch)}"
        for check in self.checks:
            yield f"  {check}"
        for i, segment in enumerate(self.segments):
            first, *others = segment._lines()
            yield f"  segment {i}: {first}"
            yield from (f"  {line}" for line in others)


def summarize(schedule: Schedule, steps_per_epoch: int, epochs: int) -> Summary:
    """As ``schedule.summary(steps_per_epoch, epochs)``."""
    per_epoch = size("steps_per_epoch", steps_per_epoch)
    return _summary(schedule, per_epoch * size("epochs", epochs, of="epochs"), per_epoch)


def _summary(schedule: Schedule, steps: int, per_epoch: int) -> Summary:
    segments: tuple[Summary, ...] = ()
    if isinstance(schedule, CyclicSchedule):
        checks = _cyclic(schedule, steps, per_epoch)
    elif isinstance(schedule, OneCycleSchedule):
        checks = _one_cycle(schedule, steps, per_epoch)
    elif isinstance(schedule, RampSchedule):
        checks = _ramp(schedule, steps, per_epoch)
    elif isinstance(schedule, ScheduleSequence):
        checks = _sequence(schedule, steps, per_epoch)
        segments = tuple(_segments(schedule, steps, per_epoch))
    else:
        raise TypeError(f"schedule={schedule!r} must be a schedule of clr_native")
    return Summary(schedule, steps, per_epoch, tuple(checks) if steps else (), segments)


def _cyclic(schedule: CyclicSchedule, steps: int, per_epoch: int) -> Iterator[Check]:
    up, down, cycle = schedule.step_size_up, schedule.cycle_length - schedule.step_size_up, schedule.cycle_length
    for name, half in [("half-cycle", up)] if up == down else [("rising half", up), ("falling half", down)]:
        yield Check(name, "2 to 10 epochs", _length(half, per_epoch), 2 * per_epoch <= half <= 10 * per_epoch)
    yield Check("cycles", "at least 3, 4 are better", _number(steps / cycle), steps >= 3 * cycle)
    complete, rest = divmod(steps, cycle)
    found = f"the end of cycle {complete}"
    if rest:
        first, last = (_number(end / per_epoch) for end in (steps - rest, steps - rest + cycle))
        found = f"{_steps(rest)} into cycle {complete + 1}, which lasts from epoch {first} to {last}"
    yield Check("end of the run", "the end of a cycle", found, rest == 0)
    yield _base(schedule)


def _base(schedule: CyclicSchedule) -> Check:
    advised = "max_lr / 3 to max_lr / 4, or what a range test shows"
    if schedule.base_lr == schedule.max_lr:
        return Check("base_lr", advised, "max_lr: the rate does not cycle", False)
    if schedule.base_lr == 0.0:
        return Check("base_lr", advised, "0", None)
    ratio = schedule.max_lr / schedule.base_lr
    # Rates are rounded decimals: 0.3 / 0.1 is just below 3.
    return Check("base_lr", advised, f"max_lr / {_number(ratio)}", True if 3 - 1e-9 <= ratio <= 4 + 1e-9 else None)


def _one_cycle(schedule: OneCycleSchedule, steps: int, per_epoch: int) -> Iterator[Check]:
    total = schedule.total_steps
    yield _end("the schedule", steps, total, per_epoch, f"the rate stays at {schedule.final_lr:g}")
    fall = schedule.initial_lr / schedule.final_lr if schedule.final_lr else math.inf
    found = f"{schedule.final_lr:g}, that is initial_lr / {_number(fall)}"
    yield Check("final_lr", "orders of magnitude below initial_lr", found, fall >= 100)
    momentum = "it stays" if not schedule.cycle_momentum else f"{schedule.max_momentum:g} to {schedule.base_momentum:g}"
    yield Check("momentum", "down while the rate goes up, 0.95 to 0.85", momentum, schedule.cycle_momentum)


def _ramp(schedule: RampSchedule, steps: int, per_epoch: int) -> Iterator[Check]:
    reached = schedule.num_steps + (steps > schedule.num_steps)  # with the update that has end_lr, or just before it
    yield _end("the ramp", steps, reached, per_epoch, f"the rate stays at {schedule.end_lr:g}")
    rising = schedule.start_lr < schedule.end_lr
    found = f"{schedule.ramp}, {'rising' if rising else 'not rising'}"
    yield Check("range test", "linear, rising", found, True if rising and schedule.ramp == "linear" else None)


def _sequence(schedule: ScheduleSequence, steps: int, per_epoch: int) -> Iterator[Check]:
    counts = [n_steps for _, n_steps in schedule.segments if n_steps is not None]
    if len(counts) == len(schedule.segments):
        yield _end("the sequence", steps, sum(counts), per_epoch, "the last value is held")
    elif steps <= sum(counts):
        missing = f"{_steps(sum(counts) - steps)} before the last segment begins"
        yield Check("end of the run", "in the last segment", missing, False)


def _segments(schedule: ScheduleSequence, steps: int, per_epoch: int) -> Iterator[Summary]:
    for segment, n_steps in schedule.segments:
        own = steps if n_steps is None else min(n_steps, steps)
        yield _summary(segment, own, per_epoch)
        steps -= own


def _end(of: str, steps: int, end: int, per_epoch: int, afterwards: str) -> Check:
    found = f"the end of {of}"
    if steps < end:
        found = f"{_steps(end - steps)} before the end of {of}, which is after {_length(end, per_epoch)}"
    elif steps > end:
        found = f"{_steps(steps - end)} after the end of {of}, in which {afterwards}"
    return Check("end of the run", f"the end of {of}", found, steps == end)


def _length(steps: int, per_epoch: int) -> str:
    if steps == 0:
        return "not reached"
    epochs = _number(steps / per_epoch)
    return f"{_steps(steps)}, {epochs} epoch{'' if epochs == '1' else 's'}"


def _steps(count: int) -> str:
    return f"{count:,} step{'' if count == 1 else 's'}"


def _number(x: float) -> str:
    return f"{round(x, 2):,}".removesuffix(".0") if x < 1e6 else f"{x:g}"
