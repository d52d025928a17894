"""A scheduler that changes nothing, for frameworks that put one of their own where there is none."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_STATE = ("last_epoch", "_step_count", "base_lrs", "_last_lr")


class FollowingScheduler(LRScheduler):
    """A torch scheduler whose ``step()`` only notes the learning rates that stand in the optimizer's groups.

    The optimizer advances its own schedule. So between ``optimizer.step()`` and ``scheduler.step()`` ``get_last_lr()``
    returns the rates that were just used, and afterwards the next ones, as with torch's own schedulers; any number of
    ``step()`` calls, before or after an update, changes no weight. On a GPU the rates are the host's, which learns of
    skipped steps when somebody asks the optimizer, for instance for ``get_last_lr()``.

    ``last_epoch`` counts the calls of ``step()`` from 0 and may be set; it has no influence. ``state_dict()`` holds
    numbers only.

    >>> import torch
    >>> from clr_native import FusedCyclicSGD
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> optimizer = FusedCyclicSGD([weight], 0.0, 0.5, step_size_up=2)
    >>> scheduler = optimizer.as_scheduler()
    >>> weight.grad = torch.ones(2)
    >>> optimizer.step()
    >>> scheduler.get_last_lr(), optimizer.get_last_lr()
    ([0.0], [0.25])
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]
    """

    # torch's constructor would put initial_lr into the groups, wrap optimizer.step, and call step().
    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.last_epoch = 0
        self._step_count = 1
        self._get_lr_called_within_step = False
        self.base_lrs = self._standing()
        self._last_lr = self._standing()

    def _standing(self) -> list[float | Tensor]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def step(self, epoch: int | None = None) -> None:
        """Notes the rates that stand in the groups. ``epoch``: the new ``last_epoch``, by default one more."""
        self._step_count += 1
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._last_lr = self._standing()

    def get_last_lr(self) -> list[float | Tensor]:
        """The rates of the groups that were last noted."""
        return list(self._last_lr)

    def get_lr(self) -> list[Any]:
        """The rates that stand in the groups."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Counts and rates, without the optimizer: ``torch.load`` takes it with ``weights_only=True``."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes counts and rates from ``state_dict``. The optimizer's position is in the optimizer's state."""
        missing = [name for name in _STATE if name not in state_dict]
        if missing:
            raise ValueError(f"state_dict has lost its key {missing[0]!r}: it must be of optimizer.as_scheduler()")
        for name in _STATE:
            value = state_dict[name]
            setattr(self, name, list(value) if isinstance(value, list) else value)
