"""lower: what it makes of each kind of instruction, and that it does the same."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.passes import Lower, Pipeline, Target
from bpfpatch.passes.setting import Setting
from bpfpatch.patch import PatchList
from bpfpatch.program import Program
from bpfpatch.runs import Input, open_runner
from support.cases.rewrite import assert_same_listing, listing, program
from support.generators.programs import random_code
from support.inputs.bpfobjects import fixture_path

LEVELS = ["v1", "v2", "v3"]
EDGES = [0, 1, -1, 5, 255, 0x7FFF, 0x80, 0x7FFFFFFF, -0x80000000, 1 << 31, 1 << 40, -(1 << 63)]


def lowered(given: Program, cpu: str = "v1", keep: str = "") -> Program:
    """The program for an older processor."""
    return Pipeline((Lower(cpu, keep),)).run(given).program


def r0(given: Program) -> int:
    """What a program returns in the interpreter."""
    with open_runner(given, "interp") as runner:
        outcome = runner.run(Input(mem=b""))
    assert outcome.error is None
    assert outcome.r0 is not None
    return outcome.r0


def level(given: Program) -> int:
    """The cpu version that a program needs, but for may_goto."""
    insns = given.insns[~isa.is_may_goto(given.insns)]
    return int(isa.min_cpu(insns).max())


@pytest.mark.parametrize("cpu", LEVELS)
def test_random_programs_do_the_same(cpu: str) -> None:
    """Random programs need no more than was asked for, and return what they returned."""
    n_lowered = 0
    start = "\n".join(f"r{k} = {7 * k + 1}\nr{k} *= {k + 3}" for k in range(10))
    for seed in range(60):
        text = random_code(seed)
        if "call" in text:  # what a function leaves in R1 to R5, nothing may read; these do
            continue
        before = assemble(text.replace(".subprog f0\n", f".subprog f0\n{start}\n"))
        after = lowered(before, cpu, keep="may_goto")
        assert level(after) <= int(cpu[1:]), seed
        assert r0(after) == r0(before), seed
        n_lowered += 1
    assert n_lowered > 15


SIGNS = ["+=", "-=", "*=", "|=", "&=", "^=", "<<=", ">>=", "s>>=", "/=", "%=", "s/=", "s%="]
COMPARISONS = ["==", "!=", ">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=", "&"]


def mixed(work: list[str]) -> Program:
    """A program of work on r1 and r2, whose results all go into r0."""
    lines = ["r0 = 0", "r9 = 0"]
    for left in EDGES:
        for right in EDGES:
            lines += [f"r1 = {left} ll", f"r2 = {right} ll"]
            for one in work:
                lines += ["r3 = r1", "r4 = r2", one, "r0 *= 31", "r0 += r3", "r0 += r9"]
    return assemble("\n".join([*lines, "exit"]))


def immediates(sign: str) -> list[int]:
    """Constants for an operator: counts of shifts are small."""
    return [0, 1, 7, 31] if "<<" in sign or ">>" in sign else [1, 7, -1, -128, 0x7FFFFFFF]


@pytest.mark.parametrize("sign", SIGNS)
def test_narrow_and_signed_arithmetic(sign: str) -> None:
    """Each operation on each pair of edges gives what it gave: register, itself, constants."""
    work = [f"w3 {sign} w4", f"w3 {sign} w3", *(f"w3 {sign} {k}" for k in immediates(sign))]
    if sign.startswith("s") and "=" in sign and ">" not in sign:
        work += [f"r3 {sign} r4", f"r3 {sign} r3", f"r3 {sign} -1", f"r3 {sign} 7"]
    before = mixed(work)
    after = lowered(before)
    assert level(after) == 1
    assert r0(after) == r0(before)


@pytest.mark.parametrize("sign", COMPARISONS)
@pytest.mark.parametrize("cpu", ["v1", "v2"])
def test_comparisons(sign: str, cpu: str) -> None:
    """Each comparison on each pair of edges goes where it went."""
    work = []
    for number, (kind, right) in enumerate(
        [("w", "w4"), ("w", "0"), ("w", "7"), ("w", "-1"), ("r", "r4"), ("r", "7"), ("r", "-7")]
    ):
        jump = f"if {kind}3 {sign} {right} goto +1"
        work.append(f"r9 = {number}\n{jump}\nr9 = 100")
    before = mixed(work)
    after = lowered(before, cpu)
    assert level(after) <= int(cpu[1:])
    assert r0(after) == r0(before)


def test_moves_loads_and_swaps() -> None:
    """So do moves with a sign, loads with one, byte swaps, negations and plain moves."""
    work = [f"{kind}3 = (s{bits}){kind}4" for kind in "rw" for bits in (8, 16)]
    work += ["r3 = (s32)r4", "w3 = -w3", "w3 = w4", "w3 = -5", "w3 = 5", "w3 = w3"]
    work += [f"r3 = bswap{bits} r3" for bits in (16, 32, 64)]
    work += [f"*(u64 *)(r10 - 8) = r4; r3 = *(s{bits} *)(r10 - 8)" for bits in (8, 16, 32)]
    before = mixed(work)
    for cpu in LEVELS:
        after = lowered(before, cpu)
        assert level(after) <= int(cpu[1:])
        assert r0(after) == r0(before)


def test_registers_are_saved_where_none_is_free() -> None:
    """Where every register is read later, one is saved around the work, on both ways out."""
    start = "\n".join(f"r{k} = *(u64 *)(r10 - 8)\nr{k} *= {k + 3}" for k in range(10))
    start = f"r0 = 1234567890123 ll\n*(u64 *)(r10 - 8) = r0\n{start}"
    end = "\n".join(f"r0 += r{k}" for k in range(1, 10)) + "\nexit"
    for work in ("w1 s/= w2", "if w1 < w2 goto +1\nr3 = 9", "if w1 s< 7 goto +1\nr3 = 9"):
        before = assemble(f"{start}\n{work}\n{end}")
        after = lowered(before)
        assert isa.is_store(after.insns).sum() > 1
        assert r0(after) == r0(before)


def test_rows_stay_on_what_a_loader_can_patch() -> None:
    """A relocation or CO-RE record moves to the line that has the constant."""
    before = program(
        """w1 = 5 // reloc a
        w1 += 7 // reloc b
        r2 = *(s16 *)(r10 - 8) // reloc c
        r0 = r1
        exit"""
    )
    assert_same_listing(
        listing(lowered(before)),
        listing(
            program(
                """r1 = 5 // reloc a
                r1 <<= 32; r1 >>= 32
                r1 += 7 // reloc b
                r1 <<= 32; r1 >>= 32
                r2 = *(u16 *)(r10 - 8) // reloc c
                r2 <<= 48; r2 s>>= 48
                r0 = r1
                exit"""
            )
        ),
    )


OPEN = [f"w3 {sign} {{}}" for sign in ("/=", "%=", "s/=", "s%=")]
OPEN += [f"r3 {sign} {{}}" for sign in ("s/=", "s%=")]
OPEN += [f"if {kind}3 {sign} {{}} goto skip" for kind in "wr" for sign in COMPARISONS]


@pytest.mark.parametrize("text", OPEN)
def test_a_constant_that_comes_later_is_moved_to_a_register(text: str) -> None:
    """A divisor or the side of a comparison that a loader fills in: any number will do the same."""
    start = "r3 = 1 ll\n r9 = 5\n "
    end = "\n r9 = 6\nskip:\n r0 = r9\n r0 *= 31\n r0 += r3\n exit"
    before = program(start + text.format(5) + " // reloc a" + end)
    after = lowered(before)

    def patched(given: Program, left: int, constant: int) -> Program:
        insns = given.insns.copy()
        insns["imm"][:2] = np.array([left], np.int64).view(np.int32)
        insns["imm"][given.tables["reloc"].insn] = constant
        return Program.from_bytes(insns.tobytes())

    for left in (0, 5, -1, 0x7FFFFFFF, 1 << 31, 1 << 40, -(1 << 63)):
        for constant in (7, -1):
            wanted = r0(patched(before, left, constant))
            assert r0(patched(after, left, constant)) == wanted, (left, constant)


@pytest.mark.parametrize("text", ["r1 = bswap16 r1"])
def test_rows_that_cannot_stay(text: str) -> None:
    """Where the older form has no such line, the pass says so."""
    with pytest.raises(UnsupportedError, match="a loader will fill in its constant"):
        lowered(program(f"r1 = 1\n {text} // reloc a\n exit"))


def test_row_that_a_pass_has_attached() -> None:
    """What a pass has put on an instruction cannot be moved."""
    patches = PatchList(program("w1 = 5\n exit // reloc a"))
    patches.attach("reloc", 0, "b")
    with pytest.raises(UnsupportedError, match="a pass has put a relocation on it"):
        Lower().run_for(patches, Setting(Target.loadable()))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("r1 = atomic_fetch_add((u64 *)(r10 - 8), r1)", "gives what was there"),
        ("lock *(u64 *)(r10 - 8) |= r1", "changes memory so in one step"),
        ("may_goto +0", "the kernel counts the rounds"),
        ("r1 = load_acquire((u64 *)(r10 - 8))", "orders memory"),
        ("r1 = addr_space_cast(r1, 0, 1)", "no arenas"),
        ("gotox r1", "no indirect jumps"),
        ("callx r1", "has indirect calls"),
    ],
)
def test_what_has_no_older_form(text: str, reason: str) -> None:
    """It is refused with the instruction and the reason, or stays where it may."""
    before = assemble(f"r1 = 1\n*(u64 *)(r10 - 8) = r1\nw1 += 1\n{text}\nr0 = 0\nexit")
    with pytest.raises(UnsupportedError, match=reason) as caught:
        lowered(before)
    assert "insn 3" in str(caught.value)
    name = isa.opcode_of(int(isa.words(before.insns)[3])).name
    for keep in ("all", name, f"w+{name}"[2:]):
        after = lowered(before, keep=keep)
        kept = isa.min_cpu(after.insns) > 1
        assert int(np.count_nonzero(kept)) == 1


def test_many_refusals_are_counted() -> None:
    """The first few are named, and the rest is counted."""
    before = assemble("may_goto +0\n" * 8 + "r0 = 0\nexit")
    with pytest.raises(
        UnsupportedError, match=r"(?s)8 instructions cannot be.*and 3 more"
    ) as caught:
        lowered(before)
    assert str(caught.value).count("\n") == 6


def test_what_is_old_enough_stays() -> None:
    """A program without anything newer is left as it is."""
    before = assemble("r0 = 0\nexit")
    assert lowered(before).to_bytes() == before.to_bytes()


def test_big_endian_swaps() -> None:
    """A byte swap becomes the one that the target's byte order makes unconditional."""
    before = assemble("r0 = bswap16 r0\nexit")
    for arch, name in (("x86_64", "be16"), ("s390x", "le16")):
        target = Target(arch=Target.internal(arch=arch).arch)
        after = Pipeline((Lower(),)).run(before, target).program
        assert isa.opcode_of(int(isa.words(after.insns)[0])).name == name


