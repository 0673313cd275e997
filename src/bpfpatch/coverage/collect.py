"""Counters: from a map or program in the kernel, or from a file that they were saved to.

::

    cover = cover_map(ElfObject.read("lb.cover.o"))
    so_far = collect.from_pin(cover, "/sys/fs/bpf/lb_counters")
    Path("monday.json").write_bytes(save(so_far))
    both = load(monday).merged(load(tuesday))

Counters of another object are refused: counters in data begin with the
identity of what they are of, and a per-cpu map has it in its name.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import numpy as np

from bpfpatch.bpf.map import Map
from bpfpatch.bpf.pinned import pinned
from bpfpatch.bpf.proginfo import prog_info
from bpfpatch.bpf.syscall import NAME_LEN, Cmd, Handle, bpf, refused
from bpfpatch.errors import FormatError, OptionError
from bpfpatch.facts.kinds import MapType
from bpfpatch.passes.cover import CoverMap

from .model import U64, Coverage

FORMAT: Final = "bpfpatch coverage"
VERSION: Final = 1
_WORD: Final = 8


def n_value_bytes(cover: CoverMap) -> int:
    """Bytes of the value of the map that holds an object's counters; of one processor's part."""
    return _WORD * (cover.n_in_entry + (not cover.is_percpu))


def entry_keys(cover: CoverMap) -> list[bytes]:
    """Keys of the map's entries, in order of the counters in them."""
    return [entry.to_bytes(4, cover.byteorder) for entry in range(cover.n_entries)]


def from_value(cover: CoverMap, value: bytes, where: str = "the value") -> Coverage:
    """From the bytes of the counters' map; of a per-cpu map of one processor's part.

    Args:
        cover: what the counters mean.
        value: the only value in the map.
        where: how messages call it.

    Raises:
        OptionError: these are not this object's counters.
    """
    return from_values(cover, [value], where)


def from_values(cover: CoverMap, values: list[bytes], where: str = "the value") -> Coverage:
    """The same of a map of several entries, by the order of their keys."""
    return Coverage.of(cover, _summed(cover, [[_hits(cover, one, where)] for one in values]))


def from_map(cover: CoverMap, counters: Map) -> Coverage:
    """From an open map.

    Raises:
        OptionError: it does not hold this object's counters.
        KernelError: the kernel refused.
    """
    where = f"map {counters.name!r}"
    kind = MapType.PERCPU_ARRAY if cover.is_percpu else MapType.ARRAY
    if counters.type is not kind or counters.max_entries != cover.n_entries:
        raise OptionError(
            f"{where} is of type {counters.type.text} with room for {counters.max_entries}; "
            f"this object's counters are in one of type {kind.text} with room for "
            f"{cover.n_entries}"
        )
    if cover.is_percpu and counters.name[:NAME_LEN] != cover.home[:NAME_LEN]:
        raise OptionError(f"{where} is not {cover.home!r}, which holds this object's counters")
    values = [counters.get(key) or b"" for key in entry_keys(cover)]
    if not cover.is_percpu:
        return from_value(cover, values[0], where)
    entries = [[_hits(cover, part, where) for part in counters.per_cpu(one)] for one in values]
    return Coverage.of(cover, _summed(cover, entries))


def from_map_id(cover: CoverMap, map_id: int) -> Coverage:
    """From the map with a number; see `from_map`."""
    with Map.from_id(map_id) as counters:
        return from_map(cover, counters)


def from_program_id(cover: CoverMap, prog_id: int) -> Coverage:
    """From the counters' map of a loaded program.

    Raises:
        OptionError: it has no such map: it is not instrumented, or another one.
        KernelError: there is no such program, or the kernel refused.
    """
    try:
        fd, _ = bpf(Cmd.PROG_GET_FD_BY_ID, id=prog_id)
    except OSError as error:
        raise refused(error, f"opening the program with id {prog_id}") from error
    with Handle(fd) as handle:
        info = prog_info(handle.fd)
    why = []
    for map_id in info.map_ids.tolist():
        try:
            return from_map_id(cover, map_id)
        except OptionError as error:
            why.append(str(error))
    raise OptionError(
        f"program {info.name!r} with id {prog_id} has no map with this object's counters: "
        + ("; ".join(why) or "it has no maps")
    )


def from_pin(cover: CoverMap, path: str) -> Coverage:
    """From a map, or a program, that is pinned at a path; see `from_map`."""
    kind, number = pinned(path)
    return (from_map_id if kind == "map" else from_program_id)(cover, number)


