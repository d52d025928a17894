"""Around the update: closures, step hooks, the profiler, zero_grad."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from clr_native import FusedCyclicSGD
from helpers import assert_refused, every_parameter, parameters

Recorded = list[tuple[str, tuple[Any, ...], dict[str, Any]]]


def ours() -> FusedCyclicSGD:
    optimizer = FusedCyclicSGD(parameters([8]), 0.1, 0.5, step_size_up=1)
    with_gradient(optimizer)
    return optimizer


def with_gradient(optimizer: Any) -> Any:
    every_parameter(optimizer)[0].grad = torch.ones(8)
    return optimizer


def test_a_closure_runs_once_with_gradients_enabled_before_the_update() -> None:
    optimizer = ours()
    (weight,) = every_parameter(optimizer)
    before = weight.detach().clone()
    seen = []

    def closure() -> torch.Tensor:
        seen.append((torch.is_grad_enabled(), torch.equal(weight, before)))
        loss = (weight**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        return loss

    optimizer.zero_grad()
    with torch.no_grad():
        loss: Any = optimizer.step(closure)  # type: ignore[arg-type]  # a float in its signature, as in torch
    assert seen == [(True, True)]
    assert torch.equal(loss, (before**2).sum())
    assert torch.equal(weight, before.add(2 * before, alpha=-0.1))
    assert optimizer.applied_steps == 1
    assert optimizer.step(closure=lambda: 3.5) == 3.5
    assert optimizer.step() is None
    assert optimizer.step(closure=None) is None


def test_a_closure_that_raises_changes_nothing() -> None:
    optimizer = ours()

    def closure() -> float:
        raise RuntimeError("no loss today")

    assert_refused(lambda: optimizer.step(closure), RuntimeError, "no loss today", optimizer)


def test_a_closure_may_step_itself() -> None:
    """As torch allows: the inner update comes first."""
    optimizer = ours()

    def closure() -> float:
        optimizer.step()
        return 1.0

    assert optimizer.step(closure) == 1.0
    assert optimizer.applied_steps == 2


@pytest.fixture
def global_hooks() -> Iterator[Recorded]:
    recorded: Recorded = []
    handles = [
        register_optimizer_step_pre_hook(lambda o, args, kwargs: recorded.append(("global pre", args, kwargs))),
        register_optimizer_step_post_hook(lambda o, args, kwargs: recorded.append(("global post", args, kwargs))),
    ]
    yield recorded
    for handle in handles:
        handle.remove()


def closure() -> float:
    return 2.5


CALLS: dict[str, Callable[[Any], Any]] = {
    "step()": lambda o: o.step(),
    "step(closure)": lambda o: o.step(closure),
}


@pytest.mark.parametrize("call", CALLS)
def test_hooks_are_called_as_torch_calls_them(call: str, global_hooks: Recorded) -> None:
    """Same order, same arguments, own and global."""
    both: list[Any] = []
    for optimizer in (ours(), with_gradient(SGD(parameters([8]), lr=0.1))):
        global_hooks.clear()
        optimizer.register_step_pre_hook(lambda o, args, kwargs: global_hooks.append(("pre", args, kwargs)))
        optimizer.register_step_post_hook(lambda o, args, kwargs: global_hooks.append(("post", args, kwargs)))
        result = CALLS[call](optimizer)
        assert all(args[0] is optimizer for _, args, _ in global_hooks)
        both.append((result, [(name, args[1:], kwargs) for name, args, kwargs in global_hooks]))
    assert [name for name, *_ in both[0][1]] == ["global pre", "pre", "post", "global post"]
    assert both[0] == both[1]


@pytest.mark.parametrize("given", [closure, None])
def test_hooks_get_a_closure_by_position_however_it_was_passed(
    given: Callable[[], float] | None, global_hooks: Recorded
) -> None:
    """torch hands on what it was given: README, "Differences from torch"."""
    ours().step(closure=given)
    assert [args[1:] for _, args, _ in global_hooks] == [() if given is None else (closure,)] * 2
    assert [kwargs for *_, kwargs in global_hooks] == [{}] * 2


def test_hooks_see_the_weights_before_and_after() -> None:
    optimizer = ours()
    (weight,) = every_parameter(optimizer)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(weight.detach().clone()))
    handle = optimizer.register_step_post_hook(lambda *_: seen.append(weight.detach().clone()))
    optimizer.step()
    assert torch.equal(seen[1], seen[0].add(torch.ones(8), alpha=-0.1))
    handle.remove()
    optimizer.step()
    assert len(seen) == 3


def test_a_pre_hook_may_change_arguments_and_gradients() -> None:
    optimizer = ours()
    (weight,) = every_parameter(optimizer)
    before = weight.detach().clone()
    calls = []

    def own_closure() -> float:
        calls.append("own")
        return 7.0

    def hook(o: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        weight.grad = torch.full((8,), 3.0)
        return (o, own_closure), {}

    optimizer.register_step_pre_hook(hook)
    assert optimizer.step() == 7.0
    assert calls == ["own"]
    assert torch.equal(weight, before.add(torch.full((8,), 3.0), alpha=-0.1))


def test_a_pre_hook_that_returns_nonsense_is_refused_as_in_torch() -> None:
    optimizer = ours()
    optimizer.register_step_pre_hook(lambda *_: 3)  # type: ignore[arg-type]  # wrong on purpose
    assert_refused(optimizer.step, RuntimeError, "must return None or a tuple", optimizer)


def test_a_profiler_records_the_step() -> None:
    optimizer = ours()
    optimizer.step()
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
        optimizer.zero_grad()
    names = {event.key for event in profile.key_averages()}
    assert "Optimizer.step#FusedCyclicSGD.step" in names
    assert "Optimizer.zero_grad#FusedCyclicSGD.zero_grad" in names
    assert optimizer.applied_steps == 2


def test_zero_grad() -> None:
    optimizer = ours()
    (weight,) = every_parameter(optimizer)
    gradient = weight.grad
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    assert weight.grad is gradient
    assert gradient is not None
    assert torch.equal(gradient, torch.zeros(8))
    before = weight.detach().clone()
    optimizer.step()  # zero gradients still move the weight by momentum
    assert not torch.equal(weight, before)
    optimizer.zero_grad()
    assert weight.grad is None
    before = weight.detach().clone()
    optimizer.step()  # no gradient: not touched
    assert torch.equal(weight, before)
    assert optimizer.applied_steps == 3


def test_a_hook_on_cycle_ends_is_still_there_after_loading() -> None:
    """As step hooks are."""
    optimizer = ours()
    ends: list[int] = []
    handle = optimizer.register_cycle_end_hook(lambda each: ends.append(each.applied_steps))
    for _ in range(3):
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert ends == [2, 4]
    handle.remove()
    for _ in range(2):
        optimizer.step()
    assert ends == [2, 4]
