"""Random programs that the verifier accepts: every register and stack slot is set first."""

from __future__ import annotations

import random

OPS = ("+=", "-=", "*=", "|=", "&=", "^=", "/=", "%=", "s/=", "s%=", "<<=", ">>=", "s>>=", "=")
SHIFTS = ("<<=", ">>=", "s>>=")
DIVISIONS = ("/=", "%=", "s/=", "s%=")
SIGNS = ("==", "!=", ">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=", "&")
IMMS = (0, 1, -1, 2, 3, 31, 127, 128, 255, 256, 65535, 0x7FFFFFFF, -0x80000000, -128)
REGS = (0, 1, 2, 3, 4, 5, 7, 8)  # R6 is the context, R9 counts loops
SLOTS = 6
BITS = {8: "b", 16: "h", 32: "w", 64: "dw"}


class Writer:
    """Text in the making."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.lines: list[str] = []
        self.n_labels = 0
        self.has_call = False

    def put(self, text: str) -> None:
        """Add a line."""
        self.lines.append(text)

    def reg(self) -> int:
        """Any register that holds a number."""
        return self.rng.choice(REGS)

    def imm(self) -> int:
        """A number, often one at an edge."""
        rng = self.rng
        return rng.choice(IMMS) if rng.random() < 0.6 else rng.randrange(-(1 << 31), 1 << 31)

    def place(self, bits: int) -> str:
        """Somewhere on the stack, aligned."""
        step = bits // 8
        at = self.rng.randrange(0, 8 * SLOTS, step) - 8 * SLOTS
        return f"(r10 {'-' if at < 0 else '+'} {abs(at)})"

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
        """A load or store."""
        rng = self.rng
        bits = rng.choice((8, 16, 32, 64))
        choice = rng.randrange(5)
        if choice == 0:
            sign = "s" if bits < 64 and rng.random() < 0.4 else "u"
            self.put(f"r{self.reg()} = *({sign}{bits} *){self.place(bits)}")
        elif choice == 1:
            self.put(f"*(u{bits} *){self.place(bits)} = {self.imm()}")
        elif choice == 2:
            reg = "r" if bits == 64 else "w"
            self.put(f"*(u{bits} *){self.place(bits)} = {reg}{self.reg()}")
        else:
            self.atomic()

    def atomic(self) -> None:
        """An atomic operation."""
        rng, reg = self.rng, self.reg()
        bits = rng.choice((32, 64))
        kind = "r" if bits == 64 else "w"
        where = f"(u{bits} *){self.place(bits)}"
        number = "_64" if bits == 64 else "32_32"
        forms = (
            f"lock *{where} {rng.choice(('+=', '|=', '&=', '^='))} {kind}{reg}",
            f"{kind}{reg} = atomic_fetch_{rng.choice(('add', 'or', 'and', 'xor'))}"
            f"({where}, {kind}{reg})",
            f"{kind}{reg} = xchg{number}{where.replace(f'(u{bits} *)', '')[:-1]}, {kind}{reg})",
            f"{kind}0 = cmpxchg{number}{where.replace(f'(u{bits} *)', '')[:-1]}, "
            f"{kind}0, {kind}{reg})",
        )
        self.put(rng.choice(forms))

    def packet(self) -> None:
        """A load from the packet."""
        rng = self.rng
        bits = rng.choice((8, 16, 32))
        self.put(f"r0 = *(u{bits} *)skb[{rng.randrange(44)}]")
        for register in (1, 2, 3, 4, 5):
            self.put(f"r{register} = {self.imm()}")

    def call(self) -> None:
        """A function of the same program, with frames of its own."""
        self.has_call = True
        self.put("call f")
        for register in (1, 2, 3, 4, 5):
            self.put(f"r{register} = {self.imm()}")

    def callee(self) -> None:
        """The function that `call` calls."""
        for line in (
            "f:",
            "*(u64 *)(r10 - 8) = r1",
            "*(u64 *)(r10 - 16) = r2",
            "r6 = *(u32 *)(r10 - 12)",
            "r7 = *(u64 *)(r10 - 8)",
            "r0 = r6",
            "r0 -= r7",
            "r0 ^= r3",
            "exit",
        ):
            self.put(line)

    def fold(self) -> None:
        """Make R0 depend on all registers and the stack."""
        for register in (1, 2, 3, 4, 5, 7, 8):
            self.put(f"r0 ^= r{register}")
            self.put("r0 *= 3")
        for slot in range(1, SLOTS + 1):
            self.put(f"r1 = *(u64 *)(r10 - {8 * slot})")
            self.put("r0 ^= r1")
            self.put("r0 *= 5")

    def branch(self, depth: int) -> None:
        """A condition, with one block or two."""
        rng = self.rng
        self.n_labels += 1
        end = f"L{self.n_labels}"
        kind = rng.choice("rw")
        right = f"{kind}{self.reg()}" if rng.random() < 0.4 else str(self.imm())
        self.put(f"if {kind}{self.reg()} {rng.choice(SIGNS)} {right} goto {end}")
        self.block(depth + 1)
        if rng.random() < 0.4:
            self.n_labels += 1
            other = f"L{self.n_labels}"
            self.put(f"{rng.choice(('goto', 'gotol'))} {other}")
            self.put(f"{end}:")
            self.block(depth + 1)
            end = other
        self.put(f"{end}:")

    def loop(self, depth: int) -> None:
        """A block that runs a few times."""
        self.n_labels += 1
        again = f"L{self.n_labels}"
        self.put(f"r9 = {self.rng.randint(1, 5)}")
        self.put(f"{again}:")
        self.block(depth + 3)
        self.put("r9 -= 1")
        self.put(f"if r9 != 0 goto {again}")

    def block(self, depth: int) -> None:
        """A few statements."""
        rng = self.rng
        for _ in range(rng.randint(2, 7)):
            choice = rng.random()
            if choice < 0.4:
                self.alu()
            elif choice < 0.55:
                self.unary()
            elif choice < 0.78:
                self.memory()
            elif choice < 0.83:
                self.packet()
            elif choice < 0.86:
                self.call()
            elif choice < 0.97 and depth < 3:
                self.branch(depth)
            elif depth == 0:
                self.loop(depth)


def verifiable_code(seed: int) -> str:
    """Assembly of a socket filter; R0 at its end depends on all registers and the stack."""
    writer = Writer(seed)
    put, rng = writer.put, writer.rng
    put("r6 = r1")
    for register in (0, 1, 2, 3, 4, 5, 7, 8, 9):
        value = rng.choice((rng.randrange(1 << 64), writer.imm() % (1 << 64)))
        put(f"r{register} = {value:#x} ll")
    for slot in range(1, SLOTS + 1):
        put(f"*(u64 *)(r10 - {8 * slot}) = r{rng.choice((0, 1, 2, 3, 4, 5, 7, 8))}")
    put("r7 = *(u32 *)(r6 + 0)")
    for _ in range(rng.randint(1, 4)):
        writer.block(0)
    writer.fold()
    put("r1 = r0")
    put("r1 >>= 32")
    put("w0 ^= w1")
    put("exit")
    if writer.has_call:
        writer.callee()
    return "\n".join(writer.lines)
