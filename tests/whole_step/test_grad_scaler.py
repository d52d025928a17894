"""clr_native.GradScaler is torch's but for the pass that a FusedCyclicSGD does not need."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor
from torch.amp.grad_scaler import OptState
from torch.optim import Optimizer

import clr_native
from amp_helpers import INF, SCALERS, amp_attributes, loop, ours, scaled, with_gradients
from clr_native import FusedCyclicSGD, GradScaler
from helpers import every_parameter, give, gradient_of, parameters


def recorded(scaler: torch.amp.GradScaler, optimizer: Optimizer) -> dict[Any, Tensor]:
    return dict(scaler._found_inf_per_device(optimizer))


# --- what it relies on --------------------------------------------------------------------------------------


def test_torch_still_has_the_private_names() -> None:
    """If this fails, torch has renamed them, and grad_scaler.py must be written anew for that version."""
    scaler = scaled(torch.amp.GradScaler)
    assert scaler._enabled is True
    scale, tracker = scaler._check_scale_growth_tracker("step")
    assert scale is scaler._scale
    assert tracker.dtype is torch.int32
    fresh = scaler._per_optimizer_states[0]
    assert fresh == {"stage": OptState.READY, "found_inf_per_device": {}}
    assert {stage.name for stage in OptState} == {"READY", "UNSCALED", "STEPPED"}
    optimizer = with_gradients(loop)
    scaler.step(optimizer)
    state = scaler._per_optimizer_states[id(optimizer)]
    assert state["stage"] is OptState.STEPPED
    assert [(device, t.item(), t.dtype) for device, t in state["found_inf_per_device"].items()] == [
        (torch.device("cpu"), 0.0, torch.float32)
    ]


def test_it_is_torchs_class_with_another_step() -> None:
    assert issubclass(GradScaler, torch.amp.GradScaler)
    assert [name for name in vars(GradScaler) if not name.startswith("_")] == ["step"]
    assert "__init__" not in vars(GradScaler)
    assert inspect.signature(GradScaler.step).parameters.keys() == inspect.signature(SCALERS[1].step).parameters.keys()
    assert "GradScaler" in clr_native.__all__


def test_a_result_that_somebody_holds_stays_and_others_are_made_in_its_place() -> None:
    """A new tensor at each step would take a tenth of the whole step of a small model."""
    scaler = scaled()

    def result(value: float, scaler: torch.amp.GradScaler = scaler) -> Tensor:
        optimizer = with_gradients(value=value)
        scaler.scale(torch.ones(()))
        scaler.step(optimizer)
        (found,) = recorded(scaler, optimizer).values()
        scaler.update()
        return found

    held = result(INF)
    other = result(1.0)
    assert (held.item(), other.item()) == (1, 0)
    memory = other.data_ptr()
    del other
    assert result(INF).data_ptr() == memory
    assert result(1.0).data_ptr() == memory
    for each in (copy.deepcopy(scaler), pickle.loads(pickle.dumps(scaler))):
        assert result(1.0, each).data_ptr() != result(1.0).data_ptr()
    assert held.item() == 1


@pytest.mark.parametrize("skips", [False, True])
def test_defaults_of_torch_do_not_matter(skips: bool) -> None:
    (weight,) = parameters([3])
    optimizer, scaler = FusedCyclicSGD([weight], 0.1, 0.5), GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(()))
    weight.grad = torch.full((3,), INF if skips else 1.0)
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            scaler.step(optimizer)
    finally:
        torch.set_default_dtype(dtype)
    scaler.update()
    assert (optimizer.last_step_skipped, scaler.get_scale()) == (skips, 2.0 if skips else 4.0)


# --- the pass that is left out ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "make", "looks"),
    [(GradScaler, ours, False), (GradScaler, loop, True), (torch.amp.GradScaler, ours, True)],
)
def test_gradients_of_ours_are_not_looked_at(
    kind: type[torch.amp.GradScaler], make: Callable[..., Optimizer], looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler, optimizer = scaled(kind), with_gradients(make)
    name = "_amp_foreach_non_finite_check_and_unscale_"
    torchs_pass = Mock(wraps=getattr(torch, name))
    monkeypatch.setattr(torch, name, torchs_pass)
    scaler.step(optimizer)
    assert torchs_pass.called is looks


def test_unscaled_by_hand_it_is_torchs_step() -> None:
    scaler, optimizer = scaled(), with_gradients()
    scaler.unscale_(optimizer)
    seen: list[tuple[object, ...]] = []
    optimizer.register_step_pre_hook(lambda opt, *_: seen.append((opt.grad_scale, float(opt.found_inf))))
    scaler.step(optimizer)
    assert seen == [(None, 0.0)]
    assert not amp_attributes(optimizer)


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("value", [8.0, INF, float("nan")])
@pytest.mark.parametrize("by_hand", [False, True])
def test_what_is_recorded(by_hand: bool, value: float, kind: type[torch.amp.GradScaler]) -> None:
    """The scale falls after a gradient that is not finite, and grows after growth_interval others."""
    scaler = scaled(kind, growth_interval=1)
    optimizer = with_gradients(value=value)
    before = [p.detach().clone() for p in every_parameter(optimizer)]
    if by_hand:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    found = recorded(scaler, optimizer)
    assert [(device, t.item(), t.dtype) for device, t in found.items()] == [
        (torch.device("cpu"), float(value != 8.0), torch.float32)
    ]
    scaler.update()
    assert scaler.get_scale() == (16.0 if value == 8.0 else 4.0)
    moved = [not torch.equal(p, q) for p, q in zip(every_parameter(optimizer), before, strict=True)]
    assert set(moved) == {value == 8.0}


def test_skip_nonfinite_is_recorded_too() -> None:
    scaler, optimizer = scaled(), with_gradients(value=INF, skip_nonfinite=True)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0


def test_a_step_without_gradients_records_nothing_as_torchs() -> None:
    for kind in SCALERS:
        scaler, optimizer = scaled(kind), ours(parameters([9]))
        scaler.step(optimizer)
        with pytest.raises(AssertionError, match="No inf checks were recorded prior to update"):
            scaler.update()


# --- a scale of the user's ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "told", "factor"),
    [
        *((kind, {"grad_scale": factor}, 4.0) for kind in SCALERS for factor in (4.0, 4, torch.tensor(4.0))),
        (GradScaler, {"grad_scale": None, "found_inf": torch.ones(())}, 1.0),
    ],
)
def test_a_factor_of_the_users_multiplies_the_scale_and_an_old_found_inf_plays_no_part(
    kind: type[torch.amp.GradScaler], told: dict[str, object], factor: float
) -> None:
    scaler, optimizer = scaled(kind), with_gradients(value=8.0 * factor)
    (weight, _) = every_parameter(optimizer)
    before = weight.detach().clone()
    vars(optimizer).update(told)
    scaler.step(optimizer)
    assert torch.equal(weight, before - 0.25)
    assert not amp_attributes(optimizer)


# --- hooks, arguments, answers ------------------------------------------------------------------------------


def test_gradients_are_looked_at_after_the_pre_hooks() -> None:
    """torch looks before: an infinity that a hook leaves reaches its weights, one that it mends skips the step."""

    def fill(optimizer: Optimizer, value: float) -> None:
        for p in every_parameter(optimizer):
            gradient_of(p).fill_(value)

    for before, after in ((8.0, INF), (INF, 8.0)):
        optimizer = with_gradients(value=before)
        assert isinstance(optimizer, FusedCyclicSGD)
        optimizer.register_step_pre_hook(lambda opt, *_, value=after: fill(opt, value))
        scaler = scaled()
        scaler.step(optimizer)
        assert optimizer.last_step_skipped is (after == INF)
        scaler.update()
        assert scaler.get_scale() == (4.0 if after == INF else 8.0)


def test_a_positional_closure_goes_to_the_optimizer_as_with_torchs() -> None:
    scaler, optimizer = scaled(), with_gradients(value=INF)
    weights = every_parameter(optimizer)

    def closure() -> float:
        give(weights, [torch.full_like(p, 8.0) for p in weights])
        return 3.0

    before = weights[0].detach().clone()
    assert scaler.step(optimizer, closure) == 3.0
    assert torch.equal(weights[0], before - 0.25)


@pytest.mark.parametrize("advance", [False, True])
def test_a_learning_rate_set_by_hand_waits_for_a_step_that_is_applied(advance: bool) -> None:
    scaler, optimizer = scaled(), with_gradients(value=INF, advance_on_skip=advance)
    weight = every_parameter(optimizer)[0]
    before = weight.detach().clone()
    optimizer.param_groups[0]["lr"] = 1.0
    scaler.step(optimizer)
    scaler.update()
    assert optimizer.param_groups[0]["lr"] == 1.0
    give(every_parameter(optimizer), [torch.full_like(p, 4.0) for p in every_parameter(optimizer)])
    scaler.step(optimizer)
    assert torch.equal(weight, before - 1.0)
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_disabled_it_calls_step_only() -> None:
    scaler = GradScaler("cpu", enabled=False)
    optimizer = with_gradients(value=1.0)
    weight = every_parameter(optimizer)[0]
    before = weight.detach().clone()
    assert scaler.step(optimizer, closure=lambda: 3.0) == 3.0
    scaler.update()
    assert torch.equal(weight, before - 0.25)
    assert scaler.state_dict() == {}
