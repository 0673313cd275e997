"""What an iterator's program gets beside its meta data, and how far it may rely on that.

Source: linux v6.18, the ``ctx_arg_info`` that each iterator registers: facts that the
prototypes of the ``bpf_iter_*`` functions do not show; seen on v6.18.44.
"""

from __future__ import annotations

from typing import Final

_TRUSTED_OR_NULL: Final = frozenset(
    {
        ("bpf_iter_bpf_map", "map"),
        ("bpf_iter_cgroup", "cgroup"),
        ("bpf_iter_kmem_cache", "s"),
        ("bpf_iter_task", "task"),
        ("bpf_iter_tcp", "sk_common"),
        ("bpf_iter_udp", "udp_sk"),
    }
)
# Iterators over one map's elements: that map is always there.
_OVER_A_MAP: Final = frozenset(
    {"bpf_iter_bpf_map_elem", "bpf_iter_bpf_sk_storage_map", "bpf_iter_sockmap"}
)


def of_iterator(function: str, param: str) -> tuple[bool, bool]:
    """Whether a pointer to a struct of the kernel is trusted, and whether it may be null.

    Args:
        function: what the program attaches to: ``bpf_iter_`` and the iterator's name.
        param: the parameter's name.
    """
    if param == "meta" or (param == "map" and function in _OVER_A_MAP):
        return True, False
    return (function, param) in _TRUSTED_OR_NULL, True
