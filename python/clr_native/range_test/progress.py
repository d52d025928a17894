"""A progress bar on a terminal, if `rich` is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from clr_native.range_test.distributed import is_first_rank

Show: TypeAlias = Callable[[float, float], None]


@contextmanager
def shown(progress: bool, steps: int) -> Iterator[Show]:
    """Gives a function to call with lr and loss after each step. Shows nothing without a terminal or without `rich`."""
    if progress and is_first_rank():
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        except ImportError:
            pass
        else:
            console = Console(stderr=True)
            if console.is_terminal:
                columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
                with Progress(*columns, console=console, transient=True) as bar:
                    task = bar.add_task("", total=steps)

                    def show(lr: float, loss: float) -> None:
                        bar.update(task, advance=1, description=f"lr {lr:.2e}  loss {loss:.4g}")

                    yield show
                return
    yield lambda lr, loss: None
