"""The .BTF.ext section, from bytes put together by hand."""

import struct

import numpy as np
import pytest

from bpfpatch.btf import CORE_RELO, FUNC_INFO, LINE_INFO, BtfExt, ExtSection
from bpfpatch.errors import FormatError, OptionError, UnsupportedError

STRINGS = b"\0xdp\0tc\0f.c\0line\x000:1\0"
XDP, TC, FILE, LINE, ACCESS = 1, 5, 8, 12, 17
SIZES = (8, 16, 16)


def words(*values, byteorder="little"):
    """u32 words as bytes."""
    return struct.pack(f"{'<' if byteorder == 'little' else '>'}{len(values)}I", *values)


def part(size, *blocks, byteorder="little"):
    """One part: a record size and blocks of (name_off, rows)."""
    out = words(size, byteorder=byteorder)
    for name_off, rows in blocks:
        out += words(name_off, len(rows), byteorder=byteorder)
        out += b"".join(words(*row, byteorder=byteorder) for row in rows)
    return out


def ext(*parts, hdr_len=32, byteorder="little", extra=b""):
    """The whole section."""
    fields, at = [], 0
    for one in parts:
        fields += [at, len(one)]
        at += len(one)
    magic = b"\x9f\xeb" if byteorder == "little" else b"\xeb\x9f"
    start = magic + b"\1\0" + words(hdr_len, *fields, byteorder=byteorder)
    return (start + extra).ljust(hdr_len, b"\0") + b"".join(parts)


FUNCS = ((XDP, [(0, 1), (64, 2)]), (TC, [(0, 3)]))
LINES = ((XDP, [(0, FILE, LINE, 3 << 10 | 1), (8, FILE, 0, 4 << 10)]),)
CORES = ((TC, [(16, 1, ACCESS, 0)]),)


@pytest.fixture(params=["little", "big"])
def byteorder(request):
    """Both byte orders."""
    return request.param


@pytest.fixture
def strings(make_btf, byteorder):
    """A .BTF with the strings and three types."""
    return make_btf([[0, 7 << 24, 0]] * 3, STRINGS, byteorder)


@pytest.fixture
def little(make_btf):
    """The same, little-endian."""
    return make_btf([[0, 7 << 24, 0]] * 3, STRINGS)


def full(byteorder="little", **kwargs):
    """A section with all three parts."""
    parts = [
        part(size, *blocks, byteorder=byteorder)
        for size, blocks in zip(SIZES, (FUNCS, LINES, CORES), strict=True)
    ]
    return ext(*parts, byteorder=byteorder, **kwargs)


def test_parse(strings, byteorder):
    """All records are there, in the canonical byte order."""
    found = BtfExt.parse(full(byteorder), strings)
    assert [(one.name, one.name_off) for one in found.func_info] == [("xdp", XDP), ("tc", TC)]
    assert found.func_info[0].records.tolist() == [(0, 1), (64, 2)]
    assert found.func_info[0].records.dtype == FUNC_INFO
    assert found.line_info[0].records.dtype == LINE_INFO
    assert found.line_info[0].records["line_col"].tolist() == [3073, 4096]
    assert found.core_relo[0].records.dtype == CORE_RELO
    assert found.core_relo[0].records["access_str_off"].tolist() == [ACCESS]
    assert found.byteorder == byteorder


def test_unchanged_is_identical(strings, byteorder):
    """What was parsed comes back byte by byte, gaps and all."""
    data = full(byteorder) + b"behind"
    assert BtfExt.parse(data, strings).to_bytes() == data


def test_setting_the_same_is_identical(little):
    """Records that are set to what they were change nothing."""
    data = full() + b"behind"
    found = BtfExt.parse(data, little)
    assert found.with_sections(func_info=found.func_info).to_bytes() == data


def test_changed(strings, byteorder):
    """Changed records get new lengths and places; the other parts are as they were."""
    found = BtfExt.parse(full(byteorder), strings)
    records = np.array([(0, 1), (8, 2), (16, 3)], FUNC_INFO)
    out = found.with_sections(func_info=[ExtSection("tc", TC, records)])
    expected = ext(
        part(8, (TC, [(0, 1), (8, 2), (16, 3)]), byteorder=byteorder),
        part(16, *LINES, byteorder=byteorder),
        part(16, *CORES, byteorder=byteorder),
        byteorder=byteorder,
    )
    assert out.to_bytes() == expected
    assert BtfExt.parse(expected, strings).func_info == out.func_info


