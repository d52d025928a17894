"""A torch pair taken over in mid run, and given back: training goes on as it would have."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CyclicLR, ExponentialLR

from clr_native import CyclicSchedule, FusedCyclicSGD, RampSchedule

SIZES = (1, 7, 16, 33, 129)
STEPS = 60

MODES: dict[str, dict[str, Any]] = {
    "triangular": {"step_size_up": 7},
    "triangular2": {"step_size_up": 5, "step_size_down": 11, "mode": "triangular2"},
    "exp_range": {"step_size_up": 9, "mode": "exp_range", "gamma": 0.995},
    "scale_fn": {"step_size_up": 4, "scale_fn": lambda x: 1 / (1 + x), "scale_mode": "iterations"},
    "no momentum cycle": {"step_size_up": 6, "cycle_momentum": False},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "dampened": {"momentum": 0.8, "dampening": 0.3, "maximize": True},
}

NOT_WHOLE: Any = 2.5

Step = Callable[[], object]


def parameters(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.nn.Parameter(torch.randn(n, generator=generator, dtype=dtype)) for n in SIZES]


def torch_pair(params: list[Tensor], mode: str, settings: str) -> tuple[torch.optim.SGD, CyclicLR]:
    """Two groups with bounds of their own."""
    groups: list[dict[str, Any]] = [{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.1, "name": "late"}]
    sgd = torch.optim.SGD(groups, lr=1.0, foreach=False, **SETTINGS[settings])
    scheduler = CyclicLR(sgd, [0.01, 0.02], [0.1, 0.3], base_momentum=0.7, max_momentum=0.9, **MODES[mode])
    return sgd, scheduler


def gradients(params: list[Tensor]) -> Iterator[None]:
    """Sets new gradients, each time it is asked; the last parameter gets its first one late."""
    generator = torch.Generator().manual_seed(11)
    for step in itertools.count():
        for i, parameter in enumerate(params):
            gradient = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.grad = None if i == len(params) - 1 and step < 5 else gradient
        yield


def train(params: list[Tensor], gradient: Iterator[None], steps: int, *lines: Step) -> None:
    for _ in range(steps):
        next(gradient)
        for line in lines:
            line()


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Equal in float32; in float64 within the rounding of torch's own schedule."""
    for a, b in zip(ours, theirs, strict=True):
        if a.dtype == torch.float32:
            assert torch.equal(a, b)
        else:
            torch.testing.assert_close(a, b, rtol=0.0, atol=1e-12 * float(b.detach().abs().max()))


def buffers(optimizer: torch.optim.Optimizer, params: list[Tensor]) -> list[Tensor]:
    return [optimizer.state[parameter]["momentum_buffer"] for parameter in params]


CASES = pytest.mark.parametrize(
    ("mode", "settings", "dtype"), list(itertools.product(MODES, SETTINGS, (torch.float32, torch.float64)))
)


@CASES
@pytest.mark.parametrize("before", [0, 3, 23])
def test_a_pair_taken_over_goes_on_as_it_would_have(mode: str, settings: str, dtype: torch.dtype, before: int) -> None:
    reference, taken = parameters(dtype), parameters(dtype)
    sgd, scheduler = torch_pair(reference, mode, settings)
    train(reference, gradients(reference), STEPS, sgd.step, scheduler.step)

    other_sgd, other_scheduler = torch_pair(taken, mode, settings)
    gradient = gradients(taken)
    train(taken, gradient, before, other_sgd.step, other_scheduler.step)
    optimizer = FusedCyclicSGD.from_torch(other_sgd, other_scheduler)
    assert optimizer.applied_steps == before
    train(taken, gradient, STEPS - before, optimizer.step)
    assert_same(taken, reference)
    assert_same(buffers(optimizer, taken), buffers(sgd, reference))


@CASES
@pytest.mark.parametrize("before", [0, 1, 23])
def test_a_pair_given_back_goes_on_as_we_would_have(mode: str, settings: str, dtype: torch.dtype, before: int) -> None:
    ours, given = parameters(dtype), parameters(dtype)
    optimizer = FusedCyclicSGD.from_torch(*torch_pair(ours, mode, settings))
    train(ours, gradients(ours), STEPS, optimizer.step)

    other = FusedCyclicSGD.from_torch(*torch_pair(given, mode, settings))
    gradient = gradients(given)
    train(given, gradient, before, other.step)
    sgd, scheduler = other.to_torch()
    assert type(sgd) is torch.optim.SGD
    assert type(scheduler) is CyclicLR
    assert scheduler.last_epoch == before
    train(given, gradient, STEPS - before, sgd.step, scheduler.step)
    assert_same(given, ours)
    assert_same(buffers(sgd, given), buffers(optimizer, ours))


def test_settings_keys_and_buffers_are_taken_over() -> None:
    params = parameters(torch.float32)
    sgd, scheduler = torch_pair(params, "triangular", "nesterov")
    gradient = gradients(params)
    train(params, gradient, 6, sgd.step, scheduler.step)
    before = buffers(sgd, params)
    optimizer = FusedCyclicSGD.from_torch(sgd, scheduler)
    assert all(a is b for a, b in zip(buffers(optimizer, params), before, strict=True))
    assert optimizer.param_groups[1]["name"] == "late"
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.1]
    assert "foreach" not in optimizer.param_groups[0]
    assert (
        optimizer.param_groups[0]["schedule"]
        == CyclicSchedule(0.01, 0.1, step_size_up=7, base_momentum=0.7, max_momentum=0.9).to_dict()
    )
    back, _ = optimizer.to_torch()
    assert back.param_groups[1]["name"] == "late"
    assert all(a is b for a, b in zip(buffers(back, params), before, strict=True))


