"""Maps in the kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MapDefinition

from .errors import KernelError
from .syscall import Cmd, Handle, bpf, object_name, refused

PER_CPU: Final = frozenset(
    {
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_PERCPU_HASH,
        MapType.PERCPU_CGROUP_STORAGE,
    }
)
OF_MAPS: Final = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})

_POSSIBLE_CPUS: Final = Path("/sys/devices/system/cpu/possible")
_INFO: Final = np.dtype(
    [
        ("type", "u4"),
        ("id", "u4"),
        ("key_size", "u4"),
        ("value_size", "u4"),
        ("max_entries", "u4"),
        ("map_flags", "u4"),
        ("name", "S16"),
        ("ifindex", "u4"),
        ("btf_vmlinux_value_type_id", "u4"),
        ("netns_dev", "u8"),
        ("netns_ino", "u8"),
        ("btf_id", "u4"),
        ("btf_key_type_id", "u4"),
        ("btf_value_type_id", "u4"),
        ("pad", "u4"),
        ("map_extra", "u8"),
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class MapInfo(MapDefinition):
    """A map as the kernel describes it: with up to 15 characters of its name.

    Attributes:
        id: its number.
        btf_id: of the types of its keys and values, or 0.
    """

    id: int = 0
    btf_id: int = 0


def possible_cpus() -> int:
    """CPUs that may ever come up: a per-CPU value has one part for each."""
    try:
        text = _POSSIBLE_CPUS.read_text().strip()
    except OSError:
        return os.cpu_count() or 1
    return int(text.replace("-", ",").split(",")[-1]) + 1


class Map(Handle):
    """A map in the kernel, gone when it is closed and no program uses it.

    Keys and values are bytes of exactly the map's sizes. Of a per-CPU map a value is all
    CPUs' parts, each padded to a multiple of 8 bytes; `per_cpu` takes it apart.

    Attributes:
        name: its name, at full length.
        type: its kind.
        key_size: bytes.
        value_size: bytes; of a per-CPU map of one CPU's.
        max_entries: how many fit.
        inner: of a map of maps that was made here, what the maps in it are like.
        user_address: of an arena that was made and mapped here, where it starts; else 0.
    """

    def __init__(
        self, fd: int, name: str, type_: MapType, key_size: int, value_size: int, max_entries: int
    ) -> None:
        super().__init__(fd)
        self.name = name
        self.type = type_
        self.key_size = key_size
        self.value_size = value_size
        self.max_entries = max_entries
        self.inner: MapInfo | None = None
        self.user_address = 0

    @classmethod
    def create(
        cls,
        map_type: MapType | str,
        key_size: int = 4,
        value_size: int = 4,
        max_entries: int = 1,
        *,
        flags: int = 0,
        name: str = "",
        inner: Map | None = None,
        extra: int = 0,
        numa_node: int = 0,
        btf_fd: int = 0,
        key_type_id: int = 0,
        value_type_id: int = 0,
    ) -> Map:
        """Make a map.

        Args:
            map_type: the kind, as `MapType` or by name.
            key_size: bytes.
            value_size: bytes.
            max_entries: how many fit.
            flags: BPF_F_* bits.
            name: the kernel keeps 15 characters.
            inner: of a map of maps a map like those that it will hold.
            extra: map_extra, whose meaning the kind defines.
            numa_node: where, with the flag for it.
            btf_fd: types of keys and values.
            key_type_id: in those.
            value_type_id: in those.

        Raises:
            KernelError: the kernel refused.
        """
        kind = MapType.of(map_type)
        try:
            fd, _ = bpf(
                Cmd.MAP_CREATE,
                map_type=int(kind),
                key_size=key_size,
                value_size=value_size,
                max_entries=max_entries,
                map_flags=flags,
                inner_map_fd=0 if inner is None else inner.fd,
                numa_node=numa_node,
                map_name=object_name(name),
                btf_fd=btf_fd,
                btf_key_type_id=key_type_id,
                btf_value_type_id=value_type_id,
                map_extra=extra,
            )
        except OSError as error:
            sizes = f"{key_size}-byte keys, {value_size}-byte values, {max_entries} entries"
            what = f"making {kind.text} map {name!r} ({sizes})"
            raise refused(error, what) from error
        made = cls(fd, name, kind, key_size, value_size, max_entries)
        made.inner = None if inner is None else inner.info()
        return made

    @classmethod
    def from_id(cls, map_id: int) -> Map:
        """A map that exists, by its number.

        Raises:
            KernelError: there is none, or the kernel refused.
        """
        try:
            fd, _ = bpf(Cmd.MAP_GET_FD_BY_ID, id=map_id)
        except OSError as error:
            raise refused(error, f"opening the map with id {map_id}") from error
        with Handle(fd) as handle:
            return cls.from_fd(handle.fd)

    @classmethod
    def from_fd(cls, fd: int) -> Map:
        """A map that exists, by a descriptor, which stays its owner's.

        Raises:
            KernelError: it is none of a map.
        """
        info = _info(fd)
        sizes = (info.key_size, info.value_size, info.max_entries)
        return cls(os.dup(fd), info.name, info.type, *sizes)

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else f"fd {self.fd}"
        return f"<Map {self.name!r}, {self.type.text}, {state}>"

    @property
    def is_per_cpu(self) -> bool:
        """Whether a value has a part for each CPU."""
        return self.type in PER_CPU

    @property
    def n_value_bytes(self) -> int:
        """Bytes of a value as `get` returns it."""
        if self.is_per_cpu:
            return (self.value_size + 7) // 8 * 8 * possible_cpus()
        # Maps of file descriptors hand out 32-bit ids.
        return self.value_size

    def info(self) -> MapInfo:
        """What the kernel tells of it.

        Raises:
            KernelError: the kernel refused.
        """
        return _info(self.fd)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None.

        Raises:
            OptionError: the key has another size than the map's.
            KernelError: the kernel refused.
        """
        value = np.zeros(self.n_value_bytes, "u1")
        try:
            bpf(Cmd.MAP_LOOKUP_ELEM, map_fd=self.fd, key=self._sized(key, "key"), value=value)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise self._refused(error, "reading") from error
        return value.tobytes()

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set a key's value.

        Args:
            key: the key.
            value: the value; of a per-CPU map one CPU's, which all get, or all CPUs'.
            flags: 1 for a new key only, 2 for one that is there.

        Raises:
            OptionError: a size is not the map's.
            KernelError: the kernel refused.
        """
        if self.is_per_cpu and len(value) == self.value_size:
            value = value.ljust((self.value_size + 7) // 8 * 8, b"\0") * possible_cpus()
        try:
            bpf(
                Cmd.MAP_UPDATE_ELEM,
                map_fd=self.fd,
                key=self._sized(key, "key"),
                value=self._sized(value, "value"),
                flags=flags,
            )
        except OSError as error:
            raise self._refused(error, "writing") from error

    def delete(self, key: bytes) -> bool:
        """Take a key out; whether it was there.

        Raises:
            OptionError: the key has another size than the map's.
            KernelError: the kernel refused.
        """
        try:
            bpf(Cmd.MAP_DELETE_ELEM, map_fd=self.fd, key=self._sized(key, "key"))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise self._refused(error, "deleting from") from error
        return True

    def put(self, index: int, handle: Handle) -> None:
        """Set an entry of a map of maps or programs.

        Args:
            index: the 32-bit key.
            handle: a `Map` or a `LoadedProgram`.

        Raises:
            KernelError: the kernel refused.
        """
        self.update(np.uint32(index).tobytes(), np.uint32(handle.fd).tobytes())

    def keys(self) -> Iterator[bytes]:
        """The keys, in the kernel's order; a key may come twice where others change the map.

        Raises:
            KernelError: the kernel refused, as it does for kinds without keys.
        """
        at: bytes | NDArray[Any] = b""
        following = np.zeros(self.key_size, "u1")
        # A hash map that others delete from may start again: end at some time.
        for _ in range(2 * self.max_entries + 16):
            try:
                bpf(Cmd.MAP_GET_NEXT_KEY, map_fd=self.fd, key=at, value=following)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise self._refused(error, "listing") from error
            at = following.tobytes()
            yield at

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """The keys and values that are there.

        Raises:
            KernelError: the kernel refused.
        """
        for key in self.keys():
            value = self.get(key)
            if value is not None:
                yield key, value

    def dump(self) -> dict[bytes, bytes]:
        """All keys and values.

        Raises:
            KernelError: the kernel refused.
        """
        return dict(self.items())

    def per_cpu(self, value: bytes) -> tuple[bytes, ...]:
        """A per-CPU value, taken apart by CPU."""
        step = (self.value_size + 7) // 8 * 8
        return tuple(value[at : at + self.value_size] for at in range(0, len(value), step))

    def freeze(self) -> None:
        """Keep user space from changing it any more.

        Raises:
            KernelError: the kernel refused.
        """
        try:
            bpf(Cmd.MAP_FREEZE, map_fd=self.fd)
        except OSError as error:
            raise self._refused(error, "freezing") from error

    def _sized(self, data: bytes, what: str) -> bytes:
        size = self.key_size if what == "key" else self.n_value_bytes
        if len(data) != size:
            raise OptionError(
                f"map {self.name!r} has {what}s of {size} bytes, but {len(data)} were given"
            )
        return data

    def _refused(self, error: OSError, verb: str) -> KernelError:
        return refused(error, f"{verb} {self.type.text} map {self.name!r}")


def _info(fd: int) -> MapInfo:
    info = np.zeros(1, _INFO)
    try:
        bpf(Cmd.OBJ_GET_INFO_BY_FD, bpf_fd=fd, info_len=info.itemsize, info=info)
    except OSError as error:
        raise refused(error, "asking for a map's info") from error
    row = info[0]
    return MapInfo(
        id=int(row["id"]),
        name=bytes(row["name"]).decode("ascii", "replace"),
        type=MapType.of(int(row["type"])),
        key_size=int(row["key_size"]),
        value_size=int(row["value_size"]),
        max_entries=int(row["max_entries"]),
        flags=int(row["map_flags"]),
        btf_id=int(row["btf_id"]),
        value_type_id=int(row["btf_value_type_id"]),
        key_type_id=int(row["btf_key_type_id"]),
        extra=int(row["map_extra"]),
    )
