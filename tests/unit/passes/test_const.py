"""const: what it may take for a constant, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import format_program
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.facts.columns import column
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MapFacts
from bpfpatch.facts.subject import Subject
from bpfpatch.passes import Pipeline
from bpfpatch.program import Program
from support.inputs.compiled import compile_bpf
from support.machine.tools import loaded, need_bpf

FEATURE = """
struct {
    UINT(type, MAP_HASH);
    UINT(max_entries, 1024);
    TYPE(key, u32);
    TYPE(value, u64);
} rare SEC(".maps");
const volatile struct { unsigned int max, low; } limits = { 8, 1 };
const volatile _Bool use_rare = 0;
const volatile unsigned char table[4] = {1, 2, 3, 4};
__attribute__((noinline)) static int expensive(u32 key) {
    u64 *found = bpf_map_lookup_elem(&rare, &key);
    return found ? *found : 7;
}
__attribute__((noinline)) static int scaled(int value, int by) {
    return by > 4 ? value * 3 : value + by;
}
SEC("tc") int run(struct __sk_buff *skb) {
    int out = scaled(skb->len, limits.max) + table[skb->mark & 3];
    if (use_rare) out += expensive(skb->mark);
    return out + limits.low;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def feature(tmp_path_factory: pytest.TempPathFactory) -> ElfObject:
    """A program with a feature that is off by default."""
    return ElfObject.read(compile_bpf(tmp_path_factory.mktemp("const"), FEATURE))


def run(obj: ElfObject, text: str) -> ElfObject:
    """What a pipeline makes of an object."""
    return Pipeline.parse(text).run_object(obj)[0]


def functions(obj: ElfObject) -> set[str]:
    """Names of the functions that are there."""
    return {one.name for one in obj.functions}


def test_a_given_switch_takes_its_code_away(feature: ElfObject) -> None:
    """With the switch off, its function is gone; with it on, only the branch is."""
    off = run(feature.with_values({"use_rare": False}), "const,dce,nops")
    assert functions(off) == {"scaled", "run"}
    on = run(feature.with_values({"use_rare": True}), "const,dce,nops")
    assert functions(on) == {"expensive", "scaled", "run"}
    assert len(on.code) < len(feature.code)


def test_nothing_is_folded_on_a_guess(feature: ElfObject) -> None:
    """Without values and without the user's word the pass is refused, and says what to do."""
    with pytest.raises(OptionError, match=r"--set NAME=VALUE.*only=.*all=true"):
        run(feature, "const")


def test_only_what_was_given_is_folded(feature: ElfObject) -> None:
    """A member that was given is folded, its neighbour and other variables are still loaded."""
    folded = run(feature.with_values({"limits.low": 5}), "const")
    before, after = (format_program(one.code).count("= *(u") for one in (feature, folded))
    assert after == before - 1


@pytest.mark.parametrize(
    ("text", "gone"),
    [("const{only=use_rare},dce", {"expensive"}), ("const{only=limits.max+limits.low},dce", set()),
     ("const{all=true},dce", {"expensive"})],
)  # fmt: skip
def test_the_users_word_is_enough(feature: ElfObject, text: str, gone: set[str]) -> None:
    """only= and all= take what the object holds."""
    folded = run(feature, text)
    assert functions(feature) - functions(folded) == gone
    assert len(folded.code) < len(feature.code)


def test_arguments_that_all_calls_agree_on_are_folded(feature: ElfObject) -> None:
    """The comparison in a static function that is called with a constant is decided."""
    folded = run(feature.with_values({"limits.max": 8}), "const,dce,nops")
    (scaled,) = [one for one in folded.functions if one.name == "scaled"]
    (before,) = [one for one in feature.functions if one.name == "scaled"]
    assert scaled.end - scaled.start < before.end - before.start


def test_global_functions_know_no_arguments(tmp_path: Path) -> None:
    """A function that others may call or replace is left as it is, whatever the calls here say."""
    source = """
    const volatile unsigned int knob = 8;
    NOINLINE int scaled(int value, int by) { return by > 4 ? value * 3 : value + by; }
    SEC("tc") int run(struct __sk_buff *skb) { return scaled(skb->len, knob); }
    LICENSE;
    """
    obj = ElfObject.read(compile_bpf(tmp_path, source))
    folded = run(obj, "const{all=true},dce")
    before, after = (
        next(one.end - one.start for one in side.functions if one.name == "scaled")
        for side in (obj, folded)
    )
    assert before == after
    assert len(folded.code) < len(obj.code)


def test_unknown_index_keeps_the_table(feature: ElfObject) -> None:
    """A load at an index that the program computes is left as it is."""
    folded = run(feature, "const{all=true},dce,nops")
    assert any(" ll" in line for line in format_program(folded.code).splitlines())


def test_a_second_run_changes_nothing(feature: ElfObject) -> None:
    """Const leaves nothing for itself."""
    once = run(feature, "const{all=true},dce,nops")
    assert run(once, "const{all=true},dce,nops") == once


def test_wrong_names_are_refused(feature: ElfObject) -> None:
    """A name in only= that is no variable is an error that says what there is."""
    with pytest.raises(OptionError, match="did you mean use_rare"):
        run(feature, "const{only=use_rar}")


def test_code_without_an_object_is_refused(feature: ElfObject) -> None:
    """A flat program has no variables."""
    with pytest.raises(OptionError, match="variables of an object"):
        Pipeline.parse("const").run(feature.link("run").program)


def frozen_load(content: bytes | None) -> tuple[Program, Subject]:
    """A load with a place in a frozen map, of which it compares a byte and returns a word."""
    code = isa.concat(
        [
            isa.ld_imm64(1, 8 << 32 | 77, src=isa.Pseudo.MAP_VALUE),
            isa.load("u8", 2, 1, 4),
            isa.mov(0, 0),
            isa.jump("jeq", 2, 0, 1),
            isa.load("s16", 0, 1, -2),
            isa.exit_(),
        ]
    )
    kind = MapFacts("rodata", MapType.ARRAY, 4, 16, 1, content=content)
    ld_map = np.full(len(code), -1, np.int32)
    ld_map[0] = 0
    program = Program(code).with_columns(ld_map=column("ld_map", ld_map))
    return program, Subject(maps=(kind,))


def test_frozen_maps_of_a_load_are_constants() -> None:
    """A frozen map's contents are read at the place's own offset; branches follow from them."""
    program, subject = frozen_load(bytes(6) + b"\xfe\xff" + bytes(4) + b"\x01" + bytes(3))
    done = Pipeline.parse("const,dce,nops").run(program, subject=subject)
    assert format_program(done.program).split("\n")[-3:-1] == [
        "     0: r0 = -0x2",
        "     1: exit",
    ]


def test_maps_that_are_not_frozen_are_no_constants() -> None:
    """Without contents, or outside of them, nothing is known; and names are an object's."""
    program, subject = frozen_load(None)
    with pytest.raises(OptionError, match="frozen maps of a load"):
        Pipeline.parse("const").run(program, subject=subject)
    program, subject = frozen_load(bytes(7))
    done = Pipeline.parse("const").run(program, subject=subject)
    assert done.program.insns.tobytes() == program.insns.tobytes()
    with pytest.raises(OptionError, match="names variables of an object"):
        Pipeline.parse("const{only=a}").run(program, subject=subject)


def test_core_records_are_kept(tmp_path: Path) -> None:
    """A load whose offset a CO-RE record may change is kept, and a notice says so."""
    source = """
    struct cfg { int a, b; } __attribute__((preserve_access_index));
    const volatile struct cfg cfg = { 1, 2 };
    SEC("tc") int run(struct __sk_buff *skb) {
        const volatile struct cfg *at = &cfg;
        return at->b;
    }
    char _license[] SEC("license") = "GPL";
    """
    obj = ElfObject.read(compile_bpf(tmp_path, source))
    assert len(obj.code.tables["core_relo"]) == 1
    folded, result = Pipeline.parse("const{all=true}").run_object(obj)
    assert folded.code.to_bytes() == obj.code.to_bytes()
    assert "CO-RE" in result.notices[0]


@pytest.mark.kernel
def test_the_kernel_loads_the_result(feature: ElfObject, tmp_path: Path) -> None:
    """A specialized object loads."""
    need_bpf()
    out = tmp_path / "small.o"
    given: dict[str, Any] = {"use_rare": 0, "limits.max": 3}
    run(feature.with_values(given), "const,dce,nops").write(out)
    with loaded(out):
        pass
