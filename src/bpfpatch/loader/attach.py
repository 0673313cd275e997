"""What in the kernel's types a program attaches to."""

from __future__ import annotations

from typing import Final

from bpfpatch.bpf.errors import KernelError
from bpfpatch.bpf.loadedbtf import vmlinux_btf
from bpfpatch.btf import Kind
from bpfpatch.facts.kinds import AttachType
from bpfpatch.facts.sections import SectionKind

_BTF_PREFIX: Final = {
    AttachType.TRACE_RAW_TP: ("btf_trace_", Kind.TYPEDEF),
    AttachType.LSM_MAC: ("bpf_lsm_", Kind.FUNC),
    AttachType.LSM_CGROUP: ("bpf_lsm_", Kind.FUNC),
    AttachType.TRACE_ITER: ("bpf_iter_", Kind.FUNC),
}


def attach_btf_id(kind: SectionKind) -> int:
    """The id, in the kernel's types, of what a section's program attaches to; 0 if to none.

    Raises:
        KernelError: the section names nothing, or nothing that this kernel has.
    """
    if not kind.needs_attach_btf:
        return 0
    _, _, name = kind.section.partition("/")
    if not name:
        raise KernelError(
            0,
            f"section {kind.section!r} does not say what to attach to; give attach_btf_id, "
            "or let open_object leave the program out",
        )
    prefix, btf_kind = _BTF_PREFIX.get(kind.attach_type, ("", Kind.FUNC))
    found = vmlinux_btf().find_one(prefix + name, btf_kind)
    if found is None:
        raise KernelError(0, f"this kernel has no {prefix + name!r} to attach to")
    return found


def attach_target(attach_type: int, attach_btf_id: int) -> str:
    """The name that a section has for a type of the kernel's: the inverse of `attach_btf_id`.

    Raises:
        KernelError: the kernel has no types.
    """
    kernel = vmlinux_btf()
    if not 0 < attach_btf_id < len(kernel):
        return ""
    prefixes = {int(known): prefix for known, (prefix, _) in _BTF_PREFIX.items()}
    return kernel.name_of(attach_btf_id).removeprefix(prefixes.get(attach_type, ""))
