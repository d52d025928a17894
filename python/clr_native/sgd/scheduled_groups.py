"""Parameter groups that follow schedules: bound to the native plan, saved and loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.optim.optimizer import Optimizer, ParamsT

from clr_native import _core
from clr_native.checks import group_label
from clr_native.schedules import Schedule
from clr_native.schedules.arguments import ScheduleArguments, read_schedule
from clr_native.schedules.evaluate import checked_step
from clr_native.sgd.checkpoint import COUNTERS, checked, complete_groups, own_state
from clr_native.sgd.gradient_rules import GradientRules
from clr_native.sgd.settings import SETTINGS, as_number, check_parameter, dtype_name
from clr_native.shown import shown_optimizer

Group = dict[str, Any]

# Of the constructor's arguments, those that stand in a group.
_IN_GROUPS = frozenset({"lr", "momentum", "schedule", *SETTINGS})


class ScheduledGroups(Optimizer):
    """What an optimizer is before its step: groups, each with a schedule and a position in it."""

    def __init__(self, params: ParamsT, arguments: ScheduleArguments, rules: GradientRules, defaults: Group) -> None:
        self._arguments = arguments
        self._rules = rules
        self._plan = self._new_plan()
        super().__init__(params, defaults)

    def _new_plan(self) -> _core.Step:
        plan = _core.Step()
        self._rules.give_to(plan)
        return plan

    # --- groups ---------------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; arguments it does not set are the constructor's. It starts at the first group's position.

        Its averages begin anew. An ``lr`` in it is the rate of a group that has no schedule; a schedule wins over it. A
        group of another such optimizer goes on where it stands; under a constant schedule with its present rate.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group={param_group!r} must be a dict")
        group = dict(param_group)
        index = len(self.param_groups)
        # As it stands in a group of another optimizer.
        standing = {name: as_number(group.get(name)) for name in ("lr", "momentum")}
        is_written = isinstance(group.get("schedule"), Mapping) and None not in standing.values()
        schedule, momentum = self._arguments.take_from(group, group_label(index))
        is_obeyed = is_written and schedule._native.is_constant
        first = self.param_groups[0] if self.param_groups else {}
        group["schedule"] = schedule._to_dict()
        group["momentum"] = momentum
        group["overridden"] = False
        for counter in COUNTERS:
            group.setdefault(counter, first.get(counter, 0))
        group["n_averaged"] = 0
        group["lr"] = 0.0  # the schedule's, once bound
        if is_obeyed:
            group.update(standing)
        group["momentum_dtype"] = dtype_name(group.get("momentum_dtype", self.defaults["momentum_dtype"]))
        own = group.keys() | _IN_GROUPS
        super().add_param_group(group)
        for name in self.defaults.keys() - own:  # put there by torch
            del group[name]
        try:
            for i, parameter in enumerate(group["params"]):
                check_parameter(parameter, f"parameter {i} of group {index}")
            self._plan.bind(index, group, schedule)
            if is_obeyed:
                self._plan.check_values(group)
            else:
                self._plan.write_schedule(group)
        except BaseException:
            self.param_groups.pop()
            raise

    def _schedule_of(self, group: Group) -> Schedule:
        """The schedule that stands in a group, with the scale_fn of the one that was bound."""
        bound = self._plan.schedule_of(group)
        if bound is None:
            return read_schedule(group, None)
        schedule, is_there = bound
        return schedule if is_there else read_schedule(group, schedule)

    def _bind(self) -> None:
        """Binds the groups whose dict or schedule is not the one that was bound.

        The lr and momentum in a dict never seen before are obeyed; a new schedule puts its own in their place.
        """
        if len({id(group) for group in self.param_groups}) != len(self.param_groups):
            raise ValueError("param_groups holds the same dict twice: every group must be a dict of its own")
        written = [group["schedule"] for group in self.param_groups]
        replaced: list[Group] = []
        try:
            for index, group in enumerate(self.param_groups):
                if self._plan.is_bound(index, group):
                    continue
                schedule = self._schedule_of(group)
                if self._plan.schedule_of(group) is not None:
                    replaced.append(group)
                group["schedule"] = schedule._to_dict()
                self._plan.bind(index, group, schedule)
        except BaseException:
            for group, each in zip(self.param_groups, written, strict=True):
                group["schedule"] = each
            raise
        for group in replaced:
            self._plan.write_schedule(group)

    def _bind_and(self, again: Callable[[], bool]) -> None:
        """Binds the groups, then calls the plan again that has found some that are not bound."""
        for _ in range(3):
            self._bind()
            if again():
                return
        raise RuntimeError("param_groups change while a step reads them: a scale_fn must leave them alone")

    def __repr__(self) -> str:
        """A line a group: its schedule, what is used next, settings that are not as by default. Waits for no GPU."""
        return shown_optimizer(type(self).__name__, self.param_groups, self._rules, self._schedule_of)

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
        return self._schedule_of(self.param_groups[0])._cycle_position(self.applied_steps).complete

    @property
    def at_cycle_end(self) -> bool:
        """Was the update just applied the last of a cycle of the first group: the place to snapshot or stop?"""
        self._synchronise()
        return self._ended_cycle()

    def _ended_cycle(self) -> bool:
        """The same, by the host's count."""
        first = self.param_groups[0]
        position = self._schedule_of(first)._cycle_position(first["applied_steps"])
        return position.at_end and self._plan.followed_schedule(first)

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
            schedules = [self._schedule_of(group) for group in self.param_groups]
            self._rebind(schedules, [schedule._native.is_constant for schedule in schedules])
        except BaseException:
            for group, values in zip(self.param_groups, before, strict=True):
                group.update(values)
            raise

    def _refuse_in_mid_step(self) -> None:
        if "_plan" in self.__dict__ and self._plan.is_open:  # a copy has none yet
            raise RuntimeError("gradients of this step are released already: call step() first")

    def _rebind(self, schedules: Sequence[Schedule], obeyed: Sequence[bool]) -> None:
        """Binds all groups to these schedules, in order. What stands in them for lr and momentum is obeyed, or the
        schedule's values are written.
        """
        self._refuse_in_mid_step()
        self._take(self._bound_plan(schedules, obeyed))

    def _bound_plan(self, schedules: Sequence[Schedule], obeyed: Sequence[bool]) -> _core.Step:
        plan = self._new_plan()
        for index, (group, schedule) in enumerate(zip(self.param_groups, schedules, strict=True)):
            plan.bind(index, group, schedule)
        for group, is_obeyed in zip(self.param_groups, obeyed, strict=True):
            if is_obeyed:
                plan.check_values(group)
        for group, is_obeyed in zip(self.param_groups, obeyed, strict=True):
            if not is_obeyed:
                plan.write_schedule(group)
        return plan

    def _take(self, plan: _core.Step) -> None:
        if "_plan" in self.__dict__:  # a copy has none yet
            plan.adopt(self._plan)
        self._plan = plan

    def _standing(self, group: Group) -> tuple[Schedule, bool, Any, Any]:
        """A group's schedule, and what a step would take for its lr and momentum.

        True with the values as they stand, where they are not the schedule's; else False with the schedule's.
        """
        bound = self._plan.schedule_of(group)
        if bound is not None and bound[1]:
            return (bound[0], *self._plan.standing(group))
        schedule = self._schedule_of(group)
        twin, plan = dict(group), _core.Step()
        plan.bind(0, twin, schedule)
        if bound is not None:  # a new schedule puts its own values in their place
            plan.write_schedule(twin)
        return (schedule, *plan.standing(twin))

    # --- saving and loading ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """``{"state": ..., "param_groups": ...}`` as in torch; the schedule and its position stand in the groups.

        The key ``overridden`` of a group is True where its lr or momentum is not the schedule's: such values are saved.
        """
        self._refuse_in_mid_step()
        self._synchronise()
        state_dict = super().state_dict()
        # A step that was refused, skipped or interrupted may have left empty entries.
        entries = state_dict["state"].items()
        state_dict["state"] = {key: entry for key, entry in entries if not isinstance(entry, dict) or entry}
        plain: dict[int, dict[str, Any]] = {}  # by schedule, which many groups share
        for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            schedule, saved["overridden"], saved["lr"], momentum = self._standing(group)
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
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict of type={type(state_dict).__name__} must be a dict")
        self._refuse_in_mid_step()
        before = (self.state, self.param_groups)
        present = [self._schedule_of(group) for group in self.param_groups]
        loaded: dict[str, Any] = {}
        plans: list[_core.Step] = []

        def take(_: Optimizer, final: dict[str, Any]) -> dict[str, Any]:  # what the other hooks made of the checkpoint
            loaded.update(checked(final))
            # torch only has to see which parameter is which: it would round the state, and read what cannot be read.
            return {"state": {}, "param_groups": [{"params": group["params"]} for group in loaded["param_groups"]]}

        def fill(_: Optimizer) -> None:
            plans.append(self._filled(before[1], loaded, present))

        hooks = (
            self.register_load_state_dict_pre_hook(take),
            self.register_load_state_dict_post_hook(fill, prepend=True),
        )
        try:
            super().load_state_dict(dict(state_dict))
            self._take(plans[0])
        except BaseException:
            self.state, self.param_groups = before
            raise
        finally:
            for hook in hooks:
                hook.remove()

    def _filled(self, before: list[Group], loaded: dict[str, Any], present: list[Schedule]) -> _core.Step:
        """Puts what was loaded into the new groups and the new state; a plan that is bound to them."""
        groups, saved_groups = self.param_groups, loaded["param_groups"]
        complete_groups(groups, before, saved_groups, self.defaults.keys() & SETTINGS.keys())
        schedules = [read_schedule(group, own) for group, own in zip(groups, present, strict=True)]
        obeyed = [
            saved.get("overridden", False) or ("schedule" not in saved and schedule._native.is_constant)
            for saved, schedule in zip(saved_groups, schedules, strict=True)
        ]
        plan = self._bound_plan(schedules, obeyed)
        self.state = own_state(groups, loaded)
        return plan

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_in_mid_step()
        self._synchronise()
        standing = [self._standing(group) for group in self.param_groups]
        return {
            **super().__getstate__(),
            "_arguments": self._arguments,
            "_rules": self._rules,
            "_schedules": [schedule for schedule, *_ in standing],
            "_obeyed": [is_overridden for _, is_overridden, *_ in standing],
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
                group.setdefault("overridden", False)
                for counter in COUNTERS:
                    group.setdefault(counter, 0)
            schedules = self.__dict__.pop("_schedules")
            self._rebind(schedules, self.__dict__.pop("_obeyed", [False] * len(schedules)))
