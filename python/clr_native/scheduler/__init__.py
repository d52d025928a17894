"""A scheduler for every optimizer of torch."""

from clr_native.scheduler.cyclic_lr import CyclicLR as CyclicLR
