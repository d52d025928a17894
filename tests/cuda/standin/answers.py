"""Which Python function answers for which function of the driver."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

Answering = Callable[..., None]


@dataclass(frozen=True)
class Answer:
    """`run` is given a Gpu and the arguments. `parameters` are what the log calls the arguments, in the order of C."""

    run: Answering
    parameters: tuple[str, ...]
    before_init: bool
    in_context: bool  # fails where the thread has no current context
    may_wait: bool  # fails during captures, but in relaxed mode


ANSWERS: dict[str, Answer] = {}


def answers(
    name: str, *, before_init: bool = False, in_context: bool = False, may_wait: bool = False
) -> Callable[[Answering], Answering]:
    def enter(run: Answering) -> Answering:
        parameters = tuple(inspect.signature(run).parameters)[1:]
        ANSWERS[name] = Answer(run, parameters, before_init, in_context, may_wait)
        return run

    return enter


@dataclass
class Call:
    """One call of the driver. `device` is that of the thread's current context, `kernel` what a launch runs."""

    name: str
    arguments: dict[str, int]
    device: int | None
    result: int = 0
    kernel: str = ""
    holds_gil: bool = False

    def __getitem__(self, argument: str) -> int:
        return self.arguments[argument]

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value:#x}" for name, value in self.arguments.items())
        return f"{self.name}({told}) {self.kernel} -> {self.result}"
