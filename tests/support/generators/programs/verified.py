"""Random programs that the verifier accepts: every register and stack slot is set first."""

from __future__ import annotations

from support.generators.programs.writer import SLOTS, Writer


class VerifiedWriter(Writer):
    """Writes code of which R0 at the end depends on all registers and the stack."""

    atomic_weight = 2

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.has_call = False

    def packet(self) -> None:
        """A load from the packet."""
        rng = self.rng
        bits = rng.choice((8, 16, 32))
        self.put(f"r0 = *(u{bits} *)skb[{rng.randrange(44)}]")
        self.fill()

    def call(self) -> None:
        """A function of the same program, with frames of its own."""
        self.has_call = True
        self.put("call f")
        self.fill()

    def callee(self) -> None:
        """The function that `call` calls."""
        self.put(
            "f:",
            "*(u64 *)(r10 - 8) = r1",
            "*(u64 *)(r10 - 16) = r2",
            "r6 = *(u32 *)(r10 - 12)",
            "r7 = *(u64 *)(r10 - 8)",
            "r0 = r6",
            "r0 -= r7",
            "r0 ^= r3",
            "exit",
        )

    def start(self, *loads: str) -> None:
        """Set all registers and words of the frame, then load from what R6 points at."""
        rng = self.rng
        self.put("r6 = r1")
        for register in (0, 1, 2, 3, 4, 5, 7, 8, 9):
            value = rng.choice((rng.randrange(1 << 64), self.imm() % (1 << 64)))
            self.put(f"r{register} = {value:#x} ll")
        for slot in range(1, SLOTS + 1):
            self.put(f"*(u64 *)(r10 - {8 * slot}) = r{self.reg()}")
        self.put(*loads)

    def fold(self) -> None:
        """Make R0 depend on all registers and the stack."""
        for register in (1, 2, 3, 4, 5, 7, 8):
            self.put(f"r0 ^= r{register}")
            self.put("r0 *= 3")
        for slot in range(1, SLOTS + 1):
            self.put(f"r1 = *(u64 *)(r10 - {8 * slot})")
            self.put("r0 ^= r1")
            self.put("r0 *= 5")

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
    writer = VerifiedWriter(seed)
    writer.start("r7 = *(u32 *)(r6 + 0)")
    for _ in range(writer.rng.randint(1, 4)):
        writer.block(0)
    writer.fold()
    writer.put("r1 = r0", "r1 >>= 32", "w0 ^= w1", "exit")
    if writer.has_call:
        writer.callee()
    return writer.text()
