"""What an edit is checked for before it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import EditError, OptionError, Where
from bpfpatch.program import Program
from bpfpatch.program.types import Insns, Slots, ascends

from .body import Body, To
from .change import FIELD_RANGES, Change, fits
from .log import Verb
from .names import ListNames
from .pool import Pool

Imms = Mapping[int, NDArray[Any]]
"""Immediates by slot of a body, one a site."""


class Checks:
    """Checks of sites and bodies against a program and its pool. Nothing is changed here."""

    __slots__ = ("_names", "_pool", "_program")

    def __init__(self, program: Program, pool: Pool, names: ListNames) -> None:
        self._program = program
        self._pool = pool
        self._names = names

    def where(self, node: int) -> Where:
        """A node's place, for an error message."""
        if node < len(self._program):
            return self._program.where(node)
        words = self._pool.words[node : node + 2]
        return Where(node, text=isa.describe(words.view(isa.INSN), 0))

    def never(self, node: int) -> EditError:
        """The error for a node that never was."""
        return EditError(Where(node), f"no such node; the list has {self._pool.size} from 0 on")

    def alive(self, node: int) -> None:
        """Raise unless a node is a live instruction."""
        pool = self._pool
        if not 0 <= node < pool.size:
            raise self.never(node)
        if pool.alive[node]:
            return
        is_second = node > 0 and int(pool.words[node - 1]) & 0xFF == isa.LD_IMM64
        if is_second and not self._is_first(node):
            raise EditError(
                self.where(node - 1), "slot 1 is the second half of this ld_imm64; edit slot 0"
            )
        raise EditError(
            self.where(node), "is deleted already; what came in its place has nodes of its own"
        )

    def _is_first(self, node: int) -> bool:
        return node < len(self._program) and not self._program.second_slots[node]

    def nodes(self, sites: Any, own: Slots) -> Slots:
        """Numbers in any form as an array of live nodes.

        Args:
            sites: what a caller names.
            own: an array that is never written to again; parts of it are not copied.
        """
        raw = np.atleast_1d(np.asarray(sites))
        if raw.size == 0:
            return np.zeros(0, np.int32)
        if raw.ndim != 1 or raw.dtype.kind not in "iu":
            raise OptionError(f"sites are an array of nodes, not of {raw.dtype} in {raw.ndim} dims")
        if raw.min() < 0 or raw.max() >= self._pool.size:
            is_outside = (raw < 0) | (raw >= self._pool.size)
            raise self.never(int(raw[np.argmax(is_outside)]))
        # A copy, unless it cannot change while it waits in the log.
        is_own = (raw is own or raw.base is own) and raw.dtype == np.int32
        nodes = raw if is_own else raw.astype(np.int32)
        dead = self._pool.first_dead(nodes)
        if dead is not None:
            self.alive(dead)
        return nodes

    def distinct(self, sites: Slots) -> None:
        """A node goes only once: the second of two is deleted already."""
        if ascends(sites):
            return
        ordered = np.sort(sites)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if twice.size:
            raise EditError(self.where(int(twice[0])), "is named twice among the sites")

    def bodies(self, verb: Verb, sites: Slots, bodies: Sequence[Body]) -> None:
        """Check all of many edits before the first is made."""
        gone: set[int] = set()
        for site, body in zip(sites.tolist(), bodies, strict=True):
            self.body(verb, np.array([site], np.int32), body)
            for ref in body.refs:
                if ref.to is To.NODE and ref.value in gone:
                    what = "is replaced in the same go in which a body refers to it"
                    raise EditError(self.where(ref.value), what)
            if verb == Verb.REPLACE and not body.keeps:
                gone.add(site)

    def body(self, verb: Verb, sites: Slots, body: Body) -> None:
        """Whether a body's references mean something at these sites."""
        if body.keeps and verb != Verb.REPLACE:
            raise EditError(
                self.where(int(sites[0])),
                f"a body that keeps the original can only replace it, not {verb.name.lower()}",
            )
        goes = verb == Verb.REPLACE and not body.keeps
        for ref in body.refs:
            if ref.to is To.ORIG and goes:
                raise EditError(
                    self.where(int(sites[0])),
                    "the body jumps to the original instruction, which it does not keep (`@orig`)",
                )
            if ref.to is To.TARGET:
                self._target(sites, is_entry=ref.is_entry)
            if ref.to is To.NODE:
                self.alive(ref.value)
                if goes and (sites == ref.value).any():
                    what = "is what the body refers to and replaces"
                    raise EditError(self.where(ref.value), what)

    def _target(self, sites: Slots, *, is_entry: bool) -> None:
        """Whether each site holds a reference of the kind that ``@target`` needs."""
        kinds = isa.alone(isa.ref_kinds, self._pool.insns(sites))
        outside = np.concatenate([self._program.external, self._names.calls()])
        kinds[np.isin(sites, outside)] = isa.RefKind.NONE
        is_bad = (kinds == isa.RefKind.NONE) | ((kinds >= isa.RefKind.CALL) != is_entry)
        if is_bad.any():
            kind = "calls or addresses no subprog" if is_entry else "does not jump"
            raise EditError(
                self.where(int(sites[np.argmax(is_bad)])),
                f"the body refers to the instruction's target (`@target`), but it {kind}",
            )

    def change(self, sites: Slots, change: Change) -> None:
        """Whether instructions may be changed in place so.

        Raises:
            EditError: one makes, unmakes or renumbers a reference or an ld_imm64.
            OptionError: an unknown opcode.
        """
        words = self._pool.words
        for part in isa.portions(sites.size):
            old = words[sites[part]]
            self._check_change(sites[part], old, change.apply(old, part))

    def _check_change(
        self, sites: Slots, old_words: NDArray[np.uint64], new_words: NDArray[np.uint64]
    ) -> None:
        """Whether instructions may be changed in place so."""
        old, new = old_words.view(isa.INSN), new_words.view(isa.INSN)
        if _only_constants(old_words, new_words) or _have_no_refs(old, new):
            return
        if (isa.alone(isa.rows, new) == isa.UNKNOWN).any():
            raise OptionError("an opcode that the table lacks might hide a reference")
        before, after = isa.alone(isa.ref_kinds, old), isa.alone(isa.ref_kinds, new)
        is_short = before == isa.RefKind.JUMP16
        renumbers = (is_short & (old["off"] != new["off"])) | (
            (before > isa.RefKind.JUMP16) & (old["imm"] != new["imm"])
        )
        is_wide = (old["code"] == isa.LD_IMM64) != (new["code"] == isa.LD_IMM64)
        is_bad = (before != after) | renumbers | is_wide
        if is_bad.any():
            raise EditError(
                self.where(int(sites[np.argmax(is_bad)])),
                "a change in place cannot make, unmake or renumber a reference or an ld_imm64; "
                "replace the instruction",
            )


