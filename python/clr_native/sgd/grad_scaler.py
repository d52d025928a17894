"""A GradScaler without a pass of its own over the gradients of a FusedCyclicSGD."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.amp.grad_scaler import OptState
from torch.optim import Optimizer

from clr_native.sgd.optimizer import FusedCyclicSGD

_AMP_ATTRIBUTES = ("grad_scale", "found_inf")
_STEP_ATTRIBUTES = (*_AMP_ATTRIBUTES, "_report_inf")
_READY, _STEPPED = OptState.READY, OptState.STEPPED  # attributes of an Enum take microseconds, in a loop


class GradScaler(torch.amp.GradScaler):
    """``torch.amp.GradScaler``, with the same arguments, methods and state, that leaves unscaling to the optimizer.

    torch's class reads every gradient for infinities and NaN before it calls ``optimizer.step()``. For a
    :class:`FusedCyclicSGD` this one does not: the optimizer finds them itself, unscales gradients in the pass
    that updates the weights (``p.grad`` stays scaled unless it has ``write_unscaled_grad=True``), and skips the step if
    one is not finite, as ``last_step_skipped`` says. ``update()`` then lowers the scale as ever. Gradients are
    looked at after the optimizer's step pre-hooks; torch looks before them.

    Every other optimizer is treated as torch does, and so is one after ``unscale_()``. State dicts go from either class
    to the other. ``step()`` raises what ``torch.amp.GradScaler.step`` and ``optimizer.step`` raise; ``grad_scale`` and
    ``found_inf`` of the optimizer are then as they were before, and ``step()`` may be called again.

    Args:
        device: "cuda" or "cpu", where the loss is.
        init_scale, growth_factor, backoff_factor, growth_interval, enabled: as in ``torch.amp.GradScaler``;
            ``growth_interval`` is in steps.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = FusedCyclicSGD([weight], base_lr=0.25, max_lr=0.5)
    >>> scaler = GradScaler("cpu", init_scale=4.0)
    >>> scaler.scale(3 * weight.sum()).backward()
    >>> weight.grad
    tensor([12., 12.])
    >>> scaler.step(opt)
    >>> scaler.update()
    >>> weight.data
    tensor([0.2500, 1.2500])

    A step with an infinite gradient changes no weight, and the schedule stays where it is:

    >>> _ = weight.grad.fill_(float("inf"))
    >>> scaler.step(opt)
    >>> scaler.update()
    >>> weight.data, opt.last_step_skipped, opt.applied_steps, scaler.get_scale()
    (tensor([0.2500, 1.2500]), True, 1, 2.0)
    """

    _kept_number: torch.Tensor | None = None
    _kept_references = 0  # to the number, where nobody else holds it

    # Of torch's private names this relies on _enabled, _check_scale_growth_tracker and _per_optimizer_states with its
    # keys "stage" and "found_inf_per_device"; test_grad_scaler.py holds them against the installed torch.

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> float | None:
        """Apply the optimizer's update to gradients of the scaled loss, or skip it if one of them is not finite.

        Further arguments go to ``optimizer.step()``, whose answer is returned. Once per optimizer before ``update()``;
        RuntimeError for a second time, or with ``closure=``. AssertionError if ``scale()`` was not called before.
        """
        if not self._enabled or not isinstance(optimizer, FusedCyclicSGD) or "closure" in kwargs:
            return super().step(optimizer, *args, **kwargs)
        scale, _ = self._check_scale_growth_tracker("step")
        state = self._per_optimizer_states[id(optimizer)]
        attributes = optimizer.__dict__
        answer: float | None
        left = {}  # for an error
        for name in _AMP_ATTRIBUTES:
            if name in attributes:
                left[name] = attributes[name]
        try:
            if state["stage"] is _READY:
                own = left.get("grad_scale")  # the user's own factor
                attributes["grad_scale"] = scale if own is None else scale * own
                attributes["found_inf"] = None  # torch replaces it too; with None, the optimizer looks for itself
                attributes["_report_inf"] = found_inf = self._number_like(scale)
                answer = optimizer.step(*args, **kwargs)
                binding = optimizer._binding
                # Without gradients nothing is recorded, and update() raises, as torch's does. Others may have some.
                if binding.native.found_gradient or binding.sharding.is_shared:
                    state["found_inf_per_device"] = {scale.device: found_inf}
                state["stage"] = _STEPPED
            else:  # after unscale_(), a step that is skipped counts as well
                was_in_step, optimizer.grad_scale_in_step = optimizer.grad_scale_in_step, True
                try:
                    answer = super().step(optimizer, *args, **kwargs)
                finally:
                    optimizer.grad_scale_in_step = was_in_step
            left = {}
        finally:  # removes the attributes, or restores them after an error
            for name in _STEP_ATTRIBUTES:
                attributes.pop(name, None)
            if left:
                attributes.update(left)
        return answer

    def _number_like(self, scale: torch.Tensor) -> torch.Tensor:
        """Returns a float32 number where the scale is, for the step to write.

        On the CPU, the tensor of the last call is used again, unless somebody still holds it: in a loop, where caches
        are cold, a new tensor takes 20 us.
        """
        if not scale.is_cpu:  # whose streams would have to agree on when it may be written again
            return torch.empty((), dtype=torch.float32, device=scale.device)
        number = self._kept_number
        if number is None or sys.getrefcount(number) != self._kept_references:
            self._kept_number = number = torch.zeros((), dtype=torch.float32, device="cpu")
            self._kept_references = sys.getrefcount(number)
        return number

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if not name.startswith("_kept_")}
