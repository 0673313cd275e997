"""``bpfpatch exec``: runs a program on what it is given, and prints what came out."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dpkt import pcapng

from bpfpatch import runs
from bpfpatch.elf import ElfObject
from support.inputs import capture, packets
from support.inputs.bpfobjects import fixture_path

BALANCER = fixture_path("xdp_balancer.clang-19.v3.el.g.o")
TWO = fixture_path("callbacks.clang-19.v3.el.g.o")
HEX = packets.SAMPLES["tcp_to_balancer"].hex()

Run = Callable[..., Any]
Source = Callable[[str], Path]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Writes a file of assembly."""

    def write(text: str) -> Path:
        path = tmp_path / "code.s"
        path.write_text(text.replace(";", "\n"))
        return path

    return write


def run_json(run: Run, *args: str | Path, **options: Any) -> Any:
    """What the command prints as JSON."""
    return json.loads(run("exec", *args, "--json", **options).stdout)


def test_flat_code_gets_memory(run: Run, source: Source) -> None:
    """Instructions without an object run on plain memory; result and change are printed."""
    path = source("r0 = *(u8 *)(r1 + 1); *(u8 *)(r1 + 0) = 9; exit")
    out = run("exec", path, "--hex", "01 02").stdout
    assert "r0: 2 (0x2)\n" in out
    assert "memory: 2 bytes, 1 changed\n" in out
    assert "  - 0000  01 02\n  + 0000  09 02\n" in out


def test_a_packet_program_has_an_action(run: Run) -> None:
    """The result of an XDP program is named, and the packet's change shown."""
    out = run("exec", BALANCER, "--hex", HEX).stdout
    assert "XDP_TX" in out
    assert "packet: 54 bytes, 9 changed" in out
    assert "packet changes:\n  - 0000" in out


def test_maps_show_what_changed(run: Run) -> None:
    """With --maps new and changed entries are printed, in hex."""
    out = run("exec", BALANCER, "--hex", HEX, "--maps").stdout
    assert "map verdicts:\n  + 03 00 00 00: 01" in out
    assert "map flows:\n  + " in out


def test_no_change_in_the_maps_is_said(run: Run, source: Source) -> None:
    """Where nothing changed, --maps says that."""
    assert "nothing changed" in run("exec", source("r0 = 0; exit"), "--maps").stdout


def test_a_capture_is_a_row_a_packet(run: Run) -> None:
    """Each packet of a capture has its row, and the maps keep their contents in between."""
    out = run("exec", BALANCER, "--pcap", capture.PATH).stdout.splitlines()
    assert len(out) == 1 + len(capture.packets())
    assert out[1].split() == ["0", "42", "2", "XDP_PASS", "as", "it", "was", out[1].split()[-1]]
    runs_ = run_json(run, BALANCER, "--pcap", capture.PATH)["runs"]
    assert {one["action"] for one in runs_} >= {"XDP_PASS", "XDP_TX", "XDP_DROP"}


def test_capture_from_stdin(run: Run) -> None:
    """- is the standard input."""
    out = run("exec", BALANCER, "--pcap", "-", stdin=capture.PATH.read_bytes()).stdout
    assert len(out.splitlines()) == 1 + len(capture.packets())


def test_file_and_stdin(run: Run, source: Source, tmp_path: Path) -> None:
    """--file takes a file's bytes or the standard input's."""
    path = source("r0 = r2; exit")
    (tmp_path / "data").write_bytes(b"12345")
    assert "r0: 5 " in run("exec", path, "--file", tmp_path / "data").stdout
    assert "r0: 3 " in run("exec", path, "--file", "-", stdin=b"123").stdout


def test_program_from_stdin(run: Run) -> None:
    """The program itself can come from the standard input."""
    assert "r0: 7 " in run("exec", "-", "--hex", "00", stdin=b"r0 = 7\nexit\n").stdout


def test_repeat_keeps_the_maps(run: Run) -> None:
    """With --repeat the same input runs several times, and counters go on."""
    out = run_json(run, BALANCER, "--hex", HEX, "--repeat", "3")
    assert len(out["runs"]) == 3
    (verdicts,) = out["maps"]["verdicts"]
    assert verdicts["value"].startswith("03")


def test_trace(run: Run, source: Source) -> None:
    """The trace has each instruction as it ran, and the registers that it changed."""
    out = run("exec", source("r6 = 2; l: r6 += -1; if r6 != 0 goto l; r0 = 5; exit"), "--trace")
    lines = [line.split() for line in out.stdout.splitlines() if ":" in line]
    steps = [line for line in lines if line[0].rstrip(":").isdigit()]
    assert [int(step[0].rstrip(":")) for step in steps] == [0, 1, 2, 1, 2, 3, 4]
    assert [step[-1] for step in steps if step[0] == "1:"] == ["r6=0x1", "r6=0x0"]


