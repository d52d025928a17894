"""The step kernel, as nvcc compiles it, gives the bits of the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from device_step import CHUNK, DeviceStep, bits
from helpers import give, gradient_sets, parameters
from planted import Fault, all_planted, planted
from ptx import Statistics
from ptx.errors import PtxError
from toolkit import SAMPLES, SOURCES

SIZES: list[int | tuple[int, ...]] = [0, 1, 3, 8, (5, 7), 700, CHUNK + 21]
CASES: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {"weight_decay": 1e-2}),
    "float32 nesterov": (torch.float32, {"nesterov": True, "weight_decay": 1e-2, "lr_scale": 0.3}),
    "float32 maximize": (torch.float32, {"maximize": True, "dampening": 0.25}),
    "float32 ema": (torch.float32, {"ema_decay": 0.75, "ema_warmup": True}),
    "float32 bfloat16 momentum": (torch.float32, {"momentum_dtype": "bfloat16", "ema_decay": 0.25}),
    "float64": (torch.float64, {"nesterov": True, "ema_decay": 0.9}),
    "bfloat16": (torch.bfloat16, {"weight_decay": 1e-2, "ema_decay": 0.5}),
    "bfloat16 float32 momentum": (torch.bfloat16, {"momentum_dtype": "float32"}),
    "bfloat16 stochastic": (torch.bfloat16, {"rounding": "stochastic", "seed": 5, "ema_decay": 0.5}),
    "bfloat16 kahan": (torch.bfloat16, {"kahan": True, "ema_decay": 0.5}),
    "bfloat16 master": (torch.bfloat16, {"master_weights": True, "ema_decay": 0.5}),
    "float16": (torch.float16, {"nesterov": True}),
    "float16 stochastic": (torch.float16, {"rounding": "stochastic", "momentum_dtype": "float32"}),
    "float16 kahan": (torch.float16, {"kahan": True}),
    "float16 master": (torch.float16, {"master_weights": True, "momentum_dtype": "float16"}),
}


def made(dtype: torch.dtype, small: int = 0, **settings: Any) -> tuple[FusedCyclicSGD, list[Tensor]]:
    """Over SIZES, and so many small tensors."""
    over = parameters(SIZES + [5] * small, dtype)
    groups: list[dict[str, Any]] = [{"params": over[:4]}, {"params": over[4:], "max_lr": 0.3, "step_size_up": 2}]
    return FusedCyclicSGD(groups, 0.01, 0.1, step_size_up=3, mode="exp_range", gamma=0.9, **settings), over


def assert_same(optimizer: FusedCyclicSGD, over: list[Tensor], device: DeviceStep) -> None:
    for i, parameter in enumerate(over):
        held = {"parameter": parameter, **optimizer.state[parameter]}
        for name, tensor in held.items():
            on_device = device.bits(i, {"master_weight": "compensation"}.get(name, name))
            assert np.array_equal(on_device, bits(tensor)), f"{name} of parameter {i}"


def assert_same_position(optimizer: FusedCyclicSGD, device: DeviceStep) -> None:
    for g, group in enumerate(optimizer.param_groups):
        counts, values = device.counts(g)
        lr, momentum = values  # lr as the schedule has it
        assert (group["lr_scale"] * lr, momentum) == (group["lr"], group["momentum"])
        assert counts["step"] == group["applied_steps"]
        assert counts["n_averaged"] == group["n_averaged"]
        assert counts["ticket"] == 0


def run(optimizer: FusedCyclicSGD, over: list[Tensor], device: DeviceStep, steps: int, **how: Any) -> None:
    sets = gradient_sets(over, steps)
    for gradients in sets:
        give(over, gradients)
        optimizer.step()
        device.step(gradients, **how)


@pytest.mark.parametrize("offset", [0, 8])
@pytest.mark.parametrize(("dtype", "settings"), CASES.values(), ids=CASES)
def test_training_has_the_bits_of_the_cpu(dtype: torch.dtype, settings: dict[str, Any], offset: int) -> None:
    optimizer, over = made(dtype, **settings)
    device = DeviceStep(optimizer, offset)
    run(optimizer, over, device, 3, grid=3, order=[2, 0, 1], resident=2)
    assert_same(optimizer, over, device)
    assert_same_position(optimizer, device)


WIDE_AND_HALF = ((torch.float64, torch.float32), (torch.float64, torch.float16), (torch.float32, torch.bfloat16))
HALF = ((torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.bfloat16, torch.float16))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "gradient"), WIDE_AND_HALF + HALF)
def test_gradients_of_another_dtype(dtype: torch.dtype, gradient: torch.dtype) -> None:
    optimizer, over = made(dtype, ema_decay=0.5, max_grad_norm=0.5)
    for p in over:
        p.grad_dtype = gradient
    device = DeviceStep(optimizer, 8)
    device.set_rules(measured=True, max_norm=0.5)
    for gradients in gradient_sets(over, 2):
        cast = [g.to(gradient) for g in gradients]
        give(over, cast)
        optimizer.step()
        device.measure(cast)
        assert device.found().norm == optimizer.last_grad_norm
        device.step(cast)
    assert_same(optimizer, over, device)


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5}], ids=["plain", "any"])
@pytest.mark.parametrize(
    ("grid", "order", "resident", "seed"), [(1, None, 1, 3), (4, [3, 2, 1, 0], 3, None), (7, None, 2, 9)]
)
def test_blocks_and_warps_in_any_order(
    grid: int, order: list[int] | None, resident: int, seed: int | None, settings: dict[str, Any]
) -> None:
    optimizer, over = made(torch.float32, **settings)
    device = DeviceStep(optimizer, 4)
    run(optimizer, over, device, 2, grid=grid, order=order, resident=resident, seed=seed)
    assert_same(optimizer, over, device)
    assert_same_position(optimizer, device)


@pytest.mark.parametrize("found_inf", [1.0, 2.0, math.nan])
@pytest.mark.parametrize("advance", [False, True])
@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5}], ids=["plain", "any"])
def test_a_skipped_step(found_inf: float, advance: bool, settings: dict[str, Any]) -> None:
    optimizer, over = made(torch.float32, advance_on_skip=advance, **settings)
    device = DeviceStep(optimizer)
    device.set_rules(advances_on_skip=advance)
    for gradients, found in zip(gradient_sets(over, 3), (found_inf, 0.0, found_inf), strict=True):
        give(over, gradients)
        scale = 3.0 if settings else 1.0
        vars(optimizer).update(grad_scale=scale, found_inf=found)
        optimizer.step()
        device.step(gradients, grad_scale=scale if settings else None, found_inf=found)
    assert_same(optimizer, over, device)
    assert_same_position(optimizer, device)
    assert (device.counts()[0]["applied"], device.counts()[0]["skipped"]) == (1, 2)
    assert device.counts()[0]["skipped_steps"] == optimizer.skipped_steps == 2


@pytest.mark.parametrize("lr", [0.25, 0.0])
def test_an_override_waits_for_the_update_that_it_was_meant_for(lr: float) -> None:
    optimizer, over = made(torch.bfloat16, rounding="stochastic", ema_decay=0.5)
    device = DeviceStep(optimizer)
    for step, gradients in enumerate(gradient_sets(over, 4)):
        if step in (0, 1):
            optimizer.param_groups[0].update(lr=lr, momentum=0.25)
            device.override_next(lr, 0.25)
        found = float(step == 1)
        give(over, gradients)
        vars(optimizer).update(grad_scale=2.0, found_inf=found)
        optimizer.step()
        device.step(gradients, grad_scale=2.0, found_inf=found)
    assert_same(optimizer, over, device)
    assert_same_position(optimizer, device)


@pytest.mark.parametrize("rules", [{"max_grad_norm": 0.5}, {"max_grad_value": 0.25}])
def test_clipped_gradients(rules: dict[str, Any]) -> None:
    optimizer, over = made(torch.float32, **rules)
    device = DeviceStep(optimizer)
    for gradients in gradient_sets(over, 2):
        give(over, gradients)
        vars(optimizer).update(grad_scale=3.0, found_inf=0.0)
        optimizer.step()
        limit = rules.get("max_grad_value", 0.0)
        device.set_rules(clip_coefficient=optimizer._binding.native.clip_coefficient, limit=limit)
        device.step(gradients, grad_scale=3.0, found_inf=0.0)
    assert_same(optimizer, over, device)


def cost(dtype: torch.dtype, size: int, **settings: Any) -> Statistics:
    """Of the second step over one tensor of less than a chunk."""
    (over,) = parameters([size], dtype)
    device = DeviceStep(FusedCyclicSGD([over], 0.01, 0.1, **settings))
    for gradients in gradient_sets([over], 2):
        statistics = device.step(gradients, grid=1)
    return statistics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 9), (torch.float64, 10), (torch.bfloat16, 27), (torch.float16, 17)], ids=str
)
def test_how_many_instructions_a_plain_update_takes(dtype: torch.dtype, most: int) -> None:
    """For an element, with momentum and weight decay; what a launch takes once is subtracted."""
    few, many = (cost(dtype, size, weight_decay=1e-2) for size in (8192, 16384))
    assert (many.instructions - few.instructions).total() <= 8192 * most


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "settings", "read", "written"),
    [
        (torch.float32, {"nesterov": True, "weight_decay": 0.5}, 12, 8),
        (torch.float32, {"ema_decay": 0.5}, 16, 12),
        (torch.float32, {"momentum_dtype": "bfloat16"}, 10, 6),
        (torch.bfloat16, {}, 6, 4),
        (torch.bfloat16, {"rounding": "stochastic", "ema_decay": 0.5}, 10, 6),  # the average reads what was rounded
        (torch.float16, {"kahan": True}, 8, 6),
        (torch.float64, {}, 24, 16),
    ],
)
def test_what_an_element_costs(dtype: torch.dtype, settings: dict[str, Any], read: int, written: int) -> None:
    """Each array is read and written once, and only elements of float64 are computed with in double."""
    few, many = (cost(dtype, size, **settings) for size in (4096, 12288))
    assert many.bytes_loaded - few.bytes_loaded == 8192 * read
    assert many.bytes_stored - few.bytes_stored == 8192 * written
    double = [{code: n for code, n in each.instructions.items() if ".f64" in code} for each in (few, many)]
    assert (double[0] == double[1]) == (dtype != torch.float64)


KERNEL = SAMPLES / "step_float32.cu"
RUN, LOOP, UNITS, TURNS, VALUES = (
    SOURCES / "cuda" / name
    for name in ("step.inl", "update_cuda.h", "work_units.h", "progress_turns.h", "table_values.h")
)
PROGRESS = SOURCES / "core" / "progress.h"
ALONE = "(unit - work.shared_count) * (threads / kWarp)"
FAULTS: dict[str, Fault] = {
    "a tail that is too short": (LOOP, "if (last + rank < count)", "if (last + rank + 1 < count)"),
    "a head that is too short": (LOOP, "if (rank < first)", "if (rank + 1 < first)"),
    "a pack that goes too far": (LOOP, "count - (count - first) % width", "count"),
    "a chunk past the end": (VALUES, "end < slot.size ? end : slot.size", "end"),
    "a missing barrier": (UNITS, "    __threadfence();\n  }\n  __syncthreads();", "    __threadfence();\n  }"),
    "a unit drawn before it is there": (
        UNITS,
        "    __syncthreads();\n    unit = drawn[turn];",
        "    unit = drawn[turn];",
    ),
    "a unit that two blocks have": (UNITS, "gridDim.x + atomicAdd(", "gridDim.x - 1 + atomicAdd("),
    "a counter that stays": (RUN, "state.next_unit = 0;", ""),
    "small chunks that are left out": (RUN, ALONE, "(unit - work.shared_count)"),
    "a ticket that stays": (RUN, "state.ticket = 0;", ""),
    "a dropped store": (LOOP, "    m[j].write(work.buffer + first + j * stride);\n", ""),
    "a step that does not advance": (PROGRESS, "progress.step += is_overridden(settings, progress) ? 0 : 1;", ""),
    "progress that is never in force": (RUN, "state.turn ^= 1;", ""),
    "progress formed in the wrong place": (TURNS, "state.turn == 0 ? state.group_count : 0", "0"),
    "an average that is not counted": (PROGRESS, "averages_next(settings, ends_cycle) ? 1 : 0", "0"),
    "an override that stays": (PROGRESS, "progress.last_override = settings.override_number;", "{}"),
    "a buffer that stays empty": (RUN, "state.buffer_holds[slot.random_key] = true;", ";"),
}


@pytest.fixture(scope="module", autouse=True)
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Path]]]:
    with all_planted(tmp_path_factory.mktemp("faults"), KERNEL, FAULTS) as compiling:
        yield compiling


def trained(settings: dict[str, Any], source: Path | None, **how: Any) -> None:
    optimizer, over = made(torch.float32, 20, **settings)
    device = DeviceStep(optimizer, 4, source)
    for seed in range(3):
        if seed == 1:
            optimizer.param_groups[0].update(lr=0.25, momentum=0.25)
            device.override_next(0.25, 0.25)
        run(optimizer, over, device, 1, seed=seed, **how)
        assert_same(optimizer, over, device)
        assert_same_position(optimizer, device)


KINDS: list[dict[str, Any]] = [{}, {"ema_decay": 0.5}]  # the plain kernel, and the other


@pytest.mark.slow
@pytest.mark.parametrize("settings", KINDS)
def test_without_a_fault_none_is_found(settings: dict[str, Any]) -> None:
    trained(settings, KERNEL, resident=2, grid=2)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, sources: dict[str, Future[Path]]) -> None:
    source = sources[fault].result()

    def train() -> None:
        for settings in KINDS:
            trained(settings, source, resident=2, grid=2)

    with pytest.raises((AssertionError, PtxError)):
        train()


def huge(source: Path | None) -> tuple[float, float]:
    """The first and the last weight of a tensor of 2**31 + 5 elements, after a step over its first and last chunk."""
    optimizer = FusedCyclicSGD([torch.zeros(1, requires_grad=True)], 0.5, 0.5, cycle_momentum=False, momentum=0.0)
    size = 2**31 + 5
    device = DeviceStep(optimizer, source=source)
    arrays = [device.memory.allocate_sparse(4 * size) for _ in range(2)]
    for address, value in zip(arrays, (3.0, 1.0), strict=True):
        for element in (0, size - 1):
            device.memory.write(address + 4 * element, np.array([value], np.float32))
    device.make_huge(arrays[0], arrays[1], size, [0, size // CHUNK])
    device.step([torch.zeros(1)], grid=2)
    first, last = (device.memory.read(arrays[0] + 4 * i, np.float32, 1)[0] for i in (0, size - 1))
    return float(first), float(last)


@pytest.mark.slow
def test_past_two_to_the_31_elements() -> None:
    assert huge(None) == (2.5, 2.5)


@pytest.mark.slow
def test_an_index_of_32_bits_is_caught(tmp_path: Path) -> None:
    wrong = "return static_cast<int32_t>(chunk.part * static_cast<uint32_t>(kDeviceChunk));"
    source = planted(tmp_path, KERNEL, VALUES, "return chunk.part * kDeviceChunk;", wrong)
    with pytest.raises(PtxError):
        huge(source)
