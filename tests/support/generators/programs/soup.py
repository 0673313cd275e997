"""Random instructions with random jumps: any shape of control flow, most of it nonsense."""

from __future__ import annotations

import random

import numpy as np

from bpfpatch import isa
from bpfpatch.program import Program

ALU_OPS = (
    *("add", "sub", "mul", "div", "or", "and", "lsh", "rsh"),
    *("mod", "xor", "mov", "arsh", "sdiv", "smod"),
)
JUMP_OPS = (
    *("jeq", "jgt", "jge", "jset", "jne", "jsgt", "jsge"),
    *("jlt", "jle", "jslt", "jsle"),
)
ATOMIC_OPS = (
    *("add", "or", "and", "xor", "xchg", "cmpxchg"),
    *("fetch_add", "fetch_or", "fetch_and", "fetch_xor"),
)
SIZES = ("u8", "u16", "u32", "u64")
VALUES = (0, 1, -1, 2, 7, 63, 64, 0x7FFFFFFF, -0x80000000, 0x80, 0xFF, 0x8000, 0xFFFF)


class _Soup:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.size = self.rng.randint(3, 70)
        self.parts: list[isa.Insns] = []
        self.n_slots = 0

    def reg(self) -> isa.Reg:
        return isa.Reg(self.rng.choice((0, 0, 1, 2, 3, 4, 5, 7, 8, 9)))

    def imm(self) -> int:
        rng = self.rng
        return rng.choice(VALUES) if rng.random() < 0.7 else rng.randrange(-(1 << 31), 1 << 31)

    def distance(self) -> int:
        """To a slot of the program, mostly."""
        rng = self.rng
        if rng.random() < 0.01:
            return rng.randint(-100, 100)
        near = rng.random() < 0.6
        target = self.n_slots + rng.randint(-8, 12) if near else rng.randrange(self.size + 1)
        return max(min(target, self.size), 0) - self.n_slots - 1

    def operand(self) -> int | isa.Reg:
        return self.reg() if self.rng.random() < 0.5 else self.imm()

    def insn(self) -> isa.Insns:  # noqa: PLR0911 - one return a kind
        rng = self.rng
        choice = rng.random()
        if choice < 0.34:
            width = rng.choice((32, 64))
            return isa.alu(rng.choice(ALU_OPS), self.reg(), self.operand(), width=width)
        if choice < 0.42:
            bits = rng.choice((8, 16))
            forms = [
                isa.neg(self.reg(), width=rng.choice((32, 64))),
                isa.movsx(self.reg(), self.reg(), bits, width=rng.choice((32, 64))),
                isa.movsx(self.reg(), self.reg(), 32),
                isa.byte_swap(rng.choice(("le", "be", "bswap")), self.reg(), 2 * bits),
                isa.ld_imm64(self.reg(), rng.randrange(1 << 64)),
            ]
            return rng.choice(forms)
        if choice < 0.68:
            width, op = rng.choice((32, 64)), rng.choice(JUMP_OPS)
            return isa.jump(op, self.reg(), self.operand(), self.distance(), width=width)
        if choice < 0.86:
            return self.memory()
        if choice < 0.90:
            return rng.choice((isa.ja, isa.gotol, isa.may_goto))(self.distance())
        if choice < 0.94:
            return isa.call_subprog(self.distance())
        if choice < 0.99:
            return isa.exit_()
        return isa.make(
            rng.randrange(256),
            rng.randrange(16),
            rng.randrange(16),
            rng.choice((0, 0, 1, 8)),
            rng.choice((0, 16, 64, 7)),
        )

    def memory(self) -> isa.Insns:
        rng = self.rng
        base = rng.choice((10, 10, 10, 6, 6, 3))
        size = rng.choice(SIZES)
        place = rng.randrange(-40, 2) if base == 10 else rng.randrange(-1, 34)
        choice = rng.random()
        if choice < 0.35:
            narrow = rng.random() < 0.3 and size != "u64"
            return isa.load(size.replace("u", "s") if narrow else size, self.reg(), base, place)
        if choice < 0.75:
            return isa.store(size, base, place, self.operand())
        if choice < 0.9:
            op = rng.choice(ATOMIC_OPS)
            return isa.atomic(op, rng.choice(("u32", "u64")), base, place, self.reg())
        if choice < 0.95:
            return isa.atomic("load_acquire", size, self.reg(), place, base)
        return isa.atomic("store_release", size, base, place, self.reg())


def insn_soup(seed: int) -> Program:
    """A program that starts with R6 = R1 and a loop counter, then goes anywhere."""
    soup = _Soup(seed)
    soup.parts = [isa.mov(isa.R6, isa.R1), isa.mov(isa.R0, soup.imm())]
    soup.n_slots = 2
    while soup.n_slots < soup.size:
        soup.parts.append(soup.insn())
        soup.n_slots += len(soup.parts[-1])
    soup.parts.append(isa.exit_())
    return Program(np.concatenate(soup.parts))