BIG = [
    ("asm_branches.clang-19.v4.eb.o", "branches"),
    ("global_funcs.clang-16.v3.eb.g.strip-g.o", "first"),
    ("globals.clang-14.v3.eb.o", "use_globals"),
    ("long_jump.clang-16.v3.eb.g.o", "far_away"),
    ("many_lines.clang-14.v3.eb.o", "operate"),
    ("switches.clang-14.v2.eb.o", "machine"),
    ("xdp_parse.gcc.v3.eb.g.o", "parse_xdp"),
    ("xdp_parse.gcc.v3.eb.g.o", "parse_tc"),
    ("xdp_parse.gcc.v3.eb.g.o", "parse_socket"),
]


@pytest.mark.parametrize(("name", "prog"), BIG)
def test_big_endian_objects(name: str, prog: str) -> None:
    """A lowered object in the other byte order needs cpu v1, and answers packets as it did."""
    before = ElfObject.read(fixture_path(name))
    made, _ = Pipeline((Lower("v1"),)).run_object(before)
    after = ElfObject.parse(made.to_bytes())
    assert int(isa.min_cpu(after.code.insns).max()) == 1 < isa.min_cpu(before.code.insns).max()
    packets = [bytes(range(n)) for n in (20, 60, 61, 200)]
    assert answers(after, prog, packets) == answers(before, prog, packets)


