"""Prints what is known of this machine, ``about.py environment``, or of the installed package, ``about.py package``."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable

NAMED = ("torch", "numpy", "pytest", "pybind11", "scikit-build-core", "apache-tvm-ffi", "triton", "apex")


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def environment() -> None:
    print(f"* Python {platform.python_version()}, {platform.system()} {platform.machine()}, {platform.libc_ver()[1]}")
    print("* " + ", ".join(f"{name} {version(name)}" for name in NAMED))
    import torch

    print(f"* torch's CUDA: {torch.version.cuda}; GPUs that torch sees: {torch.cuda.device_count()}")
    for at in range(torch.cuda.device_count()):
        seen = torch.cuda.get_device_properties(at)
        print(f"* GPU {at}: {seen.name}, compute capability {seen.major}.{seen.minor}, {seen.total_memory >> 20} MiB")


def package() -> None:
    """It fails where the package has no kernels."""
    info = importlib.import_module("clr_native").build_info()
    cuda = info["cuda"]
    print(f"* clr_native {info['version']}, {info['compiler']}: {info['flags']}")
    print(f"* CUDA kernels: {'compiled' if cuda['compiled'] else 'none'}; {cuda['reason'] or 'a GPU is available'}")
    if not cuda["compiled"]:
        sys.exit(f"clr_native has no CUDA kernels: {cuda['reason']}")


if __name__ == "__main__":
    told: dict[str, Callable[[], None]] = {"environment": environment, "package": package}
    told[sys.argv[1]]()
