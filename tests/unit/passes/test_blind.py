"""blind: what each constant becomes, what is left alone, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.interp import Machine
from bpfpatch.linux.parity.masks import unmask
from bpfpatch.passes import Pipeline, Target
from bpfpatch.passes.blind import Blind
from bpfpatch.passes.setting import Setting
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Anchor, AnchoredTable, Program

INTERNAL = Target.internal()
CONSTANT = 0x1D2C3B4A


def blinded(
    program: str | Program, target: Target | None = None, *, seed: int = 1, spill: bool = True
) -> Program:
    """A program or assembly, after the pass."""
    given = assemble(program) if isinstance(program, str) else program
    return Pipeline((Blind(seed=seed, spill=spill, strict=True),)).run(given, target).program


def returned(program: Program) -> int:
    """R0 after a run."""
    return Machine(program).run().r0


def decoded(text: str, target: Target = INTERNAL) -> list[str]:
    """The kernel's form with its masks taken out, as assembly."""
    insns = unmask(blinded(text, target).insns)
    return [isa.describe(insns, slot) for slot in range(len(insns))]


PAIR = ["r11 = 0x7", "r11 ^= 0x0"]
PAIR32 = ["w11 = 0x7", "w11 ^= 0x0"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("r3 = 7", [*PAIR, "r3 = r11"]),
        ("w3 = 7", [*PAIR32, "w3 = w11"]),
        ("r3 = 0", ["r3 ^= r3"]),
        ("w3 = 0", ["r3 ^= r3"]),
        ("r3 += 7", [*PAIR, "r3 += r11"]),
        ("r3 -= 7", [*PAIR, "r3 -= r11"]),
        ("r3 *= 7", [*PAIR, "r3 *= r11"]),
        ("r3 /= 7", [*PAIR, "r3 /= r11"]),
        ("r3 s/= 7", [*PAIR, "r3 s/= r11"]),
        ("w3 s%= 7", [*PAIR32, "w3 s%= w11"]),
        ("w3 |= 7", [*PAIR32, "w3 |= w11"]),
        ("r3 ^= 7", [*PAIR, "r3 ^= r11"]),
        ("*(u8 *)(r10 - 8) = 7", [*PAIR, "*(u8 *)(r10 - 0x8) = r11"]),
        ("*(u64 *)(r10 - 8) = 7", [*PAIR, "*(u64 *)(r10 - 0x8) = r11"]),
        ("if r3 s> 7 goto +0", [*PAIR, "if r3 s> r11 goto +0x0"]),
        ("if w3 & 7 goto +0", [*PAIR32, "if w3 & w11 goto +0x0"]),
        ("r3 <<= 7", ["r3 <<= 0x7"]),
        ("w3 s>>= 7", ["w3 s>>= 0x7"]),
        ("r3 = -r3", ["r3 = -r3"]),
        ("r3 = be16 r3", ["r3 = be16 r3"]),
        ("r3 = (s8)r4", ["r3 = (s8)r4"]),
        ("r3 += r4", ["r3 += r4"]),
        ("lock *(u64 *)(r10 - 8) += r3", ["lock *(u64 *)(r10 - 0x8) += r3"]),
        ("call 7", ["call bpf_get_prandom_u32"]),
    ],
)
def test_internal_form(text: str, wanted: list[str]) -> None:
    """Three instructions for a constant, by way of R11, as in bpf_jit_blind_insn()."""
    assert decoded(f"{text}; exit") == [*wanted, "exit"]


def test_internal_ld_imm64() -> None:
    """Both halves, one after the other, whatever the number stands for; not a function."""
    wanted = ["r11 = 0x1", "r11 ^= 0x0", "r11 <<= 0x20", "r3 = r11"]
    wanted += ["w11 = 0x2", "w11 ^= 0x0", "r3 |= r11", "exit"]
    assert decoded("r3 = 0x100000002 ll; exit") == wanted
    extended = decoded("r3 = 0x100000002 ll; exit", Target.internal(arch="riscv64"))
    assert extended == [*wanted[:6], "w11 = zext w11", *wanted[6:]]
    text = "r3 = f ll; exit; f: exit"
    assert blinded(text, INTERNAL).to_bytes() == assemble(text).to_bytes()


