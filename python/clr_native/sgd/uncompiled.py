"""Keeps torch.compile out of a function, at no cost to those who do not compile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any


def run_uncompiled(function: Callable[..., Any], reason: str) -> None:
    """Makes torch.compile call a function as it is: one break of the graph, which gives ``reason``.

    ``torch.compiler.disable`` does the same with a wrapper that costs as much as a small step. Without torch's private
    names a compiled function has more breaks, and the same results.
    """
    # While a caller is traced, the compiler looks for these two marks, which torch.compiler.disable sets as well.
    marks: Any = function
    marks._torchdynamo_disable = True
    marks._torchdynamo_disable_msg = reason
    with contextlib.suppress(ImportError, AttributeError):
        from torch._C._dynamo import eval_frame

        # When the compiled caller then calls the function, neither its frame nor those below are to be compiled.
        skip = eval_frame._FrameAction.SKIP
        eval_frame.set_code_exec_strategy(function.__code__, eval_frame._FrameExecStrategy(skip, skip))
