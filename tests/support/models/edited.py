"""Random edits of random programs, run on a list and on its naive model side by side."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import LostRowError, LostTargetError
from bpfpatch.patch import Body, PatchList, To
from bpfpatch.program import FUNC_INFO, INSERTED, LINE_INFO, REPLACED, Program, Remap
from bpfpatch.program.refs import read_references
from support.generators.programs.structured import (
    CALL,
    FUNC,
    GOTOL,
    JA,
    JEQ,
    MARK_FILL,
    MOV,
    WIDE,
    decorated,
    kinds,
    random_program,
    row,
)
from support.models.naive import NaiveList, Node, Places


@dataclass
class Pair:
    """A list and its model, with the nodes of one known by the objects of the other.

    Attributes:
        before: what linearizing in the middle of the case has composed so far.
    """

    program: Program
    patches: PatchList
    naive: NaiveList
    node_of: dict[int, int]
    before: Remap
    pass_name: str = ""
    n_rows: int = 0
    modified: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, program: Program) -> Pair:
        """The list of a decorated program, and its model."""
        naive = NaiveList(program)
        for slot, node in enumerate(naive.by_slot):
            if node is not None:
                wide = len(node.words)
                node.marks = program.columns["mark"].values[slot : slot + wide].tolist()
        table = program.tables["reloc"]
        for slot, number in zip(table.insn.tolist(), table.rows.tolist(), strict=True):
            naive.by_slot[slot].attached.append(number)
        node_of = {id(n): slot for slot, n in enumerate(naive.by_slot) if n is not None}
        pair = cls(program, PatchList(program), naive, node_of, Remap.identity(len(program)))
        pair.n_rows = len(table)
        return pair

    def learn(self, first: int, body: Body, fresh: list[Node]) -> None:
        """Remember which node each new object is."""
        for slot, node in zip(body.nodes.tolist(), fresh, strict=True):
            self.node_of[id(node)] = first + slot
            node.pass_name = self.pass_name
            node.marks = [MARK_FILL] * len(node.words)

    def restart(self) -> None:
        """Linearize, and go on with a new list of the result."""
        program, remap = self.patches.linearize()
        self.before = self.before.then(remap)
        self.patches = PatchList(program)
        slots = self.naive.slots()
        self.node_of = {id(node): slots[id(node)] for node in self.naive.nodes}

    def look(self, rng: random.Random) -> None:
        """Look at the list, in one of the ways there are."""
        patches, naive = self.patches, self.naive
        match rng.randrange(4):
            case 0:
                assert patches.nodes().tolist() == [self.node_of[id(n)] for n in naive.nodes]
            case 1:
                assert [insn.code for insn in patches] == [n.words[0] & 0xFF for n in naive.nodes]
            case 2:
                one = rng.choice(naive.nodes)
                value = rng.randrange(1000)
                patches.aux("mark")[self.node_of[id(one)]] = value
                one.marks[0] = value
            case _:
                self._look_at_targets()

    def _look_at_targets(self) -> None:
        view, slots = self.patches.view(), self.naive.slots()
        targets = {
            slots[id(n)]: slots[id(n.target)] if n.target else -1
            for n in self.naive.nodes
            if n.is_ref
        }
        assert dict(zip(view.ref_slot.tolist(), view.ref_target.tolist(), strict=True)) == targets
        for node in self.naive.nodes[:2]:
            wanted = self.node_of[id(node.target)] if node.target else None
            assert self.patches.target_of(self.node_of[id(node)]) == wanted


VERBS = ["insert_before", "prepend", "insert_after", "replace", "delete"]


def random_body(
    rng: random.Random, pair: Pair, site: Node, verb: str
) -> tuple[Body, dict[int, Node]]:
    """A body that may go to this site by this verb, and the nodes that it names."""
    naive = pair.naive
    keeps = verb == "replace" and rng.random() < 0.4
    n_items = rng.randint(0 if verb == "replace" else 1, 3)
    goes = verb == "replace" and not keeps
    goals, heads = _goals(rng, naive, site, goes=goes)
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


def _goals(
    rng: random.Random, naive: NaiveList, site: Node, *, goes: bool
) -> tuple[list[object], list[object]]:
    """What a jump and what a call in a body at this site may refer to."""
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
    return goals, heads


def _is_head(naive: NaiveList, index: int) -> bool:
    return index == 0 or naive.nodes[index].subprog != naive.nodes[index - 1].subprog


FREE_BODIES = [  # that can go anywhere
    Body.of(row(MOV, 3, 0, 7)),
    Body.of(row(JEQ, 2, 1, 1), row(MOV, 3, 0, 8)),
    Body.of(row(MOV, 4, 0, 1), row(JA, 0, -2)),
]


KEEPING_BODIES = [  # that can only replace
    Body(np.concatenate([row(MOV, 3, 0, 1), row(0), row(JA, 0, -2)]), keeps=1),
    Body(np.concatenate([row(0), row(WIDE, 2, 0, 3), row(0)]), keeps=0),
]


def random_edit(rng: random.Random, pair: Pair) -> None:
    """One random edit of both, sometimes in bulk, sometimes as a pass."""
    pair.pass_name = rng.choice(["", "", "one", "two"])
    as_pass = pair.patches.as_pass(pair.pass_name) if pair.pass_name else contextlib.nullcontext()
    with as_pass:
        match rng.randrange(12):
            case 0:
                _modify(rng, pair)
            case 1:
                _attach(rng, pair)
            case _:
                _random_verb(rng, pair)


def _modify(rng: random.Random, pair: Pair) -> None:
    movs = [node for node in pair.naive.nodes if node.words[0] & 0xFF == MOV]
    if not movs:
        return
    sites = rng.sample(movs, rng.randint(1, min(2, len(movs))))
    imm = rng.randrange(1 << 20)
    numbers = [pair.node_of[id(site)] for site in sites]
    pair.patches.modify(numbers if len(numbers) > 1 else numbers[0], imm=imm, dst=6)
    for site in sites:
        site.words[0] = MOV | 6 << 8 | imm << 32
        site.is_modified = True


def _attach(rng: random.Random, pair: Pair) -> None:
    site = rng.choice(pair.naive.nodes)
    pair.patches.attach("reloc", pair.node_of[id(site)], pair.n_rows)
    site.attached.append(pair.n_rows)
    pair.n_rows += 1


def _random_verb(rng: random.Random, pair: Pair) -> None:
    naive, patches = pair.naive, pair.patches
    verb = rng.choice(VERBS)
    if len(naive.nodes) < 2 and verb in ("delete", "replace"):
        verb = "insert_before"
    sites = rng.sample(naive.nodes, min(len(naive.nodes), rng.choice([1, 1, 1, 2, 4])))
    numbers = [pair.node_of[id(node)] for node in sites]
    if verb == "delete":
        if len(sites) == len(naive.nodes):
            sites, numbers = sites[:1], numbers[:1]
        patches.delete(_named(rng, patches, numbers))
        for site in sites:
            naive.delete(site)
        return
    named: dict[int, Node] = {}
    choice = FREE_BODIES + KEEPING_BODIES * (verb == "replace")
    if len(sites) == 1:
        body, named = random_body(rng, pair, sites[0], verb)
        bodies = [body]
        firsts = [getattr(patches, verb)(_named(rng, patches, numbers), body)]
    elif rng.random() < 0.7:
        bodies = [rng.choice(choice)] * len(sites)
        firsts = getattr(patches, verb)(_named(rng, patches, numbers), bodies[0]).tolist()
    else:
        bodies = rng.choices(choice, k=len(sites))
        firsts = getattr(patches, verb)(_named(rng, patches, numbers), bodies).tolist()
    for site, first, body in zip(sites, firsts, bodies, strict=True):
        pair.learn(first, body, naive.edit(verb, site, body, named))


def _named(rng: random.Random, patches: PatchList, numbers: list[int]) -> object:
    """The sites in one of the forms that a verb takes."""
    if len(numbers) == 1:
        return rng.choice([numbers[0], patches[numbers[0]], np.int32(numbers[0])])
    return rng.choice([numbers, [patches[n] for n in numbers], np.array(numbers, np.int64)])


def run_case(seed: int, *, look: float, restart: float = 0.0) -> bool:
    """One random program under random edits; whether it could be linearized.

    Args:
        seed: names the case.
        look: how likely a look at the list is after each edit.
        restart: how likely it is linearized after each edit, to go on with the result.
    """
    rng = random.Random(seed)
    program = decorated(rng, random_program(rng, rng.randint(1, 14)))
    pair = Pair.of(program)
    try:
        for _ in range(rng.randint(0, 14)):
            random_edit(rng, pair)
            if rng.random() < look:
                pair.look(rng)
            if rng.random() < restart and not pair.naive.has_lost():
                pair.restart()
        result, remap = pair.patches.linearize()
    except LostTargetError:
        assert pair.naive.has_lost(), f"seed {seed}: a target was lost in the list only"
        return False
    except LostRowError:
        assert _breaks_a_row(pair), f"seed {seed}: a row was lost in the list only"
        return False
    assert not pair.naive.has_lost(), f"seed {seed}: a lost target went unnoticed"
    assert not _breaks_a_row(pair), f"seed {seed}: a lost row went unnoticed"
    compare(pair, result, pair.before.then(remap) if restart else remap, seed)
    return True


def _breaks_a_row(pair: Pair) -> bool:
    for slot in pair.program.tables["strict"].insn.tolist():
        node = pair.naive.by_slot[slot]
        if pair.naive.gone.get(slot) == REPLACED or (node.is_modified and node.alive):
            return True
    return False


def compare(pair: Pair, new: Program, remap: Remap, seed: int) -> None:
    """Compare everything that linearize gave with the model's."""
    program, naive = pair.program, pair.naive
    flat, places, sites = naive.flatten()
    assert new.insns.tobytes() == flat.tobytes(), seed
    first = ~program.second_slots
    for name in ("own", "land", "entry"):
        got = getattr(remap, name)[first]
        want = np.array(getattr(places, name), np.int32)[first]
        assert (got == want).all(), (seed, name, got, want)
    assert remap.bound.tolist() == places.bound, seed
    assert remap.site.tolist() == sites, seed
    words = [(node, index) for node in naive.nodes for index in range(len(node.words))]
    origs = [node.orig + index if node.orig >= 0 else INSERTED for node, index in words]
    assert remap.orig.tolist() == origs, seed
    assert [remap.passes[k] for k in remap.origin.tolist()] == [n.pass_name for n, _ in words], seed
    modified = [node.orig for node in naive.nodes if node.is_modified and node.orig >= 0]
    assert remap.modified.tolist() == sorted(modified), seed
    compare_tables(pair, new, places, seed)
    assert new.columns["mark"].values.tolist() == [node.marks[k] for node, k in words], seed
    is_new = remap.orig == INSERTED
    wanted = np.where(is_new[:, None], kinds(flat), 0)
    assert (new.columns["kind"].values == wanted).all(), seed