def test_trace_has_helper_calls(run: Run) -> None:
    """The trace ends with the helpers that were called, their arguments and results."""
    out = run("exec", BALANCER, "--hex", HEX, "--trace").stdout
    assert "helpers:\n  map_lookup_elem(" in out


def test_passes_come_first(run: Run, source: Source) -> None:
    """The program is rewritten before it runs."""
    path = source("r0 = 1; exit")
    plain, more = (run_json(run, path, *args)["runs"][0] for args in ([], ["-p", "sprinkle"]))
    assert plain["r0"] == more["r0"] == 1
    assert more["insns"] > plain["insns"] == 2


def test_json_has_it_all(run: Run) -> None:
    """JSON has result, packet, helpers and maps, in hex where they are bytes."""
    out = run_json(run, BALANCER, "--hex", HEX)
    (one,) = out["runs"]
    assert (out["mode"], out["type"]) == ("interp", "xdp")
    assert (one["r0"], one["r0_bits"], one["action"]) == (3, 64, "XDP_TX")
    assert len(bytes.fromhex(one["packet"])) == 54
    assert one["helpers"][0]["name"] == "map_lookup_elem"
    assert {"flows", "verdicts", ".bss"} <= set(out["maps"])
    assert {row["map"] for row in out["map_changes"]} == {"flows", "verdicts", ".bss"}


def test_every_key_is_described(run: Run) -> None:
    """Each key of the JSON is in the command's section of docs/cli.md, or of `runs` there."""
    docs = Path(__file__).resolve().parents[3] / "docs" / "cli.md"
    section = docs.read_text().partition("\n## exec\n")[2].partition("\n## ")[0]
    out = run_json(run, BALANCER, "--hex", HEX, "--trace")
    rows = [out, *out["runs"], *out["runs"][0]["helpers"], *out["map_changes"], *out["trace"]]
    assert {key for row in rows for key in row if f"`{key}`" not in section} == set()


def test_trace_in_json(run: Run, source: Source) -> None:
    """With --trace JSON has the steps."""
    trace = run_json(run, source("r0 = 1; exit"), "--trace")["trace"]
    assert trace[1] == {"run": 0, "slot": 0, "text": "r0 = 0x1", "changed": {"r0": 1}}


def test_kind_can_be_given(run: Run, source: Source) -> None:
    """--type says what kind of program instructions are, and so what they run on."""
    out = run("exec", source("r0 = 2; exit"), "--type", "xdp").stdout
    assert "XDP_PASS" in out
    assert "packet: 64 bytes" in out


def test_context(run: Run, source: Source) -> None:
    """A program on a context gets the input for it; beside a packet --ctx gives one."""
    path = source("r0 = *(u32 *)(r1 + 8); exit")
    assert "r0: 5 " in run("exec", path, "--type", "syscall", "--hex", "00" * 8 + "05000000").stdout
    args = ["--type", "sched_cls", "--ctx", "00" * 8 + "29000000"]
    assert "r0: 41 " in run("exec", path, *args).stdout


@pytest.mark.parametrize("mode", runs.MODES[1:])
@pytest.mark.kernel
def test_the_kernel_says_the_same(run: Run, mode: str) -> None:
    """In the kernel's modes results, packets and maps are the interpreter's."""
    if runs.available(mode) is not None:
        pytest.skip(f"bpf(2) is not allowed here: {runs.available(mode)}")
    ours = run_json(run, BALANCER, "--pcap", capture.PATH)
    args = ["-p", "sprinkle", "--pcap", capture.PATH, "--mode", mode]
    frames = capture.packets().values()
    theirs = run_json(run, BALANCER, *args)
    assert len(theirs["runs"]) == len(frames)
    for a, b in zip(ours["runs"], theirs["runs"], strict=True):
        assert (a["r0"] & 0xFFFFFFFF, a["packet"]) == (b["r0"], b["packet"])
    assert ours["maps"] == theirs["maps"]


