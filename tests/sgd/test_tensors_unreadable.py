"""Tensors that are there but cannot be read: another device, lazy negatives, wrappers, none of floating point."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing._internal.two_tensor import TwoTensor

from clr_native import FusedCyclicSGD
from helpers import Shape, assert_refused, give, output_of, parameters, picture, python_process


class Plain(Tensor):
    """A subclass with memory of its own, as torchvision's."""


def two_tensors() -> Tensor:
    made: Tensor = TwoTensor(torch.ones(3), torch.ones(3))  # type: ignore[no-untyped-call]  # untyped in torch
    return made


REFUSED: dict[str, tuple[Callable[[], Tensor], str]] = {
    "complex": (lambda: torch.ones(3, dtype=torch.complex64), "dtype=torch.complex64"),
    "integer": (lambda: torch.ones(3, dtype=torch.int64), "dtype=torch.int64"),
    "8 bits": (lambda: torch.ones(3).to(torch.float8_e4m3fn), "dtype=torch.float8_e4m3fn"),
    "sparse": (lambda: torch.ones(3, 2).to_sparse(), "layout=torch.sparse_coo"),
    "sparse rows": (lambda: torch.eye(3).to_sparse_csr(), "layout=torch.sparse_csr"),
    "two tensors": (two_tensors, "type=TwoTensor is a wrapper"),
    "two tensors in a parameter": (lambda: torch.nn.Parameter(two_tensors()), "type=TwoTensor is a wrapper"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_the_constructor_and_in_a_late_group(case: str) -> None:
    make, text = REFUSED[case]
    with pytest.raises(TypeError, match=f"^parameter 1 of group 0: {text}"):
        FusedCyclicSGD([*parameters([3]), make()], 0.1, 0.5)
    over = parameters([3])
    optimizer = FusedCyclicSGD(over, 0.1, 0.5)
    late = {"params": [make()]}
    assert_refused(lambda: optimizer.add_param_group(late), TypeError, f"^parameter 0 of group 1: {text}", optimizer)
    give(over, [torch.ones(3)])
    optimizer.step()


def test_a_subclass_with_memory_of_its_own_is_taken() -> None:
    (weight,) = (torch.ones(3).as_subclass(Plain).requires_grad_(),)
    optimizer = FusedCyclicSGD([weight], 0.1, 0.1)
    weight.grad = torch.ones(3)
    optimizer.step()
    assert weight.tolist() == pytest.approx([0.9] * 3)


def test_an_uninitialised_parameter_is_checked_at_the_first_step_with_its_gradient() -> None:
    """So that it may become anything meanwhile."""
    weight = torch.nn.UninitializedParameter()
    (other,) = parameters([3])
    optimizer = FusedCyclicSGD([weight, other], 0.1, 0.1)
    give([other], [torch.ones(3)])
    optimizer.step()
    weight.materialize((2, 2))
    torch.nn.init.ones_(weight)
    weight.grad = torch.ones(2, 2).to_sparse()
    assert_refused(optimizer.step, TypeError, r"gradient: layout=torch\.sparse_coo", optimizer)
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(weight, torch.full((2, 2), 1.0).sub(weight.grad, alpha=0.1))


@pytest.mark.parametrize(
    ("weight", "words"),
    [(torch.zeros(4, device="meta"), "device=meta"), (torch._neg_view(torch.ones(4)), "is_neg=True")],
    ids=["another device", "a lazy negative"],
)
def test_a_parameter_that_may_yet_become_another_is_refused_at_the_step(weight: Tensor, words: str) -> None:
    over = [*parameters([3]), weight.detach().requires_grad_()]
    optimizer = FusedCyclicSGD(over, 0.1, 0.5)
    give(over, [torch.ones(3), torch.ones(4, device=weight.device)])
    assert_refused(optimizer.step, TypeError, words, optimizer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (2, 3, 2, 2)], ids=str)
def test_a_lazy_negative_among_ordinary_gradients_is_refused(shape: Shape, dtype: torch.dtype) -> None:
    over = [parameter.detach().to(dtype).requires_grad_() for parameter in parameters([3, shape, shape, 5])]
    optimizer = FusedCyclicSGD(over, 0.1, 0.5)
    ordinary = [torch.ones_like(parameter, requires_grad=False) for parameter in over]
    for make in (torch.clone, lambda each: each.view_as(each), lambda each: torch._neg_view(each).resolve_neg()):
        give(over, [make(each) for each in ordinary])
        optimizer.step()
    for negative in (torch._neg_view(ordinary[2]), torch._neg_view(ordinary[2]).detach()):
        give(over, [*ordinary[:2], negative, ordinary[3]])
        assert_refused(optimizer.step, TypeError, "parameter 2 .*gradient.*is_neg=True", optimizer)


def test_a_lazy_negative_at_the_place_of_a_known_gradient_is_refused() -> None:
    """Tensor objects and memory come back at the same addresses all the time."""
    (weight,) = parameters([40])
    optimizer = FusedCyclicSGD([weight], 0.1, 0.5)
    memory = torch.ones(40)
    came_back = False
    for _ in range(20):
        weight.grad = memory.detach()
        address = id(weight.grad)
        optimizer.step()
        before = picture(optimizer)["weights"]
        weight.grad = None
        weight.grad = torch._neg_view(memory)
        came_back |= id(weight.grad) == address
        with pytest.raises(TypeError, match="is_neg=True"):
            optimizer.step()
        assert picture(optimizer)["weights"] == before
    if not came_back:  # then nothing was tried: the fault shows only if Python gives an address a second time
        pytest.skip("no tensor object came back at a known address here")


FIRST_USED_INSIDE = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

import clr_native

class Refuses(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.zeros:
            raise RuntimeError("no zeros here")
        return function(*args, **(kwargs or {}))

weight = torch.nn.Parameter(torch.ones(3))
with %s:
    optimizer = clr_native.FusedCyclicSGD([weight], 0.5, 0.5, cycle_momentum=False, momentum=0.0)
weight.grad = torch.ones(3)
optimizer.step()
print(weight.tolist())
weight.grad = torch._neg_view(torch.ones(3))
try:
    optimizer.step()
except TypeError as error:
    print("is_neg" in str(error))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["torch.device('meta')", "torch.inference_mode()", "FakeTensorMode()", "Refuses()"])
def test_a_process_may_use_the_package_first_inside_any_mode(mode: str) -> None:
    """At the first use experiments find out what torch's tensors look like inside."""
    assert output_of(python_process(FIRST_USED_INSIDE % mode)) == "[0.5, 0.5, 0.5]\nTrue\n"
