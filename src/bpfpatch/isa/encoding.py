"""The 8-byte instruction as a NumPy record, and bytes in and out of it.

In memory an instruction has one form on every host and for both kinds of
object: fields little-endian, ``regs = dst | src << 4``. A big-endian object
differs in two ways, and both are undone here: its 16- and 32-bit fields are
byte-swapped, and its register nibbles are exchanged.

Source: RFC 9669 section 3 (instruction encoding), section 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from bpfpatch.errors import FormatError

ByteOrder: TypeAlias = Literal["little", "big"]
Insns: TypeAlias = npt.NDArray[np.void]
"""(n,) instructions of dtype `INSN`."""

INSN_SIZE = 8

INSN: np.dtype[Any] = np.dtype([("code", "u1"), ("regs", "u1"), ("off", "<i2"), ("imm", "<i4")])
"""One instruction slot; the only in-memory form."""

_BIG_INSN: np.dtype[Any] = np.dtype(
    [("code", "u1"), ("regs", "u1"), ("off", ">i2"), ("imm", ">i4")]
)


def from_bytes(data: bytes | bytearray | memoryview, byteorder: ByteOrder = "little") -> Insns:
    """Read instructions from an object's or a dump's bytes.

    Law: ``to_bytes(from_bytes(data, order), order) == data``.

    Args:
        data: a multiple of 8 bytes.
        byteorder: that of the object.

    Returns:
        (n,) `INSN`, read-only; of immutable little-endian bytes it is a view.

    Raises:
        FormatError: the length is not a multiple of 8.
    """
    if len(data) % INSN_SIZE:
        whole = len(data) - len(data) % INSN_SIZE
        raise FormatError(
            f"{len(data)} bytes of code are not a multiple of {INSN_SIZE}: "
            f"the last instruction is cut off after {len(data) - whole} bytes",
            whole,
        )
    if byteorder == "little":
        insns = np.frombuffer(data if isinstance(data, bytes) else bytes(data), INSN)
    else:
        insns = np.frombuffer(data, _BIG_INSN).astype(INSN)
        insns["regs"] = _swap_nibbles(insns["regs"])
    insns.flags.writeable = False
    return insns


def to_bytes(insns: Insns, byteorder: ByteOrder = "little") -> bytes:
    """Write instructions as an object of that byte order holds them.

    Args:
        insns: (n,) `INSN`.
        byteorder: that of the object.

    Returns:
        8 * n bytes.
    """
    if byteorder == "little":
        return insns.tobytes()
    swapped = insns.astype(_BIG_INSN)
    swapped["regs"] = _swap_nibbles(insns["regs"])
    return swapped.tobytes()


def dst(insns: Insns) -> npt.NDArray[np.uint8]:
    """Every slot's destination register field, (n,) uint8."""
    regs: npt.NDArray[np.uint8] = insns["regs"]
    return regs & np.uint8(0xF)


def src(insns: Insns) -> npt.NDArray[np.uint8]:
    """Every slot's source register field, (n,) uint8."""
    regs: npt.NDArray[np.uint8] = insns["regs"]
    return regs >> np.uint8(4)


def words(insns: Insns) -> npt.NDArray[np.uint64]:
    """Every slot as one number, for comparing and for finding equal ones.

    Args:
        insns: (n,) `INSN`.

    Returns:
        (n,) uint64, code in the lowest byte, imm in the highest four; a view
        where the instructions are contiguous.
    """
    found: npt.NDArray[np.uint64] = np.ascontiguousarray(insns).view("<u8")
    return found


def make(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> Insns:
    """One slot from its fields, unchecked.

    Args:
        code: 0 to 255.
        dst: 0 to 15.
        src: 0 to 15.
        off: signed 16 bits.
        imm: signed 32 bits.

    Returns:
        (1,) `INSN`.
    """
    return np.array([(code, dst | src << 4, off, imm)], INSN)


def concat(parts: Iterable[Insns]) -> Insns:
    """Join instruction arrays, as what the builders return.

    Args:
        parts: arrays of `INSN`, also none.

    Returns:
        (n,) `INSN`, a new array.
    """
    return np.concatenate([np.empty(0, INSN), *parts])


def _swap_nibbles(regs: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    # uint8 arithmetic drops what is shifted out at the top.
    return regs >> np.uint8(4) | regs << np.uint8(4)
