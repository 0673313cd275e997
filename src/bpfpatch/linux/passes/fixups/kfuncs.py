"""Calls of kernel functions by type id: those that are written out, or get more arguments.

============================================ =======================================
function                                     becomes
============================================ =======================================
bpf_cast_to_kern_ctx, bpf_rdonly_cast        ``r0 = r1``
bpf_obj_new_impl, bpf_percpu_obj_new_impl    r1 = the type's size, r2 = its record
bpf_obj_drop_impl, bpf_percpu_obj_drop_impl, r2 = the type's record
bpf_refcount_acquire_impl
bpf_list_push_front_impl, .._back_impl       r3 = the record, r4 = the node's place
bpf_rbtree_add_impl                          r4 = the record, r5 = the node's place
one with a parameter ``..__prog``            that one = the program's struct bpf_prog_aux
bpf_dynptr_from_skb                          its read-only form, where packets may not
                                             be written
============================================ =======================================

All others stay. A record says what is special in a type; only the kernel
knows where it is.

Source: linux v6.18, kernel/bpf/verifier.c, fixup_kfunc_call() and
specialize_kfunc(), compared with what such a kernel makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import DeclTag, Func, FuncProto, Kind, Struct
from bpfpatch.facts import ProgFlag, ProgType
from bpfpatch.isa import R0, R1, R2, R3, R4, R5, Reg
from bpfpatch.passes.addresses import Address
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Insns, Slots

from .job import ORIG, Job, body
from .symbols import kfunc_calls

_CASTS: Final = ("bpf_cast_to_kern_ctx", "bpf_rdonly_cast")
_NEW: Final = ("bpf_obj_new_impl", "bpf_percpu_obj_new_impl")
_DROP: Final = ("bpf_obj_drop_impl", "bpf_percpu_obj_drop_impl", "bpf_refcount_acquire_impl")
_LIST: Final = ("bpf_list_push_front_impl", "bpf_list_push_back_impl")
_TREE: Final = ("bpf_rbtree_add_impl",)
_FROM_SKB: Final = "bpf_dynptr_from_skb"

_PROG_SUFFIX: Final = "__prog"
_CONTAINS: Final = "contains:"

_WRITE_PACKETS: Final = (
    ProgType.SCHED_CLS,
    ProgType.SCHED_ACT,
    ProgType.XDP,
    ProgType.LWT_XMIT,
    ProgType.SK_SKB,
    ProgType.SK_MSG,
    ProgType.CGROUP_SOCKOPT,
)
"""Source: linux v6.18, kernel/bpf/verifier.c, may_access_direct_pkt_data()."""

_LOCKED: Final = ("bpf_set_dentry_xattr", "bpf_remove_dentry_xattr")
_XDP_METADATA: Final = "bpf_xdp_metadata_"


def fix_kfunc_calls(job: Job) -> None:
    """Rewrite the calls in the table above.

    Raises:
        UnsupportedError: what has to be put in cannot be told.
    """
    for sites, name in kfunc_calls(job):
        _refuse_specialized(job, sites, name)
        fix = _FIXES.get(name)
        if fix is not None:
            fix(job, sites)
            continue
        regno = _prog_argument(job, int(job.insns["imm"][sites[0]]))
        if regno is not None:
            first = job.replace(sites, body(isa.ld_imm64(regno, 0), ORIG))
            job.note_address(first, Address.PROG_AUX)


def _refuse_specialized(job: Job, sites: Slots, name: str) -> None:
    """Functions of which the kernel may take another one, by what is not known here."""
    if name in _LOCKED and job.subject.prog_type == ProgType.LSM:
        raise job.refuse(
            int(sites[0]), f"which form of {name} is called depends on the hook: not supported"
        )
    is_bound = job.subject.flags & ProgFlag.XDP_DEV_BOUND_ONLY
    if name.startswith(_XDP_METADATA) and is_bound:
        raise job.refuse(
            int(sites[0]), f"{name} is the driver's own function in a program bound to a device"
        )


def _prog_argument(job: Job, type_id: int) -> Reg | None:
    """The argument that is the program itself, if a function has one."""
    func = job.btf.type(type_id)
    proto = job.btf.type(func.type_id) if isinstance(func, Func) else None
    if not isinstance(proto, FuncProto):
        return None
    for index, param in enumerate(proto.params):
        if param.name.endswith(_PROG_SUFFIX):
            return Reg(R1 + index)
    return None


def _cast(job: Job, sites: Slots) -> None:
    job.replace(sites, body(isa.mov(R0, R1)))


def _new(job: Job, sites: Slots) -> None:
    for site in sites:
        type_id = constant_in(job.view, int(site), R1)
        if type_id is None or job.subject.btf is None:
            raise job.refuse(
                int(site),
                "the size of the new object is not known: give the program's types, and its "
                "type's id in R1 by a constant right in front of the call",
            )
        size = job.subject.btf.size_of(type_id)
        one = job.replace(site[None], body(isa.mov(R1, size), isa.ld_imm64(R2, 0), ORIG))
        job.note_address(one + 1, Address.STRUCT_META)


def _drop(job: Job, sites: Slots) -> None:
    first = job.replace(sites, body(isa.ld_imm64(R2, 0), ORIG))
    job.note_address(first, Address.STRUCT_META)


def _push(job: Job, sites: Slots) -> None:
    _insert(job, sites, "bpf_list_node", R3, R4)


def _add(job: Job, sites: Slots) -> None:
    _insert(job, sites, "bpf_rb_node", R4, R5)


def _insert(job: Job, sites: Slots, node: str, meta: Reg, place: Reg) -> None:
    places = _node_places(job, node)
    if len(places) != 1:
        raise job.refuse(
            int(sites[0]),
            f"the program's types have {len(places)} places of a {node} in what a collection "
            "contains; which one this call means is not known",
        )
    new = body(isa.ld_imm64(meta, 0), isa.mov(place, places.pop()), ORIG)
    job.note_address(job.replace(sites, new), Address.STRUCT_META)


def _node_places(job: Job, node: str) -> set[int]:
    """Bytes from the start of an object to its node, of all that collections contain."""
    btf = job.subject.btf
    places: set[int] = set()
    if btf is None:
        return places
    for type_id in np.flatnonzero(btf.kinds == Kind.DECL_TAG).tolist():
        tag = btf.type(type_id)
        if not isinstance(tag, DeclTag) or not tag.name.startswith(_CONTAINS):
            continue
        struct, _, member = tag.name.removeprefix(_CONTAINS).partition(":")
        owner = btf.find_one(struct, Kind.STRUCT)
        found = btf.type(owner) if owner is not None else None
        for one in found.members if isinstance(found, Struct) else ():
            if one.name == member and btf.name_of(btf.resolve(one.type_id)) == node:
                places.add(one.bit_off // 8)
    return places


def _from_skb(job: Job, sites: Slots) -> None:
    if job.subject.prog_type in _WRITE_PACKETS:
        return
    name = f"{_FROM_SKB}_rdonly"
    type_id = job.btf.find_one(name, Kind.FUNC)
    if type_id is None:
        raise job.refuse(int(sites[0]), f"the kernel's types have no function {name}")
    job.modify(sites, imm=type_id)


_FIXES: Final[dict[str, Callable[[Job, Slots], None]]] = {
    **dict.fromkeys(_CASTS, _cast),
    **dict.fromkeys(_NEW, _new),
    **dict.fromkeys(_DROP, _drop),
    **dict.fromkeys(_LIST, _push),
    **dict.fromkeys(_TREE, _add),
    _FROM_SKB: _from_skb,
}


# A register's constant, as the code right in front of an instruction shows it.

_MOV_IMM = (0xB4, 0xB7)  # w = imm, r = imm


def constant_in(view: CodeView, slot: int, reg: Reg) -> int | None:
    """What a register holds when an instruction runs, where that is one constant.

    Looks back over straight-line code; a jump into it, or anything but a move
    of a constant into the register, ends the search.

    Returns:
        The constant, or None.
    """
    first = int(view.starts[int(view.subprog_of(np.array([slot], np.int32))[0])])
    near = view.insns[first : slot + 1]
    is_target = np.zeros(len(near), bool)
    targets = view.ref_target - first
    is_target[targets[(targets >= 0) & (targets < len(near))]] = True
    writes = isa.writes(near) >> reg & 1
    ends = ~isa.falls_through(near) & ~isa.second_slots(near)
    for at in range(len(near) - 1, 0, -1):
        if is_target[at] or ends[at - 1]:
            return None
        if writes[at - 1]:
            return _moved(near, at - 1, reg)
    return None


def _moved(insns: Insns, slot: int, reg: Reg) -> int | None:
    """The constant that an instruction puts into a register, if it does."""
    if isa.dst(insns)[slot] != reg:
        return None
    code, imm = int(insns["code"][slot]), int(insns["imm"][slot])
    if code == isa.LD_IMM64 and isa.src(insns)[slot] == isa.Pseudo.NUMBER:
        return int(insns["imm"][slot + 1]) << 32 | imm & 0xFFFFFFFF
    return imm if code in _MOV_IMM else None
