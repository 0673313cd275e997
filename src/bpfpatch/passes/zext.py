"""zext: make zero extensions explicit, for processors that do not extend by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.analysis import Blocks
from bpfpatch.analysis.liveness import defined_registers, upper_halves_read
from bpfpatch.errors import OptionError
from bpfpatch.facts import MEM_TYPE, ZEXT_DST, MemType
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.program.types import Mask, Slots

from .base import Pass, register
from .setting import Setting
from .sites import indirect_targets

_MOV32_REG: Final = 0xBC
_ATOMIC32: Final = 0xC3
_LOAD32: Final = 0x61
_CMPXCHG: Final = 0xF1
_MARK: Final = 1
"""The imm of a `w1 = w1` that a JIT which extends by itself may leave out."""


@register
@dataclass(frozen=True)
class Zext(Pass):
    """Zero the upper halves of registers that only 32 bits were written to, where they are read.

    Behind each instruction that defines 32 bits, and whose upper half somebody
    reads, comes a `w1 = w1`. Which these are says the column ``zext_dst``, or an
    analysis of the code as it is, where there is no such column. A processor
    that zeroes upper halves by itself needs it behind a 32-bit cmpxchg alone,
    which does not write R0 where it succeeds.

    Attributes:
        force: extend, whatever the target's processor needs.
        random: put a random upper half where nobody reads it, as the kernel does
            for programs that are loaded with BPF_F_TEST_RND_HI32. Kernel's own form.
        seed: of these.

    Source: linux v6.18, kernel/bpf/verifier.c, opt_subreg_zext_lo32_rnd_hi32() and
    adjust_insn_aux_data().
    """

    name = "zext"
    force: bool = False
    random: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise OptionError(f"pass zext: seed is 0 or more, not {self.seed}")

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Insert them all.

        Raises:
            OptionError: random upper halves in a program for bpf(2).
        """
        target = setting.target
        if self.random and target.is_loadable:
            raise OptionError(
                "pass zext: random=true makes the kernel's own form, which bpf(2) refuses; "
                "ask for it with Target.internal()"
            )
        view = patches.view()
        is_read = _upper_half_is_read(patches, view)
        wanted = is_read & ~_is_extended(view, None if target.is_loadable else _MARK)
        if target.is_loadable:
            wanted &= ~_may_be_address(patches, view)
        if not (self.force or target.arch.needs_zext):
            # For what it is to load, such a kernel takes care of that one by itself.
            wanted &= _is_cmpxchg(view) if not target.is_loadable else False
        others = isa.defines_32(view.insns) & ~is_read & _may_be_spoilt(patches, view)
        for number, slots in _by_register(view, wanted):
            mark = 0 if target.is_loadable else _MARK
            body = Body.of(isa.make(_MOV32_REG, number, number, imm=mark))
            patches.insert_after(view.node[slots], body)
        if self.random:
            _spoil(patches, view, others, np.random.default_rng(self.seed))


def _is_cmpxchg(view: CodeView) -> Mask:
    """(n,) 32-bit cmpxchg, but for those in an arena."""
    insns = view.insns
    is_it: Mask = (insns["code"] == _ATOMIC32) & (insns["imm"] == _CMPXCHG) & (view.node >= 0)
    return is_it


def _upper_half_is_read(patches: PatchList, view: CodeView) -> Mask:
    """(n,) whether the upper half of the 32 bits that each defines is read."""
    if ZEXT_DST not in patches.program.columns:
        blocks = Blocks.of(view, indirect_targets(patches.program, view))
        return upper_halves_read(view, blocks)
    out: Mask = patches.aux(ZEXT_DST)[view.node] & isa.defines_32(view.insns)
    return out


def _is_extended(view: CodeView, imm: int | None) -> Mask:
    """(n,) whether a zero extension of the very register is, or follows, an instruction.

    Args:
        view: the code.
        imm: what the extension's imm has to be; None for anything.
    """
    insns = view.insns
    number = isa.dst(insns)
    is_zext = (insns["code"] == _MOV32_REG) & (number == isa.src(insns)) & (insns["off"] == 0)
    is_zext &= view.node >= 0
    if imm is not None:
        is_zext &= insns["imm"] == imm
    extended = np.where(is_zext, np.uint16(1) << number, np.uint16(0)).astype(np.uint16)
    following = np.append(extended[1:], np.uint16(0))[: len(view)]
    out: Mask = is_zext | ((following & defined_registers(insns)) != 0)
    return out


def _may_be_address(patches: PatchList, view: CodeView) -> Mask:
    """(n,) 32-bit loads that may be of a context's field, which may be an address for all that.

    The verifier would take what comes out of an extension for a number.
    """
    insns = view.insns
    is_load = (insns["code"] == _LOAD32) & (view.node >= 0)
    if MEM_TYPE not in patches.program.columns:
        stays: Mask = is_load & (isa.src(insns) != isa.R10)
        return stays
    kind = patches.aux(MEM_TYPE)[view.node]
    found: Mask = is_load & ((kind == MemType.CTX) | (kind == MemType.UNKNOWN))
    found &= isa.src(insns) != isa.R10
    return found


def _may_be_spoilt(patches: PatchList, view: CodeView) -> Mask:
    """(n,) all but loads from a context, which the kernel may have made wider."""
    if MEM_TYPE not in patches.program.columns:
        return np.ones(len(view), bool)
    is_ctx = patches.aux(MEM_TYPE)[view.node] == MemType.CTX
    out: Mask = ~(is_ctx & isa.is_load(view.insns))
    return out


def _by_register(view: CodeView, wanted: Mask) -> Iterator[tuple[int, Slots]]:
    """The wanted slots, by the register that they define."""
    slots = np.flatnonzero(wanted)
    defined = defined_registers(view.insns[slots]) if slots.size else np.zeros(0, np.uint16)
    for bit in np.unique(defined).tolist():
        yield bit.bit_length() - 1, slots[defined == bit]


def _spoil(patches: PatchList, view: CodeView, wanted: Mask, rng: np.random.Generator) -> None:
    """Put random upper halves behind instructions."""
    masks = rng.integers(-(1 << 31), 1 << 31, len(view), np.int64)
    for number, slots in _by_register(view, wanted):
        body = Body.of(
            isa.mov(isa.AX, 0),
            isa.alu("lsh", isa.AX, 32),
            isa.alu("or", number, isa.Reg.AX),
        )
        patches.insert_after(view.node[slots], body, {0: masks[slots]})
