"""The base class of all schedules."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from clr_native import _core
from clr_native.checks import checked_step, choice, number, size
from clr_native.schedules.advice import Check, Summary
from clr_native.schedules.evaluate import FloatArray, Steps, evaluate, invalid_value
from clr_native.schedules.scale_functions import ScaleFn, ScaleFunctions, called

if TYPE_CHECKING:
    from typing_extensions import Self

NEVER = 2**63 - 1


class ScheduleValue(NamedTuple):
    """Learning rate and momentum of one update; ``momentum`` is None where the schedule has none."""

    lr: float
    momentum: float | None


class Piece(NamedTuple):
    """A policy from step ``first`` of a schedule on; from its own step ``last`` on its value is held."""

    first: int
    last: int
    policy: _core.Policy
    has_momentum: bool
    scale_fn: ScaleFn | None = None
    cycle_length: int | None = None  # None: scale_fn is called with the step, not the cycle


class CycleSpan(NamedTuple):
    """A stretch of a schedule in which cycles have one length, up to where the next one begins (core/cycles.h)."""

    first: int
    length: int = 0  # length of a cycle, in steps; 0: no cycle ends here
    repeats: bool = False  # True if cycles follow each other; False if there is one cycle
    complete_before: int = 0  # number of cycles before this span


class CyclePosition(NamedTuple):
    """The position of a step among the cycles."""

    complete: int  # number of cycles that end at or before the step
    at_end: bool  # True if the update before the step was the last one of a cycle


class Schedule(abc.ABC):
    """Learning rate and momentum as a function of the number of the update: immutable, plain, evaluated natively."""

    _kind: ClassVar[str]
    _kinds: ClassVar[dict[str, type[Schedule]]] = {}
    _sizes: ClassVar[tuple[str, ...]] = ()  # fields that count steps
    _init_only: ClassVar[tuple[str, ...]] = ()  # arguments that are another way to give a field, and are not kept

    def __init_subclass__(cls) -> None:
        if "_kind" in cls.__dict__:  # a user's derived class has no _kind of its own
            Schedule._kinds[cls._kind] = cls

    # --- what a kind of schedule says ---------------------------------------------------------------------------

    @abc.abstractmethod
    def _pieces(self) -> Sequence[Piece]:
        """Returns the policies of the schedule. The first one starts at step 0."""

    def _end(self) -> int | None:
        """Returns the first step past the end of the schedule, where users are warned, or None."""
        return None

    @abc.abstractmethod
    def _cycle_spans(self) -> Sequence[CycleSpan]:
        """Returns the spans of its cycles. The first one starts at step 0."""

    @abc.abstractmethod
    def _advice(self, steps: int, per_epoch: int) -> Iterator[Check]:
        """Yields the advice on a run of ``steps`` steps, at least one, compared with what this schedule does in it."""

    def _functions(self) -> list[ScaleFn]:
        """Returns every ``scale_fn``, in the order in which ``from_dict`` takes them back."""
        return []

    # --- values -------------------------------------------------------------------------------------------------

    def __call__(self, step: int) -> ScheduleValue:
        """The value of update number ``step``, from 0 to 2**63 - 2."""
        step = checked_step(step)
        lr, momentum, is_valid = self._native.value(step, self._scale_fns)
        if not is_valid:
            raise invalid_value("the schedule", step, lr, momentum)
        return ScheduleValue(lr, None if math.isnan(momentum) else momentum)

    def values(self, steps: Steps) -> tuple[FloatArray, FloatArray]:
        """Arrays ``(lr, momentum)`` of float64, one value a step; momentum is NaN where there is none.

        ``steps`` is a count (steps 0 to count - 1), a range, or a one-dimensional integer array.
        """
        lr, momentum = evaluate([self], steps)
        return lr[0], momentum[0]

    def rescaled(self, factor: float) -> Self:
        """The same curve over ``factor`` times as many steps, for a run whose steps change their length.

        If twice as many processes share an epoch, half as many steps make it: ``factor=0.5``. Sizes become the nearest
        whole number of steps, and at least 1; ``gamma`` becomes ``gamma**(1 / factor)``. Raises ValueError for a factor
        that is not finite and above 0, a size out of range, and a ``scale_fn`` that is called with steps.

        An optimizer goes on where it stands with ``group["schedule"] = schedule.rescaled(factor).to_dict()`` in each
        group and ``opt.seek(round(opt.applied_steps * factor))``.

        >>> from clr_native import CyclicSchedule
        >>> CyclicSchedule(0.1, 0.5, step_size_up=1000, step_size_down=501).rescaled(0.5)
        CyclicSchedule(0.1, 0.5, step_size_up=500, step_size_down=251)
        """
        exact = number("factor", factor)
        if not (math.isfinite(exact) and exact > 0.0):
            raise ValueError(f"factor={factor!r} must be finite and above 0")
        return self._rescaled(Fraction(exact))

    def _rescaled(self, factor: Fraction, **changes: Any) -> Self:
        sizes = {name: getattr(self, name) for name in self._sizes}
        changes |= {name: rescaled_size(name, old, factor) for name, old in sizes.items() if old is not None}
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]  # all are dataclasses

    def cycle_starts(self, steps: int) -> list[int]:
        """The numbers of the updates below ``steps`` with which a cycle begins. A ramp has none.

        >>> from clr_native import CyclicSchedule, OneCycleSchedule
        >>> CyclicSchedule(0.1, 0.5, step_size_up=10).cycle_starts(50)
        [0, 20, 40]
        >>> OneCycleSchedule(0.5, total_steps=20).cycle_starts(50)
        [0]
        """
        spans = self._cycle_spans()
        starts: list[int] = []
        for span, stop in zip(spans, [*(span.first for span in spans[1:]), steps], strict=True):
            if span.length:
                inside = range(span.first, min(stop, steps), span.length)
                starts += inside if span.repeats else inside[:1]
        return starts

    def _cycle_position(self, step: int) -> CyclePosition:
        return CyclePosition(*self._native.cycle_position(step))

    def summary(self, steps_per_epoch: int, epochs: int) -> Summary:
        """What the paper advises and what this schedule does, for a run of ``epochs * steps_per_epoch`` steps.

        The advice: half-cycles of 2 to 10 epochs; at least 3 cycles, 4 are better; stop at the end of a cycle;
        ``base_lr`` a third or a quarter of ``max_lr``, unless a range test chose both. Other schedules: the run ends
        where the schedule does; one cycle ends orders of magnitude below its start, with momentum the other way; a
        range test rises linearly. A sequence is summed up by its segments.

        Args:
            steps_per_epoch: optimizer updates of an epoch, an int or whole float from 1 to 2**53 - 1.
            epochs: epochs of the run, an int or whole float from 1 to 2**53 - 1.

        Returns:
            A ``Summary``: ``str()`` says it in words, ``checks`` and ``ok`` are for code, as in
            ``assert schedule.summary(500, 20).ok``.

        Raises:
            TypeError, ValueError: an argument is not as described.

        >>> from clr_native import CyclicSchedule
        >>> summary = CyclicSchedule(0.002, 0.006, step_size_up=2000).summary(steps_per_epoch=500, epochs=20)
        >>> print(summary)
        CyclicSchedule(0.002, 0.006): 10,000 steps, 20 epochs
          ok  half-cycle: 2,000 steps, 4 epochs (advised: 2 to 10 epochs)
          no  cycles: 2.5 (advised: at least 3, 4 are better)
          no  end of the run: 2,000 steps into cycle 3, which lasts from epoch 16 to 24 (advised: the end of a cycle)
          ok  base_lr: max_lr / 3 (advised: max_lr / 3 to max_lr / 4, or what a range test shows)
        >>> [(check.name, check.ok) for check in summary.checks]
        [('half-cycle', True), ('cycles', False), ('end of the run', False), ('base_lr', True)]

        Sources: L. N. Smith, arXiv:1506.01186, sections 3.2 and 3.3; L. N. Smith and N. Topin, arXiv:1708.07120.
        """
        per_epoch = size("steps_per_epoch", steps_per_epoch)
        return self._summary(per_epoch * size("epochs", epochs, of="epochs"), per_epoch)

    def _summary(self, steps: int, per_epoch: int) -> Summary:
        return Summary(self, steps, per_epoch, tuple(self._advice(steps, per_epoch)) if steps else ())

    @functools.cached_property
    def _native(self) -> _core.Schedule:
        pieces = [(piece.first, piece.last, piece.policy) for piece in self._cached_pieces]
        end = self._end()
        return _core.Schedule(pieces, list(self._cycle_spans()), NEVER if end is None else end)

    @functools.cached_property
    def _cached_pieces(self) -> Sequence[Piece]:
        return self._pieces()

    @functools.cached_property
    def _scale_fns(self) -> tuple[ScaleFn | None, ...]:
        """The functions that the native schedule calls: one or None for each piece; empty if there is no function."""
        fns = tuple(piece.scale_fn for piece in self._cached_pieces)
        return fns if any(fn is not None for fn in fns) else ()

    @property
    def _begins_with_momentum(self) -> bool:
        return self._cached_pieces[0].has_momentum

    def _scales(self, steps: range | npt.NDArray[np.int64]) -> FloatArray | None:
        """Returns the scale at each step, from one call a cycle or iteration, or None without a ``scale_fn``."""
        if not self._scale_fns:
            return None
        array = np.asarray(steps, dtype=np.int64)
        scales = np.ones(len(array))
        pieces = self._cached_pieces
        ends = [piece.first for piece in pieces[1:]]
        for piece, end in zip(pieces, [*ends, NEVER], strict=True):
            if piece.scale_fn is None:
                continue
            inside = (array >= piece.first) & (array < end)
            own = np.minimum(array[inside] - piece.first, piece.last)
            arguments = own if piece.cycle_length is None else own // piece.cycle_length + 1
            distinct, place = np.unique(arguments, return_inverse=True)
            scales[inside] = np.array([called(piece.scale_fn, int(argument)) for argument in distinct])[place]
        return scales

    # --- plain data ---------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data that ``from_dict`` takes back. Raises TypeError with a ``scale_fn``: functions are not data."""
        functions = self._functions()
        if functions:
            raise TypeError(
                f"scale_fn={functions[0]!r} cannot be saved as plain data: "
                "save the other arguments and pass it again to from_dict(d, scale_fn=...)"
            )
        return self._to_dict()

    def _to_dict(self) -> dict[str, Any]:
        """As ``to_dict``, but ``scale_fn`` is a mark that a function is needed."""
        return {"kind": self._kind, **self._fields()}

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]  # all are dataclasses

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], scale_fn: ScaleFn | Sequence[ScaleFn] | None = None) -> Self:
        """The schedule that ``to_dict`` wrote down; one with a ``scale_fn`` needs it again."""
        arguments = cls._arguments(d)
        functions = ScaleFunctions(scale_fn)
        schedule = cls._from_arguments(arguments, functions)
        functions.check_all_taken()
        return schedule

    @classmethod
    def _arguments(cls, d: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a copy of ``d`` without its kind. Checks the kind and the names."""
        if not isinstance(d, Mapping):
            raise TypeError(f"d={d!r} must be a dict that to_dict() gave")
        arguments = dict(d)
        kind = arguments.pop("kind", cls._kind)
        if kind != cls._kind:
            raise ValueError(f"kind={kind!r} must be {cls._kind!r} for a {cls.__name__}")
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # all are dataclasses
        unknown = sorted(arguments.keys() - {field.name for field in fields} - {*cls._init_only}, key=str)
        if unknown:
            raise ValueError(f"{unknown[0]}={arguments[unknown[0]]!r} is not an argument of {cls.__name__}")
        for field in fields:
            if field.default is dataclasses.MISSING and field.name not in arguments:
                raise ValueError(f"{field.name} is missing, which {cls.__name__} needs")
        return arguments

    @classmethod
    def _from_arguments(cls, arguments: dict[str, Any], functions: ScaleFunctions) -> Self:
        return cls(**arguments)

    # --- Python's own -------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        shown = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # all are dataclasses
            value = getattr(self, field.name)
            if not field.kw_only:
                shown.append(f"{value!r}")
            elif type(value) is not type(field.default) or value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getstate__(self) -> dict[str, Any]:
        return self._fields()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _put(self, name: str, value: object) -> None:
        """Sets a field to its normal form while the frozen dataclass is being made."""
        object.__setattr__(self, name, value)


def rescaled_size(name: str, steps: int, factor: Fraction) -> int:
    return size(name, max(1, math.floor(steps * factor + Fraction(1, 2))))


def from_dict(d: Mapping[str, Any], scale_fn: ScaleFn | Sequence[ScaleFn] | None = None) -> Schedule:
    """The schedule, of any kind, that its ``to_dict`` wrote down."""
    return _kind_of(d).from_dict(d, scale_fn)


def schedule_from_dict(d: Mapping[str, Any], functions: ScaleFunctions) -> Schedule:
    """As ``from_dict``, but takes functions as they are needed."""
    cls = _kind_of(d)
    return cls._from_arguments(cls._arguments(d), functions)


def _kind_of(d: Mapping[str, Any]) -> type[Schedule]:
    if not isinstance(d, Mapping):
        raise TypeError(f"d={d!r} must be a dict that to_dict() gave")
    kind = d.get("kind", "cyclic")
    choice("kind", kind, tuple(Schedule._kinds))
    return Schedule._kinds[kind]
