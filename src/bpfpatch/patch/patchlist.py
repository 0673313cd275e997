"""The patch list: any number of edits by any number of passes, linearized once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import EditError, OptionError
from bpfpatch.program import Anchor, AnchoredTable, Column, Program, check_references
from bpfpatch.program.types import LOST, Insns, Mask, Slots, compress, frozen, gather
from bpfpatch.text import unknown

from .attached import AttachedRows
from .body import EMPTY, Body, bodies_of, body_of
from .change import Change
from .checks import Checks, Imms, check_imms
from .insn import Insn
from .linearize import Linearized, linearize
from .log import EditLog, Verb, commuting_prefix, previous_touch
from .merge import merge_run
from .names import ListNames, SymbolSource
from .pool import Pool
from .provenance import Provenance
from .relax import How, Relax
from .replay import replay
from .state import ListState, Merged
from .view import CodeView

MAX_RUNS: Final = 8
"""How many runs of commuting edits are merged one by one before the rest is replayed.

A merge is linear in the program, and cheap; replay costs microseconds an edit.
With a bound on merges, any log takes time linear in program and edits.
"""

Site = int | Insn
Sites = Sequence[int] | Sequence[Insn] | NDArray[Any]
Bodies = Body | str | Sequence[Body | str]


class PatchList:
    """A program under edit.

    A site is a node's number, a handle from a loop over the list, or an array
    of nodes; an original instruction's node is its slot. With an array, give
    one body for all sites or a sequence of bodies, one a site::

        patches = PatchList(program)
        calls = patches.find(isa.is_helper_call)
        patches.insert_before(calls, Body.asm("r6 += 1"))
        for insn in patches:
            if insn.is_exit:
                patches.insert_before(insn, Body.asm("r0 = 0"))
        program, remap = patches.linearize()

    **The law of the list**: edits have the meaning that they would have if the
    list were linearized after each one. When they are merged is never to be
    seen, except in the time it takes.

    Throw a list away at any time: the program that it was made from is as it was.

    A body may be given as assembly. What it calls, or loads the address of, by
    name is a function of the program, or a symbol of the object that the list
    is told of::

        obj = obj.with_map(MapDefinition("hits", MapType.ARRAY, 4, 8, 1))
        patches = PatchList(obj.code, obj)
        patches.insert_before(site, "r1 = &hits; call my_kfunc")

    Args:
        program: its references must all be sound.
        symbols: the object that it is the code of, where bodies name its maps,
            variables and kfuncs.

    Raises:
        ValidationError: an opcode that the table lacks, or a reference out of
            the program or into an ld_imm64.
    """

    def __init__(self, program: Program, symbols: SymbolSource | None = None) -> None:
        check_references(program)
        self.program = program
        self._state = ListState.of(program)
        self._pool = Pool(program)
        self._names = ListNames(program, symbols)
        self._checks = Checks(program, self._pool, self._names)
        self._log = EditLog()
        self._provenance = Provenance(len(program))
        self._columns: dict[str, NDArray[Any]] = {}
        self._fills: dict[str, Column] = dict(program.columns)
        self._rows = AttachedRows()
        self._replaced: list[Slots] = []
        self._modified: list[Slots] = []

    def __repr__(self) -> str:
        state = "edits to merge" if self._log else "all edits merged"
        return f"<PatchList of {self.program!r}, {state}>"

    # ---- edits -------------------------------------------------------------------------------

    def insert_before(self, site: Site | Sites, body: Bodies, imms: Imms | None = None) -> Any:
        """Put a body in front of an instruction. Jumps and calls to it now reach the body.

        The instruction, and what is anchored to it, stays as it is.

        Args:
            site: one site, or an array of them.
            body: the body, or one a site; text is assembly, see `Body.asm`.
            imms: of one body at an array of sites: by slot of the body the immediates that
                its copies get, one a site. This is how a million constants go in at once.

        Returns:
            The node of the body's first instruction; for an array of sites, a
            read-only (e,) array of them. Further instructions of a body follow at the
            node plus their slot in the body.

        Raises:
            EditError: a site that is deleted or was never there, or a body
                that cannot go there.
            OptionError: the body names what neither the program nor its object has.
            AsmError: text that is no assembly.
        """
        if site.__class__ is int and body.__class__ is Body and imms is None:
            return self._edit(Verb.INSERT_BEFORE, site, body)
        return self._edit_any(Verb.INSERT_BEFORE, site, body, imms)

    def prepend(self, site: Site | Sites, body: Bodies, imms: Imms | None = None) -> Any:
        """Put a body in front of an instruction, for what falls into it or calls it.

        A jump to the instruction still reaches the instruction: a prologue
        runs on a call, not on a loop's back edge. Returns and raises as
        `insert_before` does.
        """
        if site.__class__ is int and body.__class__ is Body and imms is None:
            return self._edit(Verb.PREPEND, site, body)
        return self._edit_any(Verb.PREPEND, site, body, imms)

    def insert_after(self, site: Site | Sites, body: Bodies, imms: Imms | None = None) -> Any:
        """Put a body after an instruction. Returns and raises as `insert_before` does."""
        if site.__class__ is int and body.__class__ is Body and imms is None:
            return self._edit(Verb.INSERT_AFTER, site, body)
        return self._edit_any(Verb.INSERT_AFTER, site, body, imms)

    def replace(self, site: Site | Sites, body: Bodies, imms: Imms | None = None) -> Any:
        """Put a body in an instruction's place. Jumps and calls to it now reach the body.

        Where the body keeps the original (``@orig``), the instruction stays
        itself. An empty body deletes. Returns and raises as `insert_before` does.
        """
        if site.__class__ is int and body.__class__ is Body and imms is None:
            return self._edit(Verb.REPLACE, site, body)
        return self._edit_any(Verb.REPLACE, site, body, imms)

    def delete(self, site: Site | Sites) -> None:
        """Take an instruction out. Jumps and calls to it now reach the next one of its subprog.

        Raises:
            EditError: a site that is deleted or was never there.
        """
        if site.__class__ is int:
            self._edit(Verb.DELETE, site, EMPTY)
            return
        self._edit_any(Verb.DELETE, site, EMPTY)

    def delete_subprog(self, name: str) -> None:
        """Take a whole subprog out, with every row that sits on it.

        Raises:
            OptionError: no subprog, or several, of that name.
        """
        self.delete(self.subprog_nodes(name))

    def modify(self, site: Site | Sites, **fields: int | NDArray[Any]) -> None:
        """Change fields of instructions in place; identity, tables and references stay.

        Args:
            site: one site or an array of them.
            fields: ``code``, ``dst``, ``src``, ``off``, ``imm``; a number, or an
                array of one value a site.

        Raises:
            EditError: a bad site; or a change that would make, unmake or
                renumber a reference, or an ld_imm64: replace the instruction.
            OptionError: an unknown field, or a value that does not fit.
        """
        sites = self._sites(site)
        self.flush()
        if int(sites.max(initial=0)) >= len(self.program):
            for name, column in self._fills.items():
                if callable(column.fill):  # it sees an instruction as it was when it came in
                    self.aux(name)
        change = Change.of(fields, sites.size)
        self._checks.change(sites, change)
        self._pool.write(sites, change)
        self._modified.append(sites)

    def attach(self, table: str, node: Site | Sites, row: Any) -> None:
        """Add a row to one of the program's tables, on an instruction or on each of several.

        Args:
            table: a name in ``program.tables``.
            node: where; the row moves with it, by the table's anchor.
            row: what ``table.rows`` can hold.

        Raises:
            OptionError: the program has no such table, or none that takes this row.
            EditError: the node is deleted or was never there.
        """
        known_rows = self._table(table)
        sites = self._sites(node)
        if known_rows.anchor is not Anchor.OWN or known_rows.unique or known_rows.end is not None:
            raise OptionError(
                f"rows of {table!r} follow jumps or calls, have an end, or are one for "
                f"each instruction: only rows that follow their instruction alone can be "
                f"attached"
            )
        try:
            np.array([row], known_rows.rows.dtype)
        except (TypeError, ValueError) as error:
            raise OptionError(f"{row!r} is not a row of {table!r}: {error}") from error
        self._rows.add(table, sites, row, len(self._modified))

    def set_rows(self, table: str, rows: NDArray[Any]) -> None:
        """Change what a table's rows say; the instructions that they sit on stay theirs.

        Args:
            table: a name in ``program.tables``.
            rows: (k,) new contents, in the order of the table's rows.

        Raises:
            OptionError: the program has no such table, or one of other rows.
        """
        old = self._table(table)
        if rows.shape != old.rows.shape or rows.dtype != old.rows.dtype:
            raise OptionError(
                f"table {table!r} has rows of {old.rows.dtype}{list(old.rows.shape)}, "
                f"not {rows.dtype}{list(rows.shape)}"
            )
        changed = old.with_rows(old.insn, rows, old.end)
        self.program = self.program.with_tables(**{table: changed})

    def _table(self, name: str) -> AnchoredTable:
        if name not in self.program.tables:
            raise OptionError(unknown("table", name, sorted(self.program.tables)))
        return self.program.tables[name]

    def attached(self) -> Slots:
        """(k,) nodes with rows by `attach` or by name, in no order; some may be deleted by now."""
        return np.union1d(self._rows.nodes(), self._names.nodes())

    # ---- looks -------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Insn]:
        """The live instructions as they are now; those deleted on the way are skipped.

        What the loop itself inserts is not visited.
        """
        alive = self._pool.alive
        for node in self.nodes().tolist():
            if alive[node]:
                yield Insn(self, node)

    def __len__(self) -> int:
        """Number of live instructions; an ld_imm64 counts as one."""
        return int(self.nodes().size)

    def __getitem__(self, node: int) -> Insn:
        """A handle of a live node.

        Raises:
            EditError: the node is deleted or was never there.
        """
        self._checks.alive(node)
        return Insn(self, node)

    def nodes(self) -> Slots:
        """(k,) live nodes in program order, read-only."""
        self.flush()
        return frozen(self._state.order)

    def find(self, predicate: Callable[[Insns], Mask]) -> Slots:
        """Live nodes, in order, whose instruction satisfies a predicate of `bpfpatch.isa`."""
        view = self.view()
        return view.node[predicate(view.insns) & (view.node >= 0)]

    def view(self) -> CodeView:
        """The code as it is now, as flat arrays: what an analysis works on."""
        self.flush()
        return CodeView.of_list(self._state, self._pool.words)

    def subprog_nodes(self, name: str) -> Slots:
        """(k,) live nodes of a subprog, in order.

        Raises:
            OptionError: no subprog, or several, of that name.
        """
        subprogs = self.program.subprogs
        rows = [row for row, known in enumerate(subprogs.names) if known == name]
        if len(rows) != 1:
            if rows:
                raise OptionError(f"{len(rows)} subprogs are called {name!r}")
            raise OptionError(unknown("subprog", name, [one for one in subprogs.names if one]))
        self.flush()
        state = self._state
        head = int(state.entry[subprogs.start[rows[0]]])
        if head == LOST:
            return np.zeros(0, np.int32)
        position = state.positions()
        heads = position[state.subprog_heads()]
        begin = int(position[head])
        later = heads[heads > begin]
        stop = int(later[0]) if later.size else state.order.size
        return state.order[begin:stop].copy()

    def is_alive(self, node: int) -> bool:
        """Whether a node is an instruction that is still there."""
        return 0 <= node < self._pool.size and bool(self._pool.alive[node])

    def word(self, node: int) -> int:
        """A node's instruction as one little-endian number of eight bytes.

        Raises:
            EditError: the node was never there.
        """
        if not 0 <= node < self._pool.size:
            raise self._checks.never(node)
        return self._pool.word(node)

    def target_of(self, node: int) -> int | None:
        """The node that a node refers to, or None where it holds no live reference."""
        self.flush()
        state = self._state
        rows = np.flatnonzero(state.ref_node == node)
        if not rows.size or state.ref_target[rows[0]] == LOST:
            return None
        return int(state.ref_target[rows[0]])

    def aux(self, name: str) -> NDArray[Any]:
        """A column by node: writable, and good until the next edit.

        An inserted instruction has the column's fill, until it is set.

        Raises:
            OptionError: no such column.
        """
        if name not in self._fills:
            raise OptionError(unknown("column", name, sorted(self._fills)))
        self.flush()
        column = self._fills[name]
        known = self._columns.get(name)
        if known is not None and len(known) == self._pool.size:
            return known
        if known is None:
            known = column.values
        values = np.empty((self._pool.size, *known.shape[1:]), known.dtype)
        values[: len(known)] = known
        if len(known) < len(values):
            values[len(known) :] = column.fill_for(self._pool.span(len(known)))
        self._columns[name] = values
        return values

    def aux_at(self, name: str, nodes: Slots) -> NDArray[Any]:
        """A column at (n,) nodes, to read: ``aux(name)[nodes]`` without a copy of the column.

        Raises:
            OptionError: no such column.
        """
        is_given = name in self._fills and name not in self._columns
        if is_given and int(nodes.max(initial=0)) < len(self.program):
            return gather(self._fills[name].values, nodes)
        return gather(self.aux(name), nodes)

    def add_column(self, name: str, column: Column) -> None:
        """Add a column, or put it in place of one; ``values`` are the original program's.

        Raises:
            OptionError: not one value a slot of the original program.
        """
        if len(column) != len(self.program):
            raise OptionError(
                f"column {name!r} has {len(column)} values for {len(self.program)} slots"
            )
        self._columns.pop(name, None)
        self._fills[name] = column

    @property
    def n_modified(self) -> int:
        """How many changes in place there were."""
        return sum(part.size for part in self._modified)

    @property
    def first_node_of_pass(self) -> int:
        """The first node that the latest pass could insert: all that was there has smaller ones."""
        return self._provenance.latest_mark

    @contextmanager
    def as_pass(self, name: str) -> Iterator[None]:
        """Inside of this context, what is inserted is said to come from a pass of that name."""
        before = self._provenance.current
        self._provenance.enter(name, self._pool.size)
        try:
            yield
        finally:
            self._provenance.resume(before, self._pool.size)

    # ---- linearize ---------------------------------------------------------------------------

    def linearize(self, relax: Relax | How | None = "auto") -> Linearized:
        """Turn the list into a flat program, once. The list stays usable.

        Args:
            relax: what to do with jumps whose distance does not fit their field: ``gotol``
                takes the instruction of that name (cpu v4), ``islands`` jumps on the way,
                ``auto`` the former where the result needs v4 anyway; None is an error.

        Returns:
            The program and its `Remap`, also as a pair.

        Raises:
            LostTargetError: a jump or call whose target is gone.
            ReachError: one whose distance does not fit its field, and cannot be relaxed.
            LostRowError: a relocation or the like whose instruction was replaced.
            ValidationError: a jump that leaves its subprog, a call to no subprog's start.
        """
        self.flush()
        if self._names.nodes().size:
            self._names.settle(self.view(), self._rows)
        columns = {name: self.aux(name) if name in self._columns else None for name in self._fills}
        merged = Merged(
            self.program,
            self._state,
            self._pool.words,
            provenance=self._provenance,
            replaced=_union(self._replaced),
            modified=_union(self._modified),
            rows=self._rows.by_table(self._modified, self._pool.size),
            external=self._names.calls(),
            columns=self._fills,
            values=columns,
        )
        return linearize(merged, Relax.of(relax))

    def flush(self) -> None:
        """Merge the edits made so far. Every look at the list does this by itself."""
        if not self._log:
            return
        state = self._state
        edits, bodies = self._log.drain(state.n_pool)
        self._provenance.record(edits)
        state.has_wide |= any(body.n_slots > body.nodes.size for body in bodies)
        is_replaced = edits.is_replaced()
        if is_replaced.any():
            self._replaced.append(compress(edits.site, is_replaced))
        previous = previous_touch(edits, bodies, self._pool.size)
        start = 0
        for _ in range(MAX_RUNS):
            stop = commuting_prefix(edits, bodies, start, previous)
            end = self._pool.size if stop == len(edits) else int(edits.first[stop])
            merge_run(state, edits.part(start, stop), bodies, end)
            if stop == len(edits):
                return
            start = stop
        replay(state, edits.part(start, len(edits)), bodies, self._pool.size)

    # ---- inside ------------------------------------------------------------------------------

    def _edit(self, verb: Verb, site: int, body: Body) -> int:
        """One edit of one node."""
        pool = self._pool
        alive = pool.alive
        if site < 0 or site >= pool.size or not alive[site]:
            self._checks.alive(site)
        if body.has_refs or body.keeps:
            body = self._linked(verb, np.array([site], np.int32), body)
            self._note(pool.size, body)
        log = self._log
        log.verbs.append(verb)
        log.sites.append(site)
        log.body_ids.append(log.id_of(body))
        first = pool.size
        if body.n_slots:
            pool.tail.extend(body.word_array)
            pool.size = first + body.n_slots
            alive.extend(body.alive)
        if verb >= Verb.REPLACE and not body.keeps:
            alive[site] = 0
        return first

    def _edit_any(
        self,
        verb: Verb,
        site: Any,
        given: Bodies,
        imms: Imms | None = None,
    ) -> Any:
        """One edit by handle, or a bulk edit."""
        if isinstance(site, Insn):
            site = self._node(site)
        if isinstance(site, (int, np.integer)):
            if imms is not None:
                raise OptionError("one site takes one body, with its immediates in it")
            return self._edit(verb, int(site), body_of(given))
        sites = self._sites(site)
        bodies = bodies_of(given, sites.size)
        if verb >= Verb.REPLACE:
            self._checks.distinct(sites)
        if isinstance(bodies, Body):
            fields = check_imms(bodies, imms, sites.size)
            return self._edit_bulk(verb, sites, bodies, fields)
        if imms is not None:
            raise OptionError("a body a site has its immediates in it")
        for body in bodies:
            self._check_lists(body)
        linked = [self._names.link(one, self._entry) if one.names else one for one in bodies]
        self._checks.bodies(verb, sites, linked)
        return np.array(
            [self._edit(verb, s, b) for s, b in zip(sites.tolist(), linked, strict=True)], np.int32
        )

    def _edit_bulk(self, verb: Verb, sites: Slots, body: Body, imms: Imms) -> Slots:
        """One body at many sites."""
        if not sites.size:
            return sites
        if body.has_refs or body.keeps:
            body = self._linked(verb, sites, body)
        first = self._pool.size
        self._pool.put_many(body, sites.size, imms)
        if verb >= Verb.REPLACE and not body.keeps:
            self._pool.kill(sites)
        if body.n_slots:
            firsts = np.arange(first, self._pool.size, body.n_slots, dtype=np.int32)
            firsts.flags.writeable = False  # the log keeps it, too
        else:
            firsts = np.broadcast_to(np.int32(first), sites.shape)
        self._note(firsts, body)
        self._log.extend(verb, sites, self._log.id_of(body), firsts)
        return firsts

    def _sites(self, site: Any) -> Slots:
        """Any form of site or sites as an array of live nodes."""
        if isinstance(site, Insn):
            site = self._node(site)
        if isinstance(site, (list, tuple)):
            site = [self._node(one) if isinstance(one, Insn) else one for one in site]
        return self._checks.nodes(site, self._state.order)

    def _node(self, insn: Insn) -> int:
        """A handle's node, if it is one of this list."""
        if insn.patches is not self:
            raise OptionError("this instruction is of another list")
        return insn.node

    def _linked(self, verb: Verb, sites: Slots, body: Body) -> Body:
        """A body that may go to these sites, with the functions that it names."""
        self._check_lists(body)
        if body.names:
            body = self._names.link(body, self._entry)
        self._checks.body(verb, sites, body)
        return body

    def _entry(self, start: int) -> int:
        """The node that a call to a subprog enters now."""
        self.flush()
        node = int(self._state.entry[start])
        if node == LOST:
            raise EditError(self.program.where(start), "all of this subprog is deleted")
        return node

    def _note(self, first: int | Slots, body: Body) -> None:
        """Remember which nodes of a body's copies name symbols."""
        if body.names:
            self._names.add(np.atleast_1d(np.int32(first)), body, len(self._modified))

    def _check_lists(self, body: Body) -> None:
        if any(patches is not self for patches in body.lists):
            raise OptionError("the body refers to an instruction of another list")


def _union(parts: Sequence[Slots]) -> Slots:
    """All nodes of the parts, in one array."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)
