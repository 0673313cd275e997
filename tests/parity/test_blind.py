"""Blinding: our kernel form is the kernel's, and the loadable form hides constants and loads."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from bpfpatch import isa, kernel
from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.linux.parity.masks import unmask
from bpfpatch.passes import Pipeline, Target
from bpfpatch.passes.blind import Blind
from bpfpatch.program import Program
from support.generators.programs import verifiable_code
from support.inputs.bpfobjects import debian_objects, fixture_objects
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

PACKET = bytes(range(64))
INTERNAL = Target.internal()
# Each is so odd that it is in no machine code by chance.
CONSTANTS = (0x1D2C3B4A, 0x2E3D4C5B, 0x3F4E5D6C, 0x4051627E, 0x5162738F, 0x62738491)
FORMS = {
    "mov": "r1 = {0}; w2 = {1}; r0 = r1; r0 += r2; exit",
    "ld_imm64": "r1 = {wide} ll; r0 = r1; r0 >>= 7; exit",
    "alu64": """
        call 7; r0 &= {0}; r0 |= {1}; r0 += {2}; r0 *= {3}; r0 -= {4}; r0 ^= {5}; r0 &= 0; exit
    """,
    "alu32": "r0 = 9; w0 += {0}; w0 *= {1}; w0 |= {2}; w0 -= {3}; w0 ^= {4}; w0 &= {5}; exit",
    "division": "r0 = -1; r0 /= {0}; r0 += 0x7fffffff; r0 %= {1}; exit",
    "signed division": "r0 = -1; r0 += {2}; r0 s/= {0}; w0 += {3}; w0 s%= {1}; exit",
    "jumps": """
        call 7; r1 = 1; if r0 == {0} goto out; if r0 s> {1} goto out; if r0 & {2} goto out
        r1 = 2; out: r0 = 7; exit
    """,
    "jumps of 32 bits": """
        call 7; if w0 == {0} goto out; if w0 < {1} goto out; if w0 s<= {2} goto out; out: r0 = 7
        exit
    """,
    "stores": """
        *(u64 *)(r10 - 8) = {0}; *(u32 *)(r10 - 16) = {1}; r0 = *(u64 *)(r10 - 8)
        w1 = *(u32 *)(r10 - 16); r0 += r1; exit
    """,
    "loop": "r0 = 0; again: r0 += {0}; if r0 < {4} goto again; exit",
    "stack pointer": """
        r2 = r10; r2 += -16; *(u64 *)(r2 + 0) = {0}; r0 = *(u64 *)(r10 - 16); exit
    """,
    "packet": """
        r2 = *(u32 *)(r1 + 76); r3 = *(u32 *)(r1 + 80); r4 = r2; r4 += 14; r0 = {0}
        if r4 > r3 goto out; r0 = *(u8 *)(r2 + 3); out: exit
    """,
}


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def need_harden() -> None:
    """Skip where the setting cannot be changed."""
    if "harden" not in kernel.probe().features:
        pytest.skip("not on this kernel: bpf_jit_harden cannot be set")


def form(name: str) -> str:
    """A form with its constants."""
    wide = CONSTANTS[0] << 32 | CONSTANTS[1]
    return FORMS[name].format(*(hex(one) for one in CONSTANTS), wide=hex(wide))


def prog_type(name: str) -> str:
    """What kind of program a form needs to be."""
    return "sched_cls" if name == "packet" else "socket_filter"


def blinded(program: Program, target: Target | None = None, seed: int = 1) -> Program:
    """A program after the pass."""
    return Pipeline((Blind(seed=seed),)).run(program, target).program


def assert_same_form(program: Program, **options: str) -> None:
    """What we make of the kernel's own code is what the kernel makes of it, but for the masks."""
    need_harden()
    with (
        kernel.load(program, **options) as plain,
        kernel.load(program, mode="jit+harden", **options) as hard,
    ):
        before, theirs = plain.xlated(), hard.xlated()
    ours = blinded(Program(before), INTERNAL).insns
    assert len(ours) == len(theirs)
    assert (unmask(ours) == unmask(theirs)).all()
    assert ours.tobytes() != theirs.tobytes() or len(before) == len(theirs)


def one_function(seed: int) -> bool:
    """Whether a generated program has no function: of others no blinded code can be read."""
    return "call f" not in verifiable_code(seed)


@pytest.mark.parametrize("name", FORMS)
def test_internal_form_is_the_kernels(name: str) -> None:
    """Same instructions, and every pair decodes to the same constant."""
    assert_same_form(assemble(form(name)), prog_type=prog_type(name))


@pytest.mark.parametrize("seed", [seed for seed in range(240) if one_function(seed)])
def test_internal_form_of_random_code_is_the_kernels(seed: int) -> None:
    """The same for generated programs of one function, with everything that the kernel put in."""
    assert_same_form(assemble(verifiable_code(seed)))


@pytest.mark.parametrize("name", FORMS)
def test_loadable_form_hides_its_constants(name: str) -> None:
    """It loads, gives the same result, and no constant is in the machine code any more."""
    program = assemble(form(name))
    options = {"prog_type": prog_type(name)}
    with kernel.load(program, **options) as plain, kernel.load(blinded(program), **options) as ours:
        assert plain.test_run(PACKET).retval == ours.test_run(PACKET).retval
        if not plain.info().jited_len:
            pytest.skip("no JIT here")
        before, after = plain.jited(), ours.jited()
    used = [one for one in CONSTANTS if hex(one) in form(name) or "wide" in FORMS[name]]
    used = [one for one in used if one.to_bytes(4, "little") in before]
    assert used
    assert not [hex(one) for one in used if one.to_bytes(4, "little") in after]


