"""Text to fragments: what clang's assembler does not have, and what a fragment says."""

from __future__ import annotations

import pytest

from bpfpatch import isa
from bpfpatch.asm import FragmentRef, parse
from bpfpatch.isa import R0, R1, R2, R10


def one(text: str) -> list[tuple[int, int, int, int]]:
    """The fields of what a text assembles to."""
    return parse(text).insns.tolist()


def test_nothing() -> None:
    """Comments and empty statements are no instructions."""
    fragment = parse("\n ; ; // a\n # b\n /* c\n d */ ;")
    assert len(fragment.insns) == 0
    assert (fragment.refs, dict(fragment.labels), fragment.keeps) == ((), {}, None)
    assert (fragment.lines, fragment.subprogs) == ((), ())


def test_instructions_are_read_only() -> None:
    """A fragment cannot be changed."""
    assert not parse("exit").insns.flags.writeable


def test_reference_by_name() -> None:
    """A reference by name keeps the name's place and leaves its field 0."""
    fragment = parse("r0 = 0\n  if r0 == 0 goto done; call fn\ndone: exit")
    assert fragment.refs == (FragmentRef(1, "done", 2, 19), FragmentRef(2, "fn", 2, 30))
    assert dict(fragment.labels) == {"done": 3}
    assert fragment.insns["off"].tolist() == [0, 0, 0, 0]
    assert isa.ref_kinds(fragment.insns).tolist() == [0, isa.RefKind.JUMP16, isa.RefKind.CALL, 0]


def test_undefined_names_stay() -> None:
    """Names that the text does not define are the caller's to resolve."""
    fragment = parse("goto @target; if r1 > 2 goto @end; goto elsewhere; goto @orig")
    assert [ref.label for ref in fragment.refs] == ["@target", "@end", "elsewhere", "@orig"]


def test_label_at_the_end() -> None:
    """A label may stand behind the last instruction."""
    assert dict(parse("goto out; out:").labels) == {"out": 1}


def test_labels_on_own_line_and_several() -> None:
    """Several labels can name one instruction, on its line or above."""
    assert dict(parse("a:\nb: c: exit\nd:\n exit").labels) == {"a": 0, "b": 0, "c": 0, "d": 1}


def test_original_instruction() -> None:
    """@orig is one all-zero slot, told by ``keeps``, and may have a label."""
    fragment = parse("r1 = 1; here: @orig; r2 = 2")
    assert fragment.keeps == 1
    assert fragment.insns.tolist()[1] == (0, 0, 0, 0)
    assert len(fragment.insns) == 3
    assert dict(fragment.labels) == {"here": 1}


def test_lines() -> None:
    """Every slot knows its instruction's line, both of an ld_imm64 too."""
    assert parse("\nr1 = 1\nr2 = 5 ll; r3 = 3 /*\n\n*/\nexit").lines == (2, 3, 3, 3, 6)


def test_numeric_distances_are_filled_in() -> None:
    """A numeric target counts from the next slot and needs no name."""
    fragment = parse("goto +2; goto pc-1; gotol 70000; call pc+5; may_goto -3")
    assert fragment.refs == ()
    assert fragment.insns["off"].tolist() == [2, -1, 0, 0, -3]
    assert fragment.insns["imm"].tolist() == [0, 0, 70000, 5, 0]


def test_numeric_labels() -> None:
    """A numeric label can be defined again; 1b is the last one before, 1f the next."""
    fragment = parse("1: goto 1b; goto 1f; r1 = 5 ll; 1: goto 1b; call 2f; r1 = 1b ll; 2: exit")
    assert fragment.refs == ()
    assert fragment.insns["off"].tolist() == [-1, 2, 0, 0, -1, 0, 0, 0, 0]
    assert fragment.insns["imm"].tolist() == [0, 0, 5, 0, 0, 2, -3, 0, 0]


