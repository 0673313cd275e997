"""From which kernel version on there are kernel functions that programs may call (kfuncs).

They are no part of the UAPI: a later kernel may have changed or dropped one. Those of single
drivers and of congestion control are named as far as programs call them.

Source: the versions in which BTF_ID_FLAGS(func, ...) of each name came into a set that is given to
register_btf_kfunc_id_set(), as the eBPF documentation gathers them (docs.ebpf.io, kfuncs).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from .since import Version, read_versions

_SINCE: Final = """
5.13: bbr_init bbr_main bbr_sndbuf_expand bbr_undo_cwnd bbr_cwnd_event bbr_ssthresh
5.13: bbr_min_tso_segs bbr_set_state cubictcp_init cubictcp_recalc_ssthresh
5.13: cubictcp_cong_avoid cubictcp_state cubictcp_cwnd_event cubictcp_acked dctcp_init
5.13: dctcp_update_alpha dctcp_cwnd_event dctcp_ssthresh dctcp_cwnd_undo dctcp_state
5.13: tcp_reno_ssthresh tcp_reno_cong_avoid tcp_reno_undo_cwnd tcp_slow_start
5.13: tcp_cong_avoid_ai
5.18: bpf_xdp_ct_lookup bpf_skb_ct_lookup bpf_ct_release
6.0: bpf_xdp_ct_alloc bpf_skb_ct_alloc bpf_ct_insert_entry bpf_ct_set_timeout
6.0: bpf_ct_change_timeout bpf_ct_set_status bpf_ct_change_status
6.1: cgroup_rstat_updated cgroup_rstat_flush bpf_lookup_user_key bpf_lookup_system_key
6.1: bpf_key_put bpf_verify_pkcs7_signature crash_kexec bpf_ct_set_nat_info
6.2: bpf_obj_new_impl bpf_obj_drop_impl bpf_list_pop_front bpf_list_pop_back
6.2: bpf_task_acquire bpf_task_release bpf_cgroup_acquire bpf_cgroup_release
6.2: bpf_cgroup_ancestor bpf_task_from_pid bpf_cast_to_kern_ctx bpf_rdonly_cast
6.2: bpf_rcu_read_lock bpf_rcu_read_unlock bpf_skb_get_xfrm_info bpf_skb_set_xfrm_info
6.3: bpf_cpumask_create bpf_cpumask_release bpf_cpumask_acquire bpf_cpumask_first
6.3: bpf_cpumask_first_zero bpf_cpumask_set_cpu bpf_cpumask_clear_cpu bpf_cpumask_test_cpu
6.3: bpf_cpumask_test_and_set_cpu bpf_cpumask_test_and_clear_cpu bpf_cpumask_setall
6.3: bpf_cpumask_clear bpf_cpumask_and bpf_cpumask_or bpf_cpumask_xor bpf_cpumask_equal
6.3: bpf_cpumask_intersects bpf_cpumask_subset bpf_cpumask_empty bpf_cpumask_full
6.3: bpf_cpumask_copy bpf_rbtree_remove bpf_rbtree_first bpf_xdp_metadata_rx_timestamp
6.3: bpf_xdp_metadata_rx_hash hid_bpf_get_data hid_bpf_attach_prog
6.3: hid_bpf_allocate_context hid_bpf_release_context hid_bpf_hw_request
6.4: bpf_refcount_acquire_impl bpf_list_push_front_impl bpf_list_push_back_impl
6.4: bpf_rbtree_add_impl bpf_cgroup_from_id bpf_dynptr_slice bpf_dynptr_slice_rdwr
6.4: bpf_iter_num_new bpf_iter_num_next bpf_iter_num_destroy bpf_dynptr_from_skb
6.4: bpf_dynptr_from_xdp bpf_skb_set_fou_encap bpf_skb_get_fou_encap
6.5: bpf_cpumask_first_and bpf_cpumask_any_distribute bpf_cpumask_any_and_distribute
6.5: bpf_task_under_cgroup bpf_dynptr_adjust bpf_dynptr_is_null bpf_dynptr_is_rdonly
6.5: bpf_dynptr_size bpf_dynptr_clone bpf_sock_destroy
6.6: bpf_map_sum_elem_count
6.7: bpf_percpu_obj_new_impl bpf_percpu_obj_drop_impl bpf_throw bpf_iter_task_vma_new
6.7: bpf_iter_task_vma_next bpf_iter_task_vma_destroy bpf_iter_css_task_new
6.7: bpf_iter_css_task_next bpf_iter_css_task_destroy bpf_iter_css_new bpf_iter_css_next
6.7: bpf_iter_css_destroy bpf_iter_task_new bpf_iter_task_next bpf_iter_task_destroy
6.7: bpf_sock_addr_set_sun_path
6.8: bpf_get_file_xattr bpf_cpumask_weight bpf_task_get_cgroup1 bpf_get_fsverity_digest
6.8: bpf_xdp_metadata_rx_vlan_tag bpf_xdp_get_xfrm_state bpf_xdp_xfrm_state_release
6.9: bpf_arena_alloc_pages bpf_arena_free_pages
6.10: bpf_wq_init bpf_wq_set_callback_impl bpf_wq_start bpf_preempt_disable
6.10: bpf_preempt_enable bpf_crypto_ctx_create bpf_crypto_ctx_release
6.10: bpf_crypto_ctx_acquire bpf_crypto_decrypt bpf_crypto_encrypt bpf_session_is_return
6.10: bpf_session_cookie
6.16: bpf_iter_dmabuf_new bpf_iter_dmabuf_next bpf_iter_dmabuf_destroy
6.16: bpf_probe_read_user_dynptr bpf_probe_read_kernel_dynptr bpf_probe_read_user_str_dynptr
6.16: bpf_probe_read_kernel_str_dynptr bpf_copy_from_user_dynptr
6.16: bpf_copy_from_user_str_dynptr bpf_copy_from_user_task_dynptr
6.16: bpf_copy_from_user_task_str_dynptr bpf_list_front bpf_list_back bpf_rbtree_root
6.16: bpf_rbtree_left bpf_rbtree_right bpf_qdisc_bstats_update bpf_qdisc_watchdog_schedule
6.16: bpf_skb_get_hash bpf_kfree_skb bpf_qdisc_skb_drop scx_bpf_select_cpu_and
6.17: bpf_arena_reserve_pages bpf_stream_vprintk bpf_dynptr_memset bpf_cgroup_read_xattr
6.17: bpf_strcmp bpf_strnchr bpf_strchr bpf_strchrnul bpf_strrchr bpf_strlen bpf_strspn
6.17: bpf_strcspn bpf_strnstr bpf_strstr
"""

KFUNC_SINCE: Final = MappingProxyType(read_versions(_SINCE))
"""The first version with each, by name; what is not here came at a time that is not known."""


def kfunc_since(name: str) -> Version | None:
    """The first version with a kfunc; a name may have a flavor after three underscores."""
    return KFUNC_SINCE.get(name.partition("___")[0])
