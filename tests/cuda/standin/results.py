"""Numbers of <cuda.h>: what a call of the driver answers, and what a device is asked."""

from __future__ import annotations

from enum import IntEnum


class Result(IntEnum):
    """Some of CUresult."""

    SUCCESS = 0
    INVALID_VALUE = 1
    OUT_OF_MEMORY = 2
    NOT_INITIALIZED = 3
    DEINITIALIZED = 4
    NO_DEVICE = 100
    INVALID_DEVICE = 101
    INVALID_IMAGE = 200
    INVALID_CONTEXT = 201
    NO_BINARY_FOR_GPU = 209
    INVALID_HANDLE = 400
    NOT_FOUND = 500
    NOT_READY = 600
    ILLEGAL_ADDRESS = 700
    LAUNCH_FAILED = 719
    STREAM_CAPTURE_UNSUPPORTED = 900
    STREAM_CAPTURE_INVALIDATED = 901
    STREAM_CAPTURE_ISOLATION = 905
    STREAM_CAPTURE_IMPLICIT = 906
    CAPTURED_EVENT = 907
    UNKNOWN = 999

    @property
    def constant(self) -> str:
        return "CUDA_SUCCESS" if self == 0 else f"CUDA_ERROR_{self.name}"

    @property
    def text(self) -> str:
        return "no error" if self == 0 else self.name.lower().replace("_", " ")


class Attribute(IntEnum):
    """Some of CUdevice_attribute."""

    MAX_THREADS_PER_BLOCK = 1
    MULTIPROCESSOR_COUNT = 16
    MAX_THREADS_PER_MULTIPROCESSOR = 39
    COMPUTE_CAPABILITY_MAJOR = 75
    COMPUTE_CAPABILITY_MINOR = 76


class RefusedError(Exception):
    def __init__(self, result: Result) -> None:
        super().__init__(result.constant)
        self.result = result


def refuse(when: bool, result: Result) -> None:
    if when:
        raise RefusedError(result)
