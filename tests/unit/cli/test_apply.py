"""``bpfpatch apply``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.program import violations

PLUGIN = '''
from dataclasses import dataclass
from bpfpatch import isa
from bpfpatch.passes import Pass, register
from bpfpatch.patch import Body, PatchList

@register
@dataclass(frozen=True)
class {name}(Pass):
    """{name} it."""

    name = "{name}"
    value: int = 3

    def run(self, patches: PatchList) -> None:
        {body}
'''


def plugin(folder: Path, name: str, body: str) -> Path:
    """A file with one pass."""
    path = folder / f"{name}_plugin.py"
    path.write_text(PLUGIN.format(name=name, body=body))
    return path


def test_without_pipeline_the_object_stays_as_it_is(run: Any, demo: Path, tmp_path: Path) -> None:
    """The no-op write gives the same bytes."""
    run("apply", demo, "-o", tmp_path / "out.o")
    assert (tmp_path / "out.o").read_bytes() == demo.read_bytes()


def test_pipeline_is_run(run: Any, demo: Path, tmp_path: Path) -> None:
    """Each of n instructions gets one more, and what comes out is whole."""
    before = ElfObject.read(demo).code
    run("apply", "-p", "sprinkle", demo, "-o", tmp_path / "out.o")
    after = ElfObject.read(tmp_path / "out.o").code
    n_before, n_after = (int((~code.second_slots).sum()) for code in (before, after))
    assert n_after == 2 * n_before
    assert violations(after) == []


def test_report_goes_to_stderr(run: Any, demo: Path, tmp_path: Path) -> None:
    """The one-line report and the DWARF notice are on the standard error, nothing on the other."""
    result = run("apply", "-p", "sprinkle", demo, "-o", tmp_path / "out.o")
    assert result.stdout == ""
    report, notice = result.stderr.splitlines()
    assert "instructions" in report
    assert "DWARF" in notice


def test_quiet_says_nothing(run: Any, demo: Path, tmp_path: Path) -> None:
    """With -q there is no output at all."""
    assert run("apply", "-q", "-p", "sprinkle", demo, "-o", tmp_path / "out.o").output == ""


def test_report_on_each_pass(run: Any, demo: Path) -> None:
    """With --report every pass has a line."""
    lines = run("apply", "-p", "sprinkle,nops", demo, "--report").stderr.splitlines()
    assert [line.split(":")[0].strip() for line in lines[:2]] == ["sprinkle", "nops"]


def test_json_report(run_json: Any, demo: Path) -> None:
    """The JSON report counts what each pass did."""
    value = run_json("apply", "-p", "sprinkle,nops", demo)
    assert value["insns_before"] == value["insns_after"]
    first, second = value["passes"]
    assert first["inserted"] == second["deleted"] == value["insns_before"]


def test_output_may_be_the_input(run: Any, demo: Path) -> None:
    """An object can be rewritten in place, and keeps its mode."""
    demo.chmod(0o640)
    before = demo.read_bytes()
    run("apply", "-p", "sprinkle", demo, "-o", demo)
    assert demo.read_bytes() != before
    assert demo.stat().st_mode & 0o777 == 0o640


def test_stdin_to_stdout(run: Any, demo: Path) -> None:
    """With - the object comes from stdin and goes to stdout."""
    assert run("apply", "-", "-o", "-", stdin=demo.read_bytes()).stdout_bytes == demo.read_bytes()


def test_diff_prints_the_change(run: Any, demo: Path) -> None:
    """With --diff the change is printed, with the pass that made it; nothing else is needed."""
    out = run("apply", "-p", "sprinkle{every=50}", demo, "--diff").stdout
    added = [line for line in out.splitlines() if line.startswith("+")]
    assert added
    assert all(line.endswith("; sprinkle") for line in added)


def test_diff_in_json(run_json: Any, demo: Path) -> None:
    """With --diff --json the report has the diff in it."""
    value = run_json("apply", "-p", "sprinkle", demo, "--diff")
    assert value["diff"]["added"] == value["insns_before"]


def test_stale_dwarf_can_be_refused(run: Any, demo: Path, tmp_path: Path) -> None:
    """With --dwarf refuse, moving code fails, and nothing is written."""
    out = tmp_path / "out.o"
    result = run("apply", "-p", "sprinkle", "--dwarf", "refuse", demo, "-o", out, status=1)
    assert "DWARF" in result.stderr
    assert not out.exists()


def test_cpu_limit_holds(run: Any, demo: Path, tmp_path: Path) -> None:
    """An object that needs v3 cannot be written for v2."""
    out = tmp_path / "out.o"
    result = run("apply", "-p", "sprinkle", "--cpu", "v2", demo, "-o", out, status=1)
    assert "v2" in result.stderr
    assert not out.exists()


def test_far_jumps_are_relaxed(run: Any, run_json: Any, tmp_path: Path) -> None:
    """A jump that has become too far is made to fit, with a notice; --no-relax refuses it."""
    source = tmp_path / "far.s"
    source.write_text("r0 = 0\nif r1 == 0 goto out\n" + "r0 = 1\n" * 20_000 + "out: exit\n")
    words = ("apply", "-p", "sprinkle", source, "-o", tmp_path / "out.bin")
    assert "note: relaxed 1 jump too far for 16 bits by 1 island" in run(*words).stderr
    assert "note: relaxed 1 jump too far for 16 bits by gotol" in run(*words, "--cpu", "v4").stderr
    (notice,) = run_json(*words, "--cpu", "v3")["notices"]
    assert notice.startswith("relaxed 1 jump")
    refused = run(*words, "--no-relax", status=1)
    assert "without relax=None (--no-relax) it is made to fit" in refused.stderr


def test_plugin_brings_a_pass(run: Any, demo: Path, tmp_path: Path) -> None:
    """A pass from the user's own file can be in the pipeline, with options."""
    body = "patches.insert_before(patches.nodes()[:1], Body.asm(f'r5 = {self.value}'))"
    path = plugin(tmp_path, "mark", body)
    out = run("apply", "--plugin", path, "-p", "mark{value=9}", demo, "--diff").stdout
    assert "r5 = 0x9  ; mark" in out


