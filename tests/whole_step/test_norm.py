"""The norm of all gradients and the clip coefficient: against exact sums, and the same bits however they are found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clr_native import FusedCyclicSGD, build_info
from helpers import LAYOUTS, LONG, give, output_of, parameters, python_process
from references import ulp_error

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = (1, 17, (3, 5), 65, 0, 16_385, LONG)
# Where a square is below the smallest number or above the largest of the dtype, and around 1.
SCALES = {
    torch.float32: (1e-42, 1e-30, 1e-6, 0.1, 1e25, 1e37),
    torch.float64: (1e-140, 1e-30, 1e-6, 0.1, 1e25, 1e140),
    torch.bfloat16: (1e-38, 1e-30, 1e-6, 0.1, 1e25, 1e37),
    torch.float16: (1e-7, 1e-4, 1e-2, 0.1, 10.0, 1e4),
}
BITS = 1100  # of every double, behind the point


def exact_norm(tensors: Iterable[Tensor]) -> Fraction:
    """The root of the sum of all squares. Off by less than 2**-1100."""
    numbers = (x for tensor in tensors for x in tensor.detach().double().reshape(-1).tolist())
    total = sum(((ratio := x.as_integer_ratio())[0] * (1 << BITS) // ratio[1]) ** 2 for x in numbers)
    return Fraction(math.isqrt(total), 1 << BITS)


def exact_coefficient(norm: Fraction, max_norm: float) -> Fraction:
    return min(Fraction(1), Fraction(max_norm) / (norm + Fraction(1e-6)))


def measured(gradients: Sequence[Tensor], max_norm: float, groups: int = 1) -> tuple[float, float]:
    """Norm and clip coefficient of an optimizer whose parameters look like the gradients."""
    over = [torch.empty_like(g).zero_().requires_grad_() for g in gradients]
    optimizer = FusedCyclicSGD([{"params": over[i::groups]} for i in range(groups)], 0.1, 0.5, max_grad_norm=max_norm)
    give(over, gradients)
    optimizer.step()
    assert optimizer.last_grad_norm is not None
    return optimizer.last_grad_norm, optimizer._binding.native.clip_coefficient


def random_gradients(shapes: Sequence[Any], dtype: torch.dtype, scale: float = 1.0, seed: int = 0) -> list[Tensor]:
    return [p.detach() for p in parameters(shapes, dtype, seed=seed, scale=scale)]


def assert_within_an_ulp(gradients: Sequence[Tensor], shares: Sequence[float], groups: int = 1) -> None:
    """``shares``: of the norm, what to clip to."""
    truth = exact_norm(gradients)
    for share in shares:
        max_norm = float(truth) * share
        norm, coefficient = measured(gradients, max_norm, groups)
        assert ulp_error(norm, truth) <= 1
        assert ulp_error(coefficient, exact_coefficient(truth, max_norm)) <= 1


@pytest.mark.parametrize(("dtype", "scale"), [(dtype, scale) for dtype in DTYPES for scale in SCALES[dtype]], ids=str)
def test_norm_and_coefficient_are_within_an_ulp(dtype: torch.dtype, scale: float) -> None:
    gradients = random_gradients(SHAPES, dtype, scale)
    assert any(g.any() for g in gradients)
    assert_within_an_ulp(gradients, (1e-3, 1 / 3, 0.999, 1.0, 1 + 1e-9, 3.0))


@pytest.mark.parametrize("groups", [1, 3])
def test_one_norm_over_all_groups_and_dtypes(groups: int) -> None:
    gradients = [g for seed, dtype in enumerate(DTYPES) for g in random_gradients(SHAPES[:-1], dtype, 0.3, seed)]
    assert_within_an_ulp(gradients, (0.1, 0.9), groups)


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.integers(1, 70), st.integers(-4, 4), st.integers(0, 999)),
        min_size=1,
        max_size=5,
    ),
    st.floats(0.01, 2.0),
)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_any_gradients(tensors: list[tuple[torch.dtype, int, int, int]], share: float) -> None:
    gradients = [random_gradients([size], dtype, 10.0**power, seed)[0] for dtype, size, power, seed in tensors]
    assert_within_an_ulp(gradients, (share,))


def test_float32_would_not_do() -> None:
    """These squares are no float32s: torch's norm overflows here, and is zero there."""
    for scale, theirs in ((1e30, math.inf), (1e-30, 0.0)):
        (gradient,) = random_gradients([50], torch.float32, scale)
        assert torch.nn.utils.get_total_norm([gradient], foreach=True).item() == theirs
        assert ulp_error(measured([gradient], 1.0)[0], exact_norm([gradient])) <= 1


def test_squares_that_no_double_holds_make_an_infinite_norm_of_finite_gradients() -> None:
    gradient = torch.full((3,), 1e200, dtype=torch.float64)
    assert measured([gradient], 1.0) == (math.inf, 0.0)


# --- the same bits ------------------------------------------------------------------------------------------


def every_measurement() -> list[str]:
    """Of all dtypes and lengths, to the bit."""
    found: list[str] = []
    for dtype in DTYPES:
        for seed in range(4):
            gradients = random_gradients([*range(70), LONG, 40_000], dtype, 0.1, seed)
            found += [number.hex() for number in measured(gradients, 0.7)]
    return found


def report() -> None:
    """What a process with another instruction set prints."""
    torch.set_num_threads(1)
    one = every_measurement()
    torch.set_num_threads(2)
    print(json.dumps([build_info()["isa"]["selected"], one, every_measurement()]))


@pytest.mark.slow
def test_the_same_bits_from_every_instruction_set_and_number_of_threads() -> None:
    code = "import test_norm as t; t.report()"
    detected = build_info()["isa"]["detected"]
    processes = {isa: python_process(code, CLR_NATIVE_ISA=isa) for isa in detected}
    here = every_measurement()
    assert len(set(here)) == 32
    for isa, process in processes.items():
        selected, one, two = json.loads(output_of(process))
        assert selected == isa
        assert one == two == here, isa


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_order_of_tensors_and_groups_does_not_matter(threads: int) -> None:
    torch.set_num_threads(threads)
    gradients = [g for dtype in DTYPES for g in random_gradients([5, LONG, 17, 40_000], dtype)]
    expected = measured(gradients, 3.0)
    assert measured(gradients[::-1], 3.0) == measured(gradients, 3.0, groups=4) == expected


@pytest.mark.parametrize("of_gradient", LAYOUTS)
@pytest.mark.parametrize("of_parameter", [layout for layout in LAYOUTS if layout != "expanded"])
def test_every_layout_gives_the_same_bits(of_parameter: str, of_gradient: str) -> None:
    parameter, gradient = parameters([(12, 8, 5, 7), (12, 8, 5, 7)])
    weight = LAYOUTS[of_parameter](parameter.detach()).requires_grad_()
    weight.grad = LAYOUTS[of_gradient](gradient.detach())
    expected = measured([weight.grad.contiguous()], 3.0)
    optimizer = FusedCyclicSGD([weight], 0.1, 0.5, max_grad_norm=3.0)
    optimizer.step()
    assert (optimizer.last_grad_norm, optimizer._binding.native.clip_coefficient) == expected
    assert ulp_error(expected[0], exact_norm([weight.grad])) <= 1


def test_the_norm_of_the_last_step_survives_a_move_along_the_schedule() -> None:
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = FusedCyclicSGD([weight], 0.1, 0.5, max_grad_norm=3.0)
    weight.grad = torch.ones(4)
    optimizer.step()
    optimizer.seek(7)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.last_grad_norm == 2.0
