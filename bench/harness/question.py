"""What a paired row needs to know of a question about the step: who is compared, on what, and how it is verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from bench.harness.contenders import Contender
from bench.harness.workloads import Gradients, Refilled, Workload

Section = Literal["whole step", "lars", "bfloat16 momentum", "by hand"]


class Verify(Protocol):
    """AssertionError unless the contender does what torch does. ``gradients``: as the question makes them."""

    def __call__(self, name: str, workload: Workload, gradients: Gradients) -> None: ...


@dataclass(frozen=True)
class Question:
    section: Section
    workloads: tuple[str, ...]
    contenders: tuple[str, ...]
    gradients: Callable[[Workload], Gradients]
    build: Callable[[str, Refilled], Contender]
    verify: Verify
