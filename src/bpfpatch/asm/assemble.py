"""Assembly text to a whole `Program`."""

from __future__ import annotations

from collections.abc import Iterable

from bpfpatch.errors import AsmError
from bpfpatch.isa import HELPER_IDS, Insns, RefKind, ref_kinds
from bpfpatch.program import FIELD_LIMITS, Program, Subprogs
from bpfpatch.text import unknown

from .fragment import Fragment, FragmentRef
from .parser import parse


def assemble(text: str) -> Program:
    """Read a program: one section, every name defined.

    Subprogs are slot 0, what is called or has its address taken, and what
    ``.subprog``, ``.globl`` or ``.type`` names.

    Args:
        text: in the syntax of `bpfpatch.asm.parse`.

    Raises:
        AsmError: text that is not a program, a name that nothing defines, or a
            distance that its field does not hold.
    """
    fragment = parse(text)
    if fragment.keeps is not None:
        line = fragment.lines[fragment.keeps]
        raise AsmError("@orig is for edits: a program has no original instruction", line, 1)
    starts = {slot: name for slot, name in fragment.subprogs if slot < len(fragment.insns)}
    program = Program(_resolved(fragment))
    if not len(program):
        return program
    derived = {int(slot): "" for slot in program.subprogs.start}
    return Program(program.insns, subprogs=Subprogs.from_starts({**derived, **starts}))


def _resolved(fragment: Fragment) -> Insns:
    insns = fragment.insns.copy()
    kinds = ref_kinds(insns)
    for ref in fragment.refs:
        target = fragment.labels.get(ref.label)
        if target is None:
            raise AsmError(_undefined(ref, fragment.labels), ref.line, ref.column)
        kind = RefKind(int(kinds[ref.slot]))
        distance = target - ref.slot - 1
        _check_reach(ref, kind, distance)
        insns["off" if kind is RefKind.JUMP16 else "imm"][ref.slot] = distance
    insns.flags.writeable = False
    return insns


def _check_reach(ref: FragmentRef, kind: RefKind, distance: int) -> None:
    low, high = FIELD_LIMITS[kind]
    if low <= distance <= high:
        return
    raise AsmError(
        f"{ref.label!r} is {distance} slots away, the field holds {low} to {high}; use gotol",
        ref.line,
        ref.column,
    )


def _undefined(ref: FragmentRef, labels: Iterable[str]) -> str:
    if ref.label.startswith("@"):
        return f"{ref.label} is for edits: a program has no original instruction"
    if ref.label.startswith("bpf_"):
        helpers = [f"bpf_{name}" for name in HELPER_IDS]
        what = unknown("label and no helper", ref.label, labels, helpers)
        return f"{what}; a kfunc is called by BTF id"
    return unknown("label", ref.label, labels)
