"""What stood here is in ``clr_native.schedules.evaluate``, and still found here."""

from clr_native.schedules.evaluate import evaluate as evaluate
