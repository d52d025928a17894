"""Parameter groups that follow schedules: bound to the native plan, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim.optimizer import Optimizer, ParamsT

from clr_native import _core
from clr_native._checkpoint import COUNTERS, complete_groups, own_tensors
from clr_native._gradient_rules import GradientRules
from clr_native._groups import SETTINGS, ScheduleArguments, check_parameter, dtype_name, read_schedule
from clr_native.evaluation import checked_step
from clr_native.schedules import Schedule

Group = dict[str, Any]


class ScheduledGroups(Optimizer):
    """What an optimizer is before its step: groups, each with a schedule and a position in it."""

    def __init__(self, params: ParamsT, arguments: ScheduleArguments, rules: GradientRules, defaults: Group) -> None:
        self._arguments = arguments
        self._rules = rules
        self._schedules: list[tuple[Group, object, Schedule]] = []  # a bound group, its "schedule", the schedule
        self._plan = self._new_plan()
        super().__init__(params, defaults)

    def _new_plan(self) -> _core.Step:
        plan = _core.Step()
        self._rules.give_to(plan)
        return plan

    # --- groups ---------------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; arguments it does not set are the constructor's. It starts at the first group's position.

        Its averages begin anew.
        """
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
        group.setdefault("n_averaged", 0)
        for counter in COUNTERS:
            group.setdefault(counter, first.get(counter, 0))
        group["lr"] = 0.0  # the schedule's, once bound
        group["momentum_dtype"] = dtype_name(group.get("momentum_dtype", self.defaults["momentum_dtype"]))
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
        if len({id(group) for group in self.param_groups}) != len(self.param_groups):
            raise ValueError("param_groups holds the same dict twice: every group must be a dict of its own")
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

    _asks_for_cycle_end = False  # does any group average the weights at the ends of cycles, as far as is known?

    def _answer(self, asked: bool | None, again: Callable[[bool], bool | None]) -> None:
        """Calls the plan again that has said False, for groups are to be bound, or None, for whether a cycle ends."""
        for _ in range(3):
            if asked is None:
                self._asks_for_cycle_end = True
            else:
                self._bind()
            asked = again(self._ends_cycle())
            if asked:
                return
        raise RuntimeError("param_groups change while a step reads them: a scale_fn must leave them alone")

    def _ends_cycle(self) -> bool:
        """Is the next update, if it follows the schedule, the last of a cycle of the first group?"""
        first = self.param_groups[0]
        return self._schedule_of(first)._cycles(first["applied_steps"] + 1)[1]

    # --- where the schedule stands --------------------------------------------------------------------------------

    def _synchronise(self) -> None:
        """Waits for GPUs, and puts what they have counted into the groups."""
        self._plan.synchronise(self.state)

    @property
    def applied_steps(self) -> int:
        """Updates applied so far along the schedule: the number of the next one. Speaks of the first group."""
        self._synchronise()
        return int(self.param_groups[0]["applied_steps"])

    @property
    def skipped_steps(self) -> int:
        """Updates that were skipped. Speaks of the first group."""
        self._synchronise()
        return int(self.param_groups[0]["skipped_steps"])

    @property
    def cycle(self) -> int:
        """The cycle, from 0, that the next update of the first group belongs to: how many are complete."""
        return self._schedule_of(self.param_groups[0])._cycles(self.applied_steps)[0]

    @property
    def at_cycle_end(self) -> bool:
        """Was the update just applied the last of a cycle of the first group: the place to snapshot or stop?"""
        self._synchronise()
        return self._ended_cycle()

    def _ended_cycle(self) -> bool:
        """The same, by the host's count."""
        first = self.param_groups[0]
        _, at_end = self._schedule_of(first)._cycles(first["applied_steps"])
        return at_end and self._plan.followed_schedule(first)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group's next update, as a torch scheduler gives it after its ``step()``."""
        self._synchronise()
        return [float(group["lr"]) for group in self.param_groups]

    def get_last_momentum(self) -> list[float]:
        """The momentum of each group's next update."""
        self._synchronise()
        return [float(group["momentum"]) for group in self.param_groups]

    def seek(self, step: int) -> None:
        """Move the schedules of all groups to update number ``step``, from 0 to 2**63 - 2. Changes no weight."""
        step = checked_step(step)
        self._synchronise()
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

    def _refuse_in_mid_step(self) -> None:
        if "_plan" in self.__dict__ and self._plan.is_open:  # a copy has none yet
            raise RuntimeError("gradients of this step are released already: call step() first")

    def _rebind(self, schedules: list[Schedule]) -> None:
        """Binds all groups to these schedules, in order."""
        self._refuse_in_mid_step()
        plan = self._new_plan()
        for index, (group, schedule) in enumerate(zip(self.param_groups, schedules, strict=True)):
            plan.bind(index, group, schedule._native, schedule._scale_fns)
        for group in self.param_groups:
            plan.write_schedule(group)
        if "_plan" in self.__dict__:  # a copy has none yet
            plan.adopt(self._plan)
        self._plan = plan
        self._schedules = [
            (g, g["schedule"], schedule) for g, schedule in zip(self.param_groups, schedules, strict=True)
        ]

    # --- saving and loading ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """``{"state": ..., "param_groups": ...}`` as in torch; the schedule and its position stand in the groups."""
        self._refuse_in_mid_step()
        self._synchronise()
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
        self._refuse_in_mid_step()
        self._synchronise()
        return {
            **super().__getstate__(),
            "_arguments": self._arguments,
            "_rules": self._rules,
            "_schedules": [self._schedule_of(group) for group in self.param_groups],
            "_replaced": [self._is_replaced(group) for group in self.param_groups],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # put there by torch
        if "_schedules" in state:  # unpickled or copied, not load_state_dict
            self.__dict__.setdefault("_rules", GradientRules())  # 0.1.0 had none, nor all settings
            for settings in (self.defaults, *self.param_groups):
                for name, default in SETTINGS.items():
                    settings.setdefault(name, default)
            for group in self.param_groups:
                for counter in COUNTERS:
                    group.setdefault(counter, 0)
            written = [(group["lr"], group["momentum"]) for group in self.param_groups]
            self._rebind(state["_schedules"])
            replaced = self.__dict__.pop("_replaced", [False] * len(written))  # 0.1.0 did not say
            for group, (lr, momentum), new in zip(self.param_groups, written, replaced, strict=True):
                # By hand, and not yet used. A new schedule puts its own in their place.
                if not new and (lr, momentum) != (group["lr"], group["momentum"]):
                    group["lr"], group["momentum"] = lr, momentum