@pytest.mark.parametrize(
    ("args", "status", "what"),
    [
        ([TWO], 1, "it has 2 programs; choose one with --prog: "),
        ([BALANCER, "--prog", "none"], 1, "no program 'none'"),
        ([BALANCER, "--hex", "0"], 2, "odd number of hex digits"),
        ([BALANCER, "--hex", "zz"], 2, "non-hexadecimal"),
        ([BALANCER, "--hex", "00", "--file", "x"], 2, "choose one"),
        ([BALANCER, "--file", "/nonexistent"], 1, "/nonexistent: No such file"),
        ([BALANCER, "--pcap", BALANCER], 1, "not a packet capture"),
        ([BALANCER, "--mode", "jit", "--trace"], 2, "--trace is for --mode interp"),
        ([BALANCER, "-p", "nopass"], 2, "no pass 'nopass'"),
        ([BALANCER, "--type", "nokind"], 1, "no kind of program 'nokind'"),
        ([BALANCER, "--type", "syscall", "--pcap", capture.PATH], 2, "runs on no packets"),
        ([BALANCER, "--type", "syscall", "--hex", "00", "--ctx", "00"], 2, "give one input"),
        (["-", "--file", "-"], 2, "only one"),
    ],
)
def test_mistakes(run: Run, args: list[str | Path], status: int, what: str) -> None:
    """A mistake is one line, with the exit status that such mistakes have."""
    result = run("exec", *args, status=status)
    assert what in result.output


def test_a_program_needs_an_object_to_have_a_name(run: Run, source: Source) -> None:
    """--prog has no meaning for instructions."""
    assert "this is none" in run("exec", source("exit"), "--prog", "x", status=1).output


def test_a_trap_is_a_failure(run: Run, source: Source) -> None:
    """A program that traps exits with 1, and says where and why."""
    result = run("exec", source("r0 = 1; r0 = *(u8 *)(r1 + 9); exit"), "--hex", "00", status=1)
    assert "code.s: insn 1 `r0 = *(u8 *)(r1 + 0x9)`: stray read of 1 byte" in result.stderr


def test_rows_that_failed_are_counted(run: Run, source: Source, tmp_path: Path) -> None:
    """Of several runs those that failed have a row each, and their number is the message."""
    path = source("r1 = *(u32 *)(r1 + 0); r0 = *(u8 *)(r1 + 16); r0 = 2; exit")
    (tmp_path / "two.pcap").write_bytes(runs.write_pcap([bytes(14), bytes(64)]))
    args = ["--type", "xdp", "--pcap", tmp_path / "two.pcap"]
    result = run("exec", path, *args, status=1)
    assert "error: insn 1" in result.stdout
    assert "1 of 2 runs failed" in result.stderr


def test_an_empty_capture(run: Run, tmp_path: Path) -> None:
    """A capture without packets is not run on nothing."""
    (tmp_path / "none.pcap").write_bytes(runs.write_pcap([]))
    assert "no packets" in run("exec", BALANCER, "--pcap", tmp_path / "none.pcap", status=1).output


def test_a_capture_of_something_else(run: Run, tmp_path: Path) -> None:
    """Packets that start with no Ethernet header are refused."""
    (tmp_path / "raw.pcap").write_bytes(runs.write_pcap([bytes(40)], link_type=101))
    result = run("exec", BALANCER, "--pcap", tmp_path / "raw.pcap", status=1)
    assert "link type 101" in result.output


SET_META = """
    r6 = r1; r2 = -4; call bpf_xdp_adjust_meta; if r0 != 0 goto bad
    r1 = *(u32 *)(r6 + 8); r2 = *(u32 *)(r6 + 0); r3 = r1; r3 += 4; if r3 > r2 goto bad
    *(u32 *)(r1 + 0) = 5; r0 = 2; exit
bad: r0 = 0; exit
"""
READ_META = """
    r2 = *(u32 *)(r1 + 8); r3 = *(u32 *)(r1 + 0); r4 = r2; r4 += 4; r0 = 1; if r4 > r3 goto out
    r0 = *(u32 *)(r2 + 0); r0 &= 3; out: exit
"""
MARKING = """
    *(u32 *)(r1 + 8) = 0xcafe; r2 = 7; *(u32 *)(r1 + 32) = r2; *(u32 *)(r1 + 52) = r2; r0 = 0; exit
"""
CTX_OF_META = "0400000044000000" + "00" * 16


def need_mode(mode: str) -> None:
    """Skip where a mode cannot be used."""
    if (reason := runs.available(mode)) is not None:
        pytest.skip(f"bpf(2) is not allowed here: {reason}")


