"""defaults and groups as other people's code reads them: clones from either, wrappers, foreign keys, plain data."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.sgd.settings import GROUP_DEFAULTS
from helpers import assert_goes_on_alike, case_name, clones, entries, every_parameter, go_on, halving, parameters

BOUNDS: dict[str, Any] = {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2}
WARM = ScheduleSequence([(RampSchedule(0.0, 0.1, 3), 3), (CyclicSchedule(0.1, 0.5, step_size_up=2), None)])
COUNTERS = {"applied_steps", "skipped_steps", "n_averaged", "n_updates"}
IN_A_GROUP = {"params", "lr", "momentum", "schedule", "overridden", *GROUP_DEFAULTS, *COUNTERS}


CONSTRUCTORS: dict[str, dict[str, Any]] = {
    "bounds": BOUNDS,
    "bounds that are tensors": {
        "base_lr": torch.tensor(0.25),
        "max_lr": torch.tensor([0.5]),
        "step_size_up": torch.tensor(2),
    },
    "lr": {"lr": 0.1},
    "lr and momentum": {"lr": torch.tensor(0.25), "momentum": 0.5, "nesterov": True},
    "lr beside bounds": {"lr": 0.3, **BOUNDS},
    "momentum": {**BOUNDS, "cycle_momentum": False, "momentum": 0.7},
    "every flat argument": {
        **BOUNDS,
        "step_size_down": 3,
        "mode": "linear_range",
        "gamma": 0.9,
        "decay_steps": 9,
        "decay_base": True,
        "scale_mode": "iterations",
        "window": "hann",
        "base_momentum": 0.5,
        "max_momentum": 0.75,
    },
    "scale_fn": {**BOUNDS, "scale_fn": halving},
    "schedule": {"schedule": WARM, "momentum": 0.5},
    "one cycle": {"schedule": OneCycleSchedule(0.5, 20)},
    "schedule with a scale_fn": {"schedule": CyclicSchedule(**BOUNDS, scale_fn=halving)},
    "what holds for all": {
        **BOUNDS,
        "max_grad_norm": 0.1,
        "error_if_nonfinite": True,
        "advance_on_skip": True,
        "write_unscaled_grad": True,
    },
    "other rules": {**BOUNDS, "max_grad_value": 0.01, "skip_nonfinite": True},
    "settings": {**BOUNDS, "dampening": 0.5, "weight_decay": 0.1, "maximize": True, "momentum_dtype": torch.bfloat16},
    "averages": {**BOUNDS, "ema_decay": 0.9, "ema_warmup": True, "trust_coefficient": 0.1, "trust_min_ndim": 1},
}


def ours(name: str) -> FusedCyclicSGD:
    over = parameters([7, (3, 2), ()])
    own: list[dict[str, Any]] = [{"params": over[:1]}, {"params": over[1:], "weight_decay": 0.25, "mine": 3}]
    return FusedCyclicSGD(own, **CONSTRUCTORS[name])


def twins(optimizer: FusedCyclicSGD) -> list[dict[str, Any]]:
    """The groups over copies of the parameters."""
    return [{**group, "params": clones(group["params"])} for group in optimizer.param_groups]


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_defaults_are_the_arguments_as_given(name: str) -> None:
    optimizer = ours(name)
    given = CONSTRUCTORS[name]
    for key, value in given.items():
        assert optimizer.defaults[key] == (value.item() if isinstance(value, Tensor) else value)
        assert not isinstance(optimizer.defaults[key], Tensor)
    assert optimizer.defaults["momentum"] == given.get("momentum")
    # What monitors read.
    assert optimizer.defaults["lr"] == (float(given["lr"]) if "lr" in given else optimizer.get_last_lr()[0])
    assert all(isinstance(group[key], float) for group in optimizer.param_groups for key in ("lr", "momentum"))


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_a_clone_by_defaults(name: str) -> None:
    optimizer = ours(name)
    clone = type(optimizer)(
        [{"params": clones(optimizer.param_groups[0]["params"])}, {**optimizer.param_groups[1], **twins(optimizer)[1]}],
        **optimizer.defaults,
    )
    assert clone.defaults == optimizer.defaults
    assert_goes_on_alike(optimizer, clone)


@pytest.mark.parametrize("name", CONSTRUCTORS)
@pytest.mark.parametrize("steps", [0, 4])
def test_a_clone_by_groups(name: str, steps: int) -> None:
    """Everything but what holds for all gradients, which no group says: so wrappers such as horovod's make one."""
    optimizer = ours(name)
    go_on(optimizer, steps)
    before = entries(optimizer)
    rules = {key: value for key, value in CONSTRUCTORS[name].items() if hasattr(FusedCyclicSGD, key)}
    function: dict[str, Any] = {} if "scale_fn" not in name else {"scale_fn": halving}
    clone = type(optimizer)(optimizer.param_groups, **rules, **function)
    assert entries(optimizer) == before
    assert [id(p) for p in every_parameter(clone)] == [id(p) for p in every_parameter(optimizer)]
    assert entries(clone) == [{**group, "n_averaged": 0} for group in before]
    assert clone.applied_steps == steps
    assert not clone.state
    of_copies = type(optimizer)(twins(optimizer), **rules, **function)
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["n_averaged"] = 0
    assert_goes_on_alike(of_copies, optimizer)


