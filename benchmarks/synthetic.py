"""Objects of any size, made from nothing."""

from __future__ import annotations

import struct

import numpy as np

from bpfpatch import isa

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = np.dtype(
    [
        ("name", "<u4"),
        ("info", "u1"),
        ("other", "u1"),
        ("section", "<u2"),
        ("value", "<u8"),
        ("size", "<u8"),
    ]
)
_REL = np.dtype([("place", "<u8"), ("info", "<u8")])


def big_object(n_insns: int, n_relocs: int) -> bytes:
    """A relocatable object: one program, and map look-ups spread evenly over it.

    Args:
        n_insns: slots of its one program.
        n_relocs: how many of them start an ld_imm64 with a relocation to a map.
    """
    insns = np.zeros(n_insns, isa.INSN)
    insns["code"] = 0xB7
    insns["imm"] = np.arange(n_insns) & 0xFFFF
    loads = np.arange(n_relocs) * ((n_insns - 2) // n_relocs)
    insns["code"][loads] = isa.LD_IMM64
    insns["regs"][loads] = 1
    insns["imm"][loads] = 0
    insns[loads + 1] = 0
    insns[-1] = (0x95, 0, 0, 0)
    code = isa.to_bytes(insns)
    symbols = np.zeros(3, _SYM)
    strings = b"\0big\0one_map\0"
    symbols[1] = (5, 0x11, 0, 3, 0, 8)  # global object in .maps
    symbols[2] = (1, 0x12, 0, 1, 0, len(code))  # global function
    relocs = np.zeros(n_relocs, _REL)
    relocs["place"] = 8 * loads
    relocs["info"] = (1 << 32) | 1
    names = b"\0xdp\0.relxdp\0.maps\0.symtab\0.strtab\0.shstrtab\0"
    parts = [code, relocs.tobytes(), bytes(8), symbols.tobytes(), strings, names]
    kinds = [  # name, type, flags, link, info, align, entry size
        (b"xdp", 1, 6, 0, 0, 8, 0),
        (b".relxdp", 9, 0x40, 4, 1, 8, 16),
        (b".maps", 1, 3, 0, 0, 8, 0),
        (b".symtab", 2, 0, 5, 1, 8, 24),
        (b".strtab", 3, 0, 0, 0, 1, 0),
        (b".shstrtab", 3, 0, 0, 0, 1, 0),
    ]
    body, headers = bytearray(), [_SHDR.pack(*[0] * 10)]
    for part, (name, kind, flags, link, info, align, entry) in zip(parts, kinds, strict=True):
        body += bytes(-(64 + len(body)) % align)
        where = 64 + len(body)
        name_off = names.index(b"\0" + name + b"\0") + 1
        headers.append(
            _SHDR.pack(name_off, kind, flags, 0, where, len(part), link, info, align, entry)
        )
        body += part
    body += bytes(-(64 + len(body)) % 8)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = _EHDR.pack(ident, 1, 247, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(headers), 6)
    return header + bytes(body) + b"".join(headers)
