"""state_dict() and load_state_dict(): plain data, what wins over what, nothing shared, nothing half loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import CyclicSchedule, FusedCyclicSGD
from helpers import (
    Shape,
    assert_goes_on_alike,
    assert_refused,
    assert_same_state,
    bits,
    buffer_of,
    clones,
    every_parameter,
    go_on,
    halving,
    parameters,
    picture,
    raised,
    take_weights,
    through_a_file,
)

SHAPES: list[Shape] = [5, (4, 3), (3, 2, 2, 2), (), 0]


def ours(over: Sequence[Tensor], **settings: Any) -> FusedCyclicSGD:
    groups: list[dict[str, Any]] = [{"params": over[:2]}, {"params": over[2:], "max_lr": 0.7, "window": "hann"}]
    return FusedCyclicSGD(groups, 0.1, 0.5, **{"step_size_up": 3} | settings)


def trained(steps: int = 5, **settings: Any) -> FusedCyclicSGD:
    over = parameters(SHAPES)
    over[2].data = over[2].detach().contiguous(memory_format=torch.channels_last)
    optimizer = ours(over, **settings)
    go_on(optimizer, steps)
    return optimizer


def fresh(like: FusedCyclicSGD, **settings: Any) -> FusedCyclicSGD:
    return ours(clones(every_parameter(like)), **settings)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in (key, *leaves(item))]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def frozen(value: Any) -> Any:
    """A deep copy to compare with: tensors as bits."""
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(item) for item in value]
    return bits(value) if isinstance(value, Tensor) else copy.deepcopy(value)


def test_two_keys_and_plain_data() -> None:
    state = trained().state_dict()
    assert state.keys() == {"state", "param_groups"}
    allowed = {int, float, bool, str, type(None)}
    assert {type(leaf) for leaf in leaves(state["param_groups"])} <= allowed
    assert {type(leaf) for leaf in leaves(state["state"])} <= {*allowed, Tensor}
    for group, max_lr in zip(state["param_groups"], (0.5, 0.7), strict=True):
        assert (group["applied_steps"], group["skipped_steps"]) == (5, 0)
        assert type(group["applied_steps"]) is type(group["skipped_steps"]) is int
        assert CyclicSchedule.from_dict(group["schedule"]).max_lr == max_lr
    assert [entry.keys() for entry in state["state"].values()] == [{"momentum_buffer"}] * len(SHAPES)


def test_asking_for_it_changes_nothing() -> None:
    for optimizer in (fresh(trained()), trained()):
        before = picture(optimizer)
        optimizer.state_dict()
        assert picture(optimizer) == before


@pytest.mark.parametrize("way", [lambda state: state, copy.deepcopy, through_a_file])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_continues_bit_for_bit(steps: int, way: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    one = trained(steps, mode="exp_range", gamma=0.9, weight_decay=0.01)
    other = fresh(one)
    other.load_state_dict(way(one.state_dict()))
    assert other.applied_steps == steps
    assert other.state_dict()["param_groups"] == one.state_dict()["param_groups"]
    assert_goes_on_alike(one, other)


@pytest.mark.parametrize(
    ("saved", "constructed"),
    [
        (
            {"window": "welch", "nesterov": True, "weight_decay": 0.01},
            {"step_size_up": 9, "mode": "triangular2", "base_momentum": 0.1, "maximize": True, "dampening": 0.5},
        ),
        ({"window": "welch", "nesterov": True}, {"cycle_momentum": False, "momentum": 0.3}),
        ({"cycle_momentum": False, "momentum": 0.3}, {"cycle_momentum": False, "momentum": 0.6}),
    ],
    ids=str,
)
def test_the_checkpoint_wins_over_the_constructor(saved: dict[str, Any], constructed: dict[str, Any]) -> None:
    one = trained(**saved)
    other = fresh(one, **constructed)
    go_on(other, 2)
    take_weights(other, one)
    other.load_state_dict(one.state_dict())
    assert_same_state(one, other)
    assert_goes_on_alike(one, other)


def test_the_callers_dict_is_neither_changed_nor_shared() -> None:
    state = trained().state_dict()
    optimizer = fresh(trained())
    before = frozen(state)
    optimizer.load_state_dict(state)
    assert frozen(state) == before
    assert_goes_on_alike(trained(), optimizer)
    optimizer.param_groups[0]["schedule"]["max_lr"] = 9.0
    assert frozen(state) == before
    again = fresh(trained())
    again.load_state_dict(state)  # a second time, in another optimizer
    assert_goes_on_alike(trained(), again)
    assert frozen(state) == before


def test_a_state_dict_taken_earlier_is_a_view_of_buffers_only() -> None:
    """As in torch: tensors are not copied; numbers and the schedule are of that moment."""
    optimizer = trained()
    state = optimizer.state_dict()
    numbers = frozen(state["param_groups"])
    state["param_groups"][0]["schedule"]["max_lr"] = 9.0
    assert optimizer.param_groups[0]["schedule"]["max_lr"] == 0.5
    state["param_groups"][0]["schedule"]["max_lr"] = 0.5
    go_on(optimizer, 3)
    assert frozen(state["param_groups"]) == numbers
    assert state["state"][0]["momentum_buffer"] is buffer_of(optimizer, every_parameter(optimizer)[0])


def test_a_buffer_that_is_none_is_absent() -> None:
    one = trained()
    weight = every_parameter(one)[0]
    one.state[weight]["momentum_buffer"] = None
    other = fresh(one)
    other.load_state_dict(one.state_dict())
    assert buffer_of(other, every_parameter(other)[0]) is None
    assert_goes_on_alike(one, other)


def test_what_was_set_by_hand_is_saved_and_holds_for_one_update() -> None:
    one = trained()
    one.param_groups[1].update(lr=0.25, momentum=0.5)
    state = one.state_dict()
    one.param_groups[1]["lr"] = torch.tensor(0.25)  # another object for the same rate
    for groups in (state["param_groups"], one.state_dict()["param_groups"]):
        found = [(group["overridden"], group["lr"], group["momentum"]) for group in groups]
        assert found == [(False, one.get_last_lr()[0], one.get_last_momentum()[0]), (True, 0.25, 0.5)]
    other = fresh(one)
    other.load_state_dict(state)
    assert_goes_on_alike(one, other)


def test_buffers_take_the_layout_of_their_parameter() -> None:
    one, state = trained(), copy.deepcopy(trained().state_dict())
    state["state"][2]["momentum_buffer"] = state["state"][2]["momentum_buffer"].contiguous()
    other = fresh(one)
    other.load_state_dict(state)
    weight = every_parameter(other)[2]
    assert (
        weight.stride()
        == other.state[weight]["momentum_buffer"].stride()
        != state["state"][2]["momentum_buffer"].stride()
    )
    assert_goes_on_alike(one, other)


def renamed(d: dict[str, Any], name: str, value: Any) -> None:
    d[name] = value


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "one group less": (lambda s: s["param_groups"].pop(), "number of parameter groups"),
    "one parameter less": (lambda s: s["param_groups"][1]["params"].pop(), "size of optimizer's group"),
    "short buffer": (lambda s: renamed(s["state"][1], "momentum_buffer", torch.zeros(4, 2)), "shape="),
    "buffer of another rank": (lambda s: renamed(s["state"][1], "momentum_buffer", torch.zeros(12)), "shape="),
    "buffer no tensor": (lambda s: renamed(s["state"][1], "momentum_buffer", 3.0), "momentum_buffer"),
    "no state": (lambda s: s.pop("state"), "state"),
    "no groups": (lambda s: s.pop("param_groups"), "param_groups"),
    "negative position": (lambda s: renamed(s["param_groups"][1], "applied_steps", -1), "applied_steps=-1"),
    "position a string": (lambda s: renamed(s["param_groups"][1], "applied_steps", "5"), "applied_steps='5'"),
    "schedule a number": (lambda s: renamed(s["param_groups"][1], "schedule", 3), "schedule=3"),
    "schedule of another kind": (lambda s: renamed(s["param_groups"][1]["schedule"], "kind", "x"), "kind='x'"),
    "schedule's bad value": (lambda s: renamed(s["param_groups"][1]["schedule"], "max_lr", -1.0), "max_lr=-1.0"),
    "unknown schedule key": (lambda s: renamed(s["param_groups"][1]["schedule"], "upp", 2), "upp=2"),
    "negative weight decay": (lambda s: renamed(s["param_groups"][1], "weight_decay", -1.0), "weight_decay=-1.0"),
    "nesterov and dampening": (
        lambda s: s["param_groups"][1].update(nesterov=True, dampening=0.5),
        "dampening=0.5",
    ),
    "one number for two parameters": (lambda s: s["param_groups"][1].update(params=[2, 3, 2]), r"\['params'\]\[2\]=2"),
    "a buffer whose storage was freed": (
        lambda s: s["state"][1]["momentum_buffer"].untyped_storage().resize_(0),
        "no memory",
    ),
    "a scale_fn that is not here": (lambda s: renamed(s["param_groups"][1]["schedule"], "scale_fn", True), "scale_fn"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_failed_load_leaves_everything_as_it_was(case: str) -> None:
    spoil, words = BROKEN[case]
    state = copy.deepcopy(trained(4, window="welch", weight_decay=0.1).state_dict())
    spoil(state)
    before = frozen(state)
    optimizer = trained(2)
    assert_refused(lambda: optimizer.load_state_dict(state), (ValueError, TypeError), words, optimizer)
    assert frozen(state) == before
    assert_goes_on_alike(optimizer, trained(2))


def test_a_value_that_cannot_be_copied_is_named() -> None:
    state, optimizer = trained().state_dict(), trained(2)
    state["param_groups"][1]["mine"] = (number for number in range(3))
    words = r"\['param_groups'\]\[1\]\['mine'\]"
    assert_refused(lambda: optimizer.load_state_dict(state), TypeError, words, optimizer)
    assert_goes_on_alike(optimizer, trained(2))


def test_scale_fn_is_the_constructors() -> None:
    one = trained(scale_fn=halving)
    state = through_a_file(one.state_dict())
    other = fresh(one, scale_fn=lambda cycle: 0.5 ** (cycle - 1))
    other.load_state_dict(state)
    assert_goes_on_alike(one, other)
    without = fresh(one)
    assert_refused(lambda: without.load_state_dict(state), ValueError, "scale_fn", without)


def test_a_checkpoint_without_scale_fn_needs_none() -> None:
    one = trained()
    other = fresh(one, scale_fn=halving)
    other.load_state_dict(one.state_dict())
    assert_goes_on_alike(one, other)


def test_a_skipped_first_step_leaves_nothing_in_a_checkpoint() -> None:
    over = parameters([3])
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, skip_nonfinite=True)
    over[0].grad = torch.full((3,), torch.inf)
    optimizer.step()
    assert (optimizer.skipped_steps, optimizer.state_dict()["state"]) == (1, {})


def test_a_refused_first_step_leaves_nothing_in_a_checkpoint() -> None:
    over = parameters([3])
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, max_grad_norm=1.0, error_if_nonfinite=True)
    over[0].grad = torch.full((3,), torch.inf)
    assert isinstance(raised(optimizer.step), RuntimeError)
    assert optimizer.state_dict()["state"] == {}


def test_what_others_keep_in_the_state_stays_as_it_is() -> None:
    """torch would make "<generator object ...>" of text, and round float64 to the parameter's dtype."""
    one, kept = (
        trained(),
        {"text": "a", "numbers": [1, {"two": 3}], "step": torch.tensor(2**24 + 1.0, dtype=torch.float64)},
    )
    one.state[every_parameter(one)[0]].update(kept)
    other = fresh(one)
    other.load_state_dict(one.state_dict())
    entry = other.state[every_parameter(other)[0]]
    assert {name: entry[name] for name in kept} == kept
    assert entry["step"].dtype == torch.float64
    assert not any(entry[name] is value for name, value in kept.items() if name != "text")
    assert_goes_on_alike(one, other)


def test_a_hook_after_loading_sees_what_was_loaded_and_may_set_lr() -> None:
    one, other = trained(), fresh(trained())

    def check(optimizer: Any) -> None:
        buffers = [each.state[every_parameter(each)[0]]["momentum_buffer"] for each in (optimizer, one)]
        assert torch.equal(*buffers)
        assert optimizer.param_groups[0]["lr"] == one.param_groups[0]["lr"]
        optimizer.param_groups[0]["lr"] = 0.01

    other.register_load_state_dict_post_hook(check)
    other.load_state_dict(one.state_dict())
    one.param_groups[0]["lr"] = 0.01
    assert_goes_on_alike(one, other)


def test_hooks_of_saving_and_loading() -> None:
    optimizer, seen = trained(), []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("pre"))
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "added": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, state: state["param_groups"][0].update(weight_decay=0.25))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("post"))
    state = optimizer.state_dict()
    assert state.pop("added") == 1
    optimizer.load_state_dict(copy.deepcopy(state))
    assert seen == ["pre", "post"]
    assert optimizer.param_groups[0]["weight_decay"] == 0.25
