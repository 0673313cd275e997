"""blind: hide constants from who might look for them in the machine code."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.patch import PatchList

from .addresses import ADDRESS
from .base import Pass, register
from .blinding.internal import blind_internal
from .blinding.loadable import blind_loadable
from .blinding.masks import Masks
from .setting import Setting

_SEED_BITS: Final = 63


@register
@dataclass(frozen=True)
class Blind(Pass):
    """Put constants together from two random halves when the program runs.

    Whoever can choose a program's constants can have bytes of their choice in
    the machine code that a JIT makes of it. After this pass they are exclusive
    ors of two numbers that cannot be foreseen without the seed.

    For bpf(2) a register that is free at the place takes the constant, for the
    kernel's own form its hidden one.

    Attributes:
        seed: of the random numbers; the same seed gives the same program. By default one is
            drawn for each pass, and shown in its text form. It is a secret: whoever knows it
            knows the masks.
        spill: whether a register may be made free by saving it on the stack, or
            by making its value again, where none is.
        strict: whether it is an error that a constant has no register; else it
            alone stays as it is.

    Source: linux v6.18, kernel/bpf/core.c, bpf_jit_blind_constants(); the
    loadable form is our own.
    """

    name = "blind"
    uses = (ADDRESS,)
    knows_landing_pads = True
    seed: int | None = None
    spill: bool = True
    strict: bool = False

    def __post_init__(self) -> None:
        if self.seed is None:
            object.__setattr__(self, "seed", secrets.randbits(_SEED_BITS))
        elif self.seed < 0:
            raise OptionError(f"pass blind: seed is 0 or more, not {self.seed}")

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Blind all constants.

        Raises:
            UnsupportedError: no register is free for one, nor can be made so, and
                ``strict`` is set.
        """
        target = setting.target
        assert self.seed is not None
        masks = Masks(self.seed)
        if target.is_loadable:
            btf = None if setting.edit is None else setting.edit.obj.btf
            left = blind_loadable(patches, masks, spills=self.spill, btf=btf)
            if left and self.strict:
                raise UnsupportedError(left[0])
            setting.notices.extend(left)
        else:
            blind_internal(patches, masks, target.hidden, extends=target.arch.needs_zext)
