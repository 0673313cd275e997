"""Packets from captures, for what runs programs on them."""

from __future__ import annotations

from collections.abc import Iterable

from bpfpatch.elf.files import read_all
from bpfpatch.errors import FormatError, UnsupportedError
from bpfpatch.runs import read_pcap
from bpfpatch.runs.pcap import ETHERNET, PcapFrame

from .failure import blame
from .screen import echo


def read_packets(paths: Iterable[str]) -> list[bytes]:
    """The packets of captures, in order; - is stdin.

    That the capture has kept less of a packet than there was is said on stderr: a program may
    take another path for it than it took for the packet itself.

    Raises:
        Failure: a file is no capture of Ethernet frames, or holds none.
    """
    out: list[bytes] = []
    for path in paths:
        where = "<stdin>" if path == "-" else path
        with blame(where):
            capture = read_pcap(read_all(path))
            if capture.link_type != ETHERNET:
                raise UnsupportedError(
                    f"its packets have link type {capture.link_type}; programs run on Ethernet, "
                    f"{ETHERNET}"
                )
            if not capture.frames:
                raise FormatError("it holds no packets")
        _warn_of_cut(where, capture.frames)
        out += [frame.data for frame in capture.frames]
    return out


def _warn_of_cut(where: str, frames: tuple[PcapFrame, ...]) -> None:
    cut = [number for number, frame in enumerate(frames) if frame.is_cut]
    if not cut:
        return
    first = frames[cut[0]]
    echo(
        f"{where}: note: {len(cut)} of {len(frames)} packets were cut short by the capture's snap "
        f"length, the first of them packet {cut[0]}, {len(first.data)} of {first.n_wire} bytes; "
        "programs run on what is there; capture whole packets with tcpdump -s 0",
        err=True,
    )
