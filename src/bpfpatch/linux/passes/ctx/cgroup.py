"""bpf_sysctl and bpf_sockopt.

Source: linux v6.18, kernel/bpf/cgroup.c, sysctl_convert_ctx_access() and
cg_sockopt_convert_ctx_access().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts import ProgType
from bpfpatch.facts.contexts import SOCKOPT_AT, SYSCTL_AT

from .registry import register_context
from .table import ContextField, ContextTable

_SYSCTL: Final = "bpf_sysctl_kern"
_SOCKOPT: Final = "bpf_sockopt_kern"

SYSCTL: Final = register_context(
    ContextTable(
        "bpf_sysctl",
        (
            ContextField("write", *SYSCTL_AT["write"], f"{_SYSCTL}.write", is_narrow=True),
            # The kernel's has 8 bytes; programs see the lower 4.
            ContextField(
                "file_pos",
                *SYSCTL_AT["file_pos"],
                f"dst = src->{_SYSCTL}.ppos; little? dst = dst->0:4; big? dst = dst->4:4",
                f"""
                dst->{_SYSCTL}.tmp_reg = tmp
                tmp = dst->{_SYSCTL}.ppos
                little? tmp->0:4 = val
                big? tmp->4:4 = val
                tmp = dst->{_SYSCTL}.tmp_reg
                """,
                is_narrow=True,
            ),
        ),
        uapi="struct bpf_sysctl",
        is_internal=True,
    ),
    [ProgType.CGROUP_SYSCTL],
)

SOCKOPT: Final = register_context(
    ContextTable(
        "bpf_sockopt",
        (
            ContextField("sk", *SOCKOPT_AT["sk"], f"{_SOCKOPT}.sk"),
            ContextField("optval", *SOCKOPT_AT["optval"], f"{_SOCKOPT}.optval"),
            ContextField("optval_end", *SOCKOPT_AT["optval_end"], f"{_SOCKOPT}.optval_end"),
            ContextField("level", *SOCKOPT_AT["level"], f"{_SOCKOPT}.level", f"{_SOCKOPT}.level"),
            ContextField(
                "optname", *SOCKOPT_AT["optname"], f"{_SOCKOPT}.optname", f"{_SOCKOPT}.optname"
            ),
            ContextField(
                "optlen", *SOCKOPT_AT["optlen"], f"{_SOCKOPT}.optlen", f"{_SOCKOPT}.optlen"
            ),
            ContextField(
                "retval",
                *SOCKOPT_AT["retval"],
                f"{_SOCKOPT}.current_task -> task_struct.bpf_ctx -> bpf_cg_run_ctx.retval",
                f"""
                dst->{_SOCKOPT}.tmp_reg = tmp
                tmp = dst->{_SOCKOPT}.current_task
                tmp = tmp->task_struct.bpf_ctx
                tmp->bpf_cg_run_ctx.retval = val
                tmp = dst->{_SOCKOPT}.tmp_reg
                """,
            ),
        ),
        uapi="struct bpf_sockopt",
        is_internal=True,
    ),
    [ProgType.CGROUP_SOCKOPT],
)