def test_mistake_in_a_plugin_pass_is_named(run: Any, demo: Path, tmp_path: Path) -> None:
    """A pass that raises is reported with its file, line and error, and nothing is written."""
    path = plugin(tmp_path, "broken-pass".replace("-", ""), "patches.no_such_verb()")
    out = tmp_path / "out.o"
    result = run("apply", "--plugin", path, "-p", "brokenpass", demo, "-o", out, status=1)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"bpfpatch: {path}: pass brokenpass: line 16: AttributeError")
    assert not out.exists()


def test_plugin_that_cannot_be_imported(run: Any, demo: Path, tmp_path: Path) -> None:
    """A plugin with a mistake fails with its file and line."""
    path = tmp_path / "bad.py"
    path.write_text("x = 1\nraise RuntimeError('no')\n")
    result = run("apply", "--plugin", path, demo, "--report", status=1)
    assert result.stderr == f"bpfpatch: {path}: line 2: RuntimeError: no\n"


@pytest.mark.parametrize("name", ["missing.py", "missing.txt"])
def test_plugin_that_is_not_there(run: Any, demo: Path, tmp_path: Path, name: str) -> None:
    """A missing plugin is a failure."""
    run("apply", "--plugin", tmp_path / name, demo, "--report", status=1)


@pytest.mark.parametrize(
    "args",
    [
        ["-p", "nosuch"],
        ["-p", "dce,,nops"],
        ["-p", "sprinkle{every=none}"],
        ["-p", "sprinkle{every=0}"],
        ["--cpu", "v9"],
        ["--dwarf", "maybe"],
        ["--nosuch"],
        ["another.o"],
    ],
)
def test_wrong_arguments_exit_2(run: Any, demo: Path, tmp_path: Path, args: list[str]) -> None:
    """Wrong arguments give the usage and exit with 2, and nothing is written."""
    out = tmp_path / "out.o"
    assert "Usage: bpfpatch apply" in run("apply", demo, "-o", out, *args, status=2).stderr
    assert not out.exists()


@pytest.mark.parametrize("args", [[], ["-o", "-", "--json"], ["-o", "-", "--diff"]])
def test_output_must_be_clear(run: Any, demo: Path, args: list[str]) -> None:
    """Without an output, or with two things for stdout, there is nothing to do."""
    assert run("apply", demo, *args, status=2).stdout == ""


def test_broken_object_leaves_nothing(run: Any, broken: Path, tmp_path: Path) -> None:
    """A broken object gives one line and exit 1, and no file, not even a temporary one."""
    before = set(tmp_path.iterdir())
    result = run("apply", broken, "-o", tmp_path / "out.o", status=1)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"bpfpatch: {broken}: at byte 0x")
    assert set(tmp_path.iterdir()) == before


