"""The demo's figures, as they are printed and as `--json` writes them."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

import torch
from torch import nn

import clr_native
from clr_native.demo.training import Run


@dataclass(frozen=True)
class Results:
    """The results. Dictionaries have a key for each library. Comparisons are None if only one library ran.

    `ratio` is torch's step over clr_native's, of the medians: other processes disturb the sums more.
    """

    data: str
    epochs: int
    steps: int
    seed: int
    threads: int
    test_accuracy: dict[str, float]
    optimizer_seconds: dict[str, float]
    median_step_seconds: dict[str, float]
    max_weight_difference: float | None
    ratio: float | None
    versions: dict[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def gather(data: str, seed: int, runs: Sequence[Run]) -> Results:
    """Returns the results of one run, or of clr_native's and torch's."""
    median_step = {run.library: median(run.optimizer_seconds) for run in runs}
    compared = len(runs) == 2
    return Results(
        data=data,
        epochs=len(runs[0].test_accuracy),
        steps=len(runs[0].loss),
        seed=seed,
        threads=torch.get_num_threads(),
        test_accuracy={run.library: run.test_accuracy[-1] for run in runs},
        optimizer_seconds={run.library: sum(run.optimizer_seconds) for run in runs},
        median_step_seconds=median_step,
        max_weight_difference=max_weight_difference(*(run.network for run in runs)) if compared else None,
        ratio=median_step["torch"] / median_step["clr_native"] if compared else None,
        versions={
            "clr_native": clr_native.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    )


@torch.no_grad()
def max_weight_difference(a: nn.Module, b: nn.Module) -> float:
    """Returns the largest absolute difference between two networks' weights."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return torch.stack([(p - q).abs().max() for p, q in pairs]).max().item()
