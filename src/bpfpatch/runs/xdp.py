"""XDP metadata in an input: the bytes that its packet begins with, as BPF_PROG_TEST_RUN has it."""

from __future__ import annotations

from typing import Final

from bpfpatch.errors import OptionError
from bpfpatch.interp.contexts import ETH_HEADER, MAX_META, XDP_FIELDS, XDP_SIZE
from bpfpatch.isa import ByteOrder

META_UNIT: Final = 4


def n_meta(ctx: bytes | None, packet: bytes, byteorder: ByteOrder) -> int:
    """How many bytes of metadata come before the packet: what ``data`` of struct xdp_md says.

    Raises:
        OptionError: there cannot be so many.

    Source: linux v6.18, net/bpf/test_run.c, bpf_prog_test_run_xdp().
    """
    if ctx is None:
        return 0
    size = field(ctx, "data", byteorder)
    start = field(ctx, "data_meta", byteorder)
    if start or size % META_UNIT or size > MAX_META or size > len(packet) - ETH_HEADER:
        what = f"data_meta {start}" if start else f"data {size}"
        raise OptionError(
            f"the context's {what} cannot be: metadata starts at 0, data says where it ends, at "
            f"a multiple of {META_UNIT} up to {MAX_META}, and {ETH_HEADER} bytes of packet follow; "
            f"there are {len(packet)} in all"
        )
    return size


def field(ctx: bytes, name: str, byteorder: ByteOrder) -> int:
    """A field of struct xdp_md; 0 where the structure is cut off before it."""
    at, size = XDP_FIELDS[name]
    return int.from_bytes(ctx[at : at + size].ljust(size, b"\0"), byteorder)


def context(ctx: bytes | None, packet: bytes) -> bytes:
    """The structure for the kernel, with the addresses that fit the packet.

    The kernel gives it back with where the metadata ends, which tells it from the packet.
    """
    out = bytearray((ctx or b"").ljust(XDP_SIZE, b"\0"))
    for name, value in (
        ("data_meta", 0),
        ("data", n_meta(ctx, packet, "little")),
        ("data_end", len(packet)),
    ):
        at, size = XDP_FIELDS[name]
        out[at : at + size] = value.to_bytes(size, "little")
    return bytes(out)
