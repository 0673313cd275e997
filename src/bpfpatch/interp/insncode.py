"""Single instructions as Python statements.

Names in capitals are the machine's: tables of memory, traps and helpers that
`bpfpatch.interp.engine` puts into the generated code's namespace. ``n`` is what
is left of the budget, ``d`` the depth of the call chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from bpfpatch.isa import HELPER_IDS, Kind, Opcode

from . import alucode
from .alucode import U32, U64, Ranges
from .code import InterpCode
from .flow import Function
from .memcode import SIZES, MemoryCode

_FRAME_POINTER: Final = 1 << 10
_ALL: Final = ", ".join(f"r{register}" for register in range(10))

POISON: Final = 0xDEAD_BEEF_0000_0000
"""What R1 to R5 hold after a call, plus the register's number: a call may leave anything there."""


class Callee(Protocol):
    """A helper or kfunc, as far as generated code must know it."""

    @property
    def n_args(self) -> int:
        """How many registers it takes."""

    @property
    def calls_back(self) -> bool:
        """Whether it may run the program's functions."""


class Resolver(Protocol):
    """What a program's numbers stand for on this machine."""

    def value(self, slot: int) -> int | None:
        """What an ld_imm64 loads, or None where there is no such thing."""

    def is_given(self, slot: int) -> bool:
        """Whether a relocation says what the call at a slot reaches."""

    def callee(self, slot: int) -> tuple[str, Callee] | None:
        """Name in the namespace of the helper or kfunc that is called, or None."""

    def function(self, slot: int) -> str:
        """Name in the namespace of the function that starts at a slot."""


