"""What a kernel takes of a GPU, read from its machine code, where the CUDA toolkit's cuobjdump may not be.

Machine code is an ELF file, whose section .nv.info is documented nowhere: records of a format, an attribute and a size,
and words.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_WORDS = 4  # the format of a record with words behind it
_FRAME_SIZE, _REGISTERS = 0x11, 0x2F  # attributes of the symbol that the first word names
_NOT_IN_FILE = 8  # a section of zeros


@dataclass
class Resources:
    """For each thread."""

    registers: int = 0
    frame: int = 0  # bytes of local memory: arrays, and registers that were spilled


def resources(cubin: bytes) -> dict[str, Resources]:
    """Of the functions, by name."""
    parts, found = _sections(cubin), dict[str, Resources]()
    for attribute, words in _records(parts[".nv.info"]):
        if attribute in (_FRAME_SIZE, _REGISTERS):
            symbol, value = words
            (name,) = struct.unpack_from("<I", parts[".symtab"], 24 * symbol)
            function = found.setdefault(_string(parts[".strtab"], name), Resources())
            setattr(function, "frame" if attribute == _FRAME_SIZE else "registers", value)
    return found


def _sections(elf: bytes) -> dict[str, bytes]:
    assert elf.startswith(b"\x7fELF\x02\x01"), elf[:6]  # of 64 bits, little-endian
    (at,) = struct.unpack_from("<Q", elf, 40)
    size, count, of_names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<II16xQQ", elf, at + i * size) for i in range(count)]
    names = headers[of_names][2]
    return {
        _string(elf, names + name): elf[begin : begin + length]
        for name, kind, begin, length in headers
        if kind != _NOT_IN_FILE
    }


def _records(info: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    at = 0
    while at < len(info):
        kind, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if kind == _WORDS:
            yield attribute, struct.unpack_from(f"<{size // 4}I", info, at)
            at += size


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode("ascii")