SAME = [
    ("call bpf_map_lookup_elem", isa.call_helper(1)),
    ("call 1", isa.call_helper(1)),
    ("call bpf_map_lookup_elem#1", isa.call_helper(1)),
    ("call kfunc 5", isa.call_kfunc(5)),
    ("call kfunc 5, 1", isa.call_kfunc(5, 1)),
    ("call pc-3", isa.call_subprog(-3)),
    ("r1 = map[id:7]", isa.ld_imm64(R1, 7, 1)),
    ("r1 = map[id:7][0]+8", isa.ld_imm64(R1, 7 | 8 << 32, 2)),
    ("r1 = subprog[+4]", isa.ld_func(R1, 4)),
    ("ld_pseudo r1, 2, 0x800000007", isa.ld_imm64(R1, 7 | 8 << 32, 2)),
    ("r1 = w2", isa.mov32(R1, R2)),
    ("lock *(u32 *)(r1 + 0) |= r2", isa.atomic("or", "u32", R1, 0, R2)),
    ("r2 = atomic_fetch_add((u32 *)(r1 +4), r2)", isa.atomic("fetch_add", "u32", R1, 4, R2)),
    ("r2 = atomic64_xchg((u64 *)(r1 +4), r2)", isa.atomic("xchg", "u64", R1, 4, R2)),
    ("r0 = atomic_cmpxchg((u32 *)(r1 +0), r0, r2)", isa.atomic("cmpxchg", "u32", R1, 0, R2)),
    ("w0 = load_acquire((u8 *)(r1 + 2))", isa.atomic("load_acquire", "u8", R0, 2, R1)),
    ("store_release((u64 *)(r10 - 8), r1)", isa.atomic("store_release", "u64", R10, -8, R1)),
    ("gotox r1", isa.make(0x0D, 1)),
    ("r0 = *(u16 *)skb[r2 + 5]", isa.make(0x48, src=2, imm=5)),
    (".8byte 0x0000000500000107", isa.make(0x07, 1, 0, 0, 5)),
    (".quad 0x95, -1", isa.concat([isa.exit_(), isa.make(0xFF, 15, 15, -1, -1)])),
    ("12: (b7) r1 = 5", isa.mov(R1, 5)),
    ("  12:\tif r1 > 0x5 goto +0x3 <LBB0_1+0x8>", isa.jump("jgt", R1, 5, 3)),
    ("r1 = 037777777777", isa.mov(R1, -1)),
]


@pytest.mark.parametrize(("text", "insns"), SAME)
def test_forms_of_our_own(text: str, insns: isa.Insns) -> None:
    """Forms that clang does not read: newer, the kernel's, and ours."""
    assert one(text) == insns.tolist()


@pytest.mark.parametrize("text", ["r1 = fn ll", "r1 = func fn ll", "r1 = &fn", "R1=&fn"])
def test_function_address(text: str) -> None:
    """Loading a name loads the address of a subprog."""
    fragment = parse(text)
    assert fragment.insns.tolist() == isa.ld_imm64(R1, 0, 4).tolist()
    assert [ref.label for ref in fragment.refs] == ["fn"]


def test_own_label_hides_a_helper() -> None:
    """A call of a label of the text is no helper call, whatever its name."""
    fragment = parse("call bpf_loop\nexit\nbpf_loop: exit")
    assert [ref.label for ref in fragment.refs] == ["bpf_loop"]
    assert isa.is_subprog_call(fragment.insns)[0]


def test_subprogs() -> None:
    """Subprogs are the label at slot 0, what is called or addressed, and what is declared."""
    fragment = parse(
        """
        start: call fn; r1 = &cb; goto here
        here: exit
        fn: exit
        cb: exit
        .subprog spare
            exit
        .globl known
        known: exit
        """
    )
    assert fragment.subprogs == ((0, "start"), (5, "fn"), (6, "cb"), (7, "spare"), (8, "known"))


def test_called_name_wins() -> None:
    """Of two names of one function the called one is its name."""
    assert parse("loop: main: call main; exit").subprogs == ((0, "main"),)


def test_keywords_can_be_labels() -> None:
    """A word of the syntax is a label where one is expected."""
    assert dict(parse("lock: goto lock; if: exit").labels) == {"lock": 0, "if": 1}


def test_raw_second_slot() -> None:
    """Raw slots need not be whole instructions."""
    assert one(".8byte 0x18, 0") == [(0x18, 0, 0, 0), (0, 0, 0, 0)]
