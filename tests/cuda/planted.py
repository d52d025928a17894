"""Faults to be caught."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from toolkit import SOURCES, nvcc, ptx_of

Fault = tuple[Path, str, str]  # a file under csrc/, what stands there, and what is to stand there


def planted(folder: Path, kernel: Path, file: Path, right: str, wrong: str) -> Path:
    """A copy of a kernel with one thing changed in it, or in a header, which is found beside the copy first."""
    text = file.read_text()
    assert text.count(right) == 1
    (folder / kernel.name).write_text(kernel.read_text())
    copy = folder / (kernel.name if file == kernel else file.relative_to(SOURCES))
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(text.replace(right, wrong))
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
