"""DWARF of an object whose code has moved.

One file for a kind of section. Each reads its section once, in order, and
notes what is to stand there instead; lengths of .debug_info stay, so that
nothing that refers into it changes. What is of a form that is not known makes
all of it not understood: no half of it is right without the other.
"""

from .update import DwarfUpdate, update_dwarf

__all__ = ["DwarfUpdate", "update_dwarf"]
