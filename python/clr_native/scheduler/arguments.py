"""The schedule arguments of CyclicLR: one for all parameter groups, or a list with one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from clr_native.checks import group_label
from clr_native.schedules import Schedule
from clr_native.schedules.arguments import BOUNDS, SCHEDULE_FIELDS, check_schedule, flat_schedule, is_default
from clr_native.torch_groups import snapshot_of


def late_group_arguments(group: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Returns the schedule arguments in the dict of a late group, without names that the optimizer itself uses."""
    names = ("schedule", *SCHEDULE_FIELDS)
    return {name: group[name] for name in names if name in group and name not in optimizer.defaults}


class PerGroup:
    """The arguments of the constructor, from which the schedules of its groups and of late groups are made."""

    def __init__(self, flat: Mapping[str, Any], schedule: object) -> None:
        # Tensors are copied, because a late group reads these values again.
        given = {name: snapshot_of(value) for name, value in flat.items() if not is_default(name, value)}
        if schedule is not None:
            for each in schedule if isinstance(schedule, (list, tuple)) else [schedule]:
                check_schedule(each, given, "")
            given = {"schedule": schedule}
        self._same = {name: value for name, value in given.items() if not isinstance(value, (list, tuple))}
        self._lists = {name: value for name, value in given.items() if isinstance(value, (list, tuple))}
        # The schedule that a late group joins, if all groups have the same one.
        self.common = None if self._lists else self._made(given)

    def of_groups(self, count: int) -> list[Schedule]:
        """Returns the schedules of the first ``count`` groups. Neighbours with equal arguments share one."""
        for name, values in self._lists.items():
            if len(values) != count:
                raise ValueError(f"{name} with {len(values)} entries must have one for each of the {count} groups")
        if self.common is not None:
            return [self.common] * count
        schedules: list[Schedule] = []
        for index in range(count):
            own = {name: values[index] for name, values in self._lists.items()}
            schedule = self._named(own, index)
            schedules.append(schedules[-1] if schedules and schedule == schedules[-1] else schedule)
        return schedules

    def of_late_group(self, own: dict[str, Any], index: int) -> Schedule:
        """Returns the schedule of a late group. Its own arguments win over those that are the same for all groups."""
        if "schedule" in own:
            schedule: Schedule = own.pop("schedule")
            check_schedule(schedule, own, group_label(index))
            return schedule
        if not own and self.common is not None:
            return self.common
        needed = list(self._lists) or (["schedule"] if "schedule" in self._same else BOUNDS)
        missing = ", ".join(f"{name}=None" for name in needed if name not in own)
        if missing and self.common is None:
            raise ValueError(
                f"{group_label(index)}{missing}: the schedules of the groups differ, "
                "so a new one must say its own in the dict given to add_param_group"
            )
        return self._named(own, index)

    def _named(self, own: Mapping[str, Any], index: int) -> Schedule:
        try:
            return self._made({**self._same, **own})
        except (TypeError, ValueError) as error:
            raise type(error)(f"{group_label(index)}{error}") from None

    @staticmethod
    def _made(arguments: dict[str, Any]) -> Schedule:
        flat = {name: value for name, value in arguments.items() if name != "schedule"}
        if "schedule" in arguments:
            schedule: Schedule = arguments["schedule"]
            check_schedule(schedule, flat, "")
            return schedule
        return flat_schedule(flat, "")


def common_schedule(schedules: Sequence[Schedule]) -> Schedule | None:
    """Returns the schedule of all groups, or None if they do not share one."""
    return schedules[0] if schedules and all(each is schedules[0] for each in schedules) else None
