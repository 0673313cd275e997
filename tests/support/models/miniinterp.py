"""A tiny interpreter of plain programs: arithmetic, jumps, calls, stack. On ctypes, for tests.

It shares nothing with the package but the numbers of the opcodes, which are RFC 9669's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from bpfpatch.program import Program

U64 = (1 << 64) - 1
CALL, EXIT, LD_IMM64, JA, GOTOL, MAY_GOTO = 0x85, 0x95, 0x18, 0x05, 0x06, 0xE5
STX_DW, LDX_DW = 0x7B, 0x79
STACK_TOP, FRAME = 1 << 32, 512


class StuckError(Exception):
    """The program ran into something that it must not, or for too long."""


def u64(value: int) -> int:
    """The low 64 bits."""
    return ctypes.c_uint64(value).value


def s64(value: int) -> int:
    """The low 64 bits, signed."""
    return ctypes.c_int64(value).value


def s32(value: int) -> int:
    """The low 32 bits, signed."""
    return ctypes.c_int32(value).value


def u32(value: int) -> int:
    """The low 32 bits."""
    return ctypes.c_uint32(value).value


def truncated(left: int, right: int) -> tuple[int, int]:
    """C's quotient and remainder of signed numbers."""
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    return quotient, left - quotient * right


def alu(  # noqa: PLR0912 - one branch an operation, as the standard has them
    code: int, slot_off: int, dst: int, operand: int, imm: int
) -> int:
    """One arithmetic instruction of RFC 9669, sections 4.1 and 4.2 (bswap only of the swaps)."""
    wide = code & 7 == 7
    unsigned: Callable[[int], int] = u64 if wide else u32
    signed: Callable[[int], int] = s64 if wide else s32
    a, b = unsigned(dst), unsigned(operand)
    amount = b % (64 if wide else 32)
    op = code >> 4
    if op == 0x0:
        out = a + b
    elif op == 0x1:
        out = a - b
    elif op == 0x2:
        out = a * b
    elif op in (0x3, 0x9) and b == 0:
        out = 0 if op == 0x3 else a
    elif op in (0x3, 0x9) and slot_off == 1:
        out = truncated(signed(a), signed(b))[op == 0x9]
    elif op in (0x3, 0x9):
        out = divmod(a, b)[op == 0x9]
    elif op == 0x4:
        out = a | b
    elif op == 0x5:
        out = a & b
    elif op == 0x6:
        out = a << amount
    elif op == 0x7:
        out = a >> amount
    elif op == 0x8:
        out = -a
    elif op == 0xA:
        out = a ^ b
    elif op == 0xB:
        narrow = {0: unsigned, 8: ctypes.c_int8, 16: ctypes.c_int16, 32: ctypes.c_int32}[slot_off]
        got = narrow(operand)
        out = got if isinstance(got, int) else got.value
    elif op == 0xC:
        out = signed(a) >> amount
    elif op == 0xD and wide:
        kind = {16: ctypes.c_uint16, 32: ctypes.c_uint32, 64: ctypes.c_uint64}[imm]
        out = int.from_bytes(bytes(kind(dst))[::-1], "little")
    else:
        raise StuckError(f"arithmetic {code:#x}")
    return unsigned(out)


def is_taken(code: int, left: int, right: int) -> bool:
    """One comparison of RFC 9669, section 4.3."""
    wide = code & 7 == 5
    a, b = (u64(left), u64(right)) if wide else (u32(left), u32(right))
    sa, sb = (s64(left), s64(right)) if wide else (s32(left), s32(right))
    op = code >> 4
    found = [
        (0x1, a == b),
        (0x2, a > b),
        (0x3, a >= b),
        (0x4, (a & b) != 0),
        (0x5, a != b),
        (0x6, sa > sb),
        (0x7, sa >= sb),
        (0xA, a < b),
        (0xB, a <= b),
        (0xC, sa < sb),
        (0xD, sa <= sb),
    ]
    for known, answer in found:
        if op == known:
            return answer
    raise StuckError(f"comparison {code:#x}")


class Machine:
    """Registers, a stack, and a program.

    Args:
        program: starts at slot 0.
        registers: R0 to R9 at the start; what nobody wrote may be read here.
        budget: instructions after which a program counts as stuck.
    """

    def __init__(self, program: Program, registers: list[int], budget: int = 20_000) -> None:
        self.rows = program.insns.tolist()
        self.regs = [*registers, STACK_TOP]
        self.memory: dict[int, int] = {}
        self.budget = budget

    def run(self) -> int:  # noqa: PLR0912 - one branch an instruction
        """Run to the last exit, and return R0."""
        slot = 0
        frames: list[tuple[int, list[int]]] = []
        regs = self.regs
        while self.budget:
            self.budget -= 1
            if not 0 <= slot < len(self.rows):
                raise StuckError(f"ran into slot {slot}")
            code, packed, slot_off, imm = self.rows[slot]
            dst, src = packed & 15, packed >> 4
            slot += 1
            if code == EXIT:
                if not frames:
                    return regs[0]
                slot, saved = frames.pop()
                regs[6:11] = saved
            elif code == CALL and src == 1:
                frames.append((slot, regs[6:11]))
                regs[10] -= FRAME
                slot += imm
            elif code == LD_IMM64 and src in (0, 4):
                regs[dst] = u64(u32(imm) | u32(self.rows[slot][3]) << 32) if src == 0 else 0
                slot += 1
            elif code == JA:
                slot += slot_off
            elif code == GOTOL:
                slot += imm
            elif code == MAY_GOTO:
                pass  # the budget for loops never ends here
            elif code == STX_DW:
                self.memory[u64(regs[dst] + slot_off)] = regs[src]
            elif code == LDX_DW:
                regs[dst] = self.memory.get(u64(regs[src] + slot_off), 0)
            elif code & 7 in (4, 7):
                operand = regs[src] if code & 8 else u64(imm)
                regs[dst] = alu(code, slot_off, regs[dst], operand, imm)
            elif code & 7 in (5, 6):
                operand = regs[src] if code & 8 else u64(imm)
                slot += slot_off if is_taken(code, regs[dst], operand) else 0
            else:
                raise StuckError(f"opcode {code:#x}")
        raise StuckError("out of budget")


def result(program: Program, registers: list[int] | None = None) -> int:
    """R0 of one run."""
    return Machine(program, registers or [7 * k + 1 for k in range(10)]).run()
