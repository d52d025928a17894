"""Arguments of the range test, checked before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from clr_native.checks import flag, number, size
from clr_native.range_test.update import TrainingLoop
from clr_native.schedules import RampSchedule


@dataclass(frozen=True)
class Settings:
    """The settings of the test itself: which rates, on which data, how often."""

    schedule: RampSchedule
    num_steps: int
    loader: Iterable[Any]
    val_loader: Iterable[Any] | None
    val_every: int
    repeats: int
    stop_factor: float
    device: torch.device | None
    progress: bool

    def __post_init__(self) -> None:
        for name in ("num_steps", "val_every", "repeats"):
            object.__setattr__(self, name, size(name, getattr(self, name)))
        object.__setattr__(self, "stop_factor", number("stop_factor", self.stop_factor))
        if not self.stop_factor > 0.0:
            raise ValueError(f"stop_factor={self.stop_factor!r} must be above 0; math.inf never stops at a high loss")
        flag("progress", self.progress)
        if self.val_loader is None and self.val_every != 1:
            raise ValueError(f"val_every={self.val_every!r} has no meaning without val_loader=")

    def validates_after(self, step: int) -> bool:
        """True after every `val_every`-th update, and after the last update of the ramp."""
        return (step + 1) % self.val_every == 0 or step == self.num_steps - 1


def ramp_of(start_lr: float, end_lr: float, num_steps: int, ramp: str, momentum: float | None) -> RampSchedule:
    """Returns the schedule whose first `num_steps` values go from `start_lr` to `end_lr`, both included."""
    count = size("num_steps", num_steps)
    if count < 2:
        raise ValueError(f"num_steps={num_steps!r} must be at least 2: one at start_lr, one at end_lr")
    schedule = RampSchedule(start_lr, end_lr, count - 1, ramp=ramp, momentum=momentum)
    if not schedule.start_lr < schedule.end_lr:
        raise ValueError(f"end_lr={end_lr!r} must be above start_lr={start_lr!r}")
    return schedule


def check_trained(trained: TrainingLoop, val_loader: object) -> None:
    """Raises unless exactly one way to train is given, completely."""
    if not isinstance(trained.model, nn.Module):
        raise TypeError(f"model={trained.model!r} must be a torch.nn.Module (several: an nn.ModuleList of them)")
    if not isinstance(trained.optimizer, Optimizer):
        raise TypeError(f"optimizer={trained.optimizer!r} must be a torch.optim.Optimizer")
    if trained.step_fn is not None and trained.train_step is not None:
        raise ValueError("step_fn and train_step were both given: leave one out")
    if trained.train_step is not None:
        if trained.accumulate != 1:
            raise ValueError(f"accumulate={trained.accumulate!r} has no meaning with train_step, which does all of it")
        if val_loader is not None:
            raise ValueError("val_loader= has no meaning with train_step, which trains: pass step_fn or loss_fn")
    if (trained.step_fn or trained.train_step) is not None:
        if trained.loss_fn is not None:
            raise ValueError(f"loss_fn={trained.loss_fn!r} is not used with step_fn or train_step: leave it out")
    elif trained.loss_fn is None:
        raise ValueError("loss_fn=None: pass loss_fn(outputs, targets), or step_fn=, or train_step=")
    for name in ("loss_fn", "metric", "step_fn", "train_step"):
        function = getattr(trained, name)
        if function is not None and not callable(function):
            raise TypeError(f"{name}={function!r} must be a function")
