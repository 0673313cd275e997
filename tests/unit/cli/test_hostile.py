"""Small objects that claim much: refused with a sentence, in no time and no memory."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bpfpatch.cli.app import run
from bpfpatch.cli.screen import echo_table
from bpfpatch.elf import ElfObject
from support.inputs.bpfobjects import fixture_path

OBJECT = fixture_path("globals.clang-19.v3.el.g.o")
_FLAGS_AT, _SIZE_AT = 8, 32  # of sh_flags and sh_size in a section header of 64 bytes
_HEADERS_AT = 40  # of e_shoff in the ELF header


def _with_field(section: str, at: int, value: int, obj: Path = OBJECT) -> bytes:
    """An object with 8 other bytes in the header of a section."""
    data = bytearray(obj.read_bytes())
    number = next(one.index for one in ElfObject.parse(bytes(data)).sections if one.name == section)
    (headers,) = struct.unpack_from("<Q", data, _HEADERS_AT)
    struct.pack_into("<Q", data, headers + 64 * number + at, value)
    return bytes(data)


@pytest.mark.parametrize("size", [1 << 31, 1 << 62, (1 << 64) - 8])
@pytest.mark.parametrize("command", ["exec", "verify", "cover run"])
def test_a_bss_that_fits_into_no_map(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int, command: str
) -> None:
    """A size that the file only claims is not believed, whatever runs the program."""
    path = tmp_path / "big.o"
    path.write_bytes(_with_field(".bss", _SIZE_AT, size))
    prog = ElfObject.read(OBJECT).programs[0].name
    given = {
        "exec": ["exec", str(path), "--prog", prog, "--hex", "00" * 64],
        "verify": ["verify", str(path), str(OBJECT), "--seconds", "0.1", "--prog", prog],
        "cover run": ["cover", "run", str(path), "--prog", prog, "--hex", "00", "-o", "-"],
    }
    assert run(given[command]) in (1, 2)
    said = capsys.readouterr()
    assert f".bss has {size} bytes, a map's value at most 2147483647" in said.out + said.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["info", "--sections"], "license"),
        (["dump"], ""),
        (["exec", "--hex", "00"], "it has 0 programs"),
        (["apply", "-p", "sprinkle", "-o", "OUT"], "0 -> 0 instructions"),
        (["cover", "-o", "OUT"], "0 counters"),
        (["verify", str(OBJECT)], "neither programs nor named functions"),
    ],
)
def test_an_object_without_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], said: str
) -> None:
    """Where no section is executable, there is nothing to do or to run, which is no fault."""
    only = fixture_path("may_goto.clang-19.v3.el.g.o")
    path = tmp_path / "none.o"
    path.write_bytes(_with_field("xdp", _FLAGS_AT, 0, only))
    assert not ElfObject.read(path).functions
    verb, *rest = (str(tmp_path / "out.o") if word == "OUT" else word for word in command)
    assert run([verb, str(path), *rest]) in (0, 1, 2)
    got = capsys.readouterr()
    assert said in got.out + got.err


def test_assembly_with_a_byte_order_mark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Editors put one in front of text, where it means nothing."""
    path = tmp_path / "bom.s"
    path.write_bytes(b"\xef\xbb\xbfr0 = 0\nexit\n")
    assert run(["dump", str(path)]) == 0
    assert "r0 = 0x0" in capsys.readouterr().out


def test_a_table_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No column vanishes: where they do not fit side by side, lines are longer than the screen."""
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    echo_table("", ["name", "kind", "one#", "two#", "three#"], [["a", "b", 1000, 2000, 3000]])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("1000", "2000", "3000"))


@pytest.mark.parametrize(
    ("command", "status"),
    [(["apply", "-p", "blind", "IN", "-o", "OUT"], 1), (["diff", "IN", "IN"], 0)],
)
def test_half_an_instruction_at_the_end(tmp_path: Path, command: list[str], status: int) -> None:
    """A program that ends in the first half of an ld_imm64 is refused or compared as it is."""
    (tmp_path / "IN").write_bytes(b"\x95" + bytes(7) + b"\x18" + bytes(7))
    args = [str(tmp_path / word) if word in ("IN", "OUT") else word for word in command]
    assert run([*args, "--format", "raw"]) == status
