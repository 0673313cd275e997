"""The table of helpers is what the running kernel has of them."""

from __future__ import annotations

from collections import defaultdict

import pytest

from bpfpatch import isa, kernel
from bpfpatch.btf import FuncProto as FuncProtoType
from bpfpatch.btf import Ptr, Typedef
from bpfpatch.facts.helperproto import ArgKind, HelperProto, ResultKind
from bpfpatch.facts.helpers import HELPER_PROTOS
from support.machine.funcprotos import FuncProto, enum_values, func_protos
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

_MOST = 190
"""Helpers of which a usual configuration has a prototype or a function's type."""
_ARGS = {
    "ARG_ANYTHING": ArgKind.ANY,
    "ARG_PTR_TO_CTX": ArgKind.CTX,
    "ARG_CONST_MAP_PTR": ArgKind.MAP,
    "ARG_PTR_TO_MAP_KEY": ArgKind.KEY,
    "ARG_PTR_TO_MAP_VALUE": ArgKind.VALUE,
    "ARG_PTR_TO_MEM": ArgKind.MEM,
    "ARG_CONST_SIZE": ArgKind.SIZE,
    "ARG_CONST_SIZE_OR_ZERO": ArgKind.SIZE,
    "ARG_CONST_ALLOC_SIZE_OR_ZERO": ArgKind.ALLOC_SIZE,
    "ARG_PTR_TO_SOCK_COMMON": ArgKind.SOCK,
    "ARG_PTR_TO_SOCKET": ArgKind.SOCK,
    "ARG_PTR_TO_BTF_ID_SOCK_COMMON": ArgKind.SOCK,
    "ARG_PTR_TO_BTF_ID": ArgKind.OBJECT,
    "ARG_PTR_TO_RINGBUF_MEM": ArgKind.RECORD,
    "ARG_PTR_TO_SPIN_LOCK": ArgKind.LOCK,
    "ARG_PTR_TO_PERCPU_BTF_ID": ArgKind.PER_CPU,
    "ARG_PTR_TO_FUNC": ArgKind.FUNC,
    "ARG_PTR_TO_STACK": ArgKind.STACK,
    "ARG_PTR_TO_CONST_STR": ArgKind.STRING,
    "ARG_PTR_TO_TIMER": ArgKind.TIMER,
    "ARG_KPTR_XCHG_DEST": ArgKind.KPTR,
    "ARG_PTR_TO_DYNPTR": ArgKind.DYNPTR,
}
_RESULTS = {
    "RET_INTEGER": ResultKind.INT,
    "RET_VOID": ResultKind.VOID,
    "RET_PTR_TO_MAP_VALUE": ResultKind.VALUE,
    "RET_PTR_TO_SOCKET": ResultKind.SOCKET,
    "RET_PTR_TO_TCP_SOCK": ResultKind.TCP_SOCK,
    "RET_PTR_TO_SOCK_COMMON": ResultKind.SOCK_COMMON,
    "RET_PTR_TO_MEM": ResultKind.MEM,
    "RET_PTR_TO_MEM_OR_BTF_ID": ResultKind.PER_CPU,
    "RET_PTR_TO_BTF_ID": ResultKind.OBJECT,
}
# Of these a size of 0 is in the base type.
_OR_ZERO = "ARG_CONST_SIZE_OR_ZERO"


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


@pytest.fixture(scope="module")
def protos() -> dict[str, list[FuncProto]]:
    """By helper, its prototypes."""
    if "MEM_WRITE" not in enum_values("bpf_type_flag"):
        pytest.skip("this kernel is too old to say which arguments helpers write")
    found: dict[str, list[FuncProto]] = defaultdict(list)
    for proto in func_protos():
        found[proto.helper].append(proto)
    if not found:
        pytest.skip("this kernel hides its addresses, or where its read-only data are")
    return found


