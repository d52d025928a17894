"""How the range test trains: at which rates, on which batches, what it measures and when it ends."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import pytest
import rich.console
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from clr_native import CyclicSchedule, FusedCyclicSGD, RampSchedule, RangeTestResult, lr_range_test
from clr_native.range_test.stopping import Divergence
from range_helpers import Batch, batches, mse, network, quick


def linear(dtype: torch.dtype = torch.float64) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(4, 2, dtype=dtype)


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
            (loss / accumulate).backward()  # type: ignore[no-untyped-call]
            parts.append(loss.item())
        losses.append(sum(parts) / accumulate)
        optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.step()
    return losses


@pytest.mark.parametrize("ramp", ["linear", "exponential"])
def test_it_is_a_plain_loop_under_the_ramp_and_the_loader_starts_again(ramp: str) -> None:
    model = linear()
    result = lr_range_test(model, SGD(model.parameters(), lr=7.0), mse, DATA, ramp=ramp, **quick(num_steps=20))
    rates, _ = RampSchedule(1e-3, 1e-1, 19, ramp=ramp).values(20)
    assert result.lr.tolist() == result.group_lr[0].tolist() == rates.tolist()
    assert (result.lr[0], result.lr[-1]) == (1e-3, 1e-1)
    assert result.loss.tolist() == by_hand(20, rates.tolist())
    assert result.stopped == "the end of the ramp, lr=0.1"
    assert result.metric is None
    assert result.val_loss is None


def test_batches_are_accumulated() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), lr=7.0, momentum=0.5)
    result = lr_range_test(model, optimizer, mse, DATA, accumulate=3, **quick())
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
        result = lr_range_test(model, optimizer, mse, DATA, **quick(num_steps=9))
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
    result = lr_range_test(model, optimizer, mse, batches(), **quick())
    assert result.group_lr.tolist() == [(ratio * result.lr).tolist() for ratio in ratios]
    assert seen == result.group_lr.T.tolist()


# --- what a batch may be, and who trains ---------------------------------------------------------------------------


def test_step_fn_takes_any_batch() -> None:
    model = linear()
    dicts = [{"x": inputs, "more": {"y": targets}} for inputs, targets in DATA]

    def step_fn(batch: dict[str, Any]) -> Tensor:
        return mse(model(batch["x"]), batch["more"]["y"])[None]  # one element will do

    result = lr_range_test(model, SGD(model.parameters(), lr=1.0), None, dicts, step_fn=step_fn, **quick())
    assert result.loss.tolist() == by_hand(6, result.lr.tolist())


def test_train_step_does_everything() -> None:
    model = linear()
    optimizer = SGD(model.parameters(), lr=1.0)

    def train_step(batch: Batch) -> float:
        optimizer.zero_grad()
        loss = mse(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    result = lr_range_test(model, optimizer, None, DATA, train_step=train_step, **quick())
    assert result.loss.tolist() == by_hand(6, result.lr.tolist())


def test_the_scaler_scales() -> None:
    model = linear()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    result = lr_range_test(model, SGD(model.parameters(), lr=1.0), mse, DATA, scaler=scaler, **quick())
    assert result.loss.tolist() == by_hand(6, result.lr.tolist())  # a power of two scales without rounding


def test_batches_go_where_the_model_is_or_device_says() -> None:
    """The meta device stands for another one: nothing can be computed there, but tensors can be sent to it."""
    model = linear()
    seen = []

    def step_fn(batch: list[Any]) -> Tensor:
        seen.append((batch[0].device.type, batch[1]["y"][0].device.type, batch[2]))
        return model.weight.sum()

    loader = [[inputs, {"y": (targets,)}, "name"] for inputs, targets in DATA]
    sgd = SGD(model.parameters(), lr=1.0)
    for device, expected in ((None, "cpu"), ("meta", "meta")):
        seen.clear()
        lr_range_test(model, sgd, None, loader, step_fn=step_fn, device=device, **quick())
        assert set(seen) == {(expected, expected, "name")}


def test_modes_are_those_found_and_a_model_in_eval_mode_is_trained() -> None:
    model = network()
    seen = []
    model.last.register_forward_hook(
        lambda *_: seen.append((model.training, model.norm.training, model.frozen_norm.training))
    )
    sgd = SGD(model.parameters(), lr=1.0)
    lr_range_test(model, sgd, mse, batches(), **quick())
    model.eval()
    lr_range_test(model, sgd, mse, batches(), **quick())
    assert seen == [(True, True, False)] * 6 + [(True, True, True)] * 6


# --- metric and validation -------------------------------------------------------------------------------------------


def negative_error(outputs: Tensor, targets: Tensor) -> Tensor:
    assert not torch.is_grad_enabled()
    return -(outputs - targets).abs().mean()


def test_metric_of_the_training_batches() -> None:
    model = linear()
    outputs = model(DATA[0][0]).detach()
    result = lr_range_test(model, SGD(model.parameters(), lr=1.0), mse, DATA, metric=negative_error, **quick())
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
    sgd = SGD(model.parameters(), lr=1.0)
    result = lr_range_test(
        model, sgd, None, batches(), metric=metric, step_fn=lambda b: mse(model(b[0]), b[1]), **quick()
    )
    assert seen[0] == (False, False, start)
    assert len({each for *_, each in seen}) == 6
    assert result.metric is not None
    assert result.metric.tolist() == [0.5] * 6


def test_validation_is_the_mean_over_its_loader_after_the_update() -> None:
    model = linear()
    sgd = SGD(model.parameters(), lr=1.0)
    result = lr_range_test(
        model, sgd, mse, DATA, val_loader=DATA[:2], val_every=4, metric=negative_error, **quick(num_steps=10)
    )
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
        mse(twin(DATA[step][0]), DATA[step][1]).backward()  # type: ignore[no-untyped-call]
        other.param_groups[0]["lr"] = result.lr[step]
        other.step()
    assert result.val_loss[3] == sum(mse(twin(x), y).item() for x, y in DATA[:2]) / 2


# --- repetitions -----------------------------------------------------------------------------------------------------


def test_repeats_start_from_the_same_weights_with_further_batches() -> None:
    model = linear()
    result = lr_range_test(model, SGD(model.parameters(), lr=1.0, momentum=0.9), mse, DATA[:4], repeats=2, **quick())
    assert result.losses.shape == (2, 6)
    first, second = (mse(model(DATA[i][0]), DATA[i][1]).item() for i in (0, 6 % 4))
    assert result.losses[:, 0].tolist() == [first, second]
    assert result.loss.tolist() == result.losses.mean(axis=0).tolist()
    alone = lr_range_test(model, SGD(model.parameters(), lr=1.0, momentum=0.9), mse, DATA[2:4] + DATA[:2], **quick())
    assert result.losses[1].tolist() == alone.loss.tolist()


def test_of_repeats_of_different_lengths_the_common_part_is_kept() -> None:
    model = linear()
    calls = 0

    def step_fn(batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        return model.weight.sum() * (math.nan if calls in (6 + 4, 6 + 4 + 6) else 1.0)

    sgd = SGD(model.parameters(), lr=1.0)
    result = lr_range_test(model, sgd, None, DATA, step_fn=step_fn, repeats=3, **quick())
    assert result.losses.shape == (3, 3)
    assert result.lr.shape == (3,)
    assert result.stopped.startswith("repeat 2 of 3: loss=nan is not finite at step 3, lr=0.0158489")


# --- when it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_it(bad: float) -> None:
    model = linear()
    losses = iter([3.0, 2.0, bad])
    steps = []
    sgd = SGD(model.parameters(), lr=1.0)
    sgd.register_step_pre_hook(lambda *_: steps.append(1))
    result = lr_range_test(
        model, sgd, None, DATA, step_fn=lambda batch: model.weight.sum() * 0 + next(losses), **quick()
    )
    assert result.loss.tolist() == [3.0, 2.0]
    assert result.stopped == f"loss={bad} is not finite at step 2, lr=0.00630957"
    assert len(steps) == 2


def test_a_validation_loss_that_is_not_finite_ends_it() -> None:
    model = linear()

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = mse(outputs, targets)
        return loss if torch.is_grad_enabled() else loss * math.inf

    result = lr_range_test(
        model, SGD(model.parameters(), lr=1.0), loss_fn, DATA, val_loader=DATA, val_every=2, **quick()
    )
    assert result.stopped == "validation loss=inf is not finite at step 1, lr=0.00251189"
    assert len(result.lr) == 1


def test_real_divergence_ends_it() -> None:
    model = linear(torch.float32)
    result = lr_range_test(model, SGD(model.parameters(), lr=1.0), mse, batches())
    assert "times its range" in result.stopped
    assert 20 < len(result.lr) < 100
    assert np.isfinite(result.loss).all()
    assert result.loss[-1] > 4 * result.loss.min()


def ends_at(losses: np.ndarray[Any, np.dtype[np.float64]], factor: float = 4.0) -> int | None:
    divergence = Divergence(factor)
    return next((step for step, loss in enumerate(losses.tolist()) if divergence.sees(loss)), None)


def test_divergence_is_judged_by_range() -> None:
    step = np.arange(80.0)
    falls = 2.0 - 1.6 / (1.0 + np.exp(-(step - 40.0) / 3.0))
    rises = falls + np.where(step > 60, (step - 60.0) ** 2, 0.0)
    assert ends_at(falls) is None
    end = ends_at(rises)
    assert end is not None
    assert 62 <= end <= 67
    # Moved to negative losses, and scaled, it ends at the same point; fastai's rule would end the first at once.
    assert ends_at(rises - 10.0) == ends_at(rises * 1e-6) == ends_at(1e3 * rises - 2e3) == end
    assert ends_at(rises, math.inf) is None
    assert ends_at(rises, 100.0) > end  # type: ignore[operator]  # both end


def test_one_ragged_batch_and_noise_do_not_end_it() -> None:
    noise = np.random.default_rng(0).standard_normal(1000)
    assert ends_at(2.3 + 0.1 * noise) is None
    assert ends_at(2.3 + 0.1 * noise, 2.0) is None
    ragged = 2.3 - 0.01 * np.arange(100.0)
    ragged[[50, 70]] = 1e6
    assert ends_at(ragged) is None
    assert ends_at(np.full(100, 0.5)) is None


# --- what is refused -------------------------------------------------------------------------------------------------


def one_walk() -> Iterator[Batch]:
    yield from DATA[:2]


def broken(*_: object) -> NoReturn:
    raise AssertionError("must not be called")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_steps": 1}, ValueError, "num_steps=1 must be at least 2"),
        ({"num_steps": 2.5}, ValueError, "num_steps=2.5 must be a whole number"),
        ({"start_lr": 0.2}, ValueError, "end_lr=0.1 must be above start_lr=0.2"),
        ({"start_lr": 0.0}, ValueError, "start_lr=0.0 must be above 0"),
        ({"ramp": "cosine"}, ValueError, "ramp='cosine' must be one of"),
        ({"momentum": 1.5}, ValueError, "momentum=1.5 must be"),
        ({"repeats": 0}, ValueError, "repeats=0 must be a whole number"),
        ({"accumulate": 0}, ValueError, "accumulate=0 must be a whole number"),
        ({"val_every": 2}, ValueError, "val_every=2 has no meaning without val_loader"),
        ({"stop_factor": 0.0}, ValueError, "stop_factor=0.0 must be above 0"),
        ({"stop_factor": math.nan}, ValueError, "stop_factor=nan must be above 0"),
        ({"stop_factor": "4"}, TypeError, "stop_factor='4' must be a number"),
        ({"progress": 1}, TypeError, "progress=1 must be True or False"),
        ({"loss_fn": None}, ValueError, "loss_fn=None: pass"),
        ({"loss_fn": 3}, TypeError, "loss_fn=3 must be a function"),
        ({"metric": 3}, TypeError, "metric=3 must be a function"),
        ({"step_fn": broken}, ValueError, "is not used with step_fn or train_step: pass None"),
        ({"step_fn": broken, "train_step": broken}, ValueError, "step_fn and train_step were both given"),
        ({"loss_fn": None, "train_step": broken, "accumulate": 2}, ValueError, "accumulate=2 has no meaning"),
        ({"loss_fn": None, "train_step": broken, "val_loader": DATA}, ValueError, "val_loader= has no meaning"),
        ({"model": 3}, TypeError, "model=3 must be a torch.nn.Module"),
        ({"optimizer": 3}, TypeError, "optimizer=3 must be a torch.optim.Optimizer"),
        ({"loader": []}, ValueError, r"loader=\[\] gives no batch"),
        ({"loader": [{"x": 1}]}, TypeError, "loader gives a dict of 1 where"),
        ({"loader": [(1, 2, 3)]}, TypeError, "loader gives a tuple of 3 where"),
        ({"val_loader": []}, ValueError, r"val_loader=\[\] gives no batch"),
        ({"loss_fn": lambda o, t: o}, TypeError, r"loss_fn.* gives a Tensor of shape \(8, 2\): it must be"),
        ({"loss_fn": lambda o, t: 1.0}, TypeError, "gives a float: it must be a tensor with one element"),
    ],
    ids=str,
)
def test_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    model = linear()
    weights = model.weight.tolist()
    arguments: dict[str, Any] = {
        "model": model,
        "optimizer": SGD(model.parameters(), lr=1.0),
        "loss_fn": mse,
        "loader": DATA,
    }
    with pytest.raises(error, match=message):
        lr_range_test(**(arguments | quick() | settings))
    assert model.weight.tolist() == weights


def test_a_loader_that_can_be_walked_through_once_is_told_apart() -> None:
    model = linear()
    sgd = SGD(model.parameters(), lr=1.0)
    assert len(lr_range_test(model, sgd, mse, one_walk(), **quick(num_steps=2)).lr) == 2
    with pytest.raises(ValueError, match="not an iterator that can be walked through once"):
        lr_range_test(model, sgd, mse, one_walk(), **quick())


def test_the_result_makes_a_schedule() -> None:
    lr = np.geomspace(1e-5, 1.0, 60)
    loss = 2.0 - 1.5 / (1.0 + (0.01 / lr) ** 2)
    result = RangeTestResult(lr, lr[None], loss[None], None, None, "the end")
    bounds = result.bounds(ratio=4)
    assert bounds.base_lr == bounds.max_lr / 4
    assert result.schedule(step_size_up=300, ratio=4, mode="triangular2") == CyclicSchedule(
        bounds.base_lr, bounds.max_lr, step_size_up=300, mode="triangular2"
    )
    assert result.suggest() == result.suggest("smith") == bounds.max_lr


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = linear()
    sgd = SGD(model.parameters(), lr=1.0)
    lr_range_test(model, sgd, mse, DATA, **quick())
    assert capsys.readouterr() == ("", "")

    terminal = io.StringIO()
    console = rich.console.Console(file=terminal, force_terminal=True, width=100)
    monkeypatch.setattr(rich.console, "Console", lambda **_: console)
    lr_range_test(model, sgd, mse, DATA, progress=False, **quick())
    assert terminal.getvalue() == ""
    lr_range_test(model, sgd, mse, DATA, **quick())
    assert "6/6" in terminal.getvalue()
    assert "lr 1.00e-01" in terminal.getvalue()


def test_without_rich_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    model = linear()
    assert len(lr_range_test(model, SGD(model.parameters(), lr=1.0), mse, DATA, **quick()).lr) == 6
