"""Faults to be caught."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from toolkit import nvcc, ptx_of

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


@contextmanager
def all_planted(folder: Path, kernel: Path, faults: Mapping[str, Fault]) -> Iterator[dict[str, Future[Path]]]:
    """A copy for each fault, being compiled while other tests run."""

    def made(number: int, fault: Fault) -> Path:
        own = folder / str(number)
        own.mkdir()
        source = planted(own, kernel, *fault)
        ptx_of(source)
        return source

    nvcc()
    with ThreadPoolExecutor(1) as pool:
        yield {name: pool.submit(made, number, fault) for number, (name, fault) in enumerate(faults.items())}
        pool.shutdown(cancel_futures=True)
