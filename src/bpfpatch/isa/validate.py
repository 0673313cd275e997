"""Encodings that no loader should be given, found all at once."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .decode import SECOND, UNKNOWN, OpcodeColumn, rows_at
from .encoding import Insns, dst, src
from .opcodes import AX, LD_IMM64, OPCODES
from .screen import FP, may_hold, suspects
from .stackargs import PARAMS, stack_args

Slots = npt.NDArray[np.int64]


def _free(field: str) -> OpcodeColumn:
    return OpcodeColumn(lambda op: not may_hold(op, field), np.bool_, second=False, unknown=False)


_MUST_BE_ZERO: Final = {field: _free(field).by_row for field in ("dst", "src", "off", "imm")}
_DST_IS_REG: Final = OpcodeColumn(lambda op: "dst" in op.fields, np.bool_, False, False).by_row
_SRC_IS_REG: Final = OpcodeColumn(lambda op: "src" in op.fields, np.bool_, False, False).by_row
_WRITES_DST: Final = OpcodeColumn(lambda op: "dst" in op.writes, np.bool_, False, False).by_row
_WRITES_SRC: Final = OpcodeColumn(lambda op: "src" in op.writes, np.bool_, False, False).by_row
# A file descriptor or index has no upper half; in other forms that holds a value.
_LOW_HALF_ONLY: Final = OpcodeColumn(
    lambda op: op.name in {"ld_map_fd", "ld_map_idx"}, np.bool_, False, False
).by_row


def unknown(insns: Insns, among: Slots | None = None) -> Slots:
    """Slots whose opcode the table lacks, ascending int64.

    Such an instruction might hide a reference, so that code with one in it
    cannot be moved safely.

    Args:
        insns: (n,) `INSN`.
        among: what `suspects` says, where that is known already.
    """
    slots = suspects(insns) if among is None else among
    found: Slots = slots[rows_at(insns, slots) == UNKNOWN]
    return found


def reserved_violations(
    insns: Insns, *, allow_internal: bool = False, hidden: int = AX, among: Slots | None = None
) -> list[tuple[int, str]]:
    """Find fields that break the instruction's encoding.

    Reserved fields that are not zero, registers that do not exist, writes to
    R10, other uses of R11 than stack arguments (`bpfpatch.isa.stack_args`), and
    ld_imm64 without a proper second slot. What an unknown opcode holds is not
    judged: see `bpfpatch.isa.unknown`.

    Args:
        insns: (n,) `INSN`.
        allow_internal: take the kernel's hidden register.
        hidden: its number: 11, and from Linux 7.2 on 12.
        among: what `suspects` says with these two, where that is known already.

    Returns:
        (slot, what) in slot order, empty where all is well.

    Source: RFC 9669 section 3 ("unused fields shall be cleared to zero") and
    5.4; linux v6.18, kernel/bpf/verifier.c, resolve_pseudo_ldimm64().
    """
    if among is None:
        among = suspects(insns, allow_internal=allow_internal, hidden=hidden)
    slots = among
    if not slots.size:
        return []
    found = rows_at(insns, slots)
    out = [
        *_reserved_fields(insns, slots, found),
        *_registers(insns, slots, found, hidden if allow_internal else FP),
        *_second_slots(insns, slots, found),
    ]
    return sorted(out)


def _reserved_fields(
    insns: Insns, slots: Slots, found: npt.NDArray[np.int16]
) -> list[tuple[int, str]]:
    some = insns[slots]
    values = {"dst": dst(some), "src": src(some), "off": some["off"], "imm": some["imm"]}
    out = []
    for field, value in values.items():
        for row in np.flatnonzero(_MUST_BE_ZERO[field][found] & (value != 0)).tolist():
            name = OPCODES[found[row]].name
            what = f"{name} does not use {field}, so it must be 0, not {value[row]}"
            out.append((int(slots[row]), what))
    return out


def _registers(
    insns: Insns, slots: Slots, found: npt.NDArray[np.int16], last: int
) -> list[tuple[int, str]]:
    some = insns[slots]
    is_passed = stack_args(insns)[slots] != 0
    out = []
    cases = (
        ("dst", dst(some), _DST_IS_REG, _WRITES_DST),
        ("src", src(some), _SRC_IS_REG, _WRITES_SRC),
    )
    for field, reg, is_reg, is_written in cases:
        is_strange = (reg > FP) & (reg != last) & ~(is_passed & (reg == PARAMS))
        for row in np.flatnonzero(is_reg[found] & is_strange).tolist():
            out.append((int(slots[row]), _why_strange(int(reg[row]), field, last)))
        for row in np.flatnonzero(is_written[found] & (reg == FP)).tolist():
            out.append((int(slots[row]), "r10 is the frame pointer and read-only"))
    return out


def _why_strange(register: int, field: str, last: int) -> str:
    if register == PARAMS:
        what = "is kernel-internal, and from Linux 7.2 on good for passing arguments only"
        return f"register r11 in {field} {what}: *(u64 *)(r11 - 8) to -56, loads from +8 to +56"
    what = "is kernel-internal" if register == AX + 1 else "does not exist"
    return f"register r{register} in {field} {what}; the last is r{last}"


def _second_slots(
    insns: Insns, slots: Slots, found: npt.NDArray[np.int16]
) -> list[tuple[int, str]]:
    out = []
    # An unknown kind of ld_imm64 has two slots all the same.
    is_last = slots[-1] == len(insns) - 1
    if is_last and insns["code"][-1] == LD_IMM64 and found[-1] != SECOND:
        out.append((len(insns) - 1, "ld_imm64 is cut off: its second slot is missing"))
    rows = np.flatnonzero(found == SECOND)
    seconds = slots[rows]
    some = insns[seconds]
    is_bad = (some["code"] != 0) | (some["regs"] != 0) | (some["off"] != 0)
    for slot in seconds[is_bad].tolist():
        out.append((slot, "the second slot of ld_imm64 must be 0 in all but imm"))
    firsts = rows_at(insns, seconds - 1)
    is_full = _LOW_HALF_ONLY[firsts] & (some["imm"] != 0)
    for slot, row in zip(seconds[is_full].tolist(), firsts[is_full].tolist(), strict=True):
        name = OPCODES[row].name
        out.append((slot, f"the second slot of {name} must have imm 0, not {insns['imm'][slot]}"))
    return out
