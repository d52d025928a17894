"""The chain of torch calls that one step() replaces, and a training that compares both.

unscale_ -> clip -> SGD -> update -> schedule -> average. Schedule and average are called after applied steps only. lr
and momentum come from our schedules. The clip coefficient is the one that our optimizer used: its accuracy is tested
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from clr_native import CyclicSchedule, FusedCyclicSGD, GradScaler
from helpers import Shape, assert_same_training, buffer_of, every_parameter, give, gradient_sets, parameters, sgd_beside

Gradients = Sequence[Tensor | None]
Average = Callable[[Any, Any, Any], None]

OVERFLOWS = (0, 1, 7, 50)
# The schedules of groups, by their numbers. The first one decides when a cycle ends.
SCHEDULES = (
    CyclicSchedule(0.01, 0.1, step_size_up=4, step_size_down=3),
    CyclicSchedule(0.0, 0.02, step_size_up=7, mode="triangular2", base_momentum=0.5, max_momentum=0.99),
    CyclicSchedule(0.05, 0.3, step_size_up=2, step_size_down=9, base_momentum=0.7, max_momentum=0.7),
)
SHAPES = (1, 17, (3, 5), 65, 130, (2, 2, 2))


# --- torch's side -------------------------------------------------------------------------------------------


class TorchTail:
    """torch's SGD and averages, over copies of the parameters of an optimizer that has made no step."""

    def __init__(self, ours: FusedCyclicSGD, schedules: Sequence[CyclicSchedule], *, foreach: bool = False) -> None:
        self.sgd, self.over = sgd_beside(ours, foreach=foreach)
        self.schedules = schedules
        self.applied = 0  # of SGD's updates
        self.position = 0  # on the schedules
        self.sgd.register_step_post_hook(self._count)
        settings = [(group["ema_decay"], group["ema_warmup"], group["average"]) for group in ours.param_groups]
        self.models = [nn.ParameterList(group["params"]) for group in self.sgd.param_groups]
        self.averages = [averaged(model, *each) for model, each in zip(self.models, settings, strict=True)]
        self.snapshots = [average == "swa" for *_, average in settings]

    def _count(self, *_: object) -> None:
        self.applied += 1

    def step(
        self, scaler: torch.amp.GradScaler, coefficient: float, limit: float | None, *, advance_on_skip: bool = False
    ) -> None:
        """Does everything but ``scaler.update()``, which is called once for all optimizers."""
        for group, schedule in zip(self.sgd.param_groups, self.schedules, strict=True):
            group["lr"], group["momentum"] = schedule(self.position)
        scaler.unscale_(self.sgd)
        gradients = [p.grad for p in self.over if p.grad is not None]
        for gradient in gradients:
            gradient.mul_(coefficient)
        if limit is not None:
            torch.nn.utils.clip_grad_value_(self.over, limit)
        before = self.applied
        scaler.step(self.sgd)
        if self.applied > before:
            self.position += 1
            self._average()
        elif advance_on_skip:
            self.position += 1

    def _average(self) -> None:
        length = self.schedules[0].step_size_up + (self.schedules[0].step_size_down or self.schedules[0].step_size_up)
        at_cycle_end = self.position % length == 0
        for model, average, snapshot in zip(self.models, self.averages, self.snapshots, strict=True):
            if average is not None and (at_cycle_end or not snapshot):
                average.update_parameters(model)

    def averaged_weights(self) -> list[Tensor | None]:
        """Returns the averages of all parameters, None for those without an average."""
        found: list[Tensor | None] = []
        for model, average in zip(self.models, self.averages, strict=True):
            taken = average is not None and int(average.n_averaged) > 0
            found.extend(average.parameters() if average is not None and taken else [None] * len(model))
        return found


def averaged(model: nn.Module, decay: float | None, warmup: bool, average: str | None) -> AveragedModel | None:
    if decay is not None:
        return AveragedModel(model, multi_avg_fn=_ema(decay, warmup))
    if average is not None:
        snapshots = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]  # untyped in torch
        # A count as a tensor makes torch round the weight to float32.
        return AveragedModel(model, multi_avg_fn=lambda a, p, count: snapshots(a, p, int(count)))
    return None


def _ema(decay: float, warmup: bool) -> Average:
    def update(averages: Any, weights: Any, count: Any) -> None:
        n = int(count)
        now = min(decay, (1 + n) / (10 + n)) if warmup else decay
        get_ema_multi_avg_fn(now)(averages, weights, count)  # type: ignore[no-untyped-call]  # untyped in torch

    return update


# --- both ---------------------------------------------------------------------------------------------------


ARGUMENTS = [
    *(
        "nesterov",
        "dampening",
        "weight_decay",
        "maximize",
        "max_grad_norm",
        "max_grad_value",
        "ema_decay",
        "ema_warmup",
    ),
    *("average", "write_unscaled_grad", "advance_on_skip", "skip_nonfinite", "error_if_nonfinite"),
]


