"""An optimizer's step on the PTX interpreter, from the tensors of one that runs on the CPU."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clr_native import CyclicSchedule, FusedCyclicSGD
from core_samples import pieces_of
from ptx import Memory, Module, launch
from ptx.launch import Statistics
from ptx.types import Array
from toolkit import SAMPLES, SOURCES, compiled, shipped

STEP = SOURCES / "cuda" / "step.cu"
NORM = SOURCES / "cuda" / "norm.cu"
CHUNK, SHARED_CHUNK = 16384, 2048
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CHUNKS = np.dtype([(name, "u4") for name in ("slot", "part", "number")])
PLAIN = ["clr_step_float32", "clr_step_float64", "clr_step_bfloat16", "clr_step_float16"]
ASKED_SLOT = np.dtype(
    [(name, "u8") for name in ("parameter", "gradient", "buffer", "average", "companion")]
    + [("size", "i8"), ("position", "u8"), ("trust_ratio", "f8"), ("group", "u4")]
    + [(name, "i4") for name in ("dtype", "buffer_dtype", "gradient_dtype", "storage", "trusted")]
)
ASKED_GROUP = np.dtype(
    [("pieces", "u8")]
    + [(name, "f8") for name in ("lr", "momentum", "dampening", "weight_decay", "ema_decay")]
    + [(name, "f8") for name in ("trust_coefficient", "trust_eps", "lr_scale")]
    + [("seed", "u8")]
    + [(name, "i4") for name in ("nesterov", "maximize", "averages", "ema_warmup", "counts_updates")]
    + [("", "V4")],
)
ASKED_STEP = np.dtype(
    [(name, "f8") for name in ("scale", "limit", "max_norm")]
    + [(name, "u8") for name in ("grad_scale", "found_inf", "report_inf")]
    + [(name, "i4") for name in ("trusts", "measured", "skips_nonfinite", "skipped", "advances_on_skip")]
    + [("", "V4")],
)


def bits(tensor: Tensor) -> Array:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().copy()


@dataclass
class Place:
    """A tensor in device memory."""

    address: int
    size: int  # bytes


@dataclass
class Found:
    norm: float
    clip_coefficient: float
    finite: bool
    trust_ratios: list[float]


class DeviceStep:
    """The tables of one device, filled from an optimizer before its first step.

    Its kernels are those that the package ships, or those of `source`. As the host would, it takes the kernel of one
    dtype for plain updates, unless `general`.
    `offset`: how many bytes past a multiple of 4096 all tensors lie. `bare`: the positions of parameters that have no
    gradient.
    """

    def __init__(
        self,
        optimizer: FusedCyclicSGD,
        offset: int = 0,
        source: Path | None = None,
        bare: Collection[int] = (),
        *,
        general: bool = False,
    ) -> None:
        self.memory = Memory()
        self.kernels = (shipped() if source is None else compiled(source)).kernels
        self.setup: Module = compiled(SAMPLES / "step_tables.cu")
        self.places: list[dict[str, Place]] = []
        groups, slots, chunks = self._asked(optimizer, offset, bare)
        self.general = general
        sizes = np.zeros(8, np.uint64)
        self._run("sizes", self.memory.add(sizes))
        names = ("slot", "settings", "progress", "state", "work", "step", "report", "part")
        self.sizes = dict(zip(names, map(int, sizes), strict=True))
        self.at_slots = self.memory.allocate(self.sizes["slot"] * len(slots), name="slots")
        self.settings = self.memory.allocate(self.sizes["settings"] * len(groups), name="settings")
        self.progress = self.memory.allocate(2 * self.sizes["progress"] * len(groups), name="progress")
        self.state = self.memory.allocate(self.sizes["state"], name="state")
        holds = [self.memory.allocate(len(slots), name=f"{what} holds") for what in ("buffer", "average")]
        self._run("fill_slots", self.memory.add(slots), len(slots), self.at_slots, threads=len(slots))
        asked = (self.memory.add(groups), len(groups), self.settings, self.progress)
        self._run("fill_groups", *asked, threads=len(groups))
        report = self.memory.allocate(self.sizes["report"], name="report")
        self._run("fill_state", self.state, self.settings, self.progress, len(groups), *holds, report)
        self.works = 0
        self._set_work(slots, chunks)
        self.rules: dict[str, Any] = {}

    def _set_work(self, slots: Array, chunks: Array) -> None:
        at = self.memory.allocate(self.sizes["work"])
        left = slots["size"][chunks["slot"]] - chunks["part"].astype(np.int64) * CHUNK
        by_size = chunks[np.argsort(-np.minimum(left, CHUNK), kind="stable")]
        tables = [self.memory.add(table, read_only=True, name="chunks") for table in (chunks, by_size)]
        parts = self.memory.allocate(2 * len(chunks) * self.sizes["part"], fill=0xFF, name="parts")
        first = np.searchsorted(chunks["slot"], np.arange(len(slots))).astype(np.uint64)
        at_first = self.memory.add(first, read_only=True, name="first_chunks")
        self.works += 1
        counts = (len(chunks), int((left >= SHARED_CHUNK).sum()), self.works)
        ended = self.memory.allocate(4 * len(slots), name="ended")
        self.lengths = self.memory.allocate(16 * len(slots), name="lengths")
        scratch = (parts, at_first, ended, self.lengths)
        self._run("fill_work", at, self.at_slots, len(slots), *tables, *counts, *scratch)
        self.work = self.memory.read(at, np.uint8, self.sizes["work"]).tobytes()
        own = slots["dtype"] == slots["dtype"][:1]
        own &= (slots["buffer_dtype"] == slots["dtype"]) & (slots["gradient_dtype"] == slots["dtype"])
        own &= (slots["average"] == 0) & (slots["storage"] == 0) & (slots["gradient"] != 0)
        self.plain = PLAIN[slots["dtype"][0]] if own.all() else None

    def _step(self, asked: dict[str, Any]) -> bytes:
        row = np.zeros(1, ASKED_STEP)
        for name, value in {"scale": 1.0, **asked}.items():
            row[name] = value
        at = [self.memory.add(row), self.memory.allocate(self.sizes["step"])]
        self._run("fill_step", at[1], at[0])
        made = self.memory.read(at[1], np.uint8, self.sizes["step"]).tobytes()
        for address in at:
            self.memory.release(address)
        return made

    def _run(self, name: str, *arguments: Any, threads: int = 1) -> None:
        launch(self.setup.kernels[name], 1, threads, list(arguments), self.memory)

    def _place(self, tensor: Tensor, offset: int, name: str) -> Place:
        data = bits(tensor)
        place = Place(self.memory.allocate(max(len(data), 1), offset=offset, name=name), len(data))
        if place.size:
            self.memory.write(place.address, data)
        return place

    def _asked(self, optimizer: FusedCyclicSGD, offset: int, bare: Collection[int]) -> tuple[Array, Array, Array]:
        groups = np.zeros(len(optimizer.param_groups), ASKED_GROUP)
        slots: list[tuple[Any, ...]] = []
        chunks: list[tuple[int, int, int]] = []
        for g, group in enumerate(optimizer.param_groups):
            schedule = optimizer._schedule_of(group)
            assert isinstance(schedule, CyclicSchedule)
            row = groups[g]
            row["pieces"] = self.memory.add(pieces_of([schedule]), read_only=True, name="pieces")
            row["lr"] = schedule(group["applied_steps"]).lr
            for name in (
                "lr_scale",
                "momentum",
                "dampening",
                "weight_decay",
                "seed",
                "nesterov",
                "maximize",
                "ema_warmup",
            ):
                row[name] = group[name]
            row["averages"] = group["ema_decay"] is not None
            row["ema_decay"] = group["ema_decay"] or 0.0
            row["trust_coefficient"] = group["trust_coefficient"] or 0.0
            row["trust_eps"] = group["trust_eps"]
            row["counts_updates"] = group["rounding"] == "stochastic"
            for parameter in group["params"]:
                own = range(-(-parameter.numel() // CHUNK))
                chunks += [(len(slots), part, len(chunks) + part) for part in own]
                position = len(slots)
                slots.append(self._slot(parameter, group, g, position, offset, position not in bare))
        return groups, np.array(slots, ASKED_SLOT), np.array(chunks, CHUNKS)

    def _slot(
        self, parameter: Tensor, group: dict[str, Any], g: int, position: int, offset: int, has_gradient: bool
    ) -> tuple[Any, ...]:
        kept = [group["rounding"] == "stochastic", group["kahan"], group["master_weights"], True]
        storage = [1, 2, 3, 0][kept.index(True)]
        wide = torch.float32 if storage == 3 else parameter.dtype
        buffer_dtype = getattr(torch, group["momentum_dtype"]) if group["momentum_dtype"] else wide
        gradient_dtype = getattr(parameter, "grad_dtype", None) or parameter.dtype
        zeros = torch.zeros_like(parameter)
        places = {
            "parameter": self._place(parameter, offset, "parameter"),
            "gradient": self._place(zeros.to(gradient_dtype), offset, "gradient"),
            "momentum_buffer": self._place(zeros.to(buffer_dtype), offset, "momentum_buffer"),
            "average": self._place(zeros.to(wide), offset, "average"),
            "compensation": self._place(zeros if storage == 2 else parameter.to(wide), offset, "companion"),
        }
        self.places.append(places)
        addresses = [place.address for place in places.values()]
        addresses[1] *= has_gradient
        addresses[3] *= group["ema_decay"] is not None
        addresses[4] *= storage >= 2
        trusted = has_gradient and bool(group["trust_coefficient"]) and parameter.dim() >= group["trust_min_ndim"]
        dtypes = [DTYPES.index(dtype) for dtype in (parameter.dtype, buffer_dtype, gradient_dtype)]
        return (*addresses, parameter.numel(), position, 1.0, g, *dtypes, storage, trusted)

    def make_huge(self, parameter: int, gradient: int, size: int, parts: list[int]) -> None:
        """One float32 tensor in the place of all, of which a step runs over some parts only."""
        slots = np.zeros(1, ASKED_SLOT)
        slots["parameter"], slots["gradient"], slots["size"], slots["trust_ratio"] = parameter, gradient, size, 1.0
        chunks = np.array([(0, part, number) for number, part in enumerate(parts)], CHUNKS)
        self._run("fill_slots", self.memory.add(slots), 1, self.at_slots)
        self._set_work(slots, chunks)

    def set_rules(self, *, clip_coefficient: float | None = None, finite: bool = True, **rules: Any) -> None:
        """What every step is told from now on; `clip_coefficient` and `finite` as if clr_norm had found them."""
        self.rules = rules
        if clip_coefficient is not None:
            self.rules["measured"] = True
            self._run("set_measured", self.state, clip_coefficient, int(finite))

    def override_next(self, lr: float, momentum: float, group: int = 0) -> None:
        self._run("override_next", self.settings, group, lr, momentum)

    def step(self, gradients: Sequence[Tensor | None], **how: Any) -> Statistics:
        """See _launch()."""
        rules = {name for name, value in self.rules.items() if value} - {"skips_nonfinite", "advances_on_skip"}
        asks = self.general or how.get("grad_scale") is not None or bool(rules)
        return self._launch("clr_step" if asks or self.plain is None else self.plain, gradients, **how)

    def measure(self, gradients: Sequence[Tensor | None], **how: Any) -> Statistics:
        """What comes before a step that is told `measured`. See _launch()."""
        return self._launch("clr_norm", gradients, **how)

    def _launch(
        self,
        kernel: str,
        gradients: Sequence[Tensor | None],
        *,
        grid: int = 3,
        order: list[int] | None = None,
        resident: int = 1,
        seed: int | None = None,
        grad_scale: float | None = None,
        found_inf: float | None = None,
    ) -> Statistics:
        for places, gradient in zip(self.places, gradients, strict=True):
            if gradient is not None and gradient.numel():
                self.memory.write(places["gradient"].address, bits(gradient))
        self.scale = float(np.float32(1.0 / (grad_scale or 1.0)))
        given = {"grad_scale": grad_scale, "found_inf": found_inf}
        told = {name: self.memory.add(np.array([x], np.float32)) for name, x in given.items() if x is not None}
        arguments: list[int | bytes] = [self.state, self.work, self._step({**self.rules, **told})]
        threads = 256 if kernel == "clr_step" else 512
        how: dict[str, Any] = {"blocks": order, "resident": resident, "seed": seed}
        statistics = launch(self.kernels[kernel], grid, threads, arguments, self.memory, **how)
        for address in told.values():
            self.memory.release(address)
        return statistics

    def found(self) -> Found:
        """What the last measure() has found out."""
        numbers, ratios = np.zeros(4), np.zeros(len(self.places))
        at = [self.memory.add(array) for array in (numbers, ratios)]
        self._run("found", self.state, self.at_slots, self.lengths, len(ratios), self.scale, *at)
        for address in at:
            self.memory.release(address)
        assert numbers[3] == 0, "the ticket"
        return Found(float(numbers[0]), float(numbers[1]), bool(numbers[2]), ratios.tolist())

    def bits(self, position: int, name: str) -> Array:
        place = self.places[position][name]
        return self.memory.read(place.address, np.uint8, place.size) if place.size else np.zeros(0, np.uint8)

    def counts(self, group: int = 0) -> tuple[dict[str, int], tuple[float, float]]:
        """The device's counters, and lr and momentum of the group's next update."""
        numbers, values = np.zeros(7, np.uint64), np.zeros(2)
        at = [self.memory.add(array) for array in (numbers, values)]
        self._run("counts", self.state, group, *at)
        for address in at:
            self.memory.release(address)
        names = ("applied", "skipped", "ticket", "step", "n_averaged", "n_updates", "skipped_steps")
        return {name: int(n) for name, n in zip(names, numbers, strict=True)}, (float(values[0]), float(values[1]))
