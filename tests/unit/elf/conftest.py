"""A small ELF writer of its own, so that odd objects can be made without a compiler."""

import struct
from dataclasses import dataclass, field

import pytest

PROGBITS, SYMTAB, STRTAB, NOBITS, REL, GROUP = 1, 2, 3, 8, 9, 17
ADDRSIG = 0x6FFF4C03
WRITE, ALLOC, EXEC = 1, 2, 4
NOTYPE, OBJECT, FUNC, SECTION = 0, 1, 2, 3
LOCAL, GLOBAL = 0, 1


@dataclass
class Sec:
    """A section to write; ``pad`` bytes come in front of it in the file."""

    name: str
    data: bytes = b""
    type: int = PROGBITS
    flags: int = 0
    align: int = 1
    info: object = 0
    entsize: int = 0
    pad: bytes = b""
    mem_size: int = 0


@dataclass
class Sym:
    """A symbol to write; its section by name, or by number where several have one name."""

    name: str
    section: object = None
    value: int = 0
    size: int = 0
    type: int = NOTYPE
    bind: int = LOCAL


@dataclass
class Build:
    """An object to write: sections in file order, then symtab, strtab and section headers."""

    sections: list = field(default_factory=list)
    symbols: list = field(default_factory=list)
    rels: dict = field(default_factory=dict)
    order: str = "<"
    tail: bytes = b""
    machine: int = 247

    def code(self, name, *slots, align=8, **more):
        """Add a code section of (code, dst, src, off, imm) tuples."""
        data = b"".join(self.slot(*slot) for slot in slots)
        self.sections.append(Sec(name, data, flags=ALLOC | EXEC, align=align, **more))

    symbol = Sym
    section = Sec

    def slot(self, code, dst=0, src=0, off=0, imm=0):
        """The 8 bytes of an instruction."""
        regs = dst | src << 4 if self.order == "<" else dst << 4 | src
        return struct.pack(f"{self.order}BBhi", code, regs, off, imm)

    def to_bytes(self):
        """The object file."""
        secs = [Sec("", type=0), *self.sections]
        for target, rows in self.rels.items():
            data = b"".join(self._rel(*row) for row in rows)
            secs.append(Sec(f".rel{target}", data, REL, 0x40, 8, info=target, entsize=16))
        symbols = sorted(self.symbols, key=lambda sym: sym.bind != LOCAL)
        n_local = 1 + sum(sym.bind == LOCAL for sym in symbols)
        names = [sec.name for sec in secs] + [".symtab", ".strtab"]
        index = {name: at for at, name in reversed(list(enumerate(names)))}
        table = bytearray(b"\0")
        rows = [struct.pack(f"{self.order}IBBHQQ", 0, 0, 0, 0, 0, 0)]
        for sym in symbols:
            home = sym.section if isinstance(sym.section, int) else index.get(sym.section, 0)
            name_off = len(table) if sym.name else 0
            table += sym.name.encode() + b"\0" if sym.name else b""
            rows.append(
                struct.pack(
                    f"{self.order}IBBHQQ",
                    name_off,
                    sym.bind << 4 | sym.type,
                    0,
                    home,
                    sym.value,
                    sym.size,
                )
            )
        secs.append(Sec(".symtab", b"".join(rows), SYMTAB, 0, 8, info=n_local, entsize=24))
        name_offs = []
        for name in names:
            name_offs.append(len(table) if name else 0)
            table += name.encode() + b"\0" if name else b""
        secs.append(Sec(".strtab", bytes(table), STRTAB))
        return self._file(secs, name_offs, index)

    def _rel(self, byte_off, kind, symbol):
        symbols = sorted(self.symbols, key=lambda sym: sym.bind != LOCAL)
        number = 1 + [sym.name for sym in symbols].index(symbol)
        return struct.pack(f"{self.order}QQ", byte_off, number << 32 | kind)

    def _file(self, secs, name_offs, index):
        body, headers = bytearray(64), []
        for at, sec in enumerate(secs):
            body += sec.pad
            body += b"\0" * (-len(body) % sec.align) if sec.type else b""
            place = len(body) if sec.type else 0
            link = {REL: index[".symtab"], SYMTAB: index[".strtab"], GROUP: index[".symtab"]}
            link[ADDRSIG] = index[".symtab"]
            info = index[sec.info] if isinstance(sec.info, str) else sec.info
            size = sec.mem_size if sec.type == NOBITS else len(sec.data)
            headers.append(
                struct.pack(
                    f"{self.order}IIQQQQIIQQ",
                    name_offs[at],
                    sec.type,
                    sec.flags,
                    0,
                    place,
                    size,
                    link.get(sec.type, 0),
                    info,
                    sec.align if sec.type else 0,
                    sec.entsize,
                )
            )
            if sec.type != NOBITS:
                body += sec.data
        body += b"\0" * (-len(body) % 8)
        shoff = len(body)
        ident = b"\x7fELF\2" + (b"\1" if self.order == "<" else b"\2") + b"\1" + bytes(9)
        body[:64] = ident + struct.pack(
            f"{self.order}HHIQQQIHHHHHH",
            1,
            self.machine,
            1,
            0,
            0,
            shoff,
            0,
            64,
            0,
            0,
            64,
            len(headers),
            len(headers) - 1,
        )
        return bytes(body) + b"".join(headers) + self.tail


@pytest.fixture(params=["<", ">"], ids=["el", "eb"])
def build(request):
    """An empty object to fill, in both byte orders."""
    return Build(order=request.param)


@pytest.fixture
def build_el():
    """An empty little-endian object to fill."""
    return Build()
