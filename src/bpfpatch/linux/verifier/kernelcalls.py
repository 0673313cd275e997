"""Calls of kernel functions by their BTF id (kfuncs).

Which flags such a function has is not in the types: those that matter are listed.

Source: linux v6.18, kernel/bpf/verifier.c, check_kfunc_call(), and the
BTF_ID_FLAGS() lists, in kernel/bpf/helpers.c above all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpfpatch.btf.types import Ptr
from bpfpatch.facts.columns import MemType

from .scalars import UNKNOWN, Value
from .state import VerifierState
from .values import FUNC, RCU, TRUSTED, UNTRUSTED, is_pointer, pointer

if TYPE_CHECKING:
    from .absint import Interpreter
    from .calls import VerifierCalls

_NO_RETURN: Final = "bpf_throw"
_RELEASES: Final = frozenset(
    {
        "bpf_obj_drop_impl", "bpf_percpu_obj_drop_impl", "bpf_task_release", "bpf_cgroup_release",
        "bpf_cpumask_release", "bpf_ct_release", "bpf_key_put", "bpf_put_file",
        "bpf_list_push_front_impl", "bpf_list_push_back_impl", "bpf_rbtree_add_impl",
        "bpf_skb_ct_release", "scx_bpf_put_cpumask", "scx_bpf_put_idle_cpumask",
        "bpf_crypto_ctx_release",
    }
)  # fmt: skip
_ALLOCATES: Final = frozenset(
    {"bpf_obj_new_impl", "bpf_percpu_obj_new_impl", "bpf_refcount_acquire_impl"}
)
_GRAPH: Final = frozenset(
    {
        "bpf_list_pop_front", "bpf_list_pop_back", "bpf_rbtree_remove", "bpf_rbtree_first",
        "bpf_list_front", "bpf_list_back", "bpf_rbtree_root", "bpf_rbtree_left", "bpf_rbtree_right",
    }
)  # fmt: skip
_NEVER_NULL: Final = frozenset(
    {
        "bpf_cast_to_kern_ctx", "bpf_rdonly_cast", "scx_bpf_get_possible_cpumask",
        "scx_bpf_get_online_cpumask", "scx_bpf_get_idle_cpumask", "scx_bpf_get_idle_smtmask",
        "bpf_get_root_mem_cgroup", "scx_bpf_dispatch_nr_slots",
    }
)  # fmt: skip
_ACQUIRES: Final = (
    "_acquire", "_create", "_alloc", "_lookup", "_from_pid", "_from_id", "_from_vpid", "_ancestor",
    "_get_task_exe_file", "_get_cgroup1", "_get_possible_cpumask", "_get_online_cpumask",
    "_get_idle_cpumask", "_get_idle_smtmask", "_key",
)  # fmt: skip
_DYNPTR_BYTES: Final = 16


class KernelCalls:
    """What calls of kernel functions do to a state.

    Args:
        owner: the analysis.
        calls: what they share with other calls.
    """

    def __init__(self, owner: Interpreter, calls: VerifierCalls) -> None:
        self._owner = owner
        self._calls = calls

    def call(self, slot: int, state: VerifierState) -> bool:
        """One call; False where it does not return."""
        owner = self._owner
        types = owner.types
        type_id = owner.code.imm[slot]
        name = types.name(type_id) if owner.code.off[slot] == 0 else ""
        if name == _NO_RETURN:
            return False
        regs = state.regs
        self._touch(type_id, state)
        for value in regs[1:6]:
            owner.may_call(state, value)
            if is_pointer(value) and value[0] == FUNC:
                owner.enter_root(value[1], [None] * 10)
        result = self._result(name, type_id, state)
        if name in _RELEASES and is_pointer(regs[1]) and regs[1][6]:
            state.own_callers()
            state.replace(regs[1][6], 6, UNKNOWN)
        if name == "bpf_rcu_read_unlock":
            self._untrust(state)
        self._calls.clear(state, result)
        return True

    def _touch(self, type_id: int, state: VerifierState) -> None:
        """What it may write: memory that the pointers lead to that it takes."""
        types = self._owner.types
        proto = types.prototype(type_id)
        params = proto.params if proto is not None else ()
        for register in range(1, 6):
            size: Value = None
            if register <= len(params):
                target = types.pointee(params[register - 1].type_id)
                size = types.size(target[0]) if target is not None else 0
                following = params[register].name if register < len(params) else ""
                if following.endswith(("__sz", "__szk")):
                    size = state.regs[register + 1] if register < 5 else None
                elif target is not None and not size:
                    size = _DYNPTR_BYTES
            elif proto is not None:
                continue
            self._calls.overwrite(state, state.regs[register], size)

    def _result(self, name: str, type_id: int, state: VerifierState) -> Value:  # noqa: PLR0911 - one way out for each kind
        owner = self._owner
        types = owner.types
        proto = types.prototype(type_id)
        if proto is None:
            return None
        if not isinstance(types.type(types.resolve(proto.type_id)), Ptr):
            return UNKNOWN
        ident = owner.fresh()
        if name in _ALLOCATES or name in _GRAPH:
            obj = owner.fresh()
            return pointer(MemType.ALLOC, 0, 0, ident, is_maybe_null=True, obj=obj)
        if name == "bpf_cast_to_kern_ctx":
            return pointer(MemType.BTF_ID, owner.kernel_context(), trust=TRUSTED)
        if name == "bpf_rdonly_cast":
            wanted = state.regs[2]
            ref = wanted if isinstance(wanted, int) else 0
            kind = MemType.BTF_ID if types.is_struct(ref) else MemType.MEM
            return pointer(kind, ref, trust=UNTRUSTED)
        if name.startswith("bpf_arena_"):
            return UNKNOWN
        target = types.pointee(proto.type_id)
        is_null = name not in _NEVER_NULL
        if target is None or not target[1]:
            return pointer(MemType.MEM, 0, 0, ident, is_maybe_null=is_null)
        obj = owner.fresh() if name.endswith(_ACQUIRES) else 0
        trust = RCU if name.startswith("bpf_iter_css") else 0
        return pointer(
            MemType.BTF_ID, target[0], 0, ident, is_maybe_null=is_null, obj=obj, trust=trust
        )

    def _untrust(self, state: VerifierState) -> None:
        """Pointers that were good within a read-side section are not any more."""
        state.own_callers()
        state.replace(RCU, 7, lambda value: (*value[:7], UNTRUSTED))
