"""lower: express newer instructions by older ones, for kernels that do not have them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.liveness import upper_halves_read
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.program import Anchor
from bpfpatch.program.types import Mask

from ..base import Pass, register
from ..scratch import Scratch, ScratchPlace
from ..setting import Setting
from ..sites import indirect_targets, opaque_slots, place_of
from .expand import Expansion, Site, expansion
from .halves import CERTAIN, zero_halves

_LEVELS: Final = {"v1": 1, "v2": 2, "v3": 3}
_REASONS: Final = {
    "may_goto": "the kernel counts the rounds of the loop",
    "gotox": "an older kernel has no indirect jumps; compile with -fno-jump-tables",
    "callx": "no kernel has indirect calls",
    "load_acquire": "no older instruction orders memory",
    "store_release": "no older instruction orders memory",
    "addr_space_cast": "an older kernel has no arenas",
}
_ATOMIC: Final = "no older instruction changes memory in one step and gives what was there"
_UNCOUNTED: Final = "no older instruction changes memory so in one step"
_OPEN: Final = (
    "a loader will fill in its constant, which the older form would need elsewhere; apply the "
    "relocation first"
)
_SHOWN: Final = 5
_MOV32: Final = 0xBC


@register
@dataclass(frozen=True)
class Lower(Pass):
    """Express newer instructions by older ones, for kernels that do not have them.

    What needs a register to work with gets one that holds nothing which is read later, or one
    that is saved around the instruction.

    Attributes:
        cpu: the highest version that the result may need: v1, v2 or v3.
        keep: names of instructions that may stay though they have no older form, as in the
            opcode table or their beginnings, with ``+`` between them; ``all`` for any.

    Source: RFC 9669 sections 4 and 5 for what instructions do; the versions are the compilers'.
    """

    name = "lower"
    cpu: str = "v1"
    keep: str = ""

    def __post_init__(self) -> None:
        if self.cpu not in _LEVELS:
            raise OptionError(f"pass lower: cpu is v1, v2 or v3, not {self.cpu!r}")
        names = [opcode.name for opcode in isa.OPCODES]
        for one in filter(None, self.keep.split("+")):
            if one != "all" and not any(name.startswith(one) for name in names):
                raise OptionError(f"pass lower: no instruction is called {one!r}")

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Replace them all.

        Raises:
            UnsupportedError: an instruction without an older form that ``keep`` does not name,
                or one for which no register can be had.
        """
        view = patches.view()
        level = isa.min_cpu(view.insns)
        slots = np.flatnonzero((level > _LEVELS[self.cpu]) & (level < isa.CPU_INTERNAL))
        if not slots.size:
            return
        order = setting.target.arch.byteorder
        if setting.edit is not None:
            order = setting.edit.obj.byteorder
        work = _Work(patches, view, _LEVELS[self.cpu], order == "little", self.keep)
        work.run(slots.tolist())

    def keeps(self, name: str) -> bool:
        """Whether an instruction without an older form may stay."""
        return _keeps(self.keep, name)


def _keeps(keep: str, name: str) -> bool:
    return any(one == "all" or name.startswith(one) for one in filter(None, keep.split("+")))


