"""Helper calls on a map of one known kind, as calls of that kind's own functions.

Source: linux v6.18, kernel/bpf/verifier.c, do_misc_fixups(); the functions are
those in the maps' struct bpf_map_ops, read from what such a kernel writes.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.facts import MapType
from bpfpatch.facts.columns import CALL_MAP, MANY
from bpfpatch.facts.functions import function
from bpfpatch.facts.helpers import helpers_where
from bpfpatch.passes.search import groups
from bpfpatch.program.types import Insns, Mask, Slots

from .job import Job
from .maplookups import lookup_body

_ID: Final = isa.HELPER_IDS
LOOKUP: Final = _ID["map_lookup_elem"]
UPDATE: Final = _ID["map_update_elem"]
DELETE: Final = _ID["map_delete_elem"]
PUSH: Final = _ID["map_push_elem"]
POP: Final = _ID["map_pop_elem"]
PEEK: Final = _ID["map_peek_elem"]
REDIRECT: Final = _ID["redirect_map"]
FOR_EACH: Final = _ID["for_each_map_elem"]
LOOKUP_PERCPU: Final = _ID["map_lookup_percpu_elem"]

# A tail call stays one.
_HELPERS: Final = sorted(helpers_where(lambda proto: proto.keeps_map) - {_ID["tail_call"]})

_T = MapType
_ARRAY: Final = {UPDATE: "array_map_update_elem", DELETE: "array_map_delete_elem"}
_HASH: Final = {DELETE: "htab_map_delete_elem", FOR_EACH: "bpf_for_each_hash_elem"}
_LRU: Final = {DELETE: "htab_lru_map_delete_elem", FOR_EACH: "bpf_for_each_hash_elem"}
_QUEUE: Final = {PUSH: "queue_stack_map_push_elem"}

NAMES: Final[dict[MapType, dict[int, str]]] = {
    _T.ARRAY: {
        **_ARRAY,
        LOOKUP: "array_map_lookup_elem",
        FOR_EACH: "bpf_for_each_array_elem",
    },
    _T.PERCPU_ARRAY: {
        **_ARRAY,
        LOOKUP: "percpu_array_map_lookup_elem",
        LOOKUP_PERCPU: "percpu_array_map_lookup_percpu_elem",
        FOR_EACH: "bpf_for_each_array_elem",
    },
    _T.HASH: {**_HASH, LOOKUP: "htab_map_lookup_elem", UPDATE: "htab_map_update_elem"},
    _T.PERCPU_HASH: {
        **_HASH,
        LOOKUP: "htab_percpu_map_lookup_elem",
        UPDATE: "htab_percpu_map_update_elem",
        LOOKUP_PERCPU: "htab_percpu_map_lookup_percpu_elem",
    },
    _T.LRU_HASH: {**_LRU, LOOKUP: "htab_lru_map_lookup_elem", UPDATE: "htab_lru_map_update_elem"},
    _T.LRU_PERCPU_HASH: {
        **_LRU,
        LOOKUP: "htab_lru_percpu_map_lookup_elem",
        UPDATE: "htab_lru_percpu_map_update_elem",
        LOOKUP_PERCPU: "htab_lru_percpu_map_lookup_percpu_elem",
    },
    _T.LPM_TRIE: {
        LOOKUP: "trie_lookup_elem",
        UPDATE: "trie_update_elem",
        DELETE: "trie_delete_elem",
    },
    _T.DEVMAP: {LOOKUP: "dev_map_lookup_elem", REDIRECT: "dev_map_redirect"},
    _T.DEVMAP_HASH: {LOOKUP: "dev_map_hash_lookup_elem", REDIRECT: "dev_hash_map_redirect"},
    _T.CPUMAP: {REDIRECT: "cpu_map_redirect"},
    _T.XSKMAP: {LOOKUP: "xsk_map_lookup_elem", REDIRECT: "xsk_map_redirect"},
    _T.SOCKMAP: {
        LOOKUP: "sock_map_lookup",
        UPDATE: "sock_map_update_elem",
        DELETE: "sock_map_delete_elem",
    },
    _T.SOCKHASH: {
        LOOKUP: "sock_hash_lookup",
        UPDATE: "sock_map_update_elem",
        DELETE: "sock_hash_delete_elem",
    },
    _T.QUEUE: {**_QUEUE, POP: "queue_map_pop_elem", PEEK: "queue_map_peek_elem"},
    _T.STACK: {**_QUEUE, POP: "stack_map_pop_elem", PEEK: "stack_map_peek_elem"},
    _T.BLOOM_FILTER: {PUSH: "bloom_map_push_elem", PEEK: "bloom_map_peek_elem"},
}


def is_map_call(insns: Insns) -> Mask:
    """(n,) helper calls on maps, which are written otherwise for each kind of map."""
    found: Mask = isa.is_helper_call(insns) & np.isin(insns["imm"], _HELPERS)
    return found


def resolve_map_calls(job: Job) -> None:
    """Replace calls on one known map; one on several kinds stays a helper call.

    Raises:
        UnsupportedError: it is not known on which map, or that kind has no such function.
    """
    if job.setting.target.arch.word_bits != 64:
        return
    found: list[tuple[int, int, Slots]] = []
    for helper in _HELPERS:
        sites = job.calls_of(helper)
        if sites.size:
            by_map = groups(job.column(CALL_MAP, sites), sites)
            found += [(int(index), helper, some) for index, some in by_map if index != MANY]
    for index, helper, some in sorted(found, key=lambda one: one[:2]):
        _resolve(job, index, helper, some)


def _resolve(job: Job, index: int, helper: int, sites: Slots) -> None:
    """Calls of one helper on one map."""
    maps = job.subject.maps
    if not 0 <= index < len(maps):
        raise job.refuse(
            int(sites[0]),
            f"column {CALL_MAP!r} has {index} for it, and the subject {len(maps)} maps; the "
            "kernel writes another call for each kind of map",
        )
    map_ = maps[index]
    if helper == LOOKUP:
        written_out = lookup_body(map_, job.btf, job.setting.target.arch)
        if written_out is not None:
            job.replace(sites, written_out)
            return
    name = NAMES.get(map_.type, {}).get(helper)
    if name is None:
        raise job.refuse(
            int(sites[0]),
            f"no function of the kernel is known for bpf_{isa.HELPERS[helper]} on a "
            f"{map_.type.text} map",
        )
    job.modify(sites, imm=function(name))
