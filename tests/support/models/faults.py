"""Deliberate faults in rewritten programs: each is what some mistake of a rewriter leaves behind.

A fault takes a program that was rewritten correctly and breaks it in one place. The place is
named by the text of an instruction of the original, and found in the rewritten program through
the rewriting's own `Remap`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject, LinkedProgram
from bpfpatch.elf.space import RELOC_TABLE
from bpfpatch.facts import MapDefinition, MapType
from bpfpatch.passes import Pipeline
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program, Remap
from support.inputs.bpfobjects import XDP_TOOLS, fixture_path

PARSER = """
    r6 = r1
    r7 = *(u32 *)(r1 + 0)
    r8 = *(u32 *)(r1 + 4)
    r1 = r7
    r1 += 34
    if r1 > r8 goto pass
    r2 = *(u16 *)(r7 + 12)
    r2 = be16 r2
    if r2 != 0x800 goto pass
    r9 = *(u32 *)(r7 + 26)
    *(u32 *)(r10 - 8) = r9
    *(u32 *)(r10 - 4) = 7
    r1 = map[id:1]
    r2 = r10
    r2 += -8
    call bpf_map_lookup_elem
    if r0 == 0 goto new
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    r1 = *(u64 *)(r0 + 0)
    r3 = 0x100000005 ll
    if r1 > r3 goto drop
    goto count
new:
    *(u64 *)(r10 - 24) = 1
    r1 = map[id:1]
    r2 = r10
    r2 += -8
    r3 = r10
    r3 += -24
    r4 = 0
    call bpf_map_update_elem
count:
    r1 = r7
    r1 += 14
    r2 = 10
    r3 = 0
    call sum
    r9 = r0
    r5 = r9
    r5 <<= 20
    w5 = w5
    r5 >>= 24
    r9 ^= r5
    w1 = w0
    w1 >>= 16
    w1 += w0
    w1 &= 0xffff
    *(u32 *)(r10 - 12) = r1
    r1 = *(u8 *)(r7 + 14)
    r1 &= 15
    r1 <<= 2
    if w1 < 20 goto drop
    r4 = *(u8 *)(r7 + 22)
    r4 = (s8)r4
    if r4 s< 2 goto drop
    r4 += -1
    *(u8 *)(r7 + 22) = r4
    r1 = *(u8 *)(r7 + 23)
    r2 = r9
    call verdict
    r9 = r0
    w3 = -1
    r3 += 1
    r3 >>= 32
    if r3 == 0 goto drop
    r1 = *(u32 *)(r10 - 12)
    if w1 == 0xffff goto drop
    r0 = r9
    exit
pass:
    r0 = 2
    exit
drop:
    r0 = 1
    exit
sum:
    r4 = *(u16 *)(r1 + 0)
    r4 = be16 r4
    r3 += r4
    r1 += 2
    r2 += -1
    if r2 != 0 goto sum
    r0 = r3
    exit
verdict:
    if r1 == 6 goto tcp
    if r1 == 17 goto udp
    r0 = 2
    exit
tcp:
    r0 = r2
    r0 %= 3
    r0 += 1
    exit
udp:
    r0 = 3
    if r2 & 1 goto odd
    r0 = 2
odd:
    exit
