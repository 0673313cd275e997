"""zext: make zero extensions explicit, for processors that do not extend by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.liveness import defined_registers, upper_halves_read
from bpfpatch.errors import OptionError
from bpfpatch.facts import MEM_TYPE, ZEXT_DST, MemType
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.program.types import Mask, Slots, gather

from .base import Pass, register
from .search import CodeIndex, Opcodes, groups
from .setting import Setting
from .sites import indirect_targets

_MOV32_REG: Final = 0xBC
_ATOMIC32: Final = 0xC3
_LOAD32: Final = 0x61
_CMPXCHG: Final = 0xF1
_MARK: Final = 1
"""The imm of a `w1 = w1` that a JIT which extends by itself may leave out."""

_NARROW: Final = Opcodes(lambda opcode: opcode.defines_32)


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
        random: put a random upper half where it is not read, as the kernel does
            for programs that are loaded with BPF_F_TEST_RND_HI32. Kernel's own form.
        seed: of these.

    Source: linux v6.18, kernel/bpf/verifier.c, opt_subreg_zext_lo32_rnd_hi32() and
    adjust_insn_aux_data().
    """

    name = "zext"
    force: bool = False
    random: bool = False
    seed: int = 0

    uses = (ZEXT_DST, MEM_TYPE)

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
        # For what it is to load, such a kernel takes care of cmpxchg by itself.
        is_free = not (self.force or target.arch.needs_zext)
        if is_free and target.is_loadable:
            return
        view = patches.view()
        code = CodeIndex(view)
        sites = _cmpxchg(view, code) if is_free else code.find(_NARROW)
        if not (sites.size or self.random):
            return
        is_read = _upper_half_is_read(patches, view)
        extended = _extended(view, code, None if target.is_loadable else _MARK)
        wanted = sites[is_read[sites] & ~extended[sites]]
        if target.is_loadable:
            wanted = wanted[~_may_be_address(patches, view, wanted)]
        for number, slots in _by_register(view, wanted):
            mark = 0 if target.is_loadable else _MARK
            body = Body.of(isa.make(_MOV32_REG, number, number, imm=mark))
            patches.insert_after(gather(view.node, slots), body)
        if self.random:
            others = code.find(_NARROW)
            others = others[~is_read[others] & _may_be_spoilt(patches, view, others)]
            _spoil(patches, view, others, np.random.default_rng(self.seed), target.hidden)


def _cmpxchg(view: CodeView, code: CodeIndex) -> Slots:
    """(k,) 32-bit cmpxchg, but for those in an arena."""
    sites = np.flatnonzero(code.codes == _ATOMIC32).astype(np.int32)
    found: Slots = sites[view.insns["imm"][sites] == _CMPXCHG]
    return found


def _upper_half_is_read(patches: PatchList, view: CodeView) -> Mask:
    """(n,) whether the upper half of what defines 32 bits is read; anything elsewhere."""
    if ZEXT_DST not in patches.program.columns:
        blocks = Blocks.of(view, indirect_targets(patches.program, view))
        return upper_halves_read(view, blocks)
    return patches.aux_at(ZEXT_DST, view.node)


def _extended(view: CodeView, code: CodeIndex, imm: int | None) -> Mask:
    """(n,) what is, or is followed by, a zero extension of the very register that it defines.

    Args:
        view: the code.
        code: its opcodes.
        imm: what the extension's imm has to be; None for anything.
    """
    moves = np.flatnonzero(code.codes == _MOV32_REG).astype(np.int32)
    some = view.insns[moves]
    number = isa.dst(some)
    is_zext = (number == isa.src(some)) & (some["off"] == 0)
    if imm is not None:
        is_zext &= some["imm"] == imm
    moves, number = moves[is_zext], number[is_zext]
    before = moves - 1
    # In front of each is no ld_imm64's first slot, and a second one is no instruction.
    has_one = (moves > 0) & (view.node[before] >= 0)
    before, number = before[has_one], number[has_one]
    fits = defined_registers(view.insns[before]) & (np.uint16(1) << number) != 0
    out = np.zeros(len(view), bool)
    out[moves] = True
    out[before[fits]] = True
    return out


def _may_be_address(patches: PatchList, view: CodeView, slots: Slots) -> Mask:
    """(k,) 32-bit loads that may be of a context's field, which may be an address for all that.

    The verifier would take what comes out of an extension for a number.
    """
    some = view.insns[slots]
    found: Mask = (some["code"] == _LOAD32) & (isa.src(some) != isa.R10)
    if MEM_TYPE in patches.program.columns:
        kind = patches.aux_at(MEM_TYPE, view.node[slots])
        found &= (kind == MemType.CTX) | (kind == MemType.UNKNOWN)
    return found


def _may_be_spoilt(patches: PatchList, view: CodeView, slots: Slots) -> Mask:
    """(k,) all but loads from a context, which the kernel may have made wider."""
    if MEM_TYPE not in patches.program.columns:
        return np.ones(slots.size, bool)
    is_ctx = patches.aux_at(MEM_TYPE, view.node[slots]) == MemType.CTX
    out: Mask = ~(is_ctx & isa.alone(isa.is_load, view.insns[slots]))
    return out


def _by_register(view: CodeView, slots: Slots) -> Iterator[tuple[int, Slots]]:
    """Slots of instructions that define 32 bits, by the register that they define."""
    if not slots.size:
        return
    defined = defined_registers(gather(isa.words(view.insns), slots).view(isa.INSN))
    for bit, some in groups(defined, slots):
        yield int(bit).bit_length() - 1, some


def _spoil(
    patches: PatchList, view: CodeView, slots: Slots, rng: np.random.Generator, hidden: isa.Reg
) -> None:
    """Put random upper halves behind instructions."""
    masks = rng.integers(-(1 << 31), 1 << 31, len(view), np.int64)
    for number, some in _by_register(view, slots):
        body = Body.of(
            isa.mov(hidden, 0),
            isa.alu("lsh", hidden, 32),
            isa.alu("or", number, hidden),
        )
        patches.insert_after(view.node[some], body, {0: masks[some]})
