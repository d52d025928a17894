"""Calls of the stand-in, from C to the functions that answer."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

from standin import functions_context, functions_kernels, functions_memory, functions_streams
from standin.answers import ANSWERS, Answer, Call
from standin.gpu import Gpu
from standin.results import RefusedError, Result, refuse

FILES = (functions_context, functions_kernels, functions_memory, functions_streams)  # that fill ANSWERS
_HANDLER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint64), ctypes.c_size_t)


class Driver:
    """A loaded libcuda.so.1 that answers for a Gpu, one call at a time."""

    def __init__(self, gpu: Gpu, library: Path) -> None:
        self.gpu = gpu
        self.library = ctypes.CDLL(str(library))
        self._lock = threading.RLock()
        self._holds_gil = ctypes.c_int.in_dll(self.library, "standin_caller_holds_gil")
        self._handler = _HANDLER(self._handle)
        self.open()

    def open(self) -> None:
        self.library.standin_set_handler(self._handler)

    def close(self) -> None:
        """All calls answer CUDA_ERROR_DEINITIALIZED, as at the end of a process."""
        self.library.standin_set_handler(_HANDLER())

    def _handle(self, name: bytes, arguments: Any, count: int) -> int:
        with self._lock:
            return self._logged(name, arguments, count)

    def _logged(self, name: bytes, arguments: Any, count: int) -> int:
        gpu = self.gpu
        call = Call(name.decode(), {}, gpu.stack[-1].device if gpu.stack else None)
        call.holds_gil = bool(self._holds_gil.value)
        gpu.log.append(call)
        try:
            answer = ANSWERS[call.name]
            call.arguments.update(zip(answer.parameters, arguments[:count], strict=True))
            self._answer(answer, call)
        except RefusedError as refusal:
            call.result = refusal.result
        except BaseException as error:  # must not pass through C
            gpu.faults.append(error)
            call.result = Result.UNKNOWN
        return call.result

    def _answer(self, answer: Answer, call: Call) -> None:
        gpu = self.gpu
        refuse(not gpu.initialised and not answer.before_init, Result.NOT_INITIALIZED)
        planned, gpu.failures = gpu.failures, []
        fails = Result.SUCCESS
        for name, left, result in planned:
            if name == call.name and left == 1:
                fails = result
            else:
                gpu.failures.append((name, left - (name == call.name), result))
        refuse(bool(fails), fails)
        if answer.in_context:
            refuse(bool(gpu.current.broken), gpu.current.broken)
        if answer.may_wait:
            refuse(gpu.spoil_captures(), Result.STREAM_CAPTURE_UNSUPPORTED)
        answer.run(gpu, *call.arguments.values())
