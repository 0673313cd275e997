"""``bpfpatch extract``."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import pytest

from bpfpatch.cli.embedded import find_embedded
from bpfpatch.errors import FormatError
from support.inputs.bpfobjects import embedded_objects, fixture_path

DEMO = "xdp_balancer.clang-19.v3.el.g.o"
BIG = "xdp_parse.clang-14.v1.eb.o"


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """Two objects of both byte orders in the middle of something else."""
    path = tmp_path / "tool"
    first, second = (fixture_path(name).read_bytes() for name in (DEMO, BIG))
    noise = b"\x7fELF" + bytes(range(256))
    path.write_bytes(noise + first + b"pad" + noise + second + noise)
    return path


def test_objects_come_out_as_they_were(run: Any, binary: Path, tmp_path: Path) -> None:
    """Both objects are found, whole, whatever their byte order."""
    run("extract", binary, "-o", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["tool.0.bpf.o", "tool.1.bpf.o"]
    for name, origin in zip(names, (DEMO, BIG), strict=True):
        assert (tmp_path / "out" / name).read_bytes() == fixture_path(origin).read_bytes()


def test_list_writes_nothing(run: Any, binary: Path, tmp_path: Path) -> None:
    """With --list the objects are only named."""
    text = run("extract", "--list", binary, "-o", tmp_path / "out").stdout
    assert "balancer" in text
    assert not (tmp_path / "out").exists()


def test_json(run_json: Any, binary: Path, tmp_path: Path) -> None:
    """The JSON form says where each was, and where it is now."""
    objects = run_json("extract", binary, "-o", tmp_path / "out")["objects"]
    assert [one["byteorder"] for one in objects] == ["little", "big"]
    for one in objects:
        content = binary.read_bytes()[one["byte_off"] : one["byte_off"] + one["bytes"]]
        assert Path(one["path"]).read_bytes() == content


def test_existing_files_are_kept(run: Any, binary: Path, tmp_path: Path) -> None:
    """A file that exists is not overwritten, unless told to; then nothing is written at all."""
    taken = tmp_path / "tool.1.bpf.o"
    taken.write_text("precious")
    assert str(taken) in run("extract", binary, "-o", tmp_path, status=1).stderr
    assert taken.read_text() == "precious"
    assert not (tmp_path / "tool.0.bpf.o").exists()
    run("extract", "--force", binary, "-o", tmp_path)
    assert taken.read_bytes() == fixture_path(BIG).read_bytes()


def test_nothing_found_fails(run: Any, tmp_path: Path) -> None:
    """A file without objects is a failure."""
    path = tmp_path / "empty"
    path.write_bytes(b"\x7fELF nothing")
    assert "no BPF object" in run("extract", path, status=1).stderr


def test_an_object_is_in_itself(run_json: Any, demo: Path) -> None:
    """A file that is an object is found in itself."""
    (one,) = run_json("extract", "--list", demo)["objects"]
    assert (one["byte_off"], one["bytes"]) == (0, demo.stat().st_size)


def test_cut_off_object_is_none(demo: Path) -> None:
    """An object whose end is missing is not reported."""
    assert find_embedded(demo.read_bytes()[:-1]) == []


def test_many_lookalikes_are_refused() -> None:
    """What only looks like objects, thousands of times, is an error and no endless search."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 1, 247, 1, 0, 0, 0, 0, 64, 0, 0, 64, 0, 0)
    with pytest.raises(FormatError, match="look like a BPF object"):
        find_embedded(header * 5000)


@pytest.mark.parametrize("tool", ["opensnoop", "execsnoop", "biolatency"])
def test_tools_agree_with_the_other_scanner(tool: str) -> None:
    """What is found in a program of libbpf-tools is what the tests' own scanner finds."""
    path = Path("/usr/sbin") / tool
    if not path.is_file() or path.read_bytes()[:4] != b"\x7fELF":
        pytest.skip(f"{path} is not installed")
    data = path.read_bytes()
    found = find_embedded(data)
    assert found
    assert [one.data for one in found] == embedded_objects(data)


@pytest.mark.parametrize("order", ["<", ">"])
def test_headers_that_speak_of_many_sections_cost_little(order: str) -> None:
    """A megabyte of headers, each with thousands of sections, is looked at a few times at most."""
    header = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + b"\x01" + bytes(9)
    fields = (1, 247, 1, 0, 0, 64, 0, 64, 0, 0, 64, 9000, 0)
    header += struct.pack(f"{order}HHIQQQIHHHHHH", *fields)
    data = header * 8000 + bytes(600_000)
    before = time.process_time()
    with pytest.raises(FormatError, match="look like a BPF object"):
        find_embedded(data)
    assert time.process_time() - before < 1
