"""The opcode table: the one source of truth about instructions.

Everything that this project knows about an opcode is in a row of `OPCODES`:
decoding, predicates, register use, both text syntaxes and validation are
derived from it. A row is found by ``code`` and, where one code has several
meanings, by the value of ``src``, ``off`` or ``imm``.

Sources: RFC 9669 sections 4 (arithmetic and jumps), 5 (loads and stores) and
its instruction table; for what it lacks the kernel's include/uapi/linux/bpf.h
(v6.18: BPF_JCOND, BPF_ADDR_SPACE_CAST, BPF_LOAD_ACQ, BPF_STORE_REL, gotox) and
include/linux/filter.h (kernel-internal forms). Which registers an instruction
defines and how wide: kernel/bpf/verifier.c, is_reg64() and insn_def_regno(),
v6.18. The lowest cpu version is that of the compilers: clang's and gcc's
``-mcpu=v1`` to ``v4``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from .pseudo import Pseudo, PseudoCall


class RefKind(IntEnum):
    """Which field of an instruction names another instruction, and how."""

    NONE = 0
    JUMP16 = 1
    """``off``, relative to the next slot: jumps, conditional jumps, may_goto."""
    JUMP32 = 2
    """``imm``, relative to the next slot: gotol."""
    CALL = 3
    """``imm``, relative to the next slot: a call of a subprog."""
    FUNC = 4
    """``imm`` of an ld_imm64, relative to its second slot: a callback's address."""


class Kind(IntEnum):
    """What an instruction is, one of these."""

    ALU = 0
    LD_IMM64 = 1
    LOAD = 2
    PACKET_LOAD = 3
    STORE = 4
    ATOMIC = 5
    JUMP = 6
    COND_JUMP = 7
    CALL = 8
    EXIT = 9
    BARRIER = 10


CPU_NEWER: Final = 5
"""`Opcode.cpu` of what no cpu version names: it needs a kernel newer than v4's first."""
CPU_INTERNAL: Final = 255
"""`Opcode.cpu` of what only the kernel itself makes; bpf(2) refuses it."""

LD_IMM64: Final = 0x18
"""The opcode byte of all two-slot loads."""
JA: Final = 0x05
"""The opcode byte of the 16-bit unconditional jump."""
GOTOL: Final = 0x06
"""The opcode byte of the 32-bit unconditional jump."""
CALL: Final = 0x85
"""The opcode byte of calls of helpers, subprogs and kfuncs."""
EXIT: Final = 0x95
"""The opcode byte of exit."""

AX: Final = 11
"""The kernel's hidden register, up to Linux 7.1; then it is the next one: `hidden_register`."""

ARGS: Final = 0b11_1110
"""R1 to R5."""
CALLER_SAVED: Final = 0b11_1111
"""R0 to R5."""

_REG_SETS: Final = {
    "r0": 1 << 0,
    "r6": 1 << 6,
    "args": ARGS,
    "tail_args": 0b1110,
    "caller": CALLER_SAVED,
}


@dataclass(frozen=True, slots=True)
class Opcode:
    """One row of the table.

    Attributes:
        name: unique; what builders and messages call it.
        code: the opcode byte.
        kind: what it is.
        src: the value of the ``src`` field that selects this row, or None.
        off: the same for ``off``.
        imm: the same for ``imm``.
        fields: the other fields that it uses, of "dst src off imm". One that
            is neither here nor a selector must be zero.
        reads: registers read: words of "dst src r0 r6 args tail_args".
        writes: registers written or clobbered: of "dst src r0 caller".
        cpu: lowest version, 1 to 4, `CPU_NEWER` or `CPU_INTERNAL`.
        defines_32: defines only the lower half of its register, so that a
            32-bit-aware target must zero the upper.
        ref: which field names another instruction.
        falls_through: the next instruction can run after it.
        text: llvm-objdump's syntax, with the placeholders of `bpfpatch.isa.text`.
        asm: our assembler's syntax where ``text`` does not say all, else None.
        xlated: the kernel's syntax where its form differs from ``text``, else None.
    """

    name: str
    code: int
    kind: Kind
    text: str
    fields: frozenset[str] = frozenset()
    src: int | None = None
    off: int | None = None
    imm: int | None = None
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    cpu: int = 1
    defines_32: bool = False
    ref: RefKind = RefKind.NONE
    falls_through: bool = True
    asm: str | None = None
    xlated: str | None = None

    @property
    def reads_fixed(self) -> int:
        """Bitmask of the registers that it reads whatever its fields say."""
        return _fixed(self.reads)

    @property
    def writes_fixed(self) -> int:
        """Bitmask of the registers that it writes whatever its fields say."""
        return _fixed(self.writes)


