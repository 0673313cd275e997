"""CO-RE against small types made here; rules from libbpf's relo_core.c and its documentation."""

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.btf import (
    Array,
    Btf,
    BtfBuilder,
    Const,
    Enum,
    Enumerator,
    Float,
    Fwd,
    Int,
    IntEncoding,
    Member,
    Ptr,
    Struct,
    Typedef,
    Union,
)
from bpfpatch.elf.space import CORE_RELO
from bpfpatch.facts.functions import CORE_POISON
from bpfpatch.kernel import CoreRelocationError, CoreTypes, apply_core
from bpfpatch.loader.corematch import essential_name, types_match
from bpfpatch.loader.corespec import CoreKind
from bpfpatch.program import Anchor, AnchoredTable, Program

ROW = np.dtype([("type_id", "<u4"), ("access_str_off", "<u4"), ("kind", "<u4")])
U32, S32, U64 = 1, 2, 3


def base():
    """Types 1 to 3 are u32, s32 and u64."""
    types = BtfBuilder()
    types.add(Int("unsigned int", 4, 32))
    types.add(Int("int", 4, 32, IntEncoding.SIGNED))
    types.add(Int("unsigned long", 8, 64))
    return types


def relocated(local, type_id, access, kind, insns, kernel):
    """Instructions after one CO-RE record on the first."""
    builder = BtfBuilder(local)
    row = np.array([(type_id, builder.string(access), int(kind))], ROW)
    table = AnchoredTable(np.zeros(1, np.int32), row, Anchor.OWN)
    program = Program(insns, tables={CORE_RELO: table})
    return apply_core(program, builder.build(), CoreTypes(kernel))


def imm_of(local, type_id, access, kind, kernel, old):
    """The number that a record puts into ``r1 = old``."""
    out = relocated(local, type_id, access, kind, isa.mov(isa.R1, old), kernel)
    assert out["code"][0] == 0xB7
    return int(out["imm"][0])


def struct(*members, name="s", size=64, types=None):
    """(types, id) of one struct."""
    types = types or base()
    return types, types.add(Struct(name, size, members, any(m.bitfield_size for m in members)))


def simple(bit_off, type_id=U32, name="s"):
    """A struct whose member ``b`` is at a place."""
    types, found = struct(
        Member("a", U32, 0), Member("b", type_id, bit_off), name=name, size=bit_off // 8 + 8
    )
    return types.build(), found


def test_a_fields_place_is_the_kernels():
    """A load of a member gets the member's place in the kernel's struct."""
    local, s = simple(32)
    kernel, _ = simple(192)
    out = relocated(
        local, s, "0:1", CoreKind.FIELD_BYTE_OFFSET, isa.load("u32", isa.R1, isa.R2, 4), kernel
    )
    assert out["off"][0] == 24


@pytest.mark.parametrize(
    ("name", "essential"),
    [
        ("task_struct___old", "task_struct"),
        ("a___b___c", "a___b"),
        ("plain", "plain"),
        ("a____b", "a____b"),
        ("___x", "___x"),
        ("x___", "x___"),
    ],
)
def test_flavors_are_cut_off(name, essential):
    """What follows the last ``___`` between other letters is the flavor."""
    assert essential_name(name) == essential


def test_a_flavor_finds_the_kernels_type():
    """A struct ``s___old`` is looked up as ``s``, and the kernel's own flavors are candidates."""
    local, s = simple(32, name="s___old")
    kernel, _ = simple(64, name="s___kernel")
    assert imm_of(local, s, "0:1", CoreKind.FIELD_BYTE_OFFSET, kernel, 4) == 8


def test_members_are_found_in_anonymous_ones():
    """A member may have moved into an anonymous struct or union of the kernel's."""
    local, s = simple(32)
    types = base()
    inner = types.add(Struct("", 8, (Member("x", U32, 0), Member("b", U32, 32))))
    both = types.add(Union("", 8, (Member("", inner, 0), Member("y", U32, 0))))
    types.add(Struct("s", 24, (Member("a", U32, 0), Member("", both, 128))))
    assert imm_of(local, s, "0:1", CoreKind.FIELD_BYTE_OFFSET, types.build(), 4) == 20


