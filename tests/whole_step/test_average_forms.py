"""Which of the averaging functions of torch.optim.swa_utils have the bits of ours, as docs/guide/averages.md says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import swa_utils

from clr_native import FusedCyclicSGD
from helpers import give, gradient_sets, parameters

DECAY = 0.99
EMA, SWA = {"ema_decay": DECAY}, {"average": "swa"}
swa_multi: Any = swa_utils.get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]  # untyped in torch
# Our setting, torch's arguments, and by how many epsilons of the largest weight they differ in float32 and float64.
# Zeros are promises. The others are what torch's own order of operations comes to in 100 averages: one rounding in each
# of them; a weight of float32 in float64.
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[float, float]]] = {
    "get_ema_multi_avg_fn": (EMA, {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(DECAY)}, (0, 0)),  # type: ignore[no-untyped-call]
    "get_ema_avg_fn": (EMA, {"avg_fn": swa_utils.get_ema_avg_fn(DECAY)}, (100, 100)),  # type: ignore[no-untyped-call]
    "get_swa_multi_avg_fn": (SWA, {"multi_avg_fn": swa_multi}, (0, 2**29)),
    "the same given an int": (SWA, {"multi_avg_fn": lambda a, p, count: swa_multi(a, p, int(count))}, (0, 0)),
    "get_swa_avg_fn": (SWA, {"avg_fn": swa_utils.get_swa_avg_fn()}, (100, 100)),  # type: ignore[no-untyped-call]
    "the default": (SWA, {}, (100, 100)),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_which_forms_are_equal_to_the_bit(dtype: torch.dtype, name: str) -> None:
    settings, arguments, most = FORMS[name]
    over = parameters([17, 65, (3, 5)], dtype)
    optimizer = FusedCyclicSGD(over, 0.05, 0.4, step_size_up=1, **settings)
    model = nn.ParameterList(over)
    theirs = swa_utils.AveragedModel(model, **arguments)
    difference = 0.0
    for gradients in gradient_sets(over, 100):
        give(over, gradients)
        for _ in range(2):  # to the end of a cycle
            optimizer.step()
            if settings is EMA or optimizer.at_cycle_end:
                theirs.update_parameters(model)
        for p, q in zip(over, theirs.parameters(), strict=True):
            own = optimizer.state[p]["average"]
            difference = max(
                difference, float((own - q.detach()).abs().max() / own.abs().max()) / torch.finfo(dtype).eps
            )
    bound = most[dtype is torch.float64]
    assert difference <= bound
    if bound and not difference:
        pytest.skip(f"this torch has the bits of ours: docs/guide/averages.md can say so of {name}")
