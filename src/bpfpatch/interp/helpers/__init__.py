"""The helpers that every machine has. Importing this package declares them."""

from . import checksums, kfuncs, loops, mapping, packets, printing, probing, records, system

__all__ = [
    "checksums",
    "kfuncs",
    "loops",
    "mapping",
    "packets",
    "printing",
    "probing",
    "records",
    "system",
]
