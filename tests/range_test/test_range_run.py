"""How the range test trains: at which rates, on which batches, and what it measures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from clr_native import FusedCyclicSGD, RampSchedule, lr_range_test
from range_helpers import Batch, batches, linear, mse, network, quick, trial

DATA = batches(dtype=torch.float64)


def by_hand(count: int, rates: list[float], momentum: float = 0.0, accumulate: int = 1) -> list[float]:
    """The losses of a plain loop."""
    model = linear()
    optimizer = SGD(model.parameters(), lr=1.0, momentum=momentum)
    losses, batch = [], 0
    for step in range(count):
        optimizer.zero_grad()
        parts = []
        for _ in range(accumulate):
            inputs, targets = DATA[batch % len(DATA)]
            batch += 1
            loss = mse(model(inputs), targets)
            (loss / accumulate).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            parts.append(loss.item())
        losses.append(sum(parts) / accumulate)
        optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.step()
    return losses


@pytest.mark.parametrize("ramp", ["linear", "exponential"])
def test_it_is_a_plain_loop_under_the_ramp_and_the_loader_starts_again(ramp: str) -> None:
    result = trial(linear(), ramp=ramp, num_steps=20)
    rates, _ = RampSchedule(1e-3, 1e-1, 19, ramp=ramp).values(20)
    assert result.lr.tolist() == result.group_lr[0].tolist() == rates.tolist()
    assert (result.lr[0], result.lr[-1]) == (1e-3, 1e-1)
    assert result.loss.tolist() == by_hand(20, rates.tolist())
    assert result.stopped == "the end of the ramp, lr=0.1"
    assert result.metric is None
    assert result.val_loss is None


def test_batches_are_accumulated() -> None:
    model = linear()
    result = trial(model, optimizer=SGD(model.parameters(), lr=7.0, momentum=0.5), accumulate=3)
    assert result.loss.tolist() == by_hand(6, result.lr.tolist(), 0.5, accumulate=3)


def test_momentum_is_constant_during_the_test() -> None:
    rates = RampSchedule(1e-3, 1e-1, 5, ramp="exponential").values(6)[0].tolist()
    for given in (None, 0.25):
        model = linear()
        sgd = SGD(model.parameters(), lr=7.0, momentum=0.9)
        result = lr_range_test(model, sgd, mse, DATA, momentum=given, **quick())
        assert result.loss.tolist() == by_hand(6, rates, 0.9 if given is None else given)
        assert sgd.param_groups[0]["momentum"] == 0.9


def test_the_schedule_of_fused_cyclic_sgd_gives_way() -> None:
    """The losses are those of torch's SGD at the ramp's rates, at every position of the schedule."""
    for position in (0, 3):
        model = linear()
        optimizer = FusedCyclicSGD(model.parameters(), base_lr=0.01, max_lr=1.0, step_size_up=4)
        optimizer.seek(position)
        momentum = optimizer.get_last_momentum()[0]
        seen: list[tuple[float, float]] = []

        def note(opt: Optimizer, *_: object, seen: list[tuple[float, float]] = seen) -> None:
            seen.append((opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]))

        optimizer.register_step_pre_hook(note)
        result = trial(model, optimizer=optimizer, num_steps=9)
        assert seen == [(lr, momentum) for lr in result.lr]
        assert result.loss.tolist() == by_hand(9, result.lr.tolist(), momentum)
        assert optimizer.applied_steps == position


def test_adams_first_beta_is_its_momentum() -> None:
    model = linear()
    adam = Adam(model.parameters(), betas=(0.9, 0.99))
    seen = []
    adam.register_step_pre_hook(lambda opt, *_: seen.append(opt.param_groups[0]["betas"]))
    lr_range_test(model, adam, mse, DATA, momentum=0.5, **quick())
    assert seen == [(0.5, 0.99)] * 6
    assert adam.param_groups[0]["betas"] == (0.9, 0.99)
    with pytest.raises(ValueError, match=r"momentum=0\.5: parameter group 0 has neither"):
        lr_range_test(model, torch.optim.Adagrad(model.parameters()), mse, DATA, momentum=0.5, **quick())


def grouped(kind: str, rates: list[float]) -> tuple[nn.Module, Optimizer]:
    model = network()
    parts: list[list[Tensor]] = [[*model.first.parameters()], [*model.last.parameters()]]
    if kind == "FusedCyclicSGD":
        groups = [{"params": p, "base_lr": 0.0, "max_lr": lr} for p, lr in zip(parts, rates, strict=True)]
        return model, FusedCyclicSGD(groups)
    sgd = SGD([{"params": p, "lr": lr} for p, lr in zip(parts, rates, strict=True)], lr=1.0)
    if kind == "warm-up":
        torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: step / 10)
    if kind == "tensors":
        for group in sgd.param_groups:
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)
    return model, sgd


@pytest.mark.parametrize("kind", ["SGD", "FusedCyclicSGD", "warm-up", "tensors"])
@pytest.mark.parametrize(
    ("rates", "ratios"), [([0.5, 0.05], [1.0, 0.1]), ([0.0, 0.3], [0.0, 1.0]), ([0.0, 0.0], [1.0, 1.0])], ids=str
)
def test_ratios_between_groups_are_kept(kind: str, rates: list[float], ratios: list[float]) -> None:
    model, optimizer = grouped(kind, rates)
    seen = []
    optimizer.register_step_pre_hook(lambda opt, *_: seen.append([float(g["lr"]) for g in opt.param_groups]))
    result = trial(model, optimizer=optimizer)
    assert result.group_lr.tolist() == [(ratio * result.lr).tolist() for ratio in ratios]
    assert seen == result.group_lr.T.tolist()


# --- what a batch may be, and who trains ---------------------------------------------------------------------------


def test_step_fn_takes_any_batch() -> None:
    model = linear()
    dicts = [{"x": inputs, "more": {"y": targets}} for inputs, targets in DATA]

    def step_fn(batch: dict[str, Any]) -> Tensor:
        return mse(model(batch["x"]), batch["more"]["y"])[None]  # one element will do

    result = trial(model, None, dicts, step_fn=step_fn)
    assert result.loss.tolist() == by_hand(6, result.lr.tolist())


def test_train_step_does_everything() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), lr=1.0)

    def train_step(batch: Batch) -> float:
        optimizer.zero_grad()
        loss = mse(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        optimizer.step()
        return loss.item()

    result = lr_range_test(model, optimizer, None, DATA, train_step=train_step, **quick())
    assert result.loss.tolist() == by_hand(6, result.lr.tolist())


def test_the_scaler_scales() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    result = trial(linear(), scaler=scaler)
    assert result.loss.tolist() == by_hand(6, result.lr.tolist())  # a power of two scales without rounding


def test_batches_go_where_the_model_is_or_device_says() -> None:
    """The meta device stands for another one: nothing can be computed there, but tensors can be sent to it."""
    model = linear()
    seen = []

    def step_fn(batch: list[Any]) -> Tensor:
        seen.append((batch[0].device.type, batch[1]["y"][0].device.type, batch[2]))
        return model.weight.sum()

    loader = [[inputs, {"y": (targets,)}, "name"] for inputs, targets in DATA]
    for device, expected in ((None, "cpu"), ("meta", "meta")):
        seen.clear()
        trial(model, None, loader, step_fn=step_fn, device=device)
        assert set(seen) == {(expected, expected, "name")}


def test_modes_are_those_found_and_a_model_in_eval_mode_is_trained() -> None:
    model = network()
    seen = []
    model.last.register_forward_hook(
        lambda *_: seen.append((model.training, model.norm.training, model.frozen_norm.training))
    )
    sgd = SGD(model.parameters(), lr=1.0)
    trial(model, optimizer=sgd)
    model.eval()
    trial(model, optimizer=sgd)
    assert seen == [(True, True, False)] * 6 + [(True, True, True)] * 6


# --- metric and validation -------------------------------------------------------------------------------------------


def negative_error(outputs: Tensor, targets: Tensor) -> Tensor:
    assert not torch.is_grad_enabled()
    return -(outputs - targets).abs().mean()


def test_metric_of_the_training_batches() -> None:
    model = linear()
    outputs = model(DATA[0][0]).detach()
    result = trial(model, metric=negative_error)
    assert result.metric is not None
    assert result.metric.shape == (6,)
    assert result.metric[0] == -(outputs - DATA[0][1]).abs().mean().item()


def test_metric_of_a_batch_is_taken_in_eval_mode_before_the_update() -> None:
    model = network()
    seen = []

    def metric(batch: Batch) -> float:
        seen.append((model.training, torch.is_grad_enabled(), model.first.weight.sum().item()))
        return 0.5

    start = model.first.weight.sum().item()
    result = trial(model, None, batches(), metric=metric, step_fn=lambda b: mse(model(b[0]), b[1]))
    assert seen[0] == (False, False, start)
    assert len({each for *_, each in seen}) == 6
    assert result.metric is not None
    assert result.metric.tolist() == [0.5] * 6


def test_validation_is_the_mean_over_its_loader_after_the_update() -> None:
    result = trial(linear(), val_loader=DATA[:2], val_every=4, metric=negative_error, num_steps=10)
    assert result.val_loss is not None
    assert result.metric is not None
    taken = [3, 7, 9]
    assert np.flatnonzero(~np.isnan(result.val_loss)).tolist() == taken
    assert np.flatnonzero(~np.isnan(result.metric)).tolist() == taken
    assert result.loss.tolist() == by_hand(10, result.lr.tolist())

    twin = linear()
    other = SGD(twin.parameters(), lr=1.0)
    for step in range(4):
        other.zero_grad()
        mse(twin(DATA[step][0]), DATA[step][1]).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        other.param_groups[0]["lr"] = result.lr[step]
        other.step()
    assert result.val_loss[3] == sum(mse(twin(x), y).item() for x, y in DATA[:2]) / 2


# --- repetitions -----------------------------------------------------------------------------------------------------


def test_repeats_start_from_the_same_weights_with_further_batches() -> None:
    model = linear()
    sgd = SGD(model.parameters(), lr=1.0, momentum=0.9)
    result = trial(model, mse, DATA[:4], optimizer=sgd, repeats=2)
    assert result.losses.shape == (2, 6)
    first, second = (mse(model(DATA[i][0]), DATA[i][1]).item() for i in (0, 6 % 4))
    assert result.losses[:, 0].tolist() == [first, second]
    assert result.loss.tolist() == result.losses.mean(axis=0).tolist()
    alone = trial(model, mse, DATA[2:4] + DATA[:2], optimizer=sgd)
    assert result.losses[1].tolist() == alone.loss.tolist()


def test_of_repeats_of_different_lengths_the_common_part_is_kept() -> None:
    model = linear()
    calls = 0

    def step_fn(batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        return model.weight.sum() * (math.nan if calls in (6 + 4, 6 + 4 + 6) else 1.0)

    result = trial(model, None, DATA, step_fn=step_fn, repeats=3)
    assert result.losses.shape == (3, 3)
    assert result.lr.shape == (3,)
    assert result.stopped.startswith("repeat 2 of 3: loss=nan is not finite at step 3, lr=0.0158489")