def answers(obj: ElfObject, prog: str, packets: list[bytes]) -> list[tuple[int, bytes | None]]:
    """What a program makes of packets."""
    out = []
    for packet in packets:
        with open_runner(obj.link(prog), "interp", obj=obj) as runner:
            outcome = runner.run(Input(packet=packet))
        assert outcome.error is None
        out.append((outcome.r0, outcome.packet))
    return out


def test_part_of_an_address_is_moved_whole() -> None:
    """What may be an address from a context is moved as it is, where its upper half is not read."""
    before = assemble(
        "r2 = *(u32 *)(r1 + 4)\nr6 = *(u32 *)(r1 + 0)\nw7 = w2\nw7 -= w6\nr0 = r7\nexit"
    )
    wanted = "r2 = *(u32 *)(r1 + 4)\nr6 = *(u32 *)(r1 + 0)\nr7 = r2\nr7 -= r6\n"
    wanted += "r7 <<= 32\nr7 >>= 32\nr0 = r7\nexit"
    assert lowered(before).to_bytes() == assemble(wanted).to_bytes()


@pytest.mark.parametrize("options", [{"cpu": "v4"}, {"cpu": "3"}, {"keep": "nothing"}])
def test_wrong_options(options: dict[str, str]) -> None:
    """There is v1, v2 and v3, and instructions have the names of the table."""
    with pytest.raises(OptionError, match="pass lower"):
        Lower(**options)