def test_internal_form_leaves_the_hidden_register_alone() -> None:
    """What has R11 in it is the kernel's own: a second run only blinds the rest."""
    once = blinded("r3 = 7; exit", INTERNAL)
    assert blinded(once, INTERNAL).to_bytes() == once.to_bytes()


def test_internal_form_sees_what_was_inserted() -> None:
    """Constants that another pass puts in are blinded, too."""
    patches = PatchList(assemble("r0 = r1; exit"))
    patches.insert_before(0, Body.asm("r1 = 5"))
    Blind().run_for(patches, Setting(INTERNAL))
    assert len(patches.linearize().program) == 5


def test_jumps_to_a_blinded_instruction_reach_its_constant() -> None:
    """A loop's back edge must set the register each time round."""
    after = blinded("r0 = 0; again: r0 += 7; if r0 < 99 goto again; exit")
    refs = after.refs
    assert refs.target.tolist() == [1]
    assert isa.describe(after.insns, 1).startswith("r1 = ")


def test_moves_need_no_register() -> None:
    """A move is followed by an exclusive or on the same register."""
    after = blinded("w1 = 5; r2 = 6; r3 ^= 7; exit").insns
    assert after["code"].tolist() == [0xB4, 0xA4, 0xB7, 0xA7, 0xA7, 0xA7, 0x95]
    assert isa.dst(after).tolist() == [1, 1, 2, 2, 3, 3, 0]
    assert (after["imm"][0] ^ after["imm"][1], after["imm"][2] ^ after["imm"][3]) == (5, 6)


@pytest.mark.parametrize(
    "value",
    [
        0x1122334455667788,
        0x8877665544332211,
        0x11223344AABBCCDD,
        (1 << 64) - 1,
        0,
        1 << 31,
        1 << 63,
    ],
)
def test_64_bit_constants_keep_their_value(value: int) -> None:
    """All signs of both halves come out right."""
    after = blinded(f"r0 = {value:#x} ll; exit")
    assert isa.LD_IMM64 not in after.insns["code"]
    assert returned(after) == value


def test_same_seed_same_program() -> None:
    """Random, but not without a seed."""
    assert blinded("r0 = 5; exit").to_bytes() == blinded("r0 = 5; exit").to_bytes()
    assert blinded("r0 = 5; exit", seed=2).to_bytes() != blinded("r0 = 5; exit").to_bytes()
    with pytest.raises(OptionError, match="seed is 0 or more"):
        Blind(seed=-1)


@pytest.mark.parametrize(
    "text",
    [
        "r1 = 0; exit",
        "w1 = 0; exit",
        "if r1 == 0 goto out; out: exit",
        "if r1 != 0 goto out; out: exit",
        "r1 <<= 5; exit",
        "call 7; exit",
        "call kfunc 77; exit",
        "w1 = atomic_fetch_add((u32 *)(r10 - 8), w1); exit",
        "r1 = f ll; exit; f: exit",
        "r1 = (s8)r2; exit",
    ],
)
def test_loadable_form_leaves_alone(text: str) -> None:
    """Zeros that hide nothing, checks for NULL, shifts, and what is no constant."""
    assert blinded(text).to_bytes() == assemble(text).to_bytes()


@pytest.mark.parametrize("src", [1, 2, 3, 5, 6])
def test_loadable_form_leaves_references_alone(src: int) -> None:
    """A map, a place in one, a kernel variable: no constant of the program."""
    program = Program(isa.concat([isa.ld_imm64(1, 5, src), isa.exit_()]))
    assert blinded(program).to_bytes() == program.to_bytes()


