"""Read a BPF ring buffer: the records that programs sent, in order.

Source: linux v6.18, Documentation/bpf/ringbuf.rst and kernel/bpf/ringbuf.c, struct
bpf_ringbuf and bpf_ringbuf_reserve(): one page with the reader's position, then, read-only,
one with the writer's and the data twice in a row; include/uapi/linux/bpf.h,
BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT and BPF_RINGBUF_HDR_SZ.
"""

from __future__ import annotations

import mmap
import select
from collections.abc import Callable, Iterator
from typing import Final, Self

import numpy as np

from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import MapType

from .errors import KernelError
from .map import Map

_HEADER: Final = 8
_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_ALIGN: Final = 8


class RingReader:
    """The reading end of a ring buffer; there is only one: what is read is gone for others.

    Args:
        ring: a map of type ringbuf; it has to stay open as long as this.

    Raises:
        OptionError: it is not a ring buffer.
        KernelError: it cannot be mapped.
    """

    def __init__(self, ring: Map) -> None:
        if ring.type is not MapType.RINGBUF:
            raise OptionError(f"map {ring.name!r} is of type {ring.type.text}, no ring buffer")
        self._ring = ring
        self._size = ring.max_entries
        page = mmap.PAGESIZE
        try:
            self._mine = mmap.mmap(ring.fd, page)
            self._theirs = mmap.mmap(
                ring.fd, page + 2 * self._size, prot=mmap.PROT_READ, offset=page
            )
        except OSError as error:
            raise KernelError(error.errno or 0, f"mapping ring buffer {ring.name!r}") from error
        # One load and one store of 64 bits each: that is what both sides agree on.
        self._read_to = np.frombuffer(self._mine, np.uint64, 1)
        self._written_to = np.frombuffer(self._theirs, np.uint64, 1)
        self._data = np.frombuffer(self._theirs, np.uint8, 2 * self._size, page)

    def read(self, check: Callable[[bytes], object] | None = None) -> Iterator[bytes]:
        """The records that are there, oldest first; each is gone once it is given out.

        Ends where there are no more, or one is still being written.

        Args:
            check: looks at each before it is taken; where it raises, the record stays.
        """
        while True:
            at = int(self._read_to[0])
            if at >= int(self._written_to[0]):
                return
            start = at % self._size
            header = int(self._data[start : start + 4].view(np.uint32)[0])
            if header & _BUSY:
                return
            length = header & ~(_BUSY | _DISCARDED)
            begin = start + _HEADER
            content = self._data[begin : begin + length].tobytes()
            if check is not None and not header & _DISCARDED:
                check(content)
            self._read_to[0] = at + (_HEADER + length + _ALIGN - 1) // _ALIGN * _ALIGN
            if not header & _DISCARDED:
                yield content

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for a record; whether there is one.

        Args:
            seconds: how long at most; None for as long as it takes.
        """
        poll = select.poll()
        poll.register(self._ring.fd, select.POLLIN)
        return bool(poll.poll(None if seconds is None else 1000 * seconds))

    def close(self) -> None:
        """Take the mapping away; a second time is fine."""
        if not self._mine.closed:
            del self._read_to, self._written_to, self._data
            self._mine.close()
            self._theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
