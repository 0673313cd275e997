"""Bodies: the instructions that an edit puts in, and where their jumps go."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.program.refs import read_references
from bpfpatch.program.types import Insns, Slots, frozen

if TYPE_CHECKING:
    from .insn import Insn

PLACEHOLDER = np.zeros(1, isa.INSN)
"""One all-zero slot: where `Body.insns` has it at ``keeps``, the original instruction goes."""


class To(IntEnum):
    """What a reference in a body refers to."""

    LOCAL = 0  # an instruction of the body itself
    ORIG = 1  # the original instruction: the one at the site
    TARGET = 2  # what the original instruction refers to
    END = 3  # what follows the body
    NODE = 4  # a node of the list


_CALL = isa.BY_NAME["call_subprog"].code
SPECIAL = {"@orig": To.ORIG, "@target": To.TARGET, "@end": To.END}


@dataclass(frozen=True, slots=True)
class BodyRef:
    """One reference in a body.

    Attributes:
        slot: the referring instruction; a slot of the body without its placeholder.
        to: what kind of thing it refers to.
        value: for LOCAL such a slot, for NODE a node, else 0.
        is_entry: whether it is a call or function address, not a jump.
    """

    slot: int
    to: To
    value: int
    is_entry: bool


@dataclass(frozen=True, slots=True)
class BodyName:
    """A call or an address by name: a function of the program, or a symbol of its object.

    Attributes:
        slot: the instruction; a slot of the body without its placeholder.
        name: what is called, or has its address loaded.
        is_call: whether it is called.
    """

    slot: int
    name: str
    is_call: bool


class Body:
    """Instructions to put in, with references that need no number before linearize.

    A body may jump to its own instructions, to its end, to the original
    instruction (``@orig``), to what that one refers to (``@target``) and to
    any node. One that is made to replace an instruction may keep it, in the
    middle: that place is a slot of its own, the placeholder. It may call and
    load the address of what it knows by name only: the list that it goes into
    knows what that is.

    A body is immutable and can serve any number of edits of any list, unless
    it refers to nodes: those are one list's.

    Attributes:
        words: (n,) uint64, the instructions without the placeholder.
        nodes: (k,) int32 slots of ``words`` at which an instruction starts.
        n_pre: how many of ``nodes`` come before the original; all, where it is not kept.
        keeps: whether the original instruction stays.
        refs: the references.
        names: calls and addresses by name.
        has_refs: whether there are any of either.
        lists: the patch lists whose nodes it names by handle.
    """

    __slots__ = (
        "alive",
        "has_refs",
        "keeps",
        "lists",
        "n_pre",
        "n_slots",
        "names",
        "nodes",
        "refs",
        "word_array",
        "words",
    )

    def __init__(
        self,
        insns: Insns,
        *,
        keeps: int | None = None,
        labels: Mapping[int, To | int | Insn] | None = None,
        locals_: Mapping[int, int] | None = None,
        names: Mapping[int, str] | None = None,
    ) -> None:
        """Check the instructions and resolve what can be resolved now.

        Args:
            insns: (n,) `isa.INSN`; a reference that neither ``labels`` nor
                ``locals_`` names is a distance within the body, as usual.
            keeps: the slot of the all-zero placeholder for the original.
            labels: slot of a referring instruction to what it refers to: a
                `To`, or a node of the list that the body is for.
            locals_: slot of a referring instruction to the slot in ``insns``
                that it refers to; ``n`` is the end.
            names: slot of a call of a subprog, or of an ld_imm64, to the name
                of what it calls or loads the address of.

        Raises:
            OptionError: an unknown opcode, a missing second slot, or a
                reference out of the body.
        """
        insns = _outside(frozen(insns, isa.INSN), names or {})
        if keeps is not None and (not 0 <= keeps < len(insns) or insns[keeps] != PLACEHOLDER[0]):
            raise OptionError(f"the body has no all-zero placeholder at slot {keeps}")
        named = np.array(sorted(names or {}), np.int32)
        refs = _resolve(insns, keeps, dict(labels or {}), dict(locals_ or {}), named)
        is_kept = np.ones(len(insns), bool)
        if keeps is not None:
            is_kept[keeps] = False
        starts = is_kept & ~isa.second_slots(insns)
        self.words = frozen(insns[is_kept].view(np.uint64), np.uint64)
        self.word_array = array("Q", self.words.tobytes())
        starts_here = starts[is_kept]
        self.nodes: Slots = frozen(np.flatnonzero(starts_here), np.int32)
        self.n_slots = int(self.words.size)
        self.keeps = keeps is not None
        self.n_pre = int(starts[:keeps].sum())
        self.refs = refs
        self.names = tuple(
            BodyName(_without(slot, keeps), name, int(insns["code"][slot]) != isa.LD_IMM64)
            for slot, name in sorted((names or {}).items())
        )
        # Lists whose nodes the body names by handle; a bare number is the caller's word.
        handles = [g for g in (labels or {}).values() if not isinstance(g, (int, np.integer))]
        self.lists = tuple({id(handle.patches): handle.patches for handle in handles}.values())
        self.has_refs = bool(refs or self.names)
        self.alive = starts_here.tobytes()

    @classmethod
    def of(cls, *insns: Insns) -> Self:
        """A body of instructions from the builders of `bpfpatch.isa`, one after the other."""
        return cls(np.concatenate(insns) if insns else np.zeros(0, isa.INSN))

    @classmethod
    def asm(cls, text: str, **nodes: int | Insn) -> Self:
        """A body from assembly.

        ``@orig`` on a line of its own keeps the original instruction there.
        Jumps go to labels of the text, to ``@orig``, ``@target`` and ``@end``,
        or to a node that is given by name::

            Body.asm("if r1 == 0 goto fail; r2 /= r1", fail=node)

        Calls and addresses (``call name``, ``r1 = &name``) may name what only
        the list knows that the body goes into: a function of the program, or a
        map, a variable or a kfunc of its object, see `PatchList`.

        Raises:
            AsmError: with line and column.
            OptionError: a jump to a label that neither the text nor ``nodes`` has.
        """
        from bpfpatch.asm import parse  # noqa: PLC0415 - bodies without text need no assembler

        fragment = parse(text)
        labels: dict[int, To | int | Insn] = {}
        locals_: dict[int, int] = {}
        names: dict[int, str] = {}
        kinds = isa.ref_kinds(fragment.insns)
        for ref in fragment.refs:
            if ref.label in fragment.labels:
                locals_[ref.slot] = fragment.labels[ref.label]
            elif ref.label in SPECIAL:
                labels[ref.slot] = SPECIAL[ref.label]
            elif ref.label in nodes:
                labels[ref.slot] = nodes[ref.label]
            elif kinds[ref.slot] >= isa.RefKind.CALL and not ref.label.startswith("@"):
                names[ref.slot] = ref.label
            else:
                raise OptionError(
                    f"line {ref.line}, column {ref.column}: no label {ref.label!r} in the body; "
                    f"define it, or give its node as an argument: asm(..., {ref.label}=node)"
                )
        return cls(
            fragment.insns, keeps=fragment.keeps, labels=labels, locals_=locals_, names=names
        )

    def linked(self, functions: Mapping[str, int]) -> Body:
        """The body with what it knows by name and these are, as references to their nodes.

        Args:
            functions: name of a subprog to the node that it starts at.
        """
        known = [one for one in self.names if one.name in functions]
        if not known:
            return self
        out = copy(self)
        insns = self.insns.copy()
        for one in known:
            src = isa.PseudoCall.SUBPROG if one.is_call else isa.Pseudo.FUNC
            insns["regs"][one.slot] = insns["regs"][one.slot] & 0xF | src << 4
        out.words = frozen(insns.view(np.uint64), np.uint64)
        out.word_array = array("Q", out.words.tobytes())
        new = (BodyRef(one.slot, To.NODE, functions[one.name], True) for one in known)
        out.refs = tuple(sorted((*self.refs, *new), key=lambda ref: ref.slot))
        out.names = tuple(one for one in self.names if one.name not in functions)
        return out

    @property
    def insns(self) -> Insns:
        """(n,) `isa.INSN` without the placeholder; reference fields are meaningless."""
        return self.words.view(isa.INSN)

    def __repr__(self) -> str:
        kept = ", keeps the original" if self.keeps else ""
        n_refs = len(self.refs) + len(self.names)
        return f"Body({self.nodes.size} instructions, {n_refs} references{kept})"


def _resolve(
    insns: Insns,
    keeps: int | None,
    labels: dict[int, To | int | Insn],
    locals_: dict[int, int],
    named: Slots,
) -> tuple[BodyRef, ...]:
    """All references but those by name, in coordinates without the placeholder."""
    _check_insns(insns, keeps)
    refs = read_references(insns, named)
    out: list[BodyRef] = []
    rows = zip(refs.slot.tolist(), refs.target.tolist(), refs.is_entry.tolist(), strict=True)
    for slot, distance_target, is_entry in rows:
        at = _without(slot, keeps)
        if slot in labels:
            to, value = _outward(slot, labels.pop(slot), is_entry=is_entry)
        else:
            target = locals_.pop(slot, distance_target)
            to, value = _inward(insns, keeps, slot, target, is_entry=is_entry)
        out.append(BodyRef(at, to, value, is_entry))
    stray = [*labels, *locals_]
    if stray:
        raise OptionError(f"body slot {stray[0]} has a label but holds no reference")
    return tuple(out)


def _outside(insns: Insns, names: Mapping[int, str]) -> Insns:
    """The instructions with those that name something as compilers leave them to a linker."""
    if not names:
        return insns
    out = insns.copy()
    for slot in names:
        if not 0 <= slot < len(insns):
            raise OptionError(f"there is no body slot {slot} that could name {names[slot]!r}")
        regs = int(out["regs"][slot]) & 0xF
        if isa.is_ld_imm64(insns)[slot]:
            out["regs"][slot] = regs
        elif int(out["code"][slot]) == _CALL:
            out["regs"][slot], out["imm"][slot] = isa.PseudoCall.SUBPROG << 4, -1
        else:
            raise OptionError(
                f"body slot {slot} names {names[slot]!r} but is no call and no ld_imm64"
            )
    return frozen(out, isa.INSN)


def _check_insns(insns: Insns, keeps: int | None) -> None:
    strange = [slot for slot in isa.unknown(insns).tolist() if slot != keeps]
    if strange:
        raise OptionError(
            f"body slot {strange[0]} has opcode {int(insns['code'][strange[0]]):#04x}, "
            "which is not in the table and might hide a reference"
        )
    second = isa.second_slots(insns)
    halves = (insns["code"] == isa.LD_IMM64) & ~second & ~np.append(second[1:], False)
    if halves.any() or (keeps is not None and second[keeps]):
        raise OptionError("the second slot of an ld_imm64 is missing from the body")


def _outward(slot: int, goal: To | int | Insn, *, is_entry: bool) -> tuple[To, int]:
    """What a label out of the body means."""
    if not isinstance(goal, To):
        return To.NODE, _node(goal)
    if is_entry and goal is To.END:
        raise OptionError(f"body slot {slot} calls the body's end, where no subprog starts")
    return goal, 0


def _inward(
    insns: Insns, keeps: int | None, slot: int, target: int, *, is_entry: bool
) -> tuple[To, int]:
    """What a slot of the body means."""
    n_slots = len(insns)
    if not 0 <= target <= n_slots or (target < n_slots and isa.second_slots(insns)[target]):
        raise OptionError(
            f"body slot {slot} refers to slot {target} of a body of {n_slots}; "
            "a reference out of a body needs a label: @orig, @target, @end or a node"
        )
    if is_entry:
        raise OptionError(
            f"body slot {slot} calls into its own body; a call needs the node of a subprog"
        )
    if target == n_slots:
        return To.END, 0
    if target == keeps:
        return To.ORIG, 0
    return To.LOCAL, _without(target, keeps)


def _node(goal: int | Insn) -> int:
    """The number of a node that is given as a number or handle."""
    return goal.__index__() if isinstance(goal, (int, np.integer)) else goal.node


def _without(slot: int, keeps: int | None) -> int:
    """A slot's number once the placeholder is out."""
    return slot if keeps is None or slot < keeps else slot - 1


EMPTY = Body(np.zeros(0, isa.INSN))


def body_of(given: Any) -> Body:
    """A body that is given as one, or as assembly.

    Raises:
        AsmError: text that is none.
        OptionError: something else.
    """
    if isinstance(given, Body):
        return given
    if isinstance(given, str):
        return Body.asm(given)
    raise OptionError(
        f"one site takes one body: a Body, or assembly as text, not {type(given).__name__}"
    )


def bodies_of(given: Any, n_sites: int) -> Body | Sequence[Body]:
    """Check that there is one body, or one a site; each may be given as assembly."""
    if isinstance(given, (Body, str)):
        return body_of(given)
    if not isinstance(given, Sequence):
        raise OptionError("sites take a Body, or a sequence of one Body a site")
    bodies = [body_of(one) for one in given]
    if len(bodies) != n_sites:
        raise OptionError(f"{len(bodies)} bodies for {n_sites} sites; give one body, or one a site")
    return bodies
