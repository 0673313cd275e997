"""Types, one by one, against bpftool's raw dump, and sizes against libbpf."""

import ctypes
import ctypes.util
import functools
import io
import json
import random
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from bpfpatch.btf import (
    Array,
    Btf,
    DataSec,
    DeclTag,
    Enum,
    Enum64,
    Func,
    FuncProto,
    Fwd,
    Int,
    IntEncoding,
    Kind,
    Struct,
    Union,
    Var,
)
from bpfpatch.errors import FormatError
from support.inputs.bpfobjects import debian_objects, fixture_objects
from support.machine.tools import need

VMLINUX = Path("/sys/kernel/btf/vmlinux")
ENCODINGS = {
    IntEncoding.NONE: "(none)",
    IntEncoding.SIGNED: "SIGNED",
    IntEncoding.CHAR: "CHAR",
    IntEncoding.BOOL: "BOOL",
}
MOST_WITH_BTF = 20
LINKAGE = ("static", "global", "extern")


@functools.cache
def sections():
    """(name, object, .BTF) of all objects that have one."""
    out = []
    for name, data in (*fixture_objects(), *debian_objects()):
        section = ELFFile(io.BytesIO(data)).get_section_by_name(".BTF")
        if section is not None:
            out.append((name, data, section.data()))
    return out


def dumped(path):
    """Bpftool's types of a file."""
    done = subprocess.run(
        ["bpftool", "-j", "btf", "dump", "file", path, "format", "raw"],
        capture_output=True,
        check=True,
    )
    rows = json.loads(done.stdout)["types"]
    for row in rows:
        # bpftool 7.1 sign-extends unsigned 32-bit values in JSON, though not in text.
        if row["kind"] == "ENUM" and row["encoding"] == "UNSIGNED":
            for value in row["values"]:
                value["val"] &= 0xFFFFFFFF
    return rows


def named(name):
    """How bpftool shows a name."""
    return name or "(anon)"


def members(found):
    """A struct's members as bpftool shows them."""
    out = []
    for member in found.members:
        row = {"name": named(member.name), "type_id": member.type_id, "bits_offset": member.bit_off}
        if member.bitfield_size:
            row["bitfield_size"] = member.bitfield_size
        out.append(row)
    return {"size": found.size, "vlen": len(out), "members": out}


def details(found):  # noqa: PLR0911 - one return a kind
    """What bpftool shows beside a type's id, kind and name."""
    match found:
        case Int():
            # bpftool has no word for the "signed char" of gcc 12, which has two bits set.
            word = ENCODINGS.get(found.encoding, "UNKN")
            bits = {"bits_offset": found.bit_off, "nr_bits": found.bits}
            return {"size": found.size, "encoding": word} | bits
        case Struct() | Union():
            return members(found)
        case Array():
            ids = {"type_id": found.type_id, "index_type_id": found.index_type_id}
            return ids | {"nr_elems": found.count}
        case Enum() | Enum64():
            values = [{"name": value.name, "val": value.value} for value in found.values]
            word = "SIGNED" if found.is_signed else "UNSIGNED"
            return {
                "encoding": word,
                "size": found.size,
                "vlen": len(values),
                "values": values,
            }
        case Fwd():
            return {"fwd_kind": "union" if found.is_union else "struct"}
        case Func() | Var():
            return {"type_id": found.type_id, "linkage": LINKAGE[found.linkage]}
        case FuncProto():
            params = [{"name": named(p.name), "type_id": p.type_id} for p in found.params]
            return {"ret_type_id": found.type_id, "vlen": len(params), "params": params}
        case DataSec():
            rows = [
                {"type_id": v.type_id, "offset": v.byte_off, "size": v.size}
                for v in found.variables
            ]
            return {"size": found.size, "vlen": len(rows), "vars": rows}
        case DeclTag():
            return {"type_id": found.type_id, "component_idx": found.component}
    if found.kind is Kind.FLOAT:
        return {"size": found.size}
    return {"type_id": found.type_id}


def shown(type_id, found):
    """A type as bpftool shows it."""
    start = {"id": type_id, "kind": found.kind.name, "name": named(found.name)}
    return start | details(found)


