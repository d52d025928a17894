"""Smith's learning rate range test: a short run under a rising rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn
from torch.optim import Optimizer

from clr_native.checks import size
from clr_native.range_test.arguments import Settings, check_trained, ramp_of
from clr_native.range_test.batches import Batches, Device, device_for
from clr_native.range_test.groups import GroupRates
from clr_native.range_test.memory import Memory
from clr_native.range_test.progress import Show, shown
from clr_native.range_test.restore import undisturbed
from clr_native.range_test.result import RangeTestResult
from clr_native.range_test.stopping import Divergence
from clr_native.range_test.update import LossFn, Measured, Metric, Scaler, StepFn, TrainingLoop, TrainStep, unremarked
from clr_native.schedules.evaluate import FloatArray


def lr_range_test(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: LossFn | None = None,
    loader: Iterable[Any] | None = None,
    *,
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    num_steps: int = 100,
    ramp: str = "exponential",
    momentum: float | None = None,
    metric: Metric | None = None,
    val_loader: Iterable[Any] | None = None,
    val_every: int = 1,
    repeats: int = 1,
    accumulate: int = 1,
    stop_factor: float = 4.0,
    step_fn: StepFn | None = None,
    train_step: TrainStep | None = None,
    scaler: Scaler | None = None,
    device: Device | None = None,
    also_restore: object = (),
    progress: bool = True,
) -> RangeTestResult:
    """Train for some steps under a rising learning rate, record the loss at each, and leave everything as it was.

    Step s of the test is an optimizer update with ``lr = RampSchedule(start_lr, end_lr, num_steps - 1, ramp=ramp)(s)``.
    It ends early at the first loss that is not finite, and at divergence (see ``stop_factor``).

    Whatever can be reached from model, optimizer, scaler and the functions, batches and loaders, and the random states
    of Python, numpy and torch are afterwards what they were, bit for bit and in the same objects, also when the test
    raises or is interrupted. For that a copy is held during the test, but not of large data sets. docs/range_test.md
    says what that covers, and what cannot be put back.

    Args:
        model: trained in the modes its modules are in; put in training mode if the model itself is in eval mode.
        optimizer: any torch optimizer whose groups have an ``lr``. Ratios between the groups' rates are kept; ``lr`` is
            the largest of them. ``FusedCyclicSGD``'s schedule gives way for the test.
        loss_fn: ``loss_fn(model(inputs), targets)`` gives the loss, a tensor with one element. Left out with step_fn or
            train_step.
        loader: gives batches ``(inputs, targets)``; when it ends it is started again.
        start_lr, end_lr: the rates at the first and the last step.
        num_steps: optimizer updates, not epochs; at least 2.
        ramp: ``"exponential"``, or ``"linear"`` as in the paper.
        momentum: a constant momentum for the test (``momentum`` or the first of ``betas``); None: as it stands.
        metric: ``metric(outputs, targets)``, larger is better, such as an accuracy: the paper's curve. With step_fn and
            train_step it gets the batch: ``metric(batch)``, called before the update, in eval mode without gradients.
        val_loader, val_every: if given, loss and metric are also taken over all its batches after every
            ``val_every``-th update and the last, in eval mode, and the result speaks of them.
        repeats: how many times the test is run, each from the same weights but with further batches; losses are
            averaged, and ``bounds()`` has an interval.
        accumulate: batches per update; their losses are averaged.
        stop_factor: the test ends when the running median of five losses is this many times the loss's range above its
            best; the range is how far it had come down (see ``stopping.Divergence``). ``math.inf``: never.
        step_fn: ``step_fn(batch)`` gives the loss tensor of any kind of batch; backward and step are done here.
        train_step: ``train_step(batch)`` trains on the batch by itself, ``optimizer.step()`` included, and gives the
            loss as a number. It must not step a scheduler.
        scaler: a GradScaler, used for backward and step, except with train_step.
        device: where the tensors in batches are moved; None: where the model's first parameter is. Batches in which
            nothing has to move are passed on as they are.
        also_restore: a further object, or several in a tuple or list, that are to be as before: what train_step or
            step_fn train or change besides the model, where neither of them is a function through whose variables the
            object is reached.
        progress: show a bar on a terminal, if ``rich`` is installed.

    With an initialised process group every rank must call it: losses and metrics are averaged over the ranks, and all
    ranks return the same result. Gradients are the model's business (``DistributedDataParallel``). If a batch,
    the loss, train_step or validation raises on one rank, the test ends on all: RuntimeError on the others. An error
    between two collectives of the model itself, as in the forward pass of shards, leaves the others waiting until the
    process group's timeout.

    Raises:
        TypeError, ValueError: an argument, or what loader, loss_fn or step_fn give, cannot be used.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> batches = [(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]))]
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> before = model.weight.tolist()
    >>> result = lr_range_test(model, optimizer, torch.nn.functional.mse_loss, batches, end_lr=0.1, num_steps=30)
    >>> result.lr[[0, -1]].tolist(), result.stopped
    ([1e-07, 0.1], 'the end of the ramp, lr=0.1')
    >>> model.weight.tolist() == before, optimizer.param_groups[0]["lr"]
    (True, 0.1)

    Source: L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3.
    """
    if loader is None:
        raise TypeError("loader=None: pass the training batches, loader=...")
    schedule = ramp_of(start_lr, end_lr, num_steps, ramp, momentum)
    trained = TrainingLoop(
        model, optimizer, loss_fn, metric, step_fn, train_step, scaler, size("accumulate", accumulate)
    )
    check_trained(trained, val_loader)
    there = device_for(model, device)
    settings = Settings(schedule, num_steps, loader, val_loader, val_every, repeats, stop_factor, there, progress)
    rates = GroupRates(optimizer, schedule.momentum)
    lr, _ = schedule.values(settings.num_steps)
    runs: list[_Run] = []
    with (
        undisturbed(
            (model, optimizer, scaler, also_restore), (loss_fn, metric, step_fn, train_step), (loader, val_loader)
        ) as memory,
        unremarked(optimizer),
        closing(Batches(loader, there, memory)) as batches,
        shown(settings.progress, settings.num_steps * settings.repeats) as show,
    ):
        for _ in range(settings.repeats):
            if runs:
                memory.rewind()
            _begin(model, optimizer)
            runs.append(_run_once(trained, settings, rates, lr, batches, memory, show))
    return _result(lr, rates, runs, settings, with_metric=metric is not None)


@dataclass
class _Run:
    """One repetition: the values measured at each step up to the last finite loss, and why it ended."""

    losses: list[float] = field(default_factory=list)
    validated: list[Measured] = field(default_factory=list)
    metrics: list[float] = field(default_factory=list)
    stopped: str = ""


_NOT_TAKEN = Measured(math.nan, math.nan)


def _begin(model: nn.Module, optimizer: Optimizer) -> None:
    """Removes old gradients, and puts the model in training mode if it is in eval mode."""
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in (*model.parameters(), *held):
        parameter.grad = None
    if not model.training:
        model.train()


def _run_once(
    trained: TrainingLoop,
    settings: Settings,
    rates: GroupRates,
    lr: FloatArray,
    batches: Batches,
    memory: Memory,
    show: Show,
) -> _Run:
    run = _Run(stopped=f"the end of the ramp, lr={lr[-1]:.6g}")
    divergence = Divergence(settings.stop_factor)
    for step, rate in enumerate(lr.tolist()):
        rates.write(rate)
        measured = trained.update(batches, measure=settings.val_loader is None)
        validated = _NOT_TAKEN
        if settings.val_loader is not None and math.isfinite(measured.loss) and settings.validates_after(step):
            validated = trained.validate(settings.val_loader, settings.device, memory)
        for name, loss in (("loss", measured.loss), ("validation loss", validated.loss)):
            if not math.isfinite(loss) and not (name == "validation loss" and validated is _NOT_TAKEN):
                run.stopped = f"{name}={loss} is not finite at step {step}, lr={rate:.6g}"
                return run
        run.losses.append(measured.loss)
        run.validated.append(validated)
        run.metrics.append(measured.metric if settings.val_loader is None else validated.metric)
        show(rate, measured.loss)
        reason = divergence.observe(measured.loss)
        if reason is not None:
            run.stopped = f"{reason} at step {step}, lr={rate:.6g}"
            return run
    return run


def _result(
    lr: FloatArray, rates: GroupRates, runs: list[_Run], settings: Settings, *, with_metric: bool
) -> RangeTestResult:
    """Returns the result of the steps that every repetition reached."""
    shortest = min(range(len(runs)), key=lambda index: len(runs[index].losses))
    reached = len(runs[shortest].losses)

    def rows(values: Callable[[_Run], list[float]]) -> FloatArray:
        return np.array([values(run)[:reached] for run in runs], dtype=np.float64).reshape(len(runs), reached)

    which = f"repeat {shortest + 1} of {len(runs)}: " if len(runs) > 1 else ""
    validates = settings.val_loader is not None
    return RangeTestResult(
        lr=lr[:reached].copy(),
        group_lr=rates.rates(lr[:reached]),
        losses=rows(lambda run: run.losses),
        val_losses=rows(lambda run: [each.loss for each in run.validated]) if validates else None,
        metrics=rows(lambda run: run.metrics) if with_metric else None,
        stopped=which + runs[shortest].stopped,
    )