_BUT_IMM: Final = np.uint64(0xFFFFFFFF)
_IS_PLAIN: Final = np.isin(np.arange(256) & 7, (4, 7))  # the classes ALU and ALU64
_CLASSES_OF_REFS: Final = np.isin(np.arange(256) & 7, (0, 5, 6))  # loads of constants, and jumps


def _only_constants(old: NDArray[np.uint64], new: NDArray[np.uint64]) -> bool:
    """Whether the immediates alone change, of opcodes that never hold a reference in them."""
    if ((old ^ new) & _BUT_IMM).any():
        return False
    return bool(_IS_PLAIN.take(old.astype(np.uint8), mode="clip").all())


def _have_no_refs(old: Insns, new: Insns) -> bool:
    """Whether all are of classes without references, and known as they are now."""
    for insns in (old, new):
        if _CLASSES_OF_REFS.take(np.ascontiguousarray(insns["code"]), mode="clip").any():
            return False
    return not isa.suspects(new, allow_internal=True).size


def check_imms(body: Body, imms: Imms | None, n_sites: int) -> Imms:
    """Check immediates for the copies of a body.

    Raises:
        OptionError: for a slot that the body lacks or that holds a reference, of another
            number than there are sites, or beyond 32 bits.
    """
    least, most = FIELD_RANGES["imm"]
    referring = {ref.slot for ref in body.refs}
    for slot, values in (imms or {}).items():
        if not 0 <= slot < body.n_slots or slot in referring:
            raise OptionError(f"slot {slot} of the body holds no constant")
        if values.dtype.kind not in "iu" or values.shape != (n_sites,):
            raise OptionError(f"slot {slot} takes one whole number a site: {n_sites} of them")
        if not fits(values, least, most):
            raise OptionError(f"an immediate holds {least} to {most}")
    return imms or {}