def test_a_pair_with_whole_floats_for_sizes_is_taken() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    sgd = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    scheduler = CyclicLR(sgd, 0.1, 0.5, step_size_up=3.0)  # type: ignore[arg-type]  # what users of epochs write
    assert FusedCyclicSGD.from_torch(sgd, scheduler).param_groups[0]["schedule"]["step_size_up"] == 3


def test_a_pair_with_a_rate_in_a_tensor_is_taken() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    sgd = torch.optim.SGD([weight], lr=torch.tensor(1.0), momentum=0.9, foreach=False)
    scheduler = CyclicLR(sgd, 0.1, 0.5, step_size_up=3)
    sgd.step()
    scheduler.step()
    assert FusedCyclicSGD.from_torch(sgd, scheduler).get_last_lr() == [scheduler.base_lrs[0] + 0.4 / 3]


class Halved(CyclicLR):
    def get_lr(self) -> list[float | Tensor]:
        return [0.5 * lr for lr in super().get_lr()]


def altered(name: str, value: float) -> Callable[..., Any]:
    def make(sgd: torch.optim.SGD, cyclic: CyclicLR) -> Any:
        sgd.param_groups[1][name] = value
        return sgd, cyclic

    return make


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda sgd, cyclic: (torch.optim.Adam(sgd.param_groups[0]["params"]), cyclic), TypeError, "type=Adam"),
        (lambda sgd, cyclic: (sgd, ExponentialLR(sgd, 0.9)), TypeError, "type=ExponentialLR"),
        (lambda sgd, cyclic: (copy.deepcopy(sgd), cyclic), ValueError, "another optimizer"),
        (
            lambda sgd, cyclic: (sgd, CyclicLR(sgd, 0.1, 0.2, step_size_up=NOT_WHOLE)),
            ValueError,
            "whole numbers of steps",
        ),
        (lambda sgd, cyclic: (sgd, CyclicLR(sgd, 0.2, 0.1)), ValueError, "base_lr=0.2 must not be above max_lr=0.1"),
        (altered("lr", 0.05), ValueError, r"parameter group 1: lr=0\.05 is not the scheduler's value at last_epoch=0"),
        (altered("momentum", 0.8), ValueError, r"parameter group 1: momentum=0\.8 is not the scheduler's value"),
        (lambda sgd, cyclic: (sgd, Halved(sgd, 0.1, 0.5)), TypeError, r"type=Halved has a get_lr\(\) of its own"),
    ],
)
def test_what_cannot_be_taken_over(make: Callable[..., Any], error: type[Exception], message: str) -> None:
    params = parameters(torch.float32)
    sgd, scheduler = torch_pair(params, "triangular", "plain")
    with pytest.raises(error, match=message):
        FusedCyclicSGD.from_torch(*make(sgd, scheduler))


@pytest.mark.parametrize(
    "schedule",
    [
        CyclicSchedule(0.1, 0.5, window="hann"),
        CyclicSchedule(0.1, 0.5, mode="linear_range", decay_steps=9),
        CyclicSchedule(0.1, 0.5, mode="exp_range", gamma=0.9, decay_base=True),
        RampSchedule(0.1, 0.5, 9, momentum=0.9),
    ],
    ids=repr,
)
def test_schedules_that_torch_does_not_have(schedule: Any) -> None:
    optimizer = FusedCyclicSGD([torch.nn.Parameter(torch.ones(2))], schedule=schedule)
    with pytest.raises(ValueError, match="schedule="):
        optimizer.to_torch()


def test_groups_that_differ_in_sizes_or_position_cannot_be_given_back() -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    sizes = [{"params": [weight], "step_size_up": up} for weight, up in zip(weights, (3, 4), strict=True)]
    with pytest.raises(ValueError, match="same sizes"):
        FusedCyclicSGD(sizes, base_lr=0.1, max_lr=0.2).to_torch()
    places = [{"params": [weight], "applied_steps": n} for weight, n in zip(weights, (3, 4), strict=True)]
    with pytest.raises(ValueError, match=r"applied_steps=\[3, 4\]"):
        FusedCyclicSGD(places, base_lr=0.1, max_lr=0.2).to_torch()


@pytest.mark.parametrize("values", [{"lr": 0.3}, {"momentum": 0.2}], ids=str)
def test_a_value_set_by_hand_cannot_be_given_back(values: dict[str, float]) -> None:
    """Our schedule stands still in an update whose values are set by hand, and torch's would go on."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(2)]
    optimizer = FusedCyclicSGD(groups, base_lr=0.1, max_lr=0.5, step_size_up=4)
    ((name, value),) = values.items()
    scheduled = optimizer.param_groups[1][name]
    optimizer.param_groups[1][name] = value
    with pytest.raises(ValueError, match=f"parameter group 1: {name}={value} is set by hand.*put {scheduled} there"):
        optimizer.to_torch()
    optimizer.param_groups[1][name] = scheduled
    assert optimizer.to_torch()[0].param_groups[1][name] == scheduled
