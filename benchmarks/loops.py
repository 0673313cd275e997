"""Loops for the interpreter and the kernel, in assembly; the verifier takes all of them."""

from __future__ import annotations

from typing import Final

from bpfpatch.interp import Xdp
from bpfpatch.interp.contexts import Context, Plain

_SUM: Final = "r0 = 0; r1 = {rounds}; again: r0 += r1; r1 -= 1; if r1 != 0 goto again; exit"

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

_STACK: Final = """
r0 = 0
r1 = 0
again:
  *(u64 *)(r10 - 8) = r1
  r2 = *(u64 *)(r10 - 8)
  r2 *= 3
  *(u32 *)(r10 - 16) = w2
  w3 = *(u16 *)(r10 - 16)
  r0 += r3
  r1 += 1
  if r1 < {rounds} goto again
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

_BRANCHES: Final = """
r0 = 0
r1 = 12345
r9 = {rounds}
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
    "sum": (_SUM.format(rounds=60_000), Plain()),
    "prime": (PRIME, Plain()),
    "stack": (_STACK.format(rounds=15_000), Plain()),
    "checksum": (CHECKSUM, Xdp(bytes(1400))),
    "branches": (_BRANCHES.format(rounds=8_000), Plain()),
    "calls": (CALLS, Plain()),
    "maps": (MAPS, Plain()),
}

_SCALED: Final = {"sum": (_SUM, 3), "stack": (_STACK, 8), "branches": (_BRANCHES, 11)}
"""Loops of any length, and the instructions of a round, about."""

SCALED: Final = tuple(_SCALED)


def scaled(name: str, n_insns: int) -> str:
    """One of these that runs for about so many instructions."""
    text, in_round = _SCALED[name]
    return text.format(rounds=max(1, n_insns // in_round))
