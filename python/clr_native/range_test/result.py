"""What a range test has measured, and what can be read from it."""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clr_native.checks import choice
from clr_native.range_test.bounds import LearningRateBounds, NoAnswerError, checked_ratio, interval, read_bounds
from clr_native.range_test.descent import FEWEST_POINTS, capped, find_descent
from clr_native.range_test.smooth import smooth
from clr_native.range_test.suggest import RULES, steep
from clr_native.range_test.words import as_html, summary
from clr_native.schedules import CyclicSchedule
from clr_native.schedules.evaluate import FloatArray

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.axes import Axes
    from typing_extensions import Self

METHODS = (*RULES, "smith")


@dataclass(frozen=True, eq=False, repr=False)
class RangeTestResult:
    """The curve of a range test: S steps, R repetitions, G parameter groups. All arrays are float64.

    With repetitions of different lengths it has the steps that all of them reached. A loss that was not finite is not
    among them.

    Attributes:
        lr: [S], the learning rate at each step: that of the group with the largest one.
        group_lr: [G, S], the learning rate of every group.
        losses: [R, S], the training loss at each step, before its update.
        val_losses: [R, S], the validation loss after each step's update, NaN where it was not taken; None without
            val_loader.
        metrics: [R, S], the metric, of the validation data where there is any; None without metric.
        stopped: why the test ended, in words; of the repetition that ended first.

    >>> import numpy as np
    >>> lr = np.geomspace(1e-5, 1.0, 60)
    >>> loss = 2.0 - 1.5 / (1.0 + (0.01 / lr) ** 2)  # half way down at 0.01
    >>> result = RangeTestResult(lr, lr[None], loss[None], None, None, "the end of the ramp, lr=1")
    >>> bounds = result.bounds()
    >>> 0.005 < bounds.base_lr < 0.01 < bounds.max_lr < 0.02
    True
    >>> 0.008 < result.suggest("steep") < 0.012
    True
    >>> result.schedule(step_size_up=500).step_size_up
    500
    """

    lr: FloatArray
    group_lr: FloatArray
    losses: FloatArray
    val_losses: FloatArray | None
    metrics: FloatArray | None
    stopped: str

    # --- shown --------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """Short, and without fitting anything: debuggers ask for it at every step."""
        lr = f"{self.lr[0]:.3g} to {self.lr[-1]:.3g}" if len(self.lr) else "none"
        sizes = f"steps={len(self.lr)}, repetitions={len(self.losses)}, groups={len(self.group_lr)}"
        return f"RangeTestResult({sizes}, lr={lr}, stopped={self.stopped!r})"

    def __str__(self) -> str:
        """A few lines: what was measured, the bounds or why there are none, and why it ended."""
        return summary(self)

    def _repr_html_(self) -> str:
        """The lines with the picture, for notebooks; without matplotlib the lines alone."""
        return as_html(self)

    # --- the curves -------------------------------------------------------------------------------------------------

    @property
    def loss(self) -> FloatArray:
        """[S], the training loss, averaged over the repetitions."""
        return _mean(self.losses)

    @property
    def val_loss(self) -> FloatArray | None:
        """[S], the validation loss, averaged over the repetitions; NaN where it was not taken."""
        return None if self.val_losses is None else _mean(self.val_losses)

    @property
    def metric(self) -> FloatArray | None:
        """[S], the metric, averaged over the repetitions; NaN where it was not taken."""
        return None if self.metrics is None else _mean(self.metrics)

    @functools.cached_property
    def smoothed_loss(self) -> FloatArray:
        """[S], the validation loss, or else the training loss, smoothed without lag (see ``range_test/smooth.py``).

        Losses are capped before, and repetitions averaged after that: the height of divergence would bend the curve.
        """
        return smooth(_mean(self._capped_losses)).curve

    @functools.cached_property
    def _capped_losses(self) -> FloatArray:
        """[R, S], the capped losses that the model is judged by if there is no metric."""
        return _capped_rows(self.losses if self.val_losses is None else self.val_losses)

    @functools.cached_property
    def smoothed_metric(self) -> FloatArray | None:
        """[S], the metric, smoothed without lag."""
        return None if self.metric is None else smooth(self.metric).curve

    # --- what is read from them ---------------------------------------------------------------------------------------

    def suggest(self, method: str = "smith") -> float:
        """One learning rate, by a rule.

        * ``"valley"``, ``"slide"``, ``"minimum"``: fastai's rules on the points of ``smoothed_loss``; ``"minimum"`` is
          a tenth of the rate at the lowest one.
        * ``"steep"``: fastai's rule, the steepest fall per log lr, on the fitted descent (see ``bounds``) averaged over
          its own width, so that neither noise nor a detail of the curve is taken for it; of several repetitions the
          median.
        * ``"smith"``: ``bounds().max_lr``.

        ``clr_native.range_test.suggest`` has the rules as functions of any points, with fastai's very indices.

        Raises ValueError for an unknown method or too few points, and from "smith" as ``bounds`` does.
        """
        choice("method", method, METHODS)
        if method == "smith":
            return self.bounds().max_lr
        if method == "steep":
            return float(np.median([self._steepest(row) for row in self._capped_losses]))
        rate = float(self.lr[RULES[method](self.lr, self.smoothed_loss)])
        return rate / 10.0 if method == "minimum" else rate

    def _steepest(self, losses: FloatArray) -> float:
        if (~np.isnan(losses)).sum() < FEWEST_POINTS:
            raise ValueError(f"method='steep' needs at least {FEWEST_POINTS} points: the test ended at: {self.stopped}")
        lr, averaged = find_descent(losses).averaged(self.lr)
        return float(lr[steep(lr, averaged)] if len(lr) > 1 else lr[0])

    def bounds(self, ratio: float | None = None) -> LearningRateBounds:
        """Smith's pair: where the descent has started and where it slows.

        A curve that goes down once (bending down, then up) is fitted to the metric, negated, if there is one, or else
        to the validation or training loss. ``base_lr`` is where a quarter of its descent has been made, ``max_lr``
        where three quarters have. The place of a quarter is what noise moves least; the lowest point itself lies next
        to divergence. With ``ratio``, ``base_lr = max_lr / ratio``: the paper takes 3 or 4, and 6 makes a wide cycle.

        Of several repetitions the median answer is taken: they diverge at different rates, so their average turns up
        before most of them do. Where half of them or more have no answer, their average is read: it has less noise.

        Raises ValueError if the curve has no answer: it never falls, only rises, is flat against its noise, or one end
        of the descent is not in it. The message says which, and what to change.
        """
        ratio = checked_ratio(ratio)
        rows, name = self._read_from()
        singly = [self._read_singly(row, ratio, name) for row in rows] if len(rows) > 1 else []
        answers = np.array([each for each in singly if each is not None]).reshape(-1, 2)
        if 2 * len(answers) > len(rows):
            max_lr = float(np.median(answers[:, 1]))
            base_lr = float(np.median(answers[:, 0])) if ratio is None else max_lr / ratio
        else:
            base_lr, max_lr = read_bounds(self.lr, _mean(rows), ratio, name, self.stopped)
        return LearningRateBounds(base_lr, max_lr, interval(answers[:, 0].tolist()), interval(answers[:, 1].tolist()))

    def _read_singly(self, row: FloatArray, ratio: float | None, name: str) -> tuple[float, float] | None:
        try:
            return read_bounds(self.lr, row, ratio, name, self.stopped)
        except NoAnswerError:
            return None

    def _read_from(self) -> tuple[FloatArray, str]:
        """Returns the curves [R, S] that the bounds are read from, falling where the model learns, and their name."""
        if self.metrics is not None:
            return _capped_rows(-self.metrics), "the negated metric"
        return self._capped_losses, "the loss" if self.val_losses is None else "the validation loss"

    def schedule(self, *, step_size_up: int, ratio: float | None = None, **settings: Any) -> CyclicSchedule:
        """A schedule between the bounds. ``step_size_up`` is in steps, 2 to 10 epochs of them in the paper.

        ``settings`` are further arguments of ``CyclicSchedule``. Raises as ``bounds`` and ``CyclicSchedule`` do.
        """
        bounds = self.bounds(ratio)
        return CyclicSchedule(bounds.base_lr, bounds.max_lr, step_size_up=step_size_up, **settings)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the curve with suggestions and bounds into ``ax`` or a new figure (``.figure``), and open no window.

        Needs matplotlib: ``pip install "clr-native[plot]"``.
        """
        from clr_native.range_test.plot import draw

        return draw(self, ax)

    # --- files --------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data that ``from_dict`` takes back: lists in place of arrays, None for NaN."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Self:
        """The result that ``to_dict`` wrote down, to the bit. Raises ValueError for anything else."""
        names = {field.name for field in fields(cls)}
        if not isinstance(d, Mapping) or d.keys() != names:
            raise ValueError(f"d must have the keys {', '.join(sorted(names))}: it is no result of a range test")
        values: dict[str, Any] = {
            name: value if name == "stopped" or value is None else np.array(value, dtype=np.float64)  # None becomes NaN
            for name, value in d.items()
        }
        return cls(**values)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a JSON file that ``load`` reads."""
        Path(path).write_text(json.dumps(self.to_dict(), allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read what ``save`` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write a line a step: step, lr, loss, smoothed_loss, val_loss and metric if any, each group's lr."""
        columns: dict[str, FloatArray | None] = {
            "lr": self.lr,
            "loss": self.loss,
            "smoothed_loss": self.smoothed_loss,
            "val_loss": self.val_loss,
            "metric": self.metric,
            **{f"lr_group_{index}": rates for index, rates in enumerate(self.group_lr)},
        }
        present = {name: values.tolist() for name, values in columns.items() if values is not None}
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", *present])
            for step, row in enumerate(zip(*present.values(), strict=True)):
                writer.writerow([step, *("" if np.isnan(value) else repr(value) for value in row)])


def _plain(value: FloatArray | str | None) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.ndim > 1:
        return [_plain(row) for row in value]
    return [None if math.isnan(number) else number for number in value.tolist()]


def _capped_rows(rows: FloatArray) -> FloatArray:
    return np.array([capped(row) for row in rows]).reshape(rows.shape)


def _mean(rows: FloatArray) -> FloatArray:
    mean: FloatArray = rows.mean(axis=0)
    return mean
