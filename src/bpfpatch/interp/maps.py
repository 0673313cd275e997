"""Maps: what the map helpers work on.

A value is a region of its own, made when it is first needed, so that an access
past a value's end traps even where the kernel has another value there.

Errors are those of linux v6.18: kernel/bpf/arraymap.c, hashtab.c,
queue_stack_maps.c, ringbuf.c, lpm_trie.c and map_in_map.c.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from errno import E2BIG, EEXIST, EINVAL, ENOENT, EOPNOTSUPP
from typing import TYPE_CHECKING, Any, Final

from bpfpatch.errors import UnsupportedError
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MapDefinition

from .errors import BadHelperUse
from .memory import Memory, Region, map_address

if TYPE_CHECKING:
    from .image import CompiledFunction

ANY, NOEXIST, EXIST, LOCK = 0, 1, 2, 4

PAGE: Final = 4096
CURRENT_CPU: Final = 0xFFFF_FFFF
"""In the flags of bpf_perf_event_output(): BPF_F_CURRENT_CPU, and the bits of an index."""
_RING_HEADER: Final = 8
_MOST_RECORD: Final = 0xFFFF_FFFF // 4
"""Bytes of one record of a ring buffer. Source: linux v6.18, RINGBUF_MAX_RECORD_SZ."""


_KEY_WORK: Final = 16
"""Bytes that visiting one more key counts for."""


class SimulatedMap:
    """A map that the program can name, but of which nothing is simulated.

    Args:
        memory: the machine's.
        number: sets its address.
        kind: type as bpftool names it.
        name: its name.
        key_size: bytes of a key.
        value_size: bytes of a value.
        max_entries: how many.
    """

    def __init__(
        self,
        memory: Memory,
        number: int,
        kind: str,
        name: str,
        key_size: int,
        value_size: int,
        max_entries: int,
    ) -> None:
        self.memory = memory
        self.address = map_address(number)
        self.kind = kind
        self.name = name
        self.key_size = key_size
        self.value_size = value_size
        self.max_entries = max_entries

    def __repr__(self) -> str:
        return f"<{self.kind} map {self.name!r}>"

    # For programs: addresses and negative errnos.

    def lookup(self, key: bytes) -> int:
        """The address of a key's value, or 0."""
        raise BadHelperUse(f"look-ups in {self.kind} maps are not simulated")

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """Store a value; 0 or a negative errno."""
        raise BadHelperUse(f"updates of {self.kind} maps are not simulated")

    def delete(self, key: bytes) -> int:
        """Forget a key; 0 or a negative errno."""
        raise BadHelperUse(f"deletions from {self.kind} maps are not simulated")

    def visit(self) -> Iterator[bytes]:
        """All keys, in the order in which a program visits them."""
        raise BadHelperUse(f"visits to {self.kind} maps are not simulated")

    # For Python.

    def _key(self, key: bytes | int) -> bytes:
        if isinstance(key, int):
            return key.to_bytes(self.key_size, self.memory.byteorder)
        return key

    def get(self, key: bytes | int) -> bytes | None:
        """A copy of a key's value, or None."""
        address = self.lookup(self._key(key))
        return self.memory.read(address, self.value_size) if address else None

    def set(self, key: bytes | int, value: bytes | int) -> None:
        """Store a value.

        Raises:
            BadHelperUse: the map does not take it.
        """
        if isinstance(value, int):
            value = value.to_bytes(self.value_size, self.memory.byteorder)
        error = self.update(self._key(key), value, ANY)
        if error:
            raise BadHelperUse(f"{self!r} does not take this entry: errno {-error}")

    def contents(self) -> Any:
        """What is in it, in a form that can be compared: usually bytes to bytes."""
        return None


class ArrayMap(SimulatedMap):
    """An array; entries that were never touched are zeros."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._values: dict[int, Region] = {}

    def lookup(self, key: bytes) -> int:
        """The address of an element, or 0 beyond the last."""
        index = int.from_bytes(key, self.memory.byteorder)
        if index >= self.max_entries:
            return 0
        found = self._values.get(index)
        if found is None:
            found = self.memory.add(f"{self.name}[{index}]", self.value_size)
            self._values[index] = found
        return found.address

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """Store an element."""
        if flags & ~LOCK > EXIST:
            return -EINVAL
        address = self.lookup(key)
        if not address:
            return -E2BIG
        if flags & NOEXIST:
            return -EEXIST
        self.memory.write(address, value)
        return 0

    def delete(self, key: bytes) -> int:
        """An array's elements cannot be deleted."""
        return -EINVAL

    def visit(self) -> Iterator[bytes]:
        """All indices."""
        for index in range(self.max_entries):
            yield index.to_bytes(4, self.memory.byteorder)

    def contents(self) -> dict[bytes, bytes]:
        """Elements that are not zeros, by index."""
        order = self.memory.byteorder
        return {
            index.to_bytes(4, order): bytes(region.data)
            for index, region in sorted(self._values.items())
            if any(region.data)
        }


