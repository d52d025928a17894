"""The processes that hold a model's shards: which of them an optimizer's parameters lie on, and how they add up.

A parameter is a ``DTensor`` (FSDP2, tensor parallel), or, with ``process_group=``, a plain tensor that is a shard
(FSDP1, ZeRO). What an update needs of all gradients (their norm, infinities, trust ratios) is added up over the process
groups that its parameters lie on: one all-reduce for each group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.tensor import DTensor

Groups = tuple["ProcessGroup", ...]


class Shard(NamedTuple):
    """The part of a DTensor that this process holds."""

    sum: int  # the number of the sum that its squares go into
    counts: bool  # False where another process holds the same numbers and counts them
    places: tuple[int, int, int] | None  # see Places in csrc/core/slot.h; None if they are no regular runs


class Sharding:
    """Where the parameters of one optimizer lie.

    Numbers are added up in sums: plain parameters go into the first one, DTensors of the same process groups into the
    same one.
    """

    def __init__(self) -> None:
        self.process_group: ProcessGroup | None = None  # of plain parameters
        self._groups: list[Groups] = []  # of each sum but the first
        self._sizes: list[int] = []  # how many DTensors go into each of these

    @property
    def is_shared(self) -> bool:
        """True if other processes hold other parts of the model."""
        return any(self._groups_of_sums())

    @property
    def counts_copies(self) -> bool:
        """True if this process counts plain parameters that all processes of the group have whole."""
        return self.process_group is None or self.process_group.rank() == 0

    @property
    def sizes(self) -> list[int]:
        """How many parameters that are DTensors go into each sum."""
        return [0, *self._sizes]

    def shard_of(self, parameter: DTensor) -> Shard:
        """Finds out where a parameter lies, and notes its process groups. ValueError for one that is not a shard."""
        mesh, placements = parameter.device_mesh, parameter.placements
        if any(placement.is_partial() for placement in placements):
            raise ValueError(f"placements={placements} must be Shard or Replicate: redistribute the parameter")
        coordinate = mesh.get_coordinate()
        groups = tuple(mesh.get_group(dim) for dim in range(mesh.ndim) if mesh.size(dim) > 1)
        if coordinate is None:  # a process outside the mesh
            return Shard(self._number_of(()), False, None)
        counts = all(at == 0 for at, placement in zip(coordinate, placements, strict=True) if placement.is_replicate())
        return Shard(self._number_of(groups), counts, _places(parameter))

    def count(self, sums: Sequence[int]) -> None:
        """Takes the number of the sum of every DTensor parameter there is."""
        self._sizes = [sums.count(number + 1) for number in range(len(self._groups))]

    def note(self, parameters: Iterable[torch.Tensor]) -> None:
        """Notes the process groups of parameters that have just been added: a step may fail before it sees them."""
        for parameter in parameters:
            if is_dtensor(parameter):
                number = self.shard_of(cast("DTensor", parameter)).sum
                self._sizes[number - 1] += 1

    def add_up(self, numbers: torch.Tensor, sums: Sequence[tuple[int, int]], flags: int) -> None:
        """Adds up numbers over the processes, in place: first ``flags`` numbers that all processes share, then those of
        each sum, ``sums[i]`` being (the place of the first, how many). ``numbers`` is one-dimensional float64.

        Larger groups come last, so that all processes agree on the flags where one group has all of them.
        """
        of_sums = self._groups_of_sums()
        distinct = {group.group_name: group for groups in of_sums for group in groups}
        for group in sorted(distinct.values(), key=lambda group: group.size()):
            own = [
                place
                for place, groups in zip(sums, of_sums, strict=True)
                if any(each.group_name == group.group_name for each in groups)
            ]
            _all_reduce([numbers[first:end] for first, end in _joined([(0, flags), *sorted(own)])], group)

    def vote(self, numbers: torch.Tensor, sums: Sequence[tuple[int, int]], flags: Sequence[float]) -> list[float]:
        """Adds up flags and nothing else, and returns them. ``numbers`` are zeros; see ``add_up``."""
        numbers[: len(flags)] = torch.tensor(flags, dtype=numbers.dtype, device=numbers.device)
        self.add_up(numbers, sums, len(flags))
        return cast("list[float]", numbers[: len(flags)].tolist())

    def zeros(self, count: int, near: Iterable[torch.Tensor]) -> torch.Tensor:
        """Returns numbers for ``add_up`` on the device of the first of these tensors on a GPU, or else on the CPU.

        A process without any of them expects the others to use a GPU if their process groups can.
        """
        devices = [tensor.device for tensor in near if tensor.device.type in ("cuda", "cpu")]
        if not devices and torch.cuda.is_available():
            gpu = torch.device("cuda", torch.cuda.current_device())
            devices = [served(gpu, group) for groups in self._groups_of_sums() for group in groups]
        devices.sort(key=lambda device: device.type != "cuda")  # stable: the first one stays the first
        return torch.zeros(count, dtype=torch.float64, device=devices[0] if devices else "cpu")

    def _groups_of_sums(self) -> list[Groups]:
        own = self.process_group
        return [() if own is None or own.size() == 1 else (own,), *self._groups]

    def _number_of(self, groups: Groups) -> int:
        names = [group.group_name for group in groups]
        for number, known in enumerate(self._groups):
            if [group.group_name for group in known] == names:
                return number + 1
        self._groups.append(groups)
        self._sizes.append(0)
        return len(self._groups)


def is_dtensor(tensor: torch.Tensor) -> bool:
    """Without an import of ``torch.distributed.tensor``, which takes a second."""
    return hasattr(tensor, "device_mesh")


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the whole of a DTensor, for which all its processes must ask, and any other tensor itself."""
    return cast("DTensor", tensor).full_tensor() if is_dtensor(tensor) else tensor


