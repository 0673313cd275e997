"""Helpers by number and name, and how one is declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bpfpatch.facts.helpers import HELPER_PROTOS
from bpfpatch.isa import helper_id


@dataclass(frozen=True, slots=True)
class Helper:
    """A helper or kfunc in Python.

    Attributes:
        name: without ``bpf_``.
        run: called with the machine and the registers that it takes; what it returns becomes
            R0, modulo 2**64, so that a negative errno can be returned as such.
        n_args: how many registers it takes, from R1 on.
        calls_back: whether it may call `Machine.call_back`.
    """

    name: str
    run: Callable[..., int]
    n_args: int
    calls_back: bool = False


BUILT_IN: Final[dict[int, Helper]] = {}
"""The helpers that every machine has, by number."""

BUILT_IN_KFUNCS: Final[dict[str, Helper]] = {}
"""The kfuncs that every machine has, by name."""


def helper(*names: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Declare a function to be what these helpers do."""

    def declare(run: Callable[..., int]) -> Callable[..., int]:
        for name in names:
            proto = HELPER_PROTOS[helper_id(name)]
            calls_back = proto.callback is not None and not proto.callback.is_late
            BUILT_IN[proto.number] = Helper(name, run, proto.n_args, calls_back)
        return run

    return declare


def kfunc(*names: str, n_args: int) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Declare a function to be what these kfuncs do."""

    def declare(run: Callable[..., int]) -> Callable[..., int]:
        for name in names:
            BUILT_IN_KFUNCS[name] = Helper(name, run, n_args)
        return run

    return declare


def wrap(name: str, run: Callable[..., int], n_args: int = 5) -> Helper:
    """A helper of a user's own function."""
    return Helper(name, run, n_args)
