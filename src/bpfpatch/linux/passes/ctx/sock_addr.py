"""bpf_sock_addr.

Source: linux v6.18, net/core/filter.c, sock_addr_convert_ctx_access().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts import ProgType
from bpfpatch.facts.contexts import SOCK_ADDR_AT

from .registry import register_context
from .table import ContextField, ContextTable

KERN: Final = "bpf_sock_addr_kern"


def _through(pointer: str, member: str) -> tuple[str, str]:
    """Forms that load and store through a pointer in the context.

    A store needs a register of its own: it borrows one, and keeps what was in
    it in the context meanwhile.
    """
    return (
        f"{KERN}.{pointer} -> {member}",
        f"""
        dst->{KERN}.tmp_reg = tmp
        tmp = dst->{KERN}.{pointer}
        tmp->{member}@ = val
        tmp = dst->{KERN}.tmp_reg
        """,
    )


def _ip4(name: str, pointer: str, member: str) -> ContextField:
    return ContextField(
        name, *SOCK_ADDR_AT[name], *_through(pointer, member), is_narrow=True, is_sized=True
    )


def _ip6(name: str, pointer: str, member: str) -> ContextField:
    forms = _through(pointer, member)
    return ContextField(
        name, *SOCK_ADDR_AT[name], *forms, unit=4, is_narrow=True, wide=8, is_sized=True
    )


def _sock(name: str, member: str) -> ContextField:
    return ContextField(name, *SOCK_ADDR_AT[name], f"{KERN}.sk -> {member}", is_narrow=True)


SOCK_ADDR: Final = register_context(
    ContextTable(
        "bpf_sock_addr",
        (
            ContextField(
                "user_family",
                *SOCK_ADDR_AT["user_family"],
                f"{KERN}.uaddr -> sockaddr.sa_family",
                is_narrow=True,
            ),
            _ip4("user_ip4", "uaddr", "sockaddr_in.sin_addr"),
            _ip6("user_ip6", "uaddr", "sockaddr_in6.sin6_addr"),
            # IPv4 has its port in the same place.
            ContextField(
                "user_port",
                *SOCK_ADDR_AT["user_port"],
                *_through("uaddr", "sockaddr_in6.sin6_port"),
                is_narrow=True,
            ),
            _sock("family", "sock_common.skc_family"),
            _sock("type", "sock.sk_type"),
            _sock("protocol", "sock.sk_protocol"),
            _ip4("msg_src_ip4", "t_ctx", "in_addr.s_addr"),
            _ip6("msg_src_ip6", "t_ctx", "in6_addr.in6_u"),
            ContextField("sk", *SOCK_ADDR_AT["sk"], f"{KERN}.sk"),
        ),
        uapi="struct bpf_sock_addr",
        is_internal=True,
    ),
    [ProgType.CGROUP_SOCK_ADDR],
)
