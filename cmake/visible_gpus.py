"""Prints the compute capabilities of GPUs that the CUDA driver shows here, as "75;89", or fails with what is missing.

``visible_gpus.py 75`` leaves out those of less than 7.5.

The build asks the driver itself: a container may have GPUs without nvidia-smi, and nvcc's -arch=native compiles for a
default where there are none.
"""

from __future__ import annotations

import ctypes
import sys

# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
MAJOR, MINOR = 75, 76


def visible_gpus() -> list[int]:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        sys.exit(f"the CUDA driver was not found ({error})")

    def ask(name: str, *arguments: int) -> int:
        answer = ctypes.c_int()
        into = () if name == "cuInit" else (ctypes.byref(answer),)
        if result := getattr(driver, name)(*into, *map(ctypes.c_int, arguments)):
            sys.exit(f"{name} of the CUDA driver returned {result}")
        return answer.value

    ask("cuInit", 0)
    devices = [ask("cuDeviceGet", ordinal) for ordinal in range(ask("cuDeviceGetCount"))]
    if not devices:
        sys.exit("the CUDA driver sees no GPU")
    capabilities = ((ask("cuDeviceGetAttribute", each, device) for each in (MAJOR, MINOR)) for device in devices)
    return [10 * major + minor for major, minor in capabilities]


if __name__ == "__main__":
    found = sorted(set(visible_gpus()))
    least = int(sys.argv[1])
    if found[-1] < least:
        sys.exit(f"the GPU here is of compute capability {found[-1]}, where the kernels need {least}")
    print(*(each for each in found if each >= least), sep=";")
