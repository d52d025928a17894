"""Faults to be caught."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from toolkit import ptx_of

Fault = tuple[Path, str, str]  # a file of csrc/cuda, what stands there, and what is to stand there


def planted(folder: Path, kernel: Path, file: Path, right: str, wrong: str) -> Path:
    """A copy of a kernel with one thing changed in it, or in a header that it includes."""
    text, copy = file.read_text(), folder / file.name
    assert text.count(right) == 1
    copy.write_text(text.replace(right, wrong))
    if file != kernel:
        changed, found = re.subn(rf'"\w+/{file.name}"', f'"{copy}"', kernel.read_text())
        assert found == 1, "included by the kernel itself"
        (folder / kernel.name).write_text(changed)
    return folder / kernel.name


def all_planted(folder: Path, kernel: Path, faults: Mapping[str, Fault]) -> dict[str, Path]:
    """A copy for each fault, compiled: several at once, which one test after another would not be."""
    sources = {}
    for number, (name, fault) in enumerate(faults.items()):
        own = folder / str(number)
        own.mkdir()
        sources[name] = planted(own, kernel, *fault)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ptx_of, sources.values()))
    return sources