def _fixed(spec: frozenset[str]) -> int:
    mask = 0
    for word in spec - {"dst", "src"}:
        mask |= _REG_SETS[word]
    return mask


def _set(spec: str) -> frozenset[str]:
    return frozenset(spec.split())


# operation: (high nibble, operator)
_ALU_OPS: Final = {
    "add": (0x00, "+="),
    "sub": (0x10, "-="),
    "mul": (0x20, "*="),
    "div": (0x30, "/="),
    "or": (0x40, "|="),
    "and": (0x50, "&="),
    "lsh": (0x60, "<<="),
    "rsh": (0x70, ">>="),
    "mod": (0x90, "%="),
    "xor": (0xA0, "^="),
    "mov": (0xB0, "="),
    "arsh": (0xC0, "s>>="),
    "sdiv": (0x30, "s/="),
    "smod": (0x90, "s%="),
}

_JUMP_OPS: Final = {
    "jeq": (0x10, "=="),
    "jgt": (0x20, ">"),
    "jge": (0x30, ">="),
    "jset": (0x40, "&"),
    "jne": (0x50, "!="),
    "jsgt": (0x60, "s>"),
    "jsge": (0x70, "s>="),
    "jlt": (0xA0, "<"),
    "jle": (0xB0, "<="),
    "jslt": (0xC0, "s<"),
    "jsle": (0xD0, "s<="),
}
_OPPOSITES: Final = (
    ("jeq", "jne"), ("jgt", "jle"), ("jge", "jlt"), ("jsgt", "jsle"), ("jsge", "jslt"),
)  # fmt: skip
OPPOSITE_JUMPS: Final = {
    _JUMP_OPS[one][0]: _JUMP_OPS[other][0]
    for pair in _OPPOSITES
    for one, other in (pair, pair[::-1])
}
"""By operation, the upper four bits of the opcode: the one that jumps when this does not.

jset has none, and neither has may_goto.
"""
_JUMPS_OF_V2: Final = frozenset({"jlt", "jle", "jslt", "jsle"})

# size letter: (size bits, bits)
_SIZES: Final = {"w": (0x00, 32), "h": (0x08, 16), "b": (0x10, 8), "dw": (0x18, 64)}

_SHARED_OFF: Final = frozenset({"div", "mod", "mov"})

_ATOMIC_OPS: Final = {
    "add": (0x00, "+="),
    "or": (0x40, "|="),
    "and": (0x50, "&="),
    "xor": (0xA0, "^="),
}


def _alu() -> Iterator[Opcode]:
    for width, cls, reg in ((64, 0x07, "r"), (32, 0x04, "w")):
        narrow = width == 32
        for op, (bits, sign) in _ALU_OPS.items():
            is_signed = op in {"sdiv", "smod"}
            cpu = 4 if is_signed else 3 if narrow else 1
            off = 1 if is_signed else 0 if op in {"div", "mod"} else None
            own = "" if op == "mov" else "dst"
            yield Opcode(
                f"{op}{width}_imm",
                cls | bits,
                Kind.ALU,
                f"{reg}{{dst}} {sign} {{imm}}",
                _set("dst imm"),
                off=off,
                reads=_set(own),
                writes=_set("dst"),
                cpu=cpu,
                defines_32=narrow,
            )
            yield Opcode(
                f"{op}{width}_reg",
                cls | bits | 0x08,
                Kind.ALU,
                f"{reg}{{dst}} {sign} {reg}{{src}}",
                _set("dst src"),
                off=0 if op in _SHARED_OFF else off,
                reads=_set(f"{own} src"),
                writes=_set("dst"),
                cpu=cpu,
                defines_32=narrow,
            )
        yield Opcode(
            f"neg{width}",
            cls | 0x80,
            Kind.ALU,
            f"{reg}{{dst}} = -{reg}{{dst}}",
            _set("dst"),
            reads=_set("dst"),
            writes=_set("dst"),
            cpu=3 if narrow else 1,
            defines_32=narrow,
        )


