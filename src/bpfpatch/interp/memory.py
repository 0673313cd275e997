"""The simulated machine's memory: regions with bounds and permissions.

Every region has a window of 256 MiB of addresses for itself and starts where
its window does. So the window's number, which is the address shifted right,
finds a region's bytes at once, and what is left of the address is the index
into them; an access past a region's end cannot meet another one.

Windows below 4 GiB are for packets: ``__sk_buff`` and ``xdp_md`` keep a
packet's address in 32 bits.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from bpfpatch.isa import ByteOrder

from .errors import OutOfMemory, StrayAccess, TooMuchMoved

Bytes: TypeAlias = bytes | bytearray | memoryview

WINDOW_BITS: Final = 28
WINDOW: Final = 1 << WINDOW_BITS
INSIDE: Final = WINDOW - 1
U64: Final = (1 << 64) - 1

FRAME_SIZE: Final = 512
MAX_FRAMES: Final = 8

_PACKET_WINDOWS: Final = range(1, 16)
_STACK_WINDOW: Final = 0x10
CODE_WINDOW: Final = 0x20
"""The window of the first program's code. Nothing can be read there."""
MAX_IMAGES: Final = 0x1000
_MAP_WINDOW: Final = CODE_WINDOW + MAX_IMAGES
_FREE_WINDOW: Final = 0x100_0000
# What a region costs beside its bytes: its entry in the tables and its own objects.
_OVERHEAD: Final = 256


def code_address(image: int, slot: int) -> int:
    """The address of an instruction of the machine's nth program. Nothing can be read there."""
    return ((CODE_WINDOW + image) << WINDOW_BITS) + 8 * slot


def map_address(number: int) -> int:
    """The address that stands for a map. Nothing can be read there."""
    return (_MAP_WINDOW + number) << WINDOW_BITS


MOVE_LIMIT: Final = 1 << 30
"""Bytes that helpers may read and write in one run."""
_SMALL: Final = 512
"""Bytes at once that take no longer than a few instructions, and are not counted."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One run of bytes that a program may use.

    Attributes:
        name: for error messages.
        address: of the first byte.
        data: the bytes.
        is_writable: whether the program may write to them.
    """

    name: str
    address: int
    data: bytearray
    is_writable: bool

    def __str__(self) -> str:
        mode = "rw" if self.is_writable else "r-"
        return f"{self.address:#x} {mode} {len(self.data)} bytes: {self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class StackFrame:
    """The stack of one function, and views of it by width where the host's byte order allows.

    Attributes:
        top: what R10 holds.
        data: the bytes.
        wide: by size in bytes (2, 4, 8) a view that is indexed in units of that size.
    """

    top: int
    data: bytearray
    wide: dict[int, memoryview]


