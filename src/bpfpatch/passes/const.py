"""const: fold loads of variables whose values are known for good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.constants import Address, Constants, Data, Value
from bpfpatch.dataflow.initialized import initialized
from bpfpatch.dataflow.liveness import Liveness
from bpfpatch.dataflow.reach import Reach, reachable
from bpfpatch.elf import ElfObject
from bpfpatch.elf.space import CORE_RELO, RELOC_TABLE
from bpfpatch.elf.symtab import read_relocations, read_symbols
from bpfpatch.elf.values import READ_ONLY, find_spot, is_kind
from bpfpatch.errors import OptionError
from bpfpatch.facts.subject import Subject
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.program.types import Mask, Slots

from .base import Pass, register
from .dce import kept_functions
from .frozen import frozen_data
from .setting import ObjectEdit, Setting
from .sites import global_functions, indirect_targets, landing_pads, opaque_slots

_MOV32: Final = 0xB4
_MOV64: Final = 0xB7
_CLASS_MASK, _LDX, _ALU32, _OP_MASK, _END = 0x07, 0x01, 0x04, 0xF0, 0xD0
_MOVES: Final = (_MOV32, _MOV64)

Ranges = dict[int, list[tuple[int, int]]]
"""By section, from which byte to which its contents are known for good."""


@register
@dataclass(frozen=True)
class Const(Pass):
    """Fold loads of variables whose values are known for good.

    A load from such a variable becomes a constant, and so does what is computed of
    constants, also in static functions all of whose calls agree on an argument.
    Branches that are decided so become a `goto`, or go; what then cannot be
    reached is for `dce`. What only loaded an address or a constant for what was
    folded goes, too.

    By default the variables are those that the object was given values for
    (``--set``, `ElfObject.with_values`): a loader may still change any other. Of a program that is
    being loaded, or was, they are what its frozen, read-only maps hold.

    Attributes:
        only: names of variables, or members or elements, with ``+`` between them: the word that
            these keep what the object has.
        all: the word that all read-only variables do.
    """

    name = "const"
    knows_landing_pads = True
    only: str | None = None
    all: bool = False

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Find all constants at once, then take out what only they needed.

        Raises:
            OptionError: nothing is known for good, or the code is of no object or load.
        """
        view = patches.view()
        if setting.edit is None:
            constants, reach = self._search_frozen(patches, view, setting.subject)
        else:
            constants, reach = self._search_object(patches, view, setting.edit)
        folded = _fold(patches, view, constants)
        patches.modify(view.node[reach.taken], code=isa.JA, dst=0, src=0, imm=0)
        patches.delete(view.node[reach.never])
        _sweep(patches, folded)
        if constants.kept:
            slot = min(constants.kept)
            setting.notices.append(
                f"const: {len(constants.kept)} loads of variables are kept, as a loader may "
                f"change them (CO-RE); the first is {patches.program.where(int(view.node[slot]))}"
            )

    def _search_object(
        self, patches: PatchList, view: CodeView, edit: ObjectEdit
    ) -> tuple[Constants, Reach]:
        names = self._names(edit.obj)
        edit.obj = replace(edit.obj, settled=tuple(dict.fromkeys((*edit.obj.settled, *names))))
        ranges = _all_ranges(edit.obj) if self.all else _ranges(edit.obj, names)
        return _search(patches, view, edit.obj, ranges)

    def _search_frozen(
        self, patches: PatchList, view: CodeView, subject: Subject | None
    ) -> tuple[Constants, Reach]:
        """The same of a load, whose frozen maps are constant whatever anyone says."""
        if subject is None or not any(one.content is not None for one in subject.maps):
            raise OptionError(
                "pass const reads the variables of an object, or the frozen maps of a load: run "
                "it on one that has some (apply, intercept), not on a program alone"
            )
        if self.only is not None:
            raise OptionError(
                "const{only=...} names variables of an object; of a load, all that is in its "
                "frozen maps is constant: say const"
            )
        data = frozen_data(patches, view, subject)
        pads = landing_pads(patches.program, view)
        blocks = Blocks.of(view, indirect_targets(patches.program, view), pads - 1)
        constants = Constants(view, blocks, opaque_slots(patches, view), data)
        # Which functions are global a load does not say: none knows its arguments.
        roots = np.arange(len(view.starts), dtype=np.int32)
        return constants, reachable(view, blocks, roots, constants, pads)

    def _names(self, obj: ElfObject) -> tuple[str, ...]:
        if self.all:
            return tuple(one.name for one in obj.variables if one.is_read_only)
        names = obj.settled if self.only is None else tuple(self.only.split("+"))
        if not names:
            raise OptionError(
                "pass const needs to know which variables stay as they are: give values "
                "(--set NAME=VALUE), or say const{only=NAME+NAME} or const{all=true}"
            )
        return names


def _ranges(obj: ElfObject, names: tuple[str, ...]) -> Ranges:
    """The bytes that names stand for; of variables that programs write, none."""
    out: Ranges = {}
    for name in names:
        spot = find_spot(obj.btf, obj.variables, name)
        if spot.variable.is_read_only:
            out.setdefault(spot.variable.number, []).append((spot.first, spot.end))
    return {section: _merged(spans) for section, spans in out.items()}


def _all_ranges(obj: ElfObject) -> Ranges:
    """The bytes of all read-only variables."""
    out: Ranges = {}
    for one in obj.variables:
        if one.is_read_only:
            out.setdefault(one.number, []).append((one.byte_off, one.byte_off + one.size))
    return {section: _merged(spans) for section, spans in out.items()}


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for first, end in sorted(spans):
        if out and first <= out[-1][1]:
            out[-1] = out[-1][0], max(end, out[-1][1])
        else:
            out.append((first, end))
    return out


