"""For whom a pipeline may rewrite."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.errors import OptionError, UnsupportedError, ValidationError
from bpfpatch.passes import Pass, Pipeline, Target
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program


@dataclass(frozen=True)
class Put(Pass):
    """Put an instruction in front of the first."""

    name = "put"
    text: str = "goto +0"

    def run(self, patches: PatchList) -> None:
        """Insert it."""
        patches.insert_before(0, Body.asm(self.text))


@dataclass(frozen=True)
class Mark(Pass):
    """Make a hidden register of the first instruction's, in place or anew."""

    name = "mark"
    in_place: bool = True

    def run(self, patches: PatchList) -> None:
        """Use R11."""
        if self.in_place:
            patches.modify(0, dst=11)
        else:
            patches.insert_before(0, Body.of(isa.mov(11, 0)))


@dataclass(frozen=True)
class Internal(Mark):
    """The same, declared."""

    name = "internal"
    is_internal = True


def test_versions_by_number_or_name() -> None:
    """A cpu version is written v3 or 3."""
    assert Target.loadable("v3") == Target.loadable("3") == Target.loadable(3) == Target(cpu=3)
    assert Target.loadable() == Target()


@pytest.mark.parametrize("cpu", ["v0", "v5", "", "three", 0, 9, "vv3"])
def test_other_versions_are_refused(cpu: str | int) -> None:
    """There are v1 to v4."""
    with pytest.raises(OptionError, match="v1, v2, v3 or v4"):
        Target.loadable(cpu)


def test_version_is_checked_without_the_named_constructor() -> None:
    """No target has a cpu version that does not exist."""
    with pytest.raises(OptionError, match="not 7"):
        Target(cpu=7)


def test_too_new_insn_names_its_maker() -> None:
    """What a pass made and the cpu version lacks is an error, with the pass to leave out."""
    program = assemble("r0 = 0; exit")
    pipeline = Pipeline((Put("gotol +0"),))
    with pytest.raises(
        UnsupportedError, match=r"insn 0 `gotol \+0x0` needs a newer cpu than v3.*put"
    ):
        pipeline.run(program, Target.loadable("v3"))
    assert len(pipeline.run(program, Target.loadable("v4")).program) == 3


def test_too_new_input_is_the_compilers_matter() -> None:
    """What was in the input is not blamed on a pass."""
    with pytest.raises(UnsupportedError, match="compile the program for less"):
        Pipeline(()).run(assemble("gotol +0; exit"), Target.loadable("v3"))


def test_wide_insns_upper_half_needs_no_version() -> None:
    """The second slot of an ld_imm64 is no instruction."""
    program = assemble("r1 = 0xc300000000 ll; exit")
    assert Pipeline(()).run(program, Target.loadable("v1")).program.to_bytes() == program.to_bytes()


def test_internal_pass_wants_an_internal_target() -> None:
    """A pass that makes the kernel's own form does not run for bpf(2)."""
    program = assemble("r0 = 0; exit")
    with pytest.raises(OptionError, match=r"pass internal .*Target\.internal\(\)"):
        Pipeline((Internal(),)).run(program)
    assert Pipeline((Internal(),)).run(program, Target.internal()).program.insns["regs"][0] == 11


@pytest.mark.parametrize("in_place", [True, False])
def test_undeclared_internal_insn_is_refused(in_place: bool) -> None:
    """A pass that uses the hidden register without saying so is found out."""
    with pytest.raises(UnsupportedError, match=r"insn 0 .*the kernel's own"):
        Pipeline((Mark(in_place),)).run(assemble("r0 = 0; exit"))


def test_internal_input_is_its_own_affair() -> None:
    """A function that came in with the hidden register leaves with it, where it is not edited."""
    program = assemble("call f; exit; f: r0 = 0; exit")
    insns = program.insns.copy()
    insns[2] = isa.mov(11, 0)[0]
    program = replace(program, insns=insns)
    assert len(Pipeline((Put(),)).run(program).program) == 5
    at_once = Program(np.concatenate([isa.mov(11, 0), isa.exit_()]))
    with pytest.raises(ValidationError, match="r11"):
        Pipeline((Put(),)).run(at_once)
