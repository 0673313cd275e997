"""What a helper call is, apart from where things happen to be in memory.

Two programs that do the same may keep a key in different places on the stack,
or call back functions that moved. So a pointer counts as what it points into,
and, where the helper reads it, as the bytes that are there.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from bpfpatch.interp import Machine
from bpfpatch.interp.errors import BadHelperUse, StrayAccess
from bpfpatch.interp.memory import CODE_WINDOW, MAX_IMAGES, WINDOW_BITS

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


class Sized(NamedTuple):
    """A pointer to as many bytes as another argument says."""

    size_at: int


KEY, VALUE, MAP, ANY, UNUSED = "key", "value", "map", "any", "unused"

_SPECS: Final[dict[str, tuple[str | Sized, ...]]] = {
    "map_lookup_elem": (MAP, KEY),
    "map_lookup_percpu_elem": (MAP, KEY, ANY),
    "map_update_elem": (MAP, KEY, VALUE, ANY),
    "map_delete_elem": (MAP, KEY),
    "map_push_elem": (MAP, VALUE, ANY),
    "ringbuf_output": (MAP, Sized(2), ANY, ANY),
    "perf_event_output": (ANY, MAP, ANY, Sized(4), ANY),
    "skb_output": (ANY, MAP, ANY, Sized(4), ANY),
    "xdp_output": (ANY, MAP, ANY, Sized(4), ANY),
    "skb_store_bytes": (ANY, ANY, Sized(3), ANY, ANY),
    "xdp_store_bytes": (ANY, ANY, Sized(3), ANY),
    "csum_diff": (Sized(1), ANY, Sized(3), ANY, ANY),
    "probe_write_user": (ANY, Sized(2), ANY),
    "strncmp": (Sized(1), ANY, ANY),
    # What is printed is compared as text; arguments that the format leaves alone hold anything.
    "trace_printk": (Sized(1), ANY, UNUSED, UNUSED, UNUSED),
    "trace_vprintk": (Sized(1), ANY, UNUSED, UNUSED),
    "snprintf": (ANY, ANY, ANY, Sized(4), ANY),
}
"""What the arguments of helpers are, where it takes more than a look at the number.
Source: linux v6.18, include/uapi/linux/bpf.h, the comments on the helpers."""

_MOST_BYTES: Final = 512


def describe(machine: Machine, name: str, args: tuple[int, ...]) -> Call:
    """What a call is, before it is made."""
    spec = _SPECS.get(name)
    if spec is None:
        return Call(name, tuple(describe_pointer(machine, arg) for arg in args))
    return Call(
        name,
        tuple(_argument(machine, args, at, spec[at]) for at in range(min(len(args), len(spec)))),
    )


def _argument(machine: Machine, args: tuple[int, ...], at: int, kind: str | Sized) -> Arg:
    if kind == UNUSED:
        return "-"
    if isinstance(kind, Sized):
        size = args[kind.size_at] & 0xFFFF_FFFF if kind.size_at < len(args) else 0
        return _bytes(machine, args[at], min(size, _MOST_BYTES))
    if kind in (KEY, VALUE):
        used = next((one for one in args[:2] if _is_map(machine, one)), None)
        if used is None:
            return describe_pointer(machine, args[at])
        found = machine.map_at(used)
        return _bytes(machine, args[at], found.key_size if kind == KEY else found.value_size)
    return describe_pointer(machine, args[at])


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
