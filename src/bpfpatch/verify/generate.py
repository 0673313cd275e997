"""Inputs from nothing, and inputs made of others."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from .case import POINTER_MARK, Case, field_size
from .checksums import TRANSPORT, repaired
from .kinds import PACKET_SHAPES, Shape
from .packets import templates

MIN_PACKET: Final = 14
"""The kernel takes no shorter ones, and a program may rely on that."""
MAX_PACKET: Final = 3500

CTX_SIZE: Final = 512
_MEM_SIZES: Final = (64, 0, 8, 256)

_INTERESTING: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000)
_INTERESTING_WIDE: Final = (0xFFFF_FFFF, 0x1_0000_0000, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)

SKB_SETTABLE: Final = (
    *("mark", "priority", "cb0", "cb1", "cb2", "cb3", "cb4"),
    *("tc_index", "tc_classid", "pkt_type", "queue_mapping"),
)
"""Fields of a packet's context that are varied; the others follow from the packet."""
_PATTERN: Final = 0xA5A5_A5A5_A5A5_A5A1
_FEW_BITS: Final = {"pkt_type": 7, "queue_mapping": 0xFFFF, "tc_index": 0xFFFF}
"""Fields that hold less than their size in the structure. Source: linux v6.18,
include/linux/skbuff.h, struct sk_buff."""

XDP_SETTABLE: Final = ("ingress_ifindex", "rx_queue_index")


def first_cases(shape: Shape, rng: random.Random) -> Iterator[Case]:
    """What to begin with."""
    if shape in PACKET_SHAPES:
        names = XDP_SETTABLE if shape is Shape.XDP else SKB_SETTABLE
        fields = tuple((name, 1 if name.endswith("ifindex") else 0) for name in names)
        for packet in templates():
            yield Case(packet=repaired(packet, TRANSPORT), fields=fields)
        return
    if shape is Shape.MEM:
        for size in _MEM_SIZES:
            yield Case(ctx=bytes(size))
            yield Case(ctx=some_bytes(rng, size))
        return
    yield from _contexts(rng)


def _contexts(rng: random.Random) -> Iterator[Case]:
    """Contexts of zeros, numbers, pointers, and all of them mixed."""
    n_words = CTX_SIZE // 8
    pointers = [POINTER_MARK + 256 * (at % 32) for at in range(n_words)]
    numbers = [rng.choice((0, 1, 2, 3, 10, 1000, rng.getrandbits(32))) for _ in range(n_words)]
    memories = [bytes(64), _words(pointers[:16]), some_bytes(rng, 96), _mixed(rng, 32)]
    for words in ([0] * n_words, pointers, numbers):
        for memory in memories:
            yield Case(ctx=_words(words), memory=memory)
    for _ in range(4):
        yield Case(ctx=_mixed(rng, n_words), memory=_mixed(rng, 32))
        yield Case(ctx=some_bytes(rng, CTX_SIZE), memory=_mixed(rng, 64))


def _mixed(rng: random.Random, n_words: int) -> bytes:
    kinds = (0, 1, rng.getrandbits(16), rng.getrandbits(32), POINTER_MARK + 8 * rng.randrange(500))
    return _words([rng.choice(kinds) for _ in range(n_words)])


def _words(words: Sequence[int]) -> bytes:
    return b"".join(word.to_bytes(8, "little") for word in words)


def some_bytes(rng: random.Random, size: int) -> bytes:
    """Bytes that a seed decides."""
    return rng.getrandbits(8 * size).to_bytes(size, "little") if size else b""


class Mutator:
    """Changes inputs at random.

    Args:
        rng: decides.
        shape: of the inputs.
        numbers: what the program compares with, to be written into inputs.
    """

    def __init__(self, rng: random.Random, shape: Shape, numbers: Sequence[int]) -> None:
        self._rng = rng
        self._shape = shape
        self.numbers = [*_INTERESTING, *_INTERESTING_WIDE, *numbers]

    def mutate(self, case: Case) -> Case:
        """An input that differs from another one in a few places."""
        for _ in range(self._rng.choice((1, 1, 2, 3, 6))):
            case = self._once(case)
        return case

    def _once(self, case: Case) -> Case:
        rng = self._rng
        pick = rng.random()
        if pick < 0.15:
            return self._resized(case)
        if pick < 0.2:
            return replace(case, seed=rng.getrandbits(16))
        if pick < 0.23 and case.entries:
            gone = rng.randrange(len(case.entries))
            return replace(case, entries=case.entries[:gone] + case.entries[gone + 1 :])
        buffers = case.buffers()
        filled = [number for number, content in enumerate(buffers) if content]
        if not filled:
            return case
        # The packet, or whatever comes first, more often than all the rest.
        number = filled[0] if rng.random() < 0.5 else rng.choice(filled)
        return case.with_buffer(number, self._changed(buffers[number]))

    def _resized(self, case: Case) -> Case:
        rng = self._rng
        if self._shape is Shape.MEM:
            size = rng.choice((0, 1, 7, 8, 16, 64, 200))
            return replace(case, ctx=((case.ctx or b"") + bytes(size))[:size])
        if case.packet is None:
            return case
        step = rng.choice((-1, 1, -4, 4, -20, 20, -100, 100, 1000))
        return replace(case, packet=resized(case.packet, len(case.packet) + step))

    def _changed(self, content: bytes) -> bytes:
        rng = self._rng
        out = bytearray(content)
        # Headers are in front.
        at = rng.randrange(min(len(out), rng.choice((16, 40, 80, len(out)))))
        pick = rng.random()
        if pick < 0.3:
            out[at] ^= 1 << rng.randrange(8)
        elif pick < 0.5:
            out[at] = rng.getrandbits(8)
        elif pick < 0.6:
            size = rng.choice((2, 4, 8))
            out[at : at + size] = some_bytes(rng, size)
        elif pick < 0.65:
            out[:] = some_bytes(rng, len(out))
        else:
            size = rng.choice((1, 2, 4, 8))
            value = rng.choice(self.numbers) + rng.choice((0, 0, 0, 1, -1))
            order = rng.choice(("little", "big"))
            low = value & ((1 << 8 * size) - 1)
            out[at : at + size] = low.to_bytes(size, "big" if order == "big" else "little")
        return bytes(out[: len(content)])


def with_marked_fields(case: Case) -> Case:
    """The same with something in every field of its context: a store of 0 that got lost shows.

    No two fields hold the same, as far as three bits of the smallest allow it.
    """
    marked = []
    for number, (name, value) in enumerate(case.fields):
        pattern = _FEW_BITS.get(name, (1 << 8 * field_size(name)) - 1) & (_PATTERN + number)
        marked.append((name, value or pattern))
    return replace(case, fields=tuple(marked))


def resized(packet: bytes, size: int) -> bytes:
    """A packet cut or filled up to a size, of those that the kernel takes."""
    size = min(max(size, MIN_PACKET), MAX_PACKET)
    return (packet + bytes(max(size - len(packet), 0)))[:size]
