"""Gradient release: each parameter is updated as soon as its gradient is complete. The gradient is then freed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch

from clr_native.sgd.binding import Binding

if TYPE_CHECKING:
    from types import TracebackType

    from torch.utils.hooks import RemovableHandle
    from typing_extensions import Self


class Releasing(Protocol):
    """An optimizer that can update one of its parameters, given with its position among all parameters."""

    param_groups: list[dict[str, Any]]
    _binding: Binding

    def _release(self, parameter: torch.Tensor, position: int) -> None: ...


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


def release(optimizer: Releasing) -> ReleaseHandle:
    """Hooks every parameter that requires a gradient. Raises RuntimeError if an option needs all gradients at once."""
    optimizer._binding.native.check_release(optimizer.param_groups)
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


def _hook(reference: weakref.ref[Releasing], position: int) -> Callable[[torch.Tensor], None]:
    def use(parameter: torch.Tensor) -> None:
        optimizer = reference()
        if optimizer is not None:
            optimizer._release(parameter, position)

    return use
