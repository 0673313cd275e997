"""Broken .BTF and .BTF.ext: a FormatError or a result, never anything else."""

import functools
import io
import random
import struct
import tracemalloc

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfpatch.btf import Btf, BtfExt, Fwd, Kind, source_line
from bpfpatch.errors import FormatError, OptionError, UnsupportedError
from support.inputs.bpfobjects import fixture_objects

#: Of all fixtures, these many of the smallest and of the richest sections.
SMALLEST = 6
LARGEST_BYTES = 4000
ROUNDS = 700
WORDS = (0, 1, 2, 3, 4, 7, 8, 0x7F, 0xFF, 0xFFFF, 0xFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@functools.cache
def corpus():
    """(.BTF, .BTF.ext) of some fixtures, of both byte orders and both compilers."""
    found = []
    for name, data in fixture_objects():
        elf = ELFFile(io.BytesIO(data))
        btf, ext = (elf.get_section_by_name(section) for section in (".BTF", ".BTF.ext"))
        if btf is None or len(btf.data()) > LARGEST_BYTES:
            continue
        found.append((len(btf.data()), name, btf.data(), ext.data() if ext else b""))
    found.sort()
    picked = found[:SMALLEST] + found[-SMALLEST:] + [row for row in found if ".eb." in row[1]][:4]
    return [(btf, ext) for _, _, btf, ext in picked]


@pytest.fixture(autouse=True)
def _has_corpus():
    if not corpus():
        pytest.skip("there are no fixture objects with .BTF")


def attempt(call, *args):
    """Call it; a FormatError is a fine answer, and so is that a path leads nowhere."""
    try:
        return call(*args)
    except FormatError as error:
        refused = error
    except OptionError:
        assert call.__name__ == "member_path"
        return None
    assert refused.byte_off is None or refused.byte_off >= 0
    assert refused.what
    return None


def exercise(data, base=None):
    """Everything that can be asked of a section."""
    btf = attempt(functools.partial(Btf.parse, data, base=base))
    if btf is None:
        return None
    assert btf.to_bytes() == data
    assert len(btf.kinds) == len(btf)
    for type_id in range(-1, len(btf) + 2):
        for ask in (btf.type, btf.head, btf.name_of, btf.resolve, btf.size_of):
            attempt(ask, type_id)
        for ask in (btf.c_decl, btf.type_name, btf.byte_off_of):
            attempt(ask, type_id)
        attempt(btf.access_path, type_id, "0:1:0")
        attempt(btf.member_path, type_id, "data")
    for name in ("int", "xdp_md", "", "x" * 40):
        btf.find(name)
        btf.find_one(name, Kind.STRUCT)
    assert attempt(lambda: btf.ptr_size) in (4, 8, None)
    for str_off in (0, 1, btf.str_end - 1, btf.str_end, 1 << 31):
        attempt(btf.string, str_off)
    exercise_edit(btf)
    return btf


def exercise_edit(btf):
    """An edit either works, or is refused as a whole."""
    edit = btf.edit()
    try:
        edit.string("a string that is new")
        type_id = edit.add(Fwd("and a type"))
        out = edit.build()
    except (OptionError, UnsupportedError):
        return
    assert out.type(type_id) == Fwd("and a type")
    assert len(out) == len(btf) + 1
    assert out.string(btf.str_end) == "a string that is new"


def exercise_ext(data, strings):
    """Everything that can be asked of a .BTF.ext section."""
    ext = attempt(BtfExt.parse, data, strings)
    if ext is None:
        return
    assert ext.to_bytes() == data
    for section in ext.line_info:
        for record in section.records[:20]:
            attempt(source_line, strings, record)
    try:
        changed = ext.with_sections(core_relo=(), func_info=ext.func_info[:1])
    except (OptionError, UnsupportedError):
        return
    again = BtfExt.parse(changed.to_bytes(), strings)
    kept = tuple(section for section in ext.line_info if len(section.records))
    assert again.line_info == kept


def mutate(data, edits):
    """Apply (operation, place, value) edits."""
    out = bytearray(data)
    for operation, place, value in edits:
        if not out:
            break
        at = place % len(out)
        if operation == 0:
            out[at] = value & 0xFF
        elif operation == 1:
            out[at] ^= 1 << value % 8
        elif operation == 2:
            at &= ~3
            out[at : at + 4] = struct.pack("<I", WORDS[value % len(WORDS)])[: len(out) - at]
        elif operation == 3:
            at &= ~3
            out[at : at + 4] = struct.pack(">I", WORDS[value % len(WORDS)])[: len(out) - at]
        elif operation == 4:
            del out[at : at + 1 + value % 16]
        elif operation == 5:
            out[at:at] = bytes(out[at : at + 4 * (1 + value % 8)])
        elif operation == 6:
            del out[at:]
        else:
            from_at = value % len(out)
            out[at : at + 12] = out[from_at : from_at + 12]
    return bytes(out)


def random_edits(rng):
    """A few edits; half of them in the header, where each counts most."""
    count = rng.choice((1, 1, 1, 2, 4))
    reach = rng.choice((40, 1 << 20, 1 << 20, 1 << 20))
    operations = (0, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 7)
    return [
        (rng.choice(operations), rng.randrange(reach), rng.getrandbits(32)) for _ in range(count)
    ]


EDITS = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 5000), st.integers(0, (1 << 32) - 1)),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_types(seed):
    """Mutated .BTF: every accessor answers or raises FormatError."""
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        btf, _ext = rng.choice(corpus())
        exercise(mutate(btf, random_edits(rng)))


