"""Random programs that end: arithmetic, branches, loops that count, calls, stack, dead code."""

from __future__ import annotations

from support.generators.programs.writer import SHIFTS, Writer

JUMPS = ("goto", "gotol", "may_goto")
OPS = ["+=", "-=", "*=", "/=", "%=", "|=", "&=", "^=", "s/=", "s%="]


class _Writer(Writer):
    """Writes code that needs nothing set first."""

    values = tuple(range(9))  # R9 counts loops
    edge_share = 0.7
    most_rounds = 4

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.n_functions = self.rng.randint(1, 4)
        self.function = 0
        self.in_loop = False

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

    def block(self, depth: int) -> None:
        """A run of statements; control goes out at its end only, or by exit."""
        rng = self.rng
        for _ in range(rng.randint(1, 5)):
            choice = rng.randrange(10)
            if choice < 4 or depth > 3:
                self.plain()
            elif choice < 7:
                end = self.label()
                way = f"{self.condition()} goto" if choice < 6 else rng.choice(JUMPS)
                self.put(f"{way} {end}")
                self.block(depth + 1)
                self.put(f"{end}:")
            elif choice == 7 and not self.in_loop:
                self.in_loop = True
                self.loop(depth - 2)
                self.in_loop = False
            elif choice == 8 and self.function + 1 < self.n_functions:
                self.put(f"call f{rng.randrange(self.function + 1, self.n_functions)}")
            elif choice == 9 and rng.random() < 0.2:
                self.put("exit")


def random_code(seed: int) -> str:
    """Assembly of a program that comes to its end, whatever the registers hold at first."""
    writer = _Writer(seed)
    for function in range(writer.n_functions):
        writer.function = function
        writer.put(f".subprog f{function}")
        for _ in range(writer.rng.randint(1, 3)):
            writer.block(0)
        writer.put("exit")
    return writer.text()
