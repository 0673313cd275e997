"""``bpfpatch verify``, and ``apply --verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.patch import Body, PatchList
from bpfpatch.runs import write_pcap
from support.inputs.bpfobjects import fixture_path
from support.inputs.packets import SAMPLES

FAST = ("--runs", "80")

BREAKS = '''
from dataclasses import dataclass

from bpfpatch import Body, Pass, PatchList, isa, register


@register
@dataclass(frozen=True)
class Breaks(Pass):
    """Return something else."""

    name = "breaks"

    def run(self, patches: PatchList) -> None:
        patches.insert_before(patches.find(isa.is_exit), Body.asm("r0 ^= 1"))
'''


@pytest.fixture
def sprinkled(run: Any, demo: Path, tmp_path: Path) -> Path:
    """The balancer with a jump to nowhere before each third instruction."""
    out = tmp_path / "sprinkled.o"
    run("apply", "-q", "-p", "sprinkle{every=3}", demo, "-o", out)
    return out


@pytest.fixture
def broken(demo: Path, tmp_path: Path) -> Path:
    """The balancer, with another result at each exit."""
    obj = ElfObject.read(demo)
    patches = PatchList(obj.code)
    for insn in patches:
        if insn.is_exit:
            patches.insert_before(insn, Body.asm("r0 ^= 1"))
    out = tmp_path / "broken.o"
    obj.with_code(patches.linearize()).write(out)
    return out


def test_same_objects_exit_0(run: Any, demo: Path, sprinkled: Path) -> None:
    """A correct rewriting: one line for the program, with what was covered."""
    (line,) = run("verify", demo, sprinkled, *FAST).stdout.splitlines()
    assert line.startswith("balancer: same (80 inputs in interp; ")
    assert "branch edges before" in line


def test_different_objects_exit_1(run: Any, demo: Path, broken: Path) -> None:
    """A counterexample is printed: the input, what differs, and where they part."""
    out = run("verify", demo, broken, *FAST, status=1).stdout
    assert out.startswith("balancer: DIFFERENT")
    for part in ("packet (", "mode: interp", "R0: ", "where they part", "xdp_balancer.c:"):
        assert part in out
    assert any(line.lstrip().startswith(">") for line in out.splitlines())


def test_brief(run: Any, demo: Path, broken: Path) -> None:
    """With -q there is one line for each program."""
    (line,) = run("verify", "-q", demo, broken, *FAST, status=1).stdout.splitlines()
    assert line.startswith("balancer: DIFFERENT")


@pytest.mark.kernel
def test_brief_names_modes_that_were_not_checked(run: Any, tmp_path: Path) -> None:
    """With -q, too, a mode in which nothing could be compared is named."""
    (tmp_path / "a.s").write_text("r0 = 0; exit\n")
    (tmp_path / "b.s").write_text("r0 = 0; goto +1; r1 = r1; exit\n")
    modes = ("--mode", "interp", "--mode", "jit", "--mode", "jit+harden", "--type", "xdp")
    args = ("verify", "-q", *modes, tmp_path / "a.s", tmp_path / "b.s", *FAST)
    (line,) = run(*args, status=2).stdout.splitlines()
    assert "80 inputs in interp; not checked in jit, jit+harden;" in line
    assert run(*args, "--allow-unchecked").stdout


@pytest.fixture
def three(tmp_path: Path) -> tuple[Path, Path]:
    """An object of three programs, and one in which the third has another name."""
    data = fixture_path("xdp_parse.clang-19.v3.el.g.strip-g.o").read_bytes()
    (tmp_path / "three.o").write_bytes(data)
    (tmp_path / "two.o").write_bytes(data.replace(b"parse_socket\0", b"parse_sockex\0"))
    return tmp_path / "three.o", tmp_path / "two.o"


def test_a_program_that_got_lost(run: Any, run_json: Any, three: tuple[Path, Path]) -> None:
    """A program that the rewritten object lacks is named, and a difference."""
    out = run("verify", *three, *FAST, status=1).stdout
    assert "parse_socket: LOST" in out
    assert "parse_xdp: same" in out
    found = run_json("verify", *three, *FAST, status=1)["programs"]
    assert [one["verdict"] for one in found] == ["same", "same", "lost"]
    assert "LOST" in run("verify", *three, "--prog", "parse_socket", status=1).stdout


def test_a_program_that_cannot_be_checked(run: Any, tmp_path: Path) -> None:
    """Where every run ends in an error nothing was checked: that is no success."""
    (tmp_path / "a.s").write_text("r0 = *(u64 *)(r10 + 8); exit\n")
    args = ("verify", tmp_path / "a.s", tmp_path / "a.s", *FAST)
    assert "not checked" in run(*args, status=2).stdout
    run(*args, "--allow-unchecked", status=2)


def test_json(run_json: Any, demo: Path, broken: Path) -> None:
    """The JSON has the verdict and the input."""
    value = run_json("verify", demo, broken, *FAST, status=1)
    (program,) = value["programs"]
    assert (program["program"], program["verdict"]) == ("balancer", "different")
    assert bytes.fromhex(program["counterexample"]["input"]["packet"])


def test_pcap(run: Any, demo: Path, sprinkled: Path, tmp_path: Path) -> None:
    """Packets of a capture are run first."""
    (tmp_path / "in.pcap").write_bytes(write_pcap(SAMPLES.values()))
    args = ("--pcap", tmp_path / "in.pcap", "--runs", str(len(SAMPLES)))
    assert f"{len(SAMPLES)} inputs in interp" in run("verify", demo, sprinkled, *args).stdout


def test_broken_pcap(run: Any, demo: Path, tmp_path: Path) -> None:
    """What is no capture is refused, with its name."""
    (tmp_path / "in.pcap").write_bytes(b"nothing of the kind")
    result = run("verify", demo, demo, "--pcap", tmp_path / "in.pcap", status=2)
    assert "in.pcap: at byte 0x0: this is not a packet capture" in result.stderr


def test_unknown_program(run: Any, demo: Path) -> None:
    """A program that is not there is refused."""
    result = run("verify", demo, demo, "--prog", "nope", status=2)
    assert "in the original there is no program 'nope'; there are: balancer" in result.stderr


def test_ignore(run: Any, demo: Path, broken: Path) -> None:
    """What is to be ignored makes no difference; a word that is not known is refused."""
    run("verify", demo, demo, *FAST, "--ignore", "r0", "--ignore", "maps:flows")
    result = run("verify", demo, broken, "--ignore", "stack", status=2)
    assert "'stack' is not compared" in result.stderr


def test_assembly(run: Any, tmp_path: Path) -> None:
    """Flat code runs on plain memory, given in hex if need be."""
    (tmp_path / "a.s").write_text("r0 = 0; if r2 != 3 goto +1; r0 = 1; exit\n")
    (tmp_path / "b.s").write_text("r0 = 0; if r2 != 3 goto +1; r0 = 2; exit\n")
    out = run("verify", tmp_path / "a.s", tmp_path / "b.s", "--hex", "010203", status=1).stdout
    assert "context (3 bytes): 000000" in out
    assert "R0: 0x1 before, 0x2 after" in out


def test_object_and_assembly(run: Any, demo: Path, tmp_path: Path) -> None:
    """An object cannot be compared with flat code."""
    (tmp_path / "a.s").write_text("exit\n")
    result = run("verify", demo, tmp_path / "a.s", status=2)
    assert "one input is an object and the other is not" in result.stderr


def test_nothing_checked_exits_2(run: Any, tmp_path: Path) -> None:
    """Where no program can be run the exit status says so."""
    (tmp_path / "a.s").write_text("again: r0 = 1; goto again\n")
    result = run("verify", tmp_path / "a.s", tmp_path / "a.s", "--runs", "2", status=2)
    assert result.stdout.startswith("program: not checked\n  not checked: the original took more")


QUICKLY = ("--verify", "--verify-seconds", "1")


def test_apply_writes_what_is_the_same(run: Any, demo: Path, tmp_path: Path) -> None:
    """With --verify a correct rewriting is written, and the verdict is told."""
    out = tmp_path / "out.o"
    result = run("apply", "-p", "sprinkle{every=9}", *QUICKLY, demo, "-o", out)
    assert f"{demo}: balancer: same (" in result.stderr
    assert ElfObject.read(out).programs


def test_apply_refuses_what_differs(run: Any, demo: Path, tmp_path: Path) -> None:
    """With --verify a rewriting that differs is not written: an existing file stays."""
    plugin, out = tmp_path / "breaks.py", tmp_path / "out.o"
    plugin.write_text(BREAKS)
    out.write_bytes(b"old")
    args = ("apply", "--plugin", plugin, "-p", "breaks", demo, "-o", out)
    result = run(*args, "--verify", status=1)
    assert "balancer: DIFFERENT" in result.stderr
    assert "nothing is written" in result.stderr
    assert out.read_bytes() == b"old"
    run(*args)
    assert out.read_bytes() != b"old"


def test_apply_json_has_verdicts(run_json: Any, demo: Path) -> None:
    """The JSON report has a verdict for each program."""
    value = run_json("apply", "-p", "nops", *QUICKLY, demo)
    assert [one["verdict"] for one in value["verify"]] == ["same"]


def test_apply_verifies_assembly(run: Any, tmp_path: Path) -> None:
    """Flat code is verified on plain memory."""
    source, plugin = tmp_path / "a.s", tmp_path / "breaks.py"
    source.write_text("r0 = 4; exit\n")
    plugin.write_text(BREAKS)
    run("apply", "-p", "sprinkle", "--verify", source, "-o", tmp_path / "b.s")
    args = ("--plugin", plugin, "-p", "breaks", "--verify", "-o", tmp_path / "c.s")
    run("apply", source, *args, status=1)
    assert not (tmp_path / "c.s").exists()


HARD = """
    r2 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r2 *= r3
    r0 = 1
    r4 = 0x3fffffff00000123 ll
    if r2 != r4 goto out
    r0 = 2
    out: exit
"""
"""A branch that no search turns: on a product of two fields."""


@pytest.mark.parametrize(
    ("options", "bound"),
    [(("--verify-runs", "300"), "runs"), (("--verify-seconds", "0.5"), "seconds")],
)
def test_apply_verifies_no_longer_than_it_may(
    run_json: Any, tmp_path: Path, options: tuple[str, str], bound: str
) -> None:
    """A branch that cannot be turned costs what the option says, not half of ten seconds."""
    source = tmp_path / "a.s"
    source.write_text(HARD)
    value = run_json("apply", "-p", "sprinkle", "--verify", *options, source)
    (verdict,) = value["verify"]
    assert verdict["verdict"] == "same"
    assert verdict["coverage"]["before"] == {"taken": 1, "edges": 2}
    assert verdict["seconds"] < 5
    if bound == "runs":
        assert verdict["runs"] == {"interp": 300}


def test_apply_bounds_only_what_it_verifies(run: Any, demo: Path) -> None:
    """A bound without --verify is a mistake, and said."""
    result = run("apply", "--verify-seconds", "1", demo, "--json", status=2)
    assert "--verify-seconds is of --verify: give that, too" in result.stderr