def is_process_group(value: object) -> bool:
    distributed = torch.distributed
    return distributed.is_available() and isinstance(value, distributed.ProcessGroup)


class SharedGroup:
    """Carries a process group through copies of an optimizer: ``deepcopy`` shares it, pickling drops it."""

    def __init__(self, group: ProcessGroup | None) -> None:
        self.group = group

    def __deepcopy__(self, memo: object) -> SharedGroup:
        return self

    def __reduce__(self) -> tuple[type[SharedGroup], tuple[None]]:
        return SharedGroup, (None,)


def local_gradient(parameter: DTensor, gradient: torch.Tensor, is_written: bool) -> torch.Tensor:
    """Returns this process's part of a gradient, sharded as its parameter. TypeError for one that cannot be."""
    if not is_dtensor(gradient):
        raise TypeError(f"type={type(gradient).__name__} must be the parameter's, DTensor: use distribute_tensor()")
    distributed = cast("DTensor", gradient)
    if distributed.device_mesh != parameter.device_mesh:
        raise TypeError(f"device_mesh={distributed.device_mesh} must be the parameter's, {parameter.device_mesh}")
    if distributed.placements != parameter.placements:
        if is_written:
            raise TypeError(
                f"placements={distributed.placements} must be the parameter's, {parameter.placements}, with "
                "write_unscaled_grad=True: redistribute the gradient"
            )
        distributed = distributed.redistribute(placements=parameter.placements)
    local: Any = distributed._local_tensor
    return cast(torch.Tensor, local.wait() if hasattr(local, "wait") else local)


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns sorted ranges, each (first, how many), as (first, end). Ranges that touch become one."""
    joined: list[tuple[int, int]] = []
    for first, count in ranges:
        begin = joined.pop()[0] if joined and joined[-1][1] == first else first
        joined.append((begin, first + count))
    return joined


def _all_reduce(pieces: list[torch.Tensor], group: ProcessGroup) -> None:
    """Adds up pieces of one tensor in place. One piece on a device that the group serves is copied nowhere."""
    joined = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    total = joined.to(served(joined.device, group))
    torch.distributed.all_reduce(total, group=group)
    if total is pieces[0]:
        return
    summed = torch.split(total.to(joined.device), [len(piece) for piece in pieces])
    for piece, numbers in zip(pieces, summed, strict=True):
        piece.copy_(numbers)


def served(device: torch.device, group: ProcessGroup) -> torch.device:
    """Returns this device if the group's backends serve it, else the one that they serve."""
    served = {each.type for each in group._device_types}
    if device.type in served:
        return device
    return torch.device("cpu") if "cpu" in served else torch.device("cuda", torch.cuda.current_device())


def _places(parameter: DTensor) -> tuple[int, int, int] | None:
    """Returns where the elements of a shard stand in the whole tensor, counted in the order of rows.

    (place of the first, elements that follow each other or 0 for all, distance of such runs); None if the shard is no
    box, does not lie in the order of rows, or is cut along two dimensions behind the first.
    """
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    whole, local = tuple(parameter.shape), parameter._local_tensor
    shape, offset = compute_local_shape_and_global_offset(whole, parameter.device_mesh, parameter.placements)
    if tuple(shape) != tuple(local.shape) or not local.is_contiguous():
        return None
    distances = [math.prod(whole[dim + 1 :]) for dim in range(len(whole))]
    first = sum(at * distance for at, distance in zip(offset, distances, strict=True))
    cut = [dim for dim in range(len(whole)) if shape[dim] != whole[dim]]
    if not cut or cut[-1] == 0 or local.numel() == 0:
        return first, 0, 0
    last = cut[-1]
    if any(0 < dim < last for dim in cut):
        return None
    return first, math.prod(shape[last:]), distances[last - 1]
