"""The PTX in what cuModuleLoadData is given."""

from __future__ import annotations

import ctypes
import struct
from functools import cache

import ptx
from standin.results import RefusedError, Result

_FATBIN = 0xBA55ED50
_ZSTD = bytes.fromhex("28b52ffd")
_PTX = 1  # the kind of an entry


def module_of(image: int) -> ptx.Module:
    """The module at an address: PTX as text, or a fatbinary with PTX in it, plain or compressed by nvcc 13 (with zstd).

    The layout of fatbinaries is nowhere documented. It is a header (magic, version, size of the header, size of the
    rest) and entries, each with a header (kind, version, size of the header, size of the rest) of its own.
    """
    if struct.unpack("<I", ctypes.string_at(image, 4))[0] != _FATBIN:
        return _parsed(ctypes.string_at(image).decode("ascii"))
    header, rest = struct.unpack("<6xHQ", ctypes.string_at(image, 16))
    data = ctypes.string_at(image + header, rest)
    at, found = 0, b""
    while at < len(data):
        kind, header, rest = struct.unpack_from("<H2xIQ", data, at)
        if kind == _PTX:
            found = data[at + header : at + header + rest]
        at += header + rest
    if not found:
        raise RefusedError(Result.NO_BINARY_FOR_GPU)
    return _parsed(_plain(found).rstrip(b"\0").decode("ascii"))


def _plain(entry: bytes) -> bytes:
    if not entry.startswith(_ZSTD):
        return entry
    import zstandard

    plain: bytes = zstandard.ZstdDecompressor().decompressobj().decompress(entry)
    return plain


@cache
def _parsed(text: str) -> ptx.Module:
    if ".version" not in text:
        raise RefusedError(Result.INVALID_IMAGE)
    return ptx.parse(text)
