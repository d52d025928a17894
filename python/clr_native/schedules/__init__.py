"""Schedules as values: immutable, plain, evaluated by the native core."""

from clr_native.schedules.advice import Check, Summary
from clr_native.schedules.base import Schedule, ScheduleValue, from_dict
from clr_native.schedules.cyclic import CyclicSchedule
from clr_native.schedules.one_cycle import OneCycleSchedule
from clr_native.schedules.ramp import RampSchedule
from clr_native.schedules.sequence import ScheduleSequence

__all__ = [
    "Check",
    "CyclicSchedule",
    "OneCycleSchedule",
    "RampSchedule",
    "Schedule",
    "ScheduleSequence",
    "ScheduleValue",
    "Summary",
    "from_dict",
]