"""
"""An XDP program: Ethernet, IPv4, a table of sources, a checksum in a subprogram's loop, TTL,
and a verdict by protocol. All registers and stack slots in it are used."""

MAPS = {
    1: MapDefinition("sources", MapType.HASH, 8, 8, 64),
    2: MapDefinition("other", MapType.HASH, 8, 8, 64),
}


@dataclass(frozen=True)
class Rewriting:
    """A program before and after a correct rewriting."""

    before: Program | LinkedProgram
    after: Program | LinkedProgram
    remap: Remap
    obj: ElfObject | None = None

    @property
    def options(self) -> dict[str, object]:
        """What `verify` has to be told."""
        if self.obj is None:
            return {"maps": MAPS, "kind": "xdp"}
        return {"obj": self.obj}

    def with_program(self, program: Program) -> Program | LinkedProgram:
        """The rewritten program with other code."""
        if isinstance(self.after, LinkedProgram):
            return replace(self.after, program=program)
        return program


@functools.cache
def rewriting(subject: str, pipeline: str) -> Rewriting:
    """Rewrite a program: ``parser``, or ``OBJECT:PROGRAM`` of the fixtures or of libxdp1."""
    if subject == "parser":
        flat = assemble(PARSER)
        done = Pipeline.parse(pipeline).run(flat)
        return Rewriting(flat, done.program, done.remap)
    name, program = subject.split(":")
    path = fixture_path(f"{name}.o")
    obj = ElfObject.read(path if path.exists() else XDP_TOOLS / f"{name}.o")
    linked = obj.link(program)
    done = Pipeline.parse(pipeline).run(linked.program)
    return Rewriting(linked, linked.with_code(done), done.remap, obj)


def flat_of(code: Program | LinkedProgram) -> Program:
    """The instructions."""
    return code.program if isinstance(code, LinkedProgram) else code


Breaks = Callable[[Rewriting, int], Program]
"""Breaks the rewritten program at a slot."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: what went wrong.
        subject: see `rewriting`.
        at: how the instruction starts, as text, in the original.
        breaks: what is done there.
        nth: which of the instructions that start so.
        pipeline: the correct rewriting.
    """

    name: str
    subject: str
    at: str
    breaks: Breaks
    nth: int = 0
    pipeline: str = "sprinkle{every=3,seed=1}"

    def apply(self) -> tuple[Rewriting, Program | LinkedProgram]:
        """The correct rewriting, and the broken program."""
        done = rewriting(self.subject, self.pipeline)
        before = flat_of(done.before)
        slots = [
            slot
            for slot in np.flatnonzero(~before.second_slots).tolist()
            if isa.describe(before.insns, slot).startswith(self.at)
        ]
        assert len(slots) > self.nth, f"{self.name}: {self.subject} has no {self.at!r}"
        site = int(done.remap.own[slots[self.nth]])
        broken = self.breaks(done, site)
        return done, done.with_program(broken)


# What breaks a program. Each of these makes a function that does it.


def edit(**fields: int) -> Breaks:
    """Change fields of the instruction; a field's name with ``_by`` adds to it."""

    def breaks(done: Rewriting, site: int) -> Program:
        program = flat_of(done.after)
        insns = program.insns.copy()
        for name, value in fields.items():
            if name.endswith("_by"):
                insns[name.removesuffix("_by")][site] += value
            else:
                insns[name][site] = value
        return replace(program, insns=insns)

    return breaks


def put(text: str) -> Breaks:
    """Another instruction in its place; where that jumps, as far as the old one."""

    def breaks(done: Rewriting, site: int) -> Program:
        program = flat_of(done.after)
        insns = program.insns.copy()
        new = assemble(text + "; exit").insns[:-1]
        old = insns[site : site + 1]
        is_jump = bool((isa.is_jump(old) & isa.is_jump(new[:1])).all())
        off = insns["off"][site]
        insns[site : site + len(new)] = new
        if is_jump:
            insns["off"][site] = off
        return replace(program, insns=insns)

    return breaks


def gone(done: Rewriting, site: int) -> Program:
    """The instruction is lost."""
    return put("goto +0")(done, site)


def insert(text: str) -> Breaks:
    """Code before the instruction that should not be there."""

    def breaks(done: Rewriting, site: int) -> Program:
        patches = PatchList(flat_of(done.after))
        patches.insert_before(int(patches.nodes()[_nth(done, site)]), Body.asm(text))
        return patches.linearize().program

    return breaks


def prologue(text: str, *, on_back_edge: bool) -> Breaks:
    """Code at a function's start, which jumps back to it run again or not."""

    def breaks(done: Rewriting, site: int) -> Program:
        patches = PatchList(flat_of(done.after))
        node = int(patches.nodes()[_nth(done, site)])
        (patches.insert_before if on_back_edge else patches.prepend)(node, Body.asm(text))
        return patches.linearize().program

    return breaks


def _nth(done: Rewriting, site: int) -> int:
    """Which instruction starts at a slot."""
    return int((~flat_of(done.after).second_slots[:site]).sum())


def stale(slots: int) -> Breaks:
    """A call or jump that still leads where its target was before so many were inserted."""

    def breaks(done: Rewriting, site: int) -> Program:
        program = flat_of(done.after)
        insns = program.insns.copy()
        field = "imm" if int(insns["code"][site]) in (0x85, 0x18) else "off"
        insns[field][site] += slots
        return replace(program, insns=insns)

    return breaks


