"""Gradient release: each parameter is updated as soon as its gradient is complete, which is then freed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import torch

if TYPE_CHECKING:
    from types import TracebackType

    from torch.utils.hooks import RemovableHandle
    from typing_extensions import Self

    from clr_native.sgd.optimizer import FusedCyclicSGD


class ReleaseHandle:
    """Ends gradient release with ``remove()``, or at the end of a ``with`` block."""

    def __init__(self, handles: list[RemovableHandle]) -> None:
        self._handles = handles

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def release(optimizer: FusedCyclicSGD) -> ReleaseHandle:
    """Hooks every parameter that requires a gradient. Raises RuntimeError for what needs all gradients at once."""
    for name in ("max_grad_norm", "max_grad_value", "skip_nonfinite"):
        if getattr(optimizer, name):
            _refuse(f"{name}={getattr(optimizer, name)!r}")
    for index, group in enumerate(optimizer.param_groups):
        if group["trust_coefficient"] is not None:
            _refuse(f"trust_coefficient={group['trust_coefficient']!r} of group {index}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # Parameters must not keep their optimizer alive.
    reference = weakref.ref(optimizer)
    return ReleaseHandle(
        [
            parameter.register_post_accumulate_grad_hook(_hook(reference, position))
            for position, parameter in enumerate(parameters)
            if parameter.requires_grad
        ]
    )


def _hook(reference: weakref.ref[FusedCyclicSGD], position: int) -> Callable[[torch.Tensor], None]:
    def use(parameter: torch.Tensor) -> None:
        optimizer = reference()
        if optimizer is not None:
            optimizer._refuse_inside_averages("backward() with release_gradients()")
            _use(optimizer, parameter, position)

    return use


def _use(optimizer: FusedCyclicSGD, parameter: torch.Tensor, position: int) -> None:
    def call(ends_cycle: bool | None) -> bool | None:
        return optimizer._plan.release(optimizer.param_groups, optimizer.state, parameter, position, ends_cycle)

    done = call(optimizer._ends_cycle() if optimizer._asks_for_cycle_end else None)
    if not done:
        optimizer._answer(done, call)


def _refuse(what: str) -> NoReturn:
    raise RuntimeError(f"{what} needs all gradients at once: leave it out, or release_gradients()")
