"""Helpers of the tests of the optimizer: tensors, torch's SGD to compare with, pictures of a whole state."""

from __future__ import annotations

import copy
import gc
import io
import itertools
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

import clr_native
from clr_native import CyclicSchedule, FusedCyclicSGD

TESTS = Path(__file__).parents[1]

Shape = int | tuple[int, ...]
GradientSets = Sequence[Sequence[Tensor]]
Errors = type[Exception] | tuple[type[Exception], ...]

# The settings that our groups and torch's share.
SETTINGS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
# Sizes around a vector and a block of vectors.
LENGTHS = (1, 17, 65)
# Several threads share these: they are larger than any size below which a step stays serial.
LONG = 20_011
# Each function gives a tensor of four dimensions another layout.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t.contiguous(),
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 3).contiguous().transpose(0, 3),
    "gapped": lambda t: torch.stack([t, t + 1], -1)[..., 0],
    "expanded": lambda t: t[:1].expand(t.shape),
    "offset": lambda t: torch.cat([t.new_zeros(1), t.reshape(-1)])[1:].view(t.shape),
}


def parameters(
    shapes: Sequence[Shape], dtype: torch.dtype = torch.float32, *, seed: int = 0, scale: float = 1.0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) * scale for shape in shapes]
    return [tensor.to(dtype).requires_grad_() for tensor in made]


def gradient_sets(like: Sequence[Tensor], count: int = 7, *, seed: int = 1) -> list[list[Tensor]]:
    """Returns gradients for several steps, each in its parameter's layout, of magnitude 0.1."""
    generator = torch.Generator().manual_seed(seed)

    def one(parameter: Tensor) -> Tensor:
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.1
        return torch.empty_like(parameter.detach()).copy_(noise)

    return [[one(parameter) for parameter in like] for _ in range(count)]


