"""SGD with momentum whose learning rate and momentum cycle: one native call a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

import torch
from torch.optim.lr_scheduler import CyclicLR
from torch.optim.optimizer import (
    Optimizer,
    ParamsT,
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)

from clr_native import _core
from clr_native._checkpoint import complete_groups, own_tensors
from clr_native._groups import SCHEDULE_FIELDS, ScheduleArguments, check_parameter, read_schedule
from clr_native._interchange import groups_of, pair_of
from clr_native.evaluation import checked_step
from clr_native.schedules import Schedule

if TYPE_CHECKING:
    from typing_extensions import Self

Group = dict[str, Any]


class FusedCyclicSGD(Optimizer):
    """SGD with momentum under a cyclical schedule; ``step()`` computes lr and momentum and updates everything.

    Update number ``n`` (from 0, counted in ``applied_steps``) uses the schedule's lr and momentum at step ``n``, in the
    order of operations of ``torch.optim.SGD``, for parameter p, gradient g and momentum buffer m::

        g = -g                                       if maximize
        g = g + weight_decay * p                     if weight_decay != 0
        m = g                                        at the parameter's first update
            momentum * m + (1 - dampening) * g       afterwards
        d = g + momentum * m                         if nesterov, else m
        p = p - lr * d

    float32 and float64 give the bits that ``torch.optim.SGD`` gives for the same lr and momentum; bfloat16 and float16
    are computed in float32 and rounded once. Afterwards ``group["lr"]`` and ``group["momentum"]`` hold the values of
    the next update. A value written there by hand is obeyed for one update, which does not advance that group's
    schedule.

    Args:
        params: parameters or parameter groups, as for ``torch.optim.SGD``: dense CPU tensors of any shape, float32,
            float64, bfloat16 or float16. Every argument below may also be set per group.
        base_lr, max_lr, step_size_up, step_size_down, mode, gamma, decay_steps, decay_base, scale_fn, scale_mode,
            window, cycle_momentum, base_momentum, max_momentum: the schedule, see ``CyclicSchedule``. Sizes are in
            steps, not epochs.
        momentum: the momentum with ``cycle_momentum=False``, or until a schedule first has one; None means 0.9.
        schedule: a schedule of any kind in place of the flat arguments. While it has no momentum, what stands in
            ``group["momentum"]`` is used and left alone.
        dampening, weight_decay, nesterov, maximize: as in ``torch.optim.SGD``.

    ``state[p]["momentum_buffer"]`` may be replaced by another tensor at any time. Giving the same tensor other memory
    (``buffer.data = ...``) is not seen: it costs too much to look at every step.

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
    ) -> None:
        given = locals()
        self._arguments = ScheduleArguments.of({name: given[name] for name in SCHEDULE_FIELDS}, schedule, momentum)
        self._schedules: list[tuple[Group, object, Schedule]] = []  # a bound group, its "schedule", the schedule
        self._plan = _core.Step()
        defaults = {
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    # --- beside torch's own pair ----------------------------------------------------------------------------------

    @classmethod
    def from_torch(cls, sgd: torch.optim.SGD, cyclic_lr: CyclicLR) -> Self:
        """Take over a live ``torch.optim.SGD`` and its ``CyclicLR``: parameters, settings, momentum
        buffers (the same tensors) and position.

        The pair must not be stepped any more. Training goes on as it would have: bit for bit in float32, in float64 up
        to the rounding of torch's own schedule. Raises TypeError for anything but such a pair, and ValueError for a
        scheduler of another optimizer or step sizes that are not whole.

        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> sgd = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> opt = FusedCyclicSGD.from_torch(sgd, torch.optim.lr_scheduler.CyclicLR(sgd, 0.1, 0.5, step_size_up=4))
        >>> opt.get_last_lr(), opt.get_last_momentum()
        ([0.1], [0.9])
        """
        optimizer = cls(groups_of(sgd, cyclic_lr))
        for parameter, entry in sgd.state.items():
            optimizer.state[parameter] = dict(entry)
        return optimizer

    def to_torch(self) -> tuple[torch.optim.SGD, CyclicLR]:
        """A ``torch.optim.SGD`` and its CyclicLR that go on from here, with the same parameters and buffers.

        This optimizer must not be stepped any more. Raises ValueError where torch has no such schedule: other windows
        or modes, or groups that differ in sizes, mode or position.

        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> sgd, scheduler = FusedCyclicSGD([weight], base_lr=0.1, max_lr=0.5).to_torch()
        >>> sgd.param_groups[0]["lr"], scheduler.last_epoch
        (0.1, 0)
        """
        schedules = [self._schedule_of(group) for group in self.param_groups]
        return pair_of(self.param_groups, schedules, self.state)

    # --- groups ---------------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; arguments it does not set are the constructor's. It starts at the first group's position."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group={param_group!r} must be a dict")
        group = dict(param_group)
        index = len(self.param_groups)
        where = f"parameter group {index}: "
        if "lr" in group:
            raise ValueError(f"{where}lr={group['lr']!r} has no meaning here: say base_lr= and max_lr=")
        schedule, momentum = self._arguments.take_from(group, where)
        first = self.param_groups[0] if self.param_groups else {}
        group["schedule"] = schedule._to_dict()
        group["momentum"] = momentum
        for counter in ("applied_steps", "skipped_steps"):
            group.setdefault(counter, first.get(counter, 0))
        group["lr"] = 0.0  # the schedule's, once bound
        super().add_param_group(group)
        try:
            for i, parameter in enumerate(group["params"]):
                check_parameter(parameter, f"parameter {i} of group {index}")
            self._plan.bind(index, group, schedule._native, schedule._scale_fns)
        except BaseException:
            self.param_groups.pop()
            raise
        self._plan.write_schedule(group)
        self._schedules.append((group, group["schedule"], schedule))

    def _schedule_of(self, group: Group) -> Schedule:
        """The schedule that stands in a group, with the scale_fn of the one that was bound."""
        for known, written, schedule in self._schedules:
            if known is group:
                return schedule if group["schedule"] is written else read_schedule(group, schedule)
        return read_schedule(group, None)

    def _is_replaced(self, group: Group) -> bool:
        """Does another schedule stand in a group than the one that was bound?"""
        return any(known is group and group["schedule"] is not written for known, written, _ in self._schedules)

    def _bind(self) -> None:
        """Binds the groups whose dict or schedule is not the one that was bound.

        The lr and momentum in a dict never seen before are obeyed; a new schedule puts its own in their place.
        """
        seen = [id(group) for group, *_ in self._schedules]
        written = [group["schedule"] for group in self.param_groups]
        bound: list[tuple[Group, object, Schedule]] = []
        fresh: list[Group] = []
        try:
            for index, group in enumerate(self.param_groups):
                schedule = self._schedule_of(group)
                if not self._plan.is_bound(index, group):
                    group["schedule"] = schedule._to_dict()
                    self._plan.bind(index, group, schedule._native, schedule._scale_fns)
                    fresh.append(group)
                bound.append((group, group["schedule"], schedule))
        except BaseException:
            for group, each in zip(self.param_groups, written, strict=True):
                group["schedule"] = each
            raise
        for group in fresh:
            if id(group) in seen:
                self._plan.write_schedule(group)
        self._schedules = bound

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
        if not self._plan.apply(self.param_groups, self.state):
            self._bind()
            if not self._plan.apply(self.param_groups, self.state):
                raise ValueError("param_groups holds the same dict twice: every group must be a dict of its own")
        return loss

    # --- where the schedule stands --------------------------------------------------------------------------------

    @property
    def applied_steps(self) -> int:
        """Updates applied so far along the schedule: the number of the next one. Speaks of the first group."""
        return int(self.param_groups[0]["applied_steps"])

    @property
    def skipped_steps(self) -> int:
        """Updates that were skipped. Speaks of the first group."""
        return int(self.param_groups[0]["skipped_steps"])

    @property
    def cycle(self) -> int:
        """The cycle, from 0, that the next update of the first group belongs to: how many are complete."""
        return self._schedule_of(self.param_groups[0])._cycles(self.applied_steps)[0]

    @property
    def at_cycle_end(self) -> bool:
        """Was the update just applied the last of a cycle of the first group: the place to snapshot or stop?"""
        first = self.param_groups[0]
        _, at_end = self._schedule_of(first)._cycles(self.applied_steps)
        return at_end and self._plan.followed_schedule(first)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group's next update, as a torch scheduler gives it after its ``step()``."""
        return [float(group["lr"]) for group in self.param_groups]

    def get_last_momentum(self) -> list[float]:
        """The momentum of each group's next update."""
        return [float(group["momentum"]) for group in self.param_groups]

    def seek(self, step: int) -> None:
        """Move the schedules of all groups to update number ``step``, from 0 to 2**63 - 2. Changes no weight."""
        step = checked_step(step)
        written = ("applied_steps", "lr", "momentum")
        before = [{name: group[name] for name in written} for group in self.param_groups]
        try:
            for group in self.param_groups:
                group["applied_steps"] = step
            self._rebind([self._schedule_of(group) for group in self.param_groups])
        except BaseException:
            for group, values in zip(self.param_groups, before, strict=True):
                group.update(values)
            raise

    def _rebind(self, schedules: list[Schedule]) -> None:
        """Binds all groups to these schedules, in order."""
        plan = _core.Step()
        for index, (group, schedule) in enumerate(zip(self.param_groups, schedules, strict=True)):
            plan.bind(index, group, schedule._native, schedule._scale_fns)
        for group in self.param_groups:
            plan.write_schedule(group)
        self._plan = plan
        self._schedules = [
            (g, g["schedule"], schedule) for g, schedule in zip(self.param_groups, schedules, strict=True)
        ]

    # --- saving and loading ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """``{"state": ..., "param_groups": ...}`` as in torch; the schedule and its position stand in the groups."""
        state_dict = super().state_dict()
        for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            saved["schedule"] = self._schedule_of(group)._to_dict()
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict``, of this class or of ``torch.optim.SGD``.

        The checkpoint's schedule, position and settings win over the constructor's. One without a
        schedule keeps the present one and its position. A ``scale_fn`` is not saved: the constructor's is kept. Tensors
        are copied. Raises ValueError, with nothing changed, if the checkpoint does not fit: other groups, other shapes,
        or a schedule that needs a ``scale_fn`` where there is none.
        """
        before = (self.state, self.param_groups)
        present = [self._schedule_of(group) for group in self.param_groups]
        loaded: dict[str, Any] = {}  # the last hook sees what the others made of the checkpoint
        hook = self.register_load_state_dict_pre_hook(lambda _, final: loaded.update(final))
        try:
            super().load_state_dict(state_dict)
            complete_groups(self.param_groups, before[1], self.defaults)
            own_tensors(self.state, self.param_groups, loaded)
            self._rebind([read_schedule(group, own) for group, own in zip(self.param_groups, present, strict=True)])
        except BaseException:
            self.state, self.param_groups = before
            raise
        finally:
            hook.remove()

    def __getstate__(self) -> dict[str, Any]:
        return {
            **super().__getstate__(),
            "_arguments": self._arguments,
            "_schedules": [self._schedule_of(group) for group in self.param_groups],
            "_replaced": [self._is_replaced(group) for group in self.param_groups],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # put there by torch
        if "_schedules" in state:  # unpickled or copied, not load_state_dict
            written = [(group["lr"], group["momentum"]) for group in self.param_groups]
            self._rebind(state["_schedules"])
            replaced = self.__dict__.pop("_replaced", [False] * len(written))  # 0.1.0 did not say
            for group, (lr, momentum), new in zip(self.param_groups, written, replaced, strict=True):
                # By hand, and not yet used. A new schedule puts its own in their place.
                if not new and (lr, momentum) != (group["lr"], group["momentum"]):
                    group["lr"], group["momentum"] = lr, momentum


_hooked_step = Optimizer.profile_hook_step(FusedCyclicSGD._step)
