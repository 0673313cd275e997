"""``bpfpatch demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bpfpatch.cli import bpftool, demo
from bpfpatch.cli.demo_packets import packets
from bpfpatch.elf import ElfObject
from bpfpatch.program import violations
from support.inputs.packets import csum
from support.machine.tools import need_bpf


def test_demo_without_the_kernel(run: Any, tmp_path: Path, no_kernel: None) -> None:
    """Without bpf(2) and bpftool the interpreter judges, the demo says why, and ends as ever."""
    text = run("demo", "-o", tmp_path / "out").stdout
    assert "class Scrub" in text
    assert "; scrub" in text
    assert "xdp_balancer.c:" in text
    assert "Judge: bpfpatch's interpreter, not the kernel (bpf(2) is not allowed)." in text
    assert "Second witness: none (bpftool: not installed)." in text
    assert "XDP_TX, 9 bytes rewritten" in text
    assert text.endswith(f"\nAll {len(packets())} results are equal.\n")
    objects = [ElfObject.read(tmp_path / "out" / name) for name in written()]
    assert [violations(obj.code) for obj in objects] == [[], []]


@pytest.mark.kernel
def test_demo_runs_both(run: Any, tmp_path: Path) -> None:
    """Where bpf(2) works the kernel judges, bpftool agrees if it is there, and no pin is left."""
    need_bpf()
    pins = Path("/sys/fs/bpf")
    before = set(pins.glob("bpfpatch_*"))
    text = run("demo", "-o", tmp_path / "out").stdout
    assert "Judge: the kernel; bpfpatch loaded both." in text
    witness = bpftool.absent()
    said = "bpftool, which says the same" if witness is None else f"none (bpftool: {witness})"
    assert f"Second witness: {said}." in text
    assert text.endswith(f"\nAll {len(packets())} results are equal.\n")
    assert set(pins.glob("bpfpatch_*")) <= before


def test_a_difference_is_a_failure(
    run: Any, tmp_path: Path, no_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the patched program does something else, the demo fails, and says so."""
    ran = iter(range(1000))
    monkeypatch.setattr(demo, "_ran", lambda outcome: (next(ran), outcome.packet))
    result = run("demo", "-o", tmp_path / "out", status=1)
    assert "DIFFERENT" in result.stdout
    assert "does not do what the original does" in result.stderr


def test_a_second_witness_who_disagrees_is_a_failure(
    run: Any, tmp_path: Path, no_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What bpftool's load does otherwise is reported with the file's name."""
    monkeypatch.setattr(bpftool, "absent", lambda: None)
    monkeypatch.setattr(bpftool, "run_all", lambda _obj, all_: [(99, one) for one in all_])
    result = run("demo", "-o", tmp_path / "out", status=1)
    assert "balancer.o: loaded by bpftool, it does something else" in result.stderr


def test_demo_into_a_file_fails(run: Any, tmp_path: Path) -> None:
    """A folder that cannot be made is named."""
    (tmp_path / "out").write_text("")
    assert str(tmp_path / "out") in run("demo", "-o", tmp_path / "out", status=1).stderr


def test_packets_have_right_checksums() -> None:
    """The IPv4 packets have headers whose checksum comes to zero, as RFC 1071 has it."""
    plain = {name: data for name, data in packets().items() if data[12:14] == b"\x08\0"}
    whole = [data for name, data in plain.items() if "cut off" not in name]
    assert len(whole) >= 4
    assert [csum(data[14:34]) for data in whole] == [0] * len(whole)
    for data in whole:
        pseudo = data[26:34] + bytes([0, data[23]]) + (len(data) - 34).to_bytes(2, "big")
        assert csum(pseudo + data[34:]) == 0


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without bpf(2) and bpftool."""
    monkeypatch.setattr(demo.runs, "available", lambda _mode: "bpf(2) is not allowed")
    monkeypatch.setattr(bpftool.shutil, "which", lambda _: None)


def written() -> tuple[str, str]:
    """Names of the demo's files."""
    return "balancer.o", "balancer.patched.o"
