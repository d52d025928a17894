"""What stood here is in ``clr_native.sgd.optimizer``, and still found here."""

from clr_native.sgd.optimizer import FusedCyclicSGD as FusedCyclicSGD