class InsnCode:
    """Writes the statements of instructions.

    Args:
        code: the program.
        resolver: what its numbers stand for.
        byteorder: of the machine.
        has_views: see `MemoryCode`.
    """

    def __init__(
        self, code: InterpCode, resolver: Resolver, byteorder: str, has_views: bool
    ) -> None:
        self._code = code
        self._resolver = resolver
        self._byteorder = byteorder
        self._memory = MemoryCode(has_views)

    def prologue(self, function: Function) -> Iterator[str]:
        """What a function does first: a clean frame, and variables that it may need."""
        used = 0
        has_may_goto = False
        for block in function.blocks():
            for slot in block.slots:
                used |= self._code.reads[slot] | self._code.writes[slot]
                opcode = self._code.opcodes[slot]
                has_may_goto = has_may_goto or (opcode is not None and opcode.name == "may_goto")
        if used & _FRAME_POINTER:
            yield "r10, stk, s2, s4, s8 = FRAMES[d]"
            yield "stk[:] = FRESH"
        else:
            yield "r10 = FRAMES[d][0]"
        yield "r11 = r12 = 0"
        if self._code.has_stack_args:
            yield "sa = PASSED()"
        if function.has_gotox:
            yield f"segments = SEGMENTS[{function.entry}]"
        if has_may_goto:
            yield "mg = MAY_GOTO"

    def lines(self, slot: int, ranges: Ranges, live: int) -> Iterator[str]:
        """The statements of one instruction; of conditional jumps only what comes before them.

        Args:
            slot: the instruction.
            ranges: what is known of the registers; brought up to date.
            live: registers that may be read after it, where it is a call or packet load.
        """
        opcode = self._code.opcodes[slot]
        if opcode is None or self._code.why_unsound(slot):
            yield f"BADINSN({slot})"
            return
        if opcode.kind is Kind.ALU:
            yield self._alu(opcode, slot, ranges)
        elif opcode.kind is Kind.LD_IMM64:
            yield from self._ld_imm64(slot, ranges)
        elif opcode.kind in (Kind.LOAD, Kind.STORE):
            yield from self._access(opcode, slot, ranges)
        elif opcode.kind is Kind.ATOMIC:
            yield from self._atomic(opcode, slot, ranges)
        elif opcode.kind is Kind.CALL:
            yield from self._call(opcode, slot)
            yield from _clobber(live & ~1, ranges)
        elif opcode.kind is Kind.PACKET_LOAD:
            yield from self._packet_load(opcode, slot)
            yield from _clobber(live & ~1, ranges)
            ranges.of[0] = alucode.ANY32
        elif opcode.kind is Kind.EXIT:
            yield "return r0, n"
        elif opcode.name == "may_goto":
            yield "mg -= 1"
        elif opcode.name == "gotox":
            yield f"k = INDIRECT(r{self._code.insns[slot][1]}, {slot}, segments)"

    def _alu(self, opcode: Opcode, slot: int, ranges: Ranges) -> str:
        code, dst, src, _, imm = self._code.insns[slot]
        name, width = opcode.name, 64 if code & 7 == 7 else 32
        if name in ("addr_space_cast", "mov_percpu"):
            return alucode.assign("mov", 64, dst, src, 0, ranges)
        if name == "zext_mark":
            return alucode.assign("mov", 32, dst, src, 0, ranges)
        if name.startswith("movsx"):
            return alucode.extend(width, dst, src, int(name.split("_")[1]), ranges)
        if opcode.imm is not None:
            op = name.rstrip("0123456789")
            return alucode.swap(op, opcode.imm, dst, self._byteorder, ranges)
        op = name.split("_")[0].removesuffix("32").removesuffix("64")
        source = src if name.endswith("_reg") else None
        return alucode.assign(op, width, dst, source, imm, ranges)

    def _ld_imm64(self, slot: int, ranges: Ranges) -> Iterator[str]:
        value = self._resolver.value(slot)
        dst = self._code.insns[slot][1]
        if value is None:
            yield f"NOVALUE({slot})"
            return
        ranges.of[dst] = (value, value)
        yield f"r{dst} = {value:#x}"

    def _access(self, opcode: Opcode, slot: int, ranges: Ranges) -> Iterator[str]:
        _, dst, src, byte_off, imm = self._code.insns[slot]
        how, _, size_name = opcode.name.rpartition("_")
        size = SIZES[size_name]
        which = self._code.stack_args[slot]
        if which > 0:
            ranges.of[dst] = (0, U64)
            yield f"r{dst} = sa.load({which}, {slot})"
        elif which < 0:
            value = f"r{src}" if how == "stx" else f"{imm & U64:#x}"
            yield f"sa.store({-which}, {value})"
        elif how.startswith("probe"):
            yield from self._probe(how, size, slot, ranges)
        elif opcode.kind is Kind.LOAD:
            yield from self._memory.load(size, how == "ldsx", dst, src, byte_off, ranges)
        else:
            source = src if how == "stx" else None
            yield from self._memory.store(size, dst, byte_off, source, imm, ranges)

    def _probe(self, how: str, size: int, slot: int, ranges: Ranges) -> Iterator[str]:
        """Accesses that do nothing where there is no memory; probe32's count from the arena."""
        _, dst, src, byte_off, imm = self._code.insns[slot]
        is_arena = how.startswith("probe32")

        def address(base: int) -> str:
            return (
                f"ARENA + (r{base} & {U32:#x}) + {byte_off}"
                if is_arena
                else f"r{base} + {byte_off}"
            )

        if how.endswith(("ldx", "ldsx")):
            yield from self._memory.probe(size, how.endswith("ldsx"), dst, address(src), ranges)
        else:
            value = f"r{src}" if how.endswith("stx") else f"{imm & U64:#x}"
            yield f"PROBE_STORE({address(dst)}, {size}, {value})"

    def _atomic(self, opcode: Opcode, slot: int, ranges: Ranges) -> Iterator[str]:
        _, dst, src, byte_off, _ = self._code.insns[slot]
        op, _, size_name = opcode.name.removeprefix("probe_").rpartition("_")
        size = SIZES[size_name]
        if op == "load_acquire":
            yield from self._memory.load(size, False, dst, src, byte_off, ranges)
        elif op == "store_release":
            yield from self._memory.store(size, dst, byte_off, src, 0, ranges)
        else:
            op = op.removeprefix("atomic_")
            yield from self._memory.atomic(op, size, dst, src, byte_off, ranges)

    def _packet_load(self, opcode: Opcode, slot: int) -> Iterator[str]:
        _, _, src, _, imm = self._code.insns[slot]
        base = f"r{src} + " if opcode.name.startswith("ld_ind") else ""
        yield f"t = PACKET(r6, {base}{imm}, {SIZES[opcode.name[-1]]})"
        yield "if t is None: return 0, n"
        yield "r0 = t"

    def _call(self, opcode: Opcode, slot: int) -> Iterator[str]:
        _, dst, _, _, imm = self._code.insns[slot]
        if opcode.name == "call_subprog" and not self._resolver.is_given(slot):
            target = slot + 1 + imm
            if not 0 <= target < len(self._code):
                yield f"BADJUMP({slot}, {target})"
                return
            if self._code.has_stack_args:
                yield "m.passed = sa.take()"
            yield f"r0, n = {self._resolver.function(target)}(n, d + 1, {_ALL})"
            return
        if self._code.has_stack_args:
            yield "passed = sa.take()"
        if opcode.name == "callx":
            yield f"r0, n = POINTED(r{dst})(n, d + 1, {_ALL})"
            return
        if opcode.name == "tail_call" or (opcode.name == "call_helper" and imm == _TAIL_CALL):
            yield "t = TAIL_CALL(r1, r2, r3)"
            yield f"if t is not None: return t(n, d, {_ALL})"
            return
        yield from self._helper_call(slot)

    def _helper_call(self, slot: int) -> Iterator[str]:
        found = self._resolver.callee(slot)
        if found is None:
            yield f"NOHELPER({slot})"
            return
        name, callee = found
        n_registers = min(callee.n_args, _IN_REGISTERS)
        given = "".join(f", r{register}" for register in range(1, n_registers + 1))
        if callee.n_args > _IN_REGISTERS:
            source = "sa" if self._code.has_stack_args else "PASSED()"
            taken = "passed" if self._code.has_stack_args else "{}"
            given += f", *{source}.more({taken}, {callee.n_args}, {slot})"
        if callee.calls_back:
            yield "m.left = n; m.depth = d"
        yield f"r0 = {name}(m{given}) & {U64:#x}"
        if callee.calls_back:
            yield "n = m.left"


_IN_REGISTERS: Final = 5
_TAIL_CALL: Final = HELPER_IDS["tail_call"]
"""The helper that does not return where it succeeds."""


def _clobber(live: int, ranges: Ranges) -> Iterator[str]:
    """R1 to R5 are lost in a call. Only a program that reads them nevertheless can tell."""
    for register in range(6):
        ranges.of[register] = alucode.ANY
        if register and live >> register & 1:
            yield f"r{register} = {POISON + register:#x}"
