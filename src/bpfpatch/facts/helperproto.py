"""The words of the table of helpers: arguments, results, callbacks, accesses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

MOST_ARGS: Final = 5
VALUE_SIZE: Final = -1
"""As a number of bytes: those of a value of the call's map."""
KEY_SIZE: Final = -2
"""As a number of bytes: those of a key of the call's map."""


class ArgKind(StrEnum):
    """What an argument is, as the rows write it."""

    ANY = "any"
    UNCHECKED = "unchecked"
    CTX = "ctx"
    MAP = "map"
    KEY = "key"
    VALUE = "value"
    MEM = "mem"
    SIZE = "size"
    ALLOC_SIZE = "alloc"
    SOCK = "sock"
    OBJECT = "obj"
    RECORD = "record"
    LOCK = "lock"
    PER_CPU = "percpu"
    FUNC = "func"
    STACK = "stack"
    STRING = "str"
    TIMER = "timer"
    KPTR = "kptr"
    DYNPTR = "dynptr"


class ResultKind(StrEnum):
    """What R0 holds after a call, as the rows write it."""

    INT = "int"
    VOID = "void"
    VALUE = "value"
    SOCKET = "socket"
    SOCK_COMMON = "sock_common"
    TCP_SOCK = "tcp_sock"
    MEM = "mem"
    PER_CPU = "percpu"
    OBJECT = "obj"


@dataclass(frozen=True, slots=True)
class HelperArg:
    """An argument.

    Attributes:
        kinds: what it may be; several where it depends on the kind of program.
        is_maybe_null: whether null, or a size of 0, will do.
        is_read: whether the helper reads what it points to.
        is_written: whether the helper writes there.
        is_released: whether the object that it points to ends with the call.
        n_bytes: of memory of a fixed size; otherwise 0.
    """

    kinds: tuple[ArgKind, ...]
    is_maybe_null: bool = False
    is_read: bool = False
    is_written: bool = False
    is_released: bool = False
    n_bytes: int = 0


@dataclass(frozen=True, slots=True)
class HelperResult:
    """What R0 holds after a call.

    Attributes:
        kind: what it is.
        is_maybe_null: whether it has to be checked.
        struct: of an object of the kernel's, the name of the struct, if it is always that.
        is_trusted: of the same, whether it can be relied on.
        most_reg: the register whose value a result that is not an error does not exceed, or 0.
    """

    kind: ResultKind
    is_maybe_null: bool = False
    struct: str = ""
    is_trusted: bool = False
    most_reg: int = 0


@dataclass(frozen=True, slots=True)
class HelperCallback:
    """A function of the program that a helper calls.

    Attributes:
        reg: the register with its address.
        args: what its R1, R2, ... hold: a kind, or one of the helper's registers (``"r3"``).
        is_late: whether it is called after the helper has returned.
    """

    reg: int
    args: tuple[str, ...]
    is_late: bool


class HelperAccess(NamedTuple):
    """Memory that a helper reads or writes through an argument.

    Attributes:
        reg: of the pointer.
        size_reg: of the number of bytes, or 0.
        n_bytes: the number, where no register has it; or `VALUE_SIZE`, `KEY_SIZE`.
    """

    reg: int
    size_reg: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class HelperProto:
    """One helper.

    Attributes:
        number: as in a call's immediate.
        name: without ``bpf_``.
        args: those that have a kind, from R1 on.
        result: what R0 holds afterwards.
        since: the first kernel that has it.
        is_variadic: whether it reads any further registers up to R5 that the program set.
        is_gpl_only: whether only programs with a GPL-compatible licence may call it.
        may_sleep: whether only programs that may sleep may call it.
        is_fast: whether a form of it clobbers R0 and its arguments alone.
        acquires: whether its result has to be released.
        casts: whether its result ends with the object in R1.
        keeps_map: whether the verifier notes on which map it is called.
        moves_packet: whether pointers into the packet are none any more afterwards.
        adds: what the kernel passes as one more argument: ``gfp``, ``aux`` or nothing.
        callback: what it calls.
        reads: memory that it reads through its arguments.
        writes: memory that it writes through its arguments.
    """

    number: int
    name: str
    args: tuple[HelperArg, ...]
    result: HelperResult
    since: tuple[int, int]
    is_variadic: bool
    is_gpl_only: bool
    may_sleep: bool
    is_fast: bool
    acquires: bool
    casts: bool
    keeps_map: bool
    moves_packet: bool
    adds: str
    callback: HelperCallback | None
    reads: tuple[HelperAccess, ...]
    writes: tuple[HelperAccess, ...]

    @property
    def n_args(self) -> int:
        """How many registers a call passes at most."""
        return MOST_ARGS if self.is_variadic else len(self.args)

    @property
    def n_checked(self) -> int:
        """How many of them the verifier looks at."""
        return sum(ArgKind.UNCHECKED not in arg.kinds for arg in self.args)

    @property
    def map_reg(self) -> int:
        """The register of the map that it is called on, or 0."""
        return self.reg_of(ArgKind.MAP)

    @property
    def released_reg(self) -> int:
        """The register of the object that it ends, or 0."""
        return next((reg for reg, arg in enumerate(self.args, 1) if arg.is_released), 0)

    def reg_of(self, kind: ArgKind) -> int:
        """The first register of a kind, or 0."""
        return next((reg for reg, arg in enumerate(self.args, 1) if kind in arg.kinds), 0)