class _Work:
    """One run over one view."""

    def __init__(
        self, patches: PatchList, view: CodeView, most: int, is_little: bool, keep: str
    ) -> None:
        self._patches = patches
        self._view = view
        self._most = most
        self._is_little = is_little
        self._keep = keep
        self._blocks = Blocks.of(view, indirect_targets(patches.program, view))
        self._zero = zero_halves(view, self._blocks)
        self._untidy = self._untidy_moves()
        if self._untidy.any():
            self._zero = zero_halves(view, self._blocks, self._untidy)
        self._opaque: Mask = opaque_slots(patches, view)

    def _untidy_moves(self) -> Mask:
        """(n,) `w1 = w2` of what may be an address, where only the lower half is read later.

        The verifier takes the lower half of a packet's end minus the lower half of its start;
        of an address that is shifted it takes nothing.
        """
        insns = self._view.insns
        out: Mask = (insns["code"] == _MOV32) & (insns["off"] == 0)
        src = isa.src(insns)
        out &= (self._zero >> src & 1 > 0) & (self._zero >> (src + np.uint8(CERTAIN)) & 1 == 0)
        if self._most >= _LEVELS["v3"] or not out.any():
            return np.zeros(len(self._view), bool)
        return out & ~upper_halves_read(self._view, self._blocks)

    @cached_property
    def _scratch(self) -> Scratch:
        return Scratch(self._view, self._blocks, opaque=self._opaque)

    def run(self, slots: list[int]) -> None:
        """Lower what can be; refuse the rest, all at once."""
        wrong: list[str] = []
        bodies: dict[tuple[str, ...], list[int]] = {}
        moved: list[tuple[int, tuple[str, ...], int]] = []
        for slot in slots:
            opcode = isa.opcode_of(int(isa.words(self._view.insns)[slot]))
            assert opcode is not None
            found = self._lowered(slot, opcode.name)
            if isinstance(found, str):
                if not _keeps(self._keep, opcode.name):
                    wrong.append(f"{place_of(self._patches, self._view, slot)}: {found}")
                continue
            lines, main = found
            if self._opaque[slot]:
                moved.append((slot, lines, main))
            else:
                bodies.setdefault(lines, []).append(slot)
        if wrong:
            raise UnsupportedError(_refusal(self._most, wrong))
        for lines, sites in bodies.items():
            nodes = self._view.node[np.array(sites)]
            self._patches.replace(nodes, Body.asm("\n".join(lines)))
        rows = dict(self._rows([slot for slot, _, _ in moved]))
        for slot, lines, main in moved:
            self._move(slot, lines, main, rows[slot])

    def _lowered(self, slot: int, name: str) -> tuple[tuple[str, ...], int] | str:
        """The lines for an instruction and the main one of them, or why there are none."""
        insn = self._view.insns[slot]
        dst, src = int(insn["regs"]) & 15, int(insn["regs"]) >> 4
        known = int(self._zero[slot])
        site = Site(
            name,
            dst,
            src,
            int(insn["off"]),
            int(insn["imm"]),
            zero_dst=bool(known >> dst & 1),
            zero_src=bool(known >> src & 1),
            moves_plainly=bool(known >> (src + CERTAIN) & 1),
            is_untidy=bool(self._untidy[slot]),
            is_open=bool(self._opaque[slot]),
            most=self._most,
            is_little=self._is_little,
        )
        found = expansion(site)
        if found is None:
            return _OPEN if site.is_open and _is_plain(name) else _reason(name)
        if site.is_open and found.main < 0:
            return _OPEN
        if not found.n_registers:
            return _with_place(found, None)
        place = self._place(slot, found.n_registers, 1 << dst | 1 << src)
        return place if isinstance(place, str) else _with_place(found, place)

    def _place(self, slot: int, n_registers: int, taken: int) -> ScratchPlace | str:
        live = self._scratch.live(slot) | taken
        free = [register for register in range(isa.R10) if not live >> register & 1]
        free.sort(key=lambda register: (1 <= register <= 5, register))
        return self._scratch.more(slot, n_registers, free, taken)

    def _rows(self, slots: list[int]) -> Iterator[tuple[int, list[tuple[str, object]]]]:
        """The rows of each of these instructions, by table."""
        program, nodes = self._patches.program, self._view.node
        attached = set(self._patches.attached().tolist())
        for slot in slots:
            node = int(nodes[slot])
            if node in attached or node >= len(program):
                where = place_of(self._patches, self._view, slot)
                raise UnsupportedError(
                    f"pass lower: {where}: a pass has put a relocation on it; lower first"
                )
            found: list[tuple[str, object]] = []
            for name, table in program.tables.items():
                if table.anchor is Anchor.OWN:
                    found += [(name, row) for row in table.rows[table.insn == node]]
            yield slot, found

    def _move(
        self, slot: int, lines: tuple[str, ...], main: int, rows: list[tuple[str, object]]
    ) -> None:
        """Put the older form in front, with the rows on its main line, and the newer one away."""
        node = int(self._view.node[slot])
        body = Body.asm("\n".join(lines))
        first = self._patches.insert_before(node, body)
        self._patches.delete(node)
        for table, row in rows:
            self._patches.attach(table, first + int(body.nodes[main]), row)


def _with_place(found: Expansion, place: ScratchPlace | None) -> tuple[tuple[str, ...], int]:
    """The lines with registers in them, and what they spill saved around them."""
    t, u = ("", "") if place is None else (*place.registers, "")[:2]
    lines = [line.format(t=t, u=u) for line in found.lines]
    before: list[str] = []
    after: list[str] = []
    if place is not None:
        before = _text(place.saves())
        after = _text(place.restores())
    if found.test:
        lines += _branch(found.test.format(t=t, u=u), after, is_negated=found.is_negated)
    else:
        lines += after
    return (*before, *lines), found.main + len(before) if found.main >= 0 else -1


def _branch(test: str, after: list[str], *, is_negated: bool) -> list[str]:
    if not after and is_negated:
        return [f"if {test} goto @end", "goto @target"]
    if not after:
        return [f"if {test} goto @target"]
    jumps = ("goto @target", "goto @end")
    here, there = jumps if is_negated else jumps[::-1]
    return [f"if {test} goto there", *after, here, "there:", *after, there]


def _text(insns: list[isa.Insns]) -> list[str]:
    return [
        isa.describe(part, at)
        for part in insns
        for at in np.flatnonzero(~isa.second_slots(part)).tolist()
    ]


def _is_plain(name: str) -> bool:
    return isa.BY_NAME[name].kind is not isa.Kind.ATOMIC and name not in _REASONS


def _reason(name: str) -> str:
    if isa.BY_NAME[name].kind is isa.Kind.ATOMIC and not name.startswith(("load_", "store_")):
        return _UNCOUNTED if "fetch" not in name and "xchg" not in name else _ATOMIC
    for known, reason in _REASONS.items():
        if name.startswith(known):
            return reason
    return "it has no older form"


def _refusal(most: int, wrong: list[str]) -> str:
    shown = "".join(f"\n  {line}" for line in wrong[:_SHOWN])
    more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return (
        f"pass lower: {len(wrong)} instruction{'s' * (len(wrong) != 1)} cannot be expressed in cpu "
        f"v{most}; leave them with keep=NAME, or allow a higher version{shown}{more}"
    )