def compare_tables(pair: Pair, new: Program, places: Places, seed: int) -> None:
    """Compare the rows of all tables, and the subprogs."""
    old, naive = pair.program.tables, pair.naive
    for name in (LINE_INFO, FUNC_INFO):  # of several on one, the last wins
        expected = {
            places.entry[insn]: given
            for insn, given in zip(old[name].insn.tolist(), old[name].rows.tolist(), strict=True)
            if places.entry[insn] >= 0
        }
        got = new.tables[name]
        assert list(expected.items()) == list(
            zip(got.insn.tolist(), got.rows.tolist(), strict=True)
        ), (seed, name)
    labels = zip(old["label"].insn.tolist(), old["label"].rows.tolist(), strict=True)
    wanted = [(places.land[insn], given) for insn, given in labels if places.land[insn] >= 0]
    table = new.tables["label"]
    assert list(zip(table.insn.tolist(), table.rows.tolist(), strict=True)) == wanted, seed
    symbols = old["symbol"]
    ranges = [
        (places.entry[begin], given, places.bound[end])
        for begin, given, end in zip(
            symbols.insn.tolist(), symbols.rows.tolist(), symbols.end.tolist(), strict=True
        )
        if places.entry[begin] >= 0
    ]
    table = new.tables["symbol"]
    got_ranges = zip(table.insn.tolist(), table.rows.tolist(), table.end.tolist(), strict=True)
    assert list(got_ranges) == ranges, seed
    slots = naive.slots()
    relocs = sorted((slots[id(node)], number) for node in naive.nodes for number in node.attached)
    table = new.tables["reloc"]
    assert sorted(zip(table.insn.tolist(), table.rows.tolist(), strict=True)) == relocs, seed
    external = [places.own[slot] for slot in pair.program.external.tolist()]
    assert new.external.tolist() == [slot for slot in external if slot >= 0], seed
    subprogs = pair.program.subprogs
    alive = [k for k, slot in enumerate(subprogs.start.tolist()) if places.entry[slot] >= 0]
    assert new.subprogs.names == tuple(subprogs.names[k] for k in alive), seed
    starts = [places.entry[slot] for slot in subprogs.start[alive].tolist()]
    assert new.subprogs.start.tolist() == starts, seed
    assert new.subprogs.section.tolist() == subprogs.section[alive].tolist(), seed
    assert new.subprogs.is_root.tolist() == subprogs.is_root[alive].tolist(), seed
    assert new.sections == pair.program.sections, seed
    again = read_references(new.insns, new.external)  # those that came with it are not decoded
    for name in ("slot", "kind", "target"):
        assert getattr(new.refs, name).tolist() == getattr(again, name).tolist(), seed