class Memory:
    """All regions of one machine.

    Attributes:
        readable: bytes by window, of all regions.
        writable: bytes by window, of those that may be written.
        frames: the stack, outermost function first.
        fill: what memory starts with before it is written.
    """

    def __init__(self, byteorder: ByteOrder, limit: int, fill: int = 0) -> None:
        self.fill = fill
        self.byteorder = byteorder
        self.limit = limit
        self.used = 0
        self._moved = 0
        self.readable: dict[int, bytearray] = {}
        self.writable: dict[int, bytearray] = {}
        self._regions: dict[int, Region] = {}
        self._windows = itertools.count(_FREE_WINDOW)
        self._packet_windows = itertools.cycle(_PACKET_WINDOWS)
        self._retired: list[Region] = []
        self.frames = [self._frame(depth) for depth in range(MAX_FRAMES)]

    def _frame(self, depth: int) -> StackFrame:
        region = self._place(_STACK_WINDOW + depth, f"stack of frame {depth}", FRAME_SIZE, True)
        views = {}
        if self.byteorder == sys.byteorder:
            whole = memoryview(region.data)
            views = {2: whole.cast("H"), 4: whole.cast("I"), 8: whole.cast("Q")}
        return StackFrame(region.address + FRAME_SIZE, region.data, views)

    def fresh(self, size: int) -> bytes:
        """Bytes that were never written."""
        return bytes((self.fill,)) * size

    def add(
        self, name: str, content: Bytes | int, *, writable: bool = True, packet: bool = False
    ) -> Region:
        """Put a region somewhere.

        Args:
            name: for error messages.
            content: its bytes, copied, or how many zeros.
            writable: whether the program may write to it.
            packet: place it below 4 GiB. Of such regions 15 can be there at a time.

        Raises:
            OutOfMemory: the machine's limit is reached.
        """
        window = next(self._packet_windows) if packet else next(self._windows)
        return self._place(window, name, content, writable)

    def round_up(self, count: int) -> None:
        """Let later regions be where they would be with up to ``count`` regions more or less.

        Two machines of programs with different maps then have the same addresses for all else.
        """
        n_taken = next(self._windows) - _FREE_WINDOW
        self._windows = itertools.count(_FREE_WINDOW + count * (n_taken // count + 1))

    def _place(self, window: int, name: str, content: Bytes | int, writable: bool) -> Region:
        if isinstance(content, int):
            size = content
        else:
            size = len(content) if isinstance(content, bytes) else len(memoryview(content))
        self.check(size)
        data = bytearray(content)
        region = Region(name, window << WINDOW_BITS, data, writable)
        self.readable[window] = data
        if writable:
            self.writable[window] = data
        self._regions[window] = region
        self.used += size + _OVERHEAD
        return region

    def check(self, size: int) -> None:
        """See that there is room for a region, before its content is made.

        Raises:
            OutOfMemory: the machine's limit is reached.
        """
        if size > WINDOW or self.used + size + _OVERHEAD > self.limit:
            raise OutOfMemory(self.used + size, self.limit)

    def charge(self, size: int) -> None:
        """Count bytes that are kept elsewhere, such as records, against the limit.

        Raises:
            OutOfMemory: the machine's limit is reached.
        """
        if self.used + size + _OVERHEAD > self.limit:
            raise OutOfMemory(self.used + size, self.limit)
        self.used += size + _OVERHEAD

    def release(self, size: int) -> None:
        """Give back what was charged."""
        self.used -= size + _OVERHEAD

    def remove(self, region: Region) -> None:
        """Take a region away; its address then traps."""
        window = region.address >> WINDOW_BITS
        if self._regions.get(window) is not region:
            return
        del self._regions[window], self.readable[window]
        self.writable.pop(window, None)
        self.used -= len(region.data) + _OVERHEAD

    def retire(self, region: Region) -> None:
        """Take a region away when the run ends, as the kernel does after its grace period."""
        self._retired.append(region)

    def end_run(self) -> None:
        """Take away what was retired; the next run may move as many bytes as this one."""
        self._moved = 0
        for region in self._retired:
            self.remove(region)
        self._retired.clear()

    def regions(self) -> Iterator[Region]:
        """All regions, by address."""
        for window in sorted(self._regions):
            yield self._regions[window]

    def find(self, address: int) -> Region | None:
        """The region in whose window an address lies."""
        return self._regions.get((address & U64) >> WINDOW_BITS)

    def read(self, address: int, size: int) -> bytes:
        """Copy bytes out.

        Raises:
            StrayAccess: they are not all in one region.
        """
        data = self.readable.get(address >> WINDOW_BITS)
        at = address & INSIDE
        if size == 0:
            return b""
        if data is None or size < 0 or at + size > len(data):
            raise StrayAccess(address, size, "read")
        if size > _SMALL:
            self.work(size)
        return bytes(data[at : at + size])

    def write(self, address: int, content: Bytes) -> None:
        """Copy bytes in.

        Raises:
            StrayAccess: they are not all in one region, or may not be written.
        """
        data = self.writable.get(address >> WINDOW_BITS)
        at, size = address & INSIDE, len(memoryview(content))
        if size == 0:
            return
        if data is None or at + size > len(data):
            raise StrayAccess(address, size, "write")
        if size > _SMALL:
            self.work(size)
        data[at : at + size] = content

    def work(self, n_bytes: int) -> None:
        """Count what a helper goes through: a call is one instruction, however much it does.

        Raises:
            TooMuchMoved: with all that went before it is more than a run may take.
        """
        self._moved += n_bytes
        if self._moved > MOVE_LIMIT:
            raise TooMuchMoved(MOVE_LIMIT)

    def read_int(self, address: int, size: int) -> int:
        """An unsigned number of ``size`` bytes; raises as `read` does."""
        return int.from_bytes(self.read(address, size), self.byteorder)

    def write_int(self, address: int, size: int, value: int) -> None:
        """The low ``size`` bytes of a number; raises as `write` does."""
        low = value & ((1 << 8 * size) - 1)
        self.write(address, low.to_bytes(size, self.byteorder))

    def read_string(self, address: int, most: int) -> bytes:
        """Bytes up to a NUL, which is left out, or ``most`` of them.

        Raises:
            StrayAccess: the first byte is not there. What ends without a NUL ends there.
        """
        data = self.readable.get(address >> WINDOW_BITS)
        at = address & INSIDE
        if data is None or at >= len(data):
            raise StrayAccess(address, 1, "read")
        end = data.find(b"\0", at, at + most)
        text = bytes(data[at : at + most if end < 0 else end])
        if len(text) > _SMALL:
            self.work(len(text))
        return text
