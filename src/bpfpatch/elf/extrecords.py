"""The records of .BTF.ext as tables of the program, and back.

Source: linux v6.1, Documentation/bpf/btf.rst, section 4; tools/lib/bpf/libbpf.c,
adjust_prog_btf_ext_info().
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.btf import BtfExt, ExtSection
from bpfpatch.errors import FormatError, UnsupportedError
from bpfpatch.program import FUNC_INFO, LINE, LINE_INFO, Anchor, AnchoredTable, OnReplace

from .raw import REL, RawElf
from .space import CORE_RELO, CodeSpace

KINDS: Final = (FUNC_INFO, LINE_INFO, CORE_RELO)

_ANCHORS: Final = {
    FUNC_INFO: (Anchor.ENTRY, True),
    LINE_INFO: (Anchor.ENTRY, True),
    CORE_RELO: (Anchor.OWN, False),
}


def read_tables(
    ext: BtfExt, space: CodeSpace, second: NDArray[np.bool_]
) -> dict[str, AnchoredTable]:
    """The three tables, on the program's slots; records of sections without code stay out.

    Args:
        ext: the object's .BTF.ext.
        space: its code sections.
        second: (n,) which slots are the second one of an ld_imm64.

    Raises:
        FormatError: a record sits on no instruction, records are out of order,
            or two blocks are about one section.
    """
    return {kind: _read_table(ext, space, second, kind) for kind in KINDS}


def _read_table(
    ext: BtfExt, space: CodeSpace, second: NDArray[np.bool_], kind: str
) -> AnchoredTable:
    by_code: dict[int, tuple[NDArray[np.int64], NDArray[Any]]] = {}
    dtype: np.dtype[Any] | None = None
    for block in getattr(ext, kind):
        payload = payload_of(block.records)
        dtype = payload.dtype
        code = space.names.get(block.name, -1)
        if code < 0:
            continue
        if code in by_code:
            raise FormatError(f"{kind} of .BTF.ext has two blocks for section {block.name}")
        by_code[code] = _slots(block, space, second, code, kind), payload
    parts = [by_code[code] for code in sorted(by_code)]
    slots = np.concatenate([np.zeros(0, np.int64), *(slots for slots, _ in parts)])
    dtype = EMPTY_PAYLOADS[kind] if dtype is None else dtype
    rows = np.concatenate([np.zeros(0, dtype), *(rows for _, rows in parts)])
    anchor, is_unique = _ANCHORS[kind]
    # A table with two records on one instruction, which the kernel refuses, is kept as it is.
    is_unique = is_unique and bool((np.diff(slots) > 0).all())
    return AnchoredTable(
        slots.astype(np.int32), rows, anchor, on_replace=OnReplace.ERROR, unique=is_unique
    )


def _slots(
    block: ExtSection, space: CodeSpace, second: NDArray[np.bool_], code: int, kind: str
) -> NDArray[np.int64]:
    byte_off = block.records["insn_off"].astype(np.int64)
    is_bad = ~space.is_slot(code, byte_off)
    slots: NDArray[np.int64] = space.slot(code, byte_off)
    if not is_bad.any():
        is_bad = second[slots]
    if is_bad.any():
        row = int(np.argmax(is_bad))
        raise FormatError(
            f"{kind} of .BTF.ext: record {row} of section {block.name} is about byte "
            f"{int(byte_off[row]):#x}, where no instruction starts"
        )
    if (np.diff(byte_off) < 0).any():
        row = int(np.argmax(np.diff(byte_off) < 0)) + 1
        raise FormatError(
            f"{kind} of .BTF.ext: record {row} of section {block.name} is about byte "
            f"{int(byte_off[row]):#x}, which does not come after byte {int(byte_off[row - 1]):#x}"
        )
    return slots


def payload_of(records: NDArray[Any]) -> NDArray[Any]:
    """Records without their ``insn_off``, packed."""
    names = [name for name in records.dtype.names or () if name != "insn_off"]
    dtype = np.dtype([(name, records.dtype[name]) for name in names])
    out = np.empty(len(records), dtype)
    for name in names:
        out[name] = records[name]
    return out


def write_tables(
    raw: RawElf, ext: BtfExt, space: CodeSpace, tables: Mapping[str, AnchoredTable]
) -> BtfExt:
    """The inverse of `read_tables`: blocks in the order they had, new ones last.

    Args:
        raw: for section names.
        ext: the object's .BTF.ext before the edit.
        space: the code sections after it.
        tables: the program's.

    Raises:
        UnsupportedError: records came to a section that no block names, so
            that its name is not among the strings.
    """
    return ext.with_sections(
        **{kind: tuple(_write_blocks(raw, ext, space, kind, tables[kind])) for kind in KINDS}
    )


def _write_blocks(
    raw: RawElf, ext: BtfExt, space: CodeSpace, kind: str, table: AnchoredTable
) -> Iterator[ExtSection]:
    name_offs = {block.name: block.name_off for k in KINDS for block in getattr(ext, k)}
    by_slot = np.argsort(table.insn, kind="stable")
    slots, rows = table.insn[by_slot].astype(np.int64), table.rows[by_slot]
    edges = np.searchsorted(slots, space.starts)
    todo = {code for code in range(len(space.sections)) if edges[code] < edges[code + 1]}
    for block in getattr(ext, kind):
        code = space.names.get(block.name, -1)
        if code < 0:
            yield block
            continue
        todo.discard(code)
        span = slice(edges[code], edges[code + 1])
        yield _block(block.name, block.name_off, space, slots[span], rows[span])
    for code in sorted(todo):
        name = raw.names[int(space.sections[code])]
        if name not in name_offs:
            raise UnsupportedError(
                f"{kind} has rows in section {name}, whose name .BTF.ext does not use so far; "
                "leave those rows out"
            )
        span = slice(edges[code], edges[code + 1])
        yield _block(name, name_offs[name], space, slots[span], rows[span])


def _block(
    name: str, name_off: int, space: CodeSpace, slots: NDArray[np.int64], rows: NDArray[Any]
) -> ExtSection:
    fields = [(field, rows.dtype[field]) for field in rows.dtype.names or ()]
    records = np.empty(len(rows), np.dtype([("insn_off", "<u4"), *fields]))
    records["insn_off"] = space.local_bytes(slots) if slots.size else 0
    for field, _ in fields:
        records[field] = rows[field]
    return ExtSection(name, name_off, records)


EMPTY_PAYLOADS: Final = {
    FUNC_INFO: np.dtype([("type_id", "<u4")]),
    LINE_INFO: LINE,
    CORE_RELO: np.dtype([("type_id", "<u4"), ("access_str_off", "<u4"), ("kind", "<u4")]),
}


@dataclass(frozen=True, slots=True)
class _Run:
    """The records of one block, as bytes of the section."""

    name: str
    start: int
    count: int
    size: int


def _runs(data: bytes, ext: BtfExt) -> list[list[_Run]]:
    """Where records are, by kind and block; ``data`` is what `BtfExt.parse` has accepted."""
    order = ext.byteorder

    def word(byte_off: int) -> int:
        return int.from_bytes(data[byte_off : byte_off + 4], order)

    hdr_len = word(4)
    out = []
    for index, kind in enumerate(KINDS):
        runs: list[_Run] = []
        out.append(runs)
        blocks = getattr(ext, kind)
        if not blocks:
            continue
        at = hdr_len + word(8 + 8 * index)
        size, at = word(at), at + 4
        for block in blocks:
            runs.append(_Run(block.name, at + 8, len(block.records), size))
            at += 8 + len(block.records) * size
    return out


def write_relocations(
    ext: tuple[BtfExt, bytes], new_ext: tuple[BtfExt, bytes], rows: NDArray[Any]
) -> NDArray[Any]:
    """The relocations of .BTF.ext, each on the ``insn_off`` of a record, for the new records.

    They are rebuilt from their pattern: clang puts the same relocation,
    against the section's symbol, on every record of a block.

    Args:
        ext: .BTF.ext before the edit, parsed and as bytes.
        new_ext: the same after it.
        rows: (n,) `REL` before the edit.

    Returns:
        (m,) `REL`.

    Raises:
        UnsupportedError: records came or went, and the relocations show no pattern.
    """
    old_runs, new_runs = _runs(ext[1], ext[0]), _runs(new_ext[1], new_ext[0])
    if old_runs == new_runs:
        return rows
    used = np.zeros(len(rows), bool)
    parts = [np.zeros(0, REL["little"])]
    for old, new in zip(old_runs, new_runs, strict=True):
        by_name = {run.name: run for run in old}
        for run in new:
            parts.append(_rebuild(rows, by_name.get(run.name), run, used))
        gone = {run.name for run in old} - {run.name for run in new}
        for run in (by_name[name] for name in gone):
            used |= _inside(rows, run)
    if not used.all():
        raise UnsupportedError(
            f"relocation {int(np.argmin(used))} of .rel.BTF.ext is not on a record's insn_off like "
            "its neighbours; remove .rel.BTF.ext, which no loader reads, or keep all records"
        )
    return np.concatenate(parts)


def _inside(rows: NDArray[Any], run: _Run) -> NDArray[np.bool_]:
    byte_off = rows["byte_off"].astype(np.int64)
    return (byte_off >= run.start) & (byte_off < run.start + run.count * run.size)


def _rebuild(
    rows: NDArray[Any], old: _Run | None, new: _Run, used: NDArray[np.bool_]
) -> NDArray[Any]:
    """The relocations of one block's records, where all its records had the same one."""
    if old is None:
        return np.zeros(0, REL["little"])
    mine = np.flatnonzero(_inside(rows, old))
    if mine.size == 0:
        return np.zeros(0, REL["little"])
    picked = rows[mine]
    place = np.sort(picked["byte_off"].astype(np.int64))
    is_pattern = (
        mine.size == old.count
        and bool((place == old.start + np.arange(old.count) * old.size).all())
        and bool((picked["sym"] == picked["sym"][0]).all())
        and bool((picked["type"] == picked["type"][0]).all())
    )
    if is_pattern:
        used[mine] = True
    out = np.zeros(new.count, REL["little"])
    out["byte_off"] = new.start + np.arange(new.count) * new.size
    out["type"], out["sym"] = picked["type"][0], picked["sym"][0]
    return out
