"""The helpers that every machine has. Importing this package declares them."""

from . import (
    checksums,
    kfuncs,
    loops,
    mapping,
    network,
    packets,
    printing,
    probing,
    records,
    room,
    system,
    tunnels,
)

__all__ = [
    "checksums",
    "kfuncs",
    "loops",
    "mapping",
    "network",
    "packets",
    "printing",
    "probing",
    "records",
    "room",
    "system",
    "tunnels",
]
