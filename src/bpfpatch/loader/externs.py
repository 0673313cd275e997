"""What a program's relocations are against: maps, and things of the kernel's."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from bpfpatch.bpf.errors import KernelError
from bpfpatch.bpf.kallsyms import KALLSYMS
from bpfpatch.bpf.loadedbtf import vmlinux_btf
from bpfpatch.bpf.map import Map
from bpfpatch.btf import Btf, DataSec, Func, Kind, Var

from .corematch import are_compatible, essential_name


@dataclass(frozen=True, slots=True)
class Needs:
    """What an object's programs need.

    Attributes:
        maps: by name; data sections by their section's, ``.kconfig`` among them.
        weak: names of externs that may be absent.
        kconfig: where each ``CONFIG_`` value is in the ``.kconfig`` map, in bytes.
        btf: the types that declare externs and that CO-RE records refer to.
    """

    maps: Mapping[str, Map] = field(default_factory=dict)
    weak: frozenset[str] = frozenset()
    kconfig: Mapping[str, int] = field(default_factory=dict)
    btf: Btf | None = None

    def map(self, name: str) -> Map:
        """A map.

        Raises:
            KernelError: it is not there.
        """
        found = self.maps.get(name)
        if found is None:
            raise KernelError(
                0, f"the program needs map {name!r}; give it, or load with open_object"
            )
        return found

    def place(self, name: str) -> int:
        """A configuration value's byte_off in the ``.kconfig`` map.

        Raises:
            KernelError: it is not known.
        """
        found = self.kconfig.get(name)
        if found is None:
            raise KernelError(0, f"the program reads {name}; give its place in .kconfig")
        return found


@dataclass(frozen=True, slots=True)
class Ksym:
    """A kernel symbol.

    Attributes:
        btf_id: of a variable or function with a type.
        address: of one without; 0 with a btf_id, or for an absent weak one.
    """

    btf_id: int
    address: int


def kernel_symbol(name: str, btf: Btf | None, *, is_weak: bool) -> Ksym:
    """Find the kernel's variable or function of a name.

    With a type in the program it is looked up among the kernel's types, otherwise by
    its address.

    Raises:
        KernelError: there is none, and it is not weak; or its type is another one.

    Source: libbpf v1.1, src/libbpf.c, bpf_object__resolve_externs(),
    bpf_object__resolve_ksym_var_btf_id() and bpf_object__resolve_ksym_func_btf_id().
    """
    declared = _declaration(btf, name)
    if btf is not None and isinstance(declared, (Var, Func)):
        target = btf.resolve(declared.type_id)
        if isinstance(declared, Func) or target:
            found = _typed(name, btf, declared, is_weak=is_weak)
            return Ksym(found, 0)
    address = kernel_addresses().get(name)
    if address is None and not is_weak:
        raise KernelError(
            errno.ESRCH, f"the kernel has no symbol {name!r} in {KALLSYMS}, and it is not weak"
        )
    return Ksym(0, address or 0)


def kernel_function(name: str, btf: Btf | None, *, is_weak: bool) -> int:
    """The id of a kfunc in the kernel's types; 0 for an absent weak one.

    Raises:
        KernelError: there is none, and it is not weak; or its type is another one.
    """
    declared = _declaration(btf, name)
    return _typed(name, btf, declared if isinstance(declared, Func) else None, is_weak=is_weak)


def _declaration(btf: Btf | None, name: str) -> Var | Func | None:
    """What the program's types say about an extern."""
    if btf is None:
        return None
    for kind in (Kind.VAR, Kind.FUNC):
        for type_id in btf.find(name, kind):
            if _is_ksym(btf, type_id):
                found = btf.type(type_id)
                assert isinstance(found, (Var, Func))
                return found
    return None


def _is_ksym(btf: Btf, type_id: int) -> bool:
    for section_id in btf.find(".ksyms", Kind.DATASEC):
        section = btf.type(section_id)
        if isinstance(section, DataSec) and any(
            row.type_id == type_id for row in section.variables
        ):
            return True
    return False


def _typed(name: str, btf: Btf | None, declared: Var | Func | None, *, is_weak: bool) -> int:
    kernel = vmlinux_btf()
    kind = Kind.VAR if isinstance(declared, Var) else Kind.FUNC
    found = kernel.find(essential_name(name), kind)
    what = "variable" if kind is Kind.VAR else "function"
    if not found:
        if is_weak:
            return 0
        raise KernelError(errno.ESRCH, f"the kernel's types have no {what} {name!r}")
    theirs = kernel.type(found[0])
    assert isinstance(theirs, (Var, Func))
    if btf is None or declared is None:
        return found[0]
    if are_compatible(btf, declared.type_id, kernel, theirs.type_id):
        return found[0]
    if is_weak:
        return 0
    raise KernelError(
        errno.EINVAL,
        f"the program declares {what} {name!r} with another type than the kernel's "
        f"{kernel.c_decl(found[0])!r}",
    )


@cache
def kernel_addresses() -> Mapping[str, int]:
    """Address of every kernel symbol; all 0 where kptr_restrict hides them.

    Raises:
        KernelError: /proc/kallsyms cannot be read.
    """
    try:
        lines = KALLSYMS.read_text(errors="replace").splitlines()
    except OSError as error:
        raise KernelError(error.errno or 0, f"reading {KALLSYMS}") from error
    out: dict[str, int] = {}
    for line in lines:
        address, _, name, *_ = line.split()
        out.setdefault(name, int(address, 16))
    return out
