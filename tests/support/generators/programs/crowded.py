"""Random programs under pressure: all registers hold something, and frames are nearly full."""

from __future__ import annotations

import random

_OPERATIONS = ("+=", "-=", "*=", "^=", "|=", "&=")
_CONDITIONS = ("==", "!=", ">", "<", ">=", "<=", "s>", "s<", "&")
_STACK = 512
_ROUND = 32


class _Function:
    """One function in the making.

    Args:
        rng: the source of randomness.
        name: of the function.
        n_words: words of its frame.
        callees: functions that it may call.
        callbacks: functions that it may have called in a loop.
    """

    def __init__(
        self, rng: random.Random, name: str, n_words: int, callees: list[str], callbacks: list[str]
    ) -> None:
        self.rng = rng
        self.name = name
        self.words = [8 * (at + 1) for at in range(n_words)]
        self.callees = callees
        self.callbacks = callbacks
        self.n_labels = self.n_calls = 0

    def text(self) -> str:
        lines = [f"{self.name}:", *self._begin()]
        for _ in range(self.rng.randint(3, 8)):
            lines += self._piece(2)
        for _ in [*self.callees, *self.callbacks] * 3:
            lines += self._call(0)
        return "\n".join([*lines, *self._end()])

    def _begin(self) -> list[str]:
        """All registers and words get a value that the verifier does not know."""
        if self.name == "main":
            lines = ["r6 = *(u32 *)(r1 + 0)", "r7 = r6", "r7 *= r6", "r1 = r6", "r2 = r7"]
        else:
            lines = ["r6 = r1", "r7 = r2"]
        lines += self._refill(*range(10))
        self.rng.shuffle(self.words)
        lines += [f"*(u64 *)(r10 - {word}) = r{self.rng.randrange(10)}" for word in self.words]
        return lines

    def _refill(self, *registers: int, sources: tuple[int, ...] = (6, 7)) -> list[str]:
        """Registers get something made of R6 and R7."""
        return [
            line
            for register in registers
            if register not in (6, 7)
            for line in (
                f"r{register} = r{self.rng.choice(sources)}",
                f"r{register} *= {self.rng.randint(1, 99)}",
            )
        ]

    def _piece(self, depth: int) -> list[str]:
        rng = self.rng
        pieces = [self._arithmetic, self._store, self._load, self._indirect, self._constant]
        if depth:
            pieces += [self._branch, self._branch]
        if depth == 2:
            pieces += [self._loop]
        if self.callees or self.callbacks:
            pieces += [self._call]
        chosen = rng.choice(pieces)
        return chosen(depth)

    def _arithmetic(self, depth: int) -> list[str]:
        del depth
        rng = self.rng
        kind = rng.choice("rw")
        source = f"{kind}{rng.randrange(10)}" if rng.random() < 0.5 else str(rng.randint(-999, 999))
        return [f"{kind}{rng.randrange(10)} {rng.choice(_OPERATIONS)} {source}"]

    def _constant(self, depth: int) -> list[str]:
        del depth
        register = self.rng.randrange(10)
        return [f"r{register} = {self.rng.randint(-99999, 99999)}", *self._store(0)]

    def _store(self, depth: int) -> list[str]:
        del depth
        rng = self.rng
        size = rng.choice((8, 8, 8, 4, 2, 1))
        at = rng.choice(self.words) - rng.randrange(0, 8, size)
        return [f"*(u{8 * size} *)(r10 - {at}) = r{rng.randrange(10)}"]

    def _load(self, depth: int) -> list[str]:
        del depth
        rng = self.rng
        size = rng.choice((8, 8, 8, 4, 2, 1))
        at = rng.choice(self.words) - rng.randrange(0, 8, size)
        return [f"r{rng.randrange(10)} = *(u{8 * size} *)(r10 - {at})"]

    def _indirect(self, depth: int) -> list[str]:
        """An access through an address that was computed, stored, or both."""
        del depth
        rng = self.rng
        register, other = rng.sample(range(10), 2)
        word, slot = rng.choice(self.words), rng.choice(self.words)
        keep = 7 if register == 6 else 6
        lines = [f"r{register} = r10", f"r{register} += -{word}"]
        if rng.random() < 0.4 and slot != word:
            lines += [
                f"*(u64 *)(r10 - {slot}) = r{register}",
                *self._refill(other, sources=(keep,)),
            ]
            lines += [f"r{register} = *(u64 *)(r10 - {slot})"]
        if rng.random() < 0.4:
            lines += [f"r{other} &= 7", f"r{register} += r{other}"]
            lines += [f"r{other} = *(u8 *)(r{register} + 0)"]
        elif rng.random() < 0.5:
            lines += [f"*(u64 *)(r{register} + 0) = r{other}"]
        else:
            lines += [f"r{other} = *(u64 *)(r{register} + 0)"]
        return [*lines, f"r{register} = r{keep}", f"*(u64 *)(r10 - {slot}) = r{register}"]

    def _label(self) -> str:
        self.n_labels += 1
        return f"{self.name}_{self.n_labels}"

    def _branch(self, depth: int) -> list[str]:
        rng = self.rng
        other, on = self._label(), self._label()
        kind = rng.choice("rw")
        right = f"{kind}{rng.randrange(10)}" if rng.random() < 0.5 else str(rng.randint(-9, 99))
        lines = [f"if {kind}{rng.randrange(10)} {rng.choice(_CONDITIONS)} {right} goto {other}"]
        for _ in range(rng.randint(1, 3)):
            lines += self._piece(depth - 1)
        lines += [f"goto {on}", f"{other}:"]
        for _ in range(rng.randint(0, 2)):
            lines += self._piece(depth - 1)
        return [*lines, f"{on}:", self._arithmetic(0)[0]]

    def _loop(self, depth: int) -> list[str]:
        rng = self.rng
        del depth
        head, word = self._label(), self.words[0]
        body = [line for _ in range(2) for line in self._arithmetic(0)]
        return [
            f"r8 = {rng.randint(2, 4)}",
            f"{head}:",
            *[line for line in body if not line.startswith(("r8", "w8"))],
            f"*(u64 *)(r10 - {word}) = r8",
            "r8 += -1",
            f"if r8 != 0 goto {head}",
        ]

    def _call(self, depth: int) -> list[str]:
        del depth
        rng = self.rng
        word = rng.choice([word for word in self.words if word >= 16] or self.words)
        self.n_calls += 1
        if self.callbacks and (not self.callees or self.n_calls % 2):
            return [
                f"*(u64 *)(r10 - {word}) = r6",
                f"r1 = {rng.randint(1, 3)}",
                f"r2 = {rng.choice(self.callbacks)} ll",
                "r3 = r10",
                f"r3 += -{word}",
                "r4 = 0",
                "call bpf_loop",
                *self._refill(1, 2, 3, 4, 5),
            ]
        return [
            f"*(u64 *)(r10 - {word}) = r7",
            "r1 = r10",
            f"r1 += -{word}",
            "r2 = r6",
            f"call {rng.choice(self.callees)}",
            *self._refill(1, 2, 3, 4, 5),
        ]

    def _end(self) -> list[str]:
        some = self.rng.sample(self.words, min(len(self.words), 12))
        lines = [f"r0 += r{register}" for register in range(1, 10)]
        for word in some:
            lines += [f"r1 = *(u64 *)(r10 - {word})", "r0 *= 3", "r0 += r1"]
        return [*lines, "exit"]


