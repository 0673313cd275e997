"""``bpfpatch info``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from bpfpatch import kernel
from bpfpatch.elf import ElfObject
from bpfpatch.patch import Body, PatchList
from support.inputs.bpfobjects import fixture_path
from support.inputs.compiled import compile_bpf
from support.inputs.configured import configured
from support.machine.tools import need_bpf

KFUNCS = fixture_path("kfuncs.clang-19.v3.el.g.o")
DEMO_PATH = fixture_path("xdp_balancer.clang-19.v3.el.g.o")


def test_sections_agree_with_pyelftools(run_json: Any, demo: Path) -> None:
    """Names and sizes of sections are what pyelftools reads."""
    with demo.open("rb") as file:
        theirs = [(one.name, one["sh_size"]) for one in ELFFile(file).iter_sections()]
    ours = run_json("info", demo)["sections"]
    assert [(one["name"], one["bytes"]) for one in ours] == theirs


def test_programs_and_maps(run_json: Any, demo: Path) -> None:
    """The balancer has one XDP program, six subprograms besides, and three maps."""
    value = run_json("info", demo)
    assert [(one["name"], one["type"]) for one in value["programs"]] == [("balancer", "xdp")]
    assert len(value["subprograms"]) == 7
    assert {one["name"] for one in value["maps"]} == {"flows", "blocked", "verdicts"}
    assert (value["license"], value["cpu"], value["byteorder"]) == ("GPL", "v3", "little")
    assert value["valid"] is True


def test_slots_agree_with_section_sizes(run_json: Any, demo: Path) -> None:
    """There are as many slots as the executable sections have room for."""
    value = run_json("info", demo)
    n_bytes = sum(one["bytes"] for one in value["sections"] if one["executable"])
    assert value["slots"] == n_bytes // 8
    assert sum(one["end"] - one["start"] for one in value["subprograms"]) == value["slots"]


def test_text_has_the_same(run: Any, demo: Path) -> None:
    """The text names licence, programs, maps and, on demand, sections."""
    text = run("info", demo, "--sections").stdout
    for word in ("licence: GPL", "needs cpu: v3", "balancer", "flows", ".rel.text", "line_info"):
        assert word in text
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize(
    ("name", "cpu", "byteorder"),
    [
        ("xdp_parse.clang-14.v1.eb.o", "v1", "big"),
        ("cpu_v4.clang-19.v4.el.o", "v4", "little"),
        ("asm_may_goto.clang-19.v4.el.o", "newer than v4", "little"),
    ],
)
def test_cpu_and_byte_order(run_json: Any, name: str, cpu: str, byteorder: str) -> None:
    """The lowest cpu version and the byte order are those that the object was built for."""
    value = run_json("info", fixture_path(name))
    assert (value["cpu"], value["byteorder"]) == (cpu, byteorder)


def test_cpu_of_what_stands_behind_a_load(run_json: Any, tmp_path: Path) -> None:
    """The one newer instruction counts also where an ld_imm64 is right in front of it."""
    obj = ElfObject.parse(fixture_path("xdp_parse.clang-14.v1.eb.o").read_bytes())
    patches = PatchList(obj.code)
    patches.insert_before(0, Body.asm("r1 = 5 ll; r1 = (s8)r1"))
    path = tmp_path / "newer.o"
    path.write_bytes(obj.with_code(patches.linearize()).to_bytes())
    assert run_json("info", path)["cpu"] == "v4"


def test_stdin(run: Any, demo: Path) -> None:
    """With - the object comes from stdin."""
    assert run("info", "-", stdin=demo.read_bytes()).stdout.startswith("<stdin>: ")


def test_broken_object_fails(run: Any, broken: Path) -> None:
    """A broken object gives one line and exit 1."""
    result = run("info", broken, status=1)
    assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)


def test_assembly_is_no_object(run: Any, tmp_path: Path) -> None:
    """Only an object has something to say."""
    path = tmp_path / "x.s"
    path.write_text("exit\n")
    result = run("info", path, status=1)
    assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)
    assert "x.s" in result.stderr


def test_what_a_kernel_lacks(run: Any, run_json: Any) -> None:
    """With --kernel, what of an object that version lacks is named, with what brought it."""
    path = fixture_path("ringbuf.clang-19.v3.el.g.o")
    missing = run_json("info", path, "--kernel", "5.4")["missing"]
    assert {(row["kind"], row["name"], row["since"]) for row in missing} >= {
        ("map type", "ringbuf", "5.8"),
        ("helper", "ringbuf_output", "5.8"),
    }
    assert run_json("info", path, "--kernel", "6.18")["missing"] == []
    assert "ringbuf_output" in run("info", path, "--kernel", "5.4").stdout
    assert "looks like 6.18" in run("info", path, "--kernel", "new", status=1).stderr


@pytest.mark.parametrize(
    ("name", "kernel", "wanted"),
    [
        ("kfuncs.clang-19.v1.el.g.o", "5.12", ("call_kfunc", "5.13", 3)),
        ("globals.clang-14.v3.eb.g.o", "5.1", ("ld_map_value", "5.2", 16)),
        ("kconfig.clang-19.v1.eb.o", "4.19", ("ld_map_value", "5.2", 1)),
    ],
)
def test_what_a_loader_makes_of_instructions(
    run_json: Any, name: str, kernel: str, wanted: tuple[str, str, int]
) -> None:
    """Calls of kernel functions that are not weak, and addresses of data, need what is loaded."""
    missing = run_json("info", fixture_path(name), "--kernel", kernel)["missing"]
    assert wanted in [(row["name"], row["since"], row["count"]) for row in missing]


def test_what_needs_a_level(run_json: Any) -> None:
    """Without, all that not every kernel has is listed; instructions with their cpu version."""
    needs = run_json("info", fixture_path("cpu_v4.clang-19.v4.el.o"))["needs"]
    levels = {row["name"]: (row["cpu"], row["since"]) for row in needs if row["kind"] == "insn"}
    assert ("v4", "6.6") in levels.values()
    assert {row["since"] for row in needs if row["kind"] == "program type"} <= {
        "4.8",
        "4.1",
        "3.19",
    }


def test_maps_say_what_they_are(run_json: Any, tmp_path: Path) -> None:
    """Each map has the type, sizes, BTF types, entries and flags of its definition."""
    maps = {one["name"]: one for one in run_json("info", configured(tmp_path))["maps"]}
    assert {name: one["type"] for name, one in maps.items()} == {
        "ports": "hash",
        "recent": "lru_hash",
        "cfg": "array",
        "counts": "percpu_array",
        "routes": "lpm_trie",
        "jumps": "prog_array",
        "waiting": "queue",
        "events": "ringbuf",
    }
    assert maps["cfg"] | {"name": ""} == {
        "name": "",
        "kind": "btf",
        "type": "array",
        "key": "u32",
        "value": "struct rule",
        "key_size": 4,
        "value_size": 12,
        "max_entries": 4,
        "flags": [],
        "since": "3.19",
    }
    assert maps["routes"]["flags"] == ["NO_PREALLOC"]


def test_maps_without_types(run: Any, run_json: Any) -> None:
    """A map of an object without BTF has sizes; one that nothing describes is named, and a note."""
    path = fixture_path("legacy_maps.clang-19.v2.el.o")
    found = run_json("info", path)["maps"][0]
    assert (found["kind"], found["key"]) == ("legacy", None)
    assert found["key_size"] > 0
    bare = fixture_path("callbacks.clang-19.v3.el.g.nobtf.o")
    value = run_json("info", bare)
    assert all(one["type"] is None for one in value["maps"])
    assert any("no .BTF" in note for note in value["notices"])
    assert "note: " in run("info", bare).stdout


def test_calls_are_counted(run_json: Any) -> None:
    """Helpers and kfuncs come with their version, where it is known, and with who calls them."""
    calls = {one["name"]: one for one in run_json("info", DEMO_PATH)["calls"]}
    assert calls["map_lookup_elem"] == {
        "kind": "helper",
        "name": "map_lookup_elem",
        "count": 3,
        "since": "3.19",
        "callers": ["count", "pick_backend", "balancer"],
    }
    kfuncs = [one for one in run_json("info", KFUNCS)["calls"] if one["kind"] == "kfunc"]
    assert {one["name"] for one in kfuncs} >= {"bpf_dynptr_from_xdp", "bpf_dynptr_slice"}
    versions = {one["name"]: one["since"] for one in kfuncs}
    assert versions["bpf_dynptr_from_xdp"] == "6.4"
    missing = run_json("info", KFUNCS, "--kernel", "6.1")["missing"]
    assert ("kfunc", "bpf_dynptr_slice", "6.4") in {
        (one["kind"], one["name"], one["since"]) for one in missing
    }


def test_what_it_prints(run_json: Any) -> None:
    """A format is found where its address is moved on the way to the call, too."""
    found = run_json("info", fixture_path("printing.clang-19.v3.el.g.o"))["formats"]
    texts = {(one["function"], one["text"]) for one in found}
    assert texts == {
        ("plain", "plain"),
        ("each", "round"),
        ("announce", "size %d"),
        ("third", "third %d"),
        ("watch", "large %d"),
        ("watch", "small"),
    }


def test_tables_fit_a_terminal(run: Any, tmp_path: Path) -> None:
    """Lines have 80 characters at most; with --globals, values are whole."""
    source = (
        "const volatile struct { unsigned long long first, second, third; } settings = "
        "{1234567890123, 1234567890123, 1234567890123};"
        'SEC("xdp") int run(struct xdp_md *ctx) { return settings.first; }'
        'char _license[] SEC("license") = "GPL";'
    )
    path = compile_bpf(tmp_path, source)
    text = run("info", path).stdout
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert "..." in text
    whole = run("info", "--globals", path).stdout
    assert '{"first": 1234567890123, "second": 1234567890123, "third": 1234567890123}' in whole


def test_all_that_a_kernel_must_have(run: Any, demo: Path) -> None:
    """By default the newest thing only is named; --needs lists them all."""
    assert "needs kernel: 5.2 (insn ld_map_value; " in run("info", demo).stdout
    text = run("info", demo, "--needs").stdout
    assert re.search(r"^map type +percpu_array +4\.6 +1$", text, re.MULTILINE)


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["xdp_balancer", "stack_heavy"])
def test_stack_is_what_the_verifier_sees(run_json: Any, name: str) -> None:
    """Each function of a program has the stack depth that the verifier's log says."""
    need_bpf()
    path = fixture_path(f"{name}.clang-19.v3.el.g.o")
    obj = ElfObject.read(str(path))
    seen = {one["name"]: one["stack"] for one in run_json("info", path)["subprograms"]}
    checked = 0
    for info in obj.programs:
        linked = obj.link(info.name)
        with kernel.open_object(obj, []) as opened:
            log = opened.load(linked, log_level=4, keep_log=True).log
        depths = re.search(r"^stack depth ([\d+]+)", log, re.MULTILINE)
        assert depths is not None
        names = linked.program.subprogs.names
        theirs = [int(one) for one in depths[1].split("+")]
        # The verifier rounds a frame up to 8 bytes; a function that is checked by itself has a
        # number of its own.
        ours = [-(-seen[name] // 8) * 8 for name in names]
        assert sorted(-(-one // 8) * 8 for one in theirs) == sorted(ours)
        checked += 1
    assert checked


def test_large_variables_are_not_read(run_json: Any, tmp_path: Path) -> None:
    """A table's value takes --globals; what only claims to be large has none."""
    source = (
        "unsigned char table[5000]; unsigned char huge[1 << 30]; int small = 3;"
        'SEC("xdp") int run(struct xdp_md *ctx) { return table[ctx->data & 7] + huge[9] + small; }'
        'char _license[] SEC("license") = "GPL";'
    )
    path = compile_bpf(tmp_path, source)
    seen = []
    for options in ((), ("--globals",)):
        found = {one["name"]: one for one in run_json("info", path, *options)["globals"]}
        assert found["huge"]["bytes"] == 1 << 30
        assert (found["small"]["value"], found["huge"]["value"]) == (3, None)
        seen.append(found["table"]["value"])
    assert seen == [None, [0] * 5000]