def _search(
    patches: PatchList, view: CodeView, obj: ElfObject, ranges: Ranges
) -> tuple[Constants, Reach]:
    program = patches.program
    contents = {section: bytes(obj.raw.contents[section]) for section in ranges}
    # An address in read-only data is the loader's, and no constant, but a load from it may be.
    touched = _relocated(obj, ranges)

    def read(address: Address, size: int) -> int | None:
        first, end = address.byte_off, address.byte_off + size
        spans = ranges.get(address.section, ())
        if not any(start <= first and end <= stop for start, stop in spans):
            return None
        if any(first < at + 8 and at < end for at in touched.get(address.section, ())):
            return None
        return int.from_bytes(contents[address.section][first:end], obj.byteorder)

    data = Data(dict(data_addresses(patches, view, obj)), read)
    pads = landing_pads(program, view)
    blocks = Blocks.of(view, indirect_targets(program, view), pads - 1)
    constants = Constants(view, blocks, opaque_slots(patches, view), data)
    is_kept = kept_functions(program)[view.subprog]
    roots = np.flatnonzero(is_kept).astype(np.int32)
    follows = ~is_kept & _only_called(view) & ~global_functions(program, obj)[view.subprog]
    return constants, reachable(view, blocks, roots, constants, pads, follows)


def _only_called(view: CodeView) -> Mask:
    """(m,) subprogs whose address nothing takes."""
    is_address = isa.is_ld_imm64(view.insns)[view.ref_slot] & view.ref_is_entry
    taken = view.ref_target[is_address & (view.ref_target >= 0)]
    out = np.ones(len(view.starts), bool)
    out[view.subprog_of(taken)] = False
    return out


def _relocated(obj: ElfObject, ranges: Ranges) -> dict[int, list[int]]:
    """By section, bytes from which on a relocation fills something in."""
    rels = read_relocations(obj.raw, read_symbols(obj.raw))
    return {rel.target: rel.rows["byte_off"].tolist() for rel in rels if rel.target in ranges}


def data_addresses(
    patches: PatchList, view: CodeView, obj: ElfObject
) -> Iterator[tuple[int, Address]]:
    """By slot, the loads of addresses in read-only data, as a loader will fill them in.

    Source: libbpf v1.5, src/libbpf.c, bpf_object__relocate_data(): the symbol's value, and what
    the first slot's imm adds.
    """
    program = patches.program
    table = program.tables[RELOC_TABLE]
    is_mine = (view.node >= 0) & (view.node < view.n_original) & isa.is_ld_imm64(view.insns)
    is_mine[view.ref_slot] = False
    slot_of = {int(view.node[slot]): int(slot) for slot in np.flatnonzero(is_mine)}
    core = program.tables.get(CORE_RELO)
    adapted = set() if core is None else set(core.insn.tolist())
    for node, symbol in zip(table.insn.tolist(), table.rows["sym"].tolist(), strict=True):
        found = obj.symbols[symbol]
        if node not in slot_of or node in adapted or not found.section:
            continue
        if found.section < len(obj.raw.names) and is_kind(obj.raw.names[found.section], READ_ONLY):
            slot = slot_of[node]
            yield slot, Address(found.section, found.value + int(view.insns["imm"][slot]))


def _fold(patches: PatchList, view: CodeView, constants: Constants) -> Slots:
    """Put constants in place of what gives them.

    Returns:
        (k,) nodes that are of no use if nothing reads what they give.
    """
    has_alu32 = bool(
        (
            (view.insns["code"] & _CLASS_MASK == _ALU32) & (view.insns["code"] & _OP_MASK != _END)
        ).any()
    )
    loose = []
    moves: list[tuple[int, int, int]] = []
    for slot, value in sorted(constants.results.items()):
        if value is None:
            continue
        code, node = int(view.insns["code"][slot]), int(view.node[slot])
        loose.append(node)
        if isinstance(value, Address) or code in _MOVES or code == isa.LD_IMM64:
            continue
        form = _form(value, has_alu32=has_alu32)
        if form is not None:
            moves.append((node, *form))
        elif code & _CLASS_MASK == _LDX:
            dst = int(view.insns["regs"][slot] & 0xF)
            loose[-1] = int(patches.replace(node, Body(isa.ld_imm64(dst, _signed(value)))))
    if moves:
        rows = np.array(moves, np.int64)
        patches.modify(rows[:, 0].astype(np.int32), code=rows[:, 1], src=0, off=0, imm=rows[:, 2])
    return np.array(loose, np.int32)


def _form(value: Value, *, has_alu32: bool) -> tuple[int, int] | None:
    """(opcode, imm) of a move that gives a number, or None where it takes an ld_imm64."""
    assert isinstance(value, int)
    number = _signed(value)
    if -(1 << 31) <= number < 1 << 31:
        return _MOV64, number
    if value < 1 << 32 and has_alu32:
        return _MOV32, value - (1 << 32)
    return None


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _sweep(patches: PatchList, loose: Slots) -> None:
    """Delete what gives something that nothing reads, until nothing does."""
    program = patches.program
    while loose.size:
        view = patches.view()
        pads = landing_pads(program, view)
        blocks = Blocks.of(view, indirect_targets(program, view), pads - 1)
        first = Liveness.of(view, blocks)
        # The verifier checks all arguments of a global function, whether it reads them or not.
        liveness = Liveness.of(view, blocks, args=initialized(view, blocks, first))
        here = np.flatnonzero(np.isin(view.node, loose) & (view.node >= 0))
        dst = isa.dst(view.insns[here]).astype(np.uint16)
        dead = view.node[here[liveness.after[here] >> dst & 1 == 0]]
        if not dead.size:
            return
        patches.delete(dead)
        loose = np.setdiff1d(loose, dead)
