"""The text of a random program in the making: what all kinds have in common."""

from __future__ import annotations

import random

OPS = ("+=", "-=", "*=", "|=", "&=", "^=", "/=", "%=", "s/=", "s%=", "<<=", ">>=", "s>>=", "=")
SHIFTS = ("<<=", ">>=", "s>>=")
DIVISIONS = ("/=", "%=", "s/=", "s%=")
SIGNS = ("==", "!=", ">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=", "&")
IMMS = (0, 1, -1, 2, 3, 31, 127, 128, 255, 256, 65535, 0x7FFFFFFF, -0x80000000, -128)
CALLER_SAVED = (1, 2, 3, 4, 5)
SLOTS = 6
"""Words of the frame that a program may read: it writes them first."""


class Writer:
    """Writes statements; a kind of program overrides what it does otherwise.

    Registers hold numbers, except for those that a kind keeps back (`values`).
    """

    values: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 7, 8)  # R6 is the context, R9 counts loops
    edge_share = 0.6
    """How many of the immediates are at an edge."""
    most_rounds = 5
    """Of a loop."""
    atomic_weight = 1
    """How often memory is used atomically, where a load and the two stores have 1 each."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.lines: list[str] = []
        self.n_labels = 0

    def put(self, *lines: str) -> None:
        """Add lines."""
        self.lines += lines

    def label(self) -> str:
        """A name that no label has yet."""
        self.n_labels += 1
        return f"L{self.n_labels}"

    def reg(self) -> int:
        """Any register that holds a number."""
        return self.rng.choice(self.values)

    def imm(self) -> int:
        """A number, often one at an edge."""
        rng = self.rng
        if rng.random() < self.edge_share:
            return rng.choice(IMMS)
        return rng.randrange(-(1 << 31), 1 << 31)

    def fill(self, *registers: int) -> None:
        """Give registers new values: by default those that a call has clobbered."""
        for register in registers or CALLER_SAVED:
            self.put(f"r{register} = {self.imm()}")

    def place(self, bits: int) -> str:
        """Somewhere in the frame, aligned."""
        at = self.rng.randrange(0, 8 * SLOTS, bits // 8) - 8 * SLOTS
        return f"(r10 - {-at})"

    def alu(self) -> None:
        """Arithmetic on two operands."""
        rng, kind, op, dst = self.rng, self.rng.choice("rw"), self.rng.choice(OPS), self.reg()
        if rng.random() < 0.5:
            self.put(f"{kind}{dst} {op} {kind}{self.reg()}")
        elif op in SHIFTS:
            self.put(f"{kind}{dst} {op} {rng.randrange(64 if kind == 'r' else 32)}")
        elif op in DIVISIONS:
            self.put(f"{kind}{dst} {op} {self.imm() or 7}")
        else:
            self.put(f"{kind}{dst} {op} {self.imm()}")

    def unary(self) -> None:
        """A negation, extension, byte swap or constant."""
        rng, dst = self.rng, self.reg()
        kind = rng.choice("rw")
        forms = (
            f"{kind}{dst} = -{kind}{dst}",
            f"{kind}{dst} = (s{rng.choice((8, 16))}){kind}{self.reg()}",
            f"r{dst} = (s32)r{self.reg()}",
            f"r{dst} = {rng.choice(('bswap', 'le', 'be'))}{rng.choice((16, 32, 64))} r{dst}",
            f"r{dst} = {rng.randrange(1 << 64):#x} ll",
        )
        self.put(rng.choice(forms))

    def memory(self) -> None:
        """A load, a store or an atomic operation."""
        rng, bits = self.rng, self.rng.choice((8, 16, 32, 64))
        choice = rng.randrange(3 + self.atomic_weight)
        if choice == 0:
            sign = "s" if bits < 64 and rng.random() < 0.4 else "u"
            self.put(f"r{self.reg()} = *({sign}{bits} *){self.place(bits)}")
        elif choice == 1:
            self.put(f"*(u{bits} *){self.place(bits)} = {self.imm()}")
        elif choice == 2:
            self.put(f"*(u{bits} *){self.place(bits)} = {'r' if bits == 64 else 'w'}{self.reg()}")
        else:
            self.atomic()

    def atomic(self, where: str = "") -> None:
        """An atomic operation, somewhere in the frame by default."""
        rng, reg = self.rng, self.reg()
        bits = rng.choice((32, 64))
        kind = "r" if bits == 64 else "w"
        place = where or self.place(bits)[1:-1]
        full, number = f"(u{bits} *)({place})", "_64" if bits == 64 else "32_32"
        if where == "r0 + 0" and reg == 0:
            reg = 3
        forms = [
            f"lock *{full} {rng.choice(('+=', '|=', '&=', '^='))} {kind}{reg}",
            f"{kind}{reg} = atomic_fetch_{rng.choice(('add', 'or', 'and', 'xor'))}"
            f"({full}, {kind}{reg})",
            f"{kind}{reg} = xchg{number}({place}, {kind}{reg})",
        ]
        if not where:
            forms.append(f"{kind}0 = cmpxchg{number}({place}, {kind}0, {kind}{reg})")
        self.put(rng.choice(forms))

    def condition(self) -> str:
        """What an ``if`` asks."""
        rng, kind = self.rng, self.rng.choice("rw")
        right = f"{kind}{self.reg()}" if rng.random() < 0.4 else str(self.imm())
        return f"if {kind}{self.reg()} {rng.choice(SIGNS)} {right}"

    def branch(self, depth: int) -> None:
        """A condition, with one block or two."""
        end = self.label()
        self.put(f"{self.condition()} goto {end}")
        self.block(depth + 1)
        if self.rng.random() < 0.4:
            other = self.label()
            self.put(f"{self.rng.choice(('goto', 'gotol'))} {other}", f"{end}:")
            self.block(depth + 1)
            end = other
        self.put(f"{end}:")

    def loop(self, depth: int) -> None:
        """A block that runs a few times; R9 counts."""
        again = self.label()
        self.put(f"r9 = {self.rng.randint(1, self.most_rounds)}", f"{again}:")
        self.block(depth + 3)
        self.put("r9 -= 1", f"if r9 != 0 goto {again}")

    def block(self, depth: int) -> None:
        """A few statements; nested blocks are deeper."""
        raise NotImplementedError

    def text(self) -> str:
        """The program."""
        return "\n".join(self.lines)
