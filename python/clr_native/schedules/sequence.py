"""Schedules one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from clr_native.checks import size
from clr_native.schedules.advice import Check, Summary, end_of_run, steps_in_words
from clr_native.schedules.base import NEVER, CycleSpan, Piece, Schedule, rescaled_size, schedule_from_dict
from clr_native.schedules.scale_functions import ScaleFn, ScaleFunctions

if TYPE_CHECKING:
    from typing_extensions import Self

Segment = tuple[Schedule, int | None]


@dataclasses.dataclass(frozen=True, repr=False)
class ScheduleSequence(Schedule):
    """Schedules one after another, each from its own step 0.

    With segments ``(f_0, n_0), (f_1, n_1), ...`` and ``N_i = n_0 + ... + n_(i-1)``, in steps (optimizer updates)::

        value(step) = f_i(step - N_i)          for N_i <= step < N_(i+1)
                      f_k(n_k - 1)             for step >= N_(k+1), f_k the last one, if it has an end

    Values are those of the segments, bit for bit, at the joins too. Where a segment has no momentum, the momentum is
    left alone: ``FusedCyclicSGD`` and ``CyclicLR`` keep what stands in the group.

    Args:
        segments: pairs of a schedule, which may be a sequence itself, and the number of its steps, an int or whole
            float from 1 to 2**53 - 1; None in the last pair means without end.

    Raises:
        TypeError: something is not a pair, or not a schedule.
        ValueError: no segment, a number of steps out of range, or None before the last.

    Warm-up, then cycles:

    >>> from clr_native import CyclicSchedule, RampSchedule
    >>> warm = ScheduleSequence([(RampSchedule(0.0, 0.1, 2), 2), (CyclicSchedule(0.1, 0.5, step_size_up=2), None)])
    >>> warm.values(7)[0].tolist()
    [0.0, 0.05, 0.1, 0.3, 0.5, 0.3, 0.1]
    >>> warm(0).momentum, warm(2).momentum
    (None, 0.9)

    The CIFAR-10 run of the paper, three triangular2 policies (L. N. Smith, arXiv:1506.01186, table 1):

    >>> paper = ScheduleSequence([
    ...     (CyclicSchedule(0.001, 0.005, step_size_up=2000, mode="triangular2"), 16_000),
    ...     (CyclicSchedule(0.0001, 0.0005, step_size_up=1000, mode="triangular2"), 6_000),
    ...     (CyclicSchedule(0.00001, 0.00005, step_size_up=500, mode="triangular2"), 3_000),
    ... ])
    >>> [paper(step).lr for step in (0, 2_000, 16_000, 17_000, 22_000, 22_500)]
    [0.001, 0.005, 0.0001, 0.0005, 1e-05, 5e-05]
    """

    _kind: ClassVar[str] = "sequence"

    segments: Sequence[Segment]

    def __post_init__(self) -> None:
        if isinstance(self.segments, (str, Mapping)) or not isinstance(self.segments, Iterable):
            raise TypeError(f"segments={self.segments!r} must be a list of pairs (schedule, n_steps)")
        segments = tuple(_segment(i, each) for i, each in enumerate(self.segments))
        if not segments:
            raise ValueError("segments=[] must hold at least one pair (schedule, n_steps)")
        for i, (_, n_steps) in enumerate(segments[:-1]):
            if n_steps is None:
                raise ValueError(f"segment {i}: n_steps=None must be a number of steps: only the last has no end")
        self._put("segments", segments)

    def _cycle_spans(self) -> list[CycleSpan]:
        spans: list[CycleSpan] = []
        start = complete = 0
        for schedule, n_steps in self.segments:
            stop = NEVER if n_steps is None else min(start + n_steps, NEVER)
            spans += [
                CycleSpan(start + span.first, span.length, span.repeats, complete + span.complete_before)
                for span in schedule._cycle_spans()
                if start + span.first < stop
            ]
            if n_steps is None:
                return spans
            complete += schedule._cycle_position(n_steps).complete
            start += n_steps
        return [*spans, CycleSpan(start, complete_before=complete)] if start < NEVER else spans

    def _pieces(self) -> list[Piece]:
        pieces: list[Piece] = []
        start = 0
        for schedule, n_steps in self.segments:
            stop = NEVER - start if n_steps is None else min(n_steps, NEVER - start)
            inside = [piece for piece in schedule._cached_pieces if piece.first < stop]
            pieces += [piece._replace(first=start + piece.first) for piece in inside]
            start += n_steps or 0
        if self.segments[-1][1] is not None:
            last = pieces[-1]
            pieces[-1] = last._replace(last=min(last.last, start - 1 - last.first))
        return pieces

    def _end(self) -> int | None:
        schedule, n_steps = self.segments[-1]
        end = schedule._end()
        if n_steps is not None or end is None:
            return None
        return min(end + sum(n_steps or 0 for _, n_steps in self.segments), NEVER)

    def _rescaled(self, factor: Fraction, **changes: Any) -> Self:
        segments = [
            (schedule._rescaled(factor), None if n_steps is None else rescaled_size(f"segment {i}", n_steps, factor))
            for i, (schedule, n_steps) in enumerate(self.segments)
        ]
        return dataclasses.replace(self, segments=segments, **changes)

    def _functions(self) -> list[ScaleFn]:
        return [function for schedule, _ in self.segments for function in schedule._functions()]

    def _to_dict(self) -> dict[str, Any]:
        segments = [[schedule._to_dict(), n_steps] for schedule, n_steps in self.segments]
        return {"kind": self._kind, "segments": segments}

    @classmethod
    def _from_arguments(cls, arguments: dict[str, Any], functions: ScaleFunctions) -> Self:
        if not isinstance(arguments.get("segments"), (list, tuple)):
            raise TypeError(f"segments={arguments.get('segments')!r} must be a list of pairs (schedule, n_steps)")
        return cls([_made_segment(i, each, functions) for i, each in enumerate(arguments["segments"])])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.segments)!r})"

    def _advice(self, steps: int, per_epoch: int) -> Iterator[Check]:
        counts = [n_steps for _, n_steps in self.segments if n_steps is not None]
        if len(counts) == len(self.segments):
            yield end_of_run("the sequence", steps, sum(counts), per_epoch, "the last value is held")
        elif steps <= sum(counts):
            missing = f"{steps_in_words(sum(counts) - steps)} before the last segment begins"
            yield Check("end of the run", "in the last segment", missing, False)

    def _summary(self, steps: int, per_epoch: int) -> Summary:
        segments, left = [], steps
        for schedule, n_steps in self.segments:
            own = left if n_steps is None else min(n_steps, left)
            segments.append(schedule._summary(own, per_epoch))
            left -= own
        return dataclasses.replace(super()._summary(steps, per_epoch), segments=tuple(segments))


def _made_segment(index: int, pair: object, functions: ScaleFunctions) -> Segment:
    written, n_steps = _pair(index, pair)
    if not isinstance(written, Mapping):
        raise TypeError(f"segment {index}: {written!r} must be a dict that to_dict() gave")
    return schedule_from_dict(written, functions), n_steps


def _pair(index: int, pair: object) -> tuple[Any, Any]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"segment {index}: {pair!r} must be a pair (schedule, n_steps)")
    return pair[0], pair[1]


def _segment(index: int, pair: object) -> Segment:
    schedule, n_steps = _pair(index, pair)
    if not isinstance(schedule, Schedule):
        raise TypeError(f"segment {index}: {schedule!r} must be a schedule such as CyclicSchedule(...)")
    return schedule, None if n_steps is None else size(f"segment {index}: n_steps", n_steps)
