"""DWARF after passes, judged by other readers: prints a table of all objects at hand.

Of our own objects, those of Debian's libxdp1, and those of ``BPFPATCH_OBJECTS``, else
``../shared/objects``. Ends with 1 if any is worse than before.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.passes import Pipeline
from support.inputs.bpfobjects import fixture_objects, production_objects, xdp_tools_objects
from support.machine.dwarfreaders import complaints, moved_lines, wrong_lines

PIPELINES = ("sprinkle", "dce,nops", "cover")
NO_VERIFY = ".gcc."
"""Of objects of gcc ``llvm-dwarfdump --verify`` does not come to an end, before or after."""


def corpora() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Objects with DWARF, by where they are from."""
    given = {
        "fixtures": fixture_objects(),
        "libxdp1": xdp_tools_objects(),
        "production": production_objects(),
    }
    for where, objects in given.items():
        yield where, [(name, data) for name, data in objects if b".debug_line\0" in data]


def judge(name: str, data: bytes, pipeline: str, path: Path) -> tuple[str, int]:
    """What became of an object's DWARF, and how many instructions have been compared."""
    obj = ElfObject.parse(data)
    try:
        out, result = Pipeline.parse(pipeline).run_object(obj)
    except BpfPatchError:
        return "refused by the pass", 0
    if any("removed" in notice and "DWARF" in notice for notice in out.notices):
        return "dropped", 0
    if NO_VERIFY not in name and complaints(out, path) != complaints(obj, path):
        return "worse in verify", 0
    site = result.remap.site
    wrong = wrong_lines(obj, out, site) + moved_lines(obj, out, site, path)
    if wrong:
        print(f"{name} {pipeline}: {wrong[0]}", file=sys.stderr)
        return "wrong lines", site.size
    return "right", site.size


def main() -> int:
    """Print the table."""
    is_bad = False
    print("| objects | passes | right | other | instructions | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for where, objects in corpora():
            for pipeline in PIPELINES:
                began, count, n_insns = time.perf_counter(), Counter[str](), 0
                for name, data in objects:
                    what, n = judge(name, data, pipeline, Path(folder) / "o")
                    count[what] += 1
                    n_insns += n
                right = count.pop("right", 0)
                is_bad |= bool(count.keys() & {"worse in verify", "wrong lines"})
                other = ", ".join(f"{n} {what}" for what, n in count.items()) or "-"
                took = time.perf_counter() - began
                print(f"| {where} | {pipeline} | {right} | {other} | {n_insns} | {took:.1f} |")
    return is_bad


if __name__ == "__main__":
    sys.exit(main())
