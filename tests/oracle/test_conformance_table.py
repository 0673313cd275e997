"""The bpf_conformance vectors in every mode and after every pass: ``make conformance`` in tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bpfpatch.runs import MODES, available
from support.inputs import conformance
from support.inputs.conformance import FORMS, Cell, Form
from support.inputs.ubpfasm import Case, assemble, read_case

VECTORS = conformance.cases()
SCRIPT = Path(__file__).parents[1] / "conformance"
REFUSALS = ("invalid shift",)
"""What the kernel refuses by design: to shift by a constant of the register's width or more."""

ATOMICS = "no older instruction changes memory"
"""What cpu v1 and v2 have nothing for: atomics that do more than add."""


@pytest.fixture(scope="module", params=MODES)
def column(request: pytest.FixtureRequest) -> tuple[str, dict[str, Cell]]:
    """All cells of one mode."""
    if not VECTORS:
        pytest.skip(conformance.absent())
    mode: str = request.param
    return mode, {form.name: cell for form, cell in conformance.run_mode(mode, VECTORS)}


@pytest.mark.kernel
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_vectors(column: tuple[str, dict[str, Cell]], form: Form) -> None:
    """Each vector gives what the suite says, or is one that the kernel refuses on principle."""
    mode, cells = column
    cell = cells[form.name]
    if cell.why_none:
        prefix = "no such case: " if mode != "interp" and not form.target.is_loadable else ""
        pytest.skip(f"{prefix}{cell.why_none}")
    assert cell.wrong == {}
    atomics = [name for name, reason in cell.refused.items() if ATOMICS in reason]
    assert not atomics or form.name in ("lower v1", "lower v2")
    if mode == "interp":
        assert list(cell.refused) == atomics
    for name, reason in cell.refused.items():
        assert name in atomics or any(known in reason for known in REFUSALS), (name, reason)
    assert cell.n_passed + len(cell.refused) == len(VECTORS)
    assert cell.n_passed >= 0.96 * (len(VECTORS) - len(atomics))


@pytest.mark.kernel
def test_the_command_prints_the_table(tmp_path: Path) -> None:
    """The command behind ``make conformance`` prints a row for each form and a count per mode."""
    if not VECTORS:
        pytest.skip(conformance.absent())
    (tmp_path / VECTORS[0].name).write_bytes((conformance.folder() / VECTORS[0].name).read_bytes())
    out = _table(tmp_path)
    for form in FORMS:
        assert f"\n{form.name} " in f"\n{out}"
    assert "1/1" in out


@pytest.mark.kernel
def test_without_vectors_the_command_says_so(tmp_path: Path) -> None:
    """Where the folder is absent the reason is printed, with the way to name another."""
    assert "BPFPATCH_CONFORMANCE says where" in _table(tmp_path / "absent")


def test_a_wrong_result_is_told_from_a_refusal() -> None:
    """A vector whose R0 is another one is wrong; one that cannot run has a reason."""
    exit_ = bytes.fromhex("95 00 00 00 00 00 00 00")
    stray = bytes.fromhex("79 10 00 00 00 00 00 00") + exit_
    vectors = [Case("one.data", exit_, b"", 1), Case("stray.data", stray, b"", 1)]
    ((_, cell),) = conformance.run_mode("interp", vectors, [Form("plain")])
    assert cell.wrong == {"one": "0x0 where 0x1 is right"}
    assert list(cell.refused) == ["stray"]


@pytest.mark.kernel
def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A file with what the dialect does not have gets a line with the reason, and no traceback."""
    (tmp_path / "fine.data").write_text("-- asm\nmov %r0, 7\nexit\n-- result\n0x7\n")
    (tmp_path / "odd.data").write_text("-- asm\nfrob %r0, 7\nexit\n-- result\n0x7\n")
    (tmp_path / "none.data").write_text("-- result\n0x7\n")
    out = _table(tmp_path)
    assert "1/1" in out
    assert "odd: not in the table, its file cannot be read: unknown statement 'frob %r0, 7'" in out
    assert "none: not in the table, its file cannot be read: the file has no program" in out


MAPS = """
-- map
counts 2 4 8 3
other 1 4 4 3
-- asm
stw [%r10-4], 1
lddw %r1, map_by_fd(counts)
mov %r2, %r10
add %r2, -4
call bpf_map_lookup_elem
jeq %r0, 0, exit
ldxdw %r1, [%r0]
mov %r0, 5
add %r0, %r1
exit
-- result
0x5
"""


@pytest.mark.kernel
@pytest.mark.parametrize("mode", MODES)
def test_a_vector_with_maps_runs(tmp_path: Path, mode: str) -> None:
    """The maps of a vector are made for it, and the program gets them."""
    reason = available(mode)
    if reason is not None:
        pytest.skip(reason)
    (tmp_path / "maps.data").write_text(MAPS)
    ((_, cell),) = conformance.run_mode(mode, [read_case(tmp_path / "maps.data")], [Form("plain")])
    assert cell.n_passed == 1, cell


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("call %r2", "8d02000000000000"),
        ("call helper 5", "8500000005000000"),
        ("call 5", "8500000005000000"),
        ("call runtime 0x2a", "852000002a000000"),
        ("call bpf_map_lookup_elem", "8500000001000000"),
        ("lddw %r1, map_by_fd(m)", "18110000020000000000000000000000"),
        ("lddw %r1, map_by_idx(m)", "18510000010000000000000000000000"),
        ("lddw %r1, map_val(map_by_fd(m)) + 8", "18210000020000000000000008000000"),
        ("lddw %r1, map_val(map_by_idx(m))", "18610000010000000000000000000000"),
    ],
)
def test_calls_and_pseudo_loads_are_read(line: str, code: str) -> None:
    """RFC 9669 sections 4.3.1 and 5.4 say what source register and immediate mean."""
    assert assemble([line], ["l", "m"]).hex() == code


def _table(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={conformance.VARIABLE: str(folder), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