def save(coverage: Coverage) -> bytes:
    """A file that `load` reads, without the object: it has in it what the counters mean."""
    body = {
        "format": FORMAT,
        "version": VERSION,
        "identity": f"{coverage.cover.identity:016x}",
        "hits": list(coverage.hits),
        "notices": list(coverage.notices),
        "map": base64.b64encode(coverage.cover.to_bytes()).decode(),
    }
    return json.dumps(body, indent=1).encode()


def load(data: bytes, cover: CoverMap | None = None) -> Coverage:
    """Read what `save` wrote, or what ``bpftool map dump -j`` printed.

    Args:
        data: the file's content.
        cover: what the counters mean; what bpftool printed cannot be read without.

    Raises:
        FormatError: it is neither.
        OptionError: these are not this object's counters, or carry no identity.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"saved counters are JSON, and this is not: {error}") from error
    if isinstance(body, dict) and body.get("format") == FORMAT:
        return _loaded(body, cover)
    if cover is None:
        raise OptionError(
            "these counters do not say themselves what they are of: give the instrumented object"
        )
    return _from_bpftool(body, cover)


def _loaded(body: dict[str, Any], cover: CoverMap | None) -> Coverage:
    if body.get("version") != VERSION:
        raise FormatError(
            f"saved counters have version {body.get('version')!r}, this reads {VERSION}"
        )
    try:
        mine = CoverMap.parse(base64.b64decode(body["map"], validate=True))
        hits = [int(hit) for hit in body["hits"]]
        notices = [str(notice) for notice in body["notices"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"saved counters are broken: {error!r}") from error
    if not all(0 <= hit < U64 for hit in hits):
        raise FormatError("saved counters are broken: a counter has 64 bits and no sign")
    if cover is not None and mine.identity != cover.identity:
        raise _other(mine.identity, cover, "the file")
    return Coverage.of(mine, hits, notices)


def _from_bpftool(body: Any, cover: CoverMap) -> Coverage:
    """Elements as bpftool prints them: lists of bytes in hex, per-cpu ones for each processor."""
    if isinstance(body, dict) and "error" in body:
        raise FormatError(f"bpftool printed an error instead of a map: {body['error']}")
    try:
        if len(body) != cover.n_entries:
            raise ValueError(f"{len(body)} elements")
        has_parts = "values" in body[0]
        entries = []
        for element in _in_order(body, cover):
            parts = [one["value"] for one in element["values"]] if has_parts else [element["value"]]
            entries.append([_bytes(part) for part in parts])
    except (KeyError, TypeError, ValueError) as error:
        some = "the one element" if cover.n_entries == 1 else f"the {cover.n_entries} elements"
        raise FormatError(
            f"this is neither what `bpfpatch cover` saves nor {some} of a map of counters "
            "as `bpftool map dump -j` prints it"
        ) from error
    if cover.is_percpu != has_parts:
        kinds = ("one value", "a value for each processor")
        raise OptionError(
            f"the dump has {kinds[has_parts]}, and this object's counters are "
            f"{kinds[cover.is_percpu]}"
        )
    rows = [[_hits(cover, part, "the dump") for part in parts] for parts in entries]
    return Coverage.of(cover, _summed(cover, rows))


def _in_order(body: list[Any], cover: CoverMap) -> list[Any]:
    """Elements in the order of their keys."""
    if len(body) == 1:
        return body
    return sorted(body, key=lambda one: int.from_bytes(_bytes(one["key"]), cover.byteorder))


def _bytes(digits: list[str]) -> bytes:
    if not isinstance(digits, list):
        raise TypeError("bytes are a list")
    return bytes(int(one, 16) for one in digits)


def _hits(cover: CoverMap, value: bytes, where: str) -> list[int]:
    if len(value) != n_value_bytes(cover):
        raise OptionError(
            f"{where} has {len(value)} bytes, and this object's {cover.n_counters} counters take "
            f"{n_value_bytes(cover)}: they are of another object, or of one instrumented otherwise"
        )
    order = "<" if cover.byteorder == "little" else ">"
    words: list[int] = np.frombuffer(value, f"{order}u8").tolist()
    if not cover.is_percpu and words.pop(0) != cover.identity:
        raise _other(int.from_bytes(value[:_WORD], cover.byteorder), cover, where)
    return words


def _summed(cover: CoverMap, entries: list[list[list[int]]]) -> list[int]:
    """All counters, from what each processor counted in each entry."""
    found = [sum(hits) % U64 for parts in entries for hits in zip(*parts, strict=True)]
    return found[: cover.n_counters]


def _other(identity: int, cover: CoverMap, where: str) -> OptionError:
    return OptionError(
        f"{where} has counters of object {identity:016x}, and this one is "
        f"{cover.identity:016x}: another one, or instrumented anew since"
    )
