"""const on programs that are loaded, or while they are: frozen maps are constants."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bpfpatch import isa, kernel
from bpfpatch.bpf.inspect import inspect_program
from bpfpatch.bpf.pinned import pinned
from bpfpatch.elf import ElfObject
from bpfpatch.passes import Pipeline, Target
from bpfpatch.program import Program
from support.inputs.compiled import compile_bpf
from support.machine.tools import BPFFS, bpf_run, need_bpf

pytestmark = pytest.mark.kernel

SOURCE = """
struct { UINT(type, MAP_HASH); UINT(max_entries, 8); TYPE(key, u32); TYPE(value, u64); }
	rare SEC(".maps");
static HELPER(1, void *, lookup, void *, const void *);
const volatile struct { unsigned int max, low; } limits = { 8, 1 };
const volatile _Bool use_rare = 0;
unsigned int start = 3;
NOINLINE static int expensive(u32 key)
{
	u64 *found = lookup(&rare, &key);
	return found ? *found : 7;
}
SEC("xdp") int run(struct xdp_md *ctx)
{
	u32 out = limits.max * 10 + start;
	if (use_rare)
		out += expensive(ctx->ingress_ifindex);
	return out + limits.low;
}
char _license[] SEC("license") = "GPL";
"""
RESULT = 84


@pytest.fixture(autouse=True)
def _kernel() -> None:
    need_bpf()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object with settings in read-only data."""
    return compile_bpf(tmp_path_factory.mktemp("frozen"), SOURCE)


def places(program: Program) -> int:
    """How many addresses of places in maps' values it loads."""
    return int(isa.is_pseudo(program.insns, isa.Pseudo.MAP_VALUE).sum())


def test_a_loaded_program_shows_what_its_frozen_maps_hold(path: Path) -> None:
    """Loads of read-only data become numbers; what the program may write stays a load."""
    obj = ElfObject.read(path)
    with kernel.open_object(obj, []) as opened:
        loaded = opened.load("run")
        found = inspect_program(loaded.info().id)
    (rodata,) = [one for one in found.subject.maps if one.content is not None]
    assert rodata.content == bytes(obj.raw.contents[obj.raw.find(".rodata")])
    assert places(found.program) >= 2
    pipeline = Pipeline.parse("const")
    done = pipeline.run(found.program, Target.internal(), found.subject)
    assert places(done.program) == 1  # that of .data


def test_a_load_is_specialized_on_its_way(path: Path, tmp_path: Path) -> None:
    """What a loader froze is folded while it loads: code that is switched off is not loaded."""
    pin = BPFFS / f"bpfpatch_frozen_{path.stat().st_ino}"
    log = tmp_path / "log.txt"
    lines = []
    for options in ([], ["-p", "const,dce,nops"]):
        command = [sys.executable, "-m", "bpfpatch", "intercept", "-v", "--log", str(log), *options]
        command += ["--", "bpftool", "prog", "load", str(path), str(pin)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
            assert bpf_run(pin, bytes(64)).retval == RESULT
            lines.append(inspect_program(pinned(str(pin))[1]))
        finally:
            pin.unlink(missing_ok=True)
            shutil.rmtree(pin, ignore_errors=True)
    before, after = lines
    # Maps, and not code: that of another form has been blinded, should others ask for that now.
    # (libbpf binds the map of .rodata to the program, whether it is used or not.)
    gone = {one.name for one in before.maps} - {one.name for one in after.maps}
    assert gone == {"rare"}
