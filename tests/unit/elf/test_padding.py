"""Where functions end: what aligns the next one, and code that no symbol covers."""

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.errors import FormatError
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import validate

MOV, CALL, LD, JA, EXIT = 0xB7, 0x85, 0x18, 0x05, (0x95,)
ZEROS, NOP = (0,), (0, 0, 0, 0x1500, 0)
BIG_NOP = (0, 0, 0, 0, 0x1500_0000)
FUNC, SECTION, GLOBAL = 2, 3, 1
R_32 = 10


def sym(build, *args, **more):
    """Add a symbol; its class is the conftest's."""
    build.symbols.append(build.symbol(*args, **more))


def mov(value):
    """r0 = value, as a body."""
    return Body.asm(f"r0 = {value}")


def padded(build, *padding):
    """First (2 slots), padding, second (2 slots) in .text; main in xdp calls both."""
    n_bytes = 8 * len(padding)
    build.code(".text", (MOV, 0, 0, 0, 1), EXIT, *padding, (MOV, 0, 0, 0, 2), EXIT)
    build.code("xdp", (CALL, 0, 1, 0, -1), (CALL, 0, 1, 0, 1 + len(padding)), EXIT, *padding)
    sym(build, "text", ".text", type=SECTION)
    sym(build, "first", ".text", 0, 16, FUNC, GLOBAL)
    sym(build, "second", ".text", 16 + n_bytes, 16, FUNC)
    sym(build, "main", "xdp", 0, 24, FUNC, GLOBAL)
    build.rels["xdp"] = [(0, R_32, "first"), (8, R_32, "text")]
    return ElfObject.parse(build.to_bytes())


@pytest.mark.parametrize(
    ("order", "padding"),
    [
        ("<", (ZEROS,)),
        ("<", (ZEROS, ZEROS, ZEROS)),
        ("<", (NOP, NOP)),
        (">", (BIG_NOP, BIG_NOP)),
        (">", (ZEROS,)),
    ],
)
def test_padding_between_functions_is_no_code(build, order, padding):
    """A function ends at its symbol's end; what aligns the next one belongs to none."""
    build.order = order
    obj = padded(build, *padding)
    code = obj.code
    validate(code)
    assert code.subprogs.names == ("first", "second", "main")
    assert code.subprogs.start.tolist() == [0, 2, 4]
    assert code.refs.target.tolist() == [0, 2]
    assert [(info.start, info.end) for info in obj.programs] == [(4, 7)]


@pytest.mark.parametrize("order", ["<", ">"])
def test_padding_is_written_back(build, order):
    """Code that did not change gives the same bytes, and so does an edit that is taken back."""
    build.order = order
    obj = padded(build, ZEROS, BIG_NOP if order == ">" else NOP)
    assert obj.with_code(PatchList(obj.code).linearize()).to_bytes() == obj.to_bytes()
    patches = PatchList(obj.code)
    patches.insert_before(patches.nodes(), Body(isa.ja(0)))
    longer = obj.with_code(patches.linearize())
    assert len(longer.code) == 2 * len(obj.code)
    patches = PatchList(longer.code)
    patches.delete(np.arange(0, len(longer.code), 2))
    assert longer.with_code(patches.linearize()).to_bytes() == obj.to_bytes()


def test_padding_stays_behind_its_function(build):
    """Symbols and calls mean the same functions after an edit, and padding stays."""
    obj = padded(build, ZEROS, ZEROS)
    patches = PatchList(obj.code)
    patches.prepend(2, mov(7))
    new = obj.with_code(patches.linearize())
    text = next(one for one in new.sections if one.name == ".text")
    assert bytes(text.data)[16:32] == bytes(16)
    assert len(text.data) == 56
    values = {one.name: (one.value, one.size) for one in new.symbols if one.type == FUNC}
    assert values == {"first": (0, 16), "second": (32, 24), "main": (0, 24)}
    assert new.code.refs.target.tolist() == [0, 2]


