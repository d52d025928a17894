"""Advice on a run, compared with what a schedule does in it. Each kind of schedule gives its own advice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Check:
    """One piece of advice, compared with what a schedule does.

    ``ok`` is True if the two agree, False if they do not, and None if only the user can tell.
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

    schedule: Any  # of clr_native.schedules
    steps: int
    steps_per_epoch: int
    checks: tuple[Check, ...]
    segments: tuple[Summary, ...] = ()

    @property
    def ok(self) -> bool:
        """True if no check is False, the checks of segments included."""
        return all(check.ok is not False for check in self.checks) and all(each.ok for each in self.segments)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        kind = type(self.schedule).__name__ if self.segments else repr(self.schedule)
        yield f"{kind}: {length_in_words(self.steps, self.steps_per_epoch)}"
        for check in self.checks:
            yield f"  {check}"
        for i, segment in enumerate(self.segments):
            first, *others = segment._lines()
            yield f"  segment {i}: {first}"
            yield from (f"  {line}" for line in others)


def end_of_run(of: str, steps: int, end: int, per_epoch: int, afterwards: str) -> Check:
    """Checks that a run of ``steps`` stops at ``end``, the end of ``of``. ``afterwards`` says what follows that end."""
    found = f"the end of {of}"
    if steps < end:
        found = (
            f"{steps_in_words(end - steps)} before the end of {of}, which is after {length_in_words(end, per_epoch)}"
        )
    elif steps > end:
        found = f"{steps_in_words(steps - end)} after the end of {of}, in which {afterwards}"
    return Check("end of the run", f"the end of {of}", found, steps == end)


def length_in_words(steps: int, per_epoch: int) -> str:
    if steps == 0:
        return "not reached"
    epochs = number_in_words(steps / per_epoch)
    return f"{steps_in_words(steps)}, {epochs} epoch{'' if epochs == '1' else 's'}"


def steps_in_words(count: int) -> str:
    return f"{count:,} step{'' if count == 1 else 's'}"


def number_in_words(x: float) -> str:
    return f"{round(x, 2):,}".removesuffix(".0") if x < 1e6 else f"{x:g}"
