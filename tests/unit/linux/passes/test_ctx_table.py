"""Tables of contexts: what they allow, how they are registered, and that they fit the kernel's."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from bpfpatch.btf import Btf
from bpfpatch.errors import FormatError, OptionError
from bpfpatch.facts import ProgType
from bpfpatch.facts.layouts import Layouts
from bpfpatch.linux.passes.ctx import (
    ContextField,
    ContextTable,
    Converter,
    context,
    context_of,
    contexts,
    register_context,
    registry,
)
from bpfpatch.linux.passes.ctx.access import Access, ContextSpan
from bpfpatch.linux.passes.ctx.table import Hit

VMLINUX = Path("/sys/kernel/btf/vmlinux")
LDX = {1: 0x71, 2: 0x69, 4: 0x61, 8: 0x79}
STX = {1: 0x73, 2: 0x6B, 4: 0x63, 8: 0x7B}


@pytest.fixture(autouse=True)
def _own_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_BY_NAME", dict(registry._BY_NAME))
    monkeypatch.setattr(registry, "_BY_TYPE", dict(registry._BY_TYPE))


def hit(field: ContextField, codes: dict[int, int], byte_off: int, width: int) -> Hit | None:
    """How an access to a field at byte 8 goes."""
    assert isinstance(field.size, int)
    span = ContextSpan(field, 8, field.size, field.unit or field.size)
    return span.hit(Access(codes[width], byte_off))


def test_whole_field() -> None:
    """Without more said, a field is accessed as a whole."""
    field = ContextField("f", 8, 4, "0:4", "0:4")
    assert hit(field, LDX, 8, 4) == Hit(0, 4)
    assert hit(field, STX, 8, 4) == Hit(0, 4)
    assert hit(field, LDX, 8, 2) is None
    assert hit(field, LDX, 8, 8) is None
    assert hit(field, LDX, 12, 4) is None


def test_part_of_a_field() -> None:
    """Parts of a narrow field can be loaded, but not stored."""
    field = ContextField("f", 8, 4, "0:4", "0:4", is_narrow=True)
    assert hit(field, LDX, 11, 1) == Hit(0, 4, 3)
    assert hit(field, LDX, 10, 2) == Hit(0, 4, 2)
    assert hit(field, STX, 10, 2) is None


def test_element() -> None:
    """An element of an array, or a part of it, says which one it is."""
    field = ContextField("f", 8, 16, "0:4", unit=4, is_narrow=True)
    assert hit(field, LDX, 16, 4) == Hit(8, 4)
    assert hit(field, LDX, 22, 2) == Hit(12, 4, 2)


def test_wide() -> None:
    """Several elements at once, where that is allowed, within the field, on its boundary."""
    field = ContextField("f", 8, 16, "0:4", unit=4, wide=8)
    assert hit(field, LDX, 16, 8) == Hit(8, 8)
    assert hit(field, LDX, 12, 8) is None
    assert hit(ContextField("f", 8, 12, "0:4", unit=4, wide=8), LDX, 16, 8) is None


def test_wider_than_the_field() -> None:
    """A field may be loaded with the padding behind it."""
    field = ContextField("f", 8, 2, "0:2", is_narrow=True, wide=4)
    assert hit(field, LDX, 8, 4) == Hit(0, 4)
    assert hit(field, LDX, 9, 1) == Hit(0, 2, 1)


def test_read_only() -> None:
    """A field without a form for stores cannot be stored to."""
    assert hit(ContextField("f", 8, 4, "0:4"), STX, 8, 4) is None


@pytest.mark.parametrize("form", ["r1 = 5", "dst = 1 ll", "call 5", "w7 = 0"])
def test_form_with_a_register_of_its_own(form: str) -> None:
    """Forms leave it to the access which registers there are."""
    with pytest.raises(OptionError, match="its registers are dst, src, tmp and ax"):
        ContextField("f", 0, 4, form)


def test_context_checks_its_fields() -> None:
    """Names are unique, and each field can be accessed."""
    with pytest.raises(OptionError, match="two fields 'f'"):
        ContextTable("c", (ContextField("f", 0, 4, "0:4"), ContextField("f", 4, 4, "0:4")))
    with pytest.raises(OptionError, match="neither load nor store"):
        ContextTable("c", (ContextField("f", 0, 4),))


def test_register() -> None:
    """A registered context goes by its name, and by kinds of programs."""
    own = ContextTable("own", (ContextField("f", 0, 4, "0:4"),))
    assert context_of(ProgType.KPROBE) is None
    register_context(own, ["kprobe"])
    register_context(own)
    assert context("own") is own
    assert context_of(ProgType.KPROBE) is own
    with pytest.raises(OptionError, match="two contexts are called 'own'"):
        register_context(ContextTable("own", (ContextField("g", 0, 4, "0:4"),)))
    with pytest.raises(OptionError, match=r"no context 'nobody'; there are: .*xdp_md"):
        context("nobody")


def vmlinux() -> Btf:
    """The running kernel's types."""
    try:
        return Btf.parse(VMLINUX.read_bytes())
    except (OSError, FormatError):
        pytest.skip(f"{VMLINUX} is not there")


NOT_NAMED = {"padding"}
"""Rows for what the struct has no name for."""


def test_tables_fit_the_structs_of_the_kernel() -> None:
    """Each row is a member of the struct that programs see, at its place and of its size."""
    btf = vmlinux()
    layouts = Layouts(btf)
    tables = [*contexts().values()]
    tables += [table.aware for table in tables if table.aware]
    for table in tables:
        for span in Converter(table, layouts, {}).spans:
            if span.field.name in NOT_NAMED:
                continue
            place = btf.member_path(table.uapi, span.field.name)
            assert (place.byte_off, btf.size_of(place.type_id)) == (span.byte_off, span.size), (
                table.name,
                span.field.name,
            )


def test_rows_do_not_overlap() -> None:
    """No byte is in two fields of a table."""
    layouts = Layouts(vmlinux())
    assert contexts()
    for table in contexts().values():
        spans = sorted(Converter(table, layouts, {}).spans, key=lambda span: span.byte_off)
        assert spans, table.name
        for one, other in pairwise(spans):
            assert one.byte_off + one.size <= other.byte_off, (table.name, one.field.name)