def test_empty_sections_are_dropped(little):
    """An ELF section without records is left out, and a part without any is empty."""
    found = BtfExt.parse(full(), little)
    xdp, tc = found.func_info
    out = found.with_sections(func_info=[ExtSection("xdp", XDP, xdp.records[:0]), tc], core_relo=())
    assert out.to_bytes() == ext(part(8, FUNCS[1]), part(16, *LINES), b"")


def test_header_without_core(little):
    """A header of 24 bytes has no CO-RE part, and keeps its length."""
    data = ext(part(8, *FUNCS), part(16, *LINES), hdr_len=24)
    found = BtfExt.parse(data, little)
    assert found.core_relo == ()
    out = found.with_sections(func_info=found.func_info[:1])
    assert out.to_bytes() == ext(part(8, FUNCS[0]), part(16, *LINES), hdr_len=24)


def test_header_grows_for_core(little):
    """CO-RE records in a section whose header lacks their place make the header longer."""
    found = BtfExt.parse(ext(part(8, *FUNCS), part(16, *LINES), hdr_len=24), little)
    core = BtfExt.parse(full(), little).core_relo
    assert found.with_sections(core_relo=core).to_bytes() == full()


def test_longer_records(strings, byteorder):
    """What longer records have behind the known fields is kept, also in a changed part."""
    rows = [(0, 1, 0xAABBCCDD), (8, 2, 7)]
    data = ext(part(12, (XDP, rows), byteorder=byteorder), b"", b"", byteorder=byteorder)
    found = BtfExt.parse(data, strings)
    (one,) = found.func_info
    assert one.records.dtype.names == ("insn_off", "type_id", "extra")
    out = found.with_sections(func_info=[ExtSection("xdp", XDP, one.records[1:])])
    expected = ext(part(12, (XDP, rows[1:]), byteorder=byteorder), b"", b"", byteorder=byteorder)
    assert out.to_bytes() == expected


def test_longer_header(little):
    """A longer header of zeros stays; one with something in it forbids changes."""
    data = full(hdr_len=40)
    found = BtfExt.parse(data, little)
    assert found.to_bytes() == data
    assert found.with_sections(core_relo=()).to_bytes()[:8] == data[:8]
    odd = BtfExt.parse(full(hdr_len=40, extra=b"\1\0\0\0\1"), little)
    with pytest.raises(UnsupportedError, match="not known"):
        odd.with_sections(core_relo=())


def test_empty(byteorder, strings):
    """A section can be made from nothing."""
    made = BtfExt.empty(byteorder)
    full_one = BtfExt.parse(full(byteorder), strings)
    out = made.with_sections(full_one.func_info, full_one.line_info, full_one.core_relo)
    assert out.to_bytes() == full(byteorder)


def test_record_size_alone(little):
    """A part of a record size and nothing else, as gcc 12 writes it, has no sections."""
    data = ext(b"", b"", part(16))
    found = BtfExt.parse(data, little)
    assert found.core_relo == ()
    assert found.to_bytes() == data


def test_block_without_records(little):
    """A block of no records is read, and dropped from a changed section."""
    data = ext(part(8, (XDP, []), (TC, [(0, 1)])), b"", b"")
    found = BtfExt.parse(data, little)
    assert [len(one.records) for one in found.func_info] == [0, 1]
    out = found.with_sections(line_info=BtfExt.parse(full(), little).line_info)
    assert out.to_bytes() == ext(part(8, (TC, [(0, 1)])), part(16, *LINES), b"")


def test_records_are_read_only(little):
    """Nobody can write into parsed or given records."""
    found = BtfExt.parse(full(), little)
    with pytest.raises(ValueError, match="read-only"):
        found.func_info[0].records["insn_off"] = 1
    mine = np.array([(0, 1)], FUNC_INFO)
    section = ExtSection("xdp", XDP, mine)
    mine["insn_off"] = 8
    assert section.records["insn_off"].tolist() == [0]


