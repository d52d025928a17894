from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from clr_native.schedules import Schedule as _PythonSchedule

_FloatArray: TypeAlias = npt.NDArray[np.float64]
_Scales: TypeAlias = list[_FloatArray | None]

__version__: str

def build_info() -> dict[str, Any]: ...

class Policy:
    @staticmethod
    def cycles(
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
    ) -> Policy: ...
    @staticmethod
    def ramp(
        *,
        curve: str,
        base_lr: float,
        max_lr: float,
        lead: tuple[float, float],
        length: tuple[float, float],
        base_momentum: float | None,
        max_momentum: float | None,
        window: str,
    ) -> Policy: ...

class Schedule:
    def __init__(
        self, pieces: list[tuple[int, int, Policy]], spans: list[tuple[int, int, bool, int]], end: int
    ) -> None: ...
    def value(self, step: int, scale_fns: tuple[Callable[[int], float] | None, ...]) -> tuple[float, float, bool]: ...
    def cycle_position(self, step: int) -> tuple[int, bool]: ...
    @property
    def is_constant(self) -> bool: ...

def fill_range(
    schedules: list[Schedule], first: int, scales: _Scales, lr: _FloatArray, momentum: _FloatArray
) -> tuple[int, int] | None: ...
def fill_steps(
    schedules: list[Schedule], steps: npt.NDArray[np.int64], scales: _Scales, lr: _FloatArray, momentum: _FloatArray
) -> tuple[int, int] | None: ...

class GroupWriter:
    def __init__(
        self,
        schedules: list[Schedule],
        scale_fns: list[tuple[Callable[[int], float] | None, ...]],
        momentum_keys: list[str | None],
    ) -> None: ...
    def write(self, groups: list[dict[str, Any]], step: int) -> bool: ...
    def seek(self, step: int) -> None: ...
    def last_lr(self) -> list[float]: ...
    def last_momentum(self) -> list[float | None]: ...

STATE_TENSORS: tuple[str, str, str, str]
WINDOWS: tuple[str, str, str]

def state_dtypes(group: dict[str, Any], parameter_dtype: str) -> dict[str, str]: ...
def is_on_gpu(tensor: object) -> bool: ...
def is_readable(tensor: torch.Tensor) -> bool: ...

class AveragesInPlace:
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...
    def refuse_inside(self, what: str) -> None: ...

class BoundGroups:
    def __init__(self, groups: list[dict[str, Any]], schedules: list[_PythonSchedule], obeyed: list[bool]) -> None: ...

class NativeOptimizer:
    def __init__(
        self,
        read_schedule: Callable[[dict[str, Any], _PythonSchedule | None], _PythonSchedule],
        averaged_entries: Callable[[], list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]],
        sharding: object,
    ) -> None: ...
    def refresh_sharding(self) -> None: ...
    @property
    def averages(self) -> AveragesInPlace: ...
    def append(self, group: dict[str, Any], schedule: _PythonSchedule, is_obeyed: bool) -> None: ...
    def adopt(self, groups: BoundGroups) -> None: ...
    def schedule_of(self, group: dict[str, Any]) -> _PythonSchedule: ...
    def last_used(self, group: dict[str, Any]) -> tuple[float | None, float | None]: ...
    def standing(self, group: dict[str, Any], index: int) -> tuple[_PythonSchedule, bool, Any, Any]: ...
    def set_options(
        self,
        *,
        max_norm: float,
        max_value: float,
        error_if_nonfinite: bool,
        skip_nonfinite: bool,
        advance_on_skip: bool,
        write_unscaled: bool,
    ) -> None: ...
    def apply(
        self,
        groups: list[dict[str, Any]],
        state: dict[torch.Tensor, Any],
        attributes: dict[str, Any],
    ) -> None: ...
    def release(
        self,
        groups: list[dict[str, Any]],
        state: dict[torch.Tensor, Any],
        parameter: torch.Tensor,
        position: int,
    ) -> None: ...
    def check_release(self, groups: list[dict[str, Any]]) -> None: ...
    def synchronise(self, state: dict[torch.Tensor, Any]) -> None: ...
    def followed_schedule(self, group: dict[str, Any]) -> bool: ...
    def set_warns(self, warns: bool) -> None: ...
    @property
    def found_gradient(self) -> bool: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def was_skipped(self) -> bool: ...
    @property
    def gradient_norm(self) -> float | None: ...
    @property
    def clip_coefficient(self) -> float: ...
