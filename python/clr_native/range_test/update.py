"""One update of a range test, in each of the ways in which a user may put it, and the loss on validation data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clr_native.range_test.batches import Batches, lent
from clr_native.range_test.distributed import mean_over_ranks, on_all_ranks
from clr_native.range_test.memory import Memory
from clr_native.sgd.optimizer import FusedCyclicSGD

LossFn: TypeAlias = Callable[[Any, Any], Tensor]
Metric: TypeAlias = Callable[..., Any]
StepFn: TypeAlias = Callable[[Any], Tensor]
TrainStep: TypeAlias = Callable[[Any], Any]


class Scaler(Protocol):
    """The part of a GradScaler that is used."""

    def scale(self, outputs: Tensor) -> Tensor: ...
    def step(self, optimizer: Optimizer) -> Any: ...
    def update(self) -> None: ...


class Measured(NamedTuple):
    """Loss and metric of an update's batches, or means over the validation data; the metric is NaN without one."""

    loss: float
    metric: float


@dataclass(frozen=True)
class TrainingLoop:
    """The user's side of the training loop."""

    model: nn.Module
    optimizer: Optimizer
    loss_fn: LossFn | None
    metric: Metric | None
    step_fn: StepFn | None
    train_step: TrainStep | None
    scaler: Scaler | None
    accumulate: int

    def update(self, batches: Batches, *, measure: bool) -> Measured:
        """Train on the next batches, and `measure` the metric on them, if there is one.

        After a loss that is not finite, on any rank, nothing is updated.
        """
        if self.train_step is not None:
            with on_all_ranks(), batches.next() as batch:
                metric = self._metric_of_batch(batch) if measure else math.nan
                trained_at = float(self.train_step(batch))
            return Measured(*mean_over_ranks(trained_at, metric))
        self.optimizer.zero_grad()
        measured = []
        for _ in range(self.accumulate):
            with ExitStack() as lent_batch:
                with on_all_ranks():
                    batch = lent_batch.enter_context(batches.next())
                with on_all_ranks():
                    loss, metric = self._forward(batch, measure)
                measured.append((float(loss.detach()), metric))
                share = loss / self.accumulate if self.accumulate > 1 else loss
                share = share if self.scaler is None else self.scaler.scale(share)
                share.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        mean = Measured(*mean_over_ranks(*_means(measured)))
        if math.isfinite(mean.loss):
            if self.scaler is None:
                self.optimizer.step()
            else:
                self.scaler.step(self.optimizer)
                self.scaler.update()
        return mean

    def validate(self, loader: Iterable[Any], device: torch.device | None, memory: Memory) -> Measured:
        """Returns means over the batches of `loader`, in eval mode and without gradients."""
        with on_all_ranks(), _evaluating(self.model):
            measured = []
            for batch in loader:
                with lent(batch, device, memory) as there:
                    loss, metric = self._forward(there, measure=True)
                    measured.append((float(loss.detach()), metric))
            if not measured:
                raise ValueError(f"val_loader={loader!r} gives no batch: pass a DataLoader or a list of batches")
        return Measured(*mean_over_ranks(*_means(measured)))

    def _forward(self, batch: Any, measure: bool) -> tuple[Tensor, float]:
        if self.step_fn is not None:
            metric = self._metric_of_batch(batch) if measure else math.nan
            return _checked_loss(self.step_fn(batch), "step_fn(batch)"), metric
        assert self.loss_fn is not None  # the arguments were checked: one of the two is given
        inputs, targets = _pair(batch)
        outputs = self.model(inputs)
        loss = _checked_loss(self.loss_fn(outputs, targets), "loss_fn(outputs, targets)")
        if not measure or self.metric is None:
            return loss, math.nan
        with torch.no_grad():
            return loss, float(self.metric(outputs, targets))

    def _metric_of_batch(self, batch: Any) -> float:
        """Returns the metric of a batch. step_fn and train_step keep their outputs, so the metric gets the batch."""
        if self.metric is None:
            return math.nan
        with _evaluating(self.model):
            return float(self.metric(batch))


@contextmanager
def unremarked(optimizer: Optimizer) -> Iterator[None]:
    """Silences the warnings of FusedCyclicSGD about its use inside the block.

    The test writes the rate before each update, and a step_fn may leave parameters without gradients: neither is a
    mistake of the user.
    """
    if not isinstance(optimizer, FusedCyclicSGD):
        yield
        return
    native = optimizer._binding.native
    native.set_warns(False)
    try:
        yield
    finally:
        native.set_warns(True)


def _means(measured: Sequence[tuple[float, float]]) -> tuple[float, float]:
    losses, metrics = zip(*measured, strict=True)
    return sum(losses) / len(measured), sum(metrics) / len(measured)


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    kind = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list, dict)) else type(batch).__name__
    raise TypeError(
        f"loader gives a {kind} where (inputs, targets) is expected: pass step_fn=, which gets the batch "
        "and returns the loss"
    )


def _checked_loss(loss: object, source: str) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = f" of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
        raise TypeError(f"{source} gives a {type(loss).__name__}{shape}: it must be a tensor with one element")
    return loss.reshape(())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Sets eval mode without gradients inside the block. Afterwards every submodule has its former mode."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
