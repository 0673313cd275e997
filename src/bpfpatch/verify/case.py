"""One input of a run: everything that a program can see and that is not its own code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from bpfpatch.errors import OptionError
from bpfpatch.interp.contexts import SKB_FIELDS, XDP_FIELDS

POINTER_MARK: Final = 0x7E57_AB1E_0000_0000
"""A word of `Case.ctx` or `Case.memory` with these upper bits stands for a pointer into memory."""
MARK_BITS: Final = 0xFFFF_FFFF_0000_0000
MEMORY_SIZE: Final = 16 << 10
"""Bytes that such pointers lead to; `Case.memory` is repeated to fill them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a map, or a section of global data, holds before the run.

    Attributes:
        map: its name.
        key: of the entry; four zeros for a section.
        value: of the entry.
    """

    map: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Case:
    """One input.

    Attributes:
        packet: from the Ethernet header on; None for programs that have none.
        fields: of the context structure of a packet program, by name.
        ctx: the context, raw arguments or plain memory of other programs. For those with a
            context a word with `POINTER_MARK` is a pointer to so many bytes into ``memory``.
        memory: what pointers in the context lead to.
        entries: what maps hold in the beginning, beside what the object says.
        results: what the nth call of a helper gives that tells time, chance or the like.
        seed: of get_prandom_u32 where ``results`` does not say.
    """

    packet: bytes | None = None
    fields: tuple[tuple[str, int], ...] = ()
    ctx: bytes | None = None
    memory: bytes = b""
    entries: tuple[Entry, ...] = ()
    results: tuple[tuple[str, int, int], ...] = ()
    seed: int = 0

    def buffers(self) -> tuple[bytes, ...]:
        """All that is in it as byte strings, always in the same order."""
        return (
            self.packet or b"",
            self.ctx or b"",
            self.memory,
            *(entry.value for entry in self.entries),
            *(value.to_bytes(8, "little") for _, _, value in self.results),
            *(value.to_bytes(field_size(name), "little") for name, value in self.fields),
        )

    def with_buffer(self, number: int, content: bytes) -> Case:
        """The same with another content of the nth buffer."""
        if number < 3:
            # Written out: `dataclasses.replace` takes as long as running a small program.
            packet, ctx, memory = (
                content if number == at else old
                for at, old in enumerate((self.packet, self.ctx, self.memory))
            )
            fields, entries, results = self.fields, self.entries, self.results
            return Case(packet, fields, ctx, memory or b"", entries, results, self.seed)
        number -= 3
        if number < len(self.entries):
            changed = list(self.entries)
            changed[number] = replace(changed[number], value=content)
            return replace(self, entries=tuple(changed))
        number -= len(self.entries)
        value = int.from_bytes(content, "little")
        if number < len(self.results):
            given = list(self.results)
            given[number] = (*given[number][:2], value)
            return replace(self, results=tuple(given))
        number -= len(self.results)
        named = list(self.fields)
        named[number] = (named[number][0], value)
        return replace(self, fields=tuple(named))

    def with_entry(self, entry: Entry) -> Case:
        """The same with one more entry, in place of one of the same key."""
        others = (one for one in self.entries if (one.map, one.key) != (entry.map, entry.key))
        return replace(self, entries=(*others, entry))

    def with_result(self, name: str, number: int, value: int) -> Case:
        """The same with another result of a helper's nth call."""
        others = (one for one in self.results if one[:2] != (name, number))
        return replace(self, results=(*others, (name, number, value & (1 << 64) - 1)))

    def lines(self) -> Iterator[str]:
        """The input as text, complete enough to run it again."""
        if self.packet is not None:
            yield f"packet ({len(self.packet)} bytes): {self.packet.hex() or '-'}"
        for name, value in self.fields:
            yield f"context field {name}: {value:#x}"
        if self.ctx is not None:
            yield f"context ({len(self.ctx)} bytes): {self.ctx.hex() or '-'}"
        if self.memory.strip(b"\0"):
            yield f"memory that pointers lead to: {self.memory.hex()}"
        for entry in self.entries:
            yield f"map {entry.map}[{entry.key.hex()}] = {entry.value.hex()}"
        for name, number, value in self.results:
            yield f"call {number} of {name} gives {value:#x}"
        if self.seed:
            yield f"seed of random numbers: {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """The input in JSON's types; bytes are hex."""
        return {
            "packet": None if self.packet is None else self.packet.hex(),
            "fields": dict(self.fields),
            "ctx": None if self.ctx is None else self.ctx.hex(),
            "memory": self.memory.hex(),
            "entries": [
                {"map": one.map, "key": one.key.hex(), "value": one.value.hex()}
                for one in self.entries
            ],
            "results": [list(one) for one in self.results],
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, found: Any) -> Self:
        """What `to_json` gave.

        Raises:
            OptionError: it is nothing of the kind.
        """
        try:
            return cls(
                packet=_unhex(found.get("packet")),
                fields=tuple((str(name), int(one)) for name, one in found["fields"].items()),
                ctx=_unhex(found.get("ctx")),
                memory=bytes.fromhex(found["memory"]),
                entries=tuple(
                    Entry(str(one["map"]), bytes.fromhex(one["key"]), bytes.fromhex(one["value"]))
                    for one in found["entries"]
                ),
                results=tuple(
                    (str(name), int(nth), int(one)) for name, nth, one in found["results"]
                ),
                seed=int(found["seed"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OptionError(f"is not an input as verify --json prints it: {error!r}") from error


def _unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def field_size(name: str) -> int:
    """Bytes of a field of a packet's context."""
    return _FIELD_SIZES.get(name, 8)


_FIELD_SIZES: Final = {name: place[1] for name, place in {**XDP_FIELDS, **SKB_FIELDS}.items()}


def place_pointers(content: bytes, base: int, byteorder: str) -> bytes:
    """Put addresses in the place of marked words.

    Args:
        content: what may hold marked words, at multiples of 8.
        base: where the memory is that they point into.
        byteorder: of the words.
    """
    order: Any = byteorder
    mark = POINTER_MARK.to_bytes(8, order)
    mark = mark[4:] if order == "little" else mark[:4]
    if mark not in content:
        return content
    out = bytearray(content)
    for at in range(0, len(out) - 7, 8):
        word = int.from_bytes(out[at : at + 8], order)
        if word & MARK_BITS == POINTER_MARK:
            inside = (word & ~MARK_BITS) % MEMORY_SIZE
            out[at : at + 8] = (base + inside).to_bytes(8, order)
    return bytes(out)