@pytest.mark.kernel
@pytest.mark.parametrize("mode", ["interp", "jit"])
@pytest.mark.parametrize("ctx", ["data=4", CTX_OF_META])
def test_metadata_comes_before_an_xdp_packet(run: Run, source: Source, mode: str, ctx: str) -> None:
    """As much of the input as the context's data says is metadata, as bpftool has it."""
    need_mode(mode)
    args = ["--type", "xdp", "--mode", mode, "--ctx", ctx, "--hex", "02000000" + "00" * 64]
    out = run("exec", source(READ_META), *args).stdout
    assert "r0: 2 " in out
    assert "packet: 64 bytes, as it was\nmetadata: 4 bytes, as it was\n" in out


@pytest.mark.kernel
@pytest.mark.parametrize("mode", ["interp", "jit"])
def test_metadata_that_a_program_adds_is_none_of_the_packet(
    run: Run, source: Source, mode: str
) -> None:
    """The packet is as it was, and the new metadata is shown beside it."""
    need_mode(mode)
    out = run("exec", source(SET_META), "--type", "xdp", "--mode", mode).stdout
    assert "packet: 64 bytes, as it was\nmetadata: 4 bytes, 4 more\n" in out
    assert "metadata changes:\n  + 0000  05 00 00 00\n" in out
    one = run_json(run, source(SET_META), "--type", "xdp", "--mode", mode)["runs"][0]
    assert one["metadata"] == "05000000"


@pytest.mark.kernel
@pytest.mark.parametrize("mode", ["interp", "jit"])
@pytest.mark.parametrize("ctx", ["data=3", "data=256", "data=56", "data_meta=4,data=8"])
def test_metadata_that_cannot_be(run: Run, source: Source, mode: str, ctx: str) -> None:
    """An odd size, too much, no packet left, or a start other than 0: refused in every mode."""
    need_mode(mode)
    args = ["--type", "xdp", "--mode", mode, "--ctx", ctx, "--hex", "00" * 68]
    assert "metadata starts at 0" in run("exec", source(READ_META), *args, status=1).stderr


@pytest.mark.kernel
@pytest.mark.parametrize("mode", ["interp", "jit"])
def test_fields_of_the_context_that_changed(run: Run, source: Source, mode: str) -> None:
    """What a tc program leaves in its context is printed, old and new; rows name the fields."""
    need_mode(mode)
    args = ["--type", "sched_cls", "--mode", mode, "--ctx", "mark=0xbeef,cb[1]=7"]
    out = run("exec", source(MARKING), *args).stdout
    assert "context changes:\n  mark: 0xbeef -> 0xcafe\n  priority: 0x0 -> 0x7\n" in out
    assert "cb[" not in out.partition("context changes:")[2]
    out = run("exec", source(MARKING), *args, "--repeat", "2").stdout
    assert "as it was, mark, priority" in out


@pytest.mark.parametrize(
    ("ctx", "what"),
    [
        ("nomark=1", "no context field 'nomark'"),
        ("mark=x", "a number of 4 bytes"),
        ("mark=-1", "mark"),
    ],
)
def test_no_such_context(run: Run, source: Source, ctx: str, what: str) -> None:
    """A field that is not there, or what is no number for it, is a usage error."""
    args = ["--type", "sched_cls", "--ctx", ctx]
    assert what in run("exec", source(MARKING), *args, status=2).output


def test_packets_that_the_capture_cut(run: Run, tmp_path: Path) -> None:
    """That the snap length cut packets is said on stderr, with how many and how short."""
    frames = [runs.PcapFrame(bytes(60), n_wire=60), runs.PcapFrame(bytes(20), n_wire=42)]
    (tmp_path / "cut.pcap").write_bytes(runs.write_pcap(frames))
    result = run("exec", BALANCER, "--pcap", tmp_path / "cut.pcap")
    assert "note: 1 of 2 packets were cut short" in result.stderr
    assert "packet 1, 20 of 42 bytes" in result.stderr
    assert "note" not in run("exec", BALANCER, "--pcap", capture.PATH).stderr


