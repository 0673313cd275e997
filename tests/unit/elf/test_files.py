"""Reading and writing files: all or nothing."""

import io
import os
import signal
import stat
import sys
import tempfile
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


def test_a_link_to_an_open_file_is_written_to_directly(tmp_path):
    """/dev/fd/N and what leads there is that descriptor: its holder reads what is written."""
    data = OBJECT.read_bytes()
    read_end, write_end = os.pipe()
    link = tmp_path / "link"
    link.symlink_to(f"/proc/self/fd/{write_end}")
    ElfObject.read(OBJECT).write(link)
    assert os.read(read_end, len(data)) == data
    os.close(read_end)
    os.close(write_end)
    with (tmp_path / "redirected").open("wb") as held:
        ElfObject.read(OBJECT).write(f"/dev/fd/{held.fileno()}")
        assert (tmp_path / "redirected").stat().st_ino == os.fstat(held.fileno()).st_ino
    assert (tmp_path / "redirected").read_bytes() == data


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127])
def test_a_name_may_be_as_long_as_names_can_be(tmp_path, name):
    """The temporary file's name does not depend on that of the file."""
    ElfObject.read(OBJECT).write(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_set_id_bits_are_not_handed_on(tmp_path):
    """A file that runs with its owner's rights does not do so with new content."""
    target = tmp_path / "out.o"
    target.write_bytes(b"old")
    if os.geteuid() == 0:
        os.chown(target, 12345, 12345)
    target.chmod(0o6755)
    owner = target.stat().st_uid
    ElfObject.read(OBJECT).write(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert target.stat().st_uid == owner


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("step", ["mkstemp", "fsync", "replace"])
def test_a_signal_waits_for_the_file(tmp_path, monkeypatch, step, number):
    """A signal at any step waits until the file is whole, and leaves no temporary one."""
    target = tmp_path / "out.o"
    target.write_bytes(b"old")
    places = {"mkstemp": tempfile, "fsync": os, "replace": Path}
    original = getattr(places[step], step)

    def step_and_signal(*args, **options):
        out = original(*args, **options)
        signal.raise_signal(number)
        return out

    class SignalError(Exception):
        pass

    def stop(*_):
        raise SignalError

    before = signal.signal(number, stop)
    monkeypatch.setattr(places[step], step, step_and_signal)
    try:
        with pytest.raises(SignalError):
            ElfObject.read(OBJECT).write(target)
    finally:
        signal.signal(number, before)
    monkeypatch.undo()
    assert target.read_bytes() == OBJECT.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out.o"]