class DataMap(ArrayMap):
    """An array of one element that is a section of global variables."""

    def __init__(self, content: bytes, writable: bool, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        region = self.memory.add(self.name, content, writable=writable)
        self._values[0] = region
        self.data_address = region.address
        self.is_writable = writable

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """Store the section."""
        return super().update(key, value, flags) if self.is_writable else -1


class HashMap(SimulatedMap):
    """A hash table."""

    def __init__(self, *given: Any, is_lru: bool = False, **named: Any) -> None:
        super().__init__(*given, **named)
        self._values: OrderedDict[bytes, Region] = OrderedDict()
        self._is_lru = is_lru

    def lookup(self, key: bytes) -> int:
        """The address of a value, or 0."""
        found = self._values.get(key)
        if found is None:
            return 0
        if self._is_lru:
            self._values.move_to_end(key)
        return found.address

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """Store a value in a new place; who has the old one's address keeps the old value."""
        old = self._values.get(key)
        if flags & ~LOCK > EXIST:
            return -EINVAL
        if old is not None and flags & NOEXIST:
            return -EEXIST
        if old is None and flags & EXIST:
            return -ENOENT
        if old is None and len(self._values) >= self.max_entries and not self._make_room():
            return -E2BIG
        if old is not None and "percpu" in self.kind:
            self.memory.write(old.address, value)
            return 0
        self._values[key] = self.memory.add(f"{self.name}[{key.hex()}]", value)
        if old is not None:
            self.memory.retire(old)
        return 0

    def _make_room(self) -> bool:
        if not self._is_lru or not self._values:
            return False
        _, oldest = self._values.popitem(last=False)
        self.memory.retire(oldest)
        return True

    def delete(self, key: bytes) -> int:
        """Forget a key; its value's address stays good until the run ends."""
        found = self._values.pop(key, None)
        if found is None:
            return -ENOENT
        self.memory.retire(found)
        return 0

    def visit(self) -> Iterator[bytes]:
        """The keys at this moment."""
        self.memory.work(_KEY_WORK * len(self._values))
        yield from list(self._values)

    def contents(self) -> dict[bytes, bytes]:
        """All entries, by key."""
        return {key: bytes(region.data) for key, region in sorted(self._values.items())}


class TrieMap(HashMap):
    """A longest-prefix-match trie: keys are a 32-bit prefix length and data."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._n_of: Counter[int] = Counter()
        """How many prefixes there are of each length: only these lengths are looked for."""

    def _cut(self, key: bytes) -> bytes:
        n_bits = int.from_bytes(key[:4], self.memory.byteorder)
        data = int.from_bytes(key[4:], "big")
        spare = 8 * len(key[4:]) - n_bits
        data = data >> spare << spare if spare > 0 else data
        return key[:4] + data.to_bytes(len(key) - 4, "big")

    def _is_valid(self, key: bytes) -> bool:
        return int.from_bytes(key[:4], self.memory.byteorder) <= 8 * (self.key_size - 4)

    def lookup(self, key: bytes) -> int:
        """The value of the longest prefix that matches, or 0."""
        most = int.from_bytes(key[:4], self.memory.byteorder)
        for n_bits in sorted((n for n in self._n_of if n <= most), reverse=True):
            self.memory.work(len(key))
            prefix = n_bits.to_bytes(4, self.memory.byteorder) + key[4:]
            found = self._values.get(self._cut(prefix))
            if found is not None:
                return found.address
        return 0

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """Store a prefix's value."""
        if not self._is_valid(key):
            return -EINVAL
        n_before = len(self._values)
        error = super().update(self._cut(key), value, flags)
        self._n_of[int.from_bytes(key[:4], self.memory.byteorder)] += len(self._values) - n_before
        return error

    def delete(self, key: bytes) -> int:
        """Forget a prefix."""
        if not self._is_valid(key):
            return -EINVAL
        error = super().delete(self._cut(key))
        if not error:
            n_bits = int.from_bytes(key[:4], self.memory.byteorder)
            self._n_of[n_bits] -= 1
            self._n_of += Counter()  # lengths of which none is left go
        return error


class QueueMap(SimulatedMap):
    """A queue or a stack; neither has keys."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.values: deque[bytes] = deque()

    def push(self, value: bytes, flags: int) -> int:
        """Put a value at the end; with BPF_EXIST the oldest gives way."""
        if flags > EXIST or flags & NOEXIST:
            return -EINVAL
        if len(self.values) >= self.max_entries:
            if not flags & EXIST:
                return -E2BIG
            self.memory.release(len(self.values.popleft()))
        self.memory.charge(len(value))
        self.values.append(value)
        return 0

    def take(self, *, remove: bool) -> bytes | None:
        """The next value, or None."""
        if not self.values:
            return None
        is_queue = self.kind == "queue"
        if remove:
            self.memory.release(self.value_size)
            return self.values.popleft() if is_queue else self.values.pop()
        return self.values[0 if is_queue else -1]

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """From Python, as from the bpf(2) syscall: push."""
        return self.push(value, flags)

    def contents(self) -> list[bytes]:
        """The values, oldest first."""
        return list(self.values)


class SentMap(SimulatedMap):
    """What a program sends records to.

    Attributes:
        records: all that was submitted, in order.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.records: list[bytes] = []

    def send(self, content: bytes) -> None:
        """Add a record."""
        self.memory.charge(len(content))
        self.records.append(content)

    def contents(self) -> list[bytes]:
        """All records, oldest first."""
        return list(self.records)

    def empty(self) -> None:
        """Forget all records."""
        while self.records:
            self.memory.release(len(self.records.pop()))


class RingMap(SentMap):
    """A ring buffer. It fills as the kernel's does: nothing is read while a program runs.

    Attributes:
        reserved: records that were reserved and not finished, by address.
        produced: bytes that all records took, headers included.
        consumed: how many of them were read.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.reserved: dict[int, Region] = {}
        self.produced = self.consumed = 0

    @property
    def size(self) -> int:
        """Bytes of the ring: what a loader makes of the number of entries."""
        return max(PAGE, 1 << max(self.max_entries - 1, 0).bit_length())

    def _claim(self, size: int) -> bool:
        """Take room for a record; False where there is none.

        Source: linux v6.18, kernel/bpf/ringbuf.c, __bpf_ringbuf_reserve().
        """
        n_bytes = -(-(size + _RING_HEADER) // 8) * 8
        if size > _MOST_RECORD or self.produced + n_bytes - self.consumed > self.size - 1:
            return False
        self.produced += n_bytes
        return True

    def reserve(self, size: int) -> int:
        """The address of a new record, or 0 where there is no room for it."""
        if not self._claim(size):
            return 0
        region = self.memory.add(f"record of {self.name}", size)
        if self.memory.fill:
            region.data[:] = self.memory.fresh(size)
        self.reserved[region.address] = region
        return region.address

    def finish(self, address: int, *, submit: bool) -> bool:
        """Send or drop a record; False if it is none of ours. A dropped one takes room, too."""
        region = self.reserved.pop(address, None)
        if region is None:
            return False
        self.memory.remove(region)
        if submit:
            self.send(bytes(region.data))
        return True

    def output(self, content: bytes) -> bool:
        """Send a copy; False where there is no room for it."""
        if not self._claim(len(content)):
            return False
        self.send(content)
        return True

    def consume(self) -> list[bytes]:
        """Read all records, as user space does; there is room for others then."""
        out = self.contents()
        super().empty()
        self.consumed = self.produced
        return out

    def empty(self) -> None:
        """Forget all, also what was reserved."""
        for address in list(self.reserved):
            self.finish(address, submit=False)
        super().empty()
        self.produced = self.consumed = 0


class PerfMap(SentMap):
    """A perf event array; what is sent to a CPU without a reader is lost, as in the kernel.

    Attributes:
        readers: CPUs whose events are read. They are kept, and set from Python.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.readers: set[int] = set()

    def output(self, flags: int, content: bytes, cpu: int) -> int:
        """Send a record to the CPU that the flags name; 0 or a negative errno.

        Source: linux v6.18, kernel/trace/bpf_trace.c, __bpf_perf_event_output().
        """
        index = flags & CURRENT_CPU
        index = cpu if index == CURRENT_CPU else index
        # A loader makes an array of no entries as long as there are CPUs: here one.
        if index >= (self.max_entries or cpu + 1):
            return -E2BIG
        if index not in self.readers:
            return -ENOENT
        if index != cpu:
            return -EOPNOTSUPP
        self.send(content)
        return 0


class ProgMap(SimulatedMap):
    """A program array, the targets of tail calls."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.programs: dict[int, CompiledFunction] = {}

    def delete(self, key: bytes) -> int:
        """Forget a program."""
        found = self.programs.pop(int.from_bytes(key, self.memory.byteorder), None)
        return 0 if found is not None else -ENOENT

    def contents(self) -> list[int]:
        """Which indices have a program."""
        return sorted(self.programs)


class OuterMap(SimulatedMap):
    """An array or hash table of maps."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.inner: dict[bytes, SimulatedMap] = {}

    def lookup(self, key: bytes) -> int:
        """The address of an inner map, or 0."""
        found = self.inner.get(key)
        return 0 if found is None else found.address

    def put(self, key: bytes | int, inner: SimulatedMap) -> None:
        """Set an inner map."""
        self.inner[self._key(key)] = inner

    def get(self, key: bytes | int) -> bytes | None:
        """Inner maps are not bytes; look into ``inner``."""
        return None

    def delete(self, key: bytes) -> int:
        """Forget an inner map."""
        return 0 if self.inner.pop(key, None) is not None else -ENOENT

    def visit(self) -> Iterator[bytes]:
        """The keys at this moment."""
        yield from list(self.inner)


class DeviceMap(ArrayMap):
    """Targets of redirects (devmap, cpumap, xskmap): which are there is set from Python."""

    def lookup(self, key: bytes) -> int:
        """The address of an entry that was set, or 0."""
        index = int.from_bytes(key, self.memory.byteorder)
        found = self._values.get(index)
        return 0 if found is None else found.address

    def has(self, index: int) -> bool:
        """Whether an entry was set."""
        return index in self._values

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """Set an entry."""
        index = int.from_bytes(key, self.memory.byteorder)
        if index >= self.max_entries:
            return -E2BIG
        if index not in self._values:
            self._values[index] = self.memory.add(f"{self.name}[{index}]", self.value_size)
        self.memory.write(self._values[index].address, value)
        return 0

    def delete(self, key: bytes) -> int:
        """Forget an entry."""
        found = self._values.pop(int.from_bytes(key, self.memory.byteorder), None)
        if found is not None:
            self.memory.retire(found)
        return 0


_CLASSES: Final[dict[str, type[SimulatedMap]]] = {
    "array": ArrayMap,
    "percpu_array": ArrayMap,
    "cgroup_storage": ArrayMap,
    "percpu_cgroup_storage": ArrayMap,
    "hash": HashMap,
    "percpu_hash": HashMap,
    "lru_hash": HashMap,
    "lru_percpu_hash": HashMap,
    "lpm_trie": TrieMap,
    "queue": QueueMap,
    "stack": QueueMap,
    "ringbuf": RingMap,
    "perf_event_array": PerfMap,
    "prog_array": ProgMap,
    "array_of_maps": OuterMap,
    "hash_of_maps": OuterMap,
    "devmap": DeviceMap,
    "devmap_hash": DeviceMap,
    "cpumap": DeviceMap,
    "xskmap": DeviceMap,
}


_MOST_KEY: Final = 4 << 20
"""Source: linux v6.18, KMALLOC_MAX_SIZE on x86-64, which no key may reach."""
_TRIE_KEYS: Final = range(5, 261)
"""Source: linux v6.18, kernel/bpf/lpm_trie.c, LPM_KEY_SIZE_MIN and LPM_KEY_SIZE_MAX."""


def _check_key(name: str, spec: MapDefinition) -> None:
    """Refuse keys of sizes that the kernel refuses, too: looking one up would not end.

    Raises:
        UnsupportedError: the size is such.
    """
    if spec.key_size >= _MOST_KEY:
        raise UnsupportedError(
            f"map {name!r} has keys of {spec.key_size} bytes, at most {_MOST_KEY - 1} can be"
        )
    if spec.type is MapType.LPM_TRIE and spec.key_size not in _TRIE_KEYS:
        raise UnsupportedError(
            f"map {name!r} has keys of {spec.key_size} bytes, those of a trie take "
            f"{_TRIE_KEYS.start} to {_TRIE_KEYS.stop - 1}"
        )


def make_map(memory: Memory, number: int, spec: MapDefinition, name: str) -> SimulatedMap:
    """A map of this kind; one whose kind is not simulated can still be named."""
    kind = spec.type.text
    _check_key(name, spec)
    given = (memory, number, kind, name, spec.key_size, spec.value_size, spec.max_entries)
    if kind.startswith("lru_"):
        return HashMap(*given, is_lru=True)
    return _CLASSES.get(kind, SimulatedMap)(*given)
