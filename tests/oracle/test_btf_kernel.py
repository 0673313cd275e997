"""The kernel accepts the sections that a builder makes, and refuses broken ones."""

import ctypes
import ctypes.util
import dataclasses
import functools
import io
import sys

import pytest
from elftools.elf.elffile import ELFFile

from bpfpatch.btf import (
    Array,
    Btf,
    BtfBuilder,
    Const,
    DataSec,
    DeclTag,
    Enum,
    Enum64,
    Enumerator,
    Float,
    Func,
    FuncLinkage,
    FuncProto,
    Fwd,
    Int,
    IntEncoding,
    Kind,
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
    VarLinkage,
    Volatile,
)
from support.inputs.bpfobjects import fixture_objects
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel


@functools.cache
def libbpf():
    """The library, or a skip."""
    need_bpf()
    name = ctypes.util.find_library("bpf")
    if name is None:
        pytest.skip("libbpf is not installed")
    lib = ctypes.CDLL(name)
    lib.btf__new.restype = ctypes.c_void_p
    lib.btf__new.argtypes = [ctypes.c_char_p, ctypes.c_uint32]
    lib.btf__free.argtypes = [ctypes.c_void_p]
    lib.btf__load_into_kernel.argtypes = [ctypes.c_void_p]
    lib.libbpf_get_error.restype = ctypes.c_long
    lib.libbpf_get_error.argtypes = [ctypes.c_void_p]
    lib.libbpf_set_print.argtypes = [ctypes.c_void_p]
    lib.libbpf_set_print(None)
    return lib


def load(btf):
    """0, or the kernel's error."""
    data = btf.to_bytes()
    lib = libbpf()
    theirs = lib.btf__new(data, len(data))
    assert lib.libbpf_get_error(theirs) == 0
    done = lib.btf__load_into_kernel(theirs)
    lib.btf__free(theirs)
    return done


def test_all_kinds():
    """A section that is built from nothing with every kind loads."""
    out = BtfBuilder(byteorder=sys.byteorder)
    integer = out.add(Int("int", 4, 32, IntEncoding.SIGNED))
    long = out.add(Int("long unsigned int", 8, 64))
    tag = out.add(TypeTag("user", integer))
    pointer = out.add(Ptr(tag))
    array = out.add(Array(integer, integer, 4))
    members = (Member("p", pointer, 0), Member("a", array, 64), Member("b", integer, 192, 3))
    struct = out.add(Struct("s", 32, members))
    union = out.add(Union("u", 16, (Member("x", array, 0), Member("", out.next_id + 1, 0))))
    out.add(Struct("", 8, (Member("y", long, 0),)))
    enum = out.add(Enum("e", 4, (Enumerator("A", -1), Enumerator("B", 7)), True))
    out.add(Enum64("big", 8, (Enumerator("BIG", 1 << 40),)))
    out.add(Ptr(out.add(Fwd("fwd"))))
    out.add(Float("double", 8))
    out.add(Ptr(out.add(Const(out.add(Volatile(out.add(Typedef("t", struct))))))))
    out.add(Restrict(pointer))
    proto = out.add(FuncProto(integer, (Param("ctx", pointer), Param("e", enum))))
    func = out.add(Func("f", proto, FuncLinkage.GLOBAL))
    out.add(DeclTag("mine", func, 0))
    first = out.add(Var("v", struct, VarLinkage.GLOBAL))
    second = out.add(Var("w", union, VarLinkage.STATIC))
    out.add(DataSec(".data", 64, (SecVar(first, 0, 32), SecVar(second, 40, 16))))
    btf = out.build()
    assert {found.kind for found in btf} == set(Kind)
    assert load(btf) == 0


def test_control():
    """A section with a wrong struct size is refused, so the tests here can fail."""
    out = BtfBuilder(byteorder=sys.byteorder)
    integer = out.add(Int("int", 4, 32, IntEncoding.SIGNED))
    out.add(Struct("s", 2, (Member("a", integer, 0),)))
    assert load(out.build()) < 0


def fill_in(btf):
    """Give each data section a size and its variables places, as a loader does."""
    edit = btf.edit()
    for type_id in range(1, len(btf)):
        found = btf.type(type_id)
        if not isinstance(found, DataSec):
            continue
        at = 0
        rows = []
        for row in found.variables:
            at = -(-at // 16) * 16
            rows.append(dataclasses.replace(row, byte_off=at, size=max(row.size, 1)))
            at += rows[-1].size
        # A section of unnamed constants has no variables, and the kernel wants a size.
        filled = dataclasses.replace(found, size=max(at, 1), variables=tuple(rows))
        edit.replace(type_id, filled)
    edit.add(Ptr(0))
    edit.string("a line of source")
    return edit.build()


def test_edited_fixtures():
    """Clang's sections load after their data sections were filled in and a type was added."""
    libbpf()
    loaded = 0
    for name, data in fixture_objects():
        section = ELFFile(io.BytesIO(data)).get_section_by_name(".BTF")
        if section is None or "clang" not in name:
            continue
        btf = Btf.parse(section.data())
        # Externs are resolved by a loader; the kernel refuses them as they are.
        has_extern = btf.find(".ksyms") or btf.find(".kconfig")
        if btf.byteorder == sys.byteorder and not has_extern:
            assert load(fill_in(btf)) == 0, name
            loaded += 1
    if not loaded:
        pytest.skip("no fixture has a .BTF of this machine's byte order")
