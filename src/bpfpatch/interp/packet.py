"""A packet in memory: bytes with room before and after them that can be grown into.

Only what lies between the packet's start (or that of its metadata) and its end
can be used. After a change of either, all of it is at another address, so that
a pointer from before traps, as the kernel's verifier would have refused it.
"""

from __future__ import annotations

from .memory import Memory, Region


class Packet:
    """A packet.

    Attributes:
        meta_at: where metadata starts in the buffer; where there is none, `data_at`.
        data_at: where the packet starts.
        end_at: where it ends.
        room: bytes in the whole buffer.
    """

    def __init__(
        self, memory: Memory, content: bytes, headroom: int, tailroom: int, *, n_meta: int = 0
    ) -> None:
        self._memory = memory
        self.meta_at = headroom
        self.data_at = headroom + n_meta
        self.end_at = headroom + len(content)
        self.room = self.end_at + tailroom
        self._kept: bytearray | None = None  # most programs do not move a packet's ends
        self._region = memory.add("packet", content, packet=True)

    @property
    def _buffer(self) -> bytearray:
        """All of it with the room; what is in memory now is not up to date in it."""
        if self._kept is None:
            self._kept = bytearray(self.room)
        return self._kept

    def _place(self) -> Region:
        content = self._buffer[self.meta_at : self.end_at]
        return self._memory.add("packet", content, packet=True)

    def __len__(self) -> int:
        return self.end_at - self.data_at

    @property
    def meta(self) -> int:
        """Address of the metadata."""
        return self._region.address

    @property
    def data(self) -> int:
        """Address of the packet."""
        return self._region.address + self.data_at - self.meta_at

    @property
    def data_end(self) -> int:
        """Address after the packet."""
        return self._region.address + self.end_at - self.meta_at

    def move(self, meta_at: int, data_at: int, end_at: int) -> None:
        """Change where things start and end; what is in the buffer stays."""
        self._buffer[self.meta_at : self.end_at] = self._region.data
        self._memory.remove(self._region)
        self.meta_at, self.data_at, self.end_at = meta_at, data_at, end_at
        self._region = self._place()

    def replace(self, content: bytes) -> None:
        """Put another packet in this one's place; metadata goes."""
        self._memory.remove(self._region)
        headroom = self.data_at
        tailroom = self.room - self.end_at
        self._kept = None
        self.meta_at, self.end_at = headroom, headroom + len(content)
        self.room = self.end_at + tailroom
        self._region = self._memory.add("packet", content, packet=True)

    def read(self, byte_off: int, size: int) -> bytes | None:
        """Bytes of the packet, or None where they are not all in it."""
        if byte_off < 0 or size < 0 or byte_off + size > len(self):
            return None
        start = self.data_at - self.meta_at + byte_off
        return bytes(self._region.data[start : start + size])

    def write(self, byte_off: int, content: bytes) -> bool:
        """Overwrite bytes of the packet; False where they are not all in it."""
        if byte_off < 0 or byte_off + len(content) > len(self):
            return False
        start = self.data_at - self.meta_at + byte_off
        self._region.data[start : start + len(content)] = content
        return True

    @property
    def metadata(self) -> bytes:
        """What lies between the start of the metadata and that of the packet."""
        return bytes(self._region.data[: self.data_at - self.meta_at])

    def __bytes__(self) -> bytes:
        return bytes(self._region.data[self.data_at - self.meta_at :])

    def remove(self) -> None:
        """Take it out of memory."""
        self._memory.remove(self._region)
