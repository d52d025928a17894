"""The measuring kernel, as nvcc compiles it, finds what the CPU finds, to the bit; and what the step makes of that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from device_step import CHUNK, DTYPES, NORM, DeviceStep, Found
from helpers import give, gradient_sets, parameters
from planted import Fault, all_planted, planted
from ptx import Statistics
from ptx.errors import PtxError
from test_step_kernel import UNITS, VALUES, assert_same, assert_same_position

# No, one and several chunks, and more tensors than there are sums of chunks.
SIZES: list[int | tuple[int, ...]] = [*range(36), (5, 7), 700, CHUNK - 1, CHUNK, 2 * CHUNK + 21]
FEW: list[int | tuple[int, ...]] = [0, 1, (5, 7), 3, (700, 1), (25, 660), 17]
BARE = 3  # the tensor that has no gradient, where one has none


def optimizer_over(over: list[Tensor], **settings: Any) -> FusedCyclicSGD:
    groups: list[dict[str, Any]] = [{"params": over[:4]}, {"params": over[4:], "weight_decay": 0.25}]
    return FusedCyclicSGD(groups, 0.01, 0.1, step_size_up=3, **settings)


def rules_of(optimizer: FusedCyclicSGD) -> dict[str, Any]:
    return {
        "max_norm": optimizer.max_grad_norm or 0.0,
        "limit": optimizer.max_grad_value or 0.0,
        "trusts": any(group["trust_coefficient"] for group in optimizer.param_groups),
        "skips_nonfinite": optimizer.skip_nonfinite,
        "measured": True,
    }


class Both:
    """An optimizer on the CPU, and its tables on the device."""

    def __init__(
        self, over: list[Tensor], offset: int = 0, source: Path | None = None, bare: bool = False, **settings: Any
    ) -> None:
        self.over = over
        self.optimizer = optimizer_over(over, **settings)
        self.device = DeviceStep(self.optimizer, offset, source, (BARE,) if bare else ())
        self.bare = bare
        self.device.set_rules(**rules_of(self.optimizer))

    def step(self, gradients: Sequence[Tensor], grad_scale: float | None = None, **how: Any) -> Found:
        """On the CPU, and measured on the device."""
        given = [None if self.bare and i == BARE else gradient for i, gradient in enumerate(gradients)]
        give(self.over, given)
        if grad_scale is not None:
            vars(self.optimizer).update(grad_scale=grad_scale, found_inf=0.0)
        self.optimizer.step()
        self.device.measure(given, grad_scale=grad_scale, **how)
        return self.device.found()

    def assert_same_measures(self, found: Found) -> None:
        theirs = self.optimizer.last_grad_norm, self.optimizer._binding.native.clip_coefficient
        assert theirs[0] is not None
        # Through repr: NaN is NaN.
        assert (repr(found.norm), repr(found.clip_coefficient)) == (repr(theirs[0]), repr(theirs[1]))


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norm_and_coefficient(dtype: torch.dtype, offset: int) -> None:
    over = parameters(SIZES, dtype)
    both = Both(over, offset, bare=True, max_grad_norm=0.5)
    (gradients,) = gradient_sets(over, 1)
    found = both.step(gradients, order=[2, 0, 1])
    both.assert_same_measures(found)
    assert found.finite
    assert 0.0 < found.clip_coefficient < 1.0
    both.device.measure(gradients, grid=1)
    assert both.device.found() == found, "the ticket of the last launch"


def test_all_dtypes_at_once() -> None:
    over = [p for dtype in DTYPES for p in parameters([1, (3, 11), 40], dtype)]
    both = Both(over, max_grad_norm=0.5, trust_coefficient=0.01)
    (gradients,) = gradient_sets(over, 1)
    both.assert_same_measures(both.step(gradients, grid=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grid", "order", "seed"), [(1, None, 3), (4, [3, 2, 1, 0], None), (7, None, 9), (40, None, None)]
)
def test_blocks_and_warps_in_any_order(grid: int, order: list[int] | None, seed: int | None) -> None:
    over = parameters(FEW)
    both = Both(over, 4, max_grad_norm=0.5, trust_coefficient=0.01)
    (gradients,) = gradient_sets(over, 1)
    found = both.step(gradients, grid=grid, order=order, seed=seed)
    both.assert_same_measures(found)
    both.device.measure(gradients, grid=2)
    assert both.device.found() == found


@pytest.mark.parametrize("scale", [65536.0, 3.0, 2.0**-20])
def test_the_scale_of_the_loss(scale: float) -> None:
    over = parameters(FEW)
    both = Both(over, max_grad_norm=0.5)
    (gradients,) = gradient_sets(over, 1)
    both.assert_same_measures(both.step([gradient * scale for gradient in gradients], grad_scale=scale))


LARGEST = {torch.float32: 3e38, torch.float64: 1.5e308, torch.bfloat16: 3e38, torch.float16: 65504.0}


@pytest.mark.parametrize("rules", [{"max_grad_norm": 0.5}, {}, {"max_grad_value": 0.1, "trust_coefficient": 0.5}])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_infinities_nans_and_the_largest_numbers(dtype: torch.dtype, rules: dict[str, Any]) -> None:
    over = parameters([1, (2, 150)], dtype)
    both = Both(over, skip_nonfinite=True, **rules)
    (gradients,) = gradient_sets(over, 1)
    for i, value in enumerate((math.inf, LARGEST[dtype], math.nan, -math.inf, -LARGEST[dtype])):
        for at in ((0, 255), (17, 299))[i % 2]:
            spoilt = [gradients[0], gradients[1].clone()]
            spoilt[1].view(-1)[at] = value
            found = both.step(spoilt, grid=1)
            assert found.finite == math.isfinite(value)
            assert both.optimizer.last_step_skipped == (not found.finite)
            if rules:
                both.assert_same_measures(found)
            else:
                assert found.clip_coefficient == 1.0


def test_squares_that_no_double_holds() -> None:
    over = parameters([(40, 3)], torch.float64)
    found = Both(over, max_grad_norm=0.5).step([torch.full((40, 3), 1e200, dtype=torch.float64)])
    assert found == Found(math.inf, 0.0, True, [1.0])


def test_nothing_to_measure() -> None:
    for over in (parameters([0]), parameters([0, 1, 2, 3])[:1]):
        assert Both(over, max_grad_norm=0.5).step([torch.zeros(0)]) == Found(0.0, 1.0, True, [1.0])


def test_nothing_but_its_findings_is_written() -> None:
    over = parameters(FEW)
    device = Both(over, max_grad_norm=0.5, trust_coefficient=0.01, ema_decay=0.5).device

    def picture() -> list[bytes]:
        places = [(device.state, device.sizes["state"] - 48)]  # behind that: norm, coefficient, finite and counters
        places += [(device.settings, 2 * device.sizes["settings"]), (device.progress, 4 * device.sizes["progress"])]
        places += [(place.address, place.size) for tensors in device.places for place in tensors.values() if place.size]
        return [device.memory.read(address, np.uint8, size).tobytes() for address, size in places]

    (gradients,) = gradient_sets(over, 1)
    device.measure(gradients)
    before = picture()
    device.measure(gradients, grad_scale=2.0)
    assert picture() == before


# --- the order of sums --------------------------------------------------------------------------------------


def tie(count: int, seed: int) -> Tensor:
    """Numbers of many sizes whose norm lies, but for 2**-200 of it, between two doubles: the sum's last bit decides."""
    random = np.random.default_rng(seed)
    numbers = np.ldexp(random.standard_normal(count - 4) + 0.1, random.integers(-20, 20, count - 4)).tolist()
    total = sum(Fraction(x) ** 2 for x in numbers)
    below = math.sqrt(total) * 1.0001
    left = ((Fraction(below) + Fraction(math.nextafter(below, math.inf))) / 2) ** 2 - total
    for _ in range(4):
        root = math.isqrt(int(left * 2**1000))
        spare = max(root.bit_length() - 53, 0)
        numbers.append(math.ldexp(root >> spare, spare - 500))
        left -= Fraction(numbers[-1]) ** 2
    return torch.from_numpy(random.permutation(np.array(numbers)))


