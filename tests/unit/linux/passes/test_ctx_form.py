"""Forms, and the instructions that they make."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble
from bpfpatch.btf import Array, Btf, Int, IntEncoding, Member, Ptr, Struct
from bpfpatch.btf.builder import BtfBuilder
from bpfpatch.errors import AsmError, OptionError, UnsupportedError
from bpfpatch.facts.layouts import Layouts
from bpfpatch.linux.passes.ctx.form import Scene, make, members, statements


def types() -> Btf:
    """``struct pkt { u64 len; void *dev; u8 pad:4, kind:2; u8 raw[16]; }``, ``struct dev``."""
    builder = BtfBuilder()
    u8 = builder.add(Int("u8", 1, IntEncoding(0), 0, 8))
    u32 = builder.add(Int("u32", 4, IntEncoding(0), 0, 32))
    u64 = builder.add(Int("u64", 8, IntEncoding(0), 0, 64))
    raw = builder.add(Array(u8, u32, 16))
    pointer = builder.add(Ptr(0))
    pkt = (
        Member("len", u64, 0),
        Member("dev", pointer, 64),
        Member("pad", u8, 128, 4),
        Member("kind", u8, 132, 2),
        Member("raw", raw, 192),
    )
    builder.add(Struct("pkt", 40, pkt))
    builder.add(Struct("dev", 8, (Member("flags", u32, 0), Member("id", u32, 32))))
    return builder.build()


LAYOUTS = Layouts(types())
LOAD = Scene(LAYOUTS)
STORE = Scene(LAYOUTS, is_load=False)


def assert_makes(form: str, scene: Scene, wanted: str) -> None:
    """A form makes these instructions: R1 is dst, R2 src, R3 tmp."""
    assert make(form, scene).insns().tolist() == assemble(wanted).insns.tolist()


def test_one_member() -> None:
    """A member is loaded from the context with its own width."""
    assert_makes("pkt.len", LOAD, "r1 = *(u64 *)(r2 + 0)")


def test_members_behind_pointers() -> None:
    """From the second member on the pointer is what has just been loaded."""
    assert_makes("pkt.dev -> dev.id", LOAD, "r1 = *(u64 *)(r2 + 8); r1 = *(u32 *)(r1 + 4)")


def test_null_check() -> None:
    """A null pointer is the result itself."""
    wanted = "r1 = *(u64 *)(r2 + 8); if r1 == 0 goto +1; r1 = *(u32 *)(r1 + 4)"
    assert_makes("pkt.dev ?-> dev.id", LOAD, wanted)


def test_end_is_in_front_of_what_comes_after() -> None:
    """What is cut out of the result is cut out of a null pointer, too."""
    made = make("pkt.dev ?-> dev.id", LOAD).insns("w1 &= 255")
    assert made["off"][1] == 1
    assert len(made) == 4


def test_numbers_need_no_types() -> None:
    """A place may be given as a number with a width."""
    scene = Scene(Layouts(None))
    assert_makes("16:8 -> 4:2", scene, "r1 = *(u64 *)(r2 + 16); r1 = *(u16 *)(r1 + 4)")


def test_element_of_an_array() -> None:
    """The member that the access is about moves by the place within the field."""
    scene = Scene(LAYOUTS, at=6, width=2)
    assert_makes("pkt.dev -> pkt.raw", scene, "r1 = *(u64 *)(r2 + 8); r1 = *(u16 *)(r1 + 30)")


def test_store_of_a_register() -> None:
    """A register is stored with the member's width."""
    assert_makes("pkt.len", STORE, "*(u64 *)(r1 + 0) = r2")


def test_store_of_an_immediate() -> None:
    """The place of an immediate is left 0."""
    assert_makes("pkt.len", Scene(LAYOUTS, is_load=False, is_imm=True), "*(u64 *)(r1 + 0) = 0")


def test_store_with_a_borrowed_register() -> None:
    """Assembly names its registers and members."""
    form = "dst->pkt.len = tmp; tmp = dst->pkt.dev; tmp->dev.id@ = val; tmp = dst->pkt.len"
    wanted = """
        *(u64 *)(r1 + 0) = r3
        r3 = *(u64 *)(r1 + 8)
        *(u32 *)(r3 + 4) = r2
        r3 = *(u64 *)(r1 + 0)
    """
    assert_makes(form, STORE, wanted)


def test_hidden_register_and_halves() -> None:
    """``ax`` is the kernel's own register, ``32`` the lower half."""
    assert_makes("ax = src->pkt.kind; dst32 = 1", LOAD, "r11 = *(u8 *)(r2 + 16); w1 = 1")


def test_masks() -> None:
    """A bitfield's mask, its complement, its shift, and a number of the pass."""
    form = "dst32 &= {pkt.kind}; dst32 &= {~pkt.kind}; dst32 >>= {>>pkt.kind}; dst = {limit}"
    wanted = "w1 &= 0x30; w1 &= -49; w1 >>= 4; r1 = 7"
    assert_makes(form, Scene(LAYOUTS, {"limit": 7}), wanted)


@pytest.mark.parametrize(("order", "wanted"), [("little", 1), ("big", 2)])
def test_byte_order_condition(order: str, wanted: int) -> None:
    """A statement can be for machines of one byte order."""
    made = make("little? dst = 1; big? dst = 2", Scene(Layouts(None, 64, order))).insns()
    assert made["imm"].tolist() == [wanted]


def test_type_condition() -> None:
    """A statement can depend on whether a member is a pointer."""
    form = "pointer(pkt.dev)? dst = 1; integer(pkt.dev)? dst = 2; integer(pkt.len)? dst = 3"
    assert make(form, LOAD).insns()["imm"].tolist() == [1, 3]


def test_register_condition() -> None:
    """A statement can be for stores of registers alone."""
    form = "register? if val > 5 goto end; pkt.len"
    assert len(make(form, STORE).insns()) == 2
    assert len(make(form, Scene(LAYOUTS, is_load=False, is_imm=True)).insns()) == 1


def test_width_of_the_last_member() -> None:
    """How much a load leaves is what it loads last."""
    assert make("pkt.dev -> dev.id", LOAD).last_width == 4
    assert make("dst = 0", LOAD).last_width == 0


def test_names_of_members() -> None:
    """All members that a form names can be listed."""
    form = "dst = src->pkt.len; pkt.dev ?-> pkt.raw+dev.id:4; 8:4"
    assert members(form) == {"pkt.len", "pkt.dev", "pkt.raw+dev.id"}
    assert statements(" a ;\n\n b") == ["a", "b"]


@pytest.mark.parametrize(
    ("form", "scene", "error", "message"),
    [
        ("pkt.gone", LOAD, UnsupportedError, "have no pkt.gone"),
        ("pkt.raw", LOAD, OptionError, "16 bytes are not an access; give a width"),
        ("8", LOAD, OptionError, "0 bytes are not an access; give a width"),
        ("pkt.dev -> dev.id", STORE, OptionError, "a store goes to one member"),
        ("dst = {nothing}", LOAD, OptionError, "there is no number {nothing}"),
        ("soon? dst = 1", LOAD, OptionError, "there is no condition 'soon'"),
        ("dst is 1", LOAD, AsmError, "line 1"),
    ],
)
def test_what_is_no_form(form: str, scene: Scene, error: type[Exception], message: str) -> None:
    """A mistake in a form is said."""
    with pytest.raises(error, match=message):
        make(form, scene).insns()
