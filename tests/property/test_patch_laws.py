"""Laws of the patch list, of linearize and of Remap, on random programs and edits."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from bpfpatch.errors import BpfPatchError
from bpfpatch.patch import Linearized, PatchList
from bpfpatch.program import DELETED, INSERTED, REPLACED, Anchor, AnchoredTable, Program, Remap
from support.generators.programs import decorated, random_program
from support.models.edited import FREE_BODIES, Pair, random_edit

FIELDS = ("own", "land", "entry", "bound", "orig", "site", "origin", "passes", "modified")

seeds = st.integers(0, 2**31)
SLOW = settings(max_examples=100, deadline=None)


def assert_same_program(one: Program, other: Program) -> None:
    """Equal in everything that a program has."""
    assert one.to_bytes() == other.to_bytes()
    for name in ("start", "section", "is_root"):
        assert (getattr(one.subprogs, name) == getattr(other.subprogs, name)).all()
    assert one.subprogs.names == other.subprogs.names
    assert one.sections == other.sections
    assert one.strings == other.strings
    assert one.external.tolist() == other.external.tolist()
    assert one.tables.keys() == other.tables.keys()
    for name, table in one.tables.items():
        assert_same_table(table, other.tables[name])
    assert one.columns.keys() == other.columns.keys()
    for name, column in one.columns.items():
        assert (column.values == other.columns[name].values).all()


def assert_same_table(one: AnchoredTable, other: AnchoredTable) -> None:
    """Equal in rows and places."""
    assert one.insn.tolist() == other.insn.tolist()
    assert one.rows.tolist() == other.rows.tolist()
    assert (one.end is None) == (other.end is None)
    if one.end is not None:
        assert one.end.tolist() == other.end.tolist()


def assert_same_remap(one: Remap, other: Remap) -> None:
    """Equal in every field."""
    for name in FIELDS:
        assert list(getattr(one, name)) == list(getattr(other, name)), name


def assert_same_result(one: Linearized | str, other: Linearized | str) -> None:
    """Equal, or refused in the same words."""
    assert isinstance(one, str) == isinstance(other, str)
    if isinstance(one, str):
        assert one == other
    else:
        assert_same_program(one.program, other.program)
        assert_same_remap(one.remap, other.remap)


def edited(rng: random.Random, program: Program, n_edits: int = 6) -> PatchList | None:
    """A list after random edits that can be linearized, or None."""
    pair = Pair.of(program)
    for _ in range(n_edits):
        random_edit(rng, pair)
    try:
        pair.patches.linearize()
    except BpfPatchError:
        return None
    return pair.patches


def some_program(rng: random.Random) -> Program:
    """A random program with every kind of table on it."""
    return decorated(rng, random_program(rng, rng.randint(1, 14)))


@SLOW
@given(seeds)
def test_no_edits_is_identity(seed):
    """linearize(no edits) is the identity: bytes, tables, columns, subprogs and remap."""
    program = some_program(random.Random(seed))
    new, remap = PatchList(program).linearize()
    assert_same_program(new, program)
    assert remap.is_identity


@SLOW
@given(seeds)
def test_identity_remap_is_no_edits(seed):
    """Remap.identity says what linearize says of a list without edits, but for second slots."""
    program = some_program(random.Random(seed))
    _, remap = PatchList(program).linearize()
    same = Remap.identity(len(program))
    first = ~program.second_slots
    assert remap.own.tolist() == same.own.tolist()
    assert remap.land[first].tolist() == same.land[first].tolist()
    assert remap.entry[first].tolist() == same.entry[first].tolist()


@SLOW
@given(seeds)
def test_a_list_can_be_thrown_away(seed):
    """The program that a list was made from is as it was, whatever became of the list."""
    rng = random.Random(seed)
    program = some_program(rng)
    before = decorated(random.Random(0), program)  # another object, of the same bytes
    code = program.to_bytes()
    marks = program.columns["mark"].values.tolist()
    patches = edited(rng, program)
    if patches is not None:
        patches.aux("mark")[0] = 99
    assert program.to_bytes() == code == before.to_bytes()
    assert program.columns["mark"].values.tolist() == marks


@SLOW
@given(seeds)
def test_linearize_twice(seed):
    """Linearizing does not change the list: a second time gives the same."""
    rng = random.Random(seed)
    patches = edited(rng, some_program(rng))
    assume(patches is not None)
    (first, first_remap), (second, second_remap) = patches.linearize(), patches.linearize()
    assert_same_program(first, second)
    assert_same_remap(first_remap, second_remap)


@SLOW
@given(seeds)
def test_later_edits_leave_a_result_alone(seed):
    """What linearize has returned does not change with the list, also what is computed late."""
    rng = random.Random(seed)
    pair = Pair.of(some_program(rng))
    snapshots = []
    for look in (False, True):
        rng = random.Random(seed)
        pair = Pair.of(some_program(rng))
        for _ in range(5):
            random_edit(rng, pair)
        try:
            result, remap = pair.patches.linearize()
        except BpfPatchError:
            reject()
        if look:
            snapshots.append([list(getattr(remap, name)) for name in FIELDS])
        code = result.to_bytes()
        for _ in range(5):
            random_edit(rng, pair)
        pair.patches.nodes()
        assert result.to_bytes() == code
        if not look:
            snapshots.append([list(getattr(remap, name)) for name in FIELDS])
    assert snapshots[0] == snapshots[1]


@SLOW
@given(seeds)
def test_composition_is_associative(seed):
    """(a then b) then c equals a then (b then c), and the identity is neutral on both sides."""
    rng = random.Random(seed)
    program = some_program(rng)
    remaps = []
    for _ in range(3):
        patches = edited(rng, program, 3) if len(program) else None
        assume(patches)
        program, remap = patches.linearize()
        remaps.append(remap)
        assume(len(program))
    a, b, c = remaps
    assert_same_remap(a.then(b).then(c), a.then(b.then(c)))
    assert_same_remap(a.then(Remap.identity(a.orig.size)), a)
    assert_same_remap(Remap.identity(a.own.size).then(a), a)


@SLOW
@given(seeds, st.sampled_from(Anchor))
def test_own_table_follows(seed, anchor):
    """A table that the program does not know moves by `Remap.apply` as one that it has."""
    rng = random.Random(seed)
    program = some_program(rng)
    first = np.flatnonzero(~program.second_slots).tolist()
    at = sorted(rng.choices(first, k=5))
    mine = AnchoredTable(np.array(at, np.int32), np.arange(5), anchor)
    patches = edited(rng, program)
    assume(patches is not None)
    _, remap = patches.linearize()
    moved = remap.apply(mine)
    places = remap.places(anchor)
    wanted = [(int(places[s]), row) for row, s in enumerate(at) if places[s] >= 0]
    assert list(zip(moved.insn.tolist(), moved.rows.tolist(), strict=True)) == wanted


@SLOW
@given(seeds)
def test_orig_and_own_are_inverse(seed):
    """Every original instruction is in the output where `own` says, or gone."""
    rng = random.Random(seed)
    patches = edited(rng, some_program(rng))
    assume(patches is not None)
    _, remap = patches.linearize()
    for old, new in enumerate(remap.own.tolist()):
        if new >= 0:
            assert remap.orig[new] == old
        else:
            assert new in (DELETED, REPLACED)
            assert old not in remap.orig
    assert set(remap.orig[remap.orig < 0].tolist()) <= {INSERTED}


@pytest.mark.parametrize("verb", ["insert_before", "prepend", "insert_after", "replace", "delete"])
@SLOW
@given(seeds)
def test_bulk_equals_one_by_one(verb, seed):
    """An array of sites gives what one edit a site gives, in the array's order."""
    rng = random.Random(seed)
    program = some_program(rng)
    first = np.flatnonzero(~program.second_slots).tolist()
    sites = rng.sample(first, rng.randint(1, len(first)))
    bodies = rng.choice([FREE_BODIES[0], rng.choices(FREE_BODIES, k=len(sites))])
    bulk, single = PatchList(program), PatchList(program)
    if verb == "delete":
        bulk.delete(np.array(sites))
        for site in sites:
            single.delete(site)
    else:
        got = getattr(bulk, verb)(np.array(sites), bodies)
        each = bodies if isinstance(bodies, list) else [bodies] * len(sites)
        want = [getattr(single, verb)(s, b) for s, b in zip(sites, each, strict=True)]
        assert got.tolist() == want
    assert bulk.nodes().tolist() == single.nodes().tolist()
    results = []
    for patches in (bulk, single):
        try:
            results.append(patches.linearize())
        except BpfPatchError as error:
            results.append(str(error))
    assert_same_result(*results)


