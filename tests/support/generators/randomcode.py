"""Random programs that end: arithmetic, branches, loops that count, calls, stack, dead code."""

from __future__ import annotations

import random

SIGNS = ["==", "!=", ">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=", "&"]
OPS = ["+=", "-=", "*=", "/=", "%=", "|=", "&=", "^=", "s/=", "s%="]
SHIFTS = ["<<=", ">>=", "s>>="]
IMMS = [0, 1, -1, 2, 7, 255, -128, 0x7FFFFFFF, -0x80000000]


class _Writer:
    """Text in the making."""

    def __init__(self, rng: random.Random, n_functions: int) -> None:
        self.rng = rng
        self.n_functions = n_functions
        self.lines: list[str] = []
        self.n_labels = 0

    def put(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def label(self) -> str:
        self.n_labels += 1
        return f"L{self.n_labels}"

    def imm(self) -> int:
        rng = self.rng
        return rng.choice(IMMS) if rng.random() < 0.7 else rng.randrange(-(1 << 31), 1 << 31)

    def reg(self) -> int:
        return self.rng.randrange(9)  # R9 counts loops

    def condition(self) -> str:
        rng = self.rng
        kind = rng.choice("rw")
        right = f"{kind}{self.reg()}" if rng.random() < 0.4 else str(self.imm())
        return f"if {kind}{self.reg()} {rng.choice(SIGNS)} {right}"

    def plain(self) -> None:
        """An instruction that goes on to the next."""
        rng, dst = self.rng, self.reg()
        kind = rng.choice("rw")
        choice = rng.randrange(12)
        if choice < 4:
            self.put(f"{kind}{dst} = {self.imm()}")
        elif choice < 6:
            self.put(f"{kind}{dst} {rng.choice(OPS)} {kind}{self.reg()}")
        elif choice == 6:
            self.put(f"{kind}{dst} {rng.choice(OPS[:3] + OPS[5:8])} {self.imm()}")
        elif choice == 7:
            self.put(f"{kind}{dst} {rng.choice(SHIFTS)} {rng.randrange(32)}")
        elif choice == 8:
            extended = f"(s{rng.choice([8, 16])}){kind}{self.reg()}"
            self.put(f"{kind}{dst} = {rng.choice([f'{kind}{self.reg()}', extended])}")
        elif choice == 9:
            swapped = [
                f"{kind}{dst} = -{kind}{dst}",
                f"r{dst} = bswap{rng.choice([16, 32, 64])} r{dst}",
            ]
            self.put(rng.choice(swapped))
        elif choice == 10:
            self.put(f"r{dst} = {rng.randrange(-(1 << 63), 1 << 63)} ll")
        else:
            place = -8 * rng.randint(1, 4)
            self.put(f"*(u64 *)(r10 {place:+}) = r{dst}")
            self.put(f"r{self.reg()} = *(u64 *)(r10 {place:+})")

    def block(self, function: int, depth: int, in_loop: bool) -> None:
        """A run of statements; control goes out at its end only, or by exit."""
        rng = self.rng
        for _ in range(rng.randint(1, 5)):
            choice = rng.randrange(10)
            if choice < 4 or depth > 3:
                self.plain()
            elif choice < 6:
                end = self.label()
                self.put(f"{self.condition()} goto {end}")
                self.block(function, depth + 1, in_loop)
                self.lines.append(f"{end}:")
            elif choice == 6:
                end = self.label()
                self.put(rng.choice(["goto", "gotol", "may_goto"]) + f" {end}")
                self.block(function, depth + 1, in_loop)
                self.lines.append(f"{end}:")
            elif choice == 7 and not in_loop:
                again = self.label()
                self.put(f"r9 = {rng.randint(1, 4)}")
                self.lines.append(f"{again}:")
                self.block(function, depth + 1, True)
                self.put("r9 -= 1")
                self.put(f"if r9 != 0 goto {again}")
            elif choice == 8 and function + 1 < self.n_functions:
                self.put(f"call f{rng.randrange(function + 1, self.n_functions)}")
            elif choice == 9 and rng.random() < 0.2:
                self.put("exit")


def random_code(seed: int) -> str:
    """Assembly of a program that comes to its end, whatever the registers hold at first."""
    rng = random.Random(seed)
    writer = _Writer(rng, rng.randint(1, 4))
    for function in range(writer.n_functions):
        writer.lines.append(f".subprog f{function}")
        for _ in range(rng.randint(1, 3)):
            writer.block(function, 0, False)
        writer.put("exit")
    return "\n".join(writer.lines)
