"""averaged_weights() swaps in place and gives everything back; copy_average_to() fills a model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clr_native import FusedCyclicSGD
from helpers import (
    LAYOUTS,
    assert_goes_on_alike,
    assert_same_state,
    bits,
    every_parameter,
    go_on,
    output_of,
    parameters,
    picture,
    python_process,
    raised,
)

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def averaging(over: Any, steps: int = 3, **settings: Any) -> FusedCyclicSGD:
    """After some steps."""
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, step_size_up=2, **{"ema_decay": 0.75, **settings})
    go_on(optimizer, steps)
    return optimizer


def every_kind(dtype: torch.dtype) -> list[Tensor]:
    """Dense ones, other layouts, gaps, empty ones; two views of one memory."""
    dense = parameters([1, 17, (3, 5), 0, (), 20_011], dtype)
    turned = [
        turn(parameters([(4, 3, 2, 5)], dtype)[0].detach()) for name, turn in LAYOUTS.items() if name != "expanded"
    ]
    memory = torch.zeros(6, 8, dtype=dtype)
    return [*dense, *(t.requires_grad_() for t in (*turned, memory[:, :4].detach(), memory[:3, 4:].detach()))]


def averages(optimizer: FusedCyclicSGD) -> list[bytes]:
    return [bits(optimizer.state[p]["average"]) for p in every_parameter(optimizer)]


def weights(optimizer: FusedCyclicSGD) -> list[bytes]:
    return [bits(p) for p in every_parameter(optimizer)]


def places(optimizer: FusedCyclicSGD) -> list[tuple[int, int, tuple[int, ...]]]:
    return [(id(p), p.data_ptr(), p.stride()) for p in every_parameter(optimizer)]


# --- swapping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_parameters_hold_their_averages_inside_and_their_weights_after_it(dtype: torch.dtype) -> None:
    optimizer = averaging(every_kind(dtype))
    over = every_parameter(optimizer)
    before, expected, here = picture(optimizer), averages(optimizer), places(optimizer)
    versions = [p._version for p in over]
    assert weights(optimizer) != expected
    with optimizer.averaged_weights():
        assert weights(optimizer) == expected
        assert places(optimizer) == here
        assert all(p._version > version for p, version in zip(over, versions, strict=True))
        versions = [p._version for p in over]
    assert places(optimizer) == here
    assert all(p._version > version for p, version in zip(over, versions, strict=True))
    after = picture(optimizer)
    before.pop("versions")
    after.pop("versions")
    assert after == before


def test_autograd_notices() -> None:
    """A weight that was saved for backward and is another one by then."""
    (weight,) = parameters([5])
    optimizer = averaging([weight])
    loss = (weight * weight).sum()
    with optimizer.averaged_weights(), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
    with optimizer.averaged_weights():
        assert not torch.is_inference_mode_enabled()
        assert weight.requires_grad
        assert weight.grad is not None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_weights_are_given_back_after_an_exception(error: type[BaseException]) -> None:
    optimizer, twin = averaging(every_kind(torch.float32)), averaging(every_kind(torch.float32))
    with pytest.raises(error), optimizer.averaged_weights():
        raise error
    assert_same_state(optimizer, twin)
    assert_goes_on_alike(optimizer, twin, 2)


def test_weights_are_given_back_where_swapping_fails_half_way() -> None:
    """Here the second average is no tensor of the parameter's shape."""
    optimizer = averaging(parameters([5, 5, 5]))
    before = weights(optimizer)
    kept = optimizer.state[every_parameter(optimizer)[1]]
    good, kept["average"] = kept["average"], torch.ones(2, 3)
    with pytest.raises(ValueError, match="average"), optimizer.averaged_weights():
        raise AssertionError
    assert weights(optimizer) == before
    kept["average"] = good
    optimizer.step()
    assert optimizer.applied_steps == 4


