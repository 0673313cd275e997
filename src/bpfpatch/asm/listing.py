"""A whole program as a listing that the assembler reads back."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import numpy as np

from bpfpatch.isa import HELPER_IDS, RefKind, Syntax, to_bytes
from bpfpatch.program import LINE_INFO, Program

from .encode import REGISTERS
from .grammar import keywords
from .text import format_insns

_NAME: Final = re.compile(r"[A-Za-z_.$][\w.$]*", re.ASCII)


def format_program(
    program: Program, *, raw: bool = False, sources: bool = True, alu32: bool = False
) -> str:
    """List a program: subprogs, labels, source lines, slots and instructions.

    Law: ``assemble(format_program(program))`` has the same instructions and
    subprog starts, for instructions that the table has; not with ``raw``.

    Args:
        program: any.
        raw: put each slot's bytes before its text.
        sources: put the source line before what it became, where there is
            line info.
        alu32: as in `format_insns`.

    Returns:
        Lines, each ended by a newline.
    """
    labels = _labels(program)
    texts = _with_labels(program, format_insns(program.insns, Syntax.ASM, alu32=alu32), labels)
    before = _sources(program) if sources else {}
    out: list[str] = []
    starts = set(program.subprogs.start.tolist())
    uncalled = starts - {0} - _entered(program)
    width = max(2, len(str(len(program))))
    sections: dict[int, list[str]] = defaultdict(list)
    for name, start in zip(program.sections, program.section_bounds.tolist(), strict=False):
        sections[start].append(name)
    for slot, text in enumerate(texts):
        if slot in starts and slot in labels:
            out += _heading(sections[slot], labels[slot], slot, slot in uncalled)
        elif slot in labels:
            out.append(f"{labels[slot]}:")
        if slot in before:
            out.append(f"{'':{width + 6}}// {before[slot]}")
        if not text and not raw:
            continue
        shown = f"{_bytes(program, slot)}  {text}".rstrip() if raw else text
        out.append(f"{slot:{width + 4}}: {shown}")
    if len(program) in labels:
        out.append(f"{labels[len(program)]}:")
    return "".join(f"{line}\n" for line in out)


def _heading(sections: list[str], name: str, slot: int, is_uncalled: bool) -> Iterator[str]:
    if slot:
        yield ""
    for section in sections:
        if section:
            yield f"// section {section!r}"
    if is_uncalled:
        yield f".globl {name}"
    yield f"{name}:"


def _labels(program: Program) -> dict[int, str]:
    """A name for every subprog start and every jump target, each unique."""
    out: dict[int, str] = {}
    taken: set[str] = set()
    named = zip(program.subprogs.start.tolist(), program.subprogs.names, strict=True)
    for slot, name in named:
        if program.second_slots[slot]:
            continue  # broken code: what refers to it stays a number
        label = name if _may_be_label(name) and name not in taken else _made(name, slot, taken)
        taken.add(label)
        out[slot] = label
    targets = np.unique(program.refs.target)
    for slot in targets[(targets >= 0) & (targets <= len(program))].tolist():
        if slot in out or (slot < len(program) and program.second_slots[slot]):
            continue
        out[slot] = f"L{slot}" if f"L{slot}" not in taken else f"L{slot}.jump"
    return out


def _may_be_label(name: str) -> bool:
    is_word = _NAME.fullmatch(name) is not None and not name.startswith(".")
    is_special = name.lower() in keywords() or name.lower() in REGISTERS
    # A call of a helper's name is a call of that helper, unless the text has such a label.
    is_helper = name.removeprefix("bpf_") in HELPER_IDS
    return is_word and not is_special and not is_helper


def _made(name: str, slot: int, taken: set[str]) -> str:
    plain = re.sub(r"[^\w.$]", "_", name, flags=re.ASCII) or "sub"
    label = f"{plain}.{slot}" if _may_be_label(f"{plain}.{slot}") else f"sub.{plain}.{slot}"
    while label in taken:
        label += ".again"
    return label


def _with_labels(program: Program, texts: list[str], labels: dict[int, str]) -> list[str]:
    refs = program.refs
    rows = zip(refs.slot.tolist(), refs.kind.tolist(), refs.target.tolist(), strict=True)
    for slot, kind, target in rows:
        label = labels.get(target)
        if label is None:
            continue
        text = texts[slot]
        if kind == RefKind.FUNC:
            high = int(program.insns["imm"][slot + 1])
            # A dump keeps a number in the second half, which a name cannot say.
            dst = int(program.insns["regs"][slot]) & 0xF
            texts[slot] = text if high else f"r{dst} = {label} ll"
        else:
            texts[slot] = f"{text.rpartition(' ')[0]} {label}"
    return texts


def _entered(program: Program) -> set[int]:
    refs = program.refs
    entered: set[int] = set(refs.target[refs.is_entry].tolist())
    return entered


def _sources(program: Program) -> dict[int, str]:
    table = program.tables.get(LINE_INFO)
    if table is None:
        return {}
    out = {}
    for slot in table.insn.tolist():
        source = program.source(slot)
        if source is not None:
            text = f"  {source.text}" if source.text else ""
            out[slot] = " ".join(f"{source}{text}".splitlines())
    return out


def _bytes(program: Program, slot: int) -> str:
    return to_bytes(program.insns[slot : slot + 1]).hex(" ")