def test_call_in_its_section_goes_across_padding(build):
    """A call with its whole distance in place counts padding in the file alone."""
    build.code(".text", (CALL, 0, 1, 0, 3), EXIT, ZEROS, ZEROS, (MOV,), EXIT)
    sym(build, "caller", ".text", 0, 16, FUNC, GLOBAL)
    sym(build, "callee", ".text", 32, 16, FUNC, GLOBAL)
    obj = ElfObject.parse(build.to_bytes())
    assert obj.code.refs.target.tolist() == [2]
    patches = PatchList(obj.code)
    patches.insert_before(1, mov(7))
    new = obj.with_code(patches.linearize())
    first = next(one for one in new.sections if one.name == ".text").data[:8]
    assert isa.from_bytes(bytes(first), obj.byteorder)["imm"].tolist() == [4]
    assert new.code.refs.target.tolist() == [3]


def test_call_into_padding_is_refused(build):
    """A distance that leads to where no instruction is names the call."""
    build.code(".text", (CALL, 0, 1, 0, 2), EXIT, ZEROS, ZEROS, (MOV,), EXIT)
    sym(build, "caller", ".text", 0, 16, FUNC, GLOBAL)
    sym(build, "callee", ".text", 32, 16, FUNC, GLOBAL)
    with pytest.raises(FormatError, match=r"call pc.*refers to no instruction"):
        _ = ElfObject.parse(build.to_bytes()).code


@pytest.mark.parametrize("what", ["label", "relocation", "no sizes", "jump", "other word"])
def test_words_that_may_be_code_stay_code(build, what):
    """What a symbol, a relocation or a jump knows of is no padding, nor any other unknown word."""
    word = (0, 1, 0, 0, 0) if what == "other word" else ZEROS
    jump = (JA, 0, 0, 2, 0) if what == "jump" else (MOV,)
    build.code(".text", jump, EXIT, word, (MOV,), EXIT)
    size = 0 if what == "no sizes" else 16
    sym(build, "first", ".text", 0, size, FUNC, GLOBAL)
    sym(build, "second", ".text", 24, size, FUNC, GLOBAL)
    if what == "label":
        sym(build, "here", ".text", 16)
    if what == "relocation":
        sym(build, "there")
        build.rels[".text"] = [(16, 1, "there")]
    assert len(ElfObject.parse(build.to_bytes()).code) == 5


def test_code_that_lost_its_symbol_is_a_function_of_its_own(build):
    """What linking left of a weak function that another overrides belongs to no other function."""
    build.code(".text", (MOV,), EXIT, (MOV, 0, 0, 0, 5), EXIT, (MOV, 0, 0, 0, 6), EXIT)
    build.code("xdp", (CALL, 0, 1, 0, -1), EXIT)
    sym(build, "strong", ".text", 0, 16, FUNC, GLOBAL)
    sym(build, "late", ".text", 32, 16, FUNC, GLOBAL)
    sym(build, "main", "xdp", 0, 16, FUNC, GLOBAL)
    build.rels["xdp"] = [(0, R_32, "strong")]
    obj = ElfObject.parse(build.to_bytes())
    assert obj.code.subprogs.start.tolist() == [0, 2, 4, 6]
    assert obj.code.subprogs.names == ("strong", "", "late", "main")
    assert obj.link("main").origin.tolist() == [6, 7, 0, 1]


@pytest.mark.parametrize("first", [(MOV,), (JA, 0, 0, 1, 0)])
def test_size_that_code_runs_past_is_none(build, first):
    """A symbol that ends within a function that goes on, or jumps on, ends nothing."""
    build.code(".text", first, (MOV,) if first == (MOV,) else EXIT, (MOV, 0, 0, 0, 5), EXIT)
    sym(build, "short", ".text", 0, 16, FUNC, GLOBAL)
    assert ElfObject.parse(build.to_bytes()).code.subprogs.start.tolist() == [0]
