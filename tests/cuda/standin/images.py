"""The PTX in what cuModuleLoadData is given."""

from __future__ import annotations

import ctypes
from functools import cache

import ptx
from image import MAGIC, PTX, entries, size_of_image
from standin.results import RefusedError, Result


def module_of(image: int) -> ptx.Module:
    """The module at an address: PTX as text, or a fatbinary with PTX in it."""
    if ctypes.string_at(image, 4) != MAGIC:
        return _parsed(ctypes.string_at(image).decode("ascii"))
    whole = ctypes.string_at(image, size_of_image(ctypes.string_at(image, 16)))
    found = [entry for entry in entries(whole) if entry.kind == PTX]
    if not found:
        raise RefusedError(Result.NO_BINARY_FOR_GPU)
    return _parsed(found[-1].text())


@cache
def _parsed(text: str) -> ptx.Module:
    if ".version" not in text:
        raise RefusedError(Result.INVALID_IMAGE)
    return ptx.parse(text)
