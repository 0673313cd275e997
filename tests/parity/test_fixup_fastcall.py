"""Spills around calls that clobber nothing, beside what the running kernel leaves of them."""

from __future__ import annotations

import itertools

import pytest

from bpfpatch.btf import Kind
from bpfpatch.linux.passes.fastcall import Fastcall
from bpfpatch.linux.passes.fixup_calls import FixupCalls
from bpfpatch.passes.nops import Nops
from support.cases.fixupparity import Case, assert_same, kernel_types
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

START = "r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5; r6 = 6; r7 = 7; r9 = r10; "
END = "; r0 = 0; exit"
# It shows how deep the frame is.
SHOW_DEPTH = "; may_goto +1; goto -2; r0 = 0; exit"


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def spill(*places: tuple[int, int]) -> str:
    """Spills of (register, stack offset)."""
    return "; ".join(f"*(u64 *)(r10 - {off}) = r{reg}" for reg, off in places)


def fill(*places: tuple[int, int]) -> str:
    """Their fills, the other way round."""
    return "; ".join(f"r{reg} = *(u64 *)(r10 - {off})" for reg, off in reversed(places))


def around(call: str, *places: tuple[int, int]) -> str:
    """A call with spills and fills around it."""
    return f"{spill(*places)}; {call}; {fill(*places)}"


def same(text: str, depth: int, kind: str = "raw_tracepoint", more: tuple[int, ...] = ()) -> None:
    """Our code is the kernel's."""
    case = Case(START + text, depths=(depth, *more), load={"prog_type": kind})
    assert_same(case, Fastcall(), Nops(once=True), FixupCalls())


@pytest.mark.parametrize("n_spills", range(1, 6))
@pytest.mark.parametrize("first", [8, 16, 40])
@pytest.mark.parametrize("kind", ["raw_tracepoint", "xdp", "socket_filter", "cgroup_skb"])
def test_patterns(n_spills: int, first: int, kind: str) -> None:
    """Spills around get_smp_processor_id go where the kind of program gets the promise."""
    places = [(1 + index, first + 8 * index) for index in range(n_spills)]
    end = SHOW_DEPTH.replace("r0 = 0", "r0 = 1")
    same(around("call 8", *places) + end, first + 8 * n_spills - 8, kind)


VARIANTS = {
    "order of slots": around("call 8", (1, 16), (2, 8)),
    "same register twice": around("call 8", (1, 8), (1, 16)),
    "callee-saved register": around("call 8", (6, 8)),
    "one callee-saved among them": around("call 8", (6, 8), (1, 16)),
    "fills in the wrong order": f"{spill((1, 8), (2, 16))}; call 8; {fill((2, 16), (1, 8))}",
    "another register filled": f"{spill((1, 8))}; call 8; r2 = *(u64 *)(r10 - 8)",
    "another slot filled": f"{spill((1, 8), (2, 16))}; call 8; r2 = *(u64 *)(r10 - 8)",
    "one not filled": f"{spill((1, 8), (2, 16))}; call 8; r2 = *(u64 *)(r10 - 16)",
    "something between": f"{spill((1, 8))}; r6 = 1; call 8; r1 = *(u64 *)(r10 - 8)",
    "half a spill": "*(u32 *)(r10 - 8) = r1; call 8; r1 = *(u32 *)(r10 - 8)",
    "read again": around("call 8", (1, 8)) + "; r0 = *(u64 *)(r10 - 8)",
    "written elsewhere": "*(u64 *)(r10 - 8) = 1; " + around("call 8", (1, 8)),
    "byte written": "*(u8 *)(r10 - 5) = 1; " + around("call 8", (1, 8)),
    "above them written": "*(u64 *)(r10 - 8) = 1; " + around("call 8", (1, 16)),
    "through another pointer": "*(u64 *)(r9 - 8) = 1; " + around("call 8", (1, 8)),
    "above, through a pointer": "*(u64 *)(r9 - 8) = 1; " + around("call 8", (1, 16)),
    "deeper spill elsewhere": "*(u64 *)(r10 - 24) = r6; " + around("call 8", (1, 8)),
    "a helper that clobbers": around("call 7", (1, 8)),
    "both": around("call 8", (1, 8)) + "; " + around("call 7", (1, 8)),
    "both, other slots": around("call 8", (1, 16)) + "; " + around("call 7", (1, 8)),
    "twice": around("call 8", (1, 8), (2, 16)) + "; " + around("call 8", (2, 8), (1, 16)),
    "fewer the second time": around("call 8", (1, 8), (2, 16)) + "; " + around("call 8", (2, 16)),
    "argument of a helper": around("call 7", (3, 8)),
    "in a loop": "at: " + around("call 8", (1, 8)) + "; r7 -= 1; if r7 > 0 goto at",
    "jump to the call": "call 7; if r0 == 0 goto at; r1 = 1; *(u64 *)(r10 - 8) = r1; "
    "at: call 8; r1 = *(u64 *)(r10 - 8)",
    "jump to the spill": "call 7; r1 = 1; if r0 == 0 goto at; r1 = 2; at: "
    + around("call 8", (1, 8)),
    "jump to the fill": "call 7; r1 = 1; if r0 == 0 goto at; *(u64 *)(r10 - 8) = r1; "
    "call 8; at: r1 = *(u64 *)(r10 - 8)",
}
DEPTHS = {"deeper spill elsewhere": 24}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name: str) -> None:
    """What is a pattern, and what breaks it, is the kernel's to say."""
    text = VARIANTS[name]
    depth = max(int(part.split(")")[0]) for part in text.replace("r9", "r10").split("r10 - ")[1:])
    same(text + SHOW_DEPTH, depth)


