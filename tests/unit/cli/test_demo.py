"""``bpfpatch demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bpfpatch.cli import bpftool
from bpfpatch.cli.demo_packets import packets
from bpfpatch.elf import ElfObject
from bpfpatch.program import violations
from support.inputs.packets import csum
from support.machine.tools import need_bpf


def test_demo_without_a_loader(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bpftool the demo shows the change, writes both objects, and says what it skipped."""
    monkeypatch.setattr(bpftool.shutil, "which", lambda _: None)
    text = run("demo", "-o", tmp_path / "out").stdout
    assert "class Scrub" in text
    assert "; scrub" in text
    assert "xdp_balancer.c:" in text
    assert "Skipped loading and running both: bpftool is not installed" in text
    objects = [ElfObject.read(tmp_path / "out" / name) for name in written()]
    assert [violations(obj.code) for obj in objects] == [[], []]


@pytest.mark.kernel
def test_demo_runs_both(run: Any, tmp_path: Path) -> None:
    """Where bpf(2) works, both objects do the same, and no pin is left."""
    need_bpf()
    pins = Path("/sys/fs/bpf")
    before = set(pins.glob("bpfpatch_*"))
    text = run("demo", "-o", tmp_path / "out").stdout
    assert f"All {len(packets())} results are equal." in text
    assert "XDP_TX" in text
    assert set(pins.glob("bpfpatch_*")) <= before


@pytest.mark.kernel
def test_a_difference_is_a_failure(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the patched program does something else, the demo fails, and says so."""
    need_bpf()
    ran = iter(range(1000))
    monkeypatch.setattr(bpftool, "run", lambda _pin, data: bpftool.Ran(next(ran) % 3, data))
    result = run("demo", "-o", tmp_path / "out", status=1)
    assert "DIFFERENT" in result.stdout
    assert "does not do what the original does" in result.stderr


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


def written() -> tuple[str, str]:
    """Names of the demo's files."""
    return "balancer.o", "balancer.patched.o"
