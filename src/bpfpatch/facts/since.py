"""From which kernel version on things are there: kinds of maps, of programs, instructions.

Helpers say that themselves, see `bpfpatch.facts.helpers`.

Source: the versions in which the members of enum bpf_map_type and enum bpf_prog_type came into
include/uapi/linux/bpf.h, and the instructions into kernel/bpf/verifier.c. All 33 kinds of maps,
32 of programs and 211 helpers were compared with two independent lists (ebpf-docs of Isovalent,
data/feature-versions.yaml; bcc, docs/kernel-versions.md).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from .kinds import MapType, ProgType

Version = tuple[int, int]

_MAPS: Final = """
3.19: hash array
4.2: prog_array
4.3: perf_event_array
4.6: percpu_hash percpu_array stack_trace
4.8: cgroup_array
4.10: lru_hash lru_percpu_hash
4.11: lpm_trie
4.12: array_of_maps hash_of_maps
4.14: devmap sockmap
4.15: cpumap
4.18: xskmap sockhash
4.19: cgroup_storage reuseport_sockarray
4.20: percpu_cgroup_storage queue stack
5.2: sk_storage
5.4: devmap_hash
5.6: struct_ops
5.8: ringbuf
5.10: inode_storage
5.11: task_storage
5.16: bloom_filter
6.1: user_ringbuf
6.2: cgrp_storage
6.9: arena
"""

_PROGRAMS: Final = """
3.19: socket_filter
4.1: kprobe sched_cls sched_act
4.7: tracepoint
4.8: xdp
4.9: perf_event
4.10: cgroup_skb cgroup_sock lwt_in lwt_out lwt_xmit
4.13: sock_ops
4.14: sk_skb
4.15: cgroup_device
4.17: sk_msg raw_tracepoint cgroup_sock_addr
4.18: lwt_seg6local lirc_mode2
4.19: sk_reuseport
4.20: flow_dissector
5.2: cgroup_sysctl raw_tracepoint_writable
5.3: cgroup_sockopt
5.5: tracing
5.6: struct_ops ext
5.7: lsm
5.9: sk_lookup
5.14: syscall
6.4: netfilter
"""

_INSNS: Final = """
4.14: jlt jle jslt jsle
4.16: call_subprog
5.1: jeq32 jgt32 jge32 jset32 jne32 jsgt32 jsge32 jlt32 jle32 jslt32 jsle32
5.2: ld_map_value
5.10: ld_btf_id
5.12: atomic_or atomic_and atomic_xor atomic_fetch xchg cmpxchg
5.13: call_kfunc ld_func
5.14: ld_map_idx ld_map_idx_value
6.6: movsx ldsx bswap sdiv smod gotol
6.9: may_goto addr_space_cast
6.15: load_acquire store_release
6.19: gotox
"""
"""Beginnings of names in the opcode table; 32-bit arithmetic is there from the start."""


def read_versions(text: str) -> dict[str, Version]:
    """Names by version, a line ``6.1: name name`` each."""
    out: dict[str, Version] = {}
    for line in text.strip().splitlines():
        version, _, names = line.partition(": ")
        major, minor = version.split(".")
        out |= dict.fromkeys(names.split(), (int(major), int(minor)))
    return out


MAP_TYPE_SINCE: Final = MappingProxyType(
    {MapType.of(name): since for name, since in read_versions(_MAPS).items()}
)
"""The first version with each kind of map."""

PROG_TYPE_SINCE: Final = MappingProxyType(
    {ProgType.of(name): since for name, since in read_versions(_PROGRAMS).items()}
)
"""The first version with each kind of program."""

INSN_SINCE: Final = MappingProxyType(read_versions(_INSNS))
"""The first version with instructions whose name begins so."""

STACK_ARGS_SINCE: Final[Version] = (7, 2)
"""The first version with arguments beyond the fifth, see `bpfpatch.isa.stack_args`."""

FIRST: Final[Version] = (3, 18)
"""The first version with bpf(2)."""


def insn_since(name: str) -> Version:
    """The first version with an instruction, by its name in the opcode table."""
    family = name.partition("_imm")[0].partition("_reg")[0]
    if family in INSN_SINCE:
        return INSN_SINCE[family]
    found = [since for known, since in INSN_SINCE.items() if _is_of(name, known)]
    return max(found, default=FIRST)


def _is_of(name: str, known: str) -> bool:
    return name.startswith(known) and not known.startswith("j")