def test_objects(tmp_path):
    """Every type of every object is the one that bpftool shows."""
    need("bpftool")
    path = tmp_path / "one.o"
    assert len(sections()) > MOST_WITH_BTF
    for name, data, section in sections():
        path.write_bytes(data)
        ours = [shown(at, found) for at, found in enumerate(Btf.parse(section)) if at]
        assert ours == dumped(path), name


def test_rewritten_objects(tmp_path):
    """What a builder writes is what bpftool reads: all records written anew, and one more."""
    need("bpftool")
    path = tmp_path / "one.btf"
    assert len(sections()) > MOST_WITH_BTF
    for name, _, section in sections()[::3]:
        btf = Btf.parse(section)
        edit = btf.edit()
        for type_id in range(1, len(btf)):
            edit.replace(type_id, btf.type(type_id))
        edit.add(Fwd("a_new_one"))
        out = edit.build()
        path.write_bytes(out.to_bytes())
        rows = dumped(path)
        assert rows == [shown(at, found) for at, found in enumerate(out) if at], name
        assert rows[-1]["name"] == "a_new_one"


def test_vmlinux():
    """Every type of the running kernel is the one that bpftool shows."""
    need("bpftool")
    if not VMLINUX.exists():
        pytest.skip("this kernel has no /sys/kernel/btf/vmlinux")
    btf = Btf.parse(VMLINUX.read_bytes())
    rows = dumped(VMLINUX)
    assert len(rows) == len(btf) - 1
    for row in rows:
        assert shown(row["id"], btf.type(row["id"])) == row


@functools.cache
def libbpf():
    """The library, or a skip."""
    name = ctypes.util.find_library("bpf")
    if name is None:
        pytest.skip("libbpf is not installed")
    lib = ctypes.CDLL(name)
    lib.btf__new.restype = ctypes.c_void_p
    lib.btf__new.argtypes = [ctypes.c_char_p, ctypes.c_uint32]
    lib.btf__free.argtypes = [ctypes.c_void_p]
    lib.btf__resolve_size.restype = ctypes.c_int64
    lib.btf__resolve_size.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    lib.libbpf_get_error.restype = ctypes.c_long
    lib.libbpf_get_error.argtypes = [ctypes.c_void_p]
    lib.btf__find_by_name.restype = ctypes.c_int32
    lib.btf__find_by_name.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    lib.btf__type_cnt.restype = ctypes.c_uint32
    lib.btf__type_cnt.argtypes = [ctypes.c_void_p]
    return lib


def size_or_error(btf, type_id):
    """A size, or -1."""
    try:
        return btf.size_of(type_id)
    except FormatError:
        return -1


def compare_with_libbpf(section, ids):
    """Sizes, and which type a name finds."""
    lib = libbpf()
    theirs = lib.btf__new(section, len(section))
    assert lib.libbpf_get_error(theirs) == 0
    try:
        ours = Btf.parse(section)
        assert len(ours) == lib.btf__type_cnt(theirs)
        for type_id in ids(len(ours)):
            expected = max(-1, lib.btf__resolve_size(theirs, type_id))
            assert size_or_error(ours, type_id) == expected, type_id
            name = ours.name_of(type_id)
            if name and type_id:
                found = lib.btf__find_by_name(theirs, name.encode())
                assert ours.find_one(name) == found, name
    finally:
        lib.btf__free(theirs)


def test_sizes_of_objects():
    """Sizes and look-ups are libbpf's, for every type of every object."""
    libbpf()
    for _, _, section in sections()[::2]:
        compare_with_libbpf(section, range)


def test_sizes_of_vmlinux():
    """The same for a sample of the running kernel's types."""
    libbpf()
    if not VMLINUX.exists():
        pytest.skip("this kernel has no /sys/kernel/btf/vmlinux")
    rng = random.Random(1)
    compare_with_libbpf(VMLINUX.read_bytes(), lambda end: rng.sample(range(end), 200))


def test_truncated_as_libbpf():
    """Of a section cut anywhere, libbpf reads none that is refused here."""
    lib = libbpf()
    _, _, section = min(sections(), key=lambda row: len(row[2]))
    for length in range(0, len(section), 7):
        theirs = lib.btf__new(section[:length], length)
        if lib.libbpf_get_error(theirs) == 0:
            Btf.parse(section[:length])
            lib.btf__free(theirs)
        else:
            with pytest.raises(FormatError):
                Btf.parse(section[:length])