@pytest.mark.parametrize("seed", range(3))
def test_mutated_lines(seed):
    """Mutated .BTF.ext beside a good .BTF: the same."""
    rng = random.Random(seed)
    parsed = [(Btf.parse(btf), ext) for btf, ext in corpus() if ext]
    for _ in range(ROUNDS):
        strings, ext = rng.choice(parsed)
        exercise_ext(mutate(ext, random_edits(rng)), strings)


def test_mutated_split():
    """Mutated .BTF that continues a good one: the same."""
    rng = random.Random(0)
    small = [Btf.parse(btf) for btf, _ in corpus() if len(btf) < 1200]
    for _ in range(ROUNDS // 4):
        base = rng.choice(small)
        edit = type(base.edit())(base=base)
        for _ in range(4):
            edit.add(rng.choice([found for found in base if found.kind]))
        exercise(mutate(edit.build().to_bytes(), random_edits(rng)), base)


@settings(max_examples=150, deadline=None)
@given(index=st.integers(0, 100), edits=EDITS)
def test_mutations_that_shrink(index, edits):
    """The same with edits that hypothesis picks, and makes small where one fails."""
    btf, ext = corpus()[index % len(corpus())]
    exercise(mutate(btf, edits))
    if ext:
        exercise_ext(mutate(ext, edits), Btf.parse(btf))


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), start=st.sampled_from([b"", b"\x9f\xeb\1\0", b"\xeb\x9f\1\0"]))
def test_noise(data, start):
    """Bytes of no origin: the same."""
    exercise(start + data)
    exercise_ext(start + data, Btf.parse(corpus()[0][0]))


@pytest.mark.parametrize("kind", [2, 4, 15])
def test_memory_is_bounded(kind):
    """Parsing takes less than four times the input, whatever the records are."""
    record = struct.pack("<3I", 0, kind << 24, 0)
    types = record * 100_000
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), 1)
    data = header + types + b"\0"
    tracemalloc.start()
    try:
        btf = Btf.parse(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(btf) == 100_001
    assert peak < 4 * len(data)


def test_overlapping_names_do_not_hang():
    """Many names that share one long string are refused one by one, not read in full."""
    count, length = 20_000, 1 << 20
    types = b"".join(struct.pack("<3I", 1 + at, 7 << 24, 0) for at in range(count))
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), length + 2)
    btf = Btf.parse(header + types + b"\0" + b"x" * length + b"\0")
    for type_id in range(1, count + 1):
        with pytest.raises(FormatError, match="longer than"):
            btf.type(type_id)
    assert btf.find("x" * 100) == ()