def test_only_groups_with_an_average_are_swapped() -> None:
    over = parameters([5, 6])
    optimizer = averaging([{"params": over[:1]}, {"params": over[1:], "ema_decay": None}])
    before, average = weights(optimizer), bits(optimizer.state[over[0]]["average"])
    assert "average" not in optimizer.state[over[1]]
    with optimizer.averaged_weights():
        assert weights(optimizer) == [average, before[1]]
    assert weights(optimizer) == before


def test_a_model_evaluates_with_its_averages_and_trains_on() -> None:
    """update_bn inside, as the docs show."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    weight = next(model.parameters())
    weight.data = weight.detach().contiguous(memory_format=torch.channels_last)
    optimizer = FusedCyclicSGD(model.parameters(), 0.01, 0.1, ema_decay=0.75)
    inputs = torch.randn(8, 1, 6, 6)
    for _ in range(4):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    average = copy.deepcopy(model)
    optimizer.copy_average_to(average)
    torch.optim.swa_utils.update_bn([inputs], average)
    before = copy.deepcopy(model.state_dict())
    with optimizer.averaged_weights(), torch.no_grad():
        torch.optim.swa_utils.update_bn([inputs], model)
        assert torch.equal(model.eval()(inputs), average.eval()(inputs))
    model.load_state_dict({**before, **{k: v for k, v in model.state_dict().items() if "running" not in k}})
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if "num_batches" not in k)


INSIDE: dict[str, Callable[[FusedCyclicSGD], object]] = {
    "step()": lambda each: each.step(),
    "state_dict()": lambda each: each.state_dict(),
    "load_state_dict()": lambda each: each.load_state_dict({"state": {}, "param_groups": []}),
    "averaged_weights()": lambda each: each.averaged_weights().__enter__(),
    "copy_average_to()": lambda each: each.copy_average_to(nn.Linear(1, 1)),
    "to_torch()": lambda each: each.to_torch(),
    "copying or pickling": copy.deepcopy,
    "copying or pickling ": pickle.dumps,
}


@pytest.mark.parametrize("what", INSIDE)
def test_inside_it_is_refused_by_name(what: str) -> None:
    optimizer = averaging(parameters([5, (3, 4)]))
    before = weights(optimizer), averages(optimizer)
    with optimizer.averaged_weights():
        error = raised(lambda: INSIDE[what](optimizer))
        assert type(error) is RuntimeError
        assert str(error) == f"{what.strip()} inside averaged_weights(): leave it first"
        assert (averages(optimizer), weights(optimizer)) == before
    assert (weights(optimizer), averages(optimizer)) == before
    if what not in ("load_state_dict()", "copy_average_to()", "to_torch()"):
        INSIDE[what](optimizer)


@pytest.mark.parametrize(
    ("settings", "steps"), [({"ema_decay": None}, 3), ({}, 0), ({"ema_decay": None, "average": "swa"}, 3)]
)
def test_without_an_average_it_is_refused(settings: dict[str, Any], steps: int) -> None:
    optimizer = averaging(parameters([5]), steps, **settings)
    before = weights(optimizer)
    with pytest.raises(RuntimeError, match=r"no average yet: set ema_decay"), optimizer.averaged_weights():
        raise AssertionError
    with pytest.raises(RuntimeError, match=r"no average yet: set ema_decay"):
        optimizer.copy_average_to(nn.ParameterList([torch.ones(5)]))
    assert weights(optimizer) == before
    go_on(optimizer)


# --- memory -------------------------------------------------------------------------------------------------


def tensor_bytes(optimizer: FusedCyclicSGD) -> int:
    with torch.autograd.profiler.profile(profile_memory=True) as profile, optimizer.averaged_weights():
        pass
    return sum(max(event.self_cpu_memory_usage, 0) for event in profile.function_events or [])


def report_peak() -> None:
    """How far the process's peak rises when 128 MiB of weights are swapped there and back, in MiB."""
    import resource

    over = [torch.zeros(2**24, requires_grad=True) for _ in range(2)]  # 64 MiB each
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, ema_decay=0.5)
    optimizer.step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with optimizer.averaged_weights():
        pass
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


