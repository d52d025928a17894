"""What torch.distributed.checkpoint's helpers save of an optimizer, and put into another."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from torch import nn
from torch.optim import Optimizer

# torch's own deprecations, of itself by itself.
QUIET = pytest.mark.filterwarnings("ignore::FutureWarning:torch.distributed")


def _helpers() -> Any:
    return pytest.importorskip(
        "torch.distributed.checkpoint.state_dict", reason="this torch was built without torch.distributed"
    )


def _options(flat: bool) -> Any:
    return _helpers().StateDictOptions(flatten_optimizer_state_dict=flat)


def asked(model: nn.Module, optimizer: Optimizer, *, flat: bool) -> Any:
    """Returns a copy of the state. Asks a fresh optimizer for it by a step."""
    return copy.deepcopy(_helpers().get_optimizer_state_dict(model, optimizer, options=_options(flat)))


def put(model: nn.Module, optimizer: Optimizer, saved: Any, *, flat: bool) -> None:
    _helpers().set_optimizer_state_dict(model, optimizer, saved, options=_options(flat))
