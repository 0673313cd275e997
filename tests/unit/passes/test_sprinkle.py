"""sprinkle: what is chosen, and that all of it can be taken back. Plain cases are text files."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.errors import OptionError
from bpfpatch.passes import Pipeline, Sprinkle
from support.cases.passcase import assert_unchanged, run

LONG = assemble("r1 = 1;" * 1000 + "r0 = 0; exit")


def nops_of(text: str) -> list[int]:
    """Slots of the nops that a pipeline puts into the long program."""
    return np.flatnonzero(isa.is_nop(run(text, LONG).program.insns)).tolist()


def test_every_insn_by_default() -> None:
    """There are as many nops as there were instructions, each in front of one."""
    assert nops_of("sprinkle") == list(range(0, 2004, 2))


def test_every_nth_without_a_seed() -> None:
    """Without a seed, the choice is regular, from the first instruction on."""
    assert nops_of("sprinkle{every=500}") == [0, 501, 1002]


def test_same_seed_same_choice() -> None:
    """A seed names a choice."""
    assert nops_of("sprinkle{every=3,seed=5}") == nops_of("sprinkle{every=3,seed=5}")
    assert nops_of("sprinkle{every=3,seed=5}") != nops_of("sprinkle{every=3,seed=6}")


def test_random_choice_has_the_asked_density() -> None:
    """One instruction in ``every`` is chosen, give or take five standard deviations."""
    assert abs(len(nops_of("sprinkle{every=4,seed=1}")) - 250) < 5 * (1000 * 3 / 16) ** 0.5


def test_random_choice_of_every_one_is_all() -> None:
    """every=1 leaves no choice, with a seed either."""
    assert len(nops_of("sprinkle{every=1,seed=3}")) == 1002


def test_wide_insn_is_not_split() -> None:
    """No nop goes between the two slots of an ld_imm64."""
    after = run("sprinkle", "r1 = 5 ll; exit").program
    assert after.to_bytes() == assemble("goto +0; r1 = 5 ll; goto +0; exit").to_bytes()


def test_self_jump_runs_its_nop_each_time() -> None:
    """A jump to itself comes to the nop in front of it."""
    after = run("sprinkle", "goto -1").program
    assert after.to_bytes() == assemble("goto +0; goto -2").to_bytes()


def test_functions_start_at_their_nop() -> None:
    """A call runs the nop in front of a function's first instruction."""
    after = run("sprinkle", "call f; exit; f: r0 = 0; exit").program
    assert after.subprogs.start.tolist() == [0, 4]


def test_nops_takes_all_back() -> None:
    """Without nops to begin with, nops gives the original back, on one list or two."""
    text = "a: if r1 == 0 goto b; r2 = 1 ll; call f; goto a; b: exit; f: goto -1"
    assert_unchanged(text, "sprinkle,nops")
    assert (
        run("nops", run("sprinkle", text).program).program.to_bytes() == assemble(text).to_bytes()
    )


def test_sprinkling_twice_doubles_twice() -> None:
    """A second run sees the nops of the first."""
    assert len(run("sprinkle,sprinkle", "r0 = 0; exit").program) == 8


@pytest.mark.parametrize("options", [{"every": 0}, {"every": -3}, {"seed": -1}])
def test_senseless_options_are_refused(options: dict[str, int]) -> None:
    """Every is 1 or more, a seed 0 or more, in Python as in a pipeline."""
    with pytest.raises(OptionError, match="or more"):
        Sprinkle(**options)
    ((key, value),) = options.items()
    with pytest.raises(OptionError, match="or more"):
        Pipeline.parse(f"sprinkle{{{key}={value}}}")
