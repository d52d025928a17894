"""The workloads every benchmark shares: lists of shapes, and the tensors made from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

Shape = tuple[int, ...]

PARAMETER_SEED = 1
GRADIENT_SEEDS = (2, 3)
GRADIENT_SCALE = 0.01


@dataclass(frozen=True)
class Workload:
    """What one optimizer steps over: one tensor a shape, dealt to ``groups`` parameter groups in order."""

    name: str
    shapes: tuple[Shape, ...]
    groups: int = 1

    @property
    def tensors(self) -> int:
        return len(self.shapes)

    @property
    def elements(self) -> int:
        return sum(prod(shape) for shape in self.shapes)

    @property
    def title(self) -> str:
        size = f"{self.elements / 1e6:.1f}M" if self.elements >= 1e5 else f"{self.elements / 1e3:.0f}k"
        grouped = f" in {self.groups} groups" if self.groups > 1 else ""
        return f"{self.name}: {self.tensors} tensors{grouped}, {size}"


def batch_norm(channels: int) -> tuple[Shape, Shape]:
    return (channels,), (channels,)


def resnet50_shapes() -> Iterator[Shape]:
    """Weights of torchvision's resnet50, in ``parameters()`` order."""
    yield (64, 3, 7, 7)
    yield from batch_norm(64)
    inputs = 64
    for blocks, planes in ((3, 64), (4, 128), (6, 256), (3, 512)):
        outputs = 4 * planes
        for block in range(blocks):
            yield (planes, inputs, 1, 1)
            yield from batch_norm(planes)
            yield (planes, planes, 3, 3)
            yield from batch_norm(planes)
            yield (outputs, planes, 1, 1)
            yield from batch_norm(outputs)
            if block == 0:
                yield (outputs, inputs, 1, 1)
                yield from batch_norm(outputs)
            inputs = outputs
    yield (1000, inputs)
    yield (1000,)


def gpt2_shapes() -> Iterator[Shape]:
    """Weights of the 124M GPT-2: tied head, fused q, k and v, ``(in, out)`` matrices."""
    width = 768
    yield (50257, width)
    yield (1024, width)
    for _ in range(12):
        yield from ((width,), (width,))
        yield from ((width, 3 * width), (3 * width,), (width, width), (width,))
        yield from ((width,), (width,))
        yield from ((width, 4 * width), (4 * width,), (4 * width, width), (width,))
    yield from ((width,), (width,))


WORKLOADS = {
    workload.name.lower(): workload
    for workload in (
        Workload("MLP", ((256, 784), (256,), (10, 256), (10,))),
        Workload("1000x64", ((64,),) * 1000),
        Workload("2000x256", ((256,),) * 2000),
        Workload("1000-groups", ((1000,),) * 1000, groups=1000),
        Workload("ResNet-50", tuple(resnet50_shapes())),
        Workload("GPT-2", tuple(gpt2_shapes())),
    )
}
assert (WORKLOADS["resnet-50"].tensors, WORKLOADS["resnet-50"].elements) == (161, 25_557_032)
assert (WORKLOADS["gpt-2"].tensors, WORKLOADS["gpt-2"].elements) == (148, 124_439_808)


def normal_tensors(shapes: Sequence[Shape], seed: int, scale: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.empty(shape).normal_(0.0, scale, generator=generator) for shape in shapes]


Gradients = tuple[list[Tensor], list[Tensor]]


def gradient_sets(workload: Workload) -> Gradients:
    """Two sets of gradients: with one, a plan that skips its checks wins what no user gets."""
    first, second = (normal_tensors(workload.shapes, seed, GRADIENT_SCALE) for seed in GRADIENT_SEEDS)
    return first, second


class Tensors:
    """Fresh parameters of a workload, the same values every time, and two gradient sets used in turn.

    With ``graph`` the ends of an autograd graph exist, one for each parameter, as long as ``loss`` is in scope in a
    training loop. torch reads a tensor that only Python owns far more slowly than one that a graph refers to as well.
    """

    def __init__(
        self, workload: Workload, gradients: Gradients | None = None, *, backward: bool = False, graph: bool = True
    ) -> None:
        self.workload = workload
        self.backward = backward
        self.parameters = [self.parameter(values) for values in normal_tensors(workload.shapes, PARAMETER_SEED, 1.0)]
        self.graph = [torch.autograd.graph.get_gradient_edge(each) for each in self.parameters if graph]
        self.gradients = gradients or gradient_sets(workload)
        self.current = 0

    def parameter(self, values: Tensor) -> Tensor:
        return values.requires_grad_()

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device

    def turn(self) -> None:
        """Hand out the other gradient set, outside the time measured.

        With ``backward`` autograd makes new gradient tensors of it, as after ``zero_grad(set_to_none=True)``: no
        Python object stands for them yet, and an optimizer has never seen them.
        """
        self.current = 1 - self.current
        gradients = self.gradients[self.current]
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = None if self.backward else gradient
        if self.backward:
            torch.autograd.backward(self.parameters, gradients)

    def groups(self) -> list[list[Tensor]]:
        size = len(self.parameters) // self.workload.groups
        return [self.parameters[at : at + size] for at in range(0, len(self.parameters), size)]


class Refilled(Tensors):
    """Gradients that a step may write into: each turn fills them again from the set that is kept.

    ``model`` holds the parameters, for those who ask a module for them.
    """

    def __init__(
        self, workload: Workload, gradients: Gradients | None = None, *, backward: bool = False, graph: bool = True
    ) -> None:
        super().__init__(workload, gradients, backward=backward, graph=graph)
        self.model = torch.nn.ParameterList(self.parameters)
        self.written = [] if backward else [[torch.empty_like(each) for each in kept] for kept in self.gradients]

    def parameter(self, values: Tensor) -> Tensor:
        return torch.nn.Parameter(values)

    def turn(self) -> None:
        """As before; with ``backward`` autograd's new tensors are copies already."""
        super().turn()
        if self.backward:
            return
        written = self.written[self.current]
        torch._foreach_copy_(written, self.gradients[self.current])
        for parameter, gradient in zip(self.parameters, written, strict=True):
            parameter.grad = gradient