def test_internal_form_of_several_functions_shows_in_the_image() -> None:
    """With subprograms only the machine code tells: no constant is in it, in either form."""
    need_harden()
    program = assemble(
        f"r1 = {CONSTANTS[0]:#x}; call f; r0 += {CONSTANTS[1]:#x}; exit; "
        f"f: r0 = r1; r0 ^= {CONSTANTS[2]:#x}; exit"
    )
    with (
        kernel.load(program) as plain,
        kernel.load(program, mode="jit+harden") as hard,
        kernel.load(blinded(program)) as ours,
    ):
        results = {one.test_run(PACKET).retval for one in (plain, hard, ours)}
        images = plain.jited(), hard.jited(), ours.jited()
    assert len(results) == 1
    for constant in CONSTANTS[:3]:
        found = [constant.to_bytes(4, "little") in image for image in images]
        assert found == [True, False, False]


@pytest.mark.parametrize("seed", range(120))
def test_loadable_form_of_random_code_computes_the_same(seed: int) -> None:
    """Whatever the program, blinded it loads and gives the same result."""
    program = assemble(verifiable_code(seed))
    with kernel.load(program) as plain, kernel.load(blinded(program, seed=seed)) as ours:
        assert plain.test_run(PACKET).retval == ours.test_run(PACKET).retval


# R0 to R9 are all in use where the constants are; the frame has an address in a register.
# What the registers hold depends on the packet, so that none can be made again.
CROWDED = """
    r6 = *(u32 *)(r1 + 0); call 7
    *(u64 *)(r10 - 24) = 9; r9 = r6; r9 *= 21
    r1 = r6; r1 *= 3; r2 = r6; r2 *= 5; r3 = r6; r3 *= 7; r4 = r6; r4 *= 9; r5 = r6; r5 *= 11
    r7 = r6; r7 *= 13; r8 = r6; r8 *= 15; r0 = r6; r0 *= 17; r6 *= 19
    {body}
    out: r0 += r1; r0 += r2; r0 += r3; r0 += r4; r0 += r5; r0 += r6; r0 += r7; r0 += r8
    r0 += r9; r1 = *(u64 *)(r10 - 24); r0 += r1; exit
"""


@pytest.mark.parametrize(
    "body",
    [
        "r3 += {0}",
        "w5 &= {0}",
        "*(u32 *)(r10 - 20) = {0}",
        "if r4 > {0} goto out; r5 = 0",
        "if r4 < {0} goto out; r5 = 0",
        "if w4 != {0} goto out; r5 = 0",
        "again: r4 += {3}; if r4 < {4} goto again",
    ],
)
def test_crowded_place_is_blinded_with_a_spill(body: str) -> None:
    """Where no register is free, one is saved below all that is in use, and put back."""
    text = CROWDED.format(body=body.format(*(hex(one) for one in CONSTANTS)))
    program = assemble(text)
    after = blinded(program)
    saves = (after.insns["code"] == 0x7B) & (isa.dst(after.insns) == isa.R10)
    assert set(after.insns["off"][saves].tolist()) - {-24} == {-32}  # -24 is its own
    with kernel.load(program) as plain, kernel.load(after) as ours:
        assert plain.test_run(PACKET).retval == ours.test_run(PACKET).retval
        image = ours.jited()
    assert not [one for one in CONSTANTS if one.to_bytes(4, "little") in image]


def test_arguments_of_a_global_function_are_left_alone() -> None:
    """The verifier checks an argument that the function does not read: no constant goes there."""
    program = assemble(
        f"r1 = 1; r2 = 2; r6 = 5; r6 += {CONSTANTS[0]:#x}; call f; exit; f: r0 = r1; exit"
    )
    after = blinded(program).insns
    wrote = isa.writes(after[: int(np.flatnonzero(isa.is_subprog_call(after))[0])])
    made = np.flatnonzero(after["code"] == 0xB7)
    assert {int(isa.dst(after)[at]) for at in made.tolist()} <= {0, 1, 2, 3, 4, 5, 6}
    moved_again = [r for r in (1, 2) if (isa.dst(after)[made] == r).sum() > 1]
    assert moved_again == []
    assert wrote.size


@functools.cache
def objects() -> dict[str, bytes]:
    """Objects that this machine might load, by name."""
    return {name: data for name, data in [*fixture_objects(), *debian_objects()] if data[5] == 1}


@pytest.mark.parametrize("name", list(objects()))
def test_objects_load_blinded(name: str, tmp_path: Path) -> None:
    """Every program of a real object that loads also loads with its constants blinded."""
    del tmp_path
    try:
        obj = ElfObject.parse(objects()[name])
        opened = kernel.open_object(obj, [])
    except BpfPatchError as error:
        pytest.skip(f"the original does not load here: {error}")
    count = 0
    with opened:
        for info in obj.programs:
            try:
                opened.load(info.name).close()
            except BpfPatchError:
                continue
            count += 1
            linked = obj.link(info.name)
            after = Pipeline.parse("blind{seed=5}").run(linked.program)
            opened.load(linked.with_code(after)).close()
    if not count:
        pytest.skip("the original does not load here: no program of it")
