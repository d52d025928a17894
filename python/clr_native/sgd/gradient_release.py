"""Gradient release: each parameter is updated as soon as its gradient is complete. The gradient is then freed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from clr_native.sgd.binding import Owner

if TYPE_CHECKING:
    from types import TracebackType

    from torch.utils.hooks import RemovableHandle
    from typing_extensions import Self


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


def release(optimizer: Owner, process_local: bool) -> ReleaseHandle:
    """Hooks every parameter that requires a gradient.

    Raises RuntimeError if an option needs all gradients at once, or if gradients are yet to be averaged over processes.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(getattr(parameter, "_fsdp_flattened", False) for parameter in parameters):
        raise RuntimeError(
            "release_gradients() cannot be used with FullyShardedDataParallel: its parameters are parts of one tensor, "
            "whose gradients are averaged over processes afterwards: leave it out"
        )
    if not process_local:
        _refuse_several_processes()
    optimizer._binding.native.check_release(optimizer.param_groups)
    owner = _Hooks(optimizer, process_local)
    return ReleaseHandle(
        [
            parameter.register_post_accumulate_grad_hook(owner.hook(position))
            for position, parameter in enumerate(parameters)
            if parameter.requires_grad
        ]
    )


def _refuse_several_processes() -> None:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise RuntimeError(
            f"release_gradients() in one of {distributed.get_world_size()} processes would update weights with this "
            "process's own gradients, before DistributedDataParallel averages them: leave it out, or say "
            "process_local=True if every process trains a model of its own"
        )


class _Hooks:
    """The hooks of an optimizer's parameters. The parameters must not keep their optimizer alive."""

    def __init__(self, optimizer: Owner, process_local: bool) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.is_checked = process_local

    def hook(self, position: int) -> Callable[[torch.Tensor], None]:
        def use(parameter: torch.Tensor) -> None:
            optimizer = self.optimizer()
            if optimizer is None:
                return
            if not self.is_checked:  # the processes may have found each other since release_gradients()
                _refuse_several_processes()
                self.is_checked = True
            optimizer._binding.native.release(optimizer.param_groups, optimizer.state, parameter, position)

        return use
