"""The same bits from every instruction set with fma, thread count, layout, tensor order and alignment."""

from __future__ import annotations

import hashlib
import json
import platform
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD, build_info
from helpers import (
    LONG,
    Beside,
    Shape,
    bits,
    clones,
    every_parameter,
    gradient_sets,
    output_of,
    parameters,
    python_process,
    train,
)

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.01, "dampening": 0.3},
    {"weight_decay": 0.01, "nesterov": True, "maximize": True},
    {"cycle_momentum": False, "momentum": 0.0},
]
STEPS = 5


def ours(over: Sequence[Tensor], **options: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(over, 0.05, 0.4, step_size_up=3, **options)


def cases() -> Iterator[tuple[str, FusedCyclicSGD, list[list[Tensor]]]]:
    """All lengths past two blocks of vectors, and one long enough for threads."""
    for dtype in DTYPES:
        start = parameters([*range(150), LONG], dtype)
        sets = gradient_sets(start, STEPS)
        for number, options in enumerate(OPTIONS):
            yield f"{dtype} {number}", ours(clones(start), **options), sets


def digest(optimizer: torch.optim.Optimizer) -> str:
    hashed = hashlib.sha256()
    for parameter in every_parameter(optimizer):
        hashed.update(bits(parameter))
        for name, value in sorted(optimizer.state.get(parameter, {}).items()):
            hashed.update(name.encode() + (b"none" if value is None else bits(value)))
    return hashed.hexdigest()


def our_digests() -> dict[str, str]:
    found = {}
    for name, optimizer, sets in cases():
        train(optimizer, every_parameter(optimizer), sets, STEPS)
        found[name] = digest(optimizer)
    return found


def torch_digests() -> dict[str, str]:
    """What torch's loop gives, for the types in which it computes as ours does."""
    found = {}
    for name, optimizer, sets in cases():
        if sets[0][0].dtype not in (torch.float32, torch.float64):
            continue
        beside = Beside(optimizer)
        for gradients in sets:
            beside.step(gradients)
        found[name] = digest(beside.theirs)
    return found


def report() -> None:
    """What a process with another instruction set prints."""
    compare = torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    print(json.dumps([build_info()["isa"]["selected"], our_digests(), torch_digests() if compare else {}]))


@pytest.fixture(scope="module")
def by_isa() -> dict[str, list[dict[str, str]]]:
    """Digests of ours and torch's from a process each; on the baseline torch goes without fma too."""
    code = "import test_update_same_bits as t; t.report()"
    processes = {
        isa: python_process(
            code, CLR_NATIVE_ISA=isa, **({"ATEN_CPU_CAPABILITY": "default"} if isa == "baseline" else {})
        )
        for isa in build_info()["isa"]["detected"]
    }
    reports = {isa: json.loads(output_of(process)) for isa, process in processes.items()}
    assert all(selected == isa for isa, (selected, *_) in reports.items())
    return {isa: digests for isa, (_, *digests) in reports.items()}


@pytest.mark.slow
def test_every_instruction_set_with_fma_gives_the_same_bits(by_isa: dict[str, list[dict[str, str]]]) -> None:
    with_fma = {isa: ours for isa, (ours, _) in by_isa.items() if isa != "baseline"}
    if not with_fma:
        pytest.skip("this processor has no instruction set with fma")
    if build_info()["isa"]["selected"] != "baseline":
        with_fma["this process"] = our_digests()
    first = next(iter(with_fma))
    for isa, found in with_fma.items():
        assert found == with_fma[first], (isa, first)


@pytest.mark.slow
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="torch has no build without fma for this processor"
)
def test_baseline_gives_the_bits_of_torch_without_fma(by_isa: dict[str, list[dict[str, str]]]) -> None:
    found, torchs = by_isa["baseline"]
    assert torchs
    assert {name: found[name] for name in torchs} == torchs


