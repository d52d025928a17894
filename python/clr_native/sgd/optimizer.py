"""SGD with momentum whose learning rate and momentum cycle: one native call a step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR
from torch.optim.optimizer import (
    Optimizer,
    ParamsT,
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)
from torch.utils.hooks import RemovableHandle

from clr_native import _core
from clr_native.checks import checked_step, group_label
from clr_native.schedules import Schedule
from clr_native.schedules.arguments import SCHEDULE_FIELDS, ScheduleArguments, read_schedule
from clr_native.sgd import cuda_graphs
from clr_native.sgd.as_scheduler import FollowingScheduler
from clr_native.sgd.averages import averaged_entries, copy_to
from clr_native.sgd.binding import Binding, global_option
from clr_native.sgd.checkpoint import COUNTERS, checked, complete_groups, own_state
from clr_native.sgd.gradient_options import GradientOptions
from clr_native.sgd.gradient_release import ReleaseHandle, release
from clr_native.sgd.settings import (
    GLOBAL_DEFAULTS,
    GROUP_DEFAULTS,
    SETTINGS,
    as_number,
    check_parameter,
    dtype_name,
)
from clr_native.sgd.sharding import SharedGroup
from clr_native.sgd.torch_pair import groups_from_torch_pair, to_torch_pair
from clr_native.sgd.uncompiled import run_uncompiled
from clr_native.shown import shown_optimizer

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from typing_extensions import Self

Group = dict[str, Any]

ARGUMENTS = frozenset({"lr", "schedule", "momentum", *SCHEDULE_FIELDS, *SETTINGS})
_IN_GROUPS = ARGUMENTS - {*SCHEDULE_FIELDS, *GLOBAL_DEFAULTS}


class FusedCyclicSGD(Optimizer):
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
        lr_scale: the factor of the schedule's rate, for layer decay or faster biases: ``group["lr"]`` is ``lr_scale``
            times the schedule's. Not of ``lr=`` alone, nor of a rate set by hand: they are used as they are.
        max_grad_norm: clip all gradients to this 2-norm, as ``torch.nn.utils.clip_grad_norm_`` does; ``math.inf`` only
            measures. The norm, of unscaled gradients before clipping, is ``last_grad_norm``.
        max_grad_value: clip every element to plus and minus this instead.
        error_if_nonfinite: RuntimeError, with nothing changed, where the norm is infinite or NaN.
        skip_nonfinite: skip a step whose gradients hold an infinity or a NaN. A skipped step changes no weight, buffer
            or average, on the CPU no version counter either, and is counted in ``skipped_steps``.
        advance_on_skip: the schedule goes on in skipped steps too, as torch's does.
        write_unscaled_grad: leave the unscaled gradient in ``p.grad`` (a GradScaler's scale stays in it otherwise).
        grad_scale_in_step: leave unscaling and skipping to ``step()`` under torch's ``GradScaler`` too, as under
            ``clr_native.GradScaler`` they always are. Without it torch's scaler does both in a pass of its own, as
            frameworks expect: a step whose gradients overflow never reaches the optimizer, which does not count it.
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
        process_group: of ``torch.distributed``, if the parameters are plain tensors of which each process holds other
            ones (``FullyShardedDataParallel``, ``ZeroRedundancyOptimizer``): norms, infinities and skips are then those
            of the whole model. A ``DTensor`` brings its own. An attribute, in neither groups, ``defaults`` nor states;
            copies share it, pickles drop it.

    ``max_grad_norm`` to ``grad_scale_in_step`` hold for all groups; they are attributes that may be set between steps,
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
        lr_scale: float = 1.0,
        max_grad_norm: float | None = None,
        max_grad_value: float | None = None,
        error_if_nonfinite: bool = False,
        skip_nonfinite: bool = False,
        advance_on_skip: bool = False,
        write_unscaled_grad: bool = False,
        grad_scale_in_step: bool = False,
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
        process_group: ProcessGroup | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in ARGUMENTS}
        for name in (*SCHEDULE_FIELDS, "lr"):
            given[name] = as_number(given[name])
        flat = {name: given[name] for name in SCHEDULE_FIELDS}
        arguments = ScheduleArguments.of(flat, schedule, momentum, given["lr"])
        self._arguments = arguments
        self._binding = Binding(self, GradientOptions(**{name: given[name] for name in GLOBAL_DEFAULTS}))
        self._binding.set_process_group(process_group)
        self._binding.members = set()
        super().__init__(params, given)
        self._binding.members = None
        if lr is None and arguments.schedule is not None:  # a scale_fn has already been called for the first value
            has_function = bool(arguments.schedule._functions())
            self.defaults["lr"] = self.param_groups[0]["lr"] if has_function else arguments.schedule(0).lr

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
        optimizer = cls(groups_from_torch_pair(sgd, scheduler))
        for parameter, entry in sgd.state.items():
            optimizer.state[parameter] = dict(entry)
        return optimizer

    def to_torch(self) -> tuple[torch.optim.SGD, CyclicLR | OneCycleLR]:
        """A ``torch.optim.SGD`` and its CyclicLR or OneCycleLR that go on from here, with the same parameters and
        buffers.

        This optimizer must not be stepped any more. Raises ValueError where torch has no such schedule: other windows,
        modes or conventions, groups that differ in sizes, mode or position, one cycle that is over; where it does not
        do what is set: averages, layer-wise rates, clipping, skipping, buffers of another dtype, what keeps more than
        16 bits; and for an lr or momentum that was set by hand: torch's schedule would go on after that update.

        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> sgd, scheduler = FusedCyclicSGD([weight], base_lr=0.1, max_lr=0.5).to_torch()
        >>> sgd.param_groups[0]["lr"], scheduler.last_epoch
        (0.1, 0)
        """
        self._binding.native.averages.refuse_inside("to_torch()")
        self._refuse_in_mid_step()
        self._synchronise()
        return to_torch_pair(self.param_groups, self._standing(), self.state, self._binding.options)

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
        binding = self._binding
        if binding.native.apply(self.param_groups, self.state, self.__dict__):
            cuda_graphs.note_recorded(binding.native, self._tensors())
        # at_cycle_end waits for a GPU, and is asked only where the host's count says that a cycle may have ended.
        if binding.cycle_end_hooks and self._ended_cycle() and self.at_cycle_end:
            for hook in list(binding.cycle_end_hooks.values()):
                hook(self)
        return loss

    # torch's GradScaler asks for this attribute. If it is True, the scaler sets grad_scale and found_inf before a step
    # and deletes them after it; else it unscales gradients itself, and leaves out a step whose gradients overflow.
    @property
    def _step_supports_amp_scaling(self) -> bool:
        return self.grad_scale_in_step

    @_step_supports_amp_scaling.setter
    def _step_supports_amp_scaling(self, value: bool) -> None:
        self.grad_scale_in_step = value

    def register_cycle_end_hook(self, hook: Callable[[FusedCyclicSGD], None]) -> RemovableHandle:
        """Call ``hook(optimizer)`` after each update that was the last of a cycle of the first group.

        That is where to take a snapshot or stop (Smith 2017; Huang et al. 2017, "Snapshot ensembles"). The handle's
        ``remove()`` ends it. Hooks are neither copied nor saved.
        """
        if not callable(hook):
            raise TypeError(f"hook={hook!r} must be callable with the optimizer")
        handle = RemovableHandle(self._binding.cycle_end_hooks)
        self._binding.cycle_end_hooks[handle.id] = hook
        return handle

    # --- gradients ------------------------------------------------------------------------------------------------

    max_grad_norm: float | None = global_option("Clip all gradients to this 2-norm; None for no clipping.")
    max_grad_value: float | None = global_option("Clip every element to plus and minus this.")
    error_if_nonfinite: bool = global_option("True if a norm that is infinite or NaN raises RuntimeError.")
    skip_nonfinite: bool = global_option("True if a step with an infinity or a NaN among its gradients is skipped.")
    advance_on_skip: bool = global_option("True if the schedule goes on in a skipped step.")
    write_unscaled_grad: bool = global_option("True if a step leaves the unscaled gradient in p.grad.")
    grad_scale_in_step: bool = global_option("True if torch's GradScaler leaves unscaling and skipping to the step.")

    @property
    def process_group(self) -> ProcessGroup | None:
        """The processes that hold the other shards of a model whose parameters are plain tensors; None for none."""
        return self._binding.sharding.process_group

    @process_group.setter
    def process_group(self, group: ProcessGroup | None) -> None:
        self._binding.set_process_group(group)

    @property
    def last_grad_norm(self) -> float | None:
        """The 2-norm of all gradients of the last step, unscaled and before clipping. None if nothing needed it."""
        return self._binding.native.gradient_norm

    @property
    def last_step_skipped(self) -> bool:
        """True if the last step was skipped for an infinity or a NaN; torch's GradScaler may leave steps out itself."""
        return self._binding.native.was_skipped

    def release_gradients(self, *, process_local: bool = False) -> ReleaseHandle:
        """From now on, update each parameter during ``backward()``, as soon as its gradient is complete, and free that.

        Gradients then never stand in memory all at once. lr and momentum hold from the first gradient on; ``step()`` is
        called once an iteration as ever and ends the update: it advances the schedule and updates what has a gradient
        left. A second gradient before it raises RuntimeError: gradients cannot be accumulated. Clipping,
        ``skip_nonfinite``, ``trust_coefficient`` and a GradScaler need all gradients at once: RuntimeError. Parameters
        of groups that are added later are updated in ``step()``. The handle's ``remove()`` ends it.

        RuntimeError also where torch.distributed has several processes, here or at the first ``backward()``: weights
        would be updated before gradients are averaged. ``process_local=True`` says that each process trains a model of
        its own. Parameters of ``FullyShardedDataParallel`` are always refused.

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
        return release(self._binding.owner() or self, process_local)

    # --- averages -----------------------------------------------------------------------------------------------------

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Within the block the parameters hold their averages, in place and without a copy of the model.

        Batch-norm statistics are not averaged: recompute them inside with ``torch.optim.swa_utils.update_bn``. Steps,
        copies of the optimizer, ``state_dict()`` and ``load_state_dict()`` raise RuntimeError inside. Entering raises
        RuntimeError if there is no average yet. Neither way can be interrupted in the middle.

        >>> import clr_native
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = clr_native.FusedCyclicSGD([weight], 1.0, 1.0, cycle_momentum=False, momentum=0.0, ema_decay=0.75)
        >>> for _ in range(2):
        ...     weight.grad = torch.ones(1)
        ...     opt.step()
        >>> with opt.averaged_weights():
        ...     weight.data
        tensor([-0.2500])
        >>> weight.data
        tensor([-1.])
        """
        self._binding.native.averages.refuse_inside("averaged_weights()")
        return self._binding.native.averages

    def _averaged_entries(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        self._refuse_in_mid_step()
        self._synchronise()
        return averaged_entries(self.param_groups, self.state)

    def copy_average_to(self, model: nn.Module) -> None:
        """Copy the averages into the parameters of ``model``, a copy of the one that is trained, or that one itself.

        Parameters are matched by name where the optimizer was given names (``model.named_parameters()``), else by their
        order in its only group. Parameters without an average are copied as they are. Shards are gathered if the model
        is whole: then all processes must call this. Raises ValueError if the model does not fit, and RuntimeError if
        there is no average yet.
        """
        self._binding.native.averages.refuse_inside("copy_average_to()")
        self._refuse_in_mid_step()
        self._synchronise()
        copy_to(model, self.param_groups, self.state)

    # --- groups ---------------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; arguments it does not set are the constructor's. It starts at the first group's position.

        Its averages begin anew. An ``lr`` in it is the rate of a group that has no schedule; a schedule wins over it. A
        group of another such optimizer goes on where it stands; under a constant schedule with its present rate.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group={param_group!r} must be a dict")
        self._refuse_in_mid_step()
        group = dict(param_group)
        index = len(self.param_groups)
        # The schedule as a group of another optimizer holds it.
        standing = {name: as_number(group.get(name)) for name in ("lr", "momentum")}
        is_written = isinstance(group.get("schedule"), Mapping) and None not in standing.values()
        schedule, momentum, is_rate = self._arguments.take_from(group, group_label(index))
        is_obeyed = is_written and schedule._native.is_constant
        first = self.param_groups[0] if self.param_groups else {}
        group["schedule"] = schedule._to_dict()
        group["momentum"] = momentum
        group["overridden"] = False
        for counter in COUNTERS:
            group.setdefault(counter, first.get(counter, 0))
        group["n_averaged"] = 0
        group["lr"] = schedule(0).lr if is_rate else 0.0  # the latter: the schedule's value is written once it is bound
        if is_obeyed:
            group.update(standing)
        group["momentum_dtype"] = dtype_name(group.get("momentum_dtype", self.defaults["momentum_dtype"]))
        own = group.keys() | _IN_GROUPS
        self._append(group)
        for name in self.defaults.keys() - own:  # put there by torch
            del group[name]
        try:
            for i, parameter in enumerate(group["params"]):
                check_parameter(parameter, f"parameter {i} of group {index}")
            self._binding.native.append(group, schedule, is_obeyed or is_rate)
        except BaseException:
            self.param_groups.pop()
            raise

    def _append(self, group: Group) -> None:
        """Has torch check and append a group.

        torch collects the parameters of all groups for it. In a constructor that would take time with the square of
        their number: there one set is kept, and torch sees a group that is empty.
        """
        members = self._binding.members
        if members is None:
            super().add_param_group(group)
            return
        present = self.param_groups
        self.param_groups = [{key: [] for key in ("params", "param_names") if key in first} for first in present[:1]]
        try:
            super().add_param_group(group)
        finally:
            self.param_groups = present
        if not members.isdisjoint(group["params"]):
            raise ValueError("some parameters appear in more than one parameter group")
        members.update(group["params"])
        present.append(group)

    def _schedule_of(self, group: Group) -> Schedule:
        """Returns the schedule that stands in a group, with the scale_fn of the schedule that was bound."""
        return self._binding.native.schedule_of(group)

    def __repr__(self) -> str:
        """A line a group: its schedule, what is used next, settings that are not as by default. Waits for no GPU."""
        return shown_optimizer(type(self).__name__, self.param_groups, self._binding.options, self._schedule_of)

    def as_scheduler(self) -> FollowingScheduler:
        """A scheduler that changes nothing, for a framework that would otherwise put one of its own in that place.

        Pass it to ``transformers.Trainer(optimizers=(opt, opt.as_scheduler()))``, or return it from Lightning's
        ``configure_optimizers()`` with ``"interval": "step"``: rates are logged as torch's are, and the framework's own
        schedulers, which would write over the schedule of this optimizer, stay away.
        """
        return FollowingScheduler(self)

    # --- where the schedule stands --------------------------------------------------------------------------------

    def _tensors(self) -> list[torch.Tensor | None]:
        """All that a step reads and writes."""
        own = [parameter for group in self.param_groups for parameter in group["params"]]
        kept = [tensor for entry in self.state.values() for tensor in entry.values()]
        rates = [group["lr"] for group in self.param_groups if isinstance(group["lr"], torch.Tensor)]
        return [*own, *(parameter.grad for parameter in own), *kept, *rates]

    def _synchronise(self) -> None:
        """Waits for GPUs and writes their counts into the groups."""
        self._binding.native.synchronise(self.state)

    @property
    def applied_steps(self) -> int:
        """Updates applied so far along the schedule: the number of the next one. Speaks of the first group."""
        self._synchronise()
        return int(self.param_groups[0]["applied_steps"])

    @property
    def skipped_steps(self) -> int:
        """Updates that were skipped in ``step()``. Speaks of the first group.

        torch's GradScaler leaves out whole steps unless ``grad_scale_in_step`` is set: those are not counted.
        """
        self._synchronise()
        return int(self.param_groups[0]["skipped_steps"])

    @property
    def cycle(self) -> int:
        """The cycle, from 0, that the next update of the first group belongs to: how many are complete."""
        return self._schedule_of(self.param_groups[0])._cycle_position(self.applied_steps).complete

    @property
    def at_cycle_end(self) -> bool:
        """True if the update just applied was the last of a cycle of the first group: the place to snapshot or stop."""
        self._synchronise()
        return self._ended_cycle()

    def _ended_cycle(self) -> bool:
        """As ``at_cycle_end``, by the host's count."""
        first = self.param_groups[0]
        position = self._schedule_of(first)._cycle_position(first["applied_steps"])
        return position.at_end and self._binding.native.followed_schedule(first)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group's next update, as a torch scheduler gives it after its ``step()``."""
        self._synchronise()
        return [float(group["lr"]) for group in self.param_groups]

    def get_last_momentum(self) -> list[float]:
        """The momentum of each group's next update."""
        self._synchronise()
        return [float(group["momentum"]) for group in self.param_groups]

    @property
    def last_lr(self) -> list[float | None]:
        """The learning rate that the last update of each group used; None before the first.

        A skipped step is no update. For logs: after ``step()`` the groups hold the rates of the next one.
        """
        return [lr for lr, _ in self._last_used()]

    @property
    def last_momentum(self) -> list[float | None]:
        """The momentum that the last update of each group used; None before the first."""
        return [momentum for _, momentum in self._last_used()]

    def _last_used(self) -> list[tuple[float | None, float | None]]:
        self._synchronise()
        return [self._binding.native.last_used(group) for group in self.param_groups]

    def seek(self, step: int) -> None:
        """Move the schedules of all groups to update number ``step``, from 0 to 2**63 - 2. Changes no weight."""
        step = checked_step(step)
        self._synchronise()
        written = ("applied_steps", "lr", "momentum")
        before = [{name: group[name] for name in written} for group in self.param_groups]
        try:
            for group in self.param_groups:
                group["applied_steps"] = step
            schedules = [self._schedule_of(group) for group in self.param_groups]
            obeyed = [schedule._native.is_constant for schedule in schedules]
            self._adopt(_core.BoundGroups(self.param_groups, schedules, obeyed))
        except BaseException:
            for group, values in zip(self.param_groups, before, strict=True):
                group.update(values)
            raise

    def _refuse_in_mid_step(self) -> None:
        if self._binding.native.is_open:
            raise RuntimeError("gradients of this step are released already: call step() first")

    def _adopt(self, groups: _core.BoundGroups) -> None:
        self._refuse_in_mid_step()
        self._binding.native.adopt(groups)

    # --- saving and loading ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """``{"state": ..., "param_groups": ...}`` as in torch; the schedule and its position stand in the groups.

        The key ``overridden`` of a group is True where its lr or momentum is not the schedule's: such values are saved.
        """
        self._binding.native.averages.refuse_inside("state_dict()")
        self._refuse_in_mid_step()
        self._synchronise()
        state_dict = super().state_dict()
        # A step that was refused, skipped or interrupted may have left empty entries.
        entries = state_dict["state"].items()
        state_dict["state"] = {key: entry for key, entry in entries if not isinstance(entry, dict) or entry}
        plain: dict[int, dict[str, Any]] = {}  # by id of the schedule, which many groups share
        for saved, (schedule, *values) in zip(state_dict["param_groups"], self._standing(), strict=True):
            saved["overridden"], saved["lr"], momentum = values
            if momentum is not None:
                saved["momentum"] = momentum
            if id(schedule) not in plain:
                plain[id(schedule)] = schedule._to_dict()
            written = plain[id(schedule)]
            saved["schedule"] = copy.deepcopy(written) if "segments" in written else dict(written)
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict``, of this class or of ``torch.optim.SGD``.

        The checkpoint's schedule, position and settings win over the constructor's. One without a schedule keeps the
        present one and its position; where that is constant, the checkpoint's lr and momentum hold. A ``scale_fn`` is
        not saved: the constructor's is kept. Tensors are copied. Raises TypeError or ValueError that names the key,
        with nothing changed, if the checkpoint does not fit: other groups, other shapes, or a schedule that needs a
        ``scale_fn`` where there is none.
        """
        self._binding.native.averages.refuse_inside("load_state_dict()")
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict of type={type(state_dict).__name__} must be a dict")
        self._refuse_in_mid_step()
        before, groups_before = dict(self.state), list(self.param_groups)
        present = [self._schedule_of(group) for group in self.param_groups]
        loaded: dict[str, Any] = {}
        bound: list[_core.BoundGroups] = []

        def take(_: Optimizer, final: dict[str, Any]) -> dict[str, Any]:  # `final`: after the other hooks
            loaded.update(checked(final))
            # torch only matches the parameters here: it would round the state, and read tensors that cannot be read.
            return {"state": {}, "param_groups": [{"params": group["params"]} for group in loaded["param_groups"]]}

        def fill(_: Optimizer) -> None:
            bound.append(self._filled(groups_before, loaded, present))

        hooks = (
            self.register_load_state_dict_pre_hook(take),
            self.register_load_state_dict_post_hook(fill, prepend=True),
        )
        try:
            super().load_state_dict(dict(state_dict))
            self._adopt(bound[0])
        except BaseException:
            self._replace(before, groups_before)
            raise
        finally:
            for hook in hooks:
                hook.remove()

    def _filled(self, before: list[Group], loaded: dict[str, Any], present: list[Schedule]) -> _core.BoundGroups:
        """Puts the loaded values into the new groups and the new state, and binds the groups."""
        groups, saved_groups = self.param_groups, loaded["param_groups"]
        complete_groups(groups, before, saved_groups, self.defaults.keys() & GROUP_DEFAULTS.keys())
        schedules = [read_schedule(group, own) for group, own in zip(groups, present, strict=True)]
        obeyed = [
            saved.get("overridden", False) or ("schedule" not in saved and schedule._native.is_constant)
            for saved, schedule in zip(saved_groups, schedules, strict=True)
        ]
        bound = _core.BoundGroups(groups, schedules, obeyed)
        self._replace(own_state(groups, loaded), groups)
        return bound

    def _replace(self, state: Mapping[Any, Any], groups: list[Group]) -> None:
        """Replaces what ``state`` and ``param_groups`` hold: a wrapper that copied the attributes has the same two."""
        contents, present = dict(state), list(groups)
        self.state.clear()
        self.state.update(contents)
        self.param_groups[:] = present

    def _standing(self) -> list[tuple[Schedule, bool, Any, Any]]:
        """Returns (schedule, True if lr or momentum is set by hand, lr, momentum or None) of each group."""
        return [self._binding.native.standing(group, index) for index, group in enumerate(self.param_groups)]

    def __getstate__(self) -> dict[str, Any]:
        # A copy would not know which of the two tensors are its weights.
        self._binding.native.averages.refuse_inside("copying or pickling")
        self._refuse_in_mid_step()
        self._synchronise()
        standing = self._standing()
        return {
            **super().__getstate__(),
            "_arguments": self._arguments,
            "_options": self._binding.options,
            "_process_group": SharedGroup(self._binding.sharding.process_group),
            "_schedules": [schedule for schedule, *_ in standing],
            "_obeyed": [is_overridden for _, is_overridden, *_ in standing],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_schedules" in state:  # after unpickling or copying
            super().__setstate__(state)
            self.defaults.pop("differentiable", None)  # put there by torch
            self._complete_copy()
        else:  # in load_state_dict, where torch would bind two new objects
            self._replace(state["state"], state["param_groups"])

    def _complete_copy(self) -> None:
        """Binds a copy. A pickle of version 0.1.0 lacks options, settings and counters."""
        schedules = self.__dict__.pop("_schedules")
        obeyed = self.__dict__.pop("_obeyed", [False] * len(schedules))
        options = self.__dict__.pop("_options", None) or self.__dict__.pop("_rules", GradientOptions())
        for settings in (self.defaults, *self.param_groups):
            for name, default in GROUP_DEFAULTS.items():
                settings.setdefault(name, default)
        for group in self.param_groups:
            group.setdefault("overridden", False)
            for counter in COUNTERS:
                group.setdefault(counter, 0)
        shared = self.__dict__.pop("_process_group", SharedGroup(None))
        self._binding = Binding(self, options)
        self._binding.set_process_group(shared.group)
        self._adopt(_core.BoundGroups(self.param_groups, schedules, obeyed))


_hooked_step = Optimizer.profile_hook_step(FusedCyclicSGD._step)
run_uncompiled(FusedCyclicSGD.step, "FusedCyclicSGD.step() is one native call, which torch.compile cannot look into")
