"""What the trace pass refuses, and what loads before and after: ``python tests/trace_table.py``.

Every function of every object is traced, alone and all of an object together; prints one row of
Markdown for each set of objects and way to trace. Whether what loaded still loads needs root.
Arguments are ways to trace; by default three of them. The folder of more objects is
../shared/objects, or what BPFPATCH_OBJECTS says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bpfpatch import kernel
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.passes import Pipeline
from support.inputs.bpfobjects import fixture_objects, libbpf_tools_objects, xdp_tools_objects

OBJECTS = Path(os.environ.get("BPFPATCH_OBJECTS", Path(__file__).parents[2] / "shared" / "objects"))
WAYS = ("message=here", "regs=all", "regs=all,to=ring")


@dataclass
class Row:
    """What came of one set of objects."""

    functions: int = 0
    refused: list[str] = field(default_factory=list)
    before: int = 0
    after: int = 0
    lost: list[str] = field(default_factory=list)


def corpora() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Objects, by where they are from."""
    paths = sorted(OBJECTS.glob("*.o"))
    yield "shared/objects", [(path.name, path.read_bytes()) for path in paths]
    yield "libxdp1", xdp_tools_objects()
    yield "libbpf-tools", libbpf_tools_objects()
    yield "fixtures", fixture_objects()


def loading(obj: ElfObject) -> set[str]:
    """The programs that the kernel takes: all together, or else each alone."""
    names = [info.name for info in obj.programs]
    for some in ([names], [[name] for name in names]):
        out = set()
        for part in some:
            try:
                kernel.open_object(obj, part).close()
                out.update(part)
            except BpfPatchError:
                continue
        if out:
            return out
    return set()


def trace(row: Row, name: str, obj: ElfObject, way: str) -> None:
    """Trace all functions of an object."""
    done = []
    for function in dict.fromkeys(one for one in obj.code.subprogs.names if one):
        row.functions += 1
        try:
            Pipeline.parse(f"trace{{at={function},{way}}}").run_object(obj)
            done.append(f"trace{{at={function},{way}}}")
        except BpfPatchError as error:
            row.refused.append(f"{name} {function}: {error}")
    if not done or kernel.available() is not None:
        return
    before = loading(obj)
    after = loading(Pipeline.parse(",".join(done)).run_object(obj)[0])
    row.before += len(before)
    row.after += len(before & after)
    row.lost += [f"{name} {one}" for one in sorted(before - after)]


def main() -> None:
    """Print the table, and below it what was refused or lost."""
    print("| objects | way | functions | refused | programs that load | of these after |")
    print("| --- | --- | --- | --- | --- | --- |")
    odd = []
    for where, objects in corpora():
        for way in sys.argv[1:] or WAYS:
            row = Row()
            for name, data in objects:
                if data[5:6] == b"\1":
                    trace(row, name, ElfObject.parse(data), way)
            n_refused = len(row.refused)
            print(f"| {where} | `{way}` | {row.functions} | {n_refused} |", end="")
            print(f" {row.before} | {row.after} |", flush=True)
            odd += [f"refused, {way}: {one}" for one in row.refused]
            odd += [f"lost, {way}: {one}" for one in row.lost]
    print()
    print("\n".join(odd))


if __name__ == "__main__":
    main()
