"""``bpfpatch conform`` speaks the bpf_conformance suite's plugin protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bpfpatch import runs
from bpfpatch.asm import assemble
from support.inputs.bpfobjects import fixture_path

Run = Callable[..., Any]


def coded(text: str) -> str:
    """A program's bytes in hex, one by one, as the suite's runner sends them."""
    return assemble(text.replace(";", "\n")).to_bytes().hex(" ") + " \n"


ADD = coded("r0 = *(u8 *)(r1 + 0); r2 += r0; r0 = r2; exit")


def test_program_on_stdin_memory_as_argument(run: Run) -> None:
    """R0 is printed in hex, without a prefix, and nothing else."""
    assert run("conform", "fe 02 03", stdin=ADD.encode()).stdout == "101\n"


def test_no_memory(run: Run) -> None:
    """Memory may be absent or empty."""
    code = coded("r0 = r2; r0 += r1; exit").encode()
    assert run("conform", stdin=code).stdout == "0\n"
    assert run("conform", "", stdin=code).stdout == "0\n"


def test_program_as_an_option(run: Run) -> None:
    """--program gives the program, and then stdin is not read."""
    assert run("conform", "--program", ADD, "07").stdout == "8\n"


def test_all_of_r0(run: Run) -> None:
    """All 64 bits are printed."""
    code = coded("r0 = -2; exit").encode()
    assert run("conform", stdin=code).stdout == "fffffffffffffffe\n"


def test_passes(run: Run) -> None:
    """A pipeline runs first."""
    assert run("conform", "01", "-p", "sprinkle,dce", stdin=ADD.encode()).stdout == "2\n"


def test_elf(run: Run) -> None:
    """With --elf the program's bytes are an object."""
    data = fixture_path("asm_only_exit.clang-19.v4.el.o").read_bytes()
    assert run("conform", "--elf", "05 00 00 00", stdin=data.hex(" ").encode()).stdout.strip()


def test_xdp(run: Run) -> None:
    """With --xdp the memory is a packet, and R1 the context."""
    code = coded("r2 = *(u32 *)(r1 + 0); r0 = *(u8 *)(r2 + 3); exit").encode()
    assert run("conform", "--xdp", "00 01 02 2a", stdin=code).stdout == "2a\n"


@pytest.mark.kernel
@pytest.mark.parametrize("mode", runs.MODES[1:])
def test_kernel_modes(run: Run, mode: str) -> None:
    """In the kernel the result has all 64 bits, too."""
    if runs.available(mode) is not None:
        pytest.skip(f"bpf(2) is not allowed here: {runs.available(mode)}")
    code = coded("r0 = *(u64 *)(r1 + 0); r0 ^= -1; exit").encode()
    out = run("conform", "--mode", mode, "01 00 00 00 00 00 00 80", stdin=code).stdout
    assert out == "7ffffffffffffffe\n"


ON_PACKETS = """
    r6 = r1; r2 = *(u32 *)(r6 + 0); r3 = *(u32 *)(r6 + 4); r4 = r2; r4 += 4
    r0 = -1; if r4 > r3 goto out; r0 = *(u8 *)(r2 + 3); r0 <<= 40; out: exit
"""


@pytest.mark.kernel
@pytest.mark.parametrize("mode", runs.MODES)
def test_xdp_in_every_mode(run: Run, mode: str) -> None:
    """A packet program gives all of R0, and short memory is a packet all the same."""
    if runs.available(mode) is not None:
        pytest.skip(f"bpf(2) is not allowed here: {runs.available(mode)}")
    code = coded(ON_PACKETS.strip()).encode()
    assert run("conform", "--xdp", "--mode", mode, "00 01 02 2a", stdin=code).stdout == (
        f"{0x2A << 40:x}\n"
    )
    nothing = "ff" * 8 if mode == "interp" else "0"
    assert run("conform", "--xdp", "--mode", mode, "00 01", stdin=code).stdout == f"{nothing}\n"


@pytest.mark.kernel
def test_a_refusal_is_about_the_program_as_written(run: Run) -> None:
    """The verifier's complaint names the instruction of the program that was given."""
    if runs.available("jit") is not None:
        pytest.skip(f"bpf(2) is not allowed here: {runs.available('jit')}")
    code = coded("if r1 == 0 goto out; r0 = 1; exit; out: exit").encode()
    found = run("conform", "--xdp", "--mode", "jit", "00", stdin=code, status=1).stderr
    assert "insn 3 `exit`" in found


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("r0 = *(u8 *)(r1 + 8); exit", "stray read"),
        ("l: goto l", "instructions"),
        ("call 9999; exit", "9999"),
    ],
)
def test_a_program_that_cannot_run(run: Run, code: str, what: str) -> None:
    """Exit status 1, nothing on stdout, the reason on stderr; with --debug on stdout, too."""
    result = run("conform", "01", stdin=coded(code).encode(), status=1)
    assert result.stdout == ""
    assert what in result.stderr
    assert what in run("conform", "01", "--debug", stdin=coded(code).encode(), status=1).stdout


@pytest.mark.parametrize(
    ("args", "stdin", "status"),
    [
        (["zz"], ADD, 2),
        ([], "12 3", 2),
        ([], "00 00 00", 1),
        (["--elf"], "7f 45 4c 46", 1),
        (["--mode", "jit", "--internal"], ADD, 2),
        (["-p", "nopass"], ADD, 2),
    ],
)
def test_mistakes(run: Run, args: list[str], stdin: str, status: int) -> None:
    """What is no program, memory or option is an error, never a result."""
    assert run("conform", *args, stdin=stdin.encode(), status=status).stdout == ""
