"""Traced objects in the kernel: they load, and tell what registers hold."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from bpfpatch import kernel
from bpfpatch.bpf.ringbuf import RingReader
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError, OptionError, UnsupportedError
from bpfpatch.interp import Machine, Xdp
from bpfpatch.passes import Pipeline
from bpfpatch.passes.trace import MAP_NAME, trace_map
from support.inputs import packets
from support.inputs.bpfobjects import fixture_objects, fixture_path, xdp_tools_objects
from support.machine import tools
from support.machine.bpfloads import loaded_bytes

pytestmark = pytest.mark.kernel

OPTIONS = ("to=pipe,regs=all", "to=ring,regs=all", "message=here")
"""What is traced at one place of each object."""
REASONS = (
    "a lock may be held",
    "which of them are free is not known",  # an address in the frame is given to others
    "the function may have",
    "no symbol table",
    "licence",  # one that does not let it print
)
"""Why a place, or an object, may be refused."""
MOST_REFUSED = 0.05
FRAMES = (packets.tcp4("10.0.0.1", "10.0.0.2", 80), packets.udp4("10.0.0.1", "10.0.0.2", 53))
IN_KERNEL_ONLY = 1 << 28
"""From here on the interpreter has addresses, and the kernel others."""


@pytest.fixture(autouse=True)
def _kernel() -> None:
    tools.need_bpf()


def an_object(name: str) -> ElfObject:
    """A committed object."""
    return ElfObject.parse(fixture_path(name).read_bytes())


def traced(obj: ElfObject, pipeline: str) -> ElfObject:
    """The object with a pipeline's traces."""
    return Pipeline.parse(pipeline).run_object(obj)[0]


def loadable() -> Iterator[tuple[str, ElfObject]]:
    """Objects that load here as they are."""
    for name, data in [*fixture_objects(), *xdp_tools_objects()]:
        obj = ElfObject.parse(data)
        if obj.byteorder != "little":
            continue
        try:
            kernel.open_object(obj).close()
        except BpfPatchError:
            continue
        yield name, obj


def test_every_object_loads() -> None:
    """What loads here still loads when it is traced at any place, or the place is refused."""
    n_done, refused = 0, []
    for name, obj in loadable():
        rng = random.Random(name)
        slots = np.flatnonzero(~obj.code.second_slots).tolist()
        for options in rng.sample(OPTIONS, len(OPTIONS) - 1):
            slot = rng.choice(slots)
            try:
                new = traced(obj, f"trace{{at=#{slot},{options}}}")
            except UnsupportedError as error:
                refused.append(f"{name} #{slot}: {error}")
                continue
            kernel.open_object(new).close()
            n_done += 1
    assert n_done > 100
    assert [one for one in refused if not any(reason in one for reason in REASONS)] == []
    assert len(refused) < MOST_REFUSED * n_done


PRINTING = "printing.clang-19.v3.el.g.o"


@pytest.mark.parametrize("options", OPTIONS)
def test_beside_prints_of_fewer_values(options: str) -> None:
    """What bpf_trace_printk() is not given is not saved, at a place of code that prints."""
    obj = an_object(PRINTING)
    # Each way takes every third place, so that together they take all.
    places = np.flatnonzero(~obj.code.second_slots)[OPTIONS.index(options) :: len(OPTIONS)]
    n_loaded = 0
    for slot in places.tolist():
        with suppress(UnsupportedError):
            kernel.open_object(traced(obj, f"trace{{at=#{slot},{options}}}")).close()
            n_loaded += 1
    assert n_loaded > len(places) // 2


@pytest.mark.parametrize("count", ["plain", "atomic", "percpu"])
def test_what_prints_can_be_counted(count: str) -> None:
    """Code that prints, takes a lock and is called back counts each of its blocks, and loads."""
    new = traced(an_object(PRINTING), f"cover{{edges=true,count={count},strict=true}}")
    kernel.open_object(new).close()
    kernel.open_object(traced(new, "trace{at=third,regs=all}")).close()


@pytest.mark.parametrize("name", ["announce", "third", "plain", "each", "watch"])
def test_at_functions_that_print(name: str) -> None:
    """Each function of code that prints can be traced, and loads; twice, too, in either order."""
    obj = an_object(PRINTING)
    for places in ((name,), (name, f"{name}+1"), (f"{name}+1", name)):
        pipeline = ",".join(f"trace{{at={at},regs=all}}" for at in places)
        kernel.open_object(traced(obj, pipeline)).close()


