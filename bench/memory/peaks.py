"""What a whole step, and a backward pass that releases its gradients, need in memory beside what they keep.

    python -m bench.memory.peaks [--threads N] [--markdown FILE]

Every figure comes from a process of its own. Linux only: the kernel keeps the peak of a process's memory in /proc.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from bench.harness.contenders import MAX_MOMENTUM, WEIGHT_DECAY
from bench.harness.machine import caption, describe
from bench.harness.tables import table
from bench.harness.workloads import WORKLOADS, Refilled
from bench.whole_step import chain
from clr_native import FusedCyclicSGD

How = Literal["allocator", "process"]

WORKLOAD = WORKLOADS["resnet-50"]
# Gradients of 33.6M parameters, beside activations of 4 MB.
LAYERS, WIDTH, BATCH = 32, 1024, 32
ORDINARY, RELEASED, TORCH_ORDINARY = "clr_native", "clr_native, release_gradients()", "torch, fused"
BACKWARDS = (RELEASED, ORDINARY, TORCH_ORDINARY)
WARM_STEPS, MEASURED_STEPS = 3, 3

# glibc gives every larger block back to the system as soon as it is freed, or old peaks would hide new ones.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


@dataclass(frozen=True)
class Measured:
    """What is measured is ``step``, each after a ``prepare``; ``state`` is what the optimizer and average keep."""

    prepare: Callable[[], None]
    step: Callable[[], None]
    state: Callable[[], list[torch.Tensor]]


def build_whole_step(name: str) -> Measured:
    tensors = Refilled(WORKLOAD, chain.scaled_gradients(WORKLOAD))
    contender = chain.build(name, tensors)
    return Measured(tensors.turn, contender.step, lambda: contender.momentum_buffers() + contender.averages())


def build_backward(name: str) -> Measured:
    """A training step of a deep stack of linear layers, from an empty ``p.grad`` to the end of ``step()``."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
    inputs = torch.randn(BATCH, WIDTH)
    optimizer: torch.optim.Optimizer
    if name == TORCH_ORDINARY:
        optimizer = torch.optim.SGD(
            model.parameters(), lr=0.01, momentum=MAX_MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True
        )
    else:
        optimizer = ours = FusedCyclicSGD(model.parameters(), base_lr=0.01, max_lr=0.06, weight_decay=WEIGHT_DECAY)
        if name == RELEASED:
            ours.release_gradients()

    def step() -> None:
        model(inputs).square().mean().backward()
        optimizer.step()

    def state() -> list[torch.Tensor]:
        return [each["momentum_buffer"] for each in optimizer.state.values()]

    return Measured(lambda: optimizer.zero_grad(set_to_none=True), step, state)


BUILDERS: dict[str, Callable[[str], Measured]] = {"whole step": build_whole_step, "backward": build_backward}


def resident(entry: Literal["VmRSS", "VmHWM"]) -> int:
    """Bytes of this process in memory, now or at its peak."""
    found = re.search(rf"^{entry}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {entry}")
    return int(found[1]) * 1024


def process_peak(measured: Measured) -> int:
    """Bytes by which the process grows in a step, at its peak, over what it had before."""
    peaks = []
    for _ in range(MEASURED_STEPS):
        measured.prepare()
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = resident("VmRSS")
        measured.step()
        peaks.append(resident("VmHWM") - before)
    return max(peaks)


def allocator_peak(measured: Measured) -> int:
    """Bytes that torch's allocator has handed out in a step, at its peak, over what it had before."""
    measured.prepare()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        measured.step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return max((event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]"), default=0)


def measure(part: str, name: str, threads: int, how: How) -> tuple[int, int]:
    """Bytes kept from step to step, and the peak of a step over everything there was before it."""
    torch.set_num_threads(threads)
    measured = BUILDERS[part](name)
    for _ in range(WARM_STEPS):
        measured.prepare()
        measured.step()
    state = sum(each.nbytes for each in measured.state())
    return state, (allocator_peak if how == "allocator" else process_peak)(measured)


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def lines(part: str, names: Sequence[str], threads: int) -> Iterator[list[str]]:
    ways: tuple[How, How] = ("allocator", "process")
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in names:
            (state, allocator), (_, process) = (pool.apply(measure, (part, name, threads, how)) for how in ways)
            yield [name, *map(megabytes, (state, allocator, process))]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory.peaks", description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="default: standard output")
    options = parser.parse_args(argv)
    os.environ.update(MALLOC)  # the children's
    columns = ["kept from step to step", "peak over it: torch's allocator", "peak over it: the process"]
    parameters = LAYERS * (WIDTH + 1) * WIDTH
    titles = {
        "whole step": f"the whole step, {WORKLOAD.title}",
        "backward": f"forward, backward and step, {LAYERS} linear layers, {parameters / 1e6:.1f}M",
    }
    names = {"whole step": chain.QUESTION.contenders, "backward": BACKWARDS}
    parts = [table([titles[part], *columns], lines(part, names[part], options.threads)) for part in BUILDERS]
    text = "\n\n".join([*parts, f"Threads: {options.threads}. {caption(describe())}"]) + "\n"
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
