"""Values that a program reads from the kernel's configuration: ``extern int CONFIG_X __kconfig``.

Source: libbpf v1.1, src/libbpf.c, bpf_object__collect_externs(), cmp_externs(),
find_kcfg_type(), set_kcfg_value_tri(), set_kcfg_value_str(), set_kcfg_value_num()
and bpf_object__resolve_externs().
"""

from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from bpfpatch.bpf.errors import KernelError
from bpfpatch.btf import Array, Btf, DataSec, Enum, Enum64, Int, IntEncoding, Kind, Var
from bpfpatch.errors import FormatError, UnsupportedError

from .externs import kernel_addresses

SECTION: Final = ".kconfig"
_MAX_SIZE: Final = 1 << 20
_TRISTATE: Final = {"n": 0, "y": 1, "m": 2}
_FILES: Final = ("/boot/config-{release}", "/proc/config.gz")


@dataclass(frozen=True, slots=True)
class KconfigVar:
    """One value's place in the ``.kconfig`` map.

    Attributes:
        name: such as ``CONFIG_HZ``.
        var_id: the variable in the program's types.
        type_id: its type, without modifiers.
        byte_off: in the map.
        size: bytes.
    """

    name: str
    var_id: int
    type_id: int
    byte_off: int
    size: int


def kconfig_layout(btf: Btf) -> tuple[KconfigVar, ...]:
    """Where a loader puts the values: by falling alignment, size and name.

    Raises:
        FormatError: the section has something that is not a variable, or one without a size.
    """
    found = []
    for section_id in btf.find(SECTION, Kind.DATASEC):
        section = btf.type(section_id)
        assert isinstance(section, DataSec)
        for row in section.variables:
            var = btf.type(row.type_id)
            if not isinstance(var, Var):
                raise FormatError(f"type {row.type_id} in {SECTION} is not a variable")
            type_id = btf.resolve(var.type_id)
            align, size = _align(btf, type_id), btf.size_of(type_id)
            found.append((-align, size, var.name, row.type_id, type_id))
    out, at = [], 0
    for negative, size, name, var_id, type_id in sorted(found):
        at = (at - negative - 1) // -negative * -negative
        out.append(KconfigVar(name, var_id, type_id, at, size))
        at += size
    return tuple(out)


def _align(btf: Btf, type_id: int) -> int:
    record = btf.type(btf.resolve(type_id))
    if isinstance(record, Array):
        return _align(btf, record.type_id)
    return max(1, min(btf.size_of(type_id), btf.ptr_size))


def kconfig_content(
    btf: Btf, weak: frozenset[str], given: Mapping[str, str | int] | None = None
) -> bytes:
    """The ``.kconfig`` map's content.

    Args:
        btf: the program's types.
        weak: names that may be absent, which reads as zeros.
        given: values by name, as a config file has them (``y``, ``250``, ``"text"``) or as
            numbers; the running kernel's configuration tells the others.

    Raises:
        KernelError: a value is absent, or does not suit the variable's type.
        UnsupportedError: they take more than 1 MiB.
    """
    layout = kconfig_layout(btf)
    size = max((row.byte_off + row.size for row in layout), default=0)
    if size > _MAX_SIZE:
        raise UnsupportedError(f"the configuration values take {size} bytes, at most {_MAX_SIZE}")
    out = bytearray(size)
    for row in layout:
        value = _value(row.name, given or {})
        if value is None:
            if row.name in weak:
                continue
            raise KernelError(
                0, f"the kernel's configuration has no {row.name}; give it with kconfig="
            )
        out[row.byte_off : row.byte_off + row.size] = _encode(btf, row, value)
    return bytes(out)


def _value(name: str, given: Mapping[str, str | int]) -> str | int | None:
    if name in given:
        return given[name]
    if name == "LINUX_KERNEL_VERSION":
        return kernel_version()
    if name == "LINUX_HAS_BPF_COOKIE":
        return int(kernel_version() >= 0x050F00)
    if name == "LINUX_HAS_SYSCALL_WRAPPER":
        return int(any(f"__{arch}_sys_bpf" in kernel_addresses() for arch in _ARCHES))
    return kernel_config().get(name) if name.startswith("CONFIG_") else None


_ARCHES: Final = ("x64", "ia32", "arm64", "s390x", "s390", "powerpc", "riscv", "se", "do")


def kernel_version() -> int:
    """The running kernel's, as LINUX_VERSION_CODE."""
    parts = re.findall(r"\d+", os.uname().release)
    major, minor, patch = (int(part) for part in (*parts, "0", "0", "0")[:3])
    return major << 16 | minor << 8 | min(patch, 255)


@cache
def kernel_config() -> Mapping[str, str]:
    """The running kernel's configuration, as text; empty where it is not kept."""
    for pattern in _FILES:
        path = Path(pattern.format(release=os.uname().release))
        try:
            data = path.read_bytes()
        except OSError:
            continue
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        lines = text.decode("utf-8", "replace").splitlines()
        pairs = (line.partition("=") for line in lines if line.startswith("CONFIG_"))
        return {name: value for name, _, value in pairs}
    return {}


def _encode(btf: Btf, row: KconfigVar, value: str | int) -> bytes:
    record = btf.type(row.type_id)
    if isinstance(value, str) and value.startswith('"'):
        if not isinstance(record, Array):
            raise _unsuited(row, value, "only an array of char can hold text")
        text = value[1:].removesuffix('"').encode()[: row.size - 1]
        return text.ljust(row.size, b"\0")
    if isinstance(value, str) and value in _TRISTATE:
        return _tristate(record, row, value).to_bytes(row.size, _ORDER)
    try:
        number = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        raise _unsuited(row, value, "that is not a number") from None
    if isinstance(record, Array):
        raise _unsuited(row, value, "an array cannot hold a number")
    is_signed = isinstance(record, Int) and bool(record.encoding & IntEncoding.SIGNED)
    try:
        return number.to_bytes(row.size, _ORDER, signed=is_signed)
    except OverflowError:
        raise _unsuited(row, value, f"it does not fit {row.size} bytes") from None


_ORDER: Final = sys.byteorder


def _tristate(record: object, row: KconfigVar, value: str) -> int:
    if isinstance(record, (Enum, Enum64)):
        return _TRISTATE[value]
    if isinstance(record, Int) and record.encoding & IntEncoding.BOOL:
        if value == "m":
            raise _unsuited(row, value, "a bool cannot hold a module's m")
        return int(value == "y")
    if isinstance(record, Int) and record.size == 1:
        return ord(value)
    raise _unsuited(row, value, "only a bool, char or enum libbpf_tristate can hold y, n or m")


def _unsuited(row: KconfigVar, value: str | int, why: str) -> KernelError:
    return KernelError(0, f"{row.name} is {value} in the kernel's configuration: {why}")