def over_runs(numbers: Tensor, seed: int) -> Tensor:
    """The numbers in a chunk of zeros, all in the first sum of some run."""
    whole = torch.zeros(CHUNK, dtype=numbers.dtype)
    whole[16 * np.random.default_rng(seed).permutation(CHUNK // 16)[: numbers.numel()]] = numbers
    return whole


def assert_ties_are_broken_alike(source: Path | None) -> None:
    """In the sums of one run, over runs, over chunks, and in a chunk without zeros."""
    each: list[list[Tensor]] = [[tie(CHUNK, 0)]]
    for seed in range(20):
        numbers = tie(50, seed)
        each += [[numbers], [over_runs(numbers, seed)], *[list(torch.split(numbers, 1))][seed // 4 :]]
    for gradients in each:
        both = Both([torch.zeros_like(g).requires_grad_() for g in gradients], 0, source, max_grad_norm=1.0)
        both.assert_same_measures(both.step(gradients, grid=1))


def test_the_order_of_sums() -> None:
    assert_ties_are_broken_alike(None)


# --- what the step makes of it ------------------------------------------------------------------------------

TRAINING: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "clipped": (torch.float32, {"max_grad_norm": 0.5}),
    "clipped float64, momentum": (torch.float64, {"max_grad_norm": 0.5, "nesterov": True}),
    "clipped float16": (torch.float16, {"max_grad_norm": 0.5, "ema_decay": 0.5}),
    "skipped": (torch.float32, {"skip_nonfinite": True}),
    "skipped, values clipped": (torch.bfloat16, {"skip_nonfinite": True, "max_grad_value": 0.05}),
    "LARS": (torch.float32, {"trust_coefficient": 0.02, "weight_decay": 0.1}),
    "LARS, clipped float64": (torch.float64, {"trust_coefficient": 0.02, "max_grad_norm": 0.5}),
    "LARS, values clipped": (torch.float32, {"trust_coefficient": 0.02, "max_grad_value": 0.05}),
    "LARS, values clipped, bfloat16": (torch.bfloat16, {"trust_coefficient": 0.02, "max_grad_value": 0.05}),
    "LARS float16 master": (torch.float16, {"trust_coefficient": 0.02, "master_weights": True, "skip_nonfinite": True}),
    "LARS bfloat16 kahan": (torch.bfloat16, {"trust_coefficient": 0.02, "kahan": True, "trust_min_ndim": 1}),
}


def train(both: Both, steps: int, **how: Any) -> None:
    """Gradients of the second step hold an infinity, where that is to be skipped."""
    for step, gradients in enumerate(gradient_sets(both.over, steps)):
        if step == 1 and both.optimizer.skip_nonfinite:
            gradients[-1].view(-1)[3] = math.inf
        scale = (None, 4.0, 3.0)[step % 3]
        both.step(gradients, scale, **how)
        both.device.step([None if both.bare and i == BARE else g for i, g in enumerate(gradients)], grad_scale=scale)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "settings"), TRAINING.values(), ids=TRAINING)
def test_training_has_the_bits_of_the_cpu(dtype: torch.dtype, settings: dict[str, Any]) -> None:
    over = parameters(FEW, dtype)
    both = Both(over, **settings)
    train(both, 3)
    assert_same(both.optimizer, over, both.device)
    assert_same_position(both.optimizer, both.device)
    assert both.optimizer.skipped_steps == both.optimizer.skip_nonfinite


# --- what it costs ------------------------------------------------------------------------------------------


def cost(dtype: torch.dtype, size: int, **settings: Any) -> Statistics:
    over = parameters([(size, 1)], dtype)
    (gradients,) = gradient_sets(over, 1)
    return Both(over, **settings).device.measure(gradients, grid=1)


@pytest.mark.parametrize(
    ("dtype", "settings", "read", "double"),
    [
        (torch.float32, {"max_grad_norm": 0.5}, 4, 8),
        (torch.bfloat16, {"max_grad_norm": 0.5}, 2, 8),
        (torch.float16, {"trust_coefficient": 0.5, "master_weights": True}, 6, 16),
        (torch.float32, {"skip_nonfinite": True}, 4, 0),
        (torch.float16, {"skip_nonfinite": True}, 2, 0),
        (torch.float64, {"skip_nonfinite": True}, 8, 1),
    ],
)
def test_what_an_element_costs(dtype: torch.dtype, settings: dict[str, Any], read: int, double: int) -> None:
    """It is read once. Its square, the sum and what is rounded off take eight operations in double (a sign is none)."""
    few, many = (cost(dtype, size, **settings) for size in (4096, 12288))
    assert many.bytes_loaded - few.bytes_loaded == 8192 * read
    assert many.bytes_stored == few.bytes_stored
    more = many.instructions - few.instructions
    computed = sum(
        n for code, n in more.items() if ".f64" in code and not code.startswith(("ld", "mov", "neg", "setp"))
    )
    assert computed == 8192 * double


# --- faults -------------------------------------------------------------------------------------------------

FOLDS = "for (int half = width / 2; half > 0; half /= 2)"
JOINS = "joined = grown(joined, sums.squares[threadIdx.x + run * kNormSums]);"
FAULTS: dict[str, Fault] = {
    "another order of sums": (NORM, FOLDS, "for (int half = 1; half < width; half *= 2)"),
    "another order of runs": (NORM, JOINS, JOINS.replace("run * ", "(kCrew / kNormSums - run) * ")),
    "a run that is left out": (
        NORM,
        "for (int run = 1; run < kCrew / kNormSums; ++run)",
        "for (int run = 1; run < 2; ++run)",
    ),
    "another order of parts": (NORM, "for (; half >= kWarp; half /= 2)", "for (half = 256; half > kWarp; half /= 2)"),
    "a dropped tail": (NORM, "for (; i < count; i += kNormSums)", "for (; i + 1 < count; i += kNormSums)"),
    "elements added twice": (NORM, "i += kAtOnce * kNormSums", "i += (kAtOnce - 1) * kNormSums"),
    "a chunk past the end": (VALUES, "end < slot.size ? end : slot.size", "end"),
    "a missing barrier": (UNITS, "    __threadfence();\n  }\n  __syncthreads();", "    __threadfence();\n  }"),
    "sums read too early": (NORM, "limit, sums);\n  __syncthreads();\n  if (in_crew", "limit, sums);\n  if (in_crew"),
    "a ticket that stays": (
        NORM,
        "if (threadIdx.x != 0) return;\n  state.ticket = 0;",
        "if (threadIdx.x != 0) return;",
    ),
    "a count of chunks that stays": (NORM, "  work.ended[slot] = 0;\n", ""),
    "a slot that ends too early": (NORM, "1u) + 1 == norm_chunks", "1u) + 2 >= norm_chunks"),
    "a limit for weights": (NORM, "end, kInfinity,", "end, wanted.limit,"),
    "a limit that hides infinities": (NORM, "zeros = fused(x, ", "zeros = fused(limited(x, limit), "),
    "a wrong first chunk": (NORM, "work.parts + work.first_chunks[slot]", "work.parts + slot"),
}


def findings(source: Path | None) -> Iterator[str]:
    """Of chunks of all kinds, with and without an infinity."""
    each: list[dict[str, Any]] = [{"max_grad_value": 0.05}, {"max_grad_norm": 0.5}]
    for seed, rules in enumerate(each):
        over = parameters([0, (5, 7), (300, 220), 3, (700, 1)], torch.float16)
        both = Both(over, 4, source, trust_coefficient=0.02, master_weights=True, skip_nonfinite=True, **rules)
        (gradients,) = gradient_sets(over, 1)
        for value in (0.1, math.inf):
            gradients[1][0, 0] = value
            yield repr(both.step(gradients, seed=None if source is None else seed))


@cache
def right_findings() -> list[str]:
    """Of the shipped kernel, which is held against the CPU above."""
    return list(findings(None))


def assert_right(source: Path) -> None:
    for found, right in zip(findings(source), right_findings(), strict=True):
        assert found == right
    assert_ties_are_broken_alike(source)


@pytest.mark.slow
def test_without_a_fault_none_is_found() -> None:
    assert_right(NORM)


@pytest.fixture(scope="module", autouse=True)
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Path]]]:
    with all_planted(tmp_path_factory.mktemp("faults"), NORM, FAULTS) as compiling:
        yield compiling


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, sources: dict[str, Future[Path]]) -> None:
    with pytest.raises((AssertionError, PtxError)):
        assert_right(sources[fault].result())


def huge(source: Path | None) -> float:
    """The norm of a tensor of 2**31 + 5 elements of which the first and the last are not zero."""
    size = 2**31 + 5
    device = DeviceStep(FusedCyclicSGD([torch.zeros(1, requires_grad=True)], 0.5, 0.5), source=source)
    device.set_rules(max_norm=1.0)
    gradient = device.memory.allocate_sparse(4 * size)
    for element, value in ((0, 3.0), (size - 1, 4.0)):
        device.memory.write(gradient + 4 * element, np.array([value], np.float32))
    device.make_huge(0, gradient, size, [0, size // CHUNK])
    device.measure([torch.zeros(1)], grid=2)
    return device.found().norm


def test_past_two_to_the_31_elements() -> None:
    assert huge(None) == 5.0


@pytest.mark.slow
def test_an_index_of_32_bits_is_caught(tmp_path: Path) -> None:
    wrong = "return static_cast<int32_t>(chunk.part * static_cast<uint32_t>(kDeviceChunk));"
    source = planted(tmp_path, NORM, VALUES, "return chunk.part * kDeviceChunk;", wrong)
    with pytest.raises(PtxError):
        huge(source)