def swap_edges(done: Rewriting, site: int) -> Program:
    """The two ways of a conditional jump, exchanged: equal becomes unequal, and so on."""
    opposite = {0x10: 0x50, 0x50: 0x10, 0x20: 0xB0, 0x30: 0xA0, 0xA0: 0x30, 0xB0: 0x20}
    opposite |= {0x60: 0xD0, 0x70: 0xC0, 0xC0: 0x70, 0xD0: 0x60}
    code = int(flat_of(done.after).insns["code"][site])
    return edit(code=opposite[code & 0xF0] | (code & 0x0F))(done, site)


def signed(done: Rewriting, site: int) -> Program:
    """A comparison that takes its operands for signed, or no longer does."""
    other = {0x20: 0x60, 0x30: 0x70, 0xA0: 0xC0, 0xB0: 0xD0}
    other |= {value: key for key, value in other.items()}
    code = int(flat_of(done.after).insns["code"][site])
    return edit(code=other[code & 0xF0] | (code & 0x0F))(done, site)


def other_width(done: Rewriting, site: int) -> Program:
    """32 bits in the place of 64, or the other way round."""
    code = int(flat_of(done.after).insns["code"][site])
    swap = {4: 7, 7: 4, 5: 6, 6: 5}
    return edit(code=code & 0xF8 | swap[code & 7])(done, site)


def other_addend(by: int) -> Breaks:
    """A relocation to another place of its section."""

    def breaks(done: Rewriting, site: int) -> Program:
        program = flat_of(done.after)
        table = program.tables[RELOC_TABLE]
        rows = table.rows.copy()
        rows["addend"][table.insn == site] += by
        return program.with_tables(**{RELOC_TABLE: replace(table, rows=rows)})

    return breaks


def other_target(name: str) -> Breaks:
    """A relocation to another map."""

    def breaks(done: Rewriting, site: int) -> Program:
        assert isinstance(done.after, LinkedProgram)
        program = done.after.program
        names = [target.name for target in done.after.targets]
        table = program.tables[RELOC_TABLE]
        rows = table.rows.copy()
        rows["target"][table.insn == site] = names.index(name)
        return program.with_tables(**{RELOC_TABLE: replace(table, rows=rows)})

    return breaks


def high_half(value: int) -> Breaks:
    """Another upper half of an ld_imm64."""

    def breaks(done: Rewriting, site: int) -> Program:
        return edit(imm=value)(done, site + 1)

    return breaks


BALANCER = "xdp_balancer.clang-19.v3.el.g:balancer"
XDP_FILTER = "xdpfilt_dny_tcp:xdpfilt_dny_tcp"
TC = "tc_rewrite.clang-19.v3.el.g:rewrite"
TAIL = "tail_calls.clang-19.v3.el.g:entry"
ATOMICS = "atomics.clang-19.v3.el.g:atomic_ops"
CALLBACKS = "callbacks.clang-19.v3.el.g:loops"
V4 = "cpu_v4.clang-19.v4.el.g:signed_ops"
GLOBALS = "globals.clang-19.v3.el.g:use_globals"
RING = "ringbuf.clang-19.v3.el.g:emit"
P = "parser"

