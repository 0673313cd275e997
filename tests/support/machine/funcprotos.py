"""The bpf_func_proto of every helper, as the running kernel has them in its memory.

They have no symbols, but each begins with the address of a function that has one: so the
kernel's read-only data are searched for such addresses.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from bpfpatch import asm, kernel
from bpfpatch.btf import Enum, Enum64
from bpfpatch.isa import HELPER_IDS

_WINDOW = 1 << 20
_N_ARGS = 5
# Functions of helpers that are not named after them.
_ALIASES = {
    "skb_event_output": "skb_output",
    "xdp_event_output": "xdp_output",
    "probe_read_compat": "probe_read",
    "probe_read_compat_str": "probe_read_str",
    "sk_lookup_assign": "sk_assign",
    "get_socket_ptr_cookie": "get_socket_cookie",
    "user_rnd_u32": "get_prandom_u32",
    "get_raw_cpu_id": "get_smp_processor_id",
}
# The same helper for one kind of program has one of these around its name.
_SUFFIXES = (
    "_tp",
    "_raw_tp",
    "_pe",
    "_sleepable",
    "_recur",
    "_tracing",
    "_trace",
    "_kprobe",
    "_kprobe_multi",
    "_uprobe_multi",
    "_curr",
    "_sock",
    "_sock_addr",
    "_sock_ops",
    "_sk_msg",
    "_sockopt",
)
_PREFIXES = (
    "xdp_",
    "skb_",
    "tc_",
    "sock_addr_",
    "sock_ops_",
    "sk_",
    "unlocked_sk_",
    "lwt_in_",
    "lwt_xmit_",
    "flow_dissector_",
)


@dataclass(frozen=True)
class FuncProto:
    """One of a helper's prototypes; a helper has several where kinds of programs differ.

    Attributes:
        helper: its name.
        func: the function's name.
        args: base type and flags of each argument, by the kernel's names.
        sizes: by argument, bytes of memory of a fixed size.
        result: base type and flags.
        is_gpl_only: as the kernel has it, like the next two.
        might_sleep: for programs that may sleep.
        allow_fastcall: clobbers R0 and its arguments alone.
    """

    helper: str
    func: str
    args: tuple[tuple[str, frozenset[str]], ...]
    sizes: tuple[int, ...]
    result: tuple[str, frozenset[str]]
    is_gpl_only: bool
    might_sleep: bool
    allow_fastcall: bool


def helper_of(func: str) -> str | None:
    """The helper that a function of the kernel does."""
    name = func.removeprefix("bpf_")
    if name in HELPER_IDS:
        return name
    if name in _ALIASES:
        return _ALIASES[name]
    found = [name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)]
    found += [name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)]
    return next((one for one in found if one in HELPER_IDS), None)


@cache
def enum_values(name: str) -> dict[str, int]:
    """What the running kernel's enum of a name has; {} where there is none."""
    btf = kernel.vmlinux_btf()
    for type_id in btf.find(name):
        found = btf.type(type_id)
        if isinstance(found, Enum | Enum64):
            return {one.name: one.value for one in found.values}
    return {}


def func_protos() -> tuple[FuncProto, ...]:
    """All that are found; none where addresses are hidden or the data cannot be told."""
    addresses = _addresses()
    if "__start_rodata" not in addresses or "__start_ro_after_init" not in addresses:
        return ()
    data = _read(addresses["__start_rodata"], addresses["__start_ro_after_init"])
    names = {address: name for name, address in addresses.items() if helper_of(name)}
    words = np.frombuffer(data[: len(data) // 8 * 8], "<u8")
    at = np.flatnonzero(np.isin(words, np.array(list(names), "<u8"))) * 8
    return tuple(_protos(data, at.tolist(), names))


def _addresses() -> dict[str, int]:
    """The kernel's own symbols."""
    rows = (line.split() for line in kernel.text_symbols().data.decode().splitlines())
    return {row[2]: int(row[0], 16) for row in rows if len(row) == 3 and int(row[0], 16)}


def _read(start: int, end: int) -> bytes:
    """The kernel's memory, by bpf_probe_read_kernel()."""
    out = []
    with kernel.Map.create("array", 4, _WINDOW, 1, name="window") as window:
        text = f"r3 = *(u64 *)(r1 + 0); ld_pseudo r1, 2, {window.fd}; r2 = {_WINDOW}"
        code = asm.assemble(f"{text}; call bpf_probe_read_kernel; exit")
        with kernel.load(code, prog_type="raw_tracepoint", license="GPL") as program:
            for address in range(start, end, _WINDOW):
                program.test_run(ctx=struct.pack("<Q", address))
                out.append(window.get(bytes(4)) or b"")
    return b"".join(out)[: end - start]


def _protos(data: bytes, at: list[int], names: dict[int, str]) -> Iterator[FuncProto]:
    btf = kernel.vmlinux_btf()
    place = {
        name: btf.offset_of("struct bpf_func_proto", name)
        for name in ("gpl_only", "might_sleep", "allow_fastcall", "ret_type", "arg1_type")
    }
    place["arg1_size"] = btf.offset_of("struct bpf_func_proto", "arg1_size")
    (struct_id,) = btf.find("bpf_func_proto")
    size = btf.size_of(struct_id)
    for start in at:
        raw = data[start : start + size]
        if len(raw) < size:
            continue
        bools = [raw[place[name]] for name in ("gpl_only", "might_sleep", "allow_fastcall")]
        args = struct.unpack_from(f"<{_N_ARGS}I", raw, place["arg1_type"])
        sizes = struct.unpack_from(f"<{_N_ARGS}Q", raw, place["arg1_size"])
        (result,) = struct.unpack_from("<I", raw, place["ret_type"])
        func = names[int.from_bytes(raw[:8], "little")]
        kinds = [_parts(one, "bpf_arg_type") for one in args]
        returned = _parts(result, "bpf_return_type")
        if max(bools) > 1 or returned is None or None in kinds:
            continue  # a table of something else
        known = tuple(kind for kind in kinds if kind is not None)
        fixed = tuple(
            n_bytes if "MEM_FIXED_SIZE" in kind[1] else 0
            for n_bytes, kind in zip(sizes, known, strict=True)
        )
        helper = helper_of(func)
        assert helper is not None
        yield FuncProto(helper, func, known, fixed, returned, *map(bool, bools))


def _parts(value: int, enum: str) -> tuple[str, frozenset[str]] | None:
    """The name of a type without its flags, and the flags'."""
    bases = {number: name for name, number in enum_values(enum).items() if number < 256}
    flags = {name: bit for name, bit in enum_values("bpf_type_flag").items() if bit & bit - 1 == 0}
    base = bases.get(value & 0xFF)
    found = frozenset(name for name, bit in flags.items() if value & bit)
    if base is None or value & ~0xFF & ~sum(flags[name] for name in found):
        return None
    return base, found
