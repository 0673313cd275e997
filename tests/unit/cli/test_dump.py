"""``bpfpatch dump``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from support.inputs.bpfobjects import fixture_path
from support.machine.tools import need


def test_dump_is_assembly(run: Any, demo: Path) -> None:
    """What is dumped can be assembled to the same instructions."""
    text = run("dump", demo).stdout
    assert assemble(text).insns.tobytes() == ElfObject.read(demo).code.insns.tobytes()


def test_dump_shows_source_lines(run: Any, demo: Path) -> None:
    """Source lines are shown, unless they are not wanted."""
    line = "stat->packets += 1;"
    assert line in run("dump", demo).stdout
    assert line not in run("dump", demo, "--no-lines").stdout


def test_dump_names_maps(run: Any, demo: Path) -> None:
    """Where a relocation puts a map's address, the map is named."""
    text = run("dump", demo, "--no-lines").stdout
    assert re.search(r"r1 = 0x0 ll +// flows$", text, re.MULTILINE)


def test_dump_of_a_section(run: Any, demo: Path) -> None:
    """With --section only that section is shown, to its end."""
    code = ElfObject.read(demo).code
    start = int(code.section_bounds[code.sections.index("xdp")])
    slots = slots_of(run("dump", demo, "--section", "xdp").stdout)
    assert (slots[0], slots[-1]) == (start, len(code) - 1)


def test_dump_of_a_subprogram(run: Any, demo: Path) -> None:
    """With --prog only that function is shown."""
    text = run("dump", demo, "--prog", "mix").stdout
    assert text.startswith("mix:\n")
    assert text.rstrip().endswith("exit")
    assert "count:" not in text


def test_dump_of_a_linked_program(run: Any, demo: Path) -> None:
    """With --link the program comes first, at slot 0, and its subprograms behind it."""
    text = run("dump", demo, "--link", "balancer", "--no-lines").stdout
    assert re.search(r"^balancer:\n +0: ", text, re.MULTILINE)
    assert text.index("balancer:") < text.index("\nparse_ip4:")
    assert re.search(r"r1 = 0x0 ll +// flows$", text, re.MULTILINE)


def test_raw_shows_the_bytes(run: Any, demo: Path) -> None:
    """With --raw every slot's bytes stand before its text."""
    assert re.search(r": 95 00 00 00 00 00 00 00 +exit$", run("dump", demo, "--raw").stdout, re.M)


@pytest.mark.parametrize("syntax", ["llvm", "xlated"])
@pytest.mark.parametrize("more", [[], ["--raw"], ["--lines"], ["--json"]], ids=" ".join)
def test_every_form_of_every_opcode_has_a_text(
    run: Any, tmp_path: Path, syntax: str, more: list[str]
) -> None:
    """Opcodes with a source register that makes them something else print, such as e5 with 1."""
    raw = [bytes([code, src << 4, 0, 0, 5, 0, 0, 0]) for src in range(4) for code in range(256)]
    path = tmp_path / "all.raw"
    path.write_bytes(b"".join(raw))
    shown = run("dump", "--format", "raw", "--syntax", syntax, path, *more).stdout
    assert "call_args" in shown
    assert len(shown) > 10 * len(raw)


def test_xlated_syntax_has_opcodes(run: Any, demo: Path) -> None:
    """The kernel's syntax starts with the opcode."""
    text = run("dump", demo, "--syntax", "xlated").stdout
    assert re.search(r"^ +\d+: \(95\) exit$", text, re.MULTILINE)
    assert re.search(r"\(85\) call bpf_map_lookup_elem#1$", text, re.MULTILINE)


def test_json_has_every_instruction(run_json: Any, demo: Path) -> None:
    """The JSON dump has all instructions, with bytes, text and source."""
    value = run_json("dump", demo)
    code = ElfObject.read(demo).file_insns
    insns = [insn for function in value["functions"] for insn in function["insns"]]
    joined = b"".join(bytes.fromhex(insn["bytes"]) for insn in insns)
    assert joined == code.tobytes()
    assert any(insn["symbol"] == "flows" for insn in insns)
    assert any((insn["source"] or {}).get("file", "").endswith(".c") for insn in insns)


