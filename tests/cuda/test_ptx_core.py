"""The formulas of core/ as nvcc compiles them equal the CPU's."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clr_native import CyclicSchedule, RampSchedule, evaluate
from core_samples import CORE, MODES, WINDOWS, kernel, pieces_of
from ptx import Memory, MemoryFaultError, RaceError, launch
from ptx.floats import fma_32, fma_64
from ptx.launch import Argument
from ptx.types import Array
from toolkit import compiled

STEPS = [*range(60), 997, 2**31, 2**32 + 5, 2**53 - 1, 2**53 + 1, 2**62 + 12345, 2**63 - 2]

ENDS = [(1e-5, 0.7), (0.7, 0.003)]


def scale_of(step: int) -> float:
    return 1.7 / (1 + step % 11)


def cycles() -> list[CyclicSchedule]:
    made = []
    for window in WINDOWS:
        for mode in MODES:
            for gamma, decay_base in ((0.97, False), (0.99999, True)):
                how: dict[str, Any] = {"mode": mode, "gamma": gamma, "decay_steps": 50}
                if mode == "scale_fn":
                    how = {"scale_fn": scale_of, "scale_mode": "iterations"}
                ends: dict[str, Any] = {"base_lr": 0.013, "max_lr": 0.7, "step_size_up": 7, "step_size_down": 5}
                made.append(CyclicSchedule(**ends, window=window, decay_base=decay_base, **how))
    return made


def values_on_device(pieces: Array, n_schedules: int) -> tuple[Array, Array]:
    memory = Memory()
    steps = np.array(STEPS, np.uint64)
    scales = np.array([scale_of(step) for step in STEPS])
    values = np.zeros((n_schedules, len(STEPS), 2))
    arrays = [memory.add(x, read_only=True) for x in (pieces, steps)]
    arguments = [*arrays, len(STEPS), memory.add(scales, read_only=True), memory.add(values)]
    launch(kernel("schedule_values"), (1, n_schedules), 96, arguments, memory, seed=1)
    return values[..., 0], values[..., 1]


def same_bits(a: Array, b: Array) -> bool:
    """All NaN alike."""
    return bool((np.where(a == a, a, np.nan).view(np.uint64) == np.where(b == b, b, np.nan).view(np.uint64)).all())


def test_cycles_of_all_windows_and_modes_have_the_bits_of_the_cpu() -> None:
    schedules = cycles()
    lr, momentum = values_on_device(pieces_of(schedules), len(schedules))
    want_lr, want_momentum = evaluate(schedules, STEPS)
    for i, schedule in enumerate(schedules):
        assert same_bits(lr[i], want_lr[i]), schedule
        assert same_bits(momentum[i], want_momentum[i]), schedule


def test_ramps_have_the_bits_of_the_cpu() -> None:
    ramps = [("linear", ends) for ends in ENDS] + [("exponential", ends) for ends in ENDS]
    schedules = [RampSchedule(*ends, 23, ramp=ramp) for ramp, ends in ramps]
    lr, _ = values_on_device(pieces_of(schedules), len(schedules))
    want, _ = evaluate(schedules, STEPS)
    assert same_bits(lr, want)


def coefficients(real: Any, **given: Any) -> bytes:
    """SgdCoefficients: minus_lr, momentum, one_minus_dampening, weight_decay, trust_ratio and four flags."""
    names = ["minus_lr", "momentum", "one_minus_dampening", "weight_decay", "trust_ratio"]
    flags = ["maximize", "nesterov", "has_buffer", "first"]
    dtype = np.dtype([(name, real) for name in names] + [(name, "?") for name in flags], align=True)
    row = np.zeros(1, dtype)
    values = {"minus_lr": -0.1, "momentum": 0.9, "one_minus_dampening": 0.7, "trust_ratio": 1.0, "has_buffer": True}
    for name, value in {**values, **given}.items():
        row[name] = value
    return row.tobytes()


@pytest.mark.parametrize(("real", "fma"), [(np.float32, fma_32), (np.float64, fma_64)])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"weight_decay": 0.01, "nesterov": True},
        {"maximize": True, "first": True},
        {"has_buffer": False, "weight_decay": 0.3},
        {"trust_ratio": 0.37, "weight_decay": 1e-4},
    ],
)
def test_update_is_the_formula_with_its_fused_products(real: Any, fma: Any, given: dict[str, Any]) -> None:
    g, p, m = np.random.default_rng(5).normal(size=(3, 1000)).astype(real)
    device = [g.copy(), p.copy(), m.copy()]
    memory = Memory()
    arguments: list[Argument] = [coefficients(real, **given), *map(memory.add, device), 1000]
    name = "update_float" if real is np.float32 else "update_double"
    statistics = launch(kernel(name), 3, 256, arguments, memory, blocks=[2, 0, 1])

    def all_(value: float) -> Array:
        return np.full(1, value, real)

    if given.get("maximize"):
        g = -g
    if "weight_decay" in given:
        g = fma(all_(given["weight_decay"]), p, g)
    if "trust_ratio" in given:
        g = all_(0.37) * g
    d = g
    if given.get("has_buffer", True):
        m = g if given.get("first") else fma(all_(0.7), g, all_(0.9) * m)
        d = fma(all_(0.9), m, g) if given.get("nesterov") else m
    p = fma(all_(-0.1), d, p)
    assert (device[1] == p).all()
    assert (device[2] == m).all()
    assert statistics.blocks == 3
    assert statistics.bytes_stored == 2 * p.nbytes
    assert statistics.instructions[f"st.global.{'f32' if real is np.float32 else 'f64'}"] == 2000


def mixed(x: int) -> int:
    """splitmix64's finaliser."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def mixed_32(x: int) -> int:
    x = (x ^ x >> 16) * 0x21F0AAAD % 2**32
    x = (x ^ x >> 15) * 0xD35A2D97 % 2**32
    return x ^ x >> 15