def give(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def case_name(value: object) -> str:
    """Returns the name of a case in a table. It is the same in every process; addresses of functions are not."""
    return re.sub(r" at 0x\w+", "", str(value))


def clones(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Returns copies with the same layout, without gradients."""
    return [p.detach().clone().requires_grad_(p.requires_grad) for p in parameters]


def sgd_beside(ours: FusedCyclicSGD, *, foreach: bool = False) -> tuple[SGD, list[Tensor]]:
    """Returns torch's SGD with our groups, settings and state over copies of the parameters, and these copies."""
    twins = {id(p): p.detach().clone().requires_grad_(p.requires_grad) for p in every_parameter(ours)}
    groups = [
        {name: group[name] for name in SETTINGS} | {"params": [twins[id(p)] for p in group["params"]]}
        for group in ours.param_groups
    ]
    theirs = SGD(groups, foreach=foreach)
    for parameter in every_parameter(ours):
        buffer = buffer_of(ours, parameter)
        if buffer is not None:
            theirs.state[twins[id(parameter)]]["momentum_buffer"] = buffer.clone()
    return theirs, list(twins.values())


def hand_over(ours: Optimizer, theirs: Optimizer) -> None:
    """Copy the lr and momentum in our groups to torch's groups."""
    for own, group in zip(ours.param_groups, theirs.param_groups, strict=True):
        group["lr"], group["momentum"] = own["lr"], own["momentum"]


class Beside:
    """torch's SGD beside an optimizer of ours, over copies of its parameters, with our lr and momentum."""

    def __init__(self, ours: FusedCyclicSGD, *, foreach: bool = False) -> None:
        self.ours, self.over = ours, every_parameter(ours)
        self.theirs, self.twins = sgd_beside(ours, foreach=foreach)

    def give(self, gradients: Sequence[Tensor | None]) -> None:
        """To torch as copies in its parameters' layout: neither side sees what the other writes into a gradient."""
        give(self.over, gradients)
        pairs = zip(self.twins, gradients, strict=True)
        give(self.twins, [None if g is None else torch.empty_like(q.detach()).copy_(g.detach()) for q, g in pairs])

    def step(self, gradients: Sequence[Tensor | None] | None = None) -> None:
        """With the gradients that are there if none are given."""
        if gradients is not None:
            self.give(gradients)
        hand_over(self.ours, self.theirs)
        self.ours.step()
        self.theirs.step()

    def assert_same(self) -> None:
        assert_same_training(self.ours, self.theirs)


def follow(ours: FusedCyclicSGD, sets: GradientSets | int) -> None:
    """Trains beside torch's SGD, with these gradients or as many sets of them: the same after each step."""
    beside = Beside(ours)
    for gradients in gradient_sets(beside.over, sets) if isinstance(sets, int) else sets:
        beside.step(gradients)
        beside.assert_same()


def every_parameter(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def buffer_of(optimizer: Optimizer, parameter: Tensor) -> Tensor | None:
    state = optimizer.state.get(parameter, {})
    buffer: Tensor | None = state.get("momentum_buffer")
    return buffer


def assert_same_training(ours: Optimizer, theirs: Optimizer) -> None:
    """Compares weights and momentum buffers, parameter by parameter."""
    for i, (p, q) in enumerate(zip(every_parameter(ours), every_parameter(theirs), strict=True)):
        assert torch.equal(p, q), f"parameter {i} of shape {tuple(p.shape)}"
        own, other = buffer_of(ours, p), buffer_of(theirs, q)
        assert (own is None) == (other is None), f"momentum buffer {i}"
        if own is not None and other is not None:
            assert torch.equal(own, other), f"momentum buffer {i} of shape {tuple(p.shape)}"


def bits(tensor: Tensor) -> bytes:
    """Returns the bits of the elements in logical order. They tell -0 from 0 and one NaN from another."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _described(value: object) -> object:
    """Returns a key to compare later: a tensor by identity and content, others as a copy. NaN equals itself."""
    if not isinstance(value, Tensor):
        return type(value), repr(value) if isinstance(value, float) else copy.deepcopy(value)
    if value.device.type != "cpu" or value.layout is not torch.strided or value.untyped_storage().size() == 0:
        return id(value)
    return id(value), value.dtype, value.shape, value.stride(), bits(value.resolve_neg().resolve_conj())


def picture(optimizer: Optimizer) -> dict[str, Any]:
    """Returns everything that a rejected step must leave alone. The step may make empty entries in the state."""
    everything = every_parameter(optimizer)
    return {
        "weights": [_described(p) for p in everything],
        "versions": [p._version for p in everything],
        "gradients": [_described(p.grad) for p in everything],
        "gradient versions": [None if p.grad is None else p.grad._version for p in everything],
        "groups": [
            {name: _described(value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ],
        "members": [[id(p) for p in group["params"]] for group in optimizer.param_groups],
        "state": {
            id(key): {name: _described(value) for name, value in entry.items()}
            if isinstance(entry, dict)
            else _described(entry)
            for key, entry in optimizer.state.items()
            if entry != {}
        },
    }


def train(optimizer: Optimizer, over: Sequence[Tensor], sets: GradientSets, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        give(over, sets[step % len(sets)])
        optimizer.step()


def go_on(optimizer: Optimizer, steps: int = 1, *, seed: int = 1, start: int = 0) -> None:
    """Trains with gradients that the parameters, the seed and the number of the step determine."""
    over = every_parameter(optimizer)
    train(optimizer, over, gradient_sets(over, seed=seed), steps, start)


def entries(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Returns a copy of everything in the groups but the parameters."""
    return copy.deepcopy([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups])


def _state_of(optimizer: Optimizer, parameter: Tensor) -> dict[str, tuple[torch.dtype, bytes]]:
    found = optimizer.state.get(parameter, {}).items()
    return {name: (value.dtype, bits(value)) for name, value in found if isinstance(value, Tensor)}


def assert_same_state(one: Optimizer, other: Optimizer) -> None:
    """Compares weights, every tensor of the state with its dtype, and the groups."""
    for i, (p, q) in enumerate(zip(every_parameter(one), every_parameter(other), strict=True)):
        assert bits(p) == bits(q), f"parameter {i}"
        assert _state_of(one, p) == _state_of(other, q), f"state of parameter {i}"
    assert entries(one) == entries(other)


def assert_goes_on_alike(one: Optimizer, other: Optimizer, steps: int = 7, *, start: int = 0) -> None:
    for step in range(start, start + steps):
        for each in (one, other):
            go_on(each, seed=8, start=step)
        assert_same_state(one, other)


def take_weights(optimizer: Optimizer, of: Optimizer) -> None:
    for p, q in zip(every_parameter(optimizer), every_parameter(of), strict=True):
        p.data.copy_(q.detach())


def through_a_file(value: Any, *, weights_only: bool = True) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda made: pickle.loads(pickle.dumps(made)),
}


def assert_refused(act: Callable[[], object], error: Errors, words: str | None, *optimizers: Optimizer) -> None:
    """The act raises, twice, in words that this regular expression finds, and leaves the optimizers as they were."""
    before = [picture(optimizer) for optimizer in optimizers]
    for _ in range(2):
        with pytest.raises(error, match=words):
            act()
        assert [picture(optimizer) for optimizer in optimizers] == before


class Interruption(BaseException):
    """An interruption like KeyboardInterrupt: no `except Exception` catches it."""


def interrupt() -> None:
    raise Interruption


def interrupted(call: Callable[[], object], event: int, act: Callable[[], object] = interrupt) -> bool:
    """Runs `call`, and runs `act` at call or return event number `event` of Python functions, unless `call` ends
    before.

    Returns True if `act` ended it. Functions of the GPU stand-in are Python too, and do not count.
    """
    left = itertools.count(event, -1)
    player = str(TESTS / "cuda")

    def plays_a_gpu(frame: FrameType | None) -> bool:
        while frame is not None and not frame.f_code.co_filename.startswith(player):
            frame = frame.f_back
        return frame is not None

    def profile(frame: FrameType, kind: str, argument: object) -> None:
        if kind in ("call", "return") and not plays_a_gpu(frame) and next(left) == 0:
            sys.setprofile(None)
            act()

    collects = gc.isenabled()
    gc.disable()  # hypothesis listens to it with Python functions, from which nothing can be raised
    try:
        sys.setprofile(profile)
        call()
    except Interruption:
        return True
    finally:
        sys.setprofile(None)
        if collects:
            gc.enable()
    return False


def assert_setting_refused(
    make: Callable[..., FusedCyclicSGD], over: Sequence[Tensor], settings: dict[str, Any], error: Errors, words: str
) -> None:
    """Settings of a group are refused by the constructor and, written into the group later, by step()."""
    with pytest.raises(error, match=words):
        make(clones(over), **settings)
    optimizer = make(over)
    go_on(optimizer, 2)
    (group,) = optimizer.param_groups
    kept = {name: group[name] for name in settings}
    group.update(settings)
    assert_refused(optimizer.step, error, words, optimizer)
    group.update(kept)
    optimizer.step()
    assert optimizer.applied_steps == 3


def raised(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def python_process(code: str, **environment: str) -> subprocess.Popen[str]:
    """Runs code in a new interpreter that finds the tests and the package under test."""
    package = Path(clr_native.__file__).parent.parent
    folders = [str(folder) for folder in sorted(TESTS.iterdir()) if folder.is_dir()]
    path = [*folders, str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def halving(cycle: int) -> float:
    """A scale_fn that can be pickled."""
    return 0.5 ** (cycle - 1)


def schedule_with(**arguments: Any) -> CyclicSchedule:
    return CyclicSchedule(**{"base_lr": 0.1, "max_lr": 0.5, **arguments})
