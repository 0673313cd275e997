"""Laws of reading and writing .BTF."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfpatch.btf import (
    CORE_RELO,
    FUNC_INFO,
    LINE_INFO,
    Array,
    Btf,
    BtfBuilder,
    BtfExt,
    Const,
    DataSec,
    DeclTag,
    Enum,
    Enum64,
    Enumerator,
    ExtSection,
    Float,
    Func,
    FuncProto,
    Fwd,
    Int,
    IntEncoding,
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

COUNT = 6
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
IDS = st.integers(0, COUNT)
U32 = st.integers(0, 2**32 - 1)


def rows(strategy):
    """A short tuple of items."""
    return st.lists(strategy, max_size=3).map(tuple)


def enumerators(low, high):
    """Enum values within bounds."""
    return rows(st.builds(Enumerator, NAMES, st.integers(low, high)))


BITFIELDS = rows(st.builds(Member, NAMES, IDS, st.integers(0, 2**24 - 1), st.integers(0, 255)))
PLAIN = rows(st.builds(Member, NAMES, IDS, U32))
TYPES = st.one_of(
    st.builds(
        Int,
        NAMES,
        U32,
        st.integers(0, 255),
        st.integers(0, 7).map(IntEncoding),
        st.integers(0, 255),
    ),
    st.sampled_from([Ptr, Const, Volatile, Restrict]).flatmap(lambda kind: st.builds(kind, IDS)),
    st.builds(Array, IDS, IDS, U32),
    st.builds(Struct, NAMES, U32, PLAIN),
    st.builds(Struct, NAMES, U32, BITFIELDS, st.just(True)),
    st.builds(Union, NAMES, U32, PLAIN),
    st.builds(Enum, NAMES, U32, enumerators(0, 2**32 - 1)),
    st.builds(Enum, NAMES, U32, enumerators(-(2**31), 2**31 - 1), st.just(True)),
    st.builds(Enum64, NAMES, U32, enumerators(0, 2**64 - 1)),
    st.builds(Enum64, NAMES, U32, enumerators(-(2**63), 2**63 - 1), st.just(True)),
    st.builds(Fwd, NAMES, st.booleans()),
    st.builds(Typedef, NAMES, IDS),
    st.builds(Func, NAMES, IDS, st.integers(0, 2)),
    st.builds(FuncProto, IDS, rows(st.builds(Param, NAMES, IDS))),
    st.builds(Var, NAMES, IDS, U32),
    st.builds(DataSec, NAMES, U32, rows(st.builds(SecVar, IDS, U32, U32))),
    st.builds(Float, NAMES, U32),
    st.builds(DeclTag, NAMES, IDS, st.integers(-1, 2**31 - 1), st.booleans()),
    st.builds(TypeTag, NAMES, IDS, st.booleans()),
)
SECTIONS = st.lists(TYPES, min_size=COUNT, max_size=COUNT)
ORDERS = st.sampled_from(["little", "big"])


def build(types, byteorder):
    """A section with these types."""
    out = BtfBuilder(byteorder=byteorder)
    for found in types:
        out.add(found)
    return out.build()


@settings(deadline=None)
@given(types=SECTIONS, byteorder=ORDERS)
def test_read_inverts_write(types, byteorder):
    """What is written reads the same."""
    btf = Btf.parse(build(types, byteorder).to_bytes(), byteorder)
    assert list(btf)[1:] == types


@settings(deadline=None)
@given(types=SECTIONS, byteorder=ORDERS)
def test_replacing_with_itself_is_identity(types, byteorder):
    """Writing each record again gives the same bytes."""
    btf = build(types, byteorder)
    edit = btf.edit()
    for type_id in range(1, len(btf)):
        edit.replace(type_id, btf.type(type_id))
    assert edit.build().to_bytes() == btf.to_bytes()


@settings(deadline=None)
@given(types=SECTIONS, others=SECTIONS, byteorder=ORDERS)
def test_edits_leave_the_rest_alone(types, others, byteorder):
    """Replacing some types and adding others changes no other id and no string offset."""
    btf = build(types, byteorder)
    edit = btf.edit()
    for type_id in (2, 5):
        edit.replace(type_id, others[type_id - 1])
    edit.add(others[0])
    out = edit.build()
    expected = list(types)
    expected[1], expected[4] = others[1], others[4]
    assert list(out)[1:] == [*expected, others[0]]
    assert out.string_bytes.startswith(btf.string_bytes)


@settings(deadline=None)
@given(types=SECTIONS, name=NAMES)
def test_find_is_a_filter(types, name):
    """find() gives what going through all types gives."""
    btf = build(types, "little")
    for wanted in {name, types[0].name}:
        slow = [at for at, found in enumerate(types, 1) if found.name == wanted]
        assert btf.find(wanted) == tuple(slow)


@settings(deadline=None)
@given(
    offs=st.lists(st.lists(U32, max_size=4), min_size=3, max_size=3),
    other=st.integers(0, 6),
    byteorder=ORDERS,
)
def test_ext_read_inverts_write(offs, other, byteorder):
    """Records that are written read the same."""
    out = BtfBuilder(byteorder=byteorder)
    names = [(text, out.string(text)) for text in ("xdp", "tc")]
    for _ in range(COUNT):
        out.add(Fwd(""))
    strings = out.build()
    parts = []
    for places, dtype in zip(offs, (FUNC_INFO, LINE_INFO, CORE_RELO), strict=True):
        records = np.zeros(len(places), dtype)
        records["insn_off"] = sorted(places)
        records[dtype.names[1]] = other
        sections = [ExtSection(*name, records) for name in names]
        parts.append(tuple(section for section in sections if len(records)))
    ext = BtfExt.empty(byteorder).with_sections(*parts)
    again = BtfExt.parse(ext.to_bytes(), strings)
    assert (again.func_info, again.line_info, again.core_relo) == tuple(parts)
