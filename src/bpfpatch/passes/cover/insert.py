"""Put counters into a patch list, and what they count into, into its object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.elf import u64_array
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.patch import Body, PatchList
from bpfpatch.program.types import Mask, Slots

from ..scratch import ScratchPlace
from ..setting import ObjectEdit
from ..sites import copy_references
from .counters import WORD, direct, lookup, percpu
from .lookups import LookupPlace
from .mapping import DATA_SECTION, CoverMap
from .plan import CounterWork, CoveredCode

SYMBOL: Final = "bpfpatch_cover"
IDENTITY_SYMBOL: Final = "bpfpatch_cover_id"


def add_storage(edit: ObjectEdit, cover: CoverMap) -> None:
    """Give the object something to count into."""
    count = max(cover.n_counters, 1)
    if not cover.is_percpu:
        identity = cover.identity.to_bytes(WORD, edit.obj.byteorder)
        edit.add_global(IDENTITY_SYMBOL, identity, DATA_SECTION, u64_array(1))
        edit.add_global(SYMBOL, bytes(WORD * count), DATA_SECTION, u64_array(count))
        return
    size, types = WORD * cover.n_in_entry, u64_array(cover.n_in_entry)
    new = MapDefinition(cover.home, MapType.PERCPU_ARRAY, 4, size, cover.n_entries)
    edit.add_map(new, types)


class Inserter:
    """Puts counters in.

    Args:
        patches: the list.
        edit: its object, with the storage added.
        code: what the plan was made from.
        cover: what the counters mean.
    """

    def __init__(
        self, patches: PatchList, edit: ObjectEdit, code: CoveredCode, cover: CoverMap
    ) -> None:
        self._patches = patches
        self._edit = edit
        self._code = code
        self._cover = cover
        self._symbol = cover.home if cover.is_percpu else SYMBOL
        self._rows: dict[str, NDArray[Any]] = {}

    def put(self, works: list[CounterWork]) -> None:
        """Put in all counters. What jumps must not reach comes before what they must."""
        owners = self._owners([work.how.place.slot for work in works])
        kinds = [self._kind(work, owner) for work, owner in zip(works, owners, strict=True)]
        for verb, edit in (
            ("prepend", self._patches.prepend),
            ("insert", self._patches.insert_before),
        ):
            alike: dict[Any, list[CounterWork]] = {}
            for kind, work in zip(kinds, works, strict=True):
                if work.how.verb == verb:
                    alike.setdefault(kind, []).append(work)
            for group in alike.values():
                self._put_alike(edit, group)
        self._split([work for work in works if work.how.verb == "split"])

    def _kind(self, work: CounterWork, owner: int) -> Any:
        """What works must have in common to differ in nothing but their counters' numbers."""
        place = work.how.place
        if place.remakes is not None:
            return work.counter
        if self._cover.is_percpu:
            return place.registers, place.spills, self._home(owner)
        return place.registers, place.spills, self._section(owner)

    def _put_alike(self, edit: Callable[..., Any], works: list[CounterWork]) -> None:
        """Put in counters that differ in their numbers alone, in one step."""
        place = works[0].how.place
        insns = self._insns(place, 0)
        slots = [work.how.place.slot for work in works]
        numbers = np.array([self._byte_off(work.counter) for work in works], np.int32)
        at = len(place.spills)
        nodes = self._code.view.node[slots]
        if self._cover.is_percpu:
            firsts = np.asarray(edit(nodes, Body(insns)))
            for index in np.flatnonzero(_uses_counter(insns, place)).tolist():
                self._patches.modify(firsts + np.int32(index), off=numbers.astype(np.int16))
        else:
            firsts = np.asarray(edit(nodes, Body(insns), {at: numbers}))
        self._relocate(firsts, insns, slots, _n_remade(place))
        for first in firsts.tolist() if place.loads else ():
            copy_references(self._patches, self._code.view, place, first + len(insns))

    def put_lookups(self, places: dict[int, tuple[LookupPlace, int]]) -> None:
        """In each function, find this processor's counters.

        Args:
            places: by function of the view where, and one of its counters.
        """
        for subprog, (place, counter) in places.items():
            entry = counter // self._cover.n_in_entry
            insns = lookup(self._home(subprog), place.live, place.free, entry)
            edit = self._patches.prepend if place.is_start else self._patches.insert_before
            node = int(edit(int(self._code.view.node[place.slot]), Body(insns)))
            self._relocate(np.array([node], np.int32), insns, [place.slot])

    def _split(self, works: list[CounterWork]) -> None:
        """Send jumps over pieces of code that nothing falls into."""
        if not works:
            return
        patches, view = self._patches, self._code.view
        now = patches.view()
        goals = dict(
            zip(now.node[now.ref_slot].tolist(), now.node[now.ref_target].tolist(), strict=True)
        )
        jumps = [int(view.node[work.how.jump]) for work in works]
        starts = []
        for work, jump in zip(works, jumps, strict=True):
            how = work.how
            insns = self._insns(how.place, work.counter)
            body = Body(np.concatenate([insns, isa.ja(0)]), labels={len(insns): goals[jump]})
            starts.append(patches.insert_after(int(view.node[how.behind]), body))
            first = np.array(starts[-1:], np.int32)
            self._relocate(first, insns, [how.place.slot], _n_remade(how.place))
            copy_references(patches, view, how.place, starts[-1] + len(insns))
        for work, jump, start in zip(works, jumps, starts, strict=True):
            insn = view.insns[work.how.jump : work.how.jump + 1]
            patches.replace(jump, Body(insn, labels={0: start}))

    def _insns(self, place: ScratchPlace, counter: int) -> isa.Insns:
        """Instructions that add 1 to a counter."""
        pointer, value = place.registers
        if self._cover.is_percpu:
            home = self._home(self._owner(place.slot))
            work = percpu(pointer, value, home, self._byte_off(counter))
        else:
            work = direct(pointer, value, counter, is_atomic=self._cover.counting == "atomic")
        return place.around(work)

    def _byte_off(self, counter: int) -> int:
        """Where a counter is in its entry."""
        return WORD * (counter % self._cover.n_in_entry)

    def _relocate(
        self, nodes: Slots, insns: isa.Insns, slots: list[int], n_remade: int = 0
    ) -> None:
        """Give the counter's ld_imm64 in copies of a body, if it has one, its relocation.

        Args:
            nodes: (k,) first node of each copy.
            insns: the body.
            slots: of the view, where each copy is.
            n_remade: instructions at its end that make registers again.
        """
        starts = (insns["code"] == isa.LD_IMM64) & ~isa.second_slots(insns)
        own = np.flatnonzero(starts[: len(insns) - n_remade]).tolist()
        if not own:
            return
        owners = np.array(self._owners(slots))
        section_of = {owner: self._section(owner) for owner in set(owners.tolist())}
        sections = np.array([section_of[owner] for owner in owners.tolist()], object)
        for section in dict.fromkeys(section_of.values()):
            if section not in self._rows:  # to look a symbol up takes a while
                self._rows[section] = self._edit.relocation(section, self._symbol)
            for at in own:
                here = nodes[sections == section] + np.int32(at)
                self._patches.attach("reloc", here, self._rows[section])

    def _section(self, subprog: int) -> str:
        program = self._code.program
        row = self._code.view.subprog[subprog]
        return program.sections[int(program.subprogs.section[row])]

    def _owner(self, slot: int) -> int:
        return self._owners([slot])[0]

    def _owners(self, slots: list[int]) -> list[int]:
        """Subprogs of the view that slots are in."""
        found: list[int] = self._code.view.subprog_of(np.array(slots, np.int32)).tolist()
        return found

    def _home(self, subprog: int) -> int:
        """Bytes below R10 of the pointer to this processor's counters."""
        bottom = self._code.scratch.home(subprog, 0)
        assert bottom is not None
        return bottom


def _n_remade(place: ScratchPlace) -> int:
    return 0 if place.remakes is None else len(place.remakes)


def _uses_counter(insns: isa.Insns, place: ScratchPlace) -> Mask:
    """(n,) the load and the store of a body that get at the counter."""
    pointer = place.registers[0]
    is_load = isa.is_load(insns) & (isa.src(insns) == pointer)
    out: Mask = is_load | (isa.is_store(insns) & (isa.dst(insns) == pointer))
    return out
