"""Instrumented objects in the kernel: they load, and count what the interpreter's trace counts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpfpatch import kernel, runs
from bpfpatch.bpf.pinned import pinned
from bpfpatch.coverage import Coverage, collect, cover_map
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError, UnsupportedError, ValidationError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.interp import Skb, Xdp
from bpfpatch.passes import Pipeline
from bpfpatch.runs.interpreted import configuration
from support.inputs.bpfobjects import FIXTURES, debian_objects, fixture_objects, xdp_tools_objects
from support.inputs.compiled import compile_bpf
from support.machine import tools
from support.machine.bpfloads import loaded_bytes
from support.models.covering import Trace, disagreements
from support.models.refusals import verified

pytestmark = pytest.mark.kernel

HASH_ORDER = {"loops"}
"""Goes through a hash table up to a certain key, in an order that the kernel draws by lot."""
COUNTING = ("plain", "atomic", "percpu")
N_LOADS = 45
PACKETS = [frame.data for frame in runs.read_pcap((FIXTURES / "packets.pcap").read_bytes()).frames]
L2 = (ProgType.SCHED_CLS, ProgType.SCHED_ACT)
ON_PACKETS = (ProgType.XDP, ProgType.SOCKET_FILTER, ProgType.CGROUP_SKB, *L2)


@pytest.fixture(autouse=True)
def _kernel() -> None:
    tools.need_bpf()


def instrumented(obj: ElfObject, options: str) -> ElfObject:
    """The object, counting."""
    return Pipeline.parse(f"cover{{{options}}}").run_object(obj)[0]


def runnable() -> Iterator[tuple[str, ElfObject, str, ProgType]]:
    """Programs that TEST_RUN may be able to run on packets, each once."""
    seen = set()
    for name, data in [*fixture_objects(), *xdp_tools_objects()]:
        if data[5] != 1:
            continue
        obj = ElfObject.parse(data)
        for info in obj.programs:
            kind = kernel.section_kind(info.section).type
            try:
                code = obj.link(info.name).program.to_bytes()
            except BpfPatchError:
                continue
            if kind in ON_PACKETS and code not in seen:
                seen.add(code)
                yield name, obj, info.name, kind


def kernel_hits(obj: ElfObject, name: str, packets: list[bytes]) -> tuple[list[int], list[bytes]]:
    """The counters after the kernel ran an instrumented program, and the packets that it took."""
    cover = cover_map(obj)
    taken = []
    with runs.open_runner(obj.link(name), "jit", obj=obj) as runner:
        for packet in packets:
            outcome = runner.run(runs.Input(packet=packet), with_maps=False)
            if outcome.error is None:
                taken.append(packet)
            elif getattr(outcome.error, "name", "") != "EINVAL":  # too short for its kind
                raise outcome.error
        (value,) = runner.maps()[cover.home].values()
    return list(collect.from_value(cover, value).hits), taken


def traced(obj: ElfObject, name: str, kind: ProgType, packets: list[bytes]) -> Trace:
    """What the interpreter runs of the original on the same packets."""
    trace = Trace(obj)
    machine = trace.machine(name, externs=configuration(obj))
    for packet in packets:
        trace.start()
        is_xdp = kind is ProgType.XDP
        machine.run(Xdp(packet) if is_xdp else Skb(packet, is_l2=kind in L2))
    return trace


def test_kernel_counts_equal_the_interpreters() -> None:
    """Blocks and edges that run in the kernel are those that the interpreter runs of the original.

    For all programs of libxdp1 and the fixtures that both can run, on all packets.
    """
    compared, wrong = 0, []
    for number, (file, obj, name, kind) in enumerate(runnable()):
        try:
            counting = instrumented(obj, f"edges=true,count={COUNTING[number % 2]}")
        except (UnsupportedError, ValidationError):  # a broken object is refused as a whole
            continue
        packets = PACKETS[:1] if name in HASH_ORDER else PACKETS
        try:
            hits, taken = kernel_hits(counting, name, packets)
            trace = traced(obj, name, kind, taken)
        except BpfPatchError:
            continue
        compared += 1
        wrong += [f"{file} {one}" for one in disagreements(cover_map(counting), hits, trace)]
    assert not wrong
    assert compared >= 70


@pytest.mark.parametrize("stem", ["exceptions.clang-19.v3.el.g.o", "exceptions.clang-16.v1.el.g.o"])
def test_exceptions_do_not_break_what_follows(stem: str) -> None:
    """Where a call may throw, derived counts are those that a counter in every block gives."""
    obj = ElfObject.read(FIXTURES / "obj" / stem)
    (name,) = [info.name for info in obj.programs]
    found = []
    for options in ("edges=true", "edges=false", "tree=false"):
        counting = instrumented(obj, options)
        hits, _ = kernel_hits(counting, name, PACKETS)
        functions = Coverage.of(cover_map(counting), hits).functions
        found.append([(one.calls, one.blocks) for one in functions])
    assert found[0] == found[1] == found[2]
    assert any(block.times for _, blocks in found[0] for block in blocks)


def combinations() -> list[tuple[str, bytes, str]]:
    """Some objects, with some way to count each; the same in each run."""
    rng = random.Random(6)
    every = [*fixture_objects(), *debian_objects()]
    every = [(name, data) for name, data in every if data[5] == 1]
    some = rng.sample(every, min(N_LOADS, len(every)))
    ways = [f"edges={edges},count={count}" for edges in ("true", "false") for count in COUNTING[:2]]
    return [(name, data, ways[number % 4]) for number, (name, data) in enumerate(some)]


NAKED = """
SEC("xdp") __attribute__((naked)) void naked(void)
{
    asm volatile("r2 = *(u32 *)(r1 + 0); r3 = *(u32 *)(r1 + 4); r3 -= r2; r0 = 2;"
                 "if r3 > 60 goto +1; r0 = 1; exit" ::: "r0", "r1", "r2", "r3");
}
LICENSE;
"""
UNREAD = """
NOINLINE int last(int (*values)[10])
{
    if (values)
        return (*values)[9];
    return 0;
}

