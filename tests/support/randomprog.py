"""Random programs and random edits of them, run on a list and on its naive model side by side."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from support.naive import NaiveList, Node

from bpfpatch import isa
from bpfpatch.errors import LostTargetError
from bpfpatch.patch import Body, PatchList, To
from bpfpatch.program import (
    FUNC_INFO,
    LINE,
    LINE_INFO,
    Anchor,
    AnchoredTable,
    Program,
    Subprogs,
)

JA, GOTOL, JEQ, CALL, EXIT, MOV, WIDE, FUNC = 0x05, 0x06, 0x15, 0x85, 0x95, 0xB7, 0x18, -1


def row(code: int, regs: int = 0, off: int = 0, imm: int = 0) -> np.ndarray:
    return np.array([(code, regs, off, imm)], isa.INSN)


def random_program(rng: random.Random, n_insns: int) -> Program:
    """A structurally valid program: jumps, gotol, calls, function addresses, ld_imm64, lines."""
    n_subprogs = rng.randint(1, min(4, n_insns))
    cuts = sorted(rng.sample(range(1, n_insns), n_subprogs - 1)) if n_insns > 1 else []
    bounds = [0, *cuts, n_insns]
    kinds: list[str] = []
    for first, behind in zip(bounds[:-1], bounds[1:], strict=True):
        for index in range(first, behind):
            kinds.append(
                rng.choice(["exit", "ja"])
                if index == behind - 1
                else rng.choice(["mov", "mov", "jeq", "jeq", "ja", "gotol", "call", "wide", "func"])
            )
    widths = [2 if kind in ("wide", "func") else 1 for kind in kinds]
    slots = np.cumsum([0, *widths]).tolist()
    starts = [slots[b] for b in bounds[:-1]]
    parts = []
    for index, kind in enumerate(kinds):
        owner = max(k for k, b in enumerate(bounds[:-1]) if b <= index)
        inside = slots[rng.randrange(bounds[owner], bounds[owner + 1])]
        jump = inside - slots[index] - 1
        call = rng.choice(starts) - slots[index] - 1
        imm = rng.randrange(1 << 20)
        parts.append(
            {
                "exit": lambda: row(EXIT),
                "mov": lambda imm=imm: row(MOV, rng.randrange(10), 0, imm),
                "ja": lambda jump=jump: row(JA, 0, jump),
                "gotol": lambda jump=jump: row(GOTOL, 0, 0, jump),
                "jeq": lambda jump=jump, imm=imm: row(JEQ, 1, jump, imm),
                "call": lambda call=call: row(CALL, 0x10, 0, call),
                "wide": lambda imm=imm: np.concatenate([row(WIDE, 2, 0, imm), row(0, 0, 0, ~imm)]),
                "func": lambda call=call: np.concatenate([row(WIDE, 0x42, 0, call), row(0)]),
            }[kind]()
        )
    insns = np.concatenate(parts)
    lines = sorted(
        {*starts, *(slot for slot in slots[:-1] if rng.random() < 0.6)} if rng.random() < 0.8 else []
    )
    line_rows = np.zeros(len(lines), LINE)
    line_rows["line_col"] = (np.arange(len(lines)) + 1) << 10
    subprogs = Subprogs(
        np.array(starts, np.int32),
        tuple(f"f{k}" for k in range(len(starts))),
        np.zeros(len(starts), np.int32),
    )
    return Program(
        insns,
        subprogs=subprogs,
        tables={
            LINE_INFO: AnchoredTable(
                np.array(lines, np.int32), line_rows, Anchor.ENTRY, unique=True
            ),
            FUNC_INFO: AnchoredTable(
                np.array(starts, np.int32), np.arange(len(starts)), Anchor.ENTRY, unique=True
            ),
            "label": AnchoredTable(
                np.array(sorted(slots[:-1]), np.int32), np.array(slots[:-1]), Anchor.LAND
            ),
        },
    )


@dataclass
class Pair:
    """A list and its model, with the nodes of one known by the objects of the other."""

    patches: PatchList
    naive: NaiveList
    node_of: dict[int, int]
    by_node: dict[int, Node]

    @classmethod
    def of(cls, program: Program) -> Pair:
        naive = NaiveList(program)
        by_node = {slot: node for slot, node in enumerate(naive.by_slot) if node is not None}
        return cls(
            PatchList(program), naive, {id(n): slot for slot, n in by_node.items()}, by_node
        )

    def learn(self, first: int, body: Body, fresh: list[Node]) -> None:
        for slot, node in zip(body.nodes.tolist(), fresh, strict=True):
            self.node_of[id(node)] = first + slot
            self.by_node[first + slot] = node


VERBS = ["insert_before", "prepend", "insert_after", "replace", "delete"]


def random_body(
    rng: random.Random, pair: Pair, site: Node, verb: str
) -> tuple[Body, dict[int, Node]]:
    """A body that may go to this site by this verb, and the nodes that it names."""
    naive = pair.naive
    keeps = verb == "replace" and rng.random() < 0.4
    n_items = rng.randint(0 if verb == "replace" else 1, 3)
    goes = verb == "replace" and not keeps
    goals: list[object] = [To.END, "local", "local"]
    if not goes:
        goals.append(To.ORIG)
    if site.is_ref and not site.is_entry:
        goals += [To.TARGET, To.TARGET]
    other = rng.choice([n for n in naive.nodes if n.subprog == site.subprog])
    if other is not site or not goes:
        goals.append(other)
    heads: list[object] = [n for i, n in enumerate(naive.nodes) if _is_head(naive, i)]
    heads = [n for n in heads if n is not site or not goes]
    if site.is_ref and site.is_entry:
        heads.append(To.TARGET)
    codes = [
        rng.choice([MOV, MOV, WIDE, JA, GOTOL, JEQ, JEQ, *([CALL, FUNC] if heads else [])])
        for _ in range(n_items)
    ]
    parts: list[np.ndarray] = []
    jumps: list[tuple[int, object]] = []
    starts: list[int] = []
    at = 0
    place = rng.randint(0, n_items) if keeps else -1
    for index, code in enumerate([*codes, None]):
        if index == place:
            parts.append(row(0))
            starts.append(at)
            keeps_at = at
            at += 1
        if code is None:
            break
        starts.append(at)
        if code in (JA, GOTOL, JEQ):
            jumps.append((at, rng.choice(goals)))
        elif code in (CALL, FUNC):
            jumps.append((at, rng.choice(heads)))
        made = {
            MOV: row(MOV, 3, 0, rng.randrange(1000)),
            WIDE: np.concatenate([row(WIDE, 2, 0, 5), row(0, 0, 0, 6)]),
            JA: row(JA),
            GOTOL: row(GOTOL),
            JEQ: row(JEQ, 4, 0, 9),
            CALL: row(CALL, 0x10),
            FUNC: np.concatenate([row(WIDE, 0x42), row(0)]),
        }[code]
        parts.append(made)
        at += len(made)
    labels: dict[int, object] = {}
    locals_: dict[int, int] = {}
    named: dict[int, Node] = {}
    for slot, goal in jumps:
        if goal == "local":
            locals_[slot] = rng.choice([*starts, at])
        elif isinstance(goal, Node):
            number = pair.node_of[id(goal)]
            labels[slot] = number if rng.random() < 0.5 else pair.patches[number]
            named[number] = goal
        else:
            labels[slot] = goal
    insns = np.concatenate(parts) if parts else np.zeros(0, isa.INSN)
    body = Body(insns, keeps=keeps_at if keeps else None, labels=labels, locals_=locals_)
    return body, named


def _is_head(naive: NaiveList, index: int) -> bool:
    return index == 0 or naive.nodes[index].subprog != naive.nodes[index - 1].subprog


def random_edit(rng: random.Random, pair: Pair) -> None:
    """One random edit of both, sometimes in bulk."""
    naive, patches = pair.naive, pair.patches
    verb = rng.choice(VERBS)
    if len(naive.nodes) < 2 and verb in ("delete", "replace"):
        verb = "insert_before"
    sites = rng.sample(naive.nodes, min(len(naive.nodes), rng.choice([1, 1, 1, 2, 4])))
    if verb == "delete":
        if len(sites) == len(naive.nodes):
            sites = sites[:1]
        numbers = [pair.node_of[id(node)] for node in sites]
        patches.delete(np.array(numbers, np.int32) if len(numbers) > 1 else numbers[0])
        for site in sites:
            naive.delete(site)
        return
    if len(sites) > 1:
        body = Body.of(
            *rng.choice(
                [
                    [row(MOV, 3, 0, 7)],
                    [row(JEQ, 2, 1, 1), row(MOV, 3, 0, 8)],
                    [row(MOV, 4, 0, 1), row(JA, 0, -2)],
                ]
            )
        )
        numbers = [pair.node_of[id(node)] for node in sites]
        firsts = getattr(patches, verb)(np.array(numbers, np.int32), body)
        for site, first in zip(sites, firsts.tolist(), strict=True):
            pair.learn(first, body, naive.edit(verb, site, body, {}))
        return
    body, named = random_body(rng, pair, sites[0], verb)
    first = getattr(patches, verb)(pair.node_of[id(sites[0])], body)
    pair.learn(first, body, naive.edit(verb, sites[0], body, named))


def run_case(seed: int, *, look: float) -> bool:
    """One random program under random edits; whether it could be linearized.

    Args:
        seed: names the case.
        look: how likely a look at the list is after each edit.
    """
    rng = random.Random(seed)
    program = random_program(rng, rng.randint(1, 14))
    pair = Pair.of(program)
    for _ in range(rng.randint(0, 14)):
        random_edit(rng, pair)
        if rng.random() < look:
            expected = [pair.node_of[id(node)] for node in pair.naive.nodes]
            assert pair.patches.nodes().tolist() == expected, seed
    if pair.naive.has_lost():
        try:
            pair.patches.linearize()
        except LostTargetError:
            return False
        raise AssertionError(f"seed {seed}: a lost target went unnoticed")
    compare(pair, program, seed)
    return True


def compare(pair: Pair, program: Program, seed: int) -> None:
    """Linearize both, and compare everything."""
    flat, places, sites = pair.naive.flatten()
    new, remap = pair.patches.linearize()
    assert new.insns.tobytes() == flat.tobytes(), seed
    first = ~program.second_slots
    for name in ("own", "land", "entry"):
        got = getattr(remap, name)[first]
        want = np.array(getattr(places, name), np.int32)[first]
        assert (got == want).all(), (seed, name, got, want)
    assert remap.site.tolist() == sites, seed
    kept = remap.orig >= 0
    assert (remap.own[remap.orig[kept]] == np.flatnonzero(kept)).all(), seed
    expected_lines = {}
    table = program.tables[LINE_INFO]
    for insn, line in zip(table.insn.tolist(), table.rows["line_col"].tolist(), strict=True):
        if places.entry[insn] >= 0:
            expected_lines[places.entry[insn]] = line  # of several on one, the last wins
    got_lines = new.tables[LINE_INFO]
    assert dict(
        zip(got_lines.insn.tolist(), got_lines.rows["line_col"].tolist(), strict=True)
    ) == expected_lines, seed
    starts = {places.entry[s]: n for s, n in zip(program.subprogs.start.tolist(), program.subprogs.names, strict=True) if places.entry[s] >= 0}
    assert dict(zip(new.subprogs.start.tolist(), new.subprogs.names, strict=True)) == starts, seed