def test_elements_of_arrays_count():
    """An index behind a member multiplies the element's size; a struct may be an array, too."""

    def typed(count, at):
        types = base()
        array = types.add(Array(U32, U32, count))
        return types, types.add(Struct("s", at + 4 * count, (Member("v", array, 8 * at),)))

    local, s = typed(4, 0)
    kernel, _ = typed(8, 16)
    local, kernel = local.build(), kernel.build()
    assert imm_of(local, s, "0:0:3", CoreKind.FIELD_BYTE_OFFSET, kernel, 12) == 28
    assert imm_of(local, s, "1:0:0", CoreKind.FIELD_BYTE_OFFSET, kernel, 16) == 48 + 16


def test_an_element_beyond_the_kernels_array_is_poison():
    """Where the kernel's array is too short the instruction must not be reached."""
    types = base()
    array = types.add(Array(U32, U32, 4))
    s = types.add(Struct("s", 64, (Member("v", array, 0), Member("w", U32, 480))))
    short = base()
    array = short.add(Array(U32, U32, 2))
    short.add(Struct("s", 64, (Member("v", array, 0), Member("w", U32, 480))))
    out = relocated(
        types.build(),
        s,
        "0:0:3",
        CoreKind.FIELD_BYTE_OFFSET,
        isa.mov(isa.R1, 12),
        short.build(),
    )
    assert (out["code"][0], out["imm"][0]) == (0x85, CORE_POISON)


def test_existence_size_and_sign():
    """FIELD_EXISTS, _BYTE_SIZE and _SIGNED tell of the kernel's member."""
    local, s = simple(32, U32)
    kernel, _ = simple(64, U64)
    signed, _ = simple(64, S32)
    assert imm_of(local, s, "0:1", CoreKind.FIELD_EXISTS, kernel, 1) == 1
    assert imm_of(local, s, "0:1", CoreKind.FIELD_BYTE_SIZE, kernel, 4) == 8
    assert imm_of(local, s, "0:1", CoreKind.FIELD_SIGNED, kernel, 0) == 0
    assert imm_of(local, s, "0:1", CoreKind.FIELD_SIGNED, signed, 0) == 1


def test_absent_members_do_not_exist():
    """An absent member's existence is 0; its place is poison."""
    local, s = simple(32)
    types, _ = struct(Member("a", U32, 0))
    kernel = types.build()
    assert imm_of(local, s, "0:1", CoreKind.FIELD_EXISTS, kernel, 1) == 0
    out = relocated(
        local, s, "0:1", CoreKind.FIELD_BYTE_OFFSET, isa.load("u32", isa.R1, isa.R2, 4), kernel
    )
    assert (out["code"][0], out["imm"][0]) == (0x85, CORE_POISON)


def test_bitfields_give_shifts():
    """A bitfield's load, and the shifts that take it out of 64 bits (little-endian)."""
    types, s = struct(Member("a", U32, 0), Member("f", U32, 37, 3))
    types = types.build()
    assert imm_of(types, s, "0:1", CoreKind.FIELD_BYTE_OFFSET, types, 4) == 4
    assert imm_of(types, s, "0:1", CoreKind.FIELD_LSHIFT_U64, types, 0) == 64 - 8
    assert imm_of(types, s, "0:1", CoreKind.FIELD_RSHIFT_U64, types, 61) == 61


def test_a_load_takes_the_kernels_width():
    """A load of an unsigned member gets the kernel's size; of a signed one it is poison."""
    local, s = simple(32, U32)
    kernel, _ = simple(64, U64)
    load = isa.load("u32", isa.R1, isa.R2, 4)
    out = relocated(local, s, "0:1", CoreKind.FIELD_BYTE_OFFSET, load, kernel)
    assert (out["code"][0], out["off"][0]) == (0x79, 8)
    local, s = simple(32, S32)
    out = relocated(local, s, "0:1", CoreKind.FIELD_BYTE_OFFSET, load, kernel)
    assert out["imm"][0] == CORE_POISON


def test_constants_go_by_name():
    """An enum's constant has the kernel's value, whatever its place; an absent one is poison."""

    def typed(*values):
        types = base()
        return types, types.add(
            Enum("e", 4, tuple(Enumerator(name, value) for name, value in values))
        )

    local, e = typed(("A", 1), ("B___old", 2), ("GONE", 3))
    kernel, _ = typed(("X", 0), ("B", 77), ("A", 5))
    local, kernel = local.build(), kernel.build()
    assert imm_of(local, e, "0", CoreKind.ENUMVAL_VALUE, kernel, 1) == 5
    assert imm_of(local, e, "1", CoreKind.ENUMVAL_VALUE, kernel, 2) == 77
    assert imm_of(local, e, "2", CoreKind.ENUMVAL_EXISTS, kernel, 1) == 0
    wide = isa.ld_imm64(1, 3)
    out = relocated(local, e, "2", CoreKind.ENUMVAL_VALUE, wide, kernel)
    assert out["imm"].tolist() == [CORE_POISON, CORE_POISON]


