"""What a program does when it is unwound: ranges of code, and where each continues.

``.bpf_cleanup`` has three numbers of 4 bytes for each range, with a relocation each: where
it begins, where it ends, and its landing pad, which no jump reaches.

Source: llvm 23, BPF back end, emission of .bpf_cleanup, R_BPF_64_NODYLD32.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.program import LANDING_PAD, Anchor, AnchoredTable, Program

from .parts import ObjectParts
from .raw import RawElf
from .space import INSN_SIZE, CodeSpace

CLEANUP_SECTION: Final = ".bpf_cleanup"
CLEANUP: Final = "cleanup_range"

RANGE: Final = np.dtype(
    [("section", "<u4"), ("byte_off", "<u4"), ("begin", "<u4"), ("end", "<u4"), ("pad", "<u4")]
)
"""A row of both tables: section and place of the three numbers, and the symbol of each."""
_WIDTH: Final = 4
_FIELDS: Final = ("begin", "end", "pad")
_SIZE: Final = _WIDTH * len(_FIELDS)
_TYPES: Final = (3, 4, 10)
"""R_BPF_64_ABS32, R_BPF_64_NODYLD32, and what clang up to 12 used for both."""


def read_cleanup(parts: ObjectParts) -> dict[str, AnchoredTable] | None:
    """The tables of landing pads and ranges, if there are any; None if one is not understood.

    A landing pad follows where a jump to it arrives; a range covers what is put into it.
    """
    found = []
    for section, name in enumerate(parts.raw.names):
        if name == CLEANUP_SECTION and parts.raw.contents[section]:
            one = _read(parts, section)
            if one is None:
                return None
            found.append(one)
    if not found:
        return {}
    slots = np.concatenate([slots for slots, _ in found]).astype(np.int32)
    rows = np.concatenate([rows for _, rows in found])
    return {
        CLEANUP: AnchoredTable(slots[:, 0], rows, Anchor.LAND, end=slots[:, 1]),
        LANDING_PAD: AnchoredTable(slots[:, 2], rows, Anchor.LAND),
    }


def _read(parts: ObjectParts, section: int) -> tuple[NDArray[np.int64], NDArray[Any]] | None:
    """(n, 3) slots of one section's ranges, and their rows."""
    content = parts.raw.contents[section]
    rels = [rel.rows for rel in parts.rels if rel.target == section]
    if len(content) % _SIZE or len(rels) != 1 or not len(parts.symbols):
        return None
    rel = rels[0][np.argsort(rels[0]["byte_off"], kind="stable")]
    count = len(content) // _WIDTH
    is_whole = len(rel) == count and bool((rel["byte_off"] == _WIDTH * np.arange(count)).all())
    if not is_whole or not np.isin(rel["type"], _TYPES).all():
        return None
    mark = "<" if parts.raw.byteorder == "little" else ">"
    sym = rel["sym"].astype(np.int64)
    code = parts.code_of_symbol[sym]
    value = parts.symbols.rows["value"][sym].astype(np.int64)
    local = (value + np.frombuffer(content, f"{mark}i4")).reshape(-1, 3)
    code, sym = code.reshape(-1, 3), sym.reshape(-1, 3)
    if (code < 0).any() or (code != code[:, :1]).any():
        return None
    space = parts.space
    n_bytes = space.n_bytes(code[:, 0])
    is_fine = space.is_slot(code[:, 0], local[:, 0]) & space.is_slot(code[:, 2], local[:, 2])
    is_fine &= (local[:, 0] < local[:, 1]) & (local[:, 1] <= n_bytes)
    if not (is_fine & (local[:, 1] % INSN_SIZE == 0)).all():
        return None
    slots = space.slot(code, local)
    if parts.second[slots[:, [0, 2]]].any():
        return None
    rows = np.zeros(len(slots), RANGE)
    rows["section"], rows["byte_off"] = section, _SIZE * np.arange(len(slots))
    for column, field in enumerate(_FIELDS):
        rows[field] = sym[:, column]
    return slots, rows


def write_cleanup(
    raw: RawElf, program: Program, space: CodeSpace, value: NDArray[Any]
) -> dict[int, bytes]:
    """New contents of the sections of ranges, by section index.

    Args:
        raw: the file before the edit.
        program: with both tables, of which no row is gone.
        space: the program's code sections.
        value: (n_symbols,) new values of the symbols.
    """
    ranges, pads = program.tables.get(CLEANUP), program.tables.get(LANDING_PAD)
    if ranges is None or pads is None or not len(ranges):
        return {}
    assert ranges.end is not None
    start, rows = ranges.insn.astype(np.int64), ranges.rows
    begin = space.local_bytes(start)
    end = begin + space.span_bytes(start, ranges.end.astype(np.int64))
    out: dict[int, bytes] = {}
    mark = "<" if raw.byteorder == "little" else ">"
    columns = (
        (rows, "begin", begin),
        (rows, "end", end),
        (pads.rows, "pad", space.local_bytes(pads.insn)),
    )
    for section in np.unique(rows["section"]).tolist():
        words = np.frombuffer(raw.contents[section], f"{mark}i4").copy()
        for column, (of, field, local) in enumerate(columns):
            mine = of["section"] == section
            number = local[mine] - value[of[field][mine]].astype(np.int64)
            words[of["byte_off"][mine] // _WIDTH + column] = number
        out[section] = words.tobytes()
    return out
