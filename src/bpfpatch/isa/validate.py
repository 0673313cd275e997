"""Encodings that no loader should be given, found all at once."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bpfpatch.isa.decode import SECOND, Column, rows
from bpfpatch.isa.encoding import Insns, dst, src
from bpfpatch.isa.opcodes import AX, LD_IMM64, OPCODES, Opcode

_FP: Final = 10


def _may_hold(opcode: Opcode, field: str) -> bool:
    return field in opcode.fields or getattr(opcode, field, None) is not None


def _free(field: str) -> Column:
    return Column(lambda op: not _may_hold(op, field), np.bool_, second=False, unknown=False)


_MUST_BE_ZERO: Final = {field: _free(field).by_row for field in ("dst", "src", "off", "imm")}
_DST_IS_REG: Final = Column(lambda op: "dst" in op.fields, np.bool_, False, False).by_row
_SRC_IS_REG: Final = Column(lambda op: "src" in op.fields, np.bool_, False, False).by_row
_WRITES_DST: Final = Column(lambda op: "dst" in op.writes, np.bool_, False, False).by_row
_WRITES_SRC: Final = Column(lambda op: "src" in op.writes, np.bool_, False, False).by_row
# A file descriptor or index has no upper half; in other forms that holds a value.
_LOW_HALF_ONLY: Final = Column(
    lambda op: op.name in {"ld_map_fd", "ld_map_idx"}, np.bool_, False, False
).by_row


def reserved_violations(insns: Insns, *, allow_internal: bool = False) -> list[tuple[int, str]]:
    """Find fields that break the instruction's encoding.

    Reserved fields that are not zero, registers that do not exist, writes to
    R10, and ld_imm64 without a proper second slot. What an unknown opcode
    holds is not judged: see `bpfpatch.isa.unknown`.

    Args:
        insns: (n,) `INSN`.
        allow_internal: take the kernel's hidden register AX (R11).

    Returns:
        (slot, what) in slot order, empty where all is well.

    Source: RFC 9669 section 3 ("unused fields shall be cleared to zero") and
    5.4; linux v6.18, kernel/bpf/verifier.c, resolve_pseudo_ldimm64().
    """
    found = rows(insns)
    out = [
        *_reserved_fields(insns, found),
        *_registers(insns, found, AX if allow_internal else _FP),
        *_second_slots(insns, found),
    ]
    return sorted(out)


def _reserved_fields(insns: Insns, found: npt.NDArray[np.int16]) -> list[tuple[int, str]]:
    values = {"dst": dst(insns), "src": src(insns), "off": insns["off"], "imm": insns["imm"]}
    out = []
    for field, value in values.items():
        for slot in np.flatnonzero(_MUST_BE_ZERO[field][found] & (value != 0)).tolist():
            name = OPCODES[found[slot]].name
            out.append((slot, f"{name} does not use {field}, so it must be 0, not {value[slot]}"))
    return out


def _registers(insns: Insns, found: npt.NDArray[np.int16], highest: int) -> list[tuple[int, str]]:
    out = []
    cases = (
        ("dst", dst(insns), _DST_IS_REG, _WRITES_DST),
        ("src", src(insns), _SRC_IS_REG, _WRITES_SRC),
    )
    for field, reg, is_reg, is_written in cases:
        for slot in np.flatnonzero(is_reg[found] & (reg > highest)).tolist():
            what = "is kernel-internal" if reg[slot] == AX else "does not exist"
            out.append((slot, f"register r{reg[slot]} in {field} {what}; the last is r{highest}"))
        for slot in np.flatnonzero(is_written[found] & (reg == _FP)).tolist():
            out.append((slot, "r10 is the frame pointer and read-only"))
    return out


def _second_slots(insns: Insns, found: npt.NDArray[np.int16]) -> list[tuple[int, str]]:
    if len(insns) == 0:
        return []
    out = []
    # An unknown kind of ld_imm64 has two slots all the same.
    if insns["code"][-1] == LD_IMM64 and found[-1] != SECOND:
        out.append((len(insns) - 1, "ld_imm64 is cut off: its second slot is missing"))
    seconds = np.flatnonzero(found == SECOND)
    some = insns[seconds]
    is_bad = (some["code"] != 0) | (some["regs"] != 0) | (some["off"] != 0)
    for slot in seconds[is_bad].tolist():
        out.append((slot, "the second slot of ld_imm64 must be 0 in all but imm"))
    firsts = found[seconds - 1]
    for slot in seconds[_LOW_HALF_ONLY[firsts] & (some["imm"] != 0)].tolist():
        name = OPCODES[found[slot - 1]].name
        out.append((slot, f"the second slot of {name} must have imm 0, not {insns['imm'][slot]}"))
    return out