def test_numbers() -> None:
    """Every helper of the kernel has its number and name in the table."""
    values = enum_values("bpf_func_id")
    found = {
        number: name.removeprefix("BPF_FUNC_")
        for name, number in values.items()
        if 0 < number < values["__BPF_FUNC_MAX_ID"]
    }
    assert len(found) > _MOST
    assert found == {number: isa.HELPERS.get(number) for number in found}
    assert all(HELPER_PROTOS[number].name == name for number, name in found.items())


def test_counts_of_arguments() -> None:
    """A helper takes as many arguments as the function behind it, without what the kernel adds."""
    btf = kernel.vmlinux_btf()
    n_found = 0
    for proto in HELPER_PROTOS.values():
        for type_id in btf.find(f"btf_bpf_{proto.name}"):
            defined = btf.type(type_id)
            assert isinstance(defined, Typedef)
            pointed = btf.type(defined.type_id)
            assert isinstance(pointed, Ptr)
            func = btf.type(pointed.type_id)
            assert isinstance(func, FuncProtoType)
            assert len(func.params) == proto.n_args + bool(proto.adds), proto.name
            n_found += 1
    if not n_found:
        pytest.skip("this kernel's types do not have its helpers' functions")
    assert n_found > 180


def test_arguments(protos: dict[str, list[FuncProto]]) -> None:
    """Each argument is of a kind that the kernel gives it in some kind of program."""
    assert len(protos) > _MOST
    found = {name: _arguments(HELPER_PROTOS[isa.HELPER_IDS[name]]) for name in protos}
    assert found == {name: _merged(some) for name, some in protos.items()}


def test_results(protos: dict[str, list[FuncProto]]) -> None:
    """Results are of the kernel's kind, null or not, trusted or not."""
    assert len(protos) > _MOST
    for name, some in protos.items():
        result = HELPER_PROTOS[isa.HELPER_IDS[name]].result
        for proto in some:
            base, flags = proto.result
            assert _RESULTS[base] is result.kind, name
            assert ("PTR_MAYBE_NULL" in flags) == result.is_maybe_null, name
            assert ("PTR_TRUSTED" in flags) == result.is_trusted, name


def test_licence_sleep_and_speed(protos: dict[str, list[FuncProto]]) -> None:
    """Only for GPL programs is what is so in all kinds of programs; the same of sleeping."""
    for name, some in protos.items():
        row = HELPER_PROTOS[isa.HELPER_IDS[name]]
        assert row.is_gpl_only == all(proto.is_gpl_only for proto in some), name
        assert row.may_sleep == all(proto.might_sleep for proto in some), name
        assert row.is_fast == any(proto.allow_fastcall for proto in some), name


Argument = tuple[frozenset[ArgKind], bool, bool, bool, bool, int]


def _arguments(row: HelperProto) -> list[Argument]:
    """What a row says that the kernel does, too."""
    return [
        (
            frozenset(arg.kinds),
            arg.is_maybe_null,
            arg.is_read,
            arg.is_written,
            arg.is_released,
            arg.n_bytes,
        )
        for arg in row.args[: row.n_checked]
    ]


def _merged(protos: list[FuncProto]) -> list[Argument]:
    """What several prototypes say together."""
    out: list[Argument] = []
    for at in range(5):
        some = [(proto.args[at], proto.sizes[at]) for proto in protos]
        used = [(base, flags, size) for (base, flags), size in some if base != "ARG_DONTCARE"]
        if not used:
            break
        out.append(
            (
                frozenset(_ARGS[base] for base, _, _ in used),
                any("PTR_MAYBE_NULL" in flags or base == _OR_ZERO for base, flags, _ in used),
                any("MEM_UNINIT" not in flags for _, flags, _ in used),
                any("MEM_WRITE" in flags for _, flags, _ in used),
                any("OBJ_RELEASE" in flags for _, flags, _ in used),
                max(size for _, _, size in used),
            )
        )
    return out
