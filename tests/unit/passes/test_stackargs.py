"""Objects that pass arguments by R11 keep doing so, whatever is put in between.

Linux 6.18 refuses them, so that the interpreter judges, which takes what Linux 7.2 takes.
"""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from bpfpatch.errors import UnsupportedError
from bpfpatch.interp import Machine, MachineOptions, Xdp
from bpfpatch.passes import Pipeline, Target
from bpfpatch.report.needs import needs
from support.inputs.bpfobjects import fixture_path

OWN = ("map_lookup_elem", "trace_printk")
"""Helpers that passes call."""
PACKETS = [bytes(size) for size in (20, 60, 61, 200)]


def _fixture(order: str) -> ElfObject:
    return ElfObject.read(fixture_path(f"asm_stack_args.clang-19.v4.{order}.o"))


def _runs(obj: ElfObject, engine: str = "compiled") -> list[tuple[int, list[str]]]:
    """What it answers, and which helpers it calls."""
    out = []
    for packet in PACKETS:
        machine = Machine.of_object(obj, "stack_args", MachineOptions(engine=engine))
        done = machine.run(Xdp(packet))
        out.append((done.r0, [one.name for one in done.trace if one.name not in OWN]))
    return out


@pytest.mark.parametrize("order", ["el", "eb"])
def test_runs(order: str) -> None:
    """Both engines agree, every packet has its own answer, and nothing is wrong with it."""
    obj = _fixture(order)
    found = _runs(obj)
    assert found == _runs(obj, "reference")
    assert len({r0 for r0, _ in found}) == len(PACKETS)


PIPELINES = [
    "sprinkle{every=1}",
    "sprinkle{every=1},dce,nops",
    "const{all=true}",
    "zext{force=true}",
    "cover{strict=true}",
    "cover{strict=true,count=plain,tree=false}",
    "cover{strict=true,edges=true}",
    "cover{count=percpu}",
    "cover{count=percpu,edges=true}",
    "cover{count=percpu,tree=false}",
    "blind{seed=7,strict=true}",
    "lower{cpu=v1}",
    "cover{count=percpu},blind{seed=1},sprinkle{every=2},lower{cpu=v1}",
]


@pytest.mark.parametrize("order", ["el", "eb"])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_answers_stay(order: str, pipeline: str) -> None:
    """No pass loses an argument, or has one loaded too late."""
    obj = _fixture(order)
    new, _ = Pipeline.parse(pipeline).run_object(obj)
    before, after = isa.stack_args(obj.code.insns), isa.stack_args(new.code.insns)
    assert sorted(before[before > 0]) == sorted(after[after > 0])
    assert _runs(new) == _runs(obj)
    assert _runs(ElfObject.parse(new.to_bytes()), "reference") == _runs(obj)


def test_every_place_can_be_traced_or_says_why() -> None:
    """A call that traces is put beside a place where it would lose arguments."""
    obj = _fixture("el")
    expected, n_traced, wrong = _runs(obj), 0, []
    for slot in range(0, len(obj.code), 3):
        try:
            new, _ = Pipeline.parse(f"trace{{at=#{slot},to=pipe}}").run_object(obj)
        except UnsupportedError as error:
            wrong.append(str(error))
            continue
        n_traced += 1
        assert _runs(new) == expected
    assert all("through R11" in why or "stack" in why for why in wrong)
    assert n_traced > len(wrong)


def test_counters_of_each_processor_are_found_after_the_last_argument() -> None:
    """All but the function whose frame is given away are counted; the rest says why."""
    _, result = Pipeline.parse("cover{count=percpu}").run_object(_fixture("el"))
    assert [line.partition(":")[0] for line in result.notices[:-1]] == ["stack_args"]
    assert "which bytes of its stack frame are free" in result.notices[0]


def test_a_blinded_program_uses_the_register_of_its_kernel() -> None:
    """For Linux 7.2 constants are put together in R12, and R11 passes arguments as before."""
    program = _fixture("el").link("stack_args").program
    done = Pipeline.parse("blind{seed=3}").run(program, Target.internal("7.2")).program
    r12 = (isa.dst(done.insns) == isa.Reg.R12) | (isa.src(done.insns) == isa.Reg.R12)
    assert r12.sum() > 20
    assert np.count_nonzero(isa.stack_args(done.insns)) == np.count_nonzero(
        isa.stack_args(program.insns)
    )
    for engine in ("compiled", "reference"):
        options = MachineOptions(engine=engine)
        for packet in PACKETS:
            expected = Machine(program).run(Xdp(packet)).r0
            assert Machine(done, options).run(Xdp(packet)).r0 == expected


@pytest.mark.parametrize("pipeline", ["blind{seed=3}", "zext{random=true}", "fixup-calls"])
def test_an_older_kernels_form_has_no_room_for_them(pipeline: str) -> None:
    """Up to Linux 7.1 R11 is the kernel's own: its form of such a program is refused."""
    program = _fixture("el").link("stack_args").program
    with pytest.raises(UnsupportedError, match=r"Linux 6\.18's own register; .* from 7\.2 on"):
        Pipeline.parse(pipeline).run(program, Target.internal("6.18"))


KERNEL_FORMS = [
    ("r0 = 5\nr1 = 3\nr0 s/= r1\nexit", "fixup-calls"),
    ("r0 = 5\nr1 = 3\nr0 s%= r1\nexit", "fixup-calls"),
    ("w1 = 5\nw0 = w1\nexit", "zext{random=true}"),
    ("r0 = 5 ll\nexit", "blind{seed=3}"),
]


@pytest.mark.parametrize(("text", "pipeline"), KERNEL_FORMS)
@pytest.mark.parametrize(("kernel", "hidden"), [("6.18", 11), ("7.1", 11), ("7.2", 12)])
def test_the_hidden_register_is_that_of_the_version(
    text: str, pipeline: str, kernel: str, hidden: int
) -> None:
    """Whatever a kernel's form keeps in its own register is in the one that it has."""
    program = assemble(text)
    done = Pipeline.parse(pipeline).run(program, Target.internal(kernel)).program
    used = {*isa.dst(done.insns).tolist(), *isa.src(done.insns).tolist()} & {11, 12}
    assert used == {hidden}
    assert Machine(done).run(mem=b"").r0 & 0xFFFF_FFFF == Machine(program).run(mem=b"").r0


def test_an_object_says_that_it_needs_linux_7_2() -> None:
    """The newest that it needs are the arguments that it passes."""
    found = needs(_fixture("el"))[0]
    assert (found.name, found.since, found.count) == ("stack_argument", (7, 2), 20)
