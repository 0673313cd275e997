"""Changes of fields in place: checked once, applied to any portion of the sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bpfpatch.errors import OptionError

FIELD_RANGES: Final = {
    "code": (0, 255),
    "dst": (0, 15),
    "src": (0, 15),
    "off": (-(1 << 15), (1 << 15) - 1),
    "imm": (-(1 << 31), (1 << 31) - 1),
}

# Lowest bit and width of each field in an instruction as one number.
_PLACES: Final = {"code": (0, 8), "dst": (8, 4), "src": (12, 4), "off": (16, 16), "imm": (32, 32)}


def fits(values: NDArray[Any], least: int, most: int) -> bool:
    """Whether whole numbers are all in a range."""
    held = np.iinfo(values.dtype)
    if held.min >= least and held.max <= most:
        return True
    return not ((values < least) | (values > most)).any()


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """New values for some fields of n instructions.

    Attributes:
        keep: the bits that stay.
        bits: what one number for all puts into the others.
        arrays: (lowest bit, width, (n,) values) of fields with one value a site.
    """

    keep: np.uint64
    bits: np.uint64
    arrays: tuple[tuple[int, int, NDArray[Any]], ...]

    @classmethod
    def of(cls, fields: Mapping[str, ArrayLike], n_sites: int) -> Self:
        """Check fields, each given as one number or as (n,) numbers.

        Raises:
            OptionError: an unknown field, or a value that does not fit.
        """
        gone, bits = 0, 0
        arrays = []
        for name, given in fields.items():
            if name not in FIELD_RANGES:
                known = ", ".join(FIELD_RANGES)
                raise OptionError(f"no field {name!r}; an instruction has {known}")
            values = np.asarray(given)
            if values.dtype.kind not in "iu" or values.shape not in ((), (n_sites,)):
                raise OptionError(
                    f"{name} takes one whole number, or one a site: {n_sites} of them"
                )
            least, most = FIELD_RANGES[name]
            if not fits(values, least, most):
                raise OptionError(f"{name} holds {least} to {most}")
            low, width = _PLACES[name]
            mask = (1 << width) - 1
            gone |= mask << low
            if values.shape:
                arrays.append((low, width, values))
            else:
                bits |= (int(values) & mask) << low
        return cls(np.uint64(~gone & 0xFFFF_FFFF_FFFF_FFFF), np.uint64(bits), tuple(arrays))

    def apply(self, words: NDArray[np.uint64], part: slice) -> NDArray[np.uint64]:
        """(k,) instructions as they are after the change.

        Args:
            words: as they were, at the sites of a portion.
            part: which portion of the n sites that is.
        """
        out = words & self.keep
        out |= self.bits
        for low, width, values in self.arrays:
            here = values[part].astype(np.uint64)
            if values.dtype.kind == "i" or values.dtype.itemsize * 8 > width:
                here &= np.uint64((1 << width) - 1)  # of a negative number, its lower bits
            if low:
                here <<= np.uint64(low)
            out |= here
        return out