def crowded_code(seed: int, *, has_callbacks: bool = False) -> str:
    """A program of up to four functions, whose frames fill the stack but for at most 32 bytes.

    Args:
        seed: the same gives the same program.
        has_callbacks: whether functions are called by bpf_loop, too.
    """
    rng = random.Random(seed)
    n_callees = rng.randint(0, 2)
    left = _STACK - _ROUND * rng.randint(0, 1)
    names = [f"f{at}" for at in range(n_callees)]
    sizes = []
    for _ in names:
        size = rng.choice((32, 64, 96))
        sizes.append(size)
        left -= size
    callbacks = ["round"] if has_callbacks else []
    left -= _ROUND * len(callbacks)
    out = [_Function(rng, "main", left // 8, names[:1], callbacks).text()]
    for at, (name, size) in enumerate(zip(names, sizes, strict=True)):
        out.append(_callee(rng, name, size, names[at + 1 : at + 2]))
    if has_callbacks:
        out.append(
            "round:\nr0 = *(u64 *)(r2 + 0)\nr0 *= 5\nr0 += r1\n*(u64 *)(r10 - 8) = r0\n"
            "r3 = *(u64 *)(r10 - 8)\n*(u64 *)(r2 + 0) = r3\nr0 = 0\nexit"
        )
    return "\n".join(out)


def _callee(rng: random.Random, name: str, size: int, callees: list[str]) -> str:
    """A function that reads and writes through the address that it is given."""
    body = _Function(rng, name, size // 8, callees, []).text().splitlines()
    opening = ["r6 = *(u64 *)(r1 + 0)", "r7 = r2"]
    if rng.random() < 0.5:
        opening += ["r6 += 3", "*(u64 *)(r1 + 0) = r6"]
    return "\n".join([body[0], *opening, *body[3:]])