SEC("xdp") int unread(struct xdp_md *ctx)
{
    int values[10];
    return last(&values) ? 2 : 1;
}
LICENSE;
"""


@pytest.mark.parametrize("count", COUNTING)
@pytest.mark.parametrize("text", [NAKED, UNREAD], ids=["naked", "unread"])
def test_what_only_the_verifier_takes_for_used(text: str, count: str, tmp_path: Path) -> None:
    """What the types of functions say decides what is in use, beside their code.

    A program gets its context though its prototype has no argument; what a global function's
    argument points to counts as read and overwritten, whatever the function does.
    """
    obj = ElfObject.read(compile_bpf(tmp_path, text))
    names = [info.name for info in obj.programs]
    assert all(isinstance(found, int) for found in verified(obj, names).values())
    after = verified(instrumented(obj, f"edges=true,count={count}"), names)
    assert [name for name, found in after.items() if isinstance(found, int)] == names, after


def test_what_loads_still_loads(tmp_path: Path) -> None:
    """What libbpf loads, it also loads when it counts."""
    n_loaded, wrong = 0, []
    for name, data, options in combinations():
        try:
            with loaded_bytes(data, tmp_path):
                pass
        except tools.BpftoolError:
            continue
        try:
            made = instrumented(ElfObject.parse(data), options).to_bytes()
        except UnsupportedError as error:
            if "no symbol table" not in str(error):
                wrong.append(f"{name} {options}: {error}")
            continue
        try:
            with loaded_bytes(made, tmp_path):
                n_loaded += 1
        except tools.BpftoolError as error:
            wrong.append(f"{name} {options}: {error}")
    assert not wrong
    assert n_loaded >= 15


@pytest.mark.parametrize("counting", COUNTING)
def test_counters_from_the_kernel(counting: str, tmp_path: Path) -> None:
    """Map by id, by pin, program by id and a dump by bpftool all give the same counters."""
    file = FIXTURES / "obj" / "xdp_parse.clang-19.v3.el.g.o"
    counting_obj = instrumented(ElfObject.read(file), f"count={counting}")
    cover = cover_map(counting_obj)
    path = tmp_path / "counting.o"
    counting_obj.write(path)
    with tools.loaded(path) as what:
        pin = what.pin("parse_xdp")
        for packet in PACKETS[:5]:
            tools.bpf_run(pin, packet)
        shown = tools._bpftool("prog", "show", "pinned", str(pin))
        maps = [tools._bpftool("map", "show", "id", str(one)) for one in shown["map_ids"]]
        (mine,) = [one for one in maps if "cover" in one["name"]]
        dump = json.dumps(tools._bpftool("map", "dump", "id", str(mine["id"]))).encode()
        found = [
            collect.from_program_id(cover, shown["id"]),
            collect.from_map_id(cover, mine["id"]),
            collect.from_pin(cover, str(pin)),
            collect.from_pin(cover, str(what.maps[mine["name"].replace(".", "_")])),
            collect.load(dump, cover),
        ]
    assert any(one.calls == 5 for one in found[0].functions)
    assert len({one.hits for one in found}) == 1


def test_nothing_is_pinned_there() -> None:
    """A path that stands for nothing, or for no map or program, is an error with its name."""
    with pytest.raises(kernel.KernelError, match="what is pinned at /sys/fs/bpf/no/such"):
        pinned("/sys/fs/bpf/no/such")
