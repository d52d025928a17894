"""torch's pair: taken over with every new setting at its default, given back without our keys, or refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import CyclicLR

from clr_native import FusedCyclicSGD
from clr_native.sgd.settings import GROUP_DEFAULTS
from half_helpers import HALVES, ids_of
from helpers import (
    assert_refused,
    assert_same_training,
    clones,
    every_parameter,
    go_on,
    gradient_sets,
    parameters,
    train,
)

FEATURES: list[tuple[torch.dtype, str, Any]] = [
    (torch.float32, "ema_decay", 0.5),
    (torch.float32, "ema_decay", 0.0),
    (torch.float32, "average", "swa"),
    (torch.float32, "trust_coefficient", 0.01),
    (torch.float32, "momentum_dtype", "bfloat16"),
    (torch.bfloat16, "momentum_dtype", "float32"),
    (torch.bfloat16, "rounding", "stochastic"),
    (torch.bfloat16, "kahan", True),
    (torch.bfloat16, "master_weights", True),
]
RULES: list[tuple[str, Any]] = [("max_grad_norm", 1.0), ("max_grad_value", 0.5), ("skip_nonfinite", True)]


def pair(over: list[Tensor]) -> tuple[SGD, CyclicLR]:
    sgd = SGD(over, lr=1.0, momentum=0.9, weight_decay=0.01, foreach=False)
    return sgd, CyclicLR(sgd, 0.01, 0.1, step_size_up=3, base_momentum=0.7)


# What stands in a group of such a pair.
TORCH_KEYS = set(pair([torch.zeros(1)])[0].param_groups[0])


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=ids_of)
def test_a_pair_taken_over_has_the_new_settings_at_their_defaults(dtype: torch.dtype) -> None:
    optimizer = FusedCyclicSGD.from_torch(*pair(parameters([9, (3, 4)], dtype)))
    (group,) = optimizer.param_groups
    for name, default in GROUP_DEFAULTS.items():
        assert group[name] == (0.01 if name == "weight_decay" else default), name
    assert [group[name] for name in ("skipped_steps", "n_averaged", "n_updates")] == [0, 0, 0]
    over = every_parameter(optimizer)
    go_on(optimizer, 3)
    assert all(optimizer.state[p].keys() == {"momentum_buffer"} for p in over)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=ids_of)
@pytest.mark.parametrize("named", [False, True])
def test_a_pair_given_back_has_torchs_keys_and_goes_on(dtype: torch.dtype, named: bool) -> None:
    """A dtype of the buffer that is the parameter's own is nothing torch does not have."""
    over = parameters([9, (3, 4)], dtype)
    momentum_dtype = dtype if named else None
    optimizer = FusedCyclicSGD(over, 0.01, 0.1, step_size_up=3, momentum_dtype=momentum_dtype)
    go_on(optimizer, 3)
    sgd, scheduler = optimizer.to_torch()
    assert set(sgd.param_groups[0]) <= TORCH_KEYS
    assert all(sgd.state[p].keys() == {"momentum_buffer"} for p in over)
    if dtype != torch.float32:
        return  # torch's own update rounds at every operation
    twins = clones(over)
    twin = FusedCyclicSGD(twins, 0.01, 0.1, step_size_up=3)
    twin.load_state_dict(optimizer.state_dict())
    sets = gradient_sets(over, 6, seed=2)
    for gradients in sets:
        train(sgd, over, [gradients], 1)
        scheduler.step()
    train(twin, twins, sets, 6)
    assert_same_training(twin, sgd)


@pytest.mark.parametrize(("dtype", "name", "value"), FEATURES, ids=ids_of)
@pytest.mark.parametrize("trained", [False, True])
def test_what_torch_has_not_is_refused_by_name(dtype: torch.dtype, name: str, value: Any, trained: bool) -> None:
    over = parameters([9, (3, 4)], dtype)
    groups: list[dict[str, Any]] = [{"params": over[:1]}, {"params": over[1:], name: value}]
    optimizer = FusedCyclicSGD(groups, 0.01, 0.1, step_size_up=3)
    go_on(optimizer, 3 if trained else 0)
    assert_refused(optimizer.to_torch, ValueError, f"parameter group 1: {name}={value!r}: torch.optim.SGD", optimizer)
    optimizer.param_groups[1][name] = GROUP_DEFAULTS[name]
    optimizer.load_state_dict(optimizer.state_dict())  # as the message says: converts buffers
    sgd, _ = optimizer.to_torch()
    assert set(sgd.param_groups[1]) <= TORCH_KEYS
    go_on(sgd)


def test_a_buffer_dtype_that_is_another_parameters_own_is_refused() -> None:
    optimizer = FusedCyclicSGD([*parameters([3]), *parameters([3], torch.bfloat16)], 0.1, 0.5, momentum_dtype="float32")
    with pytest.raises(ValueError, match="parameter group 0: momentum_dtype='float32'"):
        optimizer.to_torch()


@pytest.mark.parametrize(("name", "value"), RULES)
def test_what_torch_does_not_do_with_gradients_is_refused_by_name(name: str, value: Any) -> None:
    over = parameters([9])
    optimizer = FusedCyclicSGD(over, 0.01, 0.1, **{name: value})
    assert_refused(optimizer.to_torch, ValueError, f"{name}={value!r}: torch.optim.SGD", optimizer)
    setattr(optimizer, name, False if value is True else None)
    optimizer.to_torch()


def test_settings_that_ask_for_nothing_are_no_hindrance() -> None:
    over = parameters([9])
    optimizer = FusedCyclicSGD(over, 0.01, 0.1, seed=4, trust_eps=1e-3, trust_min_ndim=1, write_unscaled_grad=True)
    sgd, _ = optimizer.to_torch()
    assert set(sgd.param_groups[0]) <= TORCH_KEYS


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5}, {"kahan": True}, {"rounding": "stochastic"}], ids=str)
def test_the_state_of_the_pair_is_loaded(settings: dict[str, Any]) -> None:
    """The pair's checkpoint, without and then with features of ours: buffers are torch's, counters begin at 0."""
    twins = parameters([9, (3, 4)], torch.bfloat16)
    sgd, scheduler = pair(twins)
    for gradients in gradient_sets(twins):
        train(sgd, twins, [gradients], 1)
        scheduler.step()
    over = clones(twins)
    optimizer = FusedCyclicSGD(over, 0.01, 0.1, step_size_up=3, **settings)
    checkpoint = sgd.state_dict()
    before = copy.deepcopy(checkpoint["param_groups"])
    optimizer.load_state_dict(checkpoint)
    assert checkpoint["param_groups"] == before
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in settings} == settings
    assert [group[name] for name in ("applied_steps", "skipped_steps", "n_averaged", "n_updates")] == [0] * 4
    assert not {"foreach", "fused", "capturable", "differentiable"} & group.keys()
    for p, q in zip(over, twins, strict=True):
        assert torch.equal(optimizer.state[p]["momentum_buffer"], sgd.state[q]["momentum_buffer"])
    go_on(optimizer, 2)