@pytest.mark.parametrize(
    "name",
    [
        "xdp_balancer.clang-19.v3.el.g.o",
        "xdp_parse.gcc.v3.el.g.dwarf.o",
        "asm_back_edge.clang-19.v4.el.o",
    ],
)
@pytest.mark.parametrize("to", ["pipe", "ring"])
def test_the_stock_loader_loads_it(name: str, to: str, tmp_path: Path) -> None:
    """Libbpf makes the map or the text that was added, with and without BTF."""
    tools.need("bpftool")
    if not fixture_path(name).exists():
        pytest.skip(f"no such case: {name}")
    obj = an_object(name)
    try:
        with loaded_bytes(obj.to_bytes(), tmp_path):
            pass
    except tools.BpftoolError:
        pytest.skip("bpftool does not load the original")
    start = obj.programs[0].start
    with loaded_bytes(traced(obj, f"trace{{at=#{start},regs=r1,to={to}}}").to_bytes(), tmp_path):
        pass


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("asm_back_edge.clang-19.v4.el.o", "drain+1"),
        ("asm_back_edge.clang-19.v4.el.o", "back_edge+11"),
        ("xdp_parse.clang-19.v3.el.g.o", "parse_xdp+5"),
        ("xdp_balancer.clang-19.v3.el.g.o", "xdp_balancer.c:145"),
        ("xdp_balancer.clang-19.v3.el.g.o", "parse_ip4"),
    ],
)
def test_records_are_what_the_interpreter_sees(name: str, at: str) -> None:
    """Numbers that registers hold are the same in the kernel and in the interpreter."""
    new = traced(an_object(name), f"trace{{at={at},regs=all,to=ring}}")
    meaning, (info, *_) = trace_map(new), new.programs
    n_numbers = 0
    with (
        kernel.open_object(new, [info.name]) as opened,
        RingReader(opened.maps[MAP_NAME]) as reader,
    ):
        for frame in FRAMES:
            machine = Machine.of_object(new, info.name)
            machine.run(Xdp(frame))
            wanted = [meaning.record(data) for data in machine.maps[MAP_NAME].records]
            opened.programs[info.name].test_run(frame)
            got = [meaning.record(data) for data in reader.read()]
            assert [record.place for record in got] == [record.place for record in wanted]
            for mine, theirs in zip(wanted, got, strict=True):
                for one, other in zip(mine.values, theirs.values, strict=True):
                    if one < IN_KERNEL_ONLY:
                        assert one == other
                        n_numbers += 1
    assert n_numbers


def test_a_record_that_is_refused_stays() -> None:
    """With the wrong object nothing is taken: the right one can still be used."""
    new = traced(
        an_object("asm_back_edge.clang-19.v4.el.o"),
        "trace{at=drain+1,regs=r1,to=ring,size=4096}",
    )

    def refuse(_data: bytes) -> None:
        raise OptionError("of another object")

    with kernel.open_object(new) as opened, RingReader(opened.maps[MAP_NAME]) as reader:
        opened.programs["back_edge"].test_run(bytes(64 + 25))
        with pytest.raises(OptionError, match="of another object"):
            next(reader.read(refuse))
        assert len(list(reader.read(lambda data: None))) == 25


def test_records_come_in_order() -> None:
    """Records are read once, in the order of time, also when the buffer goes round."""
    new = traced(
        an_object("asm_back_edge.clang-19.v4.el.o"),
        "trace{at=drain+1,regs=r1,to=ring,size=4096}",
    )
    meaning, frame, times = trace_map(new), bytes(64 + 25), []
    with kernel.open_object(new) as opened, RingReader(opened.maps[MAP_NAME]) as reader:
        assert not reader.wait(0)
        for _ in range(30):
            opened.programs["back_edge"].test_run(frame)
            assert reader.wait(1)
            records = [meaning.record(data) for data in reader.read()]
            assert [record.values[0] for record in records] == list(range(24, -1, -1))
            times += [record.time_ns for record in records]
    assert times == sorted(times)


def test_no_ring_buffer() -> None:
    """Another map cannot be read so."""
    with (
        kernel.Map.create("array") as array,
        pytest.raises(OptionError, match="is of type array, no ring buffer"),
    ):
        RingReader(array)


@contextmanager
def tracefs(folder: Path) -> Iterator[Path]:
    """The tracing file system, mounted for a while if it is not."""
    for known in (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing")):
        if (known / "trace_pipe").exists():
            yield known
            return
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tracefs", "tracefs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"not on this kernel: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_the_trace_pipe(tmp_path: Path) -> None:
    """What is printed comes out of the trace pipe, with the values."""
    message = f"test-{os.getpid()}"
    new = traced(
        an_object("asm_back_edge.clang-19.v4.el.o"),
        f"trace{{at=drain+1,regs=r1+r2,message={message}}}",
    )
    with tracefs(tmp_path / "tracing") as root, kernel.open_object(new) as opened:
        opened.programs["back_edge"].test_run(bytes(64 + 3))
        # The same lines as in the pipe, which would take them away from whoever else reads it.
        lines = (root / "trace").read_text().splitlines()
    mine = [line.partition("bpf_trace_printk: ")[2] for line in lines if message in line]
    assert mine == [
        f"{message} drain#1 r1=0x2 r2=0x3",
        f"{message} drain#1 r1=0x1 r2=0x6",
        f"{message} drain#1 r1=0x0 r2=0x9",
    ]
