"""Contexts as tables: what a load or store of each field really is."""

from . import cgroup, perf, sk_msg, sk_select, skb, sock, sock_addr, sock_ops, xdp
from .access import Access, Converter
from .registry import context, context_of, contexts, register_context
from .table import WORD, ContextField, ContextTable

__all__ = [
    "WORD",
    "Access",
    "ContextField",
    "ContextTable",
    "Converter",
    "cgroup",
    "context",
    "context_of",
    "contexts",
    "perf",
    "register_context",
    "sk_msg",
    "sk_select",
    "skb",
    "sock",
    "sock_addr",
    "sock_ops",
    "xdp",
]
