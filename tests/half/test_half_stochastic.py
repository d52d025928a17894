"""Stochastic rounding is right on average, and its numbers depend on seed, update, parameter and element alone.

Means are held within 5 standard errors at fixed seeds: a value x between two neighbours, a share f of their distance
above the lower one, is stored f higher on average, with a variance of f * (1 - f).
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD, build_info
from half_helpers import HALVES, half_ulp, ids_of, in_float32
from helpers import (
    LONG,
    assert_refused,
    bits,
    every_parameter,
    give,
    gradient_sets,
    output_of,
    parameters,
    python_process,
    train,
)

DTYPES = pytest.mark.parametrize("dtype", HALVES, ids=ids_of)


def ours(over: Any, **options: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(over, 0.1, 0.5, step_size_up=3, **{"rounding": "stochastic", "seed": 7, **options})


def constant_rate(over: Any, lr: float, **options: Any) -> FusedCyclicSGD:
    settings: dict[str, Any] = {"cycle_momentum": False, "momentum": 0.0, "rounding": "stochastic", "seed": 7}
    return FusedCyclicSGD(over, lr, lr, **{**settings, **options})


# --- right on average -----------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("share", [1 / 32, -1 / 32, 0.25, -0.4375])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_updates_below_half_an_ulp_move_by_the_right_amount(dtype: torch.dtype, share: float, seed: int) -> None:
    """`share` of an ulp a step, between 1 and 2: a weight takes steps of whole ulps, |share| of the time."""
    eps, steps, count = torch.finfo(dtype).eps, 40, 20_000
    moved = {}
    for rounding in ("stochastic", "nearest"):
        weight = torch.full((count,), 1.5, dtype=dtype, requires_grad=True)
        optimizer = constant_rate([weight], eps * abs(share), rounding=rounding, seed=seed)
        for _ in range(steps):
            weight.grad = torch.full_like(weight, -math.copysign(1.0, share))
            optimizer.step()
        moved[rounding] = (weight.detach().double() - 1.5) / eps
    assert torch.all(moved["nearest"] == 0)
    deviation = math.sqrt(steps * abs(share) * (1 - abs(share)) / count)
    assert abs(float(moved["stochastic"].mean()) - steps * share) < 5 * deviation
    # The steps of a weight are independent too: their number has a binomial's variance, of which this is the error.
    variance = steps * abs(share) * (1 - abs(share))
    kurtosis = 3 + (1 - 6 * abs(share) * (1 - abs(share))) / variance
    error = variance * math.sqrt((kurtosis - 1) / count)
    assert abs(float(moved["stochastic"].var()) - variance) < 5 * error


@DTYPES
@pytest.mark.parametrize("momentum_dtype", [None, "float32"])
def test_every_weight_is_one_of_two_neighbours_of_float32s_and_right_on_average(
    dtype: torch.dtype, momentum_dtype: str | None
) -> None:
    """Ordinary training: many sizes of weights, momentum, decay. What has no rest is not touched."""
    over = parameters([LONG, 33], dtype)
    options: dict[str, Any] = {"nesterov": True, "weight_decay": 0.01}
    optimizer = ours(over, momentum_dtype=momentum_dtype, **options)
    total = variance = 0.0
    for gradients in gradient_sets(over, 6):
        for parameter, (weight, expected) in zip(over, in_float32(optimizer, gradients, **options), strict=True):
            buffer = optimizer.state[parameter]["momentum_buffer"]
            assert bits(buffer) == bits(expected.to(buffer.dtype))  # rounded to nearest: chance is for weights
            x = weight.double()
            ulp = 2 * half_ulp(x, dtype)
            f = torch.remainder(x, ulp) / ulp
            steps = (parameter.detach().double() - (x - f * ulp)) / ulp
            assert torch.all((steps == 0) | (steps == 1))
            assert torch.all(steps[f == 0] == 0)
            total += float((steps - f).sum())
            variance += float((f * (1 - f)).sum())
    assert variance > 1000
    assert abs(total) < 5 * math.sqrt(variance)


# --- on what the numbers depend -------------------------------------------------------------------------------------


def digest(optimizer: FusedCyclicSGD) -> str:
    weights = b"".join(bits(p) for p in every_parameter(optimizer))
    return hashlib.sha256(weights).hexdigest()


def trained_digest() -> dict[str, str]:
    found = {}
    for dtype in HALVES:
        over = parameters([LONG, 1, 129, (3, 4, 5)], dtype)
        optimizer = ours(over, weight_decay=0.01)
        train(optimizer, over, gradient_sets(over, 4), 4)
        found[str(dtype)] = digest(optimizer)
    return found


def exact_digest() -> str:
    """Where no product has to be rounded: gradients of 1 and a rate that is a power of two."""
    over = [whole(LONG, dtype) for dtype in HALVES]
    after(3, over)
    return hashlib.sha256(b"".join(bits(p) for p in over)).hexdigest()


def report() -> None:
    print(json.dumps([build_info()["isa"]["selected"], exact_digest(), trained_digest()]))


@pytest.mark.slow
def test_every_instruction_set_gives_the_same_bits() -> None:
    """Without fma float32 itself comes out otherwise, where a product has to be rounded."""
    code = "import test_half_stochastic as t; t.report()"
    processes = {isa: python_process(code, CLR_NATIVE_ISA=isa) for isa in build_info()["isa"]["detected"]}
    reports = {isa: json.loads(output_of(process)) for isa, process in processes.items()}
    for isa, (selected, exact, _) in reports.items():
        assert selected == isa
        assert exact == exact_digest(), isa
    with_fma = [trained for isa, (*_, trained) in reports.items() if isa != "baseline"]
    assert all(trained == with_fma[0] for trained in with_fma)


def test_every_thread_count_gives_the_same_bits() -> None:
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(trained_digest())
    assert found == [found[0]] * 3


def step_by_ones(optimizer: FusedCyclicSGD, steps: int = 1) -> None:
    for _ in range(steps):
        for p in every_parameter(optimizer):
            p.grad = torch.ones_like(p)
        optimizer.step()


def after(steps: int, over: Any, **options: Any) -> list[Tensor]:
    """Weights after steps of gradients of 1, each well below an ulp."""
    optimizer = constant_rate(over, 2.0**-12, **options)
    step_by_ones(optimizer, steps)
    return [p.detach() for p in every_parameter(optimizer)]


def whole(size: int = 500, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.full((size,), 1.5, dtype=dtype, requires_grad=True)


@DTYPES
def test_an_element_has_its_number_wherever_it_lies(dtype: torch.dtype) -> None:
    """In a long tensor or a short one, aligned or not, in one dimension or three."""
    (long,) = after(3, [whole(600, dtype)])
    for size in (1, 15, 64, 257):
        (short,) = after(3, [whole(size, dtype)])
        assert torch.equal(short, long[:size])
    for offset in range(1, 9):
        memory = torch.full((600 + offset,), 1.5, dtype=dtype)
        (moved,) = after(3, [memory[offset:].requires_grad_()])
        assert torch.equal(moved, long)
    (folded,) = after(3, [torch.full((5, 12, 10), 1.5, dtype=dtype, requires_grad=True)])
    assert torch.equal(folded.flatten(), long)


def share_equal(a: Tensor, b: Tensor) -> float:
    return float((a == b).double().mean())


@DTYPES
def test_seed_parameter_and_update_give_other_numbers(dtype: torch.dtype) -> None:
    """Steps of an ulp with probability f agree in f**2 + (1 - f)**2 of the elements if they are independent."""
    f = 2.0**-12 / torch.finfo(dtype).eps
    agreement = f**2 + (1 - f) ** 2
    size = 20_000
    deviation = math.sqrt(agreement * (1 - agreement) / size)
    first, second = after(1, [whole(size, dtype), whole(size, dtype)])
    (seeded,) = after(1, [whole(size, dtype)], seed=8)
    (again,) = after(1, [whole(size, dtype)])
    assert torch.equal(first, again)
    (later,) = after(1, [{"params": [whole(size, dtype)], "n_updates": 1}])
    for other in (second, seeded, later):
        assert abs(share_equal(first, other) - agreement) < 5 * deviation


def test_the_number_of_a_parameter_is_its_position_in_all_groups() -> None:
    together = after(2, [whole() for _ in range(3)])
    apart = after(2, [{"params": [whole()]}, {"params": [whole(), whole()]}])
    assert all(torch.equal(p, q) for p, q in zip(together, apart, strict=True))


def test_numbers_do_not_depend_on_who_else_has_a_gradient() -> None:
    _, expected = after(2, [whole() for _ in range(2)])
    over = [whole() for _ in range(2)]
    optimizer = constant_rate(over, 2.0**-12)
    for first in (None, torch.ones_like(over[0])):
        give(over, [first, torch.ones_like(over[1])])
        optimizer.step()
    assert torch.equal(over[1], expected)


def test_skipped_and_refused_steps_use_no_numbers() -> None:
    (expected,) = after(3, [whole()])
    over = [whole()]
    optimizer = constant_rate(over, 2.0**-12, skip_nonfinite=True)
    (group,) = optimizer.param_groups
    for _ in range(3):
        give(over, [torch.full_like(over[0], math.inf)])
        optimizer.step()
        assert optimizer.last_step_skipped
        group["kahan"] = True
        assert_refused(optimizer.step, ValueError, "choose one", optimizer)
        group["kahan"] = False
        step_by_ones(optimizer)
    assert group["n_updates"] == 3
    assert torch.equal(over[0], expected)


def test_updates_by_hand_and_repeated_positions_use_new_numbers() -> None:
    """The schedule does not advance; n_updates does."""
    expected = after(4, [whole()])[0]
    over = [whole()]
    optimizer = FusedCyclicSGD(over, 0.5, 0.75, cycle_momentum=False, momentum=0.0, rounding="stochastic", seed=7)
    seen = []
    for i in range(4):
        optimizer.param_groups[0]["lr"] = 2.0**-12
        before = over[0].detach().clone()
        step_by_ones(optimizer)
        assert optimizer.param_groups[0]["n_updates"] == i + 1
        seen.append(over[0].detach() != before)
    assert optimizer.applied_steps == 0
    assert torch.equal(over[0], expected)
    assert not any(torch.equal(a, b) for a in seen for b in seen if a is not b)
    optimizer = constant_rate([whole()], 2.0**-12)
    runs = []
    for _ in range(2):
        (weight,) = every_parameter(optimizer)
        weight.data.fill_(1.5)
        optimizer.seek(0)
        step_by_ones(optimizer)
        runs.append(weight.detach().clone())
    assert not torch.equal(*runs)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = after(2, [whole()])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert torch.equal(first[0], after(2, [whole()])[0])


def test_groups_have_seeds_of_their_own() -> None:
    found = after(1, [{"params": [whole()], "seed": 1}, {"params": [whole()]}])
    (alone,) = after(1, [whole()], seed=1)
    _, second = after(1, [whole(), whole()])
    assert torch.equal(found[0], alone)
    assert torch.equal(found[1], second)