def test_failure_keeps_an_existing_output(run: Any, broken: Path, tmp_path: Path) -> None:
    """What was at the output's place before is still there after a failure."""
    out = tmp_path / "out.o"
    out.write_text("precious")
    run("apply", broken, "-o", out, status=1)
    assert out.read_text() == "precious"


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"hello\n", bytes(64)])
def test_what_is_no_object_fails(run: Any, tmp_path: Path, data: bytes) -> None:
    """Whatever is not an object gives one line and exit 1."""
    path = tmp_path / "x"
    path.write_bytes(data)
    (line,) = run("apply", path, "-o", tmp_path / "out.o", status=1).stderr.splitlines()
    assert line.startswith(f"bpfpatch: {path}: ")


def test_missing_input_fails(run: Any, tmp_path: Path) -> None:
    """A missing file is named."""
    path = tmp_path / "missing.o"
    result = run("apply", path, "-o", tmp_path / "out.o", status=1)
    assert result.stderr == f"bpfpatch: {path}: No such file or directory\n"


def test_output_that_cannot_be_written(run: Any, demo: Path, tmp_path: Path) -> None:
    """An output in a folder that does not exist is named."""
    path = tmp_path / "no" / "out.o"
    result = run("apply", "-q", demo, "-o", path, status=1)
    assert result.stderr == f"bpfpatch: {path}: No such file or directory\n"


def test_output_to_a_device(run: Any, demo: Path) -> None:
    """A device is written to, and not replaced."""
    run("apply", "-q", demo, "-o", os.devnull)
    assert Path(os.devnull).is_char_device()


def test_assembly_in_and_out(run: Any, tmp_path: Path) -> None:
    """Assembly is rewritten into assembly."""
    source = tmp_path / "x.s"
    source.write_text("r1 = 1\nif r1 > 0 goto end\nr1 = 2\nend: exit\n")
    run("apply", "-q", "-p", "sprinkle{every=2}", source, "-o", tmp_path / "y.s")
    again = json.loads(run("diff", source, tmp_path / "y.s", "--json", status=1).stdout)
    assert (again["added"], again["removed"], again["changed"]) == (2, 0, 0)


def test_wrong_assembly_says_where(run: Any, tmp_path: Path) -> None:
    """Assembly that cannot be read is blamed by line and column."""
    source = tmp_path / "x.s"
    source.write_text("r1 = 1\nr1 = = 2\n")
    assert f"{source}: line 2, column " in run("apply", source, "--report", status=1).stderr


@pytest.mark.parametrize("endian", ["little", "big"])
def test_raw_in_and_out(run: Any, tmp_path: Path, endian: str) -> None:
    """Raw instructions are rewritten into raw ones of the same byte order."""
    data = bytes.fromhex({"little": "b700000001000000", "big": "b700000000000001"}[endian])
    data += bytes.fromhex("9500000000000000")
    source = tmp_path / "x.bin"
    source.write_bytes(data)
    out = tmp_path / "y.bin"
    run("apply", "-q", "--endian", endian, "-p", "sprinkle{every=9}", source, "-o", out)
    assert out.read_bytes() == bytes.fromhex("0500000000000000") + data


def test_terminal_gets_no_object(run: Any, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object is not written to a terminal."""
    monkeypatch.setattr("bpfpatch.cli.inputs.stdout_is_terminal", lambda: True)
    result = run("apply", demo, "-o", "-", status=1)
    assert "is a terminal" in result.stderr
    assert result.stdout == ""


def test_output_has_a_name(run: Any, demo: Path) -> None:
    """An empty name for the output is a wrong argument."""
    assert "not nothing" in run("apply", demo, "-o", "", status=2).stderr


def test_input_without_an_end_is_refused(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that never ends is refused once it has given more than any object has."""
    monkeypatch.setattr("bpfpatch.elf.files.MAX_BYTES", 1 << 16)
    assert "which no BPF object has" in run("info", "/dev/zero", status=1).stderr


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("patches.insert_before(0, Body.asm('r0 = bogus bogus'))", "unexpected 'bogus'"),
        ("patches.delete(10**6)", "no such node"),
        ("patches.insert_before([2, 3], None)", "sites take a Body"),
    ],
)
def test_mistake_in_a_pass_is_the_plugins(
    run: Any, demo: Path, tmp_path: Path, body: str, said: str
) -> None:
    """What a plugin's pass does wrong is said of its line there, and nothing is written."""
    path, out = plugin(tmp_path, "slip", body), tmp_path / "out.o"
    done = run("apply", "--plugin", path, "-p", "slip", demo, "-o", out, status=1)
    assert f"{path}: pass slip: line 16: " in done.stderr
    assert said in done.stderr
    assert not out.exists()