def test_sections_compare_by_value(little):
    """Sections are equal if their names and records are."""
    first, second = (BtfExt.parse(full(), little).func_info[0] for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != ExtSection("xdp", XDP, first.records[:1])
    assert first != "xdp"


@pytest.mark.parametrize(
    ("data", "byte_off"),
    [
        (b"", 0),
        (full()[:20], 4),
        (b"\0\0" + full()[2:], 0),
        (full()[:2] + b"\2" + full()[3:], 2),
        (full()[:3] + b"\1" + full()[4:], 3),
        (full()[:4] + words(16) + full()[8:], 4),
        (full("big"), 0),
        (ext(part(8, *FUNCS))[:-1], 8),
        (ext(words(8)[:2], b"", b""), 32),
        (ext(part(4, (XDP, [(1,)])), b"", b""), 32),
        (ext(part(10, (XDP, [])), b"", b""), 32),
        (ext(part(0xFFFFFFFC, (XDP, [])), b"", b""), 32),
        (ext(words(8, XDP, 2, 0, 1), b"", b""), 40),
        (ext(words(8, XDP, 0xFFFFFFFF, 0, 1), b"", b""), 40),
        (ext(words(8, XDP, 1, 0, 1, TC), b"", b""), 52),
        (ext(part(8, (99, [(0, 1)])), b"", b""), 36),
        (ext(part(8, (XDP, [(0, 1), (8, 4)])), b"", b""), 52),
        (ext(b"", part(16, (XDP, [(0, 99, 0, 0)])), b""), 44),
        (ext(b"", part(16, (XDP, [(0, 0, 99, 0)])), b""), 44),
        (ext(b"", b"", part(16, (XDP, [(0, 1, 99, 0)]))), 44),
    ],
)
def test_broken(little, data, byte_off):
    """What is broken is refused with its place."""
    with pytest.raises(FormatError) as caught:
        BtfExt.parse(data, little)
    assert caught.value.byte_off == byte_off


@pytest.mark.parametrize("row", range(3))
def test_unaligned_part(little, row):
    """A part starts at a multiple of 4."""
    data = bytearray(full() + bytes(8))
    struct.pack_into("<I", data, 8 + 8 * row, 2)
    with pytest.raises(FormatError, match="no multiple of 4") as caught:
        BtfExt.parse(bytes(data), little)
    assert caught.value.byte_off == 8 + 8 * row


def test_too_many_blocks(little):
    """A section that names more ELF sections than there can be is refused."""
    with pytest.raises(FormatError, match="more than 65536 ELF sections"):
        BtfExt.parse(ext(words(8) + words(XDP, 0) * 0x10001, b"", b""), little)


class TestGivenRecords:
    """What with_sections() refuses."""

    def test_order(self, little):
        """Records that do not ascend are refused with the first place where they fall."""
        records = np.array([(0, 1), (16, 1), (8, 1)], FUNC_INFO)
        with pytest.raises(OptionError, match="record 2 is for byte 8, after one for byte 16"):
            BtfExt.parse(full(), little).with_sections([ExtSection("xdp", XDP, records)])

    def test_fields(self, little):
        """Records of another part are refused."""
        found = BtfExt.parse(full(), little)
        with pytest.raises(OptionError, match="have to start with"):
            found.with_sections(func_info=found.line_info)

    def test_one_record_size(self, little):
        """Records of different sizes in one part are refused."""
        long = np.zeros(1, np.dtype([*FUNC_INFO.descr, ("extra", "V4")]))
        found = BtfExt.parse(full(), little)
        with pytest.raises(OptionError, match="one record size"):
            found.with_sections([found.func_info[0], ExtSection("tc", TC, long)])

    def test_name_off(self, little):
        """A section name's offset has to fit 32 bits."""
        records = np.zeros(1, FUNC_INFO)
        with pytest.raises(OptionError, match="name_off -1"):
            BtfExt.parse(full(), little).with_sections([ExtSection("xdp", -1, records)])


def test_header_of_clang_9(little):
    """Clang 9 names the place of one more part, for externs, which has nothing in it."""
    found = BtfExt.parse(full(hdr_len=40, extra=words(8, 0)), little)
    assert found.with_sections(core_relo=()).to_bytes()[32:40] == words(8, 0)


def test_core_records_without_a_kind(strings, byteorder):
    """Records of 12 bytes, as clang 9 wrote them, are read, kept and written in that form."""
    old = ext(b"", b"", part(12, (TC, [(16, 1, ACCESS), (24, 2, ACCESS)]), byteorder=byteorder),
              byteorder=byteorder)  # fmt: skip
    found = BtfExt.parse(old, strings)
    records = found.core_relo[0].records
    assert records.tolist() == [(16, 1, ACCESS), (24, 2, ACCESS)]
    moved = records.copy()
    moved["insn_off"] += 8
    out = found.with_sections(core_relo=[ExtSection("tc", TC, moved)])
    assert BtfExt.parse(out.to_bytes(), strings).core_relo[0].records.tolist() == moved.tolist()
    assert len(out.to_bytes()) == len(old)


def test_shorter_records_are_refused(little):
    """Less than the place, the type and the access is no record."""
    with pytest.raises(FormatError, match="at least 12"):
        BtfExt.parse(ext(b"", b"", part(8, (TC, [(16, 1)]))), little)
    with pytest.raises(FormatError, match="at least 16"):
        BtfExt.parse(ext(b"", part(12, (TC, [(16, FILE, LINE)])), b""), little)
