"""What stands under every table: processor, versions, instruction set. Nothing that names a host."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import torch

import clr_native


def processor() -> str:
    """The processor's name as the system tells it, or its architecture."""
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def load() -> dict[str, str]:
    """How busy the machine already is: with every core taken, rows with several threads say nothing."""
    if not hasattr(os, "getloadavg"):
        return {}
    return {"load average before the run": f"{os.getloadavg()[0]:.1f}"}


def describe() -> dict[str, str]:
    """As a flat table of words."""
    info = clr_native.build_info()
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch instruction set": torch.backends.cpu.get_cpu_capability(),
        "numpy": np.__version__,
        "clr_native": str(info["version"]),
        "clr_native instruction set": str(info["isa"]["selected"]),
        "compiler": str(info["compiler"]),
    }


def caption(machine: dict[str, str]) -> str:
    """One sentence of what ``describe`` found."""
    cores = f"{machine['cores']} cores"
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "numpy", "clr_native"))
    before = [f"; {name} {machine[name]}" for name in load() if name in machine]
    return (
        f"{machine['processor']}, {cores}, {machine['system']}; Python {machine['python']}, {versions}; "
        f"torch runs {machine['torch instruction set']}, clr_native {machine['clr_native instruction set']} "
        f"(built with {machine['compiler']})"
        f"{''.join(before)}."
    )