class Twins:
    """Two lists that get the same edits; the second is looked at after each one."""

    def __init__(self, program: Program) -> None:
        self.quiet, self.watched = PatchList(program), PatchList(program)

    def __getattr__(self, name: str):
        def both(*given, **named):
            mine = getattr(self.quiet, name)(*given, **named)
            other = getattr(self.watched, name)(*given, **named)
            assert np.array_equal(mine, other)
            self.watched.nodes()
            self.watched.view()
            self.watched.aux("mark")
            self.watched.aux("kind")
            return mine

        return both

    def __getitem__(self, node: int) -> np.int32:
        return np.int32(node)  # a handle would be of one of the two

    @contextlib.contextmanager
    def as_pass(self, name: str):
        """A pass of both."""
        with self.quiet.as_pass(name), self.watched.as_pass(name):
            yield


@SLOW
@given(seeds)
def test_looking_changes_nothing(seed):
    """When a list is looked at, and its edits so are merged, is never to be seen."""
    rng = random.Random(seed)
    pair = Pair.of(some_program(rng))
    twins = pair.patches = Twins(pair.program)
    for _ in range(8):
        random_edit(rng, pair)
    results = []
    for patches in (twins.quiet, twins.watched):
        try:
            results.append(patches.linearize())
        except BpfPatchError as error:
            results.append(str(error))
    assert_same_result(*results)