@pytest.mark.parametrize("text", ["r1 = 5; exit", "r1 = 5 ll; exit", "r1 += 5; exit"])
def test_owned_immediate_is_left_alone(text: str) -> None:
    """What a relocation, a CO-RE record or an attached row belongs to is not touched."""
    program = assemble(text)
    row = AnchoredTable(np.array([0], np.int32), np.array([7]), Anchor.OWN)
    owned = program.with_tables(core_relo=row)
    assert blinded(owned).to_bytes() == program.to_bytes()
    external = dataclasses.replace(program, external=np.array([0], np.int32))
    assert blinded(external).to_bytes() == program.to_bytes()
    empty = AnchoredTable(np.zeros(0, np.int32), np.zeros(0, np.int64), Anchor.OWN)
    patches = PatchList(program.with_tables(core_relo=empty))
    patches.attach("core_relo", 0, 7)
    Blind().run_for(patches, Setting(Target()))
    assert patches.linearize().program.to_bytes() == program.to_bytes()


USES = "; ".join(f"*(u64 *)(r10 - 8) = r{register}" for register in range(10))


def crowded(start: str, body: str = "r3 += 7") -> str:
    """Code with all registers alive around an instruction."""
    return f"{start}; {body}; {USES}; exit"


SET = "; ".join(f"r{register} = r1" for register in (0, 2, 3, 4, 5, 6, 7, 8, 9))


def test_spill_saves_and_restores() -> None:
    """Where all registers are alive, one goes below what is in use of the stack, and comes back."""
    after = blinded(crowded(SET)).insns
    slots = np.flatnonzero(after["off"] == -16)
    assert [isa.describe(after, slot) for slot in slots.tolist()] == [
        "*(u64 *)(r10 - 0x10) = r9",
        "r9 = *(u64 *)(r10 - 0x10)",
    ]


@pytest.mark.parametrize(
    ("text", "spill", "reason"),
    [
        (crowded(SET), False, "spill=false forbids"),
        (
            crowded(SET + "; r9 = r10; r9 += r1", "r3 += 7; r9 = *(u8 *)(r9 + 0)"),
            True,
            "how much of the stack is in use cannot be told",
        ),
        (
            crowded(SET + "; *(u64 *)(r10 - 512) = 1")
            .replace("(r10 - 8)", "(r1 + 8)")
            .replace("exit", "r2 = r10; r2 += -512; r1 = 0; call bpf_map_lookup_elem; exit"),
            True,
            "the stack has no room",
        ),
        (f"r1 += 7; {USES}; exit", True, "too few are set"),
    ],
)
def test_refusal_without_a_free_register(text: str, spill: bool, reason: str) -> None:
    """The error says where, that no register is free, and why none could be saved."""
    with pytest.raises(UnsupportedError, match="no register is free") as caught:
        blinded(text, spill=spill)
    assert reason in str(caught.value)
    assert "insn " in str(caught.value)


@pytest.mark.parametrize("body", ["r3 += 7", "if r3 > 7 goto on; r3 += r3; on: r4 += r3"])
def test_registers_are_made_again(body: str) -> None:
    """Where a register holds a constant, it takes the other one, and gets its own back."""
    sums = "; ".join(f"r0 += r{register}; r0 *= 3" for register in range(1, 10))
    constants = "; ".join(f"r{register} = {1 << register}" for register in range(10))
    text = f"{constants}; *(u64 *)(r10 - 512) = 1; {body}; {sums}; r1 = *(u64 *)(r10 - 512); exit"
    after = blinded(text)
    assert returned(after) == returned(assemble(text))
    stores = after.insns[isa.is_store(after.insns)]
    assert (stores["off"] == -512).all()


def test_what_cannot_be_blinded_stays() -> None:
    """By default such a constant stays as it is, and a notice says where."""
    program = assemble(crowded(SET))
    done = Pipeline((Blind(spill=False),)).run(program)
    assert 7 in done.program.insns["imm"].tolist()
    first, last = done.notices
    assert "`r3 += 0x7`: cannot blind this constant: no register is free" in first
    assert last == "1 constants are not blinded"


def test_refusal_names_an_inserted_instruction() -> None:
    """Also where a pass put in what cannot be blinded."""
    patches = PatchList(assemble(crowded(SET, "r3 += r3")))
    patches.insert_before(9, Body.asm("r4 += 5"))
    with pytest.raises(UnsupportedError, match="which a pass inserted"):
        Blind(spill=False, strict=True).run_for(patches, Setting(Target()))
