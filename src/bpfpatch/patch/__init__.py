"""The patch list: edit a program anywhere, linearize once."""

from .body import Body, To
from .insn import Insn
from .linearize import Linearized
from .patchlist import PatchList
from .relax import How, Relax, Relaxed
from .view import CodeView

__all__ = ["Body", "CodeView", "How", "Insn", "Linearized", "PatchList", "Relax", "Relaxed", "To"]
