"""What a step does with grad_scale and found_inf, which a GradScaler lays beside it."""

from __future__ import annotations

import copy
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from amp_helpers import INF, NAN, SCALERS, amp_attributes, ours, scaled
from clr_native import FusedCyclicSGD, GradScaler
from helpers import assert_refused, bits, clones, give, gradient_of, gradient_sets, parameters, picture

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def step_told(optimizer: FusedCyclicSGD, **told: object) -> None:
    vars(optimizer).update(told)
    try:
        optimizer.step()
    finally:
        for name in told:
            vars(optimizer).pop(name)


def reciprocal(scale: object) -> float:
    """What torch multiplies gradients by: formed in float64, rounded to float32."""
    return float(torch.as_tensor(scale).double().reciprocal().float())


def training(dtype: torch.dtype = torch.float32, **settings: Any) -> tuple[FusedCyclicSGD, list[Tensor]]:
    over = parameters([1, 17, (3, 5), 65], dtype)
    give(over, gradient_sets(over, 1)[0])
    return ours(over, **settings), over


# --- the attributes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("by_hand", [False, True])
def test_the_attributes_do_not_exist_between_steps(by_hand: bool, kind: type[torch.amp.GradScaler]) -> None:
    """torch deletes them: a preset None would break it."""
    optimizer, over = training()
    scaler = scaled(kind, 7.0)
    for broken in (False, True, False):
        assert not amp_attributes(optimizer)
        give(over, [torch.full_like(p, INF if broken else 1.0) for p in over])
        if by_hand:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert optimizer.last_step_skipped is broken
    assert not amp_attributes(optimizer)
    assert optimizer.skipped_steps == 1


SCALES = [8, 7.0, 1.7e-3, torch.tensor(7.0), torch.tensor([7.0]), torch.tensor(3), torch.tensor(7.3).double()]