FAULTS: tuple[Fault, ...] = (
    # Control flow.
    Fault("jump one too far", P, "if r2 != 0x800 goto", stale(1), pipeline="nops"),
    Fault("jump one too short", P, "if r1 > r3 goto", stale(-1), pipeline="nops"),
    Fault("back edge skips the first insn", P, "if r2 != 0x0 goto", stale(1), pipeline="nops"),
    Fault(
        "back edge reruns the prologue",
        P,
        "r4 = *(u16 *)(r1 + 0x0)",
        prologue("r3 = 0", on_back_edge=True),
    ),
    Fault("swapped branch edges", P, "if r1 == 0x11 goto", swap_edges),
    Fault("signed compare for an unsigned one", P, "if r1 > r3 goto", signed),
    Fault("unsigned compare for a signed one", P, "if r4 s< 0x2 goto", signed),
    Fault("32-bit compare for a 64-bit one", P, "if r1 > r3 goto", other_width),
    Fault("less for less or equal", P, "if w1 < 0x14 goto", put("if w1 <= 20 goto +0")),
    Fault("wrong bit tested", P, "if r2 & 0x1 goto", edit(imm=2)),
    Fault("early exit", P, "r4 += -0x1", put("exit")),
    Fault("early exit on a rare way", P, "r1 = r7", insert("if r9 != 0x01020304 goto +1; exit"), 1),
    Fault("loop one short", P, "r2 = 0xa", edit(imm=9)),
    Fault("code removed that was not dead", P, "r0 = 0x3", gone),
    # Calls.
    Fault("stale call target", P, "call pc+", stale(1), pipeline="nops"),
    Fault("call to the other subprog", P, "call pc+", stale(8), 0, pipeline="nops"),
    Fault("wrong helper", P, "call bpf_map_update_elem", edit(imm=3)),
    Fault("call arguments swapped", P, "r2 = r9", put("r2 = r1")),
    Fault("lost call argument", P, "r4 = 0x0", edit(imm=1)),
    Fault("caller-saved register taken for kept", P, "r9 = *(u32 *)(r7", put("r5 = r7"), 0),
    Fault("clobbered live register", P, "r1 = *(u8 *)(r7 + 0x17)", insert("r9 = 0")),
    Fault("clobbered argument", TC, "r5 = 0x2", insert("r4 = 0")),
    Fault("stale callback", CALLBACKS, "ld_pseudo r2, 0x4, 0x20", stale(1), pipeline="nops"),
    Fault("tail call index", TAIL, "w3 = 0x0", edit(imm=1)),
    # Memory.
    Fault("dropped store", P, "*(u32 *)(r10 - 0x4) = 0x7", gone),
    Fault("dropped packet store", P, "*(u8 *)(r7 + 0x16)", gone),
    Fault("stack one off", P, "*(u32 *)(r10 - 0x8)", edit(off_by=1)),
    Fault("stack slot overwritten", P, "r1 = *(u8 *)(r7 + 0xe)", insert("*(u64 *)(r10 - 16) = -1")),
    Fault("wrong packet place", P, "r1 = *(u8 *)(r7 + 0x17)", edit(off_by=1)),
    Fault("load too narrow", P, "r2 = *(u16 *)(r7 + 0xc)", put("r2 = *(u8 *)(r7 + 12)")),
    Fault("load too wide", TC, "r3 = *(u8 *)(r2 + 0x16)", put("r3 = *(u16 *)(r2 + 22)")),
    Fault("wrong size of a store", RING, "*(u32 *)(r0 + 0x0)", put("*(u8 *)(r0 + 0) = r7")),
    Fault("wrong atomic", P, "lock *(u64 *)(r0", edit(imm=0x40)),
    Fault("fetch lost", ATOMICS, "w", put("goto +0"), 0),
    Fault("another map's fd", P, "ld_pseudo r1, 0x1", edit(imm=2), 1),
    Fault("relocation to another map", BALANCER, "r1 = 0x0 ll", other_target("flows"), 0),
    Fault("lost addend", GLOBALS, "r5 = 0x14 ll", other_addend(-4)),
    Fault("wrong bits of a map's value", XDP_FILTER, "r2 &= 0x6", edit(imm=4)),
    Fault("another field of the TCP header", XDP_FILTER, "r1 = *(u16 *)(r8 + 0x2)", edit(off=0)),
    Fault("wrong step of a counter", XDP_FILTER, "r1 += 0x40", edit(imm=0x41)),
    # Arithmetic.
    Fault("missed zero extension", P, "w5 = w5", put("r5 = r5")),
    Fault("64-bit add for a 32-bit one", P, "w3 = -0x1", put("r3 = -1")),
    Fault("32-bit shift for a 64-bit one", P, "r3 >>= 0x20", put("w3 >>= 31")),
    Fault("upper half of ld_imm64", P, "r3 = 0x100000005 ll", high_half(2)),
    Fault("lost upper half of ld_imm64", P, "r3 = 0x100000005 ll", high_half(0)),
    Fault("sign extension lost", P, "r4 = (s8)r4", gone),
    Fault("sign extension of another width", V4, "w2 = (s16)w8", put("w2 = (s8)w8")),
    Fault("no byte swap", P, "r2 = be16 r2", put("r2 = le16 r2")),
    Fault("wrong width of a byte swap", P, "r4 = be16 r4", put("r4 = be32 r4")),
    Fault("immediate one off", P, "r1 &= 0xf", edit(imm=0x1F)),
    Fault("unsigned division for a signed one", V4, "r3 s/= r2", put("r3 /= r2")),
    Fault("arithmetic shift lost", V4, "r3 s>>= 0x38", put("r3 >>= 56")),
    Fault("wrong operator", P, "r0 %= 0x3", put("r0 /= 3")),
    Fault("wrong register", P, "w1 += w0", put("w1 += w9")),
)
