"""Pictures of schedules: learning rate and momentum over the steps."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clr_native.checks import LARGEST_STEP
from clr_native.schedules import Schedule
from clr_native.schedules.evaluate import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# This is more than the dots of a picture of usual width.
_PARTS = 2048
# The number of steps evaluated at a time: 16 MiB of values, unless a single stretch has more.
_AT_A_TIME = 2**20
# All steps are evaluated. That takes about a minute, and two gigabytes for the long stretches of a narrow picture.
MOST_STEPS = 2**32
# More marks of cycles than this would tell nothing, and at most this many cycles are searched for marks.
_MOST_MARKS, _MOST_CYCLES = 100, 10**6


@dataclasses.dataclass(frozen=True)
class Curve:
    """The data of a schedule in a picture: S steps (int64) with lr and momentum (float64), and the starts of cycles."""

    label: str
    steps: npt.NDArray[np.int64]
    lr: FloatArray
    momentum: FloatArray
    cycle_starts: list[int]

    @property
    def has_momentum(self) -> bool:
        return not bool(np.isnan(self.momentum).all())


def curves(
    schedules: Sequence[Schedule], steps: int | range, labels: Sequence[str] | None = None, parts: int = _PARTS
) -> list[Curve]:
    """Checks the arguments and returns the curves of a picture ``parts`` dots wide, without steps it cannot show.

    A longer run is cut into ``parts`` stretches. Each keeps its first and last step and its lowest and highest values,
    so no peak is lost, however many steps there are.
    """
    if not schedules:
        raise TypeError("schedules=() must be at least one schedule")
    for schedule in schedules:
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedules: {schedule!r} must be a schedule such as CyclicSchedule(...)")
    shown = _checked_range(steps)
    names_them = labels is not None or len(schedules) > 1
    if labels is None:
        labels = [_short(repr(schedule)) for schedule in schedules]
    if not isinstance(labels, (list, tuple)) or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"labels={labels!r} must be a list of texts")
    if len(labels) != len(schedules):
        raise ValueError(f"labels={labels!r} must be a label for each of {len(schedules)} schedules")
    return [
        _curve(schedule, shown, label, parts, f"{label}: " if names_them else "")
        for schedule, label in zip(schedules, labels, strict=True)
    ]


def _checked_range(steps: int | range) -> range:
    """Checks the steps and returns them in rising order."""
    if isinstance(steps, numbers.Integral) and not isinstance(steps, bool):
        shown = range(int(steps))
    elif isinstance(steps, range):
        shown = steps if steps.step > 0 else steps[::-1]
    else:
        raise TypeError(f"steps={steps!r} must be a count or a range")
    if not shown:
        raise ValueError(f"steps={steps!r} must be at least one step")
    if shown[0] < 0 or shown[-1] > LARGEST_STEP:
        raise ValueError(f"steps={steps!r} must be from 0 to 2**63 - 2")
    if len(shown) > MOST_STEPS:
        raise ValueError(f"steps={steps!r} must be at most 2**32 steps: every n-th are range(start, stop, n)")
    return shown


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _curve(schedule: Schedule, steps: range, label: str, parts: int, where: str) -> Curve:
    """Returns the curve of a schedule. `where` is the start of its error messages."""
    try:
        chosen, lr, momentum = (np.concatenate(each) for each in zip(*_thinned(schedule, steps, parts), strict=True))
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
    starts: list[int] = []
    if schedule._cycle_position(steps[-1]).complete <= _MOST_CYCLES:
        starts = [start for start in schedule.cycle_starts(steps[-1] + 1) if start >= steps[0]]
    return Curve(label, chosen, lr, momentum, starts if len(starts) <= _MOST_MARKS else [])


def _thinned(
    schedule: Schedule, steps: range, parts: int
) -> Iterator[tuple[npt.NDArray[np.int64], FloatArray, FloatArray]]:
    """Yields the steps that the picture shows, with their values, some stretches at a time."""
    length = -(-len(steps) // parts)
    at_a_time = length * max(1, _AT_A_TIME // length)
    for start in range(0, len(steps), at_a_time):
        some = steps[start : start + at_a_time]
        lr, momentum = schedule.values(some)
        numbers_ = np.arange(some.start, some.stop, some.step, dtype=np.int64)
        if length > 4:
            chosen = np.unique(np.concatenate([_extremes(lr, length), _extremes(momentum, length)]))
            lr, momentum, numbers_ = lr[chosen], momentum[chosen], numbers_[chosen]
        yield numbers_, lr, momentum


def _extremes(values: FloatArray, length: int) -> npt.NDArray[np.intp]:
    """Returns the indices where stretches of ``length`` values begin, end, and have their lowest and highest value."""
    padded = np.pad(values, (0, -len(values) % length), mode="edge").reshape(-1, length)
    starts = np.arange(0, len(values), length)
    places = [starts, starts + length - 1, starts + padded.argmin(axis=1), starts + padded.argmax(axis=1)]
    inside: npt.NDArray[np.intp] = np.minimum(np.concatenate(places), len(values) - 1)
    return inside


def plot_schedule(
    *schedules: Schedule, steps: int | range, labels: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw learning rates, and momenta where there are any, over the steps.

    The learning rate stands on the left axis; the momentum, dashed, on a second axis at the right. Faint lines mark
    where cycles begin, up to 100 of them. Every peak of up to 2**32 steps is drawn. No window is opened:
    ``plot_schedule(...).figure.savefig("schedule.png")`` writes a file, and ``ax=pyplot.gca()`` draws into pyplot's.

    Args:
        schedules: G schedules, drawn over each other.
        steps: what is shown, in steps (optimizer updates, not epochs): a count, or a range.
        labels: G texts for the legend, which is there if G > 1 or if labels are; by default the schedules' own.
        ax: matplotlib Axes to draw on; None: those of a new figure.

    Returns:
        The Axes of the learning rate; ``ax.figure.axes`` has the others.

    Raises:
        ImportError: matplotlib is not there.
        TypeError, ValueError: an argument is not as described, or a schedule gives a value that no optimizer can use.

    >>> from clr_native import CyclicSchedule
    >>> ax = plot_schedule(CyclicSchedule(0.1, 0.5, step_size_up=2), steps=9)
    >>> ax.lines[0].get_ydata().tolist()
    [0.1, 0.3, 0.5, 0.3, 0.1, 0.3, 0.5, 0.3, 0.1]
    >>> [axes.get_ylabel() for axes in ax.figure.axes]
    ['learning rate', 'momentum (dashed)']
    """
    try:
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f'matplotlib cannot be imported ({error}): pip install "clr-native[plot]"') from error
    if ax is not None and not isinstance(ax, Axes):
        raise TypeError(f"ax={ax!r} must be matplotlib Axes or None")
    drawn = curves(schedules, steps, labels)
    if ax is None:
        ax = Figure(figsize=(8, 4), layout="constrained").add_subplot()
    ground = ax.patch.get_visible()
    twin = ax.twinx() if any(curve.has_momentum for curve in drawn) else None
    for i, curve in enumerate(drawn):
        _draw(curve, ax, twin, f"C{i}")
    ax.set(xlabel="step", ylabel="learning rate")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.margins(x=0.01)
    ax.spines["top"].set_visible(False)
    if twin is None:
        ax.spines["right"].set_visible(False)
    else:
        twin.set_ylabel("momentum (dashed)")
        twin.spines["top"].set_visible(False)
        # The momenta are drawn beneath the rates, on the background that the rates had.
        twin.set_zorder(ax.get_zorder() - 1)
        twin.patch.set(visible=ground, facecolor=ax.get_facecolor())
        ax.patch.set_visible(False)
    if len(drawn) > 1 or labels is not None:
        # The legend stands above the Axes, where it covers nothing. Short labels stand side by side.
        columns = len(drawn) if sum(len(curve.label) for curve in drawn) <= 80 else 1
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, frameon=False)
    return ax


def _draw(curve: Curve, ax: Axes, twin: Axes | None, color: str) -> None:
    ax.plot(curve.steps, curve.lr, color=color, label=curve.label)
    ax.vlines(curve.cycle_starts, 0, 1, transform=ax.get_xaxis_transform(), color="0.85", linewidth=0.8, zorder=0)
    if twin is not None and curve.has_momentum:
        twin.plot(curve.steps, curve.momentum, color=color, linestyle=(0, (4, 2)), linewidth=1, alpha=0.6)