@pytest.mark.parametrize(("reg", "off"), [*itertools.product(range(1, 6), [8, 40])])
def test_patterns_of_other_helpers(reg: int, off: int) -> None:
    """A pattern around a helper that clobbers counts only if it spills what is no argument."""
    one = around("call 8", (reg, off))
    print_it = (
        f"*(u64 *)(r10 - 64) = 0; r1 = r10; r1 += -64; r2 = 8; r3 = 1; r4 = 1; r5 = 1; "
        f"{spill((reg, off))}; call 6; {fill((reg, off))}"
    )
    same(one + "; " + print_it + SHOW_DEPTH, 64)


@pytest.mark.parametrize("reg", range(1, 6))
@pytest.mark.parametrize("name", ["bpf_cast_to_kern_ctx", "bpf_rdonly_cast"])
def test_kfuncs(name: str, reg: int) -> None:
    """Casts clobber their arguments and R0 only, and become moves."""
    types = kernel_types()
    call = f"call kfunc {types.find_one(name, Kind.FUNC)}"
    task = types.find_one("task_struct", Kind.STRUCT)
    text = f"r6 = r1; r3 = 3; r4 = 4; r5 = 5; r2 = {task}; r1 = r6; {around(call, (reg, 8))}"
    case = Case(text + SHOW_DEPTH, depths=(8,), load={"prog_type": "sched_cls"})
    assert_same(case, Fastcall(), Nops(once=True), FixupCalls())


def test_frames_of_their_own() -> None:
    """What a subprog does to its frame changes nothing for its caller's."""
    text = (
        around("call 8", (1, 8)) + "; call sub; r0 = 0; may_goto +1; goto -2; exit; "
        "sub: r1 = 1; " + around("call 8", (1, 8)) + "; r0 = *(u64 *)(r10 - 8); "
        "may_goto +1; goto -2; exit"
    )
    same(text, 8, more=(8,))


@pytest.mark.parametrize("off", [8, 16, 24])
def test_helpers_that_get_an_address(off: int) -> None:
    """A helper's access to a slot of the pattern breaks it; one above does not."""
    text = (
        f"*(u64 *)(r10 - {off}) = 0; r6 = r1; {around('call 8', (1, 16))}; "
        f"r1 = r10; r1 += -{off}; r2 = 8; call 16"
    )
    same(text + SHOW_DEPTH, max(off, 16))
