"""Where instructions are spent."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest

from bpfpatch import coverage
from bpfpatch.coverage.heat import to_dot
from bpfpatch.coverage.profile import Profile
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.interp import Machine, MachineOptions, Xdp
from bpfpatch.report.dottext import to_svg
from bpfpatch.runs import Input
from support.inputs import packets
from support.inputs.bpfobjects import fixture_path

FRAMES = (packets.tcp4("10.0.0.1", "10.0.0.2", 80), packets.udp4("10.0.0.1", "10.0.0.2", 53))
PROGRAMS = [
    ("xdp_balancer.clang-19.v3.el.g.o", "balancer"),
    ("asm_back_edge.clang-19.v4.el.o", "back_edge"),
    ("asm_imm64_ends.clang-19.v4.el.o", None),
]


def ran(name: str, program: str | None, frame: bytes) -> tuple[coverage.Coverage, Counter[int]]:
    """What a run counted, and how often the interpreter saw each slot of the original."""
    obj = ElfObject.parse(fixture_path(name).read_bytes())
    program = program or obj.programs[0].name
    linked, seen = obj.link(program), Counter[int]()

    def hook(slot: int, _: tuple[int, ...]) -> None:
        seen[int(linked.origin[slot])] += 1

    Machine.of_object(obj, program, options=MachineOptions(hook=hook)).run(Xdp(frame))
    return coverage.run(obj, program, [Input(packet=frame)]).coverage, seen


@pytest.mark.parametrize(("name", "program"), PROGRAMS)
def test_all_instructions_are_counted(name: str, program: str | None) -> None:
    """What functions and blocks cost adds up to what ran, as the interpreter saw it."""
    for frame in FRAMES:
        found, seen = ran(name, program, frame)
        profile = Profile.of(found)
        assert profile.n_insns == seen.total()
        assert sum(cost.n_insns for cost in profile.functions) == seen.total()
        assert sum(cost.n_insns for cost in profile.blocks) == seen.total()
        for cost in profile.functions:
            one = next(one for one in found.functions if one.name == cost.name)
            assert cost.n_insns == sum(seen[slot] for slot in range(one.start, one.end))


def test_lines_have_their_instructions() -> None:
    """A line costs what the instructions from its records on cost, the most expensive first."""
    obj = ElfObject.parse(fixture_path(PROGRAMS[0][0]).read_bytes())
    found, seen = ran(*PROGRAMS[0], FRAMES[0])
    wanted: Counter[str] = Counter()
    texts = {}
    for slot, times in seen.items():
        source = obj.code.source(slot)
        assert source is not None
        if source.line:
            wanted[str(source)] += times
            texts[str(source)] = source.text
    lines = Profile.of(found).lines
    assert {cost.name: cost.n_insns for cost in lines} == dict(wanted)
    assert {cost.name: cost.text for cost in lines} == texts
    assert [cost.n_insns for cost in lines] == sorted(wanted.values(), reverse=True)


def test_nothing_ran() -> None:
    """Counters of 0 make an empty profile."""
    obj = coverage.instrumented(ElfObject.parse(fixture_path(PROGRAMS[1][0]).read_bytes()))
    cover = coverage.cover_map(obj)
    profile = Profile.of(coverage.Coverage.of(cover, [0] * cover.n_counters))
    assert profile == Profile(0, (), (), ())
    text = to_dot(coverage.Coverage.of(cover, [0] * cover.n_counters), "drain")
    assert text.count('fillcolor="#ffffff"') == 2


def test_heat() -> None:
    """A picture has each block with its count, and each way between blocks."""
    found, seen = ran(*PROGRAMS[1], bytes(64 + 5))
    text = to_dot(found, "drain")
    assert seen[0] == 5
    assert 'b0 [label="L0: 5 times\\l0: r1 += -0x1\\l' in text
    assert 'fillcolor="#f06040"' in text
    assert 'b0 -> b0 [label="4"' in text
    assert 'in -> b0 [label="1"' in text
    assert 'b1 -> out [label="1"' in text


def test_a_picture_of_no_function() -> None:
    """An unknown function is named, and so are the known ones."""
    found, _ = ran(*PROGRAMS[1], bytes(64))
    with pytest.raises(OptionError, match="0 functions are called 'x'; there are: drain, drain_w"):
        to_dot(found, "x")


def test_graphviz_draws_it() -> None:
    """Graphviz takes the text of the biggest function."""
    if shutil.which("dot") is None:
        pytest.skip("graphviz is not installed")
    found, _ = ran(*PROGRAMS[0], FRAMES[0])
    picture = to_svg(to_dot(found, "balancer"))
    assert "</svg>" in picture
    assert "balancer: called 1 times" in picture