def _moves() -> Iterator[Opcode]:
    for width, code, reg, froms in ((64, 0xBF, "r", (8, 16, 32)), (32, 0xBC, "w", (8, 16))):
        for bits in froms:
            yield Opcode(
                f"movsx{width}_{bits}",
                code,
                Kind.ALU,
                f"{reg}{{dst}} = (s{bits}){reg}{{src}}",
                _set("dst src"),
                off=bits,
                reads=_set("src"),
                writes=_set("dst"),
                cpu=4,
                defines_32=width == 32,
            )
    moved = {"fields": _set("dst src"), "reads": _set("src"), "writes": _set("dst")}
    yield Opcode(
        "addr_space_cast",
        0xBF,
        Kind.ALU,
        "r{dst} = addr_space_cast(r{src}, {space_to}, {space_from})",
        _set("dst src imm"),
        off=1,
        reads=moved["reads"],
        writes=moved["writes"],
        cpu=CPU_NEWER,
    )
    yield Opcode(
        "mov_percpu",
        0xBF,
        Kind.ALU,
        "r{dst} = &(void __percpu *)(r{src})",
        moved["fields"],
        off=-1,
        reads=moved["reads"],
        writes=moved["writes"],
        cpu=CPU_INTERNAL,
    )
    yield Opcode(
        "zext_mark",
        0xBC,
        Kind.ALU,
        "w{dst} = zext w{src}",
        moved["fields"],
        off=0,
        imm=1,
        reads=moved["reads"],
        writes=moved["writes"],
        cpu=CPU_INTERNAL,
        xlated="w{dst} = w{src}",
    )


def _byte_swaps() -> Iterator[Opcode]:
    for op, code, cpu in (("le", 0xD4, 1), ("be", 0xDC, 1), ("bswap", 0xD7, 4)):
        for bits in (16, 32, 64):
            yield Opcode(
                f"{op}{bits}",
                code,
                Kind.ALU,
                f"r{{dst}} = {op}{bits} r{{dst}}",
                _set("dst"),
                imm=bits,
                reads=_set("dst"),
                writes=_set("dst"),
                cpu=cpu,
                defines_32=bits != 64,
            )


# As bpftool prints them; the map's id is in imm.
_LD_IMM64_XLATED: Final = {
    Pseudo.MAP_FD: "r{dst} = map[id:{low}]",
    Pseudo.MAP_VALUE: "r{dst} = map[id:{low}][0]+{high}",
    Pseudo.FUNC: "r{dst} = subprog[{low:+}]",
}


def _ld_imm64() -> Iterator[Opcode]:
    for src in Pseudo:
        name = "ld_imm64" if src is Pseudo.NUMBER else f"ld_{src.name.lower()}"
        yield Opcode(
            name,
            0x18,
            Kind.LD_IMM64,
            "r{dst} = {imm64} ll" if src == 0 else "ld_pseudo r{dst}, {kind}, {low}",
            _set("dst imm"),
            src=src,
            writes=_set("dst"),
            ref=RefKind.FUNC if name == "ld_func" else RefKind.NONE,
            asm=None if src == 0 else "ld_pseudo r{dst}, {kind}, {imm64}",
            xlated=_LD_IMM64_XLATED.get(src, "r{dst} = {imm64}"),
        )