@dataclass(frozen=True)
class Case:
    """The features that a user can switch on, and how torch is asked for the same."""

    nesterov: bool = False
    dampening: float = 0.0
    weight_decay: float = 0.0
    maximize: bool = False
    max_grad_norm: float | None = None
    max_grad_value: float | None = None
    ema_decay: float | None = None
    ema_warmup: bool = False
    average: str | None = None
    write_unscaled_grad: bool = False
    advance_on_skip: bool = False
    skip_nonfinite: bool = False
    error_if_nonfinite: bool = False
    shapes: tuple[Shape, ...] = SHAPES
    groups: int = 1
    each: tuple[dict[str, Any], ...] = ({}, {}, {})  # settings of each group's own
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)  # given to the parameters in turn
    gaps: bool = False  # some parameters have no gradient in some steps
    foreach: bool = False
    own_scaler: bool = True  # clr_native's, else torch's
    in_step: bool = True  # our step unscales and skips under torch's scaler too
    by_hand: bool = False  # scaler.unscale_() before the step
    growth_factor: float = 2.0
    growth_interval: int = 5
    seed: int = 0
    overflow: float = float("inf")

    def optimizer(self) -> FusedCyclicSGD:
        over = parameters(self.shapes, torch.float64, seed=self.seed)
        typed = [p.detach().to(self.dtypes[i % len(self.dtypes)]).requires_grad_() for i, p in enumerate(over)]
        groups = [
            {"params": typed[i :: self.groups], "schedule": SCHEDULES[i], **self.each[i]} for i in range(self.groups)
        ]
        arguments = {name: getattr(self, name) for name in ARGUMENTS}
        return FusedCyclicSGD(groups, grad_scale_in_step=self.in_step, **arguments)

    @property
    def skips_reach_us(self) -> bool:
        return self.own_scaler or self.in_step

    def scaler(self, *, own: bool) -> torch.amp.GradScaler:
        """Returns a scaler whose scale keeps moving."""
        kind = GradScaler if own else torch.amp.GradScaler
        scaler = kind("cpu", init_scale=2.0**10, growth_factor=self.growth_factor, growth_interval=self.growth_interval)
        scaler.scale(torch.ones(()))
        return scaler


@dataclass
class Side:
    """One of our optimizers with torch's chain, and the gradients that both get."""

    case: Case
    ours: FusedCyclicSGD = field(init=False)
    theirs: TorchTail = field(init=False)
    overflows: tuple[int, ...] = OVERFLOWS
    sets: list[list[Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self.ours = self.case.optimizer()
        self.theirs = TorchTail(self.ours, SCHEDULES[: self.case.groups], foreach=self.case.foreach)
        self.steps = 0
        self.over = every_parameter(self.ours)
        self.sets = gradient_sets(self.over, 7, seed=self.case.seed + 1)

    def gradients(self, step: int, scale: float) -> Gradients:
        """Returns the gradients that backward() of the scaled loss would leave."""
        scaled: list[Tensor | None] = [g * scale for g in self.sets[step % len(self.sets)]]
        if step in self.overflows:
            broken = scaled[step % len(scaled)]
            assert broken is not None
            broken.view(-1)[-1] = self.case.overflow
        elif self.case.gaps:
            scaled = [g if (step + 2 * i) % 5 else None for i, g in enumerate(scaled)]
        return scaled

    def step(self, step: int, own: torch.amp.GradScaler, torchs: torch.amp.GradScaler) -> None:
        self.steps += 1
        gradients = self.gradients(step, own.get_scale())
        give(self.over, gradients)
        give(self.theirs.over, [None if g is None else g.clone() for g in gradients])
        if self.case.by_hand:
            own.unscale_(self.ours)
        own.step(self.ours)
        coefficient = self.ours._binding.native.clip_coefficient
        advance_on_skip = self.case.advance_on_skip and self.case.skips_reach_us
        self.theirs.step(torchs, coefficient, self.case.max_grad_value, advance_on_skip=advance_on_skip)

    def assert_same(self) -> None:
        skipped = self.steps - self.theirs.applied
        assert self.ours.skipped_steps == (skipped if self.case.skips_reach_us else 0)
        assert self.ours.applied_steps == self.theirs.position
        averages = self.theirs.averaged_weights()
        for i, (p, q, average) in enumerate(zip(self.over, self.theirs.over, averages, strict=True)):
            assert torch.equal(p, q), f"weight {i} of shape {tuple(p.shape)}"
            for name, theirs in (("momentum_buffer", buffer_of(self.theirs.sgd, q)), ("average", average)):
                own = self.ours.state.get(p, {}).get(name)
                assert (own is None) == (theirs is None), f"{name} {i}"
                assert own is None or theirs is None or torch.equal(own, theirs), f"{name} {i} of {tuple(p.shape)}"


@dataclass
class Twins:
    """Two equal SGDs of torch, one on each scaler. They test our scaler with optimizers that are not ours."""

    overflows: tuple[int, ...]

    def __post_init__(self) -> None:
        self.over, self.others = parameters(SHAPES), parameters(SHAPES)
        self.sgds = [SGD(over, lr=0.05, momentum=0.9) for over in (self.over, self.others)]
        self.sets = gradient_sets(self.over, 7)

    def step(self, step: int, own: torch.amp.GradScaler, torchs: torch.amp.GradScaler) -> None:
        for sgd, scaler in zip(self.sgds, (own, torchs), strict=True):
            gradients = [g * scaler.get_scale() for g in self.sets[step % 7]]
            if step in self.overflows:
                gradients[1][3] = float("nan")
            give(every_parameter(sgd), gradients)
            scaler.step(sgd)

    def assert_same(self) -> None:
        assert_same_training(*self.sgds)


def train_beside_torch(sides: Sequence[Side | Twins], steps: int) -> None:
    """Trains all sides on one scaler of each kind. Compares the scalers at every step, and the rest at the end."""
    case = next(side.case for side in sides if isinstance(side, Side))
    own, torchs = case.scaler(own=case.own_scaler), case.scaler(own=False)
    for step in range(steps):
        for side in sides:
            side.step(step, own, torchs)
        own.update()
        torchs.update()
        assert own.state_dict() == torchs.state_dict(), f"step {step}"
    for side in sides:
        side.assert_same()
        assert all(torch.isfinite(p).all() for p in side.over)
