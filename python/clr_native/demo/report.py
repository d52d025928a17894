"""Prints the demo's progress and epochs while it trains, and the two libraries side by side at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from clr_native.demo.results import Results
from clr_native.demo.training import Run

SECONDS_BETWEEN_REFRESHES = 0.1


@dataclass
class Monitor:
    """A table that grows by the epoch, with a progress bar beneath it while the run lasts."""

    table: Table
    progress: Progress
    task: TaskID
    live: Live
    refreshed: float = 0.0

    def step(self, run: Run) -> None:
        self.progress.update(self.task, advance=1, loss=run.loss[-1], lr=run.lr[-1], momentum=run.momentum[-1])
        if perf_counter() - self.refreshed > SECONDS_BETWEEN_REFRESHES:
            self.live.refresh()
            self.refreshed = perf_counter()

    def epoch(self, run: Run) -> None:
        self.table.add_row(
            str(len(run.test_accuracy)),
            f"{run.lr[-1]:.4f}",
            f"{run.momentum[-1]:.3f}",
            f"{run.epoch_loss[-1]:.4f}",
            f"{run.test_accuracy[-1]:.2%}",
        )


@contextmanager
def monitor(console: Console, title: str, steps: int) -> Iterator[Monitor]:
    """Show the progress of a run of `steps` steps; its table stays on the screen."""
    table = _table(title, "epoch", "lr", "momentum", "train loss", "test accuracy")
    fields = "loss {task.fields[loss]:.3f}  lr {task.fields[lr]:.4f}  momentum {task.fields[momentum]:.3f}"
    progress = Progress(BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn(fields))
    task = progress.add_task("", total=steps, loss=0.0, lr=0.0, momentum=0.0)
    # rich's refreshing thread would hold the interpreter during the lines that are timed.
    with Live(Group(table, progress), console=console, auto_refresh=False, transient=True) as live:
        yield Monitor(table, progress, task, live)
    console.print(table, "")


def print_results(console: Console, results: Results) -> None:
    """Prints the libraries side by side, and whether their weights are the same."""
    table = _table("Side by side" if results.ratio else "Result", "", *results.test_accuracy)
    table.add_row("test accuracy", *(f"{share:.2%}" for share in results.test_accuracy.values()))
    table.add_row("optimizer's lines", *(f"{s * 1e3:.1f} ms" for s in results.optimizer_seconds.values()))
    table.add_row("  median step", *(f"{s * 1e6:.1f} us" for s in results.median_step_seconds.values()))
    console.print(table)
    if results.ratio is None:
        return
    console.print(f"median step, torch / clr_native: {results.ratio:.1f}x")
    if results.max_weight_difference == 0:
        console.print("largest difference of any weight: 0 (the two networks are the same)")
    else:
        console.print(
            f"WARNING: largest difference of any weight: {results.max_weight_difference:.3g}, where 0 is"
            " expected: clr_native and torch did not train the same network",
            style="bold red",
        )


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    return table
