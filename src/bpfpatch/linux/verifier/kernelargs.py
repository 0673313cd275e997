"""Arguments of tracepoints and iterators that may be null, or an error instead of a pointer.

Source: linux v6.18, kernel/bpf/btf.c, raw_tp_null_args[]: facts about tracepoints
that their prototypes do not show.
"""

from __future__ import annotations

from typing import Final

# Name and hexadecimal mask, four bits an argument: 1 is "may be null", 2 is "may be an error".
_MASKS: Final = """
sched_pi_setprio 10 sched_stick_numa 100 sched_swap_numa 100 afs_make_fs_call 10
afs_make_fs_calli 10 afs_make_fs_call1 10 afs_make_fs_call2 10 afs_protocol_error 1
afs_flock_ev 10 cachefiles_lookup 201 cachefiles_unlink 1 cachefiles_rename 1
cachefiles_prep_read 1 cachefiles_mark_active 1 cachefiles_mark_failed 1
cachefiles_mark_inactive 1 cachefiles_vfs_error 1 cachefiles_io_error 1
cachefiles_ondemand_open 1 cachefiles_ondemand_copen 1 cachefiles_ondemand_close 1
cachefiles_ondemand_read 1 cachefiles_ondemand_cread 1 cachefiles_ondemand_fd_write 1
cachefiles_ondemand_fd_release 1 ext4_mballoc_discard 10 ext4_mballoc_free 10
fib_table_lookup 100 posix_lock_inode 10 fcntl_setlk 10 locks_remove_posix 10
flock_lock_inode 10 break_lease_noblock 10 break_lease_block 10 break_lease_unblock 10
generic_delete_lease 10 time_out_leases 10 host1x_cdma_push_gather 10000
mm_khugepaged_scan_pmd 10 mm_collapse_huge_page_isolate 1 mm_khugepaged_scan_file 10
mm_khugepaged_collapse_file 10 mm_page_alloc 1 mm_page_pcpu_drain 1
mm_page_alloc_zone_locked 1 netfs_failure 10 device_pm_callback_start 10 qdisc_dequeue 1000
rxrpc_recvdata 1 rxrpc_resend 10 rxrpc_tq 10 rxrpc_client 1 kfree_skb 1000
xs_stream_read_data 1 xprt_reserve_cong 10 xprt_release_cong 10 xprt_get_cong 10
xprt_put_cong 10 tcp_send_reset 11 tcp_sendmsg_locked 100 tegra_dma_tx_status 100
tmigr_update_events 1 writeback_dirty_folio 10 folio_wait_writeback 10 mr_integ_alloc 2000
bpf_testmod_test_read 0 amdgpu_vm_bo_map 1 amdgpu_vm_bo_unmap 1 netfs_folioq 1
xfs_defer_create_intent 1 xfs_defer_cancel_list 1 xfs_defer_pending_finish 1
xfs_defer_pending_abort 1 xfs_defer_relog_intent 1 xfs_defer_isolate_paused 1
xfs_defer_item_pause 1 xfs_defer_item_unpause 1 xfs_defer_add_item 1 xfs_defer_cancel_item 1
xfs_defer_finish_item 1 xfs_ioc_free_eofblocks 10 xfs_blockgc_free_space 10
xfs_btree_updkeys 100 xfs_btree_overlapped_query_range 100 xfs_map_blocks_found 10000
xfs_map_blocks_alloc 10000 xfs_iomap_alloc 1000 xfs_iomap_found 1000 xfs_inodegc_flush 1
xfs_inodegc_push 1 xfs_inodegc_start 1 xfs_inodegc_stop 1 xfs_inodegc_queue 1
xfs_inodegc_throttle 1 xfs_fs_sync_fs 1 xfs_blockgc_start 1 xfs_blockgc_stop 1
xfs_blockgc_worker 1 xfs_blockgc_flush_all 1 xchk_nlinks_live_update 10
xchk_metapath_lookup 100 nfsd_dirent 1 nfsd_file_acquire 1001 nfsd_file_insert_err 1
nfsd_file_cons_err 1 nfs4_setup_sequence 1 pnfs_update_layout 10000
nfs4_inode_callback_event 200 nfs4_inode_stateid_callback_event 200
pnfs_mds_fallback_pg_init_read 10000 pnfs_mds_fallback_pg_init_write 10000
pnfs_mds_fallback_pg_get_mirror_count 10000 pnfs_mds_fallback_read_done 10000
pnfs_mds_fallback_write_done 10000 pnfs_mds_fallback_read_pagelist 10000
pnfs_mds_fallback_write_pagelist 10000 coda_dec_pic_run 10 coda_dec_pic_done 10
cfg80211_scan_done 11 rdev_set_coalesce 10 cfg80211_report_wowlan_wakeup 100
cfg80211_inform_bss_frame 100 cfg80211_michael_mic_failure 10000 wiphy_work_queue 10
wiphy_work_run 10 wiphy_work_cancel 10 wiphy_work_flush 10 hugetlbfs_alloc_inode 10
spufs_context 10 kvm_page_fault_enter 100 dpu_crtc_setup_mixer 100 binder_transaction 100
btree_path_free 100 hfi1_sdma_progress 1000 iptfs_ingress_postq_event 1000 neigh_update 10
amdtp_packet 100
"""

_WORDS: Final = _MASKS.split()
_MASK_OF: Final = {
    name: int(mask, 16) for name, mask in zip(_WORDS[::2], _WORDS[1::2], strict=True)
}


def may_be_null(tracepoint: str, arg: int) -> bool:
    """Whether a tracepoint's argument, counted from 0, may be null."""
    return bool(_MASK_OF.get(tracepoint, 0) >> 4 * arg & 1)


def may_be_error(tracepoint: str, arg: int) -> bool:
    """Whether it may be an error number in place of a pointer."""
    return bool(_MASK_OF.get(tracepoint, 0) >> 4 * arg & 2)


# What an iterator's program gets beside its meta data, and how far it may rely on that.
#
# Source: linux v6.18, the ``ctx_arg_info`` that each iterator registers: facts that the
# prototypes of the ``bpf_iter_*`` functions do not show; seen on v6.18.44.

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
