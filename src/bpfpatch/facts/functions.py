"""Functions of the kernel that are not helpers, but that the kernel itself puts calls of in.

In the kernel's own form a helper call has an address for its number. Addresses
are another on each machine: here a helper keeps its number, and each other
function has one above all helpers.
"""

from __future__ import annotations

from typing import Final

from bpfpatch.errors import OptionError

FIRST_FUNCTION: Final = 1 << 16

CORE_POISON: Final = 0xBAD2310
"""The helper that stands for what CO-RE did not find: it is refused where it is reached.

Source: libbpf v1.5, src/relo_core.c, bpf_core_poison_insn()."""

FUNCTIONS: Final = (
    "__htab_map_lookup_elem",
    "htab_map_update_elem",
    "htab_map_delete_elem",
    "array_map_lookup_elem",
    "array_map_update_elem",
    "array_map_delete_elem",
    "percpu_array_map_lookup_elem",
    "percpu_array_map_lookup_percpu_elem",
    "bpf_for_each_array_elem",
    "bpf_for_each_hash_elem",
    "htab_map_lookup_elem",
    "htab_percpu_map_lookup_elem",
    "htab_percpu_map_update_elem",
    "htab_percpu_map_lookup_percpu_elem",
    "htab_lru_map_lookup_elem",
    "htab_lru_map_update_elem",
    "htab_lru_map_delete_elem",
    "htab_lru_percpu_map_lookup_elem",
    "htab_lru_percpu_map_update_elem",
    "htab_lru_percpu_map_lookup_percpu_elem",
    "trie_lookup_elem",
    "trie_update_elem",
    "trie_delete_elem",
    "dev_map_lookup_elem",
    "dev_map_redirect",
    "dev_map_hash_lookup_elem",
    "dev_hash_map_redirect",
    "cpu_map_redirect",
    "xsk_map_lookup_elem",
    "xsk_map_redirect",
    "sock_map_lookup",
    "sock_map_update_elem",
    "sock_map_delete_elem",
    "sock_hash_lookup",
    "sock_hash_delete_elem",
    "queue_stack_map_push_elem",
    "queue_map_pop_elem",
    "queue_map_peek_elem",
    "stack_map_pop_elem",
    "stack_map_peek_elem",
    "bloom_map_push_elem",
    "bloom_map_peek_elem",
    "bpf_skb_load_helper_8_no_cache",
    "bpf_skb_load_helper_16_no_cache",
    "bpf_skb_load_helper_32_no_cache",
    "arch_bpf_timed_may_goto",
    "perf_snapshot_branch_stack",
)
"""Names as in /proc/kallsyms; appended to, never reordered."""

_NUMBER: Final = {name: FIRST_FUNCTION + index for index, name in enumerate(FUNCTIONS)}


def function(name: str) -> int:
    """The number of a function, for a call's immediate.

    Raises:
        OptionError: it is none of `FUNCTIONS`.
    """
    if name not in _NUMBER:
        raise OptionError(f"no number is known for the kernel's function {name!r}")
    return _NUMBER[name]


def function_name(number: int) -> str | None:
    """The name for a number, or None."""
    index = number - FIRST_FUNCTION
    return FUNCTIONS[index] if 0 <= index < len(FUNCTIONS) else None
