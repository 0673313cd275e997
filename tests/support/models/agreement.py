"""Whether the interpreter and the kernel agree on a random program on plain memory."""

from __future__ import annotations

import random
from types import TracebackType
from typing import Self

from bpfpatch import kernel
from bpfpatch.asm import assemble
from bpfpatch.facts import MapDefinition, MapType
from bpfpatch.interp import Machine
from bpfpatch.kernel import Map
from bpfpatch.program import Program
from bpfpatch.runs import Input, open_runner
from support.generators.programs.memory import HASH_SIZE, KEYS, MEMORY, memory_code

INPUTS = 3
"""How many memories each program runs on."""
_ZERO = bytes(8)

Result = tuple[int, bytes | None, dict[bytes, bytes], dict[bytes, bytes]]


class Agreement:
    """Two maps in the kernel, and programs that use them.

    Attributes:
        n_run: programs that the kernel took.
        n_refused: those that it did not.
    """

    def __init__(self) -> None:
        self._hash = Map.create("hash", 4, 8, HASH_SIZE)
        self._array = Map.create("array", 4, 8, KEYS)
        self.n_run = 0
        self.n_refused = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hash.close()
        self._array.close()

    @property
    def array_fd(self) -> int:
        """The descriptor of the array."""
        return self._array.fd

    def check(self, seed: int) -> str:
        """Run a program in both; "" where they agree, else what is different."""
        text = memory_code(seed, self._hash.fd, self._array.fd)
        return self.compare(assemble(text), inputs(seed))

    def compare(self, program: Program, memories: list[bytes]) -> str:
        """Run a program on some memories; its maps keep their contents from one to the next."""
        wanted = self._in_kernel(program, memories)
        if wanted is None:
            self.n_refused += 1
            return ""
        self.n_run += 1
        got = self._interpreted(program, memories)
        for number, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
            for what, mine, kernels in zip(
                ("R0", "memory", "the hash table", "the array"), ours, theirs, strict=True
            ):
                if mine != kernels:
                    return f"{what} after run {number}: {mine!r}, the kernel has {kernels!r}"
        return ""

    def _in_kernel(self, program: Program, memories: list[bytes]) -> list[Result] | None:
        for key in list(self._hash.keys()):
            self._hash.delete(key)
        for key in list(self._array.keys()):
            self._array.update(key, _ZERO)
        out: list[Result] = []
        with open_runner(program, "jit") as runner:
            for memory in memories:
                outcome = runner.run(Input(mem=memory))
                if isinstance(outcome.error, kernel.VerifierError):
                    return None
                if outcome.error is not None:
                    raise outcome.error
                array = {key: value for key, value in self._array.items() if value != _ZERO}
                out.append((outcome.r0, outcome.mem, self._hash.dump(), array))
        return out

    def _interpreted(self, program: Program, memories: list[bytes]) -> list[Result]:
        specs = {
            self._hash.fd: MapDefinition("hash", MapType.HASH, 4, 8, HASH_SIZE),
            self._array.fd: MapDefinition("array", MapType.ARRAY, 4, 8, KEYS),
        }
        machine = Machine(program, maps=specs)
        out: list[Result] = []
        for memory in memories:
            outcome = machine.run(mem=memory)
            contents = [dict(machine.maps[name].contents()) for name in ("hash", "array")]
            out.append((outcome.r0, outcome.mem, contents[0], contents[1]))
        return out


def inputs(seed: int) -> list[bytes]:
    """The memories that a program runs on."""
    rng = random.Random(~seed)
    edges = bytes((0, 1, 0x7F, 0x80, 0xFF))
    return [
        bytes(
            rng.choice(edges) if rng.random() < 0.4 else rng.randrange(256) for _ in range(MEMORY)
        )
        for _ in range(INPUTS)
    ]