def test_random_numbers_count_past_32_bits() -> None:
    spread = 0x9E3779B97F4A7C15
    key = 0
    for i, part in enumerate((123, 2**40 + 1, 7)):
        key = mixed(((part + spread) if i == 0 else key + part + spread) % 2**64)
    memory = Memory()
    numbers = np.zeros(256, np.uint32)
    first = 2**32 - 100
    launch(kernel("random_numbers"), 2, 128, [123, 2**40 + 1, 7, first, memory.add(numbers)], memory)
    for i, number in enumerate(numbers.tolist()):
        element = first + i
        words = (key + (element >> 32) * spread) % 2**64
        assert number == mixed_32(mixed_32(element % 2**32 ^ words % 2**32) ^ words >> 32)


def square_sum(source: Path, x: Array, offset: int, target: str = "sm_80", **how: Any) -> Array:
    memory = Memory()
    place = memory.allocate(x.nbytes + 16, offset=offset)
    memory.write(place, x)
    blocks = 3
    ticket = np.zeros(1, np.uint32)
    parts, out = np.full((blocks, 2), np.nan), np.full((2, 2), np.nan)
    arguments = [place, len(x), memory.add(parts), memory.add(ticket), memory.add(out)]
    statistics = launch(compiled(source, target).kernels["square_sum"], blocks, 128, arguments, memory, **how)
    assert ticket[0] == 0
    assert statistics.barriers in (blocks, 2 * blocks)
    assert statistics.instructions["membar.gl"] >= blocks
    return out


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_75", "sm_90", "sm_120"])
def test_code_for_other_targets_gives_the_same(target: str) -> None:
    x = np.random.default_rng(1).normal(size=2001).astype(np.float32)
    assert square_sum(CORE, x, 0, target=target).tobytes() == square_sum(CORE, x, 0).tobytes()


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 1535, 1536, 2001])
def test_the_sum_of_squares_is_exact_in_any_order_of_blocks(n: int) -> None:
    x = np.random.default_rng(n).normal(size=n).astype(np.float32)
    first = square_sum(CORE, x, 0)
    exact = sum((Fraction(float(v)) ** 2 for v in x), Fraction(0))
    assert first[0, 0] == float(exact)
    assert abs(Fraction(first[0, 0]) + Fraction(first[0, 1]) - exact) <= exact / 2**90
    assert first[1, 0] == math.sqrt(first[0, 0]) or n == 0
    for seed, blocks in ((1, [2, 1, 0]), (2, [1, 2, 0]), (3, [0, 2, 1])):
        assert square_sum(CORE, x, 0, seed=seed, blocks=blocks).tobytes() == first.tobytes()


def test_a_missing_barrier_is_a_race(tmp_path: Path) -> None:
    planted = tmp_path / "planted.cu"
    planted.write_text(f'#define PLANTED_NO_BARRIER\n#include "{CORE}"\n')
    x = np.ones(500, np.float32)
    with pytest.raises(RaceError, match=r"warp 0 .* no barrier between .*ld\.shared.*block"):
        square_sum(planted, x, 0)
    with pytest.raises((RaceError, MemoryFaultError)):
        square_sum(planted, x, 0, seed=0)


def test_a_misaligned_vector_is_an_error() -> None:
    x = np.ones(500, np.float32)
    with pytest.raises(MemoryFaultError, match=r"16 bytes: misaligned, thread 0 .*ld\.global\.v4\.f32"):
        square_sum(CORE, x, 4)
