"""What lowering to an old instruction set refuses, and what no longer loads: a table, as Markdown.

``python tests/lower_table.py [v1]``; whether what loaded still loads needs root. Debian's
libxdp1 and libbpf-tools give most of the rows, ``BPFPATCH_OBJECTS`` or a folder beside the
project others.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.passes import Lower, Pipeline, Target
from support.inputs.bpfobjects import fixture_objects, libbpf_tools_objects, xdp_tools_objects
from support.machine import tools
from support.machine.bpfloads import loaded_bytes

OBJECTS = "BPFPATCH_OBJECTS"
BESIDE = Path(__file__).parents[2] / "shared" / "objects"


def corpora() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Objects, by where they are from."""
    yield "libxdp1", xdp_tools_objects()
    yield "libbpf-tools", libbpf_tools_objects()
    yield "fixtures", fixture_objects()
    folder = Path(os.environ.get(OBJECTS) or BESIDE)
    yield "others", [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.o"))]


def loads(data: bytes, folder: Path) -> str:
    """Why libbpf does not load an object here, or ""."""
    try:
        with loaded_bytes(data, folder):
            return ""
    except tools.BpftoolError as error:
        return str(error).strip().splitlines()[-1]


def main() -> int:
    """Print the table, and the reasons."""
    cpu = sys.argv[1] if len(sys.argv) > 1 else "v1"
    reasons: Counter[str] = Counter()
    print("| objects | lowered | had nothing newer | refused | still load | do not any more |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        for corpus, objects in corpora():
            seen: Counter[str] = Counter()
            for file, data in objects:
                seen.update(_becomes(file, data, cpu, Path(name), reasons))
            keys = ("lowered", "nothing", "refused", "loads", "fails")
            print(f"| {corpus} | {' | '.join(str(seen[key]) for key in keys)} |", flush=True)
    print("\n| reason | objects |\n| --- | ---: |")
    for reason, count in reasons.most_common():
        print(f"| {reason} | {count} |")
    return 0


def _becomes(
    file: str, data: bytes, cpu: str, folder: Path, reasons: Counter[str]
) -> Iterator[str]:
    try:
        obj = ElfObject.parse(data)
        needed = int(isa.min_cpu(obj.code.insns).max(initial=0))
    except BpfPatchError as error:
        reasons[f"cannot be read: {error}"] += 1
        return
    if needed <= int(cpu[1:]):
        yield "nothing"
        return
    try:
        made, _ = Pipeline((Lower(cpu),)).run_object(obj, Target.loadable(cpu))
    except BpfPatchError as error:
        yield "refused"
        for reason in _reasons(str(error)):
            reasons[reason] += 1
        return
    yield "lowered"
    if data[5] != 1 or loads(data, folder):
        return
    why = loads(made.to_bytes(), folder)
    yield "fails" if why else "loads"
    if why:
        reasons[f"does not load any more: {file}: {why[:120]}"] += 1


def _reasons(text: str) -> set[str]:
    found = re.findall(r"\n  .*`: (.*)", text)
    return set(found) or {text}


if __name__ == "__main__":
    sys.exit(main())
