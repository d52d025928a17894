"""What stood here is in ``clr_native.schedules.plot``, and still found here."""

from clr_native.schedules.plot import plot_schedule as plot_schedule