def _loads() -> Iterator[Opcode]:
    # mode: (mode bits, name, signed, cpu)
    modes = (
        (0x60, "ldx", False, 1),
        (0x80, "ldsx", True, 4),
        (0x20, "probe_ldx", False, CPU_INTERNAL),
        (0x40, "probe_ldsx", True, CPU_INTERNAL),
        (0xA0, "probe32_ldx", False, CPU_INTERNAL),
        (0xC0, "probe32_ldsx", True, CPU_INTERNAL),
    )
    for mode, name, is_signed, cpu in modes:
        for size, (size_bits, bits) in _SIZES.items():
            if is_signed and bits == 64:
                continue
            sign = "s" if is_signed else "u"
            reg = "r" if is_signed or bits == 64 else "{n}"
            marked = name.removesuffix("_ldx").removesuffix("_ldsx") + " " if "_" in name else ""
            yield Opcode(
                f"{name}_{size}",
                0x01 | mode | size_bits,
                Kind.LOAD,
                f"{marked}{reg}{{dst}} = *({sign}{bits} *)(r{{src}} {{mem}})",
                _set("dst src off"),
                reads=_set("src"),
                writes=_set("dst"),
                cpu=cpu,
                defines_32=not is_signed and bits != 64,
                xlated=f"BUG_ldx_{0x01 | mode | size_bits:02x}" if cpu == CPU_INTERNAL else None,
            )


def _packet_loads() -> Iterator[Opcode]:
    for size in ("w", "h", "b"):
        size_bits, bits = _SIZES[size]
        yield Opcode(
            f"ld_abs_{size}",
            0x20 | size_bits,
            Kind.PACKET_LOAD,
            f"r0 = *(u{bits} *)skb[{{imm}}]",
            _set("imm"),
            reads=_set("r6"),
            writes=_set("caller"),
            defines_32=True,
        )
        yield Opcode(
            f"ld_ind_{size}",
            0x40 | size_bits,
            Kind.PACKET_LOAD,
            f"r0 = *(u{bits} *)skb[r{{src}}]",
            _set("src imm"),
            reads=_set("r6 src"),
            writes=_set("caller"),
            defines_32=True,
            asm=f"r0 = *(u{bits} *)skb[r{{src}}{{plus}}]",
            xlated=f"r0 = *(u{bits} *)skb[r{{src}} + {{imm}}]",
        )


def _stores() -> Iterator[Opcode]:
    for mode, prefix, cpu in ((0x60, "", 1), (0xA0, "probe32_", CPU_INTERNAL)):
        for size, (size_bits, bits) in _SIZES.items():
            marked = prefix.replace("_", " ")
            place = f"{marked}*(u{bits} *)(r{{dst}} {{mem}})"
            reg = "r" if bits == 64 else "{n}"
            st = 0x02 | mode | size_bits
            yield Opcode(
                f"{prefix}st_{size}",
                st,
                Kind.STORE,
                f"{place} = {{imm}}",
                _set("dst off imm"),
                reads=_set("dst"),
                cpu=cpu,
                xlated=f"BUG_st_{st:02x}" if prefix else None,
            )
            yield Opcode(
                f"{prefix}stx_{size}",
                st | 1,
                Kind.STORE,
                f"{place} = {reg}{{src}}",
                _set("dst src off"),
                reads=_set("dst src"),
                cpu=cpu,
                xlated=f"BUG_{st | 1:02x}" if prefix else None,
            )


def _atomics() -> Iterator[Opcode]:
    for mode, prefix in ((0xC0, ""), (0xE0, "probe_")):
        for size, (size_bits, bits) in _SIZES.items():
            if bits >= 32:
                yield from _atomics_rmw(prefix, size, 0x03 | mode | size_bits, bits)
            yield from _atomics_ordered(prefix, size, 0x03 | mode | size_bits, bits)


