"""Instructions a second: the compiled interpreter, and a naive decode-and-dispatch loop.

``python -m benchmarks.interp``. Each program runs with both engines in one
process, alternating; the figure is the median of several runs. The first run,
which compiles, is not counted but shown.
"""

from __future__ import annotations

import statistics
import time
from typing import Final

from bpfpatch.asm import assemble
from bpfpatch.interp import Machine, MapSpec, Xdp
from bpfpatch.interp.contexts import Context, Plain
from bpfpatch.program import Program

RUNS: Final = 5
_BUDGET: Final = 100_000_000

SUM: Final = "r0 = 0; r1 = 60000; again: r0 += r1; r1 -= 1; if r1 != 0 goto again; exit"

PRIME: Final = """
r1 = 30011
r0 = 1
r2 = 2
again:
  r4 = r1
  r4 %= r2
  r0 = 0
  if r4 == 0 goto out
  r2 += 1
  r0 = 1
  if r2 < r1 goto again
out:
  exit
"""

STACK: Final = """
r1 = 0
again:
  *(u64 *)(r10 - 8) = r1
  r2 = *(u64 *)(r10 - 8)
  r2 *= 3
  *(u32 *)(r10 - 16) = w2
  w3 = *(u16 *)(r10 - 16)
  r0 += r3
  r1 += 1
  if r1 < 15000 goto again
exit
"""

CHECKSUM: Final = """
r6 = *(u32 *)(r1 + 0)
r7 = *(u32 *)(r1 + 4)
r9 = 80
round:
  r2 = r6
  r0 = 0
word:
  r3 = r2
  r3 += 2
  if r3 > r7 goto done
  w4 = *(u16 *)(r2 + 0)
  r0 += r4
  r2 = r3
  goto word
done:
  r9 -= 1
  if r9 != 0 goto round
exit
"""

BRANCHES: Final = """
r0 = 0
r1 = 12345
r9 = 8000
again:
  w1 *= 1103515245
  w1 += 12345
  r2 = r1
  r2 >>= 16
  r2 &= 3
  if r2 == 0 goto zero
  if r2 == 1 goto one
  if r2 == 2 goto two
  r0 ^= r1
  goto next
zero:
  r0 += 1
  goto next
one:
  r0 -= r1
  goto next
two:
  r0 <<= 1
next:
  r9 -= 1
  if r9 != 0 goto again
exit
"""

CALLS: Final = """
r6 = 8000
r0 = 0
again:
  r1 = r0
  r2 = r6
  call add
  r6 -= 1
  if r6 != 0 goto again
exit
add:
  r0 = r1
  r0 += r2
  exit
"""

MAPS: Final = """
r6 = 4000
again:
  *(u32 *)(r10 - 4) = 0
  r1 = map[id:1]
  r2 = r10
  r2 += -4
  call bpf_map_lookup_elem
  if r0 == 0 goto out
  r1 = *(u64 *)(r0 + 0)
  r1 += 1
  *(u64 *)(r0 + 0) = r1
  r6 -= 1
  if r6 != 0 goto again
out:
  r0 = 0
  exit
"""

PROGRAMS: Final[dict[str, tuple[str, Context]]] = {
    "sum": (SUM, Plain()),
    "prime": (PRIME, Plain()),
    "stack": (STACK, Plain()),
    "checksum": (CHECKSUM, Xdp(bytes(1400))),
    "branches": (BRANCHES, Plain()),
    "calls": (CALLS, Plain()),
    "maps": (MAPS, Plain()),
}


def rate(machine: Machine, context: Context) -> tuple[float, int]:
    """Millions of instructions a second in one run, and R0."""
    began = time.perf_counter()
    outcome = machine.run(context)
    return outcome.n_insns / (time.perf_counter() - began) / 1e6, outcome.r0


def machines(program: Program) -> tuple[Machine, Machine]:
    """Both engines, with one map."""
    maps = {1: MapSpec("array", 4, 8, 1)}
    return (
        Machine(program, maps=maps, budget=_BUDGET, trace_helpers=False),
        Machine(program, maps=maps, budget=_BUDGET, trace_helpers=False, engine="reference"),
    )


def main() -> None:
    """Print the table."""
    print(f"{'program':10}  {'compiled':>10}  {'naive':>10}  {'ratio':>6}   (Minsn/s, first run)")
    ratios = []
    for name, (text, context) in PROGRAMS.items():
        fast, slow = machines(assemble(text))
        first, r0 = rate(fast, context)
        rates: tuple[list[float], list[float]] = ([], [])
        for _ in range(RUNS):
            for machine, into in zip((fast, slow), rates, strict=True):
                found, other = rate(machine, context)
                assert other == r0 or name == "maps", name
                into.append(found)
        compiled, naive = map(statistics.median, rates)
        ratios.append(compiled / naive)
        print(f"{name:10}  {compiled:10.2f}  {naive:10.3f}  {ratios[-1]:6.1f}   {first:.2f}")
    print(f"median ratio {statistics.median(ratios):.1f}")
    _long()


def _long() -> None:
    """How soon a program of 100,000 instructions starts."""
    text = "".join(
        f"r0 += {k % 7}\nif r0 == {k} goto n{k}\nr1 ^= r0\nn{k}:\n" for k in range(33_000)
    )
    program = assemble(text + "exit")
    machine = Machine(program, budget=_BUDGET)
    began = time.perf_counter()
    machine.run()
    print(
        f"first run of {len(program)} instructions in one function: "
        f"{time.perf_counter() - began:.2f} s"
    )


if __name__ == "__main__":
    main()
