"""SGD with momentum under cyclical learning rates: schedule and update in one native call."""

import torch  # noqa: F401  # loads libtorch, whose threads the native core borrows

from clr_native import _moved as _moved
from clr_native._core import __version__ as __version__
from clr_native._core import build_info
from clr_native.range_test import LearningRateBounds, RangeTestResult, lr_range_test
from clr_native.scheduler.cyclic_lr import CyclicLR
from clr_native.schedules import (
    CyclicSchedule,
    OneCycleSchedule,
    RampSchedule,
    ScheduleSequence,
    ScheduleValue,
)
from clr_native.schedules.evaluate import evaluate
from clr_native.schedules.plot import plot_schedule
from clr_native.sgd.grad_scaler import GradScaler
from clr_native.sgd.optimizer import FusedCyclicSGD

__all__ = [
    "CyclicLR",
    "CyclicSchedule",
    "FusedCyclicSGD",
    "GradScaler",
    "LearningRateBounds",
    "OneCycleSchedule",
    "RampSchedule",
    "RangeTestResult",
    "ScheduleSequence",
    "ScheduleValue",
    "build_info",
    "evaluate",
    "lr_range_test",
    "plot_schedule",
]