def _atomics_rmw(prefix: str, size: str, code: int, bits: int) -> Iterator[Opcode]:
    reg = "w" if bits == 32 else "r"
    place = f"*(u{bits} *)(r{{dst}} {{mem}})"
    typed = f"(u{bits} *)(r{{dst}} {{mem}})"
    short = f"{'32_' if bits == 32 else '_'}{bits}(r{{dst}} {{mem}}"
    wide = "64" if bits == 64 else ""
    marked = prefix.replace("_", " ")
    bug = f"BUG_{code:02x}" if prefix else ""
    cpu = CPU_INTERNAL if prefix else 3

    def row(name: str, imm: int, text: str, xlated: str, *, writes: str, cpu: int = cpu) -> Opcode:
        return Opcode(
            f"{prefix}{name}_{size}",
            code,
            Kind.ATOMIC,
            text,
            _set("dst src off"),
            imm=imm,
            reads=_set("dst src r0" if name == "cmpxchg" else "dst src"),
            writes=_set(writes),
            cpu=cpu,
            defines_32=bits == 32 and writes != "",
            xlated=bug or xlated,
        )

    for op, (imm, sign) in _ATOMIC_OPS.items():
        plain = CPU_INTERNAL if prefix else 1 if op == "add" else 3
        # llvm-objdump takes the 32-bit add for the older instruction, which has no w registers.
        loose = "{n}" if op == "add" and bits == 32 else reg
        text = f"{marked}lock {place} {sign} {loose}{{src}}"
        yield row(f"atomic_{op}", imm, text, f"lock {place} {sign} r{{src}}", writes="", cpu=plain)
        yield row(
            f"atomic_fetch_{op}",
            imm | 1,
            f"{marked}{reg}{{src}} = atomic_fetch_{op}({typed}, {reg}{{src}})",
            f"r{{src}} = atomic{wide}_fetch_{op}({typed}, r{{src}})",
            writes="src",
        )
    yield row(
        "xchg",
        0xE1,
        f"{marked}{reg}{{src}} = xchg{short}, {reg}{{src}})",
        f"r{{src}} = atomic{wide}_xchg({typed}, r{{src}})",
        writes="src",
    )
    yield row(
        "cmpxchg",
        0xF1,
        f"{marked}{reg}0 = cmpxchg{short}, {reg}0, {reg}{{src}})",
        f"r0 = atomic{wide}_cmpxchg({typed}, r0, r{{src}})",
        writes="r0",
    )


def _atomics_ordered(prefix: str, size: str, code: int, bits: int) -> Iterator[Opcode]:
    reg = "r" if bits == 64 else "w"
    cpu = CPU_INTERNAL if prefix else CPU_NEWER
    bug = f"BUG_{code:02x}" if prefix else ""
    marked = prefix.replace("_", " ")
    load = f"load_acquire((u{bits} *)(r{{src}} {{mem}}))"
    store = f"store_release((u{bits} *)(r{{dst}} {{mem}})"
    yield Opcode(
        f"{prefix}load_acquire_{size}",
        code,
        Kind.ATOMIC,
        f"{marked}{reg}{{dst}} = {load}",
        _set("dst src off"),
        imm=0x100,
        reads=_set("src"),
        writes=_set("dst"),
        cpu=cpu,
        defines_32=bits != 64,
        xlated=bug or f"r{{dst}} = {load}",
    )
    yield Opcode(
        f"{prefix}store_release_{size}",
        code,
        Kind.ATOMIC,
        f"{marked}{store}, {reg}{{src}})",
        _set("dst src off"),
        imm=0x110,
        reads=_set("dst src"),
        cpu=cpu,
        xlated=bug or f"{store}, r{{src}})",
    )


def _cond_jumps() -> Iterator[Opcode]:
    for width, cls, reg in ((64, 0x05, "r"), (32, 0x06, "w")):
        for op, (bits, sign) in _JUMP_OPS.items():
            cpu = 3 if width == 32 else 2 if op in _JUMPS_OF_V2 else 1
            name = f"{op}32" if width == 32 else op
            yield Opcode(
                f"{name}_imm",
                cls | bits,
                Kind.COND_JUMP,
                f"if {reg}{{dst}} {sign} {{imm}} goto {{jump}}",
                _set("dst imm off"),
                reads=_set("dst"),
                cpu=cpu,
                ref=RefKind.JUMP16,
                xlated=f"if {reg}{{dst}} {sign} {{hex}} goto {{jump}}",
            )
            yield Opcode(
                f"{name}_reg",
                cls | bits | 0x08,
                Kind.COND_JUMP,
                f"if {reg}{{dst}} {sign} {reg}{{src}} goto {{jump}}",
                _set("dst src off"),
                reads=_set("dst src"),
                cpu=cpu,
                ref=RefKind.JUMP16,
            )
    yield Opcode(
        "may_goto",
        0xE5,
        Kind.COND_JUMP,
        "may_goto {jump}",
        _set("off"),
        src=0,
        cpu=CPU_NEWER,
        ref=RefKind.JUMP16,
    )


