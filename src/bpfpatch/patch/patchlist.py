"""The patch list: any number of edits by any number of passes, linearized once."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bpfpatch import isa
from bpfpatch.errors import EditError, OptionError, Where
from bpfpatch.program import Anchor, Column, Program, check_references
from bpfpatch.program.types import LOST, Insns, Mask, Slots

from .body import EMPTY, Body, To, bodies_of
from .insn import Insn
from .linearize import Linearized, linearize
from .log import EditLog, Verb, commuting_prefix, previous_touch
from .merge import merge_run
from .provenance import Provenance
from .replay import replay
from .state import ListState
from .view import CodeView

MAX_RUNS: Final = 8
"""How many runs of commuting edits are merged one by one before the rest is replayed.

A merge is linear in the program, and cheap; replay costs microseconds an edit.
With a bound on merges, any log takes time linear in program and edits.
"""

Site = int | Insn
Sites = Sequence[int] | Sequence[Insn] | NDArray[Any]


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

    Args:
        program: its references must all be sound.

    Raises:
        ValidationError: an opcode that the table lacks, or a reference out of
            the program or into an ld_imm64.
    """

    def __init__(self, program: Program) -> None:
        check_references(program)
        self.program = program
        self._state = ListState.of(program)
        self._pool: NDArray[np.uint64] = program.insns.view(np.uint64)
        self._owns_pool = False
        self._n_pool = len(program)
        self._alive = bytearray((~program.second_slots).tobytes())  # by pool slot
        self._log = EditLog()
        self._pending: list[NDArray[np.uint64]] = []
        self._tail = array("Q")  # words of edits by handle since the last of ``_pending``
        self._provenance = Provenance(len(program))
        self._columns: dict[str, NDArray[Any]] = {}
        self._fills: dict[str, Column] = dict(program.columns)
        self._rows: dict[str, list[tuple[int, Any]]] = {}
        self._replaced: list[Slots] = []
        self._modified: list[Slots] = []

    # ---- edits -------------------------------------------------------------------------------

    def insert_before(self, site: Site | Sites, body: Body | Sequence[Body]) -> Any:
        """Put a body in front of an instruction. Jumps and calls to it now reach the body.

        The instruction, and what is anchored to it, stays as it is.

        Returns:
            The node of the body's first instruction; for an array of sites, an
            (e,) array of them. Further instructions of a body follow at the
            node plus their slot in the body.

        Raises:
            EditError: a site that is deleted or was never there, or a body
                that cannot go there.
        """
        if site.__class__ is int and body.__class__ is Body:
            return self._edit(Verb.INSERT_BEFORE, site, body)  # type: ignore[arg-type]
        return self._edit_any(Verb.INSERT_BEFORE, site, body)

    def prepend(self, site: Site | Sites, body: Body | Sequence[Body]) -> Any:
        """Put a body in front of an instruction, for what falls into it or calls it.

        A jump to the instruction still reaches the instruction: a prologue
        runs on a call, not on a loop's back edge. Returns and raises as
        `insert_before` does.
        """
        if site.__class__ is int and body.__class__ is Body:
            return self._edit(Verb.PREPEND, site, body)  # type: ignore[arg-type]
        return self._edit_any(Verb.PREPEND, site, body)

    def insert_after(self, site: Site | Sites, body: Body | Sequence[Body]) -> Any:
        """Put a body behind an instruction. Returns and raises as `insert_before` does."""
        if site.__class__ is int and body.__class__ is Body:
            return self._edit(Verb.INSERT_AFTER, site, body)  # type: ignore[arg-type]
        return self._edit_any(Verb.INSERT_AFTER, site, body)

    def replace(self, site: Site | Sites, body: Body | Sequence[Body]) -> Any:
        """Put a body in an instruction's place. Jumps and calls to it now reach the body.

        Where the body keeps the original (``@orig``), the instruction stays
        itself. An empty body deletes. Returns and raises as `insert_before` does.
        """
        if site.__class__ is int and body.__class__ is Body:
            return self._edit(Verb.REPLACE, site, body)  # type: ignore[arg-type]
        return self._edit_any(Verb.REPLACE, site, body)

    def delete(self, site: Site | Sites) -> None:
        """Take an instruction out. Jumps and calls to it now reach the next one of its subprog.

        Raises:
            EditError: a site that is deleted or was never there.
        """
        if site.__class__ is int:
            self._edit(Verb.DELETE, site, EMPTY)  # type: ignore[arg-type]
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
        self._own_pool()
        old = self._pool[sites].view(isa.INSN)
        new = _with_fields(old, fields)
        self._check_modify(sites, old, new)
        self._pool[sites] = new.view(np.uint64)
        self._modified.append(sites)

    def attach(self, table: str, node: Site, row: Any) -> None:
        """Add a row to one of the program's tables, on an instruction.

        Args:
            table: a name in ``program.tables``.
            node: where; the row moves with it, by the table's anchor.
            row: what ``table.rows`` can hold.

        Raises:
            OptionError: the program has no such table.
            EditError: the node is deleted or was never there.
        """
        if table not in self.program.tables:
            known = ", ".join(sorted(self.program.tables)) or "none"
            raise OptionError(f"no table {table!r}; the program has {known}")
        site = node.node if isinstance(node, Insn) else node
        self._check_alive(site)
        if self.program.tables[table].anchor is not Anchor.OWN:
            raise OptionError(
                f"rows of {table!r} do not follow the instruction itself; only such can be attached"
            )
        self._rows.setdefault(table, []).append((site, row))

    # ---- looks -------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Insn]:
        """The live instructions as they are now; those deleted on the way are skipped.

        What the loop itself inserts is not visited.
        """
        alive = self._alive
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
        self._check_alive(node)
        return Insn(self, node)

    def nodes(self) -> Slots:
        """(k,) live nodes in program order, read-only."""
        self.flush()
        nodes = self._state.order.view()
        nodes.flags.writeable = False
        return nodes

    def find(self, predicate: Callable[[Insns], Mask]) -> Slots:
        """Live nodes, in order, whose instruction satisfies a predicate of `bpfpatch.isa`."""
        view = self.view()
        return view.node[predicate(view.insns) & (view.node >= 0)]

    def view(self) -> CodeView:
        """The code as it is now, as flat arrays: what an analysis works on."""
        self.flush()
        return CodeView.of_list(self._state, self._pool)

    def subprog_nodes(self, name: str) -> Slots:
        """(k,) live nodes of a subprog, in order.

        Raises:
            OptionError: no subprog, or several, of that name.
        """
        subprogs = self.program.subprogs
        rows = [row for row, known in enumerate(subprogs.names) if known == name]
        if len(rows) != 1:
            known_names = ", ".join(n for n in subprogs.names if n) or "no named ones"
            raise OptionError(f"{len(rows)} subprogs are called {name!r}; there are: {known_names}")
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
        return 0 <= node < len(self._alive) and bool(self._alive[node])

    def word(self, node: int) -> int:
        """A node's instruction as one little-endian number of eight bytes.

        Raises:
            EditError: the node was never there.
        """
        if not 0 <= node < self._n_pool:
            raise self._never(node)
        if node >= self._state.n_pool:
            self._consolidate()
        return int(self._pool[node])

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

        An inserted instruction has the column's fill, until somebody sets it.

        Raises:
            OptionError: no such column.
        """
        if name not in self._fills:
            known = ", ".join(sorted(self._fills)) or "none"
            raise OptionError(f"no column {name!r}; there are: {known}")
        self.flush()
        column = self._fills[name]
        values = self._columns.get(name)
        if values is None:
            values = column.values.copy()
        n_known = len(values)
        if n_known < self._n_pool:
            fresh = column.fill_for(self._pool[n_known : self._n_pool].view(isa.INSN))
            values = np.concatenate([values, fresh])
        self._columns[name] = values
        return values

    def add_column(self, name: str, column: Column) -> None:
        """Add a column, or put it in place of one; ``values`` are the original program's.

        Raises:
            OptionError: not one value a slot of the original program.
        """
        if len(column.values) != len(self.program):
            raise OptionError(
                f"column {name!r} has {len(column.values)} values for {len(self.program)} slots"
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
        self._provenance.enter(name, self._n_pool)
        try:
            yield
        finally:
            self._provenance.resume(before, self._n_pool)

    # ---- linearize ---------------------------------------------------------------------------

    def linearize(self) -> Linearized:
        """Turn the list into a flat program, once. The list stays usable.

        Returns:
            The program and its `Remap`, also as a pair.

        Raises:
            LostTargetError: a jump or call whose target is gone.
            ReachError: one whose distance does not fit its field.
            LostRowError: a relocation or the like whose instruction was replaced.
            ValidationError: a jump that leaves its subprog, a call to no subprog's start.
        """
        self.flush()
        columns = {
            name: self.aux(name) if name in self._columns else None for name in self._fills
        }
        return linearize(
            self.program,
            self._state,
            self._pool,
            provenance=self._provenance,
            replaced=_union(self._replaced),
            modified=_union(self._modified),
            rows=self._rows,
            columns=self._fills,
            values=columns,
        )

    def flush(self) -> None:
        """Merge the edits made so far. Every look at the list does this by itself."""
        if not self._log:
            return
        self._consolidate()
        state = self._state
        edits, bodies = self._log.drain(state.n_pool)
        self._provenance.record(edits)
        is_replaced = ~edits.keeps & (edits.n_pre > 0)
        if is_replaced.any():
            self._replaced.append(edits.site[is_replaced])
        previous = previous_touch(edits, bodies, self._n_pool)
        start = 0
        for _ in range(MAX_RUNS):
            stop = commuting_prefix(edits, bodies, start, previous)
            end = self._n_pool if stop == len(edits) else int(edits.first[stop])
            merge_run(state, edits.part(start, stop), bodies, end)
            if stop == len(edits):
                return
            start = stop
        replay(state, edits.part(start, len(edits)), bodies, self._n_pool)

    # ---- inside ------------------------------------------------------------------------------

    def _edit(self, verb: Verb, site: int, body: Body) -> int:
        """One edit of one node."""
        alive = self._alive
        if site < 0 or site >= len(alive) or not alive[site]:
            self._check_alive(site)
        if body.has_refs or body.keeps:
            self._check_body(verb, np.array([site], np.int32), body)
        log = self._log
        log.verbs.append(verb)
        log.sites.append(site)
        log.body_ids.append(log.id_of(body))
        first = self._n_pool
        if body.n_slots:
            self._tail.extend(body.word_array)
            self._n_pool = first + body.n_slots
            alive.extend(body.alive)
        if verb >= Verb.REPLACE and not body.keeps:
            alive[site] = 0
        return first

    def _edit_any(self, verb: Verb, site: Any, bodies: Body | Sequence[Body]) -> Any:
        """One edit by handle, or a bulk edit."""
        if isinstance(site, Insn):
            if site.patches is not self:
                raise OptionError("this instruction is of another list")
            site = site.node
        if isinstance(site, (int, np.integer)):
            if not isinstance(bodies, Body):
                raise OptionError("one site takes one body")
            return self._edit(verb, int(site), bodies)
        sites = self._sites(site)
        bodies = bodies_of(bodies, sites.size)
        if verb >= Verb.REPLACE:
            self._check_distinct(sites)
        if isinstance(bodies, Body):
            return self._edit_bulk(verb, sites, bodies)
        return np.array(
            [self._edit(verb, s, b) for s, b in zip(sites.tolist(), bodies, strict=True)], np.int32
        )

    def _edit_bulk(self, verb: Verb, sites: Slots, body: Body) -> Slots:
        """One body at many sites."""
        if body.has_refs or body.keeps:
            self._check_body(verb, sites, body)
        first = self._n_pool + body.n_slots * np.arange(sites.size, dtype=np.int32)
        if not sites.size:
            return first
        self._log.extend(verb, sites, np.full(sites.size, self._log.id_of(body), np.int32))
        if body.n_slots:
            self._seal_tail()
            self._pending.append(np.tile(body.words, sites.size))
            self._n_pool += body.n_slots * sites.size
            self._alive.extend(body.alive * sites.size)
        if verb >= Verb.REPLACE and not body.keeps:
            np.frombuffer(self._alive, np.uint8)[sites] = 0
        return first

    def _sites(self, site: Any) -> Slots:
        """Any form of site or sites as an array of live nodes."""
        if isinstance(site, Insn):
            site = site.node
        if isinstance(site, (list, tuple)):
            site = [one.node if isinstance(one, Insn) else one for one in site]
        raw = np.atleast_1d(np.asarray(site))
        if raw.size == 0:
            return np.zeros(0, np.int32)
        if raw.ndim != 1 or raw.dtype.kind not in "iu":
            raise OptionError(f"sites are an array of nodes, not of {raw.dtype} in {raw.ndim} dims")
        is_bad = (raw < 0) | (raw >= len(self._alive))
        nodes = np.where(is_bad, 0, raw).astype(np.int32)
        is_bad |= np.frombuffer(self._alive, np.uint8)[nodes] == 0 if self._alive else True
        if is_bad.any():
            self._check_alive(int(raw[np.argmax(is_bad)]))
        return nodes

    def _check_alive(self, node: int) -> None:
        if self.is_alive(node):
            return
        if not 0 <= node < len(self._alive):
            raise self._never(node)
        is_second = node < len(self.program) and bool(self.program.second_slots[node])
        if is_second:
            what = "is the second slot of an ld_imm64; edit the first"
        elif node and self.word(node - 1) & 0xFF == isa.LD_IMM64 and node >= len(self.program):
            what = "is the second slot of an inserted ld_imm64; edit the first"
        else:
            what = "is deleted already; what came in its place has nodes of its own"
        raise EditError(self._where(node), what)

    def _never(self, node: int) -> EditError:
        return EditError(
            Where(node), f"no such node; the list has {self._n_pool}, counted from 0"
        )

    def _where(self, node: int) -> Where:
        if node < len(self.program):
            return self.program.where(node)
        return Where(node, text=isa.describe(self._pool[node : node + 2].view(isa.INSN), 0))

    def _check_distinct(self, sites: Slots) -> None:
        """A node goes only once: the second of two is deleted already."""
        ordered = np.sort(sites)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if twice.size:
            raise EditError(self._where(int(twice[0])), "is named twice among the sites")

    def _check_body(self, verb: Verb, sites: Slots, body: Body) -> None:
        """Whether a body's references mean something at these sites."""
        if not sites.size:
            return
        if body.keeps and verb != Verb.REPLACE:
            raise EditError(
                self._where(int(sites[0])),
                f"a body that keeps the original can only replace it, not {verb.name.lower()}",
            )
        goes = verb == Verb.REPLACE and not body.keeps
        for ref in body.refs:
            if ref.to is To.ORIG and goes:
                raise EditError(
                    self._where(int(sites[0])),
                    "the body jumps to the original instruction, which it does not keep (`@orig`)",
                )
            if ref.to is To.TARGET:
                self._check_target(sites, is_entry=ref.is_entry)
            if ref.to is To.NODE:
                self._check_alive(ref.value)
                if goes and (sites == ref.value).any():
                    raise EditError(
                        self._where(ref.value), "the body refers to the node that it replaces"
                    )

    def _check_target(self, sites: Slots, *, is_entry: bool) -> None:
        """Whether each site holds a reference of the kind that ``@target`` needs."""
        self._consolidate()
        kinds = isa.ref_kinds(self._first_slots(sites))
        kinds[np.isin(sites, self.program.external)] = isa.RefKind.NONE
        is_bad = (kinds == isa.RefKind.NONE) | ((kinds >= isa.RefKind.CALL) != is_entry)
        if is_bad.any():
            kind = "calls or addresses no subprog" if is_entry else "does not jump"
            raise EditError(
                self._where(int(sites[np.argmax(is_bad)])),
                f"the body refers to the instruction's target (`@target`), but it {kind}",
            )

    def _first_slots(self, nodes: Slots) -> Insns:
        """(n,) the nodes' first slots, each alone: an ld_imm64 is not followed by its second."""
        # A zero slot behind each, so that no slot is taken for an ld_imm64's second one.
        apart = np.zeros(2 * nodes.size, np.uint64)
        apart[::2] = self._pool[nodes]
        return apart.view(isa.INSN)[::2]

    def _check_modify(self, sites: Slots, old: Insns, new: Insns) -> None:
        before, after = _alone(isa.ref_kinds, old), _alone(isa.ref_kinds, new)
        is_short = before == isa.RefKind.JUMP16
        renumbers = (is_short & (old["off"] != new["off"])) | (
            (before > isa.RefKind.JUMP16) & (old["imm"] != new["imm"])
        )
        is_wide = (old["code"] == isa.LD_IMM64) != (new["code"] == isa.LD_IMM64)
        is_bad = (before != after) | renumbers | is_wide
        if is_bad.any():
            raise EditError(
                self._where(int(sites[np.argmax(is_bad)])),
                "a change in place cannot make, unmake or renumber a reference or an ld_imm64; "
                "replace the instruction",
            )

    def _own_pool(self) -> None:
        """Make the pool ours: until the first edit it is the program's own array."""
        if not self._owns_pool:
            self._pool = self._pool.copy()
            self._owns_pool = True

    def _consolidate(self) -> None:
        """Move pending bodies into the pool, which grows by half at least."""
        self._seal_tail()
        if not self._pending:
            return
        n_new = sum(words.size for words in self._pending)
        used = self._n_pool - n_new
        if self._pool.size < self._n_pool:
            pool = np.empty(max(self._n_pool, used + used // 2), np.uint64)
            pool[:used] = self._pool[:used]
            self._pool, self._owns_pool = pool, True
        np.concatenate(self._pending, out=self._pool[used : self._n_pool])
        self._pending = []


    def _seal_tail(self) -> None:
        """Close the run of bodies that edits by handle brought."""
        if self._tail:
            self._pending.append(np.frombuffer(self._tail, np.uint64))
            self._tail = array("Q")


def _with_fields(insns: Insns, fields: dict[str, ArrayLike]) -> Insns:
    """A copy of instructions with fields changed."""
    out = insns.copy()
    for name, given in fields.items():
        values = np.asarray(given)
        if name not in ("code", "dst", "src", "off", "imm"):
            raise OptionError(f"no field {name!r}; an instruction has code, dst, src, off and imm")
        least, most = {
            "code": (0, 255),
            "dst": (0, 15),
            "src": (0, 15),
            "off": (-(1 << 15), (1 << 15) - 1),
            "imm": (-(1 << 31), (1 << 31) - 1),
        }[name]
        if ((values < least) | (values > most)).any():
            raise OptionError(f"{name} holds {least} to {most}")
        if name == "dst":
            out["regs"] = (out["regs"] & 0xF0) | values
        elif name == "src":
            out["regs"] = (out["regs"] & 0x0F) | (values << 4)
        else:
            out[name] = values
    return out


def _alone(predicate: Callable[[Insns], NDArray[Any]], firsts: Insns) -> NDArray[Any]:
    """Apply a predicate to first slots that do not follow each other in a program."""
    apart = np.zeros(2 * len(firsts), isa.INSN)
    apart[::2] = firsts
    return predicate(apart)[::2]


def _union(parts: Sequence[Slots]) -> Slots:
    """All nodes of the parts, in one array."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)
