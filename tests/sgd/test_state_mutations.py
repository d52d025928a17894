"""Spoilt checkpoints: each is refused by name with nothing changed, or it loads and the next steps work."""

from __future__ import annotations

import copy
import math
import os
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from clr_native.schedules import from_dict
from helpers import bits, every_parameter, give, gradient_sets, picture, raised
from state_mutants import KINDS, Mutants, halving

# Of each kind. With 1250 there are 20,000.
COUNT = int(os.environ.get("CLR_NATIVE_STATE_MUTANTS", "125"))

# Where a refusal says it is if it does not name the very key: what was swapped or taken out spoils something else.
PLACE = re.compile(
    r"state_dict\['|parameter group|parameter \d of group \d, |segment \d"
    r"|is not an argument of|is missing, |\w+=.+ must be "
)


def frozen(value: Any) -> Any:
    """What a caller's dict is: its objects, and that nobody has written to its tensors."""
    if isinstance(value, dict):
        return id(value), [(id(key), frozen(item)) for key, item in value.items()]
    if isinstance(value, list):
        return id(value), [frozen(item) for item in value]
    return id(value), value._version if isinstance(value, Tensor) else None


class Pair:
    """An optimizer to load into, and its twin that loads nothing."""

    def __init__(self, twin: FusedCyclicSGD) -> None:
        self.twin = twin
        self.gradients = gradient_sets(every_parameter(twin), 1)[0]
        self.renew()

    def renew(self) -> None:
        self.optimizer = copy.deepcopy(self.twin)

    def step(self, optimizer: FusedCyclicSGD) -> None:
        give(every_parameter(optimizer), self.gradients)
        optimizer.step()

    def load(self, state: dict[str, Any]) -> Exception | None:
        """Only refused with TypeError or ValueError, and then with nothing changed."""
        caller, before = frozen(state), picture(self.optimizer)
        error = raised(lambda: self.optimizer.load_state_dict(state))
        assert error is None or (isinstance(error, TypeError | ValueError) and picture(self.optimizer) == before)
        assert frozen(state) == caller, "the caller's dict"
        return error

    def goes_on_as_its_twin(self) -> None:
        self.step(self.optimizer)
        self.step(self.twin)
        for p, q in zip(every_parameter(self.optimizer), every_parameter(self.twin), strict=True):
            assert bits(p) == bits(q)
        assert self.optimizer.get_last_lr() == self.twin.get_last_lr()

    def works(self) -> None:
        """But for a position after the last, and for what a schedule itself gives at a position."""
        error = raised(lambda: self.step(self.optimizer)) or raised(lambda: self.step(self.optimizer))
        if error is None:
            self.optimizer.state_dict()
        else:
            assert "2**63 - 2" in str(error) or any(map(gives_nonsense, self.optimizer.param_groups)), error


def gives_nonsense(group: dict[str, Any]) -> bool:
    """True if what the schedule of a group gives at its position cannot be used."""
    written = group["schedule"]
    schedule = from_dict(written, scale_fn=halving if written.get("scale_fn") else None)
    try:
        lr, momentum = schedule(group["applied_steps"])
    except ValueError:
        return True
    return not (0.0 <= lr < math.inf and 0.0 <= (momentum or 0.0) <= 1.0)


def names(error: Exception, paths: list[tuple[Any, ...]]) -> bool:
    """True if a refusal says where it is."""
    keys = {key for path in paths for key in path if isinstance(key, str)}
    return any(key in str(error) for key in keys) or PLACE.search(str(error)) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoilt_checkpoint_is_refused_or_works(kind: str) -> None:
    pair = Pair(KINDS[kind]())
    mutants = Mutants(pair.twin.state_dict(), seed=list(KINDS).index(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the end of a schedule
        for number in range(COUNT):
            state, paths = mutants.next()
            error = pair.load(state)
            if error is None:
                pair.works()
                pair.renew()
            else:
                assert names(error, paths), (number, paths, error)
                pair.goes_on_as_its_twin()


UNFIT: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "int64": (lambda t: torch.ones_like(t, dtype=torch.int64), "dtype=torch.int64 must be a floating-point dtype"),
    "bool": (lambda t: torch.ones_like(t, dtype=torch.bool), "dtype=torch.bool must be a floating-point dtype"),
    "complex": (lambda t: torch.ones_like(t, dtype=torch.complex64), "dtype=torch.complex64 must be a floating-point"),
    "shape": (lambda t: torch.ones(7), r"shape=\(7,\) must be the parameter's"),
    "sparse": (lambda t: t.to_sparse(), "layout=torch.sparse_coo"),
    "meta": (lambda t: t.to("meta"), "device=meta"),
    "number": (lambda t: 3.0, "=3.0 must be a tensor"),
    "list": (lambda t: [t], " of type=list must be a tensor"),
}
HOLDERS = {"momentum_buffer": "plain", "average": "ema", "compensation": "kahan", "master_weight": "master weights"}


@pytest.mark.parametrize("unfit", UNFIT)
@pytest.mark.parametrize("name", HOLDERS)
def test_a_state_tensor_that_does_not_fit_is_named(name: str, unfit: str) -> None:
    spoil, text = UNFIT[unfit]
    pair = Pair(KINDS[HOLDERS[name]]())
    state = pair.twin.state_dict()
    entry = dict(state["state"][2])
    state["state"][2] = {**entry, name: spoil(entry[name].detach())}
    error = pair.load(state)
    assert re.fullmatch(f"parameter 1 of group 1, {name}.*{text}.*", str(error)), error
    pair.goes_on_as_its_twin()