@pytest.mark.parametrize("found_inf", [{}, {"found_inf": None}, {"found_inf": torch.zeros(())}, {"found_inf": 0}])
@pytest.mark.parametrize("scale", SCALES, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_gradients_are_divided_by_the_scale(dtype: torch.dtype, scale: object, found_inf: dict[str, object]) -> None:
    """To the bit what a step over gradients times float32(1 / scale) gives."""
    optimizer, over = training(dtype)
    plain, copies = training(dtype)
    for p, q in zip(over, copies, strict=True):
        q.grad = gradient_of(p) * reciprocal(scale)
    plain.step()
    step_told(optimizer, grad_scale=scale, **found_inf)
    assert all(bits(p) == bits(q) for p, q in zip(over, copies, strict=True))
    assert not optimizer.last_step_skipped


@pytest.mark.parametrize("told", [{"grad_scale": None}, {"found_inf": None}, {"grad_scale": None, "found_inf": 0.0}])
def test_none_is_as_if_it_were_not_there(told: dict[str, object]) -> None:
    optimizer, over = training()
    plain, copies = training()
    plain.step()
    step_told(optimizer, **told)
    assert all(bits(p) == bits(q) for p, q in zip(over, copies, strict=True))


@pytest.mark.parametrize("told", [{}, {"grad_scale": None}, {"found_inf": None}, {"found_inf": 0.0}])
def test_without_a_scale_infinities_are_not_looked_for(told: dict[str, object]) -> None:
    """As with torch's SGD: they reach the weights, unless skip_nonfinite or error_if_nonfinite says otherwise."""
    optimizer, over = training()
    give(over, [torch.full_like(p, INF) for p in over])
    step_told(optimizer, **told)
    assert not any(torch.isfinite(p).any() for p in over)
    assert not optimizer.last_step_skipped


@pytest.mark.parametrize("position", [0, 1, 16, 64])
@pytest.mark.parametrize("value", [INF, -INF, NAN])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scale_alone_makes_the_step_look_for_itself(dtype: torch.dtype, value: float, position: int) -> None:
    """One element, anywhere, in any type."""
    optimizer, over = training(dtype)
    gradient, before = gradient_of(over[3]), clones(over)
    gradient[position] = value
    step_told(optimizer, grad_scale=8.0)
    assert optimizer.last_step_skipped
    assert all(bits(p) == bits(q) for p, q in zip(over, before, strict=True))
    gradient[position] = torch.finfo(dtype).max  # large is not infinite
    step_told(optimizer, grad_scale=8.0)
    assert not optimizer.last_step_skipped
    assert all(torch.isfinite(p).all() for p in over)


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_limits_do_to_infinities_and_nan_what_torchs_do(dtype: torch.dtype) -> None:
    """Without a scaler: infinities become the limit, NaN stays."""
    optimizer, over = training(dtype, max_grad_value=0.25)
    plain, copies = training(dtype)
    for weights in (over, copies):
        gradient_of(weights[3])[[0, 1, 17, 33, 64]] = torch.tensor([INF, -INF, NAN, INF, NAN], dtype=dtype)
    torch.nn.utils.clip_grad_value_(copies, 0.25)
    plain.step()
    optimizer.step()
    for p, q in zip(over, copies, strict=True):
        assert torch.equal(p.isnan(), q.isnan())
        assert torch.equal(p.nan_to_num(), q.nan_to_num())
    assert over[3].isnan().sum() == 2


def test_skip_nonfinite_skips_without_a_scaler_what_a_scaler_skips() -> None:
    alone, over = training(skip_nonfinite=True)
    beside, copies = training()
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    scaler.scale(torch.ones(()))
    for step, gradients in enumerate(gradient_sets(over, 20)):
        if step in (0, 1, 7):
            gradients[2][1, 2] = INF
        give(over, gradients)
        give(copies, clones(gradients))
        alone.step()
        scaler.step(beside)
        scaler.update(1.0)
        assert alone.last_step_skipped is beside.last_step_skipped is (step in (0, 1, 7))
    assert all(bits(p) == bits(q) for p, q in zip(over, copies, strict=True))
    assert alone.state_dict()["param_groups"] == beside.state_dict()["param_groups"]


# --- wrong values -------------------------------------------------------------------------------------------

WRONG: list[tuple[str, object]] = [
    ("grad_scale", 0),
    ("grad_scale", 0.0),
    ("grad_scale", torch.zeros(())),
    ("grad_scale", NAN),
    ("grad_scale", torch.tensor(NAN)),
    ("grad_scale", INF),
    ("grad_scale", -1.0),
    ("grad_scale", "x"),
    ("grad_scale", torch.ones(2)),
    ("grad_scale", torch.ones(0)),
    ("grad_scale", [1.0]),
    ("grad_scale", 1j),
    ("grad_scale", 1e-45),  # whose reciprocal no float32 holds
    ("grad_scale", 5e-324),
    ("grad_scale", 1e300),
    ("found_inf", "x"),
    ("found_inf", torch.zeros(2)),
    ("found_inf", [0.0]),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={value!r}" for name, value in WRONG])
def test_a_wrong_value_is_named_and_nothing_has_changed(name: str, value: object) -> None:
    optimizer, over = training(ema_decay=0.9)
    optimizer.step()
    give(over, gradient_sets(over, 1)[0])
    vars(optimizer)[name] = value
    assert_refused(optimizer.step, (TypeError, ValueError), rf"^({name}=|{name} of shape=)", optimizer)
    del vars(optimizer)[name]
    optimizer.step()


# --- what is left in p.grad ---------------------------------------------------------------------------------


@pytest.mark.parametrize("clipping", [{}, {"max_grad_norm": 1e-3}, {"max_grad_value": 1e-3}])
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_request_they_are_unscaled_in_place(dtype: torch.dtype, clipping: dict[str, float]) -> None:
    """As unscale_() leaves them: before clipping, in the gradient's type, in the tensor that is there."""
    optimizer, over = training(dtype, write_unscaled_grad=True, **clipping)
    gradients = [p.grad for p in over if p.grad is not None]
    versions = [g._version for g in gradients]
    expected = [(g.double() if dtype is torch.float64 else g.float()) * reciprocal(7.0) for g in gradients]
    scaled(GradScaler, 7.0).step(optimizer)
    for p, g, version, wanted in zip(over, gradients, versions, expected, strict=True):
        assert p.grad is g
        assert bits(g) == bits(wanted.to(dtype))
        assert g._version > version


@pytest.mark.parametrize("clipping", [{}, {"max_grad_norm": 1e-3}])
def test_gradients_of_another_layout_are_unscaled_too(clipping: dict[str, float]) -> None:
    """Transposed, and with gaps, which are left alone."""
    over = parameters([(3, 5), (3, 5)])
    memory = torch.arange(60.0).reshape(6, 10)
    give(over, [torch.arange(15.0).reshape(5, 3).T, memory[::2, ::2]])
    expected = [p.grad * reciprocal(7.0) for p in over if p.grad is not None]
    gaps = memory[1::2].clone()
    scaled(GradScaler, 7.0).step(ours(over, write_unscaled_grad=True, **clipping))
    assert all(p.grad is not None and bits(p.grad) == bits(g) for p, g in zip(over, expected, strict=True))
    assert torch.equal(memory[1::2], gaps)


def test_a_gradient_with_one_place_for_several_elements_cannot_be_unscaled_in_place() -> None:
    """As autograd may leave it for a sum. Refused before anything is written."""
    over = parameters([9, (3, 5)])
    give(over, [torch.ones(9), torch.ones(()).expand(3, 5)])
    optimizer = ours(over, write_unscaled_grad=True)
    act = partial(scaled(GradScaler, 7.0).step, optimizer)
    assert_refused(act, (TypeError, ValueError), "parameter 1 of group 0", optimizer)


@pytest.mark.parametrize("settings", [{}, {"write_unscaled_grad": True}, {"max_grad_norm": 0.5}])
def test_gradients_are_not_kept_alive(settings: dict[str, Any]) -> None:
    over = parameters([9, (3, 5)])
    optimizer = ours(over, **settings)
    gradients = [torch.ones_like(p) for p in over]
    alive = [weakref.ref(g) for g in gradients]
    give(over, gradients)
    del gradients
    scaled(GradScaler, 7.0).step(optimizer)
    optimizer.zero_grad()
    assert [ref() for ref in alive] == [None, None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("settings", "scale", "value"),
    [
        ({"max_grad_norm": 0.5}, 7.0, 0.5),
        ({"write_unscaled_grad": True}, None, 0.5),
        ({"write_unscaled_grad": True}, 7.0, INF),
    ],
    ids=["unasked", "without a scale", "in a skipped step"],
)
def test_gradients_stay_scaled(settings: dict[str, Any], scale: float | None, value: float, dtype: torch.dtype) -> None:
    optimizer, over = training(dtype, **settings)
    gradient_of(over[1])[3] = value
    before = picture(optimizer)
    if scale is None:
        optimizer.step()
    else:
        scaled(GradScaler, scale).step(optimizer)
    after = picture(optimizer)
    assert after["gradients"] == before["gradients"]
    assert after["gradient versions"] == before["gradient versions"]
    assert optimizer.last_step_skipped is (value == INF)


# --- counts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCALERS)
def test_counts_of_skipped_steps(kind: type[torch.amp.GradScaler]) -> None:
    """In every group; saved and loaded; seek() leaves them."""
    over = parameters([9, 9])
    optimizer = ours([{"params": [p]} for p in over])
    scaler = scaled(kind, 7.0)
    assert (optimizer.skipped_steps, optimizer.last_step_skipped) == (0, False)
    for broken, skipped in ((True, 1), (False, 1), (True, 2), (True, 3)):
        give(over, [torch.ones(9), torch.full((9,), INF if broken else 1.0)])
        scaler.step(optimizer)
        scaler.update()
        assert (optimizer.skipped_steps, optimizer.last_step_skipped) == (skipped, broken)
        assert [group["skipped_steps"] for group in optimizer.param_groups] == [skipped, skipped]
    other = ours([{"params": [p]} for p in parameters([9, 9])])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert (other.skipped_steps, other.applied_steps) == (3, 1)
    optimizer.seek(5)
    assert (optimizer.skipped_steps, optimizer.applied_steps) == (3, 5)
