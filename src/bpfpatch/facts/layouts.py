"""Where members of a kernel's structs are, from its BTF."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bpfpatch.btf import Btf, Kind
from bpfpatch.errors import FormatError, OptionError, UnsupportedError

_ROOT: Final = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class MemberPlace:
    """Where a member is.

    Attributes:
        byte_off: bytes from the start of the struct to the member; of a bitfield to the byte
            that it is in.
        size: bytes; of a bitfield 1.
        mask: a bitfield's bits within its byte, else 0.
        shift: bits to the right of a bitfield, within its byte.
        is_pointer: whether it is one.
    """

    byte_off: int
    size: int
    mask: int = 0
    shift: int = 0
    is_pointer: bool = False


class Layouts:
    """Places of members by dotted paths, anonymous structs and unions looked through.

    A path starts with a struct's name: ``sk_buff.dev``,
    ``sock_common.skc_v6_daddr.s6_addr32[0]``. Where the kernel puts another
    struct over a member, both are written with a ``+`` between them:
    ``sk_buff.cb+qdisc_skb_cb.tc_classid``.

    What has been looked up once is remembered.

    Attributes:
        btf: the kernel's types.
        word_bytes: width of a pointer.
        byteorder: "little" or "big".
    """

    def __init__(self, btf: Btf | None, word_bits: int = 64, byteorder: str = "little") -> None:
        """Take the types of a kernel for a processor.

        Args:
            btf: the types; None if there are none, then every look-up fails.
            word_bits: width of a pointer.
            byteorder: "little" or "big".

        Raises:
            UnsupportedError: the types are of a machine with the other byte order.
        """
        if btf is not None and btf.byteorder != byteorder:
            raise UnsupportedError(
                f"the kernel's types are {btf.byteorder}-endian, the processor is "
                f"{byteorder}-endian; give the types of a kernel for that processor"
            )
        self.btf = btf
        self.word_bytes = word_bits // 8
        self.byteorder = byteorder
        self._roots: dict[str, int] = {}
        self._places: dict[str, MemberPlace | None] = {}

    def place(self, path: str) -> MemberPlace:
        """Where a member is.

        Args:
            path: such as ``sk_buff.dev``.

        Raises:
            UnsupportedError: no types were given, they have no such member, or it is a
                bitfield that no byte holds.
        """
        found = self.find(path)
        if found is None:
            raise UnsupportedError(
                f"the kernel's types have no {path}, so its place is unknown; give the types of "
                "a kernel that has it"
            )
        return found

    def has(self, path: str) -> bool:
        """Whether there is such a member.

        Raises:
            UnsupportedError: as `place`.
        """
        return self.find(path) is not None

    def find(self, path: str) -> MemberPlace | None:
        """Where a member is, or None if there is none.

        Raises:
            UnsupportedError: no types were given, or it is a bitfield that no byte holds.
        """
        if path not in self._places:
            parts = [self._find_one(part.strip()) for part in path.split("+")]
            self._places[path] = _sum([part for part in parts if part], len(parts))
        return self._places[path]

    def _find_one(self, path: str) -> MemberPlace | None:
        btf = self._types(path)
        name = _ROOT.match(path)
        if name is None:
            raise OptionError(f"{path!r} is not a member: write it as struct.member")
        root = self._root(btf, name[0])
        if root is None:
            return None
        try:
            place = btf.member_path(root, path[name.end() :].removeprefix("."))
        except OptionError:
            return None
        if place.bitfield_size:
            return self._bitfield(path, place.bit_off, place.bitfield_size)
        size, is_pointer = self._size(btf, place.type_id)
        return MemberPlace(place.byte_off, size, is_pointer=is_pointer)

    def _types(self, path: str) -> Btf:
        if self.btf is None:
            raise UnsupportedError(
                f"the place of {path} is not known without the kernel's types; give them: "
                "Target.internal(btf=Btf.parse(...)), of the running kernel "
                "bpfpatch.kernel.vmlinux_btf()"
            )
        return self.btf

    def _root(self, btf: Btf, name: str) -> int | None:
        """The type with a name; 0 is remembered for none."""
        if name not in self._roots:
            found = [
                type_id
                for kind in (Kind.STRUCT, Kind.UNION, Kind.TYPEDEF)
                for type_id in btf.find(name, kind)
            ]
            self._roots[name] = found[0] if found else 0
        return self._roots[name] or None

    def _size(self, btf: Btf, type_id: int) -> tuple[int, bool]:
        """Bytes of a member, and whether it is a pointer; those are as wide as the processor's."""
        if btf.head(btf.resolve(type_id)).number == Kind.PTR:
            return self.word_bytes, True
        try:
            return btf.size_of(type_id), False
        except FormatError:
            return 0, False

    def _bitfield(self, path: str, bit_off: int, bits: int) -> MemberPlace:
        start = bit_off % 8
        if start + bits > 8:
            raise UnsupportedError(f"{path} is a bitfield over several bytes; one byte holds it")
        # Bits count from the low end on a little-endian machine, from the high one on the other.
        shift = start if self.byteorder == "little" else 8 - start - bits
        return MemberPlace(bit_off // 8, 1, ((1 << bits) - 1) << shift, shift)


def _sum(parts: list[MemberPlace], n_wanted: int) -> MemberPlace | None:
    """A member of a struct that lies over another member."""
    if len(parts) < n_wanted:
        return None
    last = parts[-1]
    return MemberPlace(
        sum(part.byte_off for part in parts), last.size, last.mask, last.shift, last.is_pointer
    )