@pytest.mark.parametrize(
    "again", [{"scale_fn": halving}, {"schedule": CyclicSchedule(1.0, 2.0, scale_fn=halving)}], ids=case_name
)
def test_a_clone_by_groups_needs_the_scale_fn_again(again: dict[str, Any]) -> None:
    optimizer = ours("scale_fn")
    with pytest.raises(ValueError, match="scale_fn=None"):
        type(optimizer)(optimizer.param_groups)
    assert entries(type(optimizer)(optimizer.param_groups, **again)) == entries(optimizer)


def test_a_constant_rate_that_was_driven_is_the_clones() -> None:
    """What stands in a group is the value of a constant schedule."""
    optimizer = ours("lr")
    optimizer.param_groups[1].update(lr=0.3, momentum=0.25)
    clone = type(optimizer)(twins(optimizer))
    assert (clone.get_last_lr(), clone.get_last_momentum()) == ([0.1, 0.3], [0.9, 0.25])
    assert_goes_on_alike(optimizer, clone)
    optimizer.param_groups[1]["lr"] = -1.0
    with pytest.raises(ValueError, match=r"group 1: lr=-1\.0"):
        type(optimizer)(optimizer.param_groups)


def test_an_lr_written_over_a_cycle_is_not_the_clones() -> None:
    optimizer = ours("bounds")
    optimizer.param_groups[0]["lr"] = 0.3
    assert type(optimizer)(optimizer.param_groups).get_last_lr() == [0.1, 0.1]


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_a_group_holds_plain_data_and_nothing_of_the_constructors(name: str) -> None:
    optimizer = ours(name)
    late = {**BOUNDS, "scale_fn": halving, "momentum_dtype": torch.float32}
    optimizer.add_param_group({"params": parameters([3]), **late})
    for group in optimizer.param_groups:
        assert group.keys() - {"mine"} == IN_A_GROUP
        json.dumps({key: value for key, value in group.items() if key != "params"})


FOREIGN: dict[str, Any] = {
    "name": "head",
    "fused": True,
    "foreach": False,
    "initial_lr": 0.7,
    "lr_scale": 0.1,
    "max_lr_of_mine": 3,
    "capturable": None,
    "mine": [1, {"two": 3.0}],
}


def test_foreign_keys_are_kept() -> None:
    """From the constructor, a late group, steps, a checkpoint and both kinds of clone; torch's own go with loading."""
    optimizer = FusedCyclicSGD([{"params": parameters([3]), **FOREIGN}], **BOUNDS)
    optimizer.add_param_group({"params": parameters([4]), **FOREIGN})
    go_on(optimizer, 3)
    for each in (optimizer, type(optimizer)(twins(optimizer), **optimizer.defaults), copy.deepcopy(optimizer)):
        assert all(FOREIGN.items() <= group.items() for group in each.param_groups)
    loaded = FusedCyclicSGD([{"params": clones(group["params"])} for group in optimizer.param_groups], **BOUNDS)
    loaded.load_state_dict(optimizer.state_dict())
    kept = {key: value for key, value in FOREIGN.items() if key not in ("fused", "foreach", "capturable")}
    assert all(kept.items() <= group.items() for group in loaded.param_groups)


def test_names_of_parameters_are_kept() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = FusedCyclicSGD(model.named_parameters(), **BOUNDS)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    named = [{**group, "params": list(model.named_parameters())} for group in optimizer.param_groups]
    assert type(optimizer)(named, **optimizer.defaults).param_groups[0]["param_names"] == ["weight", "bias"]
    other = FusedCyclicSGD(torch.nn.Linear(3, 2).parameters(), **BOUNDS)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["param_names"] == ["weight", "bias"]


@pytest.mark.parametrize("name", ["base_lr", "max_lr", "lr"])
@pytest.mark.parametrize(
    "tensor", [torch.empty((), device="meta"), torch.ones(2), torch.ones(()) + 1j, torch.tensor(True)]
)
def test_a_tensor_that_is_no_number_is_named(name: str, tensor: Tensor) -> None:
    with pytest.raises(TypeError, match=f"^{name}="):
        FusedCyclicSGD(parameters([3]), **{**({} if name == "lr" else BOUNDS), name: tensor})
