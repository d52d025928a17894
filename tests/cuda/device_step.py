"""An optimizer's step on the PTX interpreter, from the tensors of one that runs on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clr_native import CyclicSchedule, FusedCyclicSGD
from core_samples import pieces_of
from exact import Array
from ptx import Memory, Module, launch
from ptx.launch import Statistics
from toolkit import SAMPLES, SOURCES, compiled

STEP = SOURCES / "cuda" / "step.cu"
CHUNK = 16384
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
ASKED_SLOT = np.dtype(
    [(name, "u8") for name in ("parameter", "gradient", "buffer", "average", "companion")]
    + [("size", "i8"), ("position", "u8"), ("trust_ratio", "f8"), ("group", "u4")]
    + [(name, "i4") for name in ("dtype", "buffer_dtype", "storage")]
)
ASKED_GROUP = np.dtype(
    [("pieces", "u8")]
    + [(name, "f8") for name in ("lr", "momentum", "dampening", "weight_decay", "ema_decay")]
    + [("seed", "u8")]
    + [(name, "i4") for name in ("nesterov", "maximize", "averages", "ema_warmup")],
)


def bits(tensor: Tensor) -> Array:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().copy()


@dataclass
class Place:
    """A tensor in device memory."""

    address: int
    size: int  # bytes


class DeviceStep:
    """The tables of one device, filled from an optimizer before its first step.

    `offset`: how many bytes past a multiple of 4096 all tensors lie.
    """

    def __init__(self, optimizer: FusedCyclicSGD, offset: int = 0, source: Path = STEP) -> None:
        self.memory = Memory()
        self.kernel = compiled(source).kernels["clr_step"]
        self.setup: Module = compiled(SAMPLES / "step_tables.cu")
        self.places: list[dict[str, Place]] = []
        groups, slots, chunks = self._asked(optimizer, offset)
        sizes = np.zeros(3, np.uint64)
        self._run("sizes", self.memory.add(sizes))
        slot_size, group_size, table_size = (int(size) for size in sizes)
        self.at_slots = self.memory.allocate(slot_size * len(slots), name="slots")
        self.at_groups = self.memory.allocate(group_size * len(groups), name="groups")
        self.tables = self.memory.allocate(table_size, name="tables")
        self._run("fill_slots", self.memory.add(slots), len(slots), self.at_slots, threads=len(slots))
        self._run("fill_groups", self.memory.add(groups), len(groups), self.at_groups, threads=len(groups))
        at_chunks = self.memory.add(chunks, read_only=True, name="chunks")
        filled = (self.at_slots, len(slots), self.at_groups, len(groups), at_chunks, len(chunks))
        self._run("fill_tables", self.tables, *filled)
        self.set_rules()

    def _run(self, name: str, *arguments: Any, threads: int = 1) -> None:
        launch(self.setup.kernels[name], 1, threads, list(arguments), self.memory)

    def _place(self, tensor: Tensor, offset: int, name: str) -> Place:
        data = bits(tensor)
        place = Place(self.memory.allocate(max(len(data), 1), offset=offset, name=name), len(data))
        if place.size:
            self.memory.write(place.address, data)
        return place

    def _asked(self, optimizer: FusedCyclicSGD, offset: int) -> tuple[Array, Array, Array]:
        groups = np.zeros(len(optimizer.param_groups), ASKED_GROUP)
        slots: list[tuple[Any, ...]] = []
        chunks: list[tuple[int, int]] = []
        for g, group in enumerate(optimizer.param_groups):
            schedule = optimizer._schedule_of(group)
            assert isinstance(schedule, CyclicSchedule)
            row = groups[g]
            row["pieces"] = self.memory.add(pieces_of([schedule]), read_only=True, name="pieces")
            for name in ("lr", "momentum", "dampening", "weight_decay", "seed", "nesterov", "maximize", "ema_warmup"):
                row[name] = group[name]
            row["averages"] = group["ema_decay"] is not None
            row["ema_decay"] = group["ema_decay"] or 0.0
            for parameter in group["params"]:
                chunks += [(len(slots), part) for part in range(-(-parameter.numel() // CHUNK))]
                slots.append(self._slot(parameter, group, g, len(slots), offset))
        return groups, np.array(slots, ASKED_SLOT), np.array(chunks, np.dtype([("slot", "u4"), ("part", "u4")]))

    def _slot(self, parameter: Tensor, group: dict[str, Any], g: int, position: int, offset: int) -> tuple[Any, ...]:
        kept = [group["rounding"] == "stochastic", group["kahan"], group["master_weights"], True]
        storage = [1, 2, 3, 0][kept.index(True)]
        wide = torch.float32 if storage == 3 else parameter.dtype
        buffer_dtype = getattr(torch, group["momentum_dtype"]) if group["momentum_dtype"] else wide
        zeros = torch.zeros_like(parameter)
        places = {
            "parameter": self._place(parameter, offset, "parameter"),
            "gradient": self._place(zeros, offset, "gradient"),
            "momentum_buffer": self._place(zeros.to(buffer_dtype), offset, "momentum_buffer"),
            "average": self._place(zeros.to(wide), offset, "average"),
            "compensation": self._place(zeros if storage == 2 else parameter.to(wide), offset, "companion"),
        }
        self.places.append(places)
        addresses = [place.address for place in places.values()]
        addresses[3] *= group["ema_decay"] is not None
        addresses[4] *= storage >= 2
        dtypes = (DTYPES.index(parameter.dtype), DTYPES.index(buffer_dtype), storage)
        return (*addresses, parameter.numel(), position, 1.0, g, *dtypes)

    def make_huge(self, parameter: int, gradient: int, size: int, parts: list[int]) -> None:
        """One float32 tensor in the place of all, of which a step runs over some parts only."""
        slots = np.zeros(1, ASKED_SLOT)
        slots["parameter"], slots["gradient"], slots["size"], slots["trust_ratio"] = parameter, gradient, size, 1.0
        chunks = np.array([(0, part) for part in parts], np.dtype([("slot", "u4"), ("part", "u4")]))
        self._run("fill_slots", self.memory.add(slots), 1, self.at_slots)
        at_chunks = self.memory.add(chunks, read_only=True, name="chunks")
        self._run("fill_tables", self.tables, self.at_slots, 1, self.at_groups, 1, at_chunks, len(parts))
        self.set_rules()

    def set_rules(self, clip_coefficient: float = 1.0, limit: float = 0.0, advance_on_skip: bool = False) -> None:
        self._run("set_rules", self.tables, clip_coefficient, limit, int(advance_on_skip))

    def step(
        self,
        gradients: list[Tensor],
        *,
        grid: int = 3,
        order: list[int] | None = None,
        seed: int | None = None,
        grad_scale: float | None = None,
        found_inf: float | None = None,
    ) -> Statistics:
        for places, gradient in zip(self.places, gradients, strict=True):
            if gradient.numel():
                self.memory.write(places["gradient"].address, bits(gradient))
        told = [0 if x is None else self.memory.add(np.array([x], np.float32)) for x in (grad_scale, found_inf)]
        statistics = launch(self.kernel, grid, 512, [self.tables, *told], self.memory, blocks=order, seed=seed)
        for address in filter(None, told):
            self.memory.release(address)
        return statistics

    def bits(self, position: int, name: str) -> Array:
        place = self.places[position][name]
        return self.memory.read(place.address, np.uint8, place.size) if place.size else np.zeros(0, np.uint8)

    def counts(self, group: int = 0) -> tuple[dict[str, int], tuple[float, float]]:
        """The device's counters, and lr and momentum of the group's next update."""
        numbers, values = np.zeros(6, np.uint64), np.zeros(2)
        at = [self.memory.add(array) for array in (numbers, values)]
        self._run("counts", self.tables, group, *at)
        for address in at:
            self.memory.release(address)
        names = ("applied", "skipped", "ticket", "step", "n_averaged", "n_updates")
        return {name: int(n) for name, n in zip(names, numbers, strict=True)}, (float(values[0]), float(values[1]))
