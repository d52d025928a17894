from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

_FloatArray: TypeAlias = npt.NDArray[np.float64]
_Scales: TypeAlias = list[_FloatArray | None]

def build_info() -> dict[str, Any]: ...

class Policy:
    def __init__(
        self,
        *,
        up: int,
        down: int,
        base_lr: float,
        max_lr: float,
        base_momentum: float | None,
        max_momentum: float | None,
        window: str,
        mode: str,
        gamma: float,
        decay_steps: int,
        decay_base: bool,
        scale_by_cycle: bool,
    ) -> None: ...
    def value(self, step: int, scale_fn: Callable[[int], float] | None = None) -> tuple[float, float]: ...
    def scale_argument(self, step: int) -> int: ...

def fill_range(
    policies: list[Policy], first: int, scales: _Scales, lr: _FloatArray, momentum: _FloatArray
) -> tuple[int, int] | None: ...
def fill_steps(
    policies: list[Policy], steps: npt.NDArray[np.int64], scales: _Scales, lr: _FloatArray, momentum: _FloatArray
) -> tuple[int, int] | None: ...

class Step:
    def __init__(self) -> None: ...
    def bind(
        self, index: int, group: dict[str, Any], policy: Policy, scale_fn: Callable[[int], float] | None
    ) -> None: ...
    def write_schedule(self, group: dict[str, Any]) -> None: ...
    def is_bound(self, index: int, group: dict[str, Any]) -> bool: ...
    def apply(self, groups: list[dict[str, Any]], state: dict[torch.Tensor, Any]) -> bool: ...
    def followed_schedule(self, group: dict[str, Any]) -> bool: ...
