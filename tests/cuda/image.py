"""The image of kernels that a package holds: a fatbinary, as nvcc makes it, of code for several architectures.

The layout is nowhere documented. It is a header (magic, version, size of the header, size of the rest) and entries,
each with a header (kind, version, size of the header, size of the rest, ..., architecture) of its own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

MAGIC = struct.pack("<I", 0xBA55ED50)
PTX, CUBIN = 1, 2  # kinds of entries


@dataclass(frozen=True)
class Entry:
    kind: int
    architecture: int  # 75 for sm_75 or compute_75
    data: bytes  # as it is stored, which for us is plain: nvcc is told not to compress

    def text(self) -> str:
        """Of PTX."""
        return self.data.rstrip(b"\0").decode("ascii")


def size_of_image(header: bytes) -> int:
    """Told by its first 16 bytes."""
    own, rest = struct.unpack("<6xHQ", header)
    return int(own) + int(rest)


def entries(image: bytes) -> list[Entry]:
    at = int(struct.unpack_from("<6xH", image)[0])
    found = []
    while at < len(image):
        kind, header, rest = struct.unpack_from("<H2xIQ", image, at)
        (architecture,) = struct.unpack_from("<I", image, at + 28)
        found.append(Entry(kind, architecture, image[at + header : at + header + rest]))
        at += header + rest
    return found


def image_in(library: Path) -> bytes | None:
    """The first image in a file, if there is one."""
    data = library.read_bytes()
    at = data.find(MAGIC)
    return None if at < 0 else data[at : at + size_of_image(data[at : at + 16])]
