"""Prints where dlpack.h is, or fails with what to install: the build requirement apache-tvm-ffi brings one.

Where a build without isolation lacks that, torch's own copy does, without torch being imported.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

# What is taken of the header that older ones lack.
NEEDED = "DLPackExchangeAPI"


def headers() -> list[Path]:
    """Where one may be, the best first."""
    found = []
    try:
        from tvm_ffi import libinfo

        found.append(Path(libinfo.find_dlpack_include_path()) / "dlpack" / "dlpack.h")
    except (ImportError, RuntimeError, OSError):
        pass
    torch = importlib.util.find_spec("torch")
    if torch is not None and torch.origin is not None:
        found.append(Path(torch.origin).parent / "include" / "ATen" / "dlpack.h")
    return found


if __name__ == "__main__":
    for header in headers():
        if header.is_file() and NEEDED in header.read_text(encoding="utf-8"):
            print(header.as_posix())
            break
    else:
        sys.exit(f"no dlpack.h with {NEEDED}: pip install apache-tvm-ffi, or torch>=2.10, for {sys.executable}")
