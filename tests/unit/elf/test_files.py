"""Reading and writing files: all or nothing."""

import io
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bpfpatch.elf import ElfObject
from support.inputs.bpfobjects import fixture_path

OBJECT = fixture_path("xdp_count.clang-19.v3.el.g.o")


def test_a_file_is_read_and_written(tmp_path):
    """A written file holds the object's bytes, and nothing else is in the folder."""
    obj = ElfObject.read(OBJECT)
    obj.write(tmp_path / "out.o")
    assert (tmp_path / "out.o").read_bytes() == OBJECT.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out.o"]


def test_the_mode_of_a_replaced_file_is_kept(tmp_path):
    """A file that is replaced keeps its mode; a new one gets the usual one."""
    target = tmp_path / "out.o"
    target.write_bytes(b"old")
    target.chmod(0o640)
    ElfObject.read(OBJECT).write(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        ElfObject.read(OBJECT).write(tmp_path / "new.o")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.o").stat().st_mode) == 0o640


def test_a_link_is_written_through(tmp_path):
    """Writing to a symbolic link replaces what it points to, not the link."""
    target, link = tmp_path / "target.o", tmp_path / "link.o"
    target.write_bytes(b"old")
    link.symlink_to(target)
    ElfObject.read(OBJECT).write(link)
    assert link.is_symlink()
    assert target.read_bytes() == OBJECT.read_bytes()


@pytest.mark.parametrize("step", ["fsync", "fchmod"])
def test_a_failed_write_leaves_everything_as_it_was(tmp_path, monkeypatch, step):
    """Where writing fails the old file is whole, and no temporary one is left."""
    target = tmp_path / "out.o"
    target.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        ElfObject.read(OBJECT).write(target)
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.o"]


def test_a_missing_folder_is_an_os_error(tmp_path):
    """A folder that does not exist is the system's error, and is not made."""
    with pytest.raises(FileNotFoundError):
        ElfObject.read(OBJECT).write(tmp_path / "no" / "out.o")
    assert not list(tmp_path.iterdir())


def test_a_device_is_written_to_directly():
    """A device is not replaced by a file."""
    ElfObject.read(OBJECT).write("/dev/null")
    assert Path("/dev/null").is_char_device()


def test_streams_and_dashes(monkeypatch):
    """An open stream works as a file does, and - is standard input and output."""
    data = OBJECT.read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out))
    ElfObject.read("-").write("-")
    assert out.getvalue() == data
    stream = io.BytesIO()
    ElfObject.read(io.BytesIO(data)).write(stream)
    assert stream.getvalue() == data
