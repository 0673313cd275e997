"""What the kernel's types say of pointers: arguments of its functions, members of its structs.

Source: linux v6.18, kernel/bpf/btf.c, btf_ctx_access(), btf_struct_walk();
kernel/bpf/verifier.c, check_ptr_to_btf_access().
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from bpfpatch.btf import Btf, Kind
from bpfpatch.btf.types import Array, BtfType, DataSec, FuncProto, Ptr, Struct, Union
from bpfpatch.facts.columns import MemType
from bpfpatch.facts.kinds import AttachType, ProgType
from bpfpatch.facts.subject import Subject

from .contexts import BY_PROTOTYPE, ContextPointer
from .kernelargs import may_be_error, may_be_null, of_iterator
from .values import LEGACY, RCU, TRUSTED, UNTRUSTED

_TRACE: Final = "btf_trace_"
# The kernel's own lists are empty structs in its types: "task_struct__safe_rcu" has the members
# of a task_struct that are safe to follow in a read-side critical section.
_LISTS: Final = (
    ("trusted", TRUSTED, False),
    ("trusted_or_null", TRUSTED, True),
    ("rcu", RCU, False),
    ("rcu_or_null", RCU, True),
)
_NOTHING: Final = (0, "", False)


class TypedLoad(NamedTuple):
    """A pointer to a struct that a load through a typed pointer gives."""

    type_id: int
    trust: int
    is_maybe_null: bool


class KernelTypes:
    """Types of the kernel that a program is for.

    Args:
        btf: the types; None where they are not known: then nothing is.
    """

    def __init__(self, btf: Btf | None) -> None:
        self._btf = btf
        self._members: dict[tuple[int, int, int], tuple[int, str, bool]] = {}
        self._lists: dict[tuple[str, str], frozenset[str]] = {}
        self._ids: dict[str, int] = {}
        self._per_cpu: frozenset[int] | None = None

    def struct(self, name: str) -> int:
        """The type id of a struct of the kernel, or 0."""
        if name not in self._ids:
            found = self._btf.find_one(name, Kind.STRUCT) if self._btf is not None else None
            self._ids[name] = found or 0
        return self._ids[name]

    def name(self, type_id: int) -> str:
        """The name of a type."""
        return "" if self._btf is None or not type_id else self._btf.name_of(type_id)

    def pointee(self, type_id: int) -> tuple[int, bool] | None:
        """What a pointer type points to, and whether that is a struct; None for no pointer."""
        if self._btf is None:
            return None
        found = self._btf.type(self._btf.resolve(type_id))
        if not isinstance(found, Ptr):
            return None
        inner = self._btf.resolve(found.type_id)
        return inner, isinstance(self._btf.type(inner), (Struct, Union))

    def size(self, type_id: int) -> int:
        """Bytes of a type, 0 where it has no size."""
        if self._btf is None or not type_id:
            return 0
        kind = self._btf.head(self._btf.resolve(type_id)).number
        return (
            0 if kind in (0, Kind.FWD, Kind.FUNC, Kind.FUNC_PROTO) else self._btf.size_of(type_id)
        )

    def prototype(self, type_id: int) -> FuncProto | None:
        """The prototype of a function."""
        if self._btf is None or not 0 < type_id < len(self._btf):
            return None
        found = self._btf.type(type_id)
        for _ in range(4):
            if isinstance(found, FuncProto):
                return found
            found = self._btf.type(getattr(found, "type_id", 0))
        return None

    # Contexts of programs that stand in for a function of the kernel.

    def arguments(self, subject: Subject) -> dict[int, ContextPointer]:
        """The pointers among what a program is called with, by byte_off in its context."""
        btf = self._btf
        if btf is None or subject.prog_type not in BY_PROTOTYPE or not subject.attach_btf_id:
            return {}
        if subject.attach_btf_id >= len(btf):
            return {}
        name, proto, skip = self._attached(btf, subject)
        if proto is None:
            return {}
        out: dict[int, ContextPointer] = {}
        byte_off = 0
        params = [(param.name, param.type_id) for param in proto.params[skip:]]
        if subject.attach_type == AttachType.TRACE_FEXIT or subject.prog_type is ProgType.LSM:
            params.append(("", proto.type_id))
        for arg, (param, type_id) in enumerate(params):
            found = self._argument(subject, name, arg, param, type_id)
            if found is not None:
                out[byte_off] = found
            byte_off += max(8, (self.size(type_id) + 7) & ~7)
        return out

    def _attached(self, btf: Btf, subject: Subject) -> tuple[str, FuncProto | None, int]:
        """Name, prototype and the number of its arguments that the program does not get."""
        found = btf.type(subject.attach_btf_id)
        if isinstance(found, Struct):
            members = found.members
            if subject.attach_type >= len(members):
                return "", None, 0
            member = members[subject.attach_type]
            proto = self.prototype(btf.resolve(member.type_id))
            return member.name, self._with_names(proto, f"{found.name}__{member.name}"), 0
        name = btf.name_of(subject.attach_btf_id)
        is_trace = name.startswith(_TRACE)
        proto = self.prototype(
            btf.resolve(subject.attach_btf_id) if is_trace else subject.attach_btf_id
        )
        return name.removeprefix(_TRACE), proto, int(is_trace)

    def _with_names(self, proto: FuncProto | None, stub: str) -> FuncProto | None:
        """A table entry's prototype with the names that its stub function gives its arguments.

        Source: linux v6.18, kernel/bpf/bpf_struct_ops.c, find_stub_func_proto().
        """
        assert self._btf is not None
        found = self._btf.find_one(stub, Kind.FUNC)
        named = self.prototype(found) if found is not None else None
        if proto is None or named is None or len(named.params) != len(proto.params):
            return proto
        params = tuple(
            replace(param, name=given.name)
            for param, given in zip(proto.params, named.params, strict=True)
        )
        return replace(proto, params=params)

    def returns_nothing(self, subject: Subject) -> bool:
        """Whether what the kernel calls such a program for returns void, so that R0 is not read.

        Source: linux v6.18, kernel/bpf/verifier.c, check_return_code().
        """
        btf = self._btf
        is_such = subject.prog_type in (ProgType.LSM, ProgType.STRUCT_OPS)
        if btf is None or not is_such or not 0 < subject.attach_btf_id < len(btf):
            return False
        if subject.attach_type == AttachType.LSM_CGROUP and subject.prog_type is ProgType.LSM:
            return False
        _, proto, _ = self._attached(btf, subject)
        return proto is not None and not proto.type_id

    def _argument(
        self, subject: Subject, name: str, arg: int, param: str, type_id: int
    ) -> ContextPointer | None:
        target = self.pointee(type_id)
        attach = subject.attach_type
        is_iter = subject.prog_type is ProgType.TRACING and attach == AttachType.TRACE_ITER
        if target is None:
            return None
        if not target[1]:
            # A map iterator's key and value are the only typed memory that is not a struct.
            is_buf = is_iter and param in ("key", "value") and "map" in name
            return ContextPointer(MemType.BUF, is_maybe_null=True) if is_buf else None
        is_raw = subject.prog_type is ProgType.TRACING and attach == AttachType.TRACE_RAW_TP
        is_trusted = is_raw or subject.prog_type in (ProgType.LSM, ProgType.STRUCT_OPS)
        is_null = param.endswith("__nullable") or (is_raw and may_be_null(name, arg))
        if is_iter:
            is_trusted, is_null = of_iterator(name, param)
        if is_raw and may_be_error(name, arg):
            return None
        ref = target[0]
        if self.name(subject.attach_btf_id) == "tcp_congestion_ops" and self.name(ref) == "sock":
            ref = self.struct("tcp_sock")  # net/ipv4/bpf_tcp_ca.c, bpf_tcp_ca_is_valid_access()
        return ContextPointer(MemType.BTF_ID, is_null, f"#{ref}", TRUSTED if is_trusted else LEGACY)

    def type_of(self, field: ContextPointer) -> int:
        """The type id of a context field's struct."""
        if field.struct.startswith("#"):
            return int(field.struct[1:])
        return self.struct(field.struct) if field.struct else 0

    # Members.

    def load(
        self, type_id: int, byte_off: int, size: int, trust: int, *, is_null: bool, in_rcu: bool
    ) -> TypedLoad | None:
        """What a load through a pointer to a struct gives: a pointer to another, or a number."""
        key = (type_id, byte_off, size)
        if key not in self._members:
            self._members[key] = self._walk(type_id, byte_off, size)
        target, field, is_untrusted = self._members[key]
        if not target:
            return None
        if trust in (UNTRUSTED, LEGACY):
            return TypedLoad(target, trust, False)
        is_in_section = in_rcu and not is_null
        struct = self.name(type_id)
        for what, kept, is_maybe_null in _LISTS if is_in_section else _LISTS[:2]:
            if field in self._listed(struct, what):
                return TypedLoad(target, kept, is_maybe_null)
        is_legacy = is_in_section and not is_untrusted
        return TypedLoad(target, LEGACY if is_legacy else UNTRUSTED, False)

    def _listed(self, struct: str, what: str) -> frozenset[str]:
        """Members whose pointers are as reliable as the struct's own is."""
        key = (struct, what)
        if key not in self._lists:
            found = self.struct(f"{struct}__safe_{what}")
            members = self._btf.type(found).members if found and self._btf is not None else ()  # type: ignore[union-attr]  # a Struct: struct() looks for these only
            self._lists[key] = frozenset(member.name for member in members)
        return self._lists[key]

    def _walk(self, type_id: int, byte_off: int, size: int) -> tuple[int, str, bool]:
        """Target of the pointer that is there, its member's name, whether a union is on the way.

        The target is 0 for what is not a pointer to a struct.
        """
        btf = self._btf
        if btf is None or not type_id:
            return _NOTHING
        is_union = False
        for _ in range(32):
            found = btf.type(btf.resolve(type_id))
            if isinstance(found, Array):
                step = btf.size_of(found.type_id)
                byte_off, type_id = byte_off % step if step else 0, found.type_id
                continue
            if not isinstance(found, (Struct, Union)):
                return _NOTHING
            is_union |= isinstance(found, Union) and len(found.members) != 1
            for member in found.members:
                start = member.bit_off // 8
                inner = btf.resolve(member.type_id)
                if member.bitfield_size or not start <= byte_off < start + self._span(
                    inner, found, start
                ):
                    continue
                pointed = btf.type(inner)
                if isinstance(pointed, Ptr):
                    target = btf.resolve(pointed.type_id)
                    is_struct = isinstance(btf.type(target), (Struct, Union))
                    if is_struct and byte_off == start and size == 8:
                        return target, member.name, is_union
                    return _NOTHING
                byte_off, type_id = byte_off - start, inner
                break
            else:
                return _NOTHING
        return _NOTHING

    def _span(self, type_id: int, owner: Struct | Union, start: int) -> int:
        """Bytes that a member covers; a flexible array covers all after the struct."""
        found = self._btf.type(type_id) if self._btf is not None else None
        if isinstance(found, Array) and not found.count and start >= owner.size:
            return 1 << 32
        return self.size(type_id)

    def type(self, type_id: int) -> BtfType | None:
        """A type, None where there is none."""
        if self._btf is None or not 0 <= type_id < len(self._btf):
            return None
        return self._btf.type(type_id)

    def resolve(self, type_id: int) -> int:
        """The id that is left without typedefs and modifiers."""
        return 0 if self._btf is None else self._btf.resolve(type_id)

    def is_per_cpu(self, variable: int) -> bool:
        """Whether a variable of the kernel is one of each CPU."""
        if self._per_cpu is None:
            section = None
            if self._btf is not None:
                found = self._btf.find_one(".data..percpu", Kind.DATASEC)
                section = self._btf.type(found) if found else None
            rows = section.variables if isinstance(section, DataSec) else ()
            self._per_cpu = frozenset(row.type_id for row in rows)
        return variable in self._per_cpu

    def is_struct(self, type_id: int) -> bool:
        """Whether a type is a struct or union."""
        return isinstance(self.type(self.resolve(type_id)), (Struct, Union))
