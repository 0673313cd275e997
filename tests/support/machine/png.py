"""Reads the PNG files that a browser writes: 8 bits a channel, not interlaced."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x89PNG\r\n\x1a\n"
CHANNELS = {2: 3, 6: 4}


def read_png(path: Path) -> NDArray[np.uint8]:
    """A picture's pixels.

    Source: W3C PNG specification (second edition), sections 5, 7 and 9.

    Args:
        path: the file.

    Returns:
        (height, width, 3) red, green and blue.
    """
    data = path.read_bytes()
    assert data.startswith(MAGIC)
    chunks = dict[bytes, bytes]()
    at = len(MAGIC)
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        chunks[kind] = chunks.get(kind, b"") + data[at + 8 : at + 8 + size]
        at += size + 12
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, interlaced) == (8, 0)
    n = CHANNELS[color]
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * n)
    out = np.zeros((height, width, n), np.uint8)
    above = np.zeros((width, n), np.uint8)
    for row in range(height):
        above = out[row] = _unfiltered(int(raw[row, 0]), raw[row, 1:].reshape(width, n), above)
    return out[:, :, :3]


def _unfiltered(kind: int, line: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if kind == 0:
        return line
    if kind == 1:
        return np.cumsum(line, axis=0, dtype=np.uint8)
    if kind == 2:
        return line + above
    return _predicted(kind, line.tolist(), above.tolist())


def _predicted(kind: int, line: list[list[int]], above: list[list[int]]) -> NDArray[np.uint8]:
    """Filters whose next pixel needs the one before it."""
    left = corner = [0] * len(line[0])
    out = []
    for values, up in zip(line, above, strict=True):
        if kind == 3:
            guess = [(a + b) // 2 for a, b in zip(left, up, strict=True)]
        else:
            guess = [_paeth(*three) for three in zip(left, up, corner, strict=True)]
        left = [(a + b) & 0xFF for a, b in zip(values, guess, strict=True)]
        corner = up
        out.append(left)
    return np.array(out, np.uint8)


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda one: abs(guess - one))