def test_dump_agrees_with_objdump_on_text(run: Any, tmp_path: Path) -> None:
    """Without labels, the text is what llvm-objdump prints."""
    need("clang-19", "llvm-objdump-19")
    import subprocess

    source = tmp_path / "x.s"
    source.write_text("r1 = 5\nr2 = *(u32 *)(r1 + 4)\n*(u8 *)(r10 - 8) = r2\nw3 = w1\nexit\n")
    command = ["clang-19", "--target=bpf", "-mcpu=v3", "-c", str(source), "-o"]
    subprocess.run([*command, str(tmp_path / "x.o")], check=True)
    tool = ["llvm-objdump-19", "-d", "--no-show-raw-insn", str(tmp_path / "x.o")]
    theirs = subprocess.run(tool, check=True, capture_output=True, text=True).stdout
    ours = run("dump", tmp_path / "x.o").stdout
    assert texts_of(ours) == texts_of(theirs)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--prog", "nosuch"], "parse_ip4"),
        (["--section", "nosuch"], ".text"),
        (["--link", "nosuch"], "balancer"),
    ],
)
def test_unknown_names_list_the_known(run: Any, demo: Path, args: list[str], word: str) -> None:
    """A name that is not there fails, and the message has those that are."""
    (line,) = run("dump", demo, *args, status=1).stderr.splitlines()
    assert word in line


def test_raw_instructions_have_no_links(run: Any, tmp_path: Path) -> None:
    """--link is for objects."""
    path = tmp_path / "x.bin"
    path.write_bytes(bytes.fromhex("9500000000000000"))
    assert "needs an object" in run("dump", path, "--link", "x", status=1).stderr


def test_stdin_is_told_by_content(run: Any, demo: Path) -> None:
    """An object and assembly on stdin are told apart by what they are."""
    assert "mix:" in run("dump", "-", stdin=demo.read_bytes()).stdout
    assert "exit" in run("dump", "-", stdin=b"r0 = 0\nexit\n").stdout


def test_broken_object_fails(run: Any, broken: Path) -> None:
    """A broken object gives one line and exit 1."""
    result = run("dump", broken, status=1)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1


def slots_of(text: str) -> list[int]:
    """The slots of a listing."""
    return [int(found[1]) for found in re.finditer(r"^ +(\d+):", text, re.MULTILINE)]


def texts_of(text: str) -> list[str]:
    """The instructions of a listing."""
    return [found[1].strip() for found in re.finditer(r"^ +\d+:(.*)$", text, re.MULTILINE)]


def test_graph_of_a_function(run: Any, demo: Path) -> None:
    """The flow graph has the blocks of a function, and an edge for each way between them."""
    text = run("dump", demo, "--prog", "count", "--cfg", "-").stdout
    names = re.findall(r"^ +(b\d+) \[label=\"L(\d+)", text, re.MULTILINE)
    assert [int(slot) for _, slot in names] == [104, 112, 118]
    first, second, last = (name for name, _ in names)
    edges = re.findall(r"^ +(\w+) -> (\w+)", text, re.MULTILINE)
    assert set(edges) == {
        ("in2", first),
        (first, second),
        (first, last),
        (second, last),
        (last, "out2"),
    }
    assert "call bpf_map_lookup_elem" in text
    assert "verdicts" in text


def test_graph_of_a_whole_object(run: Any, demo: Path, tmp_path: Path) -> None:
    """Without a name, every function is in a frame of its own; graphviz draws all of it."""
    need("dot")
    out = tmp_path / "cfg.svg"
    run("dump", demo, "--cfg", out)
    assert out.read_text().count('class="cluster"') == 7


def test_graph_of_a_jump_table(run: Any) -> None:
    """An indirect jump leads to each place that its table names, by a dashed edge."""
    text = run("dump", fixture_path("asm_jump_table.clang-19.v4.el.o"), "--cfg", "-").stdout
    assert text.count("style=dashed") >= 2


def test_graph_of_a_tail_call(run: Any) -> None:
    """A tail call that succeeds leaves the function: a dotted edge out."""
    text = run("dump", fixture_path("tail_calls.clang-19.v3.el.g.o"), "--cfg", "-").stdout
    assert re.search(r"-> out\d+ \[style=dotted\]", text)


def test_a_picture_needs_a_name(run: Any, demo: Path) -> None:
    """What the name does not say cannot be drawn."""
    assert "ends in .dot, .gv, .svg" in run("dump", demo, "--cfg", "x.png", status=2).stderr