def _jumps() -> Iterator[Opcode]:
    yield Opcode(
        "ja",
        0x05,
        Kind.JUMP,
        "goto {jump}",
        _set("off"),
        ref=RefKind.JUMP16,
        falls_through=False,
    )
    yield Opcode(
        "gotol",
        0x06,
        Kind.JUMP,
        "gotol {jump}",
        _set("imm"),
        cpu=4,
        ref=RefKind.JUMP32,
        falls_through=False,
    )
    yield Opcode(
        "gotox",
        0x0D,
        Kind.JUMP,
        "gotox r{dst}",
        _set("dst"),
        reads=_set("dst"),
        cpu=CPU_NEWER,
        falls_through=False,
    )
    yield Opcode("exit", 0x95, Kind.EXIT, "exit", reads=_set("r0"), falls_through=False)


def _calls() -> Iterator[Opcode]:
    called = (_set("args"), _set("caller"))
    helper, subprog, kfunc = PseudoCall
    kinds = (
        ("call_helper", helper, "imm", RefKind.NONE, "call {callee}", "call {helper}#{imm}"),
        ("call_subprog", subprog, "imm", RefKind.CALL, "call pc{jump}", "call pc{delta:+}"),
        # A kfunc call's off is its module's index in the fd array.
        (
            "call_kfunc",
            kfunc,
            "imm off",
            RefKind.NONE,
            "call kfunc {imm}{fd}",
            "call kernel-function#{imm}",
        ),
    )
    for name, src, fields, ref, asm, xlated in kinds:
        yield Opcode(
            name,
            0x85,
            Kind.CALL,
            "call {imm}",
            _set(fields),
            src=src,
            reads=called[0],
            writes=called[1],
            ref=ref,
            asm=asm,
            xlated=xlated,
        )
    # RFC 9669 section 4.3.1 reserves this one; clang emits it, no kernel takes it.
    yield Opcode(
        "callx",
        0x8D,
        Kind.CALL,
        "callx r{dst}",
        _set("dst"),
        reads=_set("args dst"),
        writes=called[1],
        cpu=CPU_NEWER,
    )
    yield Opcode(
        "call_args",
        0xE5,
        Kind.CALL,
        "call_args {imm}{fd}",
        _set("imm off"),
        src=1,
        reads=called[0],
        writes=called[1],
        cpu=CPU_INTERNAL,
    )
    yield Opcode(
        "tail_call",
        0xF5,
        Kind.CALL,
        "tail_call {imm}",
        _set("imm"),
        reads=_set("tail_args"),
        writes=called[1],
        cpu=CPU_INTERNAL,
    )


def _barriers() -> Iterator[Opcode]:
    yield Opcode("nospec", 0xC2, Kind.BARRIER, "nospec", cpu=CPU_INTERNAL)


OPCODES: Final[tuple[Opcode, ...]] = (
    *_alu(),
    *_moves(),
    *_byte_swaps(),
    *_ld_imm64(),
    *_loads(),
    *_packet_loads(),
    *_stores(),
    *_atomics(),
    *_cond_jumps(),
    *_jumps(),
    *_calls(),
    *_barriers(),
)
"""Every row; an index into it is what `bpfpatch.isa.rows` returns."""

BY_NAME: Final = {opcode.name: opcode for opcode in OPCODES}
"""Rows by name."""

ALU_SIGNS: Final = {op: sign for op, (_, sign) in _ALU_OPS.items()}
"""Operators of arithmetic, by operation: ``add`` to ``+=``."""
JUMP_SIGNS: Final = {op: sign for op, (_, sign) in _JUMP_OPS.items()}
"""Comparison operators of conditional jumps: ``jsgt`` to ``s>``."""
