"""The trace pass."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.license import is_gpl_compatible
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program

from ..base import Pass, register
from ..kfuncs import called_names
from ..setting import ObjectEdit, Setting
from .emit import MOST_VALUES, EmittedCode, pipe, ring
from .mapping import MAP_NAME, SECTION, TraceMap, TracePlace, is_section
from .places import TraceSpot, find_spots
from .plan import TracePlan, TracePlanner
from .state import TraceState

TO: Final = ("pipe", "ring")
TEXT_SECTION: Final = ".rodata.trace"
TEXT_SYMBOL: Final = "bpfpatch_trace_text"
MOST_TEXT: Final = 200
"""Bytes of a message; the kernel's buffer for a printed line has 512."""
_RING_BYTES: Final = 256 << 10
_PAGE: Final = 4096
_REGISTER: Final = re.compile(r"[rR]?(\d+)")


@register
@dataclass(frozen=True)
class Trace(Pass):
    """Print registers or a message at a place: to the trace pipe, or to a ring buffer.

    Attributes:
        at: FILE:LINE, FUNCTION (each call of it), FUNCTION+SLOT, or #SLOT.
        regs: registers with a plus between them, as ``r1+r6``; ``all`` for those that have a
            value there; or nothing.
        message: what to print in front of the place.
        to: "pipe" (bpf_trace_printk) or "ring" (a ring buffer, `bpfpatch_trace`).
        size: bytes of the ring buffer; a power of two, and at least a page.
    """

    name = "trace"
    knows_landing_pads = True
    at: str
    regs: str = ""
    message: str = ""
    to: str = "pipe"
    size: int = _RING_BYTES

    def __post_init__(self) -> None:
        """Check the options."""
        if self.to not in TO:
            raise OptionError(f"pass trace: to is {' or '.join(TO)}, not {self.to!r}")
        if self.size < _PAGE or self.size & (self.size - 1):
            raise OptionError(
                f"pass trace: size is a power of two and at least {_PAGE}, not {self.size}"
            )
        if not (self.message.isascii() and self.message.isprintable()):
            raise OptionError("pass trace: a message has printable ASCII characters only")
        if len(self.message) > MOST_TEXT:
            raise OptionError(
                f"pass trace: a message has {MOST_TEXT} characters at most, not {len(self.message)}"
            )
        if self.regs != "all":
            _registers(self.regs)

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Add what the object needs, and the code at each place.

        Raises:
            OptionError: there is no such place, a register has no value there, or the code is
                of no object.
            UnsupportedError: the code has no room, a lock is held there, or the licence allows no
                printing.
        """
        edit = setting.edit
        if edit is None:
            raise OptionError("pass trace adds to an object, and this code is of none")
        if self.to == "pipe":
            _check_license(edit.obj)
        spots = find_spots(patches.program, self.at)
        planner = TracePlanner(patches, _state(edit.obj, patches))
        asked = [self._asked(planner, spot) for spot in spots]
        plans = [
            planner.plan(spot, registers, has_record=self.to == "ring")
            for spot, registers in zip(spots, asked, strict=True)
        ]
        places = [
            self._place(patches.program, spot, plan, registers)
            for spot, plan, registers in zip(spots, plans, asked, strict=True)
        ]
        meaning = TraceMap.of(places, patches.program.insns.tobytes())
        symbol, works = self._works(edit, meaning, plans)
        _add_section(edit, meaning)
        for place, plan, work in zip(places, plans, works, strict=True):
            verb = patches.prepend if plan.is_call else patches.insert_before
            first = verb(plan.node, Body(work.insns))
            for slot in work.addresses:
                row = edit.relocation(place.section, symbol)
                patches.attach("reloc", first + slot, row)

    def _works(
        self, edit: ObjectEdit, meaning: TraceMap, plans: list[TracePlan]
    ) -> tuple[str, list[EmittedCode]]:
        """(symbol that the code needs the address of, the code of each place)."""
        pairs = list(zip(meaning.places.items(), plans, strict=True))
        if self.to == "ring":
            _add_ring(edit, self.size)
            return MAP_NAME, [ring(plan.saves, p.registers, n) for (n, p), plan in pairs]
        data, texts = _texts(list(meaning.places.values()))
        symbol = _fresh(edit, TEXT_SYMBOL)
        edit.add_global(symbol, data, TEXT_SECTION)
        lined = zip(texts, pairs, strict=True)
        return symbol, [pipe(plan.saves, p.registers, mine) for mine, ((_, p), plan) in lined]

    def _asked(self, planner: TracePlanner, spot: TraceSpot) -> tuple[int, ...]:
        return planner.known(spot) if self.regs == "all" else _registers(self.regs)

    def _place(
        self, program: Program, spot: TraceSpot, plan: TracePlan, registers: tuple[int, ...]
    ) -> TracePlace:
        source = program.source(spot.slot)
        row = int(program.subprogs.of(np.array([spot.slot], np.int32))[0])
        has_text = source is not None and source.text
        return TracePlace(
            function=program.subprogs.names[row],
            section=program.sections[int(program.subprogs.section[row])],
            slot=spot.slot,
            put=plan.node,
            to=self.to,
            file="" if source is None else source.file,
            line=0 if source is None else source.line,
            text=source.text if source and has_text else isa.describe(program.insns, spot.slot),
            registers=registers,
            message=self.message,
        )


def _check_license(obj: ElfObject) -> None:
    if not is_gpl_compatible(obj.license):
        has = "no licence" if obj.license is None else f"licence {obj.license!r}"
        raise UnsupportedError(
            f"the object has {has}, and the kernel lets only GPL-compatible programs call "
            "bpf_trace_printk(); send to a ring buffer instead: to=ring (--ring), which has no "
            "such rule"
        )


def _state(obj: ElfObject, patches: PatchList) -> TraceState:
    names = called_names(obj, patches.program)
    return TraceState(patches, names, obj.btf, tuple(info.start for info in obj.programs))


def _registers(text: str) -> tuple[int, ...]:
    """The numbers of registers that a text names."""
    out: list[int] = []
    for part in text.split("+") if text else ():
        match = _REGISTER.fullmatch(part.strip())
        if match is None or int(match[1]) > isa.R10:
            raise OptionError(
                f"pass trace: {part.strip()!r} is no register: give r0 to r10 with a plus between "
                "them (on the command line a comma), or all"
            )
        if int(match[1]) not in out:
            out.append(int(match[1]))
    return tuple(out)


def _texts(places: list[TracePlace]) -> tuple[bytes, list[list[tuple[int, int]]]]:
    """All formats in one variable, and of each place where its calls' formats are in it."""
    data = b""
    out: list[list[tuple[int, int]]] = []
    for place in places:
        head = f"{place.message} {place}".strip().replace("%", "%%")
        mine = []
        for at in range(0, max(len(place.registers), 1), MOST_VALUES):
            some = place.registers[at : at + MOST_VALUES]
            line = " ".join([head, *(f"r{one}=0x%llx" for one in some)])
            content = line.encode("ascii", "replace") + b"\0"
            mine.append((len(data), len(content)))
            data += content
        out.append(mine)
    return data, out


def _add_ring(edit: ObjectEdit, size: int) -> None:
    """The map, which all passes share."""
    sections = [one.data for one in edit.obj.sections if is_section(one.name)]
    known = [place for data in sections for place in TraceMap.parse(bytes(data)).places.values()]
    if not any(place.to == "ring" for place in known):
        edit.add_map(MapDefinition(MAP_NAME, MapType.RINGBUF, max_entries=size))


def _add_section(edit: ObjectEdit, meaning: TraceMap) -> None:
    taken = {section.name for section in edit.obj.sections}
    number = 0
    while (name := f"{SECTION}.{number}" if number else SECTION) in taken:
        number += 1
    edit.add_section(name, meaning.to_bytes())


def _fresh(edit: ObjectEdit, name: str) -> str:
    """A name like this one that no symbol has."""
    taken = {symbol.name for symbol in edit.obj.symbols}
    number = 0
    while (found := f"{name}_{number}" if number else name) in taken:
        number += 1
    return found