THREADED: list[dict[str, Any]] = [
    *OPTIONS,
    {"ema_decay": 0.75, "max_grad_norm": 1.0},
    {"trust_coefficient": 0.02, "weight_decay": 0.01, "max_grad_norm": 1.0},
]


@pytest.mark.parametrize("options", THREADED)
def test_every_thread_count_gives_the_same_bits(options: dict[str, Any]) -> None:
    """Cuts fall elsewhere for each count; all types in one group."""
    shapes: list[Shape] = [1, LONG, 17, 7001, 0, 3, (LONG, 1), (17, 3), (7001, 5), (0, 3)]
    start = [p for dtype in DTYPES for p in parameters(shapes, dtype)]
    sets = gradient_sets(start, 3)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        optimizer = ours(clones(start), **options)
        train(optimizer, every_parameter(optimizer), sets, STEPS)
        found.append(digest(optimizer))
    assert found == [found[0]] * 3


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 3).contiguous().transpose(0, 3),
    "reversed": lambda t: t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_dense_layout_gives_the_same_bits(layout: str, dtype: torch.dtype) -> None:
    start = parameters([(6, 5, 4, 3), (2, 3, 7, 5)], dtype)
    sets = gradient_sets(start, 3)
    plain = ours(clones(start), **OPTIONS[1])
    train(plain, every_parameter(plain), sets, STEPS)
    turned = [LAYOUTS[layout](p.detach()).requires_grad_() for p in start]
    assert not any(p.is_contiguous() for p in turned)
    other = ours(turned, **OPTIONS[1])
    train(other, turned, [[LAYOUTS[layout](g) for g in gradients] for gradients in sets], STEPS)
    assert digest(other) == digest(plain)


def test_tensor_order_does_not_matter() -> None:
    start = [p for dtype in DTYPES for p in parameters([5, LONG, 17, 7001], dtype)]
    sets = gradient_sets(start, 3)
    plain = ours(clones(start))
    train(plain, every_parameter(plain), sets, STEPS)
    order = list(range(len(start)))
    random.Random(0).shuffle(order)
    copies = clones(start)
    shuffled = ours([copies[i] for i in order])
    train(shuffled, copies, sets, STEPS)
    for parameter, moved in zip(every_parameter(plain), copies, strict=True):
        assert bits(parameter) == bits(moved)
        assert bits(plain.state[parameter]["momentum_buffer"]) == bits(shuffled.state[moved]["momentum_buffer"])


def placed(tensor: Tensor, past_line: int) -> Tensor:
    """A copy whose memory starts `past_line` bytes past a cache line."""
    size = tensor.numel() * tensor.element_size()
    memory = bytearray(size + 192)
    address = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
    view = torch.frombuffer(memory, dtype=tensor.dtype, offset=-address % 64 + past_line, count=tensor.numel())
    assert view.data_ptr() % 64 == past_line
    return view.copy_(tensor.detach())


@pytest.mark.parametrize("dtype", DTYPES)
def test_alignment_does_not_matter(dtype: torch.dtype) -> None:
    """Parameter, gradient and buffer each at its own place in a cache line, odd bytes too."""
    places = [1, 3, *range(0, 64, dtype.itemsize)]
    start = parameters([131] * len(places), dtype)
    sets = gradient_sets(start, 2)
    plain, moved = ours(clones(start), **OPTIONS[1]), ours(clones(start), **OPTIONS[1])
    for each in (plain, moved):
        train(each, every_parameter(each), sets, 2)
    for i, parameter in enumerate(every_parameter(moved)):
        moved.state[parameter]["momentum_buffer"] = placed(moved.state[parameter]["momentum_buffer"], places[i - 1])
        parameter.data = placed(parameter, places[i])
    turned = [[placed(g, places[i - 2]) for i, g in enumerate(gradients)] for gradients in sets]
    train(plain, every_parameter(plain), sets, 2)
    train(moved, every_parameter(moved), turned, 2)
    assert digest(moved) == digest(plain)
    for i, parameter in enumerate(every_parameter(moved)):
        assert parameter.data_ptr() % 64 == places[i]
