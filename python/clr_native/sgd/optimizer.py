"""SGD with momentum whose learning rate and momentum cycle: one native call a step."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

import torch
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR
from torch.optim.optimizer import (
    Optimizer,
    ParamsT,
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)
from torch.utils.hooks import RemovableHandle

from clr_native import _core
from clr_native.schedules import Schedule
from clr_native.schedules.arguments import SCHEDULE_FIELDS, ScheduleArguments
from clr_native.sgd.averages import AveragedWeights
from clr_native.sgd.gradient_release import ReleaseHandle, release
from clr_native.sgd.gradient_rules import GradientRules, inverse_scale, is_found, rule
from clr_native.sgd.settings import SETTINGS, as_number
from clr_native.sgd.torch_pair import groups_of, pair_of

if TYPE_CHECKING:
    from typing_extensions import Self


Scaling = tuple[float | torch.Tensor, bool | torch.Tensor | None, torch.Tensor | None]
RULES = tuple(field.name for field in dataclasses.fields(GradientRules))
ARGUMENTS = frozenset({"lr", "schedule", "momentum", *SCHEDULE_FIELDS, *SETTINGS, *RULES})


class FusedCyclicSGD(AveragedWeights):
    """SGD with momentum under a cyclical schedule; ``step()`` computes lr and momentum and updates everything.

    Update number ``n`` (from 0, counted in ``applied_steps``) uses the schedule's lr and momentum at step ``n``, in the
    order of operations of ``torch.optim.SGD``, for parameter p, gradient g and momentum buffer m::

        g = g / grad_scale                           under a GradScaler
        g = g * min(1, max_grad_norm / (norm + 1e-6))     if max_grad_norm
        g = -g                                       if maximize
        g = g + weight_decay * p                     if weight_decay != 0
        g = trust ratio * g                          if trust_coefficient
        m = g                                        at the parameter's first update
            momentum * m + (1 - dampening) * g       afterwards
        d = g + momentum * m                         if nesterov, else m
        p = p - lr * d
        a = ema_decay * a + (1 - ema_decay) * p      if ema_decay

    float32 and float64 give the bits that ``torch.optim.SGD`` gives for the same lr and momentum; bfloat16 and float16
    are computed in float32 and rounded once. Afterwards ``group["lr"]`` and ``group["momentum"]`` hold the values of
    the next update. A value written there by hand is obeyed for one update, which does not advance that group's
    schedule; a checkpoint keeps it. Under a constant schedule what is written stays, and every update counts: with
    ``lr=`` alone any scheduler of torch may drive the rate, as with ``torch.optim.SGD``.

    Args:
        params: parameters or parameter groups, as for ``torch.optim.SGD``: dense tensors of any shape, float32,
            float64, bfloat16 or float16, on the CPU or on CUDA devices (docs/cuda.md). Those on the meta device or not
            yet initialised are checked at the first step that finds their gradient. Every argument below may also be
            set per group. A group of another such optimizer may be given as it is.
        base_lr, max_lr, step_size_up, step_size_down, mode, gamma, decay_steps, decay_base, scale_fn, scale_mode,
            window, cycle_momentum, base_momentum, max_momentum: the schedule, see ``CyclicSchedule``. Sizes are in
            steps, not epochs.
        momentum: the momentum with ``cycle_momentum=False``, or until a schedule first has one; None means 0.9.
        schedule: a schedule of any kind in place of the flat arguments. While it has no momentum, what stands in
            ``group["momentum"]`` is used and left alone.
        dampening, weight_decay, nesterov, maximize: as in ``torch.optim.SGD``.
        max_grad_norm: clip all gradients to this 2-norm, as ``torch.nn.utils.clip_grad_norm_`` does; ``math.inf`` only
            measures. The norm, of unscaled gradients before clipping, is ``last_grad_norm``.
        max_grad_value: clip every element to plus and minus this instead.
        error_if_nonfinite: RuntimeError, with nothing changed, where the norm is infinite or NaN.
        skip_nonfinite: skip a step whose gradients hold an infinity or a NaN. A skipped step changes no weight, buffer,
            average or version counter and is counted in ``skipped_steps``.
        advance_on_skip: the schedule goes on in skipped steps too, as torch's does.
        write_unscaled_grad: leave the unscaled gradient in ``p.grad`` (a GradScaler's scale stays in it otherwise).
        ema_decay, ema_warmup: keep an exponential moving average of the weights in ``state[p]["average"]``, as
            ``torch.optim.swa_utils`` does: the first update copies. With ``ema_warmup`` update n of it uses
            min(ema_decay, (1 + n) / (10 + n)).
        average: "swa" averages the weights at the end of each cycle of the first group instead.
        trust_coefficient, trust_eps, trust_min_ndim: LARS (You et al. 2017): a parameter with at least
            ``trust_min_ndim`` dimensions takes trust ratio = trust_coefficient * |p| / (|g| + weight_decay * |p| +
            trust_eps), 1 where either norm is 0.
        momentum_dtype: of momentum buffers: "float32" for 16-bit parameters, "bfloat16" for float32 ones; None for the
            parameter's, or float32 with ``master_weights``.
        rounding, seed: "stochastic" rounds 16-bit parameters up or down at random, right on average. The numbers depend
            on seed, update, parameter and element alone.
        kahan: keep what 16-bit parameters lose by rounding in ``state[p]["compensation"]``.
        master_weights: keep a float32 weight in ``state[p]["master_weight"]``; the 16-bit parameter is its copy.
        lr: a constant rate, where neither bounds nor a schedule are given; these win over it, in a group too.

    ``max_grad_norm`` to ``write_unscaled_grad`` hold for all groups; they are attributes that may be set between steps,
    and are not part of ``state_dict()``.

    The tensors in ``state[p]`` are read anew at every step: each may be replaced, moved or given other memory.
    ``defaults`` holds the arguments as given, so ``type(opt)(params, **opt.defaults)`` is a clone without state.

    Warns:
        UserWarning: something else has written lr before ten updates in a row while a schedule that is not constant
            stood still; or three steps in a row found no gradient. Each is said once, before anything is written.

    Raises:
        TypeError: an argument, parameter, gradient or buffer is not of a kind that can be used.
        ValueError: a value is out of its range. In both cases nothing has changed: no weight, buffer or counter.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = FusedCyclicSGD([weight], base_lr=0.1, max_lr=0.5, step_size_up=2, cycle_momentum=False, momentum=0.0)
    >>> for _ in range(2):
    ...     weight.grad = torch.ones(2)
    ...     opt.step()
    >>> weight.data
    tensor([0.6000, 1.6000])
    >>> opt.applied_steps, opt.get_last_lr()
    (2, [0.5])
    """

    def __init__(
        self,
        params: ParamsT,
        base_lr: float | None = None,
        max_lr: float | None = None,
        *,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        decay_steps: int | None = None,
        decay_base: bool = False,
        scale_fn: Callable[[int], float] | None = None,
        scale_mode: str = "cycle",
        window: str = "triangular",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        momentum: float | None = None,
        schedule: Schedule | None = None,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
        max_grad_norm: float | None = None,
        max_grad_value: float | None = None,
        error_if_nonfinite: bool = False,
        skip_nonfinite: bool = False,
        advance_on_skip: bool = False,
        write_unscaled_grad: bool = False,
        ema_decay: float | None = None,
        ema_warmup: bool = False,
        average: str | None = None,
        trust_coefficient: float | None = None,
        trust_eps: float = 1e-8,
        trust_min_ndim: int = 2,
        momentum_dtype: str | torch.dtype | None = None,
        rounding: str = "nearest",
        seed: int = 0,
        kahan: bool = False,
        master_weights: bool = False,
        lr: float | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in ARGUMENTS}
        for name in (*SCHEDULE_FIELDS, "lr"):
            given[name] = as_number(given[name])
        flat = {name: given[name] for name in SCHEDULE_FIELDS}
        arguments = ScheduleArguments.of(flat, schedule, momentum, given["lr"])
        super().__init__(params, arguments, GradientRules(**{name: given[name] for name in RULES}), given)
        if lr is None and arguments.schedule is not None:  # a scale_fn has been asked for the first value already
            has_function = bool(arguments.schedule._functions())
            self.defaults["lr"] = self.param_groups[0]["lr"] if has_function else arguments.schedule(0).lr
        self._cycle_end_hooks: OrderedDict[int, Callable[[FusedCyclicSGD], None]] = OrderedDict()

    # --- beside torch's own pair ----------------------------------------------------------------------------------

    @classmethod
    def from_torch(cls, sgd: torch.optim.SGD, scheduler: CyclicLR | OneCycleLR) -> Self:
        """Take over a live ``torch.optim.SGD`` and its ``CyclicLR`` or ``OneCycleLR``: parameters, settings, momentum
        buffers (the same tensors) and position, in steps: the next update is the one whose values stand in the groups.

        The pair must not be stepped any more. Training goes on as it would have, bit for bit wherever torch's lr and
        momentum, which are rounded otherwise (docs/schedules.md says how far), are the same in the weights' dtype.
        After the ``total_steps`` of a ``OneCycleLR`` the last value is held. Raises TypeError for anything but such a
        pair, and for a scheduler with a ``get_lr()`` of its own; ValueError for a scheduler of another optimizer, a
        schedule that ours has not (step sizes that are not whole, ``max_lr < base_lr``), and an lr or momentum that
        something else has written since the scheduler's ``step()``. In each case nothing has changed.

        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> sgd = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> opt = FusedCyclicSGD.from_torch(sgd, torch.optim.lr_scheduler.CyclicLR(sgd, 0.1, 0.5, step_size_up=4))
        >>> opt.get_last_lr(), opt.get_last_momentum()
        ([0.1], [0.9])
        >>> opt = FusedCyclicSGD.from_torch(sgd, torch.optim.lr_scheduler.OneCycleLR(sgd, 0.5, total_steps=100))
        >>> opt.get_last_lr(), opt.get_last_momentum()
        ([0.02], [0.95])
        """
        optimizer = cls(groups_of(sgd, scheduler))
        for parameter, entry in sgd.state.items():
            optimizer.state[parameter] = dict(entry)
        return optimizer

    def to_torch(self) -> tuple[torch.optim.SGD, CyclicLR | OneCycleLR]:
        """A ``torch.optim.SGD`` and its CyclicLR or OneCycleLR that go on from here, with the same parameters and
        buffers.

        This optimizer must not be stepped any more. Raises ValueError where torch has no such schedule: other windows,
        modes or conventions, groups that differ in sizes, mode or position, one cycle that is over; and where it does
        not do what is set: averages, layer-wise rates, clipping, skipping, buffers of another dtype, what keeps more
        than 16 bits.

        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> sgd, scheduler = FusedCyclicSGD([weight], base_lr=0.1, max_lr=0.5).to_torch()
        >>> sgd.param_groups[0]["lr"], scheduler.last_epoch
        (0.1, 0)
        """
        self._refuse_inside_averages("to_torch()")
        self._synchronise()
        schedules = [self._schedule_of(group) for group in self.param_groups]
        return pair_of(self.param_groups, schedules, self.state, self._rules)

    # --- the step -------------------------------------------------------------------------------------------------

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Apply update number ``applied_steps`` to every parameter that has a gradient.

        ``closure`` reevaluates the model with gradients enabled and returns the loss, which is returned. Step hooks get
        it as a positional argument, however it was passed.
        """
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]  # not in torch's stubs
        ):
            return _hooked_step(self) if closure is None else _hooked_step(self, closure)
        return self._step(closure)

    # torch would wrap step() in a profiler record and a walk over hooks that cost more than a small model's update.
    step.hooked = True  # type: ignore[attr-defined]  # the mark that torch looks for

    def _step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._averages.is_inside:
            self._refuse_inside_averages("step()")
        scaling: Scaling | tuple[()] = ()
        if "grad_scale" in self.__dict__ or "found_inf" in self.__dict__:
            scaling = self._scaling()
        if not self._plan.apply(self.param_groups, self.state, *scaling):
            self._bind_and(lambda: self._plan.apply(self.param_groups, self.state, *scaling))
        if self._cycle_end_hooks and self._ended_cycle() and self.at_cycle_end:
            for hook in list(self._cycle_end_hooks.values()):
                hook(self)
        return loss

    # A GradScaler asks for this, sets grad_scale and found_inf before a step, and deletes them after it.
    _step_supports_amp_scaling = True

    def _scaling(self) -> Scaling:
        """What to multiply gradients by, whether an infinity was found (None for to be found out) and where to say so.

        On a GPU these are tensors there, the first of them the scale of the loss: nobody waits for their values.
        """
        grad_scale, found_inf = self.__dict__.get("grad_scale"), self.__dict__.get("found_inf")
        on_gpu = _core.is_on_gpu(self.param_groups[0]["params"][0])
        scale: float | torch.Tensor = 1.0
        if grad_scale is not None:
            scale = grad_scale if on_gpu and _core.is_on_gpu(grad_scale) else inverse_scale(grad_scale)
        if found_inf is None:
            return scale, None if grad_scale is not None else False, self.__dict__.get("_report_inf")
        return scale, found_inf if on_gpu and _core.is_on_gpu(found_inf) else is_found(found_inf), None

    # --- gradients ------------------------------------------------------------------------------------------------

    max_grad_norm: float | None = rule("Clip all gradients to this 2-norm; None for no clipping.")
    max_grad_value: float | None = rule("Clip every element to plus and minus this.")
    error_if_nonfinite: bool = rule("Is a norm that is infinite or NaN an error?")
    skip_nonfinite: bool = rule("Is a step with an infinity or a NaN among its gradients skipped?")
    advance_on_skip: bool = rule("Does the schedule go on in a skipped step?")
    write_unscaled_grad: bool = rule("Does a step leave the unscaled gradient in p.grad?")

    @property
    def last_grad_norm(self) -> float | None:
        """The 2-norm of all gradients of the last step, unscaled and before clipping. None if nothing needed it."""
        return self._plan.gradient_norm

    @property
    def last_step_skipped(self) -> bool:
        """Was the last step skipped for an infinity or a NaN?"""
        return self._plan.was_skipped

    def release_gradients(self) -> ReleaseHandle:
        """From now on, update each parameter during ``backward()``, as soon as its gradient is complete, and free that.

        Gradients then never stand in memory all at once. lr and momentum hold from the first gradient on; ``step()`` is
        called once an iteration as ever and ends the update: it advances the schedule and updates what has a gradient
        left. A second gradient before it raises RuntimeError: gradients cannot be accumulated. Clipping,
        ``skip_nonfinite``, ``trust_coefficient`` and a GradScaler need all gradients at once: RuntimeError. Parameters
        of groups that are added later are updated in ``step()``. The handle's ``remove()`` ends it.

        >>> model = torch.nn.Linear(2, 1)
        >>> opt = FusedCyclicSGD(model.parameters(), base_lr=0.1, max_lr=0.5)
        >>> handle = opt.release_gradients()
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> model.weight.grad is None
        True
        >>> opt.step()
        >>> opt.applied_steps
        1
        """
        return release(self)

    def _release(self, parameter: torch.Tensor, position: int) -> None:
        self._refuse_inside_averages("backward() with release_gradients()")
        if not self._plan.release(self.param_groups, self.state, parameter, position):
            self._bind_and(lambda: self._plan.release(self.param_groups, self.state, parameter, position))

    def register_cycle_end_hook(self, hook: Callable[[FusedCyclicSGD], None]) -> RemovableHandle:
        """Call ``hook(optimizer)`` after each update that was the last of a cycle of the first group.

        That is where to take a snapshot or stop (Smith 2017; Huang et al. 2017, "Snapshot ensembles"). The handle's
        ``remove()`` ends it. Hooks are neither copied nor saved.
        """
        if not callable(hook):
            raise TypeError(f"hook={hook!r} must be callable with the optimizer")
        handle = RemovableHandle(self._cycle_end_hooks)
        self._cycle_end_hooks[handle.id] = hook
        return handle

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_schedules" in state:  # unpickled or copied, not load_state_dict
            self._cycle_end_hooks = OrderedDict()
        super().__setstate__(state)


_hooked_step = Optimizer.profile_hook_step(FusedCyclicSGD._step)
