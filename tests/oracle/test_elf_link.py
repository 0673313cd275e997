"""What libbpf says it submits, in its debug output, is what `ElfObject.link` makes."""

import re
import subprocess
import uuid
from pathlib import Path

import pytest

from bpfpatch.elf import ElfObject, TargetKind
from support.inputs.bpfobjects import debian_objects, fixture_objects
from support.machine.tools import need_bpf

LARGEST = 30_000
OTHERS = 16

pytestmark = pytest.mark.kernel


def objects():
    """Some little-endian objects whose code has calls between functions, by name."""
    fixtures = [row for row in fixture_objects() if row[0].endswith("clang-19.v3.el.g.o")]
    # The verifier's log, which comes along, makes large ones slow.
    others = [row for row in debian_objects() if len(row[1]) < LARGEST][:OTHERS]
    out = {}
    for name, data in [*fixtures, *others]:
        if ElfObject.parse(data).code.refs.is_entry.any():
            out[name] = data
    return out


@pytest.mark.parametrize("name", objects())
def test_subprogs_are_where_libbpf_puts_them(name, tmp_path):
    """Each subprog that libbpf appends is in the linked program, at the same slot."""
    need_bpf()
    path = tmp_path / "object.o"
    path.write_bytes(objects()[name])
    pin = Path("/sys/fs/bpf") / f"bpfpatch_link_{uuid.uuid4().hex[:8]}"
    command = ["bpftool", "-d", "prog", "loadall", str(path), str(pin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for found in pin.glob("*"):
        found.unlink()
    if pin.exists():
        pin.rmdir()
    obj = ElfObject.parse(objects()[name])
    said = re.findall(
        r"prog '(\S+)': insn #\d+ relocated, imm -?\d+ points to subprog '(\S+)' "
        r"\(now at (\d+) offset\)",
        done.stderr,
    )
    appended = re.findall(r"prog '(\S+)': added (\d+) insns from sub-prog '(\S+)'", done.stderr)
    if not said:
        pytest.skip("no such case: libbpf links nothing in this object")
    linked = {info.name: obj.link(info.name).program for info in obj.programs}
    for main, subprog, slot in said:
        if main not in linked:
            continue  # a subprog that calls another: its own place is not the main program's
        subprogs = linked[main].subprogs
        places = dict(zip(subprogs.names, subprogs.start.tolist(), strict=True))
        assert places[subprog] == int(slot)
    for main, count, subprog in appended:
        if main not in linked:
            continue
        subprogs = linked[main].subprogs
        row = subprogs.names.index(subprog)
        assert subprogs.ends(len(linked[main]))[row] - subprogs.start[row] == int(count)


def test_maps_are_told_from_data_and_kernel_symbols():
    """What is left to the loader has the kind that libbpf gives it."""
    data = dict(fixture_objects())
    kinds = {}
    for name in ("globals", "kfuncs", "kconfig", "ksyms"):
        obj = ElfObject.parse(data[f"{name}.clang-19.v3.el.g.o"])
        kinds[name] = {
            row.target.kind for info in obj.programs for row in obj.link(info.name).relocations
        }
    assert TargetKind.DATA in kinds["globals"]
    assert TargetKind.KFUNC in kinds["kfuncs"]
    assert TargetKind.KCONFIG in kinds["kconfig"]
    assert TargetKind.KSYM in kinds["ksyms"]
