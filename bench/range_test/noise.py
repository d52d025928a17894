"""How far noise moves the answers of range tests: ours, fastai's, torch-lr-finder's and Lightning's, on known curves.

    python -m bench.range_test.noise [--seeds 200] [--divergence SHAPE] [--diverges-at LR] [--markdown FILE]

The curve is ``2.3 - 1.6 * sigmoid(slope * log10(lr / centre))``, from 1e-7 to 10 in 100 points, and diverges above
``d``, 1.8 decades above the centre (0.2 for the first one): by ``4 * log10(lr / d)**2``, or as ``--divergence`` says.
Rivals' rules are run from their packages, where they are installed, on losses smoothed and stopped as these packages
do.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness.machine import caption, describe
from clr_native import RangeTestResult
from clr_native.range_test.stopping import Divergence
from clr_native.schedules.evaluate import FloatArray

LR = 10.0 ** np.linspace(-7.0, 1.0, 100)
CURVES = [(centre, slope) for centre in (10.0**-2.5, 1e-4, 0.3) for slope in (3.0, 1.5, 8.0)]
NOISES = (0.0, 0.02, 0.1)

# What is added at so many times the rate from which the loss diverges, at least once.
DIVERGENCES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "log": lambda times: 4.0 * np.log10(times) ** 2,
    "linear": lambda times: times - 1.0,
    "quadratic": lambda times: times**2 - 1.0,
    "exponential": lambda times: np.expm1(np.minimum(3.0 * (times - 1.0), 300.0)),
}

Rule = Callable[[FloatArray], "float | None"]


def curve(centre: float, slope: float, divergence: str = "log", diverges_at: float | None = None) -> FloatArray:
    place = LR / (0.2 * centre / 10.0**-2.5 if diverges_at is None else diverges_at)
    descent = 2.3 - 1.6 / (1.0 + np.exp(-slope * np.log10(LR / centre)))
    losses: FloatArray = descent + DIVERGENCES[divergence](np.maximum(place, 1.0))
    return losses


def result_of(losses: FloatArray) -> RangeTestResult:
    """As the range test would have recorded them, up to where it would have stopped."""
    divergence = Divergence(4.0)
    reasons = [divergence.observe(loss) for loss in losses.tolist()]
    end = next((step + 1 for step, reason in enumerate(reasons) if reason), len(losses))
    lr = LR[:end]
    return RangeTestResult(lr, lr[None], losses[None, :end], None, None, reasons[end - 1] or "the end of the ramp")


# --- the rivals -------------------------------------------------------------------------------------------------------


def averaged(losses: FloatArray, beta: float, *, debiased: bool, factor: float) -> FloatArray:
    """The moving average that these packages keep, up to where it is `factor` times its best."""
    smoothed: list[float] = []
    average = 0.0 if debiased else float(losses[0])
    for step, loss in enumerate(losses.tolist()):
        average = beta * average + (1.0 - beta) * loss
        smoothed.append(average / (1.0 - beta ** (step + 1)) if debiased else average)
        if smoothed[-1] > factor * min(smoothed):
            break
    return np.array(smoothed)


def fastai_rules() -> Iterator[tuple[str, Rule]]:
    schedule = importlib.import_module("fastai.callback.schedule")
    torch = importlib.import_module("torch")

    def rule(name: str) -> Rule:
        def suggested(losses: FloatArray) -> float:
            smoothed = averaged(losses, 0.98, debiased=True, factor=4.0)
            points = slice(len(LR) // 10, len(smoothed) - 5)
            lr, loss = (torch.tensor(values[points]) for values in (LR[: len(smoothed)], smoothed))
            return float(getattr(schedule, name)(lr, loss, len(LR))[0])

        return suggested

    for name in ("steep", "valley", "slide", "minimum"):
        yield f"fastai {name}", rule(name)


def lightning_rules() -> Iterator[tuple[str, Rule]]:
    finder_type = importlib.import_module("lightning.pytorch.tuner.lr_finder")._LRFinder

    def suggested(losses: FloatArray) -> float | None:
        smoothed = averaged(losses, 0.98, debiased=True, factor=4.0)
        finder = finder_type("exponential", LR[0], LR[-1], len(LR))
        finder.results = {"lr": LR[: len(smoothed)].tolist(), "loss": smoothed.tolist()}
        found = finder.suggestion()
        return None if found is None else float(found)

    yield "Lightning", suggested


def torch_lr_finder_rules() -> Iterator[tuple[str, Rule]]:
    package = importlib.import_module("torch_lr_finder")
    figure = importlib.import_module("matplotlib.figure")

    def suggested(losses: FloatArray) -> float:
        smoothed = averaged(losses, 0.95, debiased=False, factor=5.0)
        finder: Any = object.__new__(package.LRFinder)
        finder.history = {"lr": LR[: len(smoothed)].tolist(), "loss": smoothed.tolist()}
        with contextlib.redirect_stdout(io.StringIO()):
            return float(finder.plot(ax=figure.Figure().add_subplot())[1])

    yield "torch-lr-finder", suggested


def rivals() -> tuple[dict[str, Rule], list[str]]:
    """Rules by name, and the packages that are not installed."""
    rules: dict[str, Rule] = {}
    packages = {"fastai": fastai_rules, "torch_lr_finder": torch_lr_finder_rules, "lightning": lightning_rules}
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    for name, made in packages.items():
        if name not in missing:
            rules.update(made())
    return rules, missing


# --- the tables -------------------------------------------------------------------------------------------------------


def noisy(clean: FloatArray, noise: float, seeds: int) -> Iterator[FloatArray]:
    for seed in range(seeds if noise > 0.0 else 1):
        yield clean + noise * np.random.default_rng(seed).standard_normal(len(clean))


def readings(losses: FloatArray) -> tuple[float, float, float]:
    """steep, base_lr and max_lr; NaN where there is no answer."""
    result = result_of(losses)
    try:
        bounds = result.bounds()
    except ValueError:
        return result.suggest("steep"), np.nan, np.nan
    return result.suggest("steep"), bounds.base_lr, bounds.max_lr


def share_within_two(values: FloatArray, truth: float) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.mean(np.abs(np.log2(values / truth)) <= 1.0))


def our_table(seeds: int, divergence: str, diverges_at: float | None) -> Iterator[str]:
    yield "| centre | slope per decade | sd | steep / centre | within 2x | base_lr | within 2x | max_lr | within 2x |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for centre, slope in CURVES:
        clean = curve(centre, slope, divergence, diverges_at)
        _, base, most = readings(clean)
        for noise in NOISES:
            found = np.array([readings(losses) for losses in noisy(clean, noise, seeds)]).T
            ratio = found[0] / centre
            shares = [
                share_within_two(values, truth) for values, truth in zip(found, (centre, base, most), strict=True)
            ]
            yield (
                f"| {centre:.3g} | {slope:g} | {noise:g} | {ratio.min():.2f} to {ratio.max():.2f} | {shares[0]:.1%} | "
                f"{base:.2e} | {shares[1]:.1%} | {most:.2e} | {shares[2]:.1%} |"
            )


def rivals_table(seeds: int) -> Iterator[str]:
    rules, missing = rivals()
    ours: dict[str, Rule] = {
        "**ours, steep**": lambda losses: result_of(losses).suggest("steep"),
        "ours, valley": lambda losses: result_of(losses).suggest("valley"),
        "ours, slide": lambda losses: result_of(losses).suggest("slide"),
        "ours, minimum": lambda losses: result_of(losses).suggest("minimum"),
    }
    yield (
        "| rule | "
        + " | ".join(f"noise {noise:g}: median (5 % to 95 %), within 2x of 3.2e-3" for noise in NOISES)
        + " |"
    )
    yield "|---|" + "---|" * len(NOISES)
    clean = curve(*CURVES[0])
    for name, rule in (ours | rules).items():
        cells = []
        for noise in NOISES:
            found = np.array(
                [np.nan if (rate := rule(losses)) is None else rate for losses in noisy(clean, noise, seeds)]
            )
            low, middle, high = np.nanquantile(found, (0.05, 0.5, 0.95))
            share = share_within_two(found, CURVES[0][0])
            cells.append(f"{middle:.1e} ({low:.1e} to {high:.1e}), {share:.0%}")
        yield f"| {name} | " + " | ".join(cells) + " |"
    if missing:
        yield f"\nNot installed: {', '.join(missing)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--divergence", choices=DIVERGENCES, default="log")
    parser.add_argument("--diverges-at", type=float, help="for all centres; default 1.8 decades above each")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    ours = our_table(arguments.seeds, arguments.divergence, arguments.diverges_at)
    lines = [*ours, "", *rivals_table(arguments.seeds), "", caption(describe())]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.markdown is not None:
        arguments.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
