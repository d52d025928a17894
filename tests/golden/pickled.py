"""What users pickle. Files in pickles/ were written by `python tests/golden/pickled.py` before modules were moved."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from clr_native import (
    CyclicLR,
    CyclicSchedule,
    FusedCyclicSGD,
    GradScaler,
    OneCycleSchedule,
    RampSchedule,
    ScheduleSequence,
)

FOLDER = Path(__file__).parent / "pickles"
BOUNDS: dict[str, Any] = {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 4}
CYCLES = CyclicSchedule(**BOUNDS)
ONE_CYCLE = OneCycleSchedule(0.1, 20)
RAMP = RampSchedule(0.01, 0.1, 5)
SEQUENCE = ScheduleSequence([(RAMP, 5), (CYCLES, None)])


def give_gradients(parameters: Sequence[torch.Tensor], step: int) -> None:
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, 0.125 * (index + 1 + step))


def every_parameter(optimizer: Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def go_on(optimizer: Optimizer, scheduler: CyclicLR | None, steps: int) -> None:
    for step in range(steps):
        give_gradients(every_parameter(optimizer), step)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def fused(**settings: Any) -> FusedCyclicSGD:
    first, second = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)), torch.nn.Parameter(torch.ones(5))
    groups: list[dict[str, Any]] = [{"params": [first]}, {"params": [second], "weight_decay": 0.01}]
    optimizer = FusedCyclicSGD(groups, **settings)
    go_on(optimizer, None, 3)
    return optimizer


def scheduled(kind: type[Optimizer], settings: dict[str, Any], **schedule: Any) -> tuple[Optimizer, CyclicLR]:
    optimizer = kind([torch.nn.Parameter(torch.ones(4))], **settings)
    scheduler = CyclicLR(optimizer, **schedule)
    go_on(optimizer, scheduler, 3)
    return optimizer, scheduler


def objects() -> dict[str, Any]:
    return {
        "schedules": [
            CYCLES,
            ONE_CYCLE,
            RAMP,
            SEQUENCE,
            CyclicSchedule(0.1, 0.5, mode="exp_range", gamma=0.9, window="hann"),
        ],
        "optimizer": fused(**BOUNDS),
        "optimizer_rules": fused(**BOUNDS, max_grad_norm=1.0, ema_decay=0.9, nesterov=True),
        "optimizer_lr": fused(lr=0.1, momentum=0.9),
        "optimizer_sequence": fused(schedule=SEQUENCE),
        "cyclic_lr": scheduled(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, **BOUNDS),
        "cyclic_lr_one_cycle_adam": scheduled(torch.optim.Adam, {"lr": 0.1}, schedule=ONE_CYCLE),
        "grad_scaler": GradScaler("cpu"),
    }


if __name__ == "__main__":
    for name, made in objects().items():
        (FOLDER / f"{name}.pickle").write_bytes(pickle.dumps(made, 4))
