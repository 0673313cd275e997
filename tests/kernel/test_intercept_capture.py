"""A load as an object, and passes that need one, under bpftool."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bpfpatch import kernel
from bpfpatch.bpf.intercept import Answer, LoadOutcome
from bpfpatch.bpf.loadrequest import LoadRequest
from bpfpatch.bpf.syscall import Handle
from bpfpatch.coverage import cover_map
from bpfpatch.elf import ElfObject
from bpfpatch.intercept import Captured, Rewriter, captured
from bpfpatch.passes import Pipeline, Target
from support.inputs.bpfobjects import fixture_path
from support.machine.runner import HERE
from support.machine.samecode import without_maps
from support.machine.tools import BPFFS, need_bpf

pytestmark = pytest.mark.kernel

OBJECTS = """
xdp_balancer globals callbacks global_funcs kfuncs ringbuf redirects sock_filter
tail_calls kconfig timer core_relo cgroup printing network_hooks
"""
_count = itertools.count()


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def path_of(name: str) -> Path:
    """The object of clang 19 with types."""
    return fixture_path(f"{name}.clang-19.v3.el.g.o")


def under_bpftool(
    path: Path,
    on_load: Callable[[LoadRequest], Answer],
    on_done: Callable[[LoadOutcome], None] | None = None,
) -> int:
    """Let bpftool load an object, and take its pins away again."""
    root = BPFFS / f"bpfpatch_icpt_{os.getpid()}_{next(_count)}"
    line = 'exec bpftool prog loadall "$1" "$2" pinmaps "$2_maps" > /dev/null 2>&1'
    try:
        return kernel.intercept(["sh", "-c", line, "sh", str(path), str(root)], on_load, on_done)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(f"{root}_maps", ignore_errors=True)


def xlated_of(fd: int) -> bytes:
    """The code of a loaded program, whichever its maps."""
    return without_maps(kernel.LoadedProgram.from_id(kernel_id(fd)).xlated())


def kernel_id(fd: int) -> int:
    """A program's number."""
    from bpfpatch.bpf.proginfo import prog_info

    return prog_info(fd).id


@pytest.mark.parametrize("name", OBJECTS.split())
def test_what_is_captured_loads_again(name: str) -> None:
    """Each load as an object is read, linked and loaded to the very code of the load."""
    pairs: dict[str, tuple[bytes, bytes]] = {}

    def on_load(request: LoadRequest) -> Answer:
        if request.is_probe:
            return None
        tried = request.attempt()
        if not isinstance(tried.verdict.handle, Handle):
            return tried
        made = captured(request)
        again = ElfObject.parse(made.obj.to_bytes())
        with kernel.open_object(again, name="again") as opened:
            mine = without_maps(opened.programs[made.program].xlated())
        pairs[request.name] = (mine, xlated_of(tried.verdict.handle.fd))
        return tried

    outcomes: list[LoadOutcome] = []
    status = under_bpftool(path_of(name), on_load, outcomes.append)
    assert not [one.note for one in outcomes if one.note]
    assert pairs or status
    for program, (mine, theirs) in pairs.items():
        assert mine == theirs, program
    if not pairs:
        pytest.skip(f"not on this kernel: {name}")


def test_libbpf_reads_what_is_captured(tmp_path: Path) -> None:
    """Another loader takes the file: code, maps, types, records of functions and lines."""
    root = BPFFS / f"bpfpatch_icpt_{os.getpid()}_{next(_count)}"
    made: list[Captured] = []

    def on_load(request: LoadRequest) -> Answer:
        if not request.is_probe:
            made.append(captured(request))
            made[-1].obj.write(str(tmp_path / "one.o"))
        return None

    under_bpftool(path_of("xdp_balancer"), on_load)
    try:
        subprocess.run(
            ["bpftool", "prog", "load", str(tmp_path / "one.o"), str(root)],
            check=True,
            capture_output=True,
        )
        dump = subprocess.run(
            ["bpftool", "prog", "dump", "xlated", "pinned", str(root), "linum"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    finally:
        root.unlink(missing_ok=True)
    assert "xdp_balancer.c" in dump
    names = {info.name for info in made[0].obj.maps}
    assert {"blocked", "verdicts", "flows"} <= names


@pytest.mark.parametrize("text", ["cover{edges=true}", "cover{count=percpu}", "blind,nops"])
def test_a_pipeline_runs_on_each_load(text: str) -> None:
    """Passes that add maps and those that do not are loaded, with maps of ours."""
    rewriter = Rewriter(Target())
    counters = []

    def on_load(request: LoadRequest) -> Answer:
        if request.is_probe:
            return None
        done = rewriter.rewrite(request, Pipeline.parse(text))
        if done.obj is not None:
            counters.append(cover_map(done.obj).n_counters)
        return done

    outcomes: list[LoadOutcome] = []
    assert under_bpftool(path_of("xdp_balancer"), on_load, outcomes.append) == 0
    (outcome,) = [one for one in outcomes if one.is_rewritten]
    assert outcome.ending == "loaded"
    assert bool(counters) == ("cover" in text)


def test_the_source_stays_with_the_code(tmp_path: Path) -> None:
    """After a rewrite, line info and func_info of the loaded program are those of its code."""
    lines: list[tuple[set[int], set[int]]] = []
    rewriter = Rewriter(Target())

    def on_load(request: LoadRequest) -> Answer:
        if request.is_probe:
            return None
        before = request.attempt()
        done = rewriter.rewrite(request, Pipeline.parse("sprinkle{every=3}"))
        after = request.attempt(done)
        infos = []
        for tried in (before, after):
            assert tried.verdict.handle is not None
            with kernel.LoadedProgram.from_id(kernel_id(tried.verdict.handle.fd)) as loaded:
                infos.append(loaded.info())
            tried.verdict.handle.close()
        lines.append(
            (
                {int(row) >> 10 for row in infos[0].line_info["line_col"]},
                {int(row) >> 10 for row in infos[1].line_info["line_col"]},
            )
        )
        assert infos[0].func_info["type_id"].tolist() == infos[1].func_info["type_id"].tolist()
        return None

    assert under_bpftool(path_of("xdp_balancer"), on_load) == 0
    before, after = lines[0]
    assert before == after


@pytest.mark.parametrize("name", ["tail_calls", "global_funcs"])
def test_rewritten_programs_do_what_the_others_do(name: str, tmp_path: Path) -> None:
    """Frozen constants, tail calls and functions to replace are for a loader as they were."""
    path = str(path_of(name))
    functions = [one for one in ElfObject.read(path).code.subprogs.names if one]
    argv = [sys.executable, HERE, path, *functions]
    alone = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    rewriter, pipeline = Rewriter(Target()), Pipeline.parse("sprinkle{every=2},blind")
    outcomes: list[LoadOutcome] = []
    out = tmp_path / "out.txt"
    line = ["sh", "-c", 'out=$1; shift; exec "$@" > "$out"', "sh", str(out), *argv]

    def on_load(request: LoadRequest) -> Answer:
        return None if request.is_probe else rewriter.rewrite(request, pipeline)

    assert kernel.intercept(line, on_load, outcomes.append) == 0
    assert out.read_text() == alone
    assert sum(one.is_rewritten for one in outcomes) >= 3
