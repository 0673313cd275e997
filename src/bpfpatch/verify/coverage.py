"""Which paths a run took through a program, and what it compared on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.isa import OPCODES, Kind
from bpfpatch.program import JUMP_TABLE, Program

Edge: TypeAlias = tuple[int, int]
"""Slots of a conditional jump and of what ran after it."""

Hook: TypeAlias = Callable[[int, tuple[int, ...]], None]

MOST_COMPARES: Final = 2000
"""Comparisons that are noted in a run."""

GOTOX: Final = "gotox"
_U64: Final = (1 << 64) - 1


class BranchSite(NamedTuple):
    """A conditional jump, or one through a table.

    Attributes:
        slot: of it.
        op: ``jeq``, ``jset``, ``jsgt`` and so on; `GOTOX`.
        bits: how many bits it compares.
        dst: register on its left.
        src: register on its right, or -1.
        imm: number on its right, where that is not a register.
        target: slot where it goes.
        table: slots where it may go, if through a table.
    """

    slot: int
    op: str
    bits: int
    dst: int
    src: int
    imm: int
    target: int
    table: tuple[int, ...] = ()

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Where it may go: on, and to the target; or to each target of the table."""
        if self.op == GOTOX:
            return tuple((self.slot, target) for target in self.table)
        return (self.slot, self.slot + 1), (self.slot, self.target)


class Compare(NamedTuple):
    """One comparison of a run: at which slot, and the two sides."""

    slot: int
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class BranchCoverage:
    """How much of a program has been run.

    Attributes:
        taken: edges of conditional jumps, and of jumps through tables, that runs took.
        edges: how many there are.
    """

    taken: int
    edges: int

    def __str__(self) -> str:
        """As a sentence has it."""
        return f"{self.taken} of {self.edges} branch edges"


def branches_of(program: Program) -> dict[int, BranchSite]:
    """All conditional jumps, and jumps through tables, by slot.

    `may_goto`, which compares nothing, is none of them.
    """
    insns = program.insns
    rows = isa.rows(insns)
    is_branch = np.array([op.kind is Kind.COND_JUMP for op in OPCODES] + [False, False])
    dst, src = isa.dst(insns), isa.src(insns)
    out = {}
    for slot in np.flatnonzero(is_branch[rows]).tolist():
        name = OPCODES[int(rows[slot])].name
        if name == "may_goto":
            continue
        stem = name.split("_")[0]
        bits = 32 if stem.endswith("32") else 64
        imm = int(insns["imm"][slot]) & ((1 << bits) - 1)
        out[slot] = BranchSite(
            slot,
            stem.removesuffix("32"),
            bits,
            int(dst[slot]),
            int(src[slot]) if name.endswith("_reg") else -1,
            imm,
            slot + 1 + int(insns["off"][slot]),
        )
    out.update(_through_tables(program, rows))
    return out


def _through_tables(program: Program, rows: NDArray[np.int16]) -> Iterator[tuple[int, BranchSite]]:
    """Jumps through tables; which of its function's tables one goes through is not followed."""
    is_gotox = np.array([op.name == GOTOX for op in OPCODES] + [False, False])
    slots = np.flatnonzero(is_gotox[rows]).astype(np.int32)
    table = program.tables.get(JUMP_TABLE)
    if table is None or not slots.size:
        return
    goals = np.unique(table.insn)
    goal_owners, owners = program.subprogs.of(goals), program.subprogs.of(slots)
    dst = isa.dst(program.insns)
    for slot, owner in zip(slots.tolist(), owners.tolist(), strict=True):
        targets = tuple(goals[goal_owners == owner].tolist())
        yield slot, BranchSite(slot, GOTOX, 64, int(dst[slot]), -1, 0, slot + 1, targets)


class Recorder:
    """Notes edges and comparisons: a `bpfpatch.interp.machine.Watch`.

    Attributes:
        branches: the program's conditional jumps.
        edges: how often the run took each edge.
        compares: what the run compared, in order; the first of them.
        hook: notes the same, called before each instruction.
        compare: notes what a branch compares.
    """

    compare: Callable[[int, int, int], None]

    def __init__(self, program: Program) -> None:
        self.branches = branches_of(program)
        self.edges: dict[Edge, int] = {}
        self.compares: list[Compare] = []
        self._table: list[BranchSite | None] = [None] * len(program)
        for slot, branch in self.branches.items():
            self._table[slot] = branch
        self.hook = self._make_hook()

    def begin(self) -> None:
        """Forget the last run."""
        self.edges.clear()
        self.compares.clear()
        self._forget_last()

    def _make_hook(self) -> Hook:
        # Closures, since this is called millions of times.
        table, edges, compares = self._table, self.edges, self.compares
        n_slots = len(table)
        last = -1

        def compare(slot: int, left: int, right: int) -> None:
            if len(compares) < MOST_COMPARES:
                compares.append(Compare(slot, left, right))

        def hook(slot: int, regs: tuple[int, ...]) -> None:
            nonlocal last
            if last >= 0:
                edge = (last, slot)
                edges[edge] = edges.get(edge, 0) + 1
                last = -1
            branch = table[slot] if slot < n_slots else None
            if branch is None:
                return
            last = slot
            compare(slot, regs[branch.dst], regs[branch.src] if branch.src >= 0 else branch.imm)

        def forget() -> None:
            nonlocal last
            last = -1

        self._forget_last = forget
        self.compare = compare
        return hook
