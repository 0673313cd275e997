"""Aux data from an analysis of the program, without a kernel."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import Btf
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.liveness import upper_halves_read
from bpfpatch.errors import UnsupportedError
from bpfpatch.facts.columns import (
    CALL_KEY,
    CALL_MAP,
    CALLBACK,
    MANY,
    MEM_ID,
    MEM_TYPE,
    NONE,
    SEEN,
    STACK_DEPTH,
    ZEXT_DST,
    column,
)
from bpfpatch.facts.subject import Subject
from bpfpatch.patch import CodeView
from bpfpatch.program import Anchor, AnchoredTable, Program
from bpfpatch.program.types import Mask
from bpfpatch.program.validate import validate

from .absint import Interpreter
from .findings import Findings
from .kerneltypes import KernelTypes


def aux_data(program: Program, subject: Subject, target: Btf | None) -> Program:
    """Find out what the verifier would, and write it into the columns of `bpfpatch.facts`.

    The program must be one that the verifier accepts. Its form is checked, as the verifier does
    before it follows values; what the values are is not. Of an instruction that nothing reaches,
    all but ``seen`` is the column's fill.

    Args:
        program: flat, as it is submitted; the column ``ld_map`` says of which map each
            ld_imm64 is, and stays.
        subject: what its loader knows of it.
        target: the types of the kernel that it is for; without, what pointers lead to
            to the kernel's objects is unknown.

    Returns:
        The program with the columns seen, mem_type, mem_id, zext_dst, call_map, call_key and
        callback, and the table `STACK_DEPTH`. The map that is found in a map of maps is told
        by its index in ``subject.maps`` if it stands there as well, and otherwise by NONE.

    Raises:
        ValidationError: the program is structurally wrong.
        UnsupportedError: it is empty.
    """
    _check_form(program)
    interpreter = Interpreter(program, subject, _types(target))
    found = interpreter.run()
    n_slots, n_maps = len(program), len(subject.maps)
    for slot, index in found.call_map.items():
        found.call_map[slot] = index if index < n_maps else NONE
        if index == MANY:
            found.call_key.pop(slot, None)  # of which map is it the index
    view = interpreter.code.view
    roots = interpreter.roots
    if interpreter.types.returns_nothing(subject):
        roots = roots - {0}
    seen = np.frombuffer(bytes(found.seen), np.uint8).astype(bool)
    out = program.with_columns(
        **{
            SEEN: column(SEEN, seen),
            MEM_TYPE: column(MEM_TYPE, np.frombuffer(bytes(found.mem_type), np.uint8)),
            MEM_ID: column(MEM_ID, found.mem_ids()),
            ZEXT_DST: column(ZEXT_DST, _upper_halves(view, seen, roots)),
            CALL_MAP: column(CALL_MAP, _spread(n_slots, found.call_map)),
            CALL_KEY: column(CALL_KEY, _spread(n_slots, found.call_key)),
            CALLBACK: column(CALLBACK, _callbacks(view, found)),
        }
    )
    depth = np.array(found.depth, np.int32)
    table = AnchoredTable(view.starts, depth, Anchor.ENTRY, unique=True)
    return out.with_tables(**{STACK_DEPTH: table})


@lru_cache(maxsize=2)
def _types(target: Btf | None) -> KernelTypes:
    """What was looked up for one program need not be looked up for the next."""
    return KernelTypes(target)


def _spread(n_slots: int, found: dict[int, int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    out = np.full(n_slots, NONE, np.int64)
    out[list(found)] = list(found.values())
    return out


def _callbacks(view: CodeView, found: Findings) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(n,) number of the callback: that of its subprog."""
    out = np.full(len(view), NONE, np.int64)
    targets = sorted({target for target in found.loops.values() if target != NONE})
    for slot, target in found.loops.items():
        if target != NONE:
            out[slot] = int(view.subprog_of(np.array([target], np.int32))[0])
    is_function = isa.is_pseudo(view.insns, isa.Pseudo.FUNC)
    at = is_function[view.ref_slot] & np.isin(view.ref_target, targets)
    out[view.ref_slot[at]] = view.subprog_of(view.ref_target[at])
    return out


def _upper_halves(view: CodeView, seen: Mask, roots: Collection[int]) -> Mask:
    numbers = set(view.subprog_of(np.array(sorted(roots), np.int32)).tolist())
    return upper_halves_read(view, Blocks.of(view, np.zeros(0, np.int32)), seen, numbers)


def _check_form(program: Program) -> None:
    """See that registers and references are such that the analysis can follow them."""
    if not len(program):
        raise UnsupportedError("the program has no instructions to analyse")
    validate(program)