def test_types_are_asked_for_as_wholes():
    """TYPE_EXISTS, _SIZE and _ID_* need a kind and a name, not the same members."""
    local, s = simple(32)
    types = base()
    types.add(Typedef("s", U32))
    theirs = types.add(Struct("s", 8, (Member("other", U64, 0),)))
    kernel = types.build()
    assert imm_of(local, s, "0", CoreKind.TYPE_EXISTS, kernel, 1) == 1
    assert imm_of(local, s, "0", CoreKind.TYPE_SIZE, kernel, 12) == 8
    assert imm_of(local, s, "0", CoreKind.TYPE_ID_TARGET, kernel, 0) == theirs
    assert imm_of(local, s, "0", CoreKind.TYPE_ID_LOCAL, kernel, 99) == s
    assert imm_of(local, s, "0", CoreKind.TYPE_EXISTS, base().build(), 1) == 0


def test_candidates_that_differ_are_refused():
    """Two kernel types of the name that give different numbers are no answer."""
    local, s = simple(32)
    types = base()
    types.add(Struct("s", 16, (Member("b", U32, 64),)))
    types.add(Struct("s", 24, (Member("b", U32, 96),)))
    with pytest.raises(CoreRelocationError, match="both fit, and differ: 8 or 12"):
        imm_of(local, s, "0:1", CoreKind.FIELD_BYTE_OFFSET, types.build(), 4)


def test_a_changed_instruction_is_refused():
    """An instruction that does not hold what the compiler put there was tampered with."""
    local, s = simple(32)
    with pytest.raises(CoreRelocationError, match=r"insn 0.*holds 5 where the compiler put 4"):
        imm_of(local, s, "0:1", CoreKind.FIELD_BYTE_OFFSET, local, 5)


def test_broken_access_strings_are_refused():
    """An access that the program's own types do not have is an error, not a crash."""
    local, s = simple(32)
    for access in ("", "0:9", "0:1:1", "x", "0:", ":0"):
        with pytest.raises(CoreRelocationError):
            imm_of(local, s, access, CoreKind.FIELD_BYTE_OFFSET, local, 4)
    with pytest.raises(CoreRelocationError):
        imm_of(local, s, "0", 99, local, 4)


def matched(make_local, make_kernel):
    """Whether the last types of both match."""
    built = []
    for make in (make_local, make_kernel):
        types = base()
        make(types)
        built.append((types.build(), types.next_id - 1))
    (local, mine), (kernel, theirs) = built
    assert isinstance(local, Btf)
    return types_match(local, mine, kernel, theirs)


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        (
            Struct("s", 4, (Member("a", U32, 0),)),
            Struct("s", 8, (Member("z", U32, 0), Member("a", U32, 32))),
            True,
        ),
        (Struct("s", 4, (Member("a", U32, 0),)), Struct("s", 4, (Member("a", S32, 0),)), False),
        (Struct("s", 4, (Member("a", U32, 0),)), Union("s", 4, (Member("a", U32, 0),)), False),
        (Struct("s", 4, (Member("b", U32, 0),)), Struct("s", 4, (Member("a", U32, 0),)), False),
        (
            Enum("e", 4, (Enumerator("A", 1),)),
            Enum("e", 4, (Enumerator("B", 0), Enumerator("A", 9))),
            True,
        ),
        (Enum("e", 4, (Enumerator("C", 1),)), Enum("e", 4, (Enumerator("A", 1),)), False),
        (Ptr(U32), Ptr(U32), True),
        (Ptr(U32), Ptr(S32), False),
        (Const(U32), U32, True),
        (Array(U32, U32, 3), Array(U32, U32, 4), False),
        (Fwd("f"), Fwd("f", is_union=True), False),
        (Float("float", 4), Float("float", 4), False),
    ],
)
def test_matching_is_stricter_than_compatible(mine, theirs, expected):
    """TYPE_MATCHES: members by name and type, enums by constants' names, arrays by length."""

    def adder(record):
        def add(types):
            types.add(Typedef("t", record) if isinstance(record, int) else record)

        return add

    assert matched(adder(mine), adder(theirs)) is expected