def test_swapping_allocates_no_tensors() -> None:
    assert tensor_bytes(averaging(parameters([100_000, (4, 3, 2, 5)]))) == 0
    turned = LAYOUTS["channels_last"](parameters([(4, 3, 2, 5)])[0].detach()).requires_grad_()
    assert tensor_bytes(averaging([turned])) == 0


def test_swapping_weights_with_gaps_allocates_one_parameter_at_a_time() -> None:
    one, three = (
        tensor_bytes(averaging([torch.zeros(100, 20)[:, :10].detach().requires_grad_() for _ in range(count)]))
        for count in (1, 3)
    )
    assert 0 < one < three  # the profiler adds up; each is freed before the next


@pytest.mark.slow
def test_the_peak_of_the_process_does_not_rise() -> None:
    pytest.importorskip("resource", reason="Windows does not tell")
    assert int(output_of(python_process("import test_averaged_weights as t; t.report_peak()"))) <= 8


# --- copying out --------------------------------------------------------------------------------------------


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)).to(dtype)


def named_groups(model: nn.Sequential) -> list[dict[str, Any]]:
    """In another order than the model's; the second has no average."""
    named = list(model.named_parameters())
    return [{"params": named[3:]}, {"params": named[:3], "ema_decay": None}]


GROUPINGS: dict[str, Callable[[nn.Sequential], Any]] = {
    "one group": lambda model: model.parameters(),
    "one group of names": lambda model: model.named_parameters(),
    "groups of names": named_groups,
}


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_averages_are_copied_into_a_model(dtype: torch.dtype, own: bool, grouping: str) -> None:
    """Parameters without one as they are; buffers are left alone."""
    model = network()
    optimizer = averaging(GROUPINGS[grouping](model))
    expected = {
        name: optimizer.state[p].get("average", p).detach().to(dtype, copy=True) for name, p in model.named_parameters()
    }
    before = copy.deepcopy(model.state_dict())
    target = model.to(dtype) if own and dtype is torch.float32 else network(9, dtype)
    buffers = copy.deepcopy(dict(target.named_buffers()))
    optimizer.copy_average_to(target)
    assert all(torch.equal(p, expected[name]) for name, p in target.named_parameters())
    assert all(torch.equal(b, buffers[name]) for name, b in target.named_buffers())
    if target is not model:
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_several_groups_without_names_are_matched_by_identity_alone() -> None:
    model = network()
    optimizer = averaging([{"params": model[0].parameters()}, {"params": [*model[1:].parameters()]}])
    averages = [optimizer.state[p]["average"].clone() for p in model.parameters()]
    other = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"construct the optimizer with model\.named_parameters"):
        optimizer.copy_average_to(other)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    optimizer.copy_average_to(model)
    assert all(torch.equal(p, average) for p, average in zip(model.parameters(), averages, strict=True))


def with_other_sizes() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 4))


WRONG: dict[str, tuple[str, Callable[[], nn.Module], str]] = {
    "fewer": ("one group", lambda: network()[:2], "model has 4 parameters, the optimizer 6"),
    "shapes": ("one group", with_other_sizes, r"model's 2\.weight: shape=\(4, 3\) must be \(3, 3\)"),
    "shapes by name": ("groups of names", with_other_sizes, r"model's 2\.weight: shape=\(4, 3\) must be \(3, 3\)"),
    "names": ("groups of names", lambda: nn.ModuleDict({"x": network()}), r"model has a parameter 'x\.0\.bias'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_model_that_does_not_fit_is_refused_and_nothing_has_changed(case: str) -> None:
    grouping, make, message = WRONG[case]
    optimizer = averaging(GROUPINGS[grouping](network()))
    target = make()
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(ValueError, match=message):
        optimizer.copy_average_to(target)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