def test_several_captures(run: Run, tmp_path: Path) -> None:
    """All captures are run, in the order in which they are given."""
    (tmp_path / "one.pcap").write_bytes(runs.write_pcap([bytes(14)]))
    (tmp_path / "two.pcap").write_bytes(runs.write_pcap([bytes(15), bytes(16)]))
    args = ["--pcap", tmp_path / "two.pcap", "--pcap", tmp_path / "one.pcap"]
    found = run_json(run, BALANCER, *args)["runs"]
    assert [len(one["packet"]) // 2 for one in found] == [15, 16, 14]


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("exec", "--hex", "00"),
        ("exec", "--mode", "interp"),
        ("dump", "--format", "elf"),
        ("apply", "-p", "dce"),
        ("cover", "-o", "x.o"),
    ],
)
def test_an_option_given_twice(run: Run, command: str, option: str, value: str) -> None:
    """An option that takes one value is not silently the last of two."""
    out = run(command, BALANCER, option, value, option, value, status=2).output
    assert "is given 2 times; it takes one value" in out


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("r1 = 0; call bpf_ktime_get_ns; exit", ""),
        (
            "*(u64 *)(r10 - 8) = 0; *(u64 *)(r10 - 16) = 0; r1 = r10; r1 += -16; r2 = 5; r3 = 0; "
            "call bpf_timer_start; r0 = 0; exit",
            "timers never fire (bpf_timer_start())",
        ),
        (
            "r6 = r1; *(u64 *)(r10 - 8) = 0; *(u64 *)(r10 - 16) = 0; r2 = r10; r2 += -16; r3 = 12; "
            "r4 = -1; r5 = 0; call bpf_sk_lookup_udp; r0 = 0; exit",
            "there are no sockets (bpf_sk_lookup_udp())",
        ),
    ],
)
def test_what_cannot_happen_is_said(run: Run, source: Source, code: str, what: str) -> None:
    """A helper that would tell of something that the interpreter has not is named on stderr."""
    result = run("exec", source(code), "--type", "sched_cls")
    assert (what in result.stderr) if what else ("note" not in result.stderr)


@pytest.mark.parametrize("suffix", ["o", "btf"])
def test_types_for_co_re(run: Run, tmp_path: Path, suffix: str) -> None:
    """--btf takes BTF, or an object that has it; for the kernel's modes it is refused."""
    path = fixture_path("core_relo.clang-19.v3.el.g.o")
    types = tmp_path / f"types.{suffix}"
    obj = ElfObject.read(path)
    assert obj.btf is not None
    types.write_bytes(path.read_bytes() if suffix == "o" else obj.btf.to_bytes())
    found = run_json(run, path, "--btf", types)
    (report,) = found["maps"]["reports"]
    assert report["value"][32:40] == "30000000"
    assert (
        "for --mode interp" in run("exec", path, "--btf", types, "--mode", "jit", status=2).output
    )


HOSTILE = {
    "endless loop": ("l: goto l", "1000 instructions"),
    "endless loop of calls": ("l: call f; goto l; f: exit", "1000 instructions"),
    "recursion": ("f: call f; exit", "8"),
    "wild pointer": ("r1 = 0xdeadbeef00000000 ll; r0 = *(u64 *)(r1 + 0); exit", "stray read"),
    "null pointer": ("r1 = 0; *(u64 *)(r1 + 0) = 1; exit", "stray write"),
    "jump into nowhere": ("r0 = 0", ""),
    "call of a number": ("call 123456; exit", "123456"),
    "stack beyond its end": ("*(u64 *)(r10 - 520) = 1; exit", "stray write"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs(run: Run, source: Source, name: str) -> None:
    """Whatever a program does, it ends within the budget, in one line that says why."""
    code, what = HOSTILE[name]
    result = run("exec", source(code), "--budget", "1000", "--hex", "00", status=1)
    assert what in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_hostile_packet_program(run: Run, source: Source) -> None:
    """A packet that is made larger and larger stops growing, without an error."""
    code = "r6 = r1; l: r1 = r6; r2 = 1000000; call 65; if r0 == 0 goto l; r0 = 7; exit"
    result = run("exec", source(code), "--type", "xdp", "--hex", "00" * 64)
    assert "r0: 7 " in result.stdout


def test_captures_of_both_formats_and_packed(run: Run, source: Source, tmp_path: Path) -> None:
    """A pcapng file and a packed one run like a pcap file of the same packets."""
    path = source("r1 = *(u32 *)(r1 + 0); r0 = *(u8 *)(r1 + 13); exit")
    frames = [bytes(13) + b"\1", bytes(13) + b"\2"]
    blocks = [pcapng.SectionHeaderBlockLE(bom=pcapng.BYTE_ORDER_MAGIC)]
    blocks += [pcapng.InterfaceDescriptionBlockLE()]
    blocks += [pcapng.EnhancedPacketBlockLE(pkt_data=frame) for frame in frames]
    captures = {
        "a.pcap": runs.write_pcap(frames),
        "a.pcapng": b"".join(map(bytes, blocks)),
        "a.pcap.gz": gzip.compress(runs.write_pcap(frames)),
    }
    for name, data in captures.items():
        (tmp_path / name).write_bytes(data)
        done = run("exec", path, "--type", "xdp", "--pcap", tmp_path / name, "--json")
        assert [one["r0"] for one in json.loads(done.stdout)["runs"]] == [1, 2]
