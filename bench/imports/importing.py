"""What ``import clr_native`` adds to ``import torch``, in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys

from bench.harness.rounds import Visit

_SCRIPT = """
from time import perf_counter
start = perf_counter()
{imports}
print(perf_counter() - start)
"""

IMPORTS = {
    "import torch": "import torch",
    "import torch, clr_native": "import torch, clr_native",
    "import clr_native": "import torch; start = perf_counter(); import clr_native",
}


def importing(imports: str) -> Visit:
    """Seconds of the imports as the fresh interpreter itself sees them."""
    script = _SCRIPT.format(imports=imports)

    def go() -> float:
        command = [sys.executable, "-c", script]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    return go
