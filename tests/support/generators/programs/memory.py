"""Random programs on plain memory, maps and helpers, which the verifier accepts."""

from __future__ import annotations

from support.generators.programs.verified import VerifiedWriter
from support.generators.programs.writer import SLOTS

MEMORY = 64
"""Bytes of the memory that R6 points at."""
KEYS = 6
HASH_SIZE = 4
"""Entries of the hash table: fewer than there are keys."""
SCRATCH = -8 * SLOTS - 16
"""Where on the stack a helper's key or buffer is."""


class MemoryWriter(VerifiedWriter):
    """Writes programs whose R6 points at `MEMORY` bytes.

    Args:
        seed: of the choices.
        hash_fd: descriptor of a hash table with keys of 4 and values of 8 bytes.
        array_fd: of an array of `KEYS` values of 8 bytes.
    """

    def __init__(self, seed: int, hash_fd: int, array_fd: int) -> None:
        super().__init__(seed)
        self.hash_fd = hash_fd
        self.array_fd = array_fd
        self.has_pointer_call = False

    def place(self, bits: int) -> str:
        """Somewhere on the stack or in memory."""
        if self.rng.random() < 0.5:
            return super().place(bits)
        return f"(r6 + {self.rng.randrange(0, MEMORY, bits // 8)})"

    def unaligned(self) -> str:
        """Somewhere in memory, at any byte, for 8 bytes or less."""
        return f"(r6 + {self.rng.randrange(MEMORY - 7)})"

    def packet(self) -> None:
        """In place of packet loads: whatever else there is to do with memory."""
        choices = (self.computed, self.odd_access, self.ordered, self.map_access, self.helper)
        self.rng.choice(choices)()

    def call(self) -> None:
        """A function that gets numbers, or one that gets a pointer to this one's stack."""
        if self.rng.random() < 0.5:
            super().call()
            return
        self.has_pointer_call = True
        self.put("r1 = r10")
        self.put(f"r1 += {-8 * self.rng.randint(1, SLOTS)}")
        self.put("call g")
        self.fill()

    def computed(self) -> None:
        """An access at an address that the program computes."""
        rng = self.rng
        bits = rng.choice((8, 16, 32, 64))
        self.put(f"r1 = r{rng.choice((0, 3, 4, 5, 7, 8))}")
        self.put(f"r1 &= {rng.choice((7, 15, 31))}")
        self.put("r2 = r6")
        self.put("r2 += r1")
        where = f"(r2 + {rng.randrange(MEMORY - 39)})"
        if rng.random() < 0.5:
            self.put(f"r3 = *({rng.choice('us') if bits < 64 else 'u'}{bits} *){where}")
        else:
            self.put(f"*(u{bits} *){where} = {'r' if bits == 64 else 'w'}{rng.choice((3, 4, 5))}")
        self.put(f"r2 = {self.imm()}")

    def odd_access(self) -> None:
        """An access that is not aligned."""
        rng, bits = self.rng, self.rng.choice((16, 32, 64))
        forms = (
            f"r{self.reg()} = *(u{bits} *){self.unaligned()}",
            f"r{self.reg()} = *(s{min(bits, 32)} *){self.unaligned()}",
            f"*(u{bits} *){self.unaligned()} = {self.imm()}",
            f"*(u{bits} *){self.unaligned()} = {'r' if bits == 64 else 'w'}{self.reg()}",
        )
        self.put(rng.choice(forms))

    def ordered(self) -> None:
        """A load-acquire or store-release."""
        rng, bits = self.rng, self.rng.choice((8, 16, 32, 64))
        reg = f"{'r' if bits == 64 else 'w'}{self.reg()}"
        where = f"(u{bits} *)(r6 + {rng.randrange(0, MEMORY, bits // 8)})"
        if rng.random() < 0.5:
            self.put(f"{reg} = load_acquire({where})")
        else:
            self.put(f"store_release({where}, {reg})")

    def key(self) -> None:
        """Put a key on the stack, and its address into R2."""
        self.put(f"*(u32 *)(r10 - {-SCRATCH}) = {self.rng.randrange(KEYS + 2)}")
        self.put("r2 = r10")
        self.put(f"r2 += {SCRATCH}")

    def map_access(self) -> None:
        """Look up, and change the value in place; or update, or delete."""
        rng = self.rng
        fd = rng.choice((self.hash_fd, self.array_fd))
        self.key()
        self.put(f"r1 = map[id:{fd}]")
        choice = rng.random()
        if choice < 0.5:
            out = self.label()
            self.put("call 1", f"if r0 == 0 goto {out}")
            self.put("r1 = *(u64 *)(r0 + 0)")
            self.put(f"r1 {rng.choice(('+=', '^='))} r{rng.choice((7, 8))}")
            self.put("*(u64 *)(r0 + 0) = r1")
            self.put(f"lock *(u32 *)(r0 + {rng.choice((0, 4))}) += w1")
            self.put(f"{out}:")
            self.put(f"r0 = {self.imm()}")
        elif choice < 0.85:
            self.put(f"r3 = {8 * rng.randint(1, SLOTS)}")
            self.put("r3 = -r3")
            self.put("r3 += r10")
            self.put(f"r4 = {rng.randrange(3)}")
            self.put("call 2")
        else:
            self.put("call 3")
        self.fill()

    def helper(self) -> None:
        """A helper whose result is the same wherever it runs."""
        rng = self.rng
        size = rng.choice((4, 8, 16))
        if rng.random() < 0.4:
            self.put("call 8")  # get_smp_processor_id
        elif rng.random() < 0.5:
            self.put(f"r1 = r10\nr1 += {-8 * rng.randint(2, SLOTS)}\nr2 = {size}")
            self.put(f"r3 = r6\nr3 += {rng.randrange(MEMORY - 16)}\ncall 113")  # probe_read_kernel
        else:
            self.put(f"r1 = r6\nr1 += {rng.randrange(MEMORY - 16)}\nr2 = {size}")
            self.put(f"r3 = r10\nr3 += {-8 * rng.randint(2, SLOTS)}\nr4 = {size}")
            self.put(f"r5 = {rng.randrange(1 << 16)}\ncall 28")  # csum_diff
        self.fill()


def memory_code(seed: int, hash_fd: int, array_fd: int) -> str:
    """Assembly of a program on plain memory; R0 depends on all registers and the stack."""
    writer = MemoryWriter(seed, hash_fd, array_fd)
    writer.start("r7 = *(u64 *)(r6 + 0)", "r8 = *(u64 *)(r6 + 8)")
    for _ in range(writer.rng.randint(1, 4)):
        writer.block(0)
    writer.fold()
    writer.put("exit")
    if writer.has_call:
        writer.callee()
    if writer.has_pointer_call:
        writer.put(
            "g:",
            "r2 = *(u64 *)(r1 + 0)",
            "r3 = *(s16 *)(r1 + 2)",
            "r0 = r2",
            "r0 s/= r3",
            "w2 += w3",
            "*(u32 *)(r1 + 4) = w2",
            "r0 ^= r3",
            "exit",
        )
    return writer.text()
