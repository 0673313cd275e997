"""Many instructions as text, each distinct one formatted once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bpfpatch.isa import LD_IMM64, SECOND, Insns, Syntax, fields_of, render, rows, words


def format_insns(insns: Insns, syntax: Syntax = Syntax.ASM, *, alu32: bool = False) -> list[str]:
    """Every slot as text, without labels: distances stay numbers.

    Law: for instructions that the table has, with reserved fields 0,
    ``parse("; ".join(format_insns(insns))).insns == insns``.

    Args:
        insns: (n,) `bpfpatch.isa.INSN`.
        syntax: ASM for `parse`, OBJDUMP for exactly what llvm-objdump prints,
            XLATED for the kernel's form (see `format_xlated`).
        alu32: as llvm-objdump with ``--mcpu=v3`` and up: ``w1`` for a register
            of a load or store of 32 bits or less.

    Returns:
        n strings; "" for the second slot of an ld_imm64.
    """
    found = rows(insns)
    out = np.empty(len(insns), object)
    out[found == SECOND] = ""
    is_wide = insns["code"] == LD_IMM64
    plain = np.flatnonzero((found != SECOND) & ~is_wide)
    _, first, where = np.unique(words(insns)[plain], return_index=True, return_inverse=True)
    distinct = plain[first]
    out[plain] = _render_all(insns, found, distinct, syntax, alu32)[where]
    wide = np.flatnonzero(is_wide & (found != SECOND))
    out[wide] = _render_all(insns, found, wide, syntax, alu32)
    texts: list[str] = out.tolist()
    return texts


def _render_all(
    insns: Insns,
    found: npt.NDArray[np.int16],
    slots: npt.NDArray[np.int64],
    syntax: Syntax,
    alu32: bool,
) -> npt.NDArray[np.object_]:
    highs = np.append(insns["imm"], np.int32(0))[slots + 1].tolist()
    out = np.empty(slots.size, object)
    for index, slot in enumerate(slots.tolist()):
        fields = fields_of(insns, slot)
        out[index] = render(int(found[slot]), fields, highs[index], syntax, alu32=alu32)
    return out


def format_insn(insns: Insns, syntax: Syntax = Syntax.ASM, *, alu32: bool = False) -> str:
    """The first instruction as text.

    Args:
        insns: one slot, or two of an ld_imm64; what follows is ignored.
        syntax: as in `format_insns`.
        alu32: as in `format_insns`.
    """
    return format_insns(insns[:2], syntax, alu32=alu32)[0]


def format_xlated(insns: Insns) -> list[str]:
    """Every slot as the kernel's verifier log and bpftool print it.

    With the opcode in front: ``(b7) r0 = 0``. Maps are shown by the id that a
    dump has in place of the file descriptor.

    Args:
        insns: (n,) `bpfpatch.isa.INSN`, as loaded or as dumped.

    Returns:
        n strings; "" for the second slot of an ld_imm64.
    """
    codes = insns["code"].tolist()
    texts = format_insns(insns, Syntax.XLATED)
    return [
        f"({code:02x}) {text}" if text and not text.startswith("BUG_") else text
        for code, text in zip(codes, texts, strict=True)
    ]
