"""PTX's types as numpy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Index = slice | Array  # the threads of a block that execute an instruction: all, or some by number
Source = Callable[[Index], Array]
Sink = Callable[[Index, Array], None]
Run = Callable[[Index], None]

WARP = 32

# bfloat16, which numpy lacks, stands as its bits.
DTYPES: dict[str, np.dtype[Any]] = {
    **{f"u{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"b{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    "f16": np.dtype("f2"),
    "f32": np.dtype("f4"),
    "f64": np.dtype("f8"),
    "bf16": np.dtype("u2"),
    "f16x2": np.dtype("u4"),
    "bf16x2": np.dtype("u4"),
    "pred": np.dtype("?"),
}


def unsigned(size: int) -> np.dtype[Any]:
    """The unsigned integers of `size` bytes."""
    return np.dtype(f"u{size}")
