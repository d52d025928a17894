"""Going on bit for bit from a checkpoint, for every legal combination: state keeps its dtype, settings are the
checkpoint's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clr_native import FusedCyclicSGD
from distributed import QUIET, asked, put
from half_helpers import COMBINATIONS, HALVES, WAYS, ids_of
from helpers import (
    COPIES,
    assert_goes_on_alike,
    assert_same_state,
    bits,
    clones,
    every_parameter,
    give,
    go_on,
    gradient_sets,
    parameters,
    through_a_file,
)

ALL = pytest.mark.parametrize(("dtype", "momentum_dtype", "keeping"), COMBINATIONS, ids=ids_of)


class Model(nn.Module):
    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(weight.detach().clone()) for weight in weights)


def made(dtype: torch.dtype, *, weights: int = 0, **settings: Any) -> tuple[Model, FusedCyclicSGD]:
    model = Model(parameters([(7, 5), 33], dtype, seed=weights))
    return model, FusedCyclicSGD(model.parameters(), 0.1, 0.5, step_size_up=3, weight_decay=0.01, **settings)


def settings_of(momentum_dtype: torch.dtype | None, way: str) -> dict[str, Any]:
    """With an average too: beside a master weight it is float32."""
    return {"momentum_dtype": momentum_dtype, "ema_decay": 0.75, **WAYS[way]}


def saved_and_loaded(model: Model, optimizer: FusedCyclicSGD, into: tuple[Model, FusedCyclicSGD]) -> FusedCyclicSGD:
    into[0].load_state_dict(through_a_file(model.state_dict()))
    into[1].load_state_dict(through_a_file(optimizer.state_dict()))
    return into[1]


def through_distributed(
    model: Model, optimizer: FusedCyclicSGD, into: tuple[Model, FusedCyclicSGD], *, flat: bool
) -> FusedCyclicSGD:
    into[0].load_state_dict(model.state_dict())
    optimizer.zero_grad()
    put(*into, asked(model, optimizer, flat=flat), flat=flat)
    return into[1]


WAYS_TO_LOAD: dict[str, Callable[..., FusedCyclicSGD]] = {
    "torch.save": saved_and_loaded,
    "nested": partial(through_distributed, flat=False),
    "flattened": partial(through_distributed, flat=True),
}


# What the optimizer is constructed with that loads the checkpoint.
FRESH: dict[str, dict[str, Any] | None] = {
    "with the same settings": None,
    "plain": {},
    "with another seed": {"seed": 99},
    "with an average of its own": {"average": "swa"},
}


@ALL
@pytest.mark.parametrize(
    ("way", "fresh", "before"),
    [
        *(("torch.save", fresh, 5) for fresh in FRESH),
        *((flat, "with the same settings", before) for flat in ("nested", "flattened") for before in (0, 5)),
        ("nested", "plain", 5),
    ],
)
@QUIET
def test_a_checkpoint_goes_on_bit_for_bit(
    dtype: torch.dtype, momentum_dtype: torch.dtype | None, keeping: str, way: str, fresh: str, before: int
) -> None:
    """The checkpoint's settings win over those of the constructor.

    A fresh optimizer is asked by torch.distributed for state before it has any: that counts for nothing.
    """
    settings = settings_of(momentum_dtype, keeping)
    model, optimizer = made(dtype, **settings)
    go_on(optimizer, before)
    given = FRESH[fresh]
    into = made(dtype, weights=3, **(settings if given is None else given))
    other = WAYS_TO_LOAD[way](model, optimizer, into)
    assert_same_state(optimizer, other)
    assert_goes_on_alike(optimizer, other, 5)


@pytest.mark.parametrize("keeping", [way for way in WAYS if way != "nearest"])
def test_a_plain_checkpoint_turns_features_off(keeping: str) -> None:
    model, optimizer = made(torch.bfloat16)
    go_on(optimizer, 5)
    other = saved_and_loaded(model, optimizer, made(torch.bfloat16, momentum_dtype="float32", **WAYS[keeping]))
    assert_goes_on_alike(optimizer, other, 5)


@ALL
@pytest.mark.parametrize("means", COPIES)
def test_a_copy_goes_on_bit_for_bit(
    dtype: torch.dtype, momentum_dtype: torch.dtype | None, keeping: str, means: str
) -> None:
    model, optimizer = made(dtype, **settings_of(momentum_dtype, keeping))
    go_on(optimizer, 5)
    twin, other = COPIES[means]((model, optimizer))
    assert every_parameter(other)[0] is next(iter(twin.parameters()))
    assert_goes_on_alike(optimizer, other, 5)


# --- checkpoints of torch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES, ids=ids_of)
@pytest.mark.parametrize("way", WAYS)
def test_a_checkpoint_of_torchs_sgd_into_other_dtypes(dtype: torch.dtype, way: str) -> None:
    """Its 16-bit buffer, cast once to float32, is what training goes on from; our settings stay."""
    twins = parameters([(7, 5), 33], dtype)
    theirs = torch.optim.SGD(twins, lr=0.3, momentum=0.8)
    go_on(theirs, 4)
    over = clones(twins)
    settings: dict[str, Any] = {"momentum_dtype": "float32", **WAYS[way]}
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, step_size_up=3, cycle_momentum=False, momentum=0.8, **settings)
    optimizer.load_state_dict(theirs.state_dict())
    assert {name: optimizer.param_groups[0][name] for name in settings} == settings
    for p, q in zip(over, twins, strict=True):
        found = optimizer.state[p]["momentum_buffer"]
        assert found.dtype == torch.float32
        assert torch.equal(found, theirs.state[q]["momentum_buffer"].float())
    (gradients,) = gradient_sets(over, 1, seed=6)
    before = [theirs.state[q]["momentum_buffer"].float() for q in twins]
    give(over, gradients)
    optimizer.step()
    for p, m, g in zip(over, before, gradients, strict=True):
        expected = torch.addcmul(g.double(), torch.full_like(m, 0.8, dtype=torch.float64), m.double())
        assert torch.allclose(optimizer.state[p]["momentum_buffer"].double(), expected, rtol=2.0**-22, atol=2.0**-26)


def test_a_float32_checkpoint_of_torch_into_bfloat16_momentum_is_rounded_once() -> None:
    twins = parameters([33])
    theirs = torch.optim.SGD(twins, lr=0.3, momentum=0.8)
    go_on(theirs, 4)
    over = clones(twins)
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, momentum_dtype="bfloat16")
    optimizer.load_state_dict(theirs.state_dict())
    (p,), (q,) = over, twins
    assert bits(optimizer.state[p]["momentum_buffer"]) == bits(theirs.state[q]["momentum_buffer"].bfloat16())


def test_a_setting_changed_by_hand_takes_its_state_along_through_load_state_dict() -> None:
    """At the step a buffer of another dtype is refused by name; loading the own state converts it."""
    over = parameters([33], torch.bfloat16)
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, momentum_dtype="float32")
    go_on(optimizer, 5)
    optimizer.param_groups[0]["momentum_dtype"] = None
    buffer = optimizer.state[over[0]]["momentum_buffer"]
    give(over, gradient_sets(over, 1)[0])
    with pytest.raises(TypeError, match=r"momentum_buffer: dtype=torch.float32 must be the parameter's"):
        optimizer.step()
    assert optimizer.state[over[0]]["momentum_buffer"] is buffer
    optimizer.load_state_dict(optimizer.state_dict())
    assert bits(optimizer.state[over[0]]["momentum_buffer"]) == bits(buffer.bfloat16())
    optimizer.step()
    assert optimizer.applied_steps == 6
