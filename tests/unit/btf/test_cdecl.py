"""Types as text."""

import pytest

from bpfpatch.btf import (
    Array,
    BtfBuilder,
    Const,
    DataSec,
    DeclTag,
    Enum,
    Enum64,
    Enumerator,
    Float,
    Func,
    FuncProto,
    Fwd,
    Int,
    Member,
    Param,
    Ptr,
    Restrict,
    SecVar,
    Struct,
    Typedef,
    TypeTag,
    Union,
    Var,
    Volatile,
)
from bpfpatch.errors import FormatError


def chain(*types):
    """A section with id 1 ``int``, 2 ``struct s``, and each further type referring back."""
    out = BtfBuilder()
    out.add(Int("int", 4, 32))
    out.add(Struct("s", 4, (Member("m", 1, 0),)))
    for found in types:
        out.add(found)
    return out.build()


@pytest.mark.parametrize(
    ("types", "text"),
    [
        ((Ptr(1),), "int *"),
        ((Ptr(0),), "void *"),
        ((Ptr(2),), "struct s *"),
        ((Const(1), Ptr(3)), "const int *"),
        ((Ptr(1), Const(3)), "int *const"),
        ((Ptr(1), Restrict(3), Ptr(4)), "int *restrict *"),
        ((Volatile(1), Const(3)), "const volatile int"),
        ((Array(1, 1, 4),), "int[4]"),
        ((Array(1, 1, 4), Array(3, 1, 5)), "int[5][4]"),
        ((Ptr(1), Array(3, 1, 4)), "int *[4]"),
        ((Array(1, 1, 4), Ptr(3)), "int (*)[4]"),
        ((Array(1, 1, 4), Const(3), Ptr(4)), "const int (*)[4]"),
        ((Array(1, 1, 4), Typedef("a4", 3), Ptr(4)), "a4 *"),
        ((FuncProto(0), Ptr(3)), "void (*)(void)"),
        ((FuncProto(1, (Param("x", 1), Param("", 0))), Ptr(3)), "int (*)(int x, ...)"),
        ((FuncProto(1), Ptr(3), FuncProto(4), Ptr(5)), "int (*(*)(void))(void)"),
        ((Union("", 4),), "union {...}"),
        ((Enum("e", 4),), "enum e"),
        ((Fwd("f", True),), "union f"),
        ((TypeTag("user", 1), Ptr(3)), '__attribute__((btf_type_tag("user"))) int *'),
        ((TypeTag("noderef", 1, True), Ptr(3)), "__attribute__((noderef)) int *"),
    ],
)
def test_type_name(types, text):
    """A type's name is how C declares it without a name."""
    btf = chain(*types)
    assert btf.type_name(len(btf) - 1) == text


@pytest.mark.parametrize(
    ("types", "text"),
    [
        ((Array(1, 1, 4), Typedef("t", 3)), "typedef int t[4]"),
        ((FuncProto(1, (Param("x", 2),)), Func("f", 3, 1)), "int f(struct s x)"),
        ((FuncProto(0), Func("f", 3, 0)), "static void f(void)"),
        ((Ptr(1), Var("v", 3, 2)), "extern int *v"),
        (
            (Struct("q", 8, (Member("a", 1, 0, 3), Member("", 2, 32))),),
            "struct q { int a:3; struct s; } /* 8 bytes */",
        ),
        ((Struct("", 0),), "struct { } /* 0 bytes */"),
        (
            (Enum("e", 4, (Enumerator("A", -1), Enumerator("B", 2)), True),),
            "enum e { A = -1, B = 2 }",
        ),
        ((Enum64("", 8, (Enumerator("A", 1 << 40),)),), "enum { A = 1099511627776 }"),
        (
            (Var("v", 1), DataSec(".bss", 8, (SecVar(3, 4, 4),))),
            "section .bss { v at 4, 4 bytes; }",
        ),
        ((DeclTag("t", 2, 0),), '__attribute__((btf_decl_tag("t"))) on struct s item 0'),
        ((Float("double", 8),), "double"),
    ],
)
def test_c_decl(types, text):
    """A declaration is on one line."""
    btf = chain(*types)
    assert btf.c_decl(len(btf) - 1) == text


def test_void():
    """Void has a name."""
    assert (chain().type_name(0), chain().c_decl(0)) == ("void", "void")


def test_text_can_be_printed(make_btf):
    """Bytes that are not UTF-8 come out as escapes that any terminal takes."""
    assert make_btf([[1, 7 << 24, 0]], b"\0caf\xe9\0").type_name(1) == r"struct caf\udce9"


@pytest.mark.parametrize(
    "record",
    [[0, 2 << 24, 1], [0, 10 << 24, 1], [0, 3 << 24, 0, 1, 1, 1], [0, 13 << 24, 1]],
)
def test_rings_end(make_btf, record):
    """A type that refers to itself is an error, not a hang."""
    with pytest.raises(FormatError, match="refers to itself"):
        make_btf([record]).type_name(1)


def test_prototypes_within_prototypes_end(make_btf):
    """Prototypes whose parameters multiply at each level run out of budget, not of time."""
    records = []
    for level in range(20):
        pointer = [0, 2 << 24, 2 * level + 2]
        target = 2 * level + 3
        records += [pointer, [0, 13 << 24 | 8, 0, *([0, target] * 8)]]
    records.append([0, 1 << 24, 4, 32])
    with pytest.raises(FormatError, match="too deeply nested"):
        make_btf(records).type_name(1)
