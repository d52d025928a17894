"""CyclicLR beside torch's with random legal arguments, within what torch's own rounding comes to."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from clr_native import CyclicLR
from schedulers import adam, bound, momenta, rates, sgd

SEEDED = settings(max_examples=150, derandomize=True, database=None, deadline=None)
LAST = 10**6

sizes = st.integers(1, 20) | st.integers(1, 5000)


@st.composite
def pairs(draw: st.DrawFn, most: float) -> tuple[float, float]:
    low, high = sorted([draw(st.floats(1e-6, most)), draw(st.floats(1e-6, most))])
    return low, high


@st.composite
def arguments(draw: st.DrawFn, groups: int) -> dict[str, Any]:
    mode = draw(st.sampled_from(["triangular", "triangular2", "exp_range"]))
    lrs = draw(st.lists(pairs(10.0), min_size=groups, max_size=groups))
    momentum_pairs = draw(st.lists(pairs(1.0), min_size=groups, max_size=groups))
    per_group = draw(st.booleans())
    made = {
        **dict(zip(("base_lr", "max_lr"), map(list, zip(*lrs, strict=True)), strict=True)),
        **dict(zip(("base_momentum", "max_momentum"), map(list, zip(*momentum_pairs, strict=True)), strict=True)),
    }
    return {
        **(made if per_group else {name: value[0] for name, value in made.items()}),
        "step_size_up": draw(sizes),
        "step_size_down": draw(st.none() | sizes),
        "mode": mode,
        "gamma": draw(st.floats(0.99, 1.0)) if mode == "exp_range" else 1.0,
        "scale_fn": draw(st.sampled_from([None, None, lambda argument: 1.0 / (1.0 + argument)])),
        "scale_mode": draw(st.sampled_from(["cycle", "iterations"])),
        "cycle_momentum": draw(st.booleans()),
    }


def of_group(value: Any, group: int) -> float:
    return float(value[group] if isinstance(value, list) else value)


@SEEDED
@given(
    arguments(2),
    st.lists(st.integers(0, 40) | st.integers(0, LAST), min_size=1, max_size=6),
    st.sampled_from([sgd, adam]),
)
def test_values_are_torchs_up_to_its_rounding(given_: dict[str, Any], steps: list[int], optimizer_of: Any) -> None:
    ours, theirs = optimizer_of(2), optimizer_of(2)
    scheduler = CyclicLR(ours, **given_)
    up = given_["step_size_up"]
    length = up + (given_["step_size_down"] or up)
    if given_["mode"] == "triangular2" and given_["scale_fn"] is None:
        steps = [step % (1000 * length) for step in steps]  # further on torch's overflows
    reference = lr_scheduler.CyclicLR(theirs, **given_)
    for step in steps:
        for each, optimizer in ((scheduler, ours), (reference, theirs)):
            each.last_epoch = step - 1
            optimizer.step()
            each.step()
        for group in range(2):
            ends = [of_group(given_[name], group) for name in ("base_lr", "max_lr", "base_momentum", "max_momentum")]
            for found, wanted, low, high in (
                (rates(ours)[group], rates(theirs)[group], *ends[:2]),
                (momenta(ours)[group], momenta(theirs)[group], *ends[2:]),
            ):
                assert abs(found - wanted) <= bound(low, high, up, length - up, step), (step, group)
    assert np.isfinite(rates(ours)).all()
