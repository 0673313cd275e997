"""What a helper call is, apart from where things happen to be in memory.

Two programs that do the same may keep a key in different places on the stack,
or call back functions that moved. So a pointer counts as what it points into,
and, where the helper reads it, as the bytes that are there.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from bpfpatch.facts.helperproto import KEY_SIZE, ArgKind, HelperProto
from bpfpatch.facts.helpers import HELPER_PROTOS
from bpfpatch.interp import Machine
from bpfpatch.interp.errors import BadHelperUse, StrayAccess
from bpfpatch.interp.memory import CODE_WINDOW, MAX_IMAGES, WINDOW_BITS
from bpfpatch.isa import HELPER_IDS

Arg: TypeAlias = int | str | bytes


class Call(NamedTuple):
    """One call.

    Attributes:
        name: of the helper, without ``bpf_``.
        args: of each argument the number, what a pointer leads to, or the bytes there.
    """

    name: str
    args: tuple[Arg, ...]

    def __str__(self) -> str:
        """The call as text."""
        return f"{self.name}({self.shown_args})"

    @property
    def shown_args(self) -> str:
        """The arguments as text."""
        return ", ".join(_shown(arg) for arg in self.args)


# What is printed is compared as text; arguments that the format leaves alone hold anything.
_PRINTS: Final = ("trace_printk", "trace_vprintk")
_N_FORMAT: Final = 2
_MOST_BYTES: Final = 512


def describe(machine: Machine, name: str, args: tuple[int, ...]) -> Call:
    """What a call is, before it is made: a pointer to what the helper reads is the bytes there."""
    number = HELPER_IDS.get(name)
    sizes = {} if number is None else _sizes(machine, HELPER_PROTOS[number], args)
    shown = [
        _bytes(machine, arg, sizes[at]) if at in sizes else describe_pointer(machine, arg)
        for at, arg in enumerate(args)
    ]
    if name in _PRINTS:
        shown[_N_FORMAT:] = ["-"] * len(shown[_N_FORMAT:])
    return Call(name, tuple(shown))


def _sizes(machine: Machine, proto: HelperProto, args: tuple[int, ...]) -> dict[int, int]:
    """By index of the argument, how many bytes the helper only reads there."""
    out = {}
    for reg, size_reg, n_bytes in proto.reads:
        arg = proto.args[reg - 1]
        is_own = max(reg, size_reg, proto.map_reg) > len(args)  # a user's helper of that name
        if is_own or arg.is_written or ArgKind.DYNPTR in arg.kinds:
            continue
        if size_reg:
            out[reg - 1] = min(args[size_reg - 1] & 0xFFFF_FFFF, _MOST_BYTES)
        elif n_bytes > 0:
            out[reg - 1] = n_bytes
        elif proto.map_reg and _is_map(machine, args[proto.map_reg - 1]):
            found = machine.map_at(args[proto.map_reg - 1])
            out[reg - 1] = found.key_size if n_bytes == KEY_SIZE else found.value_size
    return out


def _bytes(machine: Machine, address: int, size: int) -> Arg:
    try:
        return machine.memory.read(address, size)
    except StrayAccess:
        return describe_pointer(machine, address)


def _is_map(machine: Machine, address: int) -> bool:
    try:
        machine.map_at(address)
    except BadHelperUse:
        return False
    return True


def describe_pointer(machine: Machine, number: int) -> Arg:
    """A number, or what it points to: a place in a region, the stack, a function, a map."""
    if number < 1 << WINDOW_BITS:
        return number
    region = machine.memory.find(number)
    if region is not None and number - region.address <= len(region.data):
        if region.name.startswith("stack of frame"):
            return "stack"
        return f"{region.name}+{number - region.address}"
    window = number >> WINDOW_BITS
    if CODE_WINDOW <= window < CODE_WINDOW + MAX_IMAGES:
        return "function"
    if _is_map(machine, number):
        return f"map {machine.map_at(number).name}"
    return number


def _shown(arg: Arg) -> str:
    if isinstance(arg, bytes):
        return f"[{arg.hex()}]"
    return f"{arg:#x}" if isinstance(arg, int) else arg
