"""Random programs with far jumps, relaxed and compared with what they were."""

from __future__ import annotations

import random

import numpy as np

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.errors import LostRowError, LostTargetError, ReachError
from bpfpatch.patch import Linearized, PatchList, Relax
from bpfpatch.program import Program
from support.generators.programs import decorated, random_code, random_program
from support.models.edited import Pair, random_edit
from support.models.miniinterp import StuckError, result
from support.models.relaxing import CrowdedError, assert_same_edges, relaxed

REACHES = (12, 16, 20, 24, 32)


def run_relaxed(seed: int) -> bool:
    """One random program, relaxed both ways; whether anything was far and could be relaxed.

    It does what it did before, and what the naive model of relaxing makes of it. Islands are
    refused only where those of the model crowd each other out as well, or nearly.
    """
    rng = random.Random(seed)
    program = assemble(random_code(seed))
    reach = rng.choice(REACHES)
    is_far = bool(_too_far(program, reach).any())
    naive = None
    if is_far:
        try:
            naive = relaxed(program, reach)
        except CrowdedError:
            pass
        else:
            _assert_fits(naive, reach, seed)
    done = PatchList(program).linearize(Relax("gotol", reach))
    _compare(program, done, naive, reach, seed)
    assert (done.relaxed is not None) == is_far, seed
    try:
        done = PatchList(program).linearize(Relax("islands", reach))
    except ReachError:
        assert naive is None or 2 * len(program) < len(naive), f"seed {seed}: refused"
        return False
    _compare(program, done, naive, reach, seed)
    return is_far


def run_edited(seed: int) -> bool:
    """A random program with every kind of table, edited and relaxed at once and one by one.

    Relaxing an edited list is relaxing what it linearizes to: in code, tables, columns, remap.
    """
    rng = random.Random(seed)
    pair = Pair.of(decorated(rng, random_program(rng, rng.randint(4, 30))))
    for _ in range(rng.randint(0, 8)):
        random_edit(rng, pair)
    relax = Relax(rng.choice(["gotol", "islands"]), rng.choice([6, 8, 12]))
    try:
        plain, remap = pair.patches.linearize(None)
        again = PatchList(plain).linearize(relax)
    except (LostTargetError, LostRowError, ReachError):
        return False
    done = pair.patches.linearize(relax)
    _assert_same(done, Linearized(again.program, remap.then(again.remap)), seed)
    assert_same_edges(plain, again)
    _assert_fits(done.program, relax.reach, seed)
    return done.relaxed is not None


def _compare(
    program: Program, done: Linearized, naive: Program | None, reach: int, seed: int
) -> None:
    _assert_fits(done.program, reach, seed)
    assert_same_edges(program, done)
    try:
        wanted = result(program)
    except StuckError:
        return
    assert result(done.program) == wanted, seed
    if naive is not None:
        assert result(naive) == wanted, seed


def _too_far(program: Program, reach: int) -> np.ndarray:
    refs = program.refs
    distance = refs.target - refs.slot - 1
    return (refs.kind == isa.RefKind.JUMP16) & ((distance < -reach) | (distance >= reach))


def _assert_fits(program: Program, reach: int, seed: int) -> None:
    assert not _too_far(program, reach).any(), f"seed {seed}: a jump is out of reach"


def _assert_same(got: Linearized, wanted: Linearized, seed: int) -> None:
    assert got.program.to_bytes() == wanted.program.to_bytes(), seed
    for name in ("own", "land", "entry", "bound", "orig", "site", "origin", "modified"):
        ours, theirs = getattr(got.remap, name), getattr(wanted.remap, name)
        assert ours.tolist() == theirs.tolist(), (seed, name)
    assert got.remap.passes == wanted.remap.passes, seed
    for name, table in wanted.program.tables.items():
        ours = got.program.tables[name]
        assert ours.insn.tolist() == table.insn.tolist(), (seed, name)
        assert ours.rows.tolist() == table.rows.tolist(), (seed, name)
        ends = [None if t.end is None else t.end.tolist() for t in (ours, table)]
        assert ends[0] == ends[1], (seed, name)
    for name, column in wanted.program.columns.items():
        assert (got.program.columns[name].values == column.values).all(), (seed, name)
    assert got.program.subprogs.start.tolist() == wanted.program.subprogs.start.tolist(), seed
