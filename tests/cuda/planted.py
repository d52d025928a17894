"""Faults to be caught."""

from __future__ import annotations

import re
from pathlib import Path


def planted(folder: Path, kernel: Path, file: Path, right: str, wrong: str) -> Path:
    """A copy of a kernel with one thing changed in it, or in a header that it includes."""
    text, copy = file.read_text(), folder / file.name
    assert text.count(right) == 1
    copy.write_text(text.replace(right, wrong))
    if file != kernel:
        changed = re.sub(rf'"\w+/{file.name}"', f'"{copy}"', kernel.read_text())
        (folder / kernel.name).write_text(changed)
    return folder / kernel.name
