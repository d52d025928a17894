"""A model in shards beside the same model whole, in each process, with the same gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from clr_native import FusedCyclicSGD
from helpers import bits, every_parameter

SCHEDULE: dict[str, Any] = {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 7, "step_size_down": 5}


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Weights that two or three processes share unevenly; some have nothing of the last ones."""
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 4), nn.Linear(4, 1, bias=False))
    return layers.to(dtype)


def mesh_of(*sizes: int, names: Sequence[str] = ("dp", "tp")) -> DeviceMesh:
    """Of the first processes; all of them if no size is given."""
    sizes = sizes or (distributed.get_world_size(),)
    return init_device_mesh("cpu", sizes, mesh_dim_names=tuple(names[: len(sizes)]))


def gradients(like: Sequence[Tensor], steps: int, *, scale: float = 1.0) -> Iterator[list[Tensor]]:
    """The same in every process."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        yield [(torch.randn(p.shape, generator=generator, dtype=torch.float64) * scale).to(p.dtype) for p in like]


def sharded(gradient: Tensor, like: Tensor) -> Tensor:
    """The gradient in shards like those of this parameter, if there are any."""
    if not isinstance(like, DTensor):
        return gradient.clone()
    return distribute_tensor(gradient, like.device_mesh, like.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """This process's part, which shares the tensor's memory."""
    assert isinstance(tensor, DTensor)
    return tensor.to_local().detach()


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


class Both:
    """An optimizer over shards and one over the whole model, with the same settings. `make`: the model."""

    def __init__(
        self,
        shard: Callable[[nn.Module], object] = fully_shard,
        *,
        make: Callable[[torch.dtype], nn.Module] = model,
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> None:
        self.model, self.twin = make(dtype), make(dtype)
        shard(self.model)
        self.sharded = FusedCyclicSGD(self.model.parameters(), **SCHEDULE, **settings)
        self.alone = FusedCyclicSGD(self.twin.parameters(), **SCHEDULE, **settings)

    def give(self, gradients: Sequence[Tensor | None]) -> None:
        for p, q, g in zip(every_parameter(self.sharded), every_parameter(self.alone), gradients, strict=True):
            q.grad = g
            p.grad = None if g is None else sharded(g, p)

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        self.give(gradients)
        self.sharded.step()
        self.alone.step()

    def assert_same(self) -> None:
        pairs = zip(every_parameter(self.sharded), every_parameter(self.alone), strict=True)
        for i, (p, q) in enumerate(pairs):
            assert bits(whole(p)) == bits(q), f"parameter {i}"
            own, other = self.sharded.state[p], self.alone.state[q]
            assert own.keys() == other.keys()
            for name, tensor in own.items():
                if isinstance(p, DTensor):
                    assert isinstance(tensor, DTensor), name
                    assert (tensor.device_mesh, tensor.placements) == (p.device_mesh, p.placements), name
                assert bits(whole(tensor)) == bits(other[name]), f"{name} of parameter {i}"
        assert self.sharded.applied_steps == self.alone.applied_steps
        assert self.sharded.skipped_steps == self.alone.skipped_steps
