"""The pass ctx-access, with contexts and kernels made by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.btf import Btf, Int, IntEncoding, Member, Ptr, Struct
from bpfpatch.btf.builder import BtfBuilder
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.facts import MEM_TYPE, AttachType, MemType, ProgType, Subject, column
from bpfpatch.linux.passes.ctx import ContextField, ContextTable, register_context, registry
from bpfpatch.linux.passes.ctx_access import CtxAccess
from bpfpatch.passes import Pipeline, Target
from bpfpatch.program import Program

REQUEST = ContextTable(
    "request",
    (
        ContextField("length", 0, 4, "8:4", is_narrow=True),
        ContextField("method", 4, 4, "16:8 ?-> 0:2", is_narrow=True),
        ContextField("status", 8, 4, "24:4", "24:4"),
        ContextField("time", 16, 8, "32:8", is_narrow=True),
        ContextField("words", 24, 16, "40", "40", unit=4, wide=8, is_sized=True, is_narrow=True),
        ContextField("peer", 40, 8, "little? dst = src->48:8; big? dst = 0"),
    ),
    uapi="struct request",
)


@pytest.fixture(autouse=True)
def _own_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_BY_NAME", dict(registry._BY_NAME))
    monkeypatch.setattr(registry, "_BY_TYPE", dict(registry._BY_TYPE))
    register_context(REQUEST)


def marked(program: Program, mem: MemType = MemType.CTX) -> Program:
    """A program whose loads and stores, but for those of the stack, go through one thing."""
    insns = program.insns
    base = np.where(np.isin(insns["code"] & 7, (2, 3)), isa.dst(insns), isa.src(insns))
    is_access = np.isin(insns["code"] & 7, (1, 2, 3)) & (base != 10)
    return program.with_columns(mem_type=column(MEM_TYPE, np.where(is_access, mem, 0)))


def rewritten(text: str, target: Target | None = None, name: str = "request") -> isa.Insns:
    """What the pass makes of a program with a context of our own."""
    return (
        Pipeline((CtxAccess(context=name),))
        .run(marked(assemble(text)), target or Target.loadable())
        .program.insns
    )


def assert_becomes(text: str, wanted: str, target: Target | None = None) -> None:
    """Before and after."""
    assert rewritten(text, target).tolist() == assemble(wanted).insns.tolist()


def test_own_context_is_loadable() -> None:
    """A context whose places are numbers needs no kernel, and bpf(2) may see the result."""
    assert_becomes("r3 = *(u32 *)(r7 + 0); exit", "r3 = *(u32 *)(r7 + 8); exit")


def test_into_the_register_of_the_context() -> None:
    """A load may overwrite the pointer that it goes through."""
    assert_becomes(
        "r1 = *(u32 *)(r1 + 4); exit",
        "r1 = *(u64 *)(r1 + 16); if r1 == 0 goto +1; r1 = *(u16 *)(r1 + 0); exit",
    )


@pytest.mark.parametrize(
    ("load", "wanted"),
    [
        ("r3 = *(u8 *)(r1 + 0)", "r3 = *(u32 *)(r1 + 8); w3 &= 255"),
        ("r3 = *(u8 *)(r1 + 3)", "r3 = *(u32 *)(r1 + 8); w3 >>= 24; w3 &= 255"),
        ("r3 = *(u16 *)(r1 + 2)", "r3 = *(u32 *)(r1 + 8); w3 >>= 16; w3 &= 0xffff"),
        ("r3 = *(u32 *)(r1 + 20)", "r3 = *(u64 *)(r1 + 32); r3 >>= 32; w3 &= -1"),
        ("r3 = *(u8 *)(r1 + 17)", "r3 = *(u64 *)(r1 + 32); r3 >>= 8; w3 &= 255"),
        ("r3 = *(u8 *)(r1 + 29)", "r3 = *(u32 *)(r1 + 44); w3 >>= 8; w3 &= 255"),
    ],
)
def test_narrow_load(load: str, wanted: str) -> None:
    """A part of a field is cut out of the whole."""
    assert_becomes(f"{load}; exit", f"{wanted}; exit")


@pytest.mark.parametrize(
    ("load", "wanted"),
    [
        ("r3 = *(u8 *)(r1 + 0)", "r3 = *(u32 *)(r1 + 8); w3 >>= 24; w3 &= 255"),
        ("r3 = *(u8 *)(r1 + 3)", "r3 = *(u32 *)(r1 + 8); w3 &= 255"),
        ("r3 = *(u32 *)(r1 + 16)", "r3 = *(u64 *)(r1 + 32); r3 >>= 32; w3 &= -1"),
        ("r3 = *(u64 *)(r1 + 40)", "r3 = 0"),
    ],
)
def test_narrow_load_on_a_big_endian_machine(load: str, wanted: str) -> None:
    """There the first byte is the highest."""
    assert_becomes(f"{load}; exit", f"{wanted}; exit", Target.internal(arch="s390x"))


def test_sign_extending_load() -> None:
    """The sign is extended at last."""
    assert_becomes(
        "r3 = *(s8 *)(r1 + 1); r4 = *(s32 *)(r1 + 0); exit",
        """
        r3 = *(u32 *)(r1 + 8); w3 >>= 8; w3 &= 255; r3 = (s8)r3
        r4 = *(u32 *)(r1 + 8); r4 = (s32)r4
        exit
        """,
    )


def test_part_of_what_is_smaller_behind_it() -> None:
    """Where the low part is all that there is, it is not cut out; the rest of the field is 0."""
    load = "r3 = *(u64 *)(r1 + 16); if r3 == 0 goto +1; r3 = *(u16 *)(r3 + 0)"
    assert_becomes("r3 = *(u16 *)(r1 + 4); exit", f"{load}; exit")
    assert_becomes("r3 = *(u8 *)(r1 + 4); exit", f"{load}; w3 &= 255; exit")
    assert_becomes("r3 = *(u16 *)(r1 + 6); exit", f"{load}; w3 >>= 16; w3 &= 0xffff; exit")


def test_upper_part_of_what_is_smaller_in_the_kernel() -> None:
    """There the kernel loads what it has, whichever part was asked for; so does the pass.

    As linux v6.18 does in convert_ctx_accesses(): see the parity tests.
    """
    program = marked(assemble("r2 = *(u16 *)(r7 + 6); exit"), MemType.SOCKET)
    done = run(program, Subject(ProgType.SCHED_CLS), small_kernel())
    assert done.insns.tolist() == assemble("r2 = *(u16 *)(r7 + 2); exit").insns.tolist()


def test_null_pointer_of_a_narrow_load() -> None:
    """A null pointer is cut, too: it is 0 whatever is cut out."""
    assert_becomes(
        "r3 = *(u8 *)(r1 + 5); exit",
        """
        r3 = *(u64 *)(r1 + 16)
        if r3 == 0 goto cut
        r3 = *(u16 *)(r3 + 0)
        cut:
        w3 >>= 8
        w3 &= 255
        exit
        """,
    )


def test_stores() -> None:
    """Registers and immediates are stored where the field really is."""
    assert_becomes(
        """
        *(u32 *)(r1 + 8) = r2
        *(u32 *)(r1 + 8) = 5
        *(u32 *)(r1 + 8) = -6
        *(u32 *)(r1 + 28) = 7
        *(u64 *)(r1 + 32) = r3
        exit
        """,
        """
        *(u32 *)(r1 + 24) = r2
        *(u32 *)(r1 + 24) = 5
        *(u32 *)(r1 + 24) = -6
        *(u32 *)(r1 + 44) = 7
        *(u64 *)(r1 + 48) = r3
        exit
        """,
    )


def test_what_goes_elsewhere_stays() -> None:
    """Accesses through other pointers are not looked at."""
    text = "*(u64 *)(r10 - 8) = r1; r1 = *(u64 *)(r10 - 8); r2 = *(u32 *)(r1 + 0); exit"
    found = rewritten(text)
    assert found["off"].tolist() == [-8, -8, 8, 0]
    program = marked(assemble("r2 = *(u32 *)(r1 + 99); exit"), MemType.MAP_VALUE)
    done = Pipeline((CtxAccess(context="request"),)).run(program).program
    assert done.insns.tolist() == program.insns.tolist()


def test_jumps_follow() -> None:
    """A jump to an access reaches the first instruction of what it becomes."""
    assert_becomes(
        """
        again:
        r2 = *(u32 *)(r1 + 4)
        if r2 == 3 goto again
        r3 = *(u8 *)(r1 + 1)
        exit
        """,
        """
        again:
        r2 = *(u64 *)(r1 + 16)
        if r2 == 0 goto on
        r2 = *(u16 *)(r2 + 0)
        on:
        if r2 == 3 goto again
        r3 = *(u32 *)(r1 + 8)
        w3 >>= 8
        w3 &= 255
        exit
        """,
    )


@pytest.mark.parametrize(
    ("access", "said"),
    [
        ("r3 = *(u32 *)(r1 + 100)", "a load of 4 bytes at byte 100: no field is there"),
        ("r3 = *(u64 *)(r1 + 0)", "'length', 4 bytes from 0 on, takes loads of 1, 2, 4 bytes"),
        ("*(u16 *)(r1 + 8) = r3", "'status', 4 bytes from 8 on, takes loads and stores of 4 bytes"),
        ("*(u32 *)(r1 + 0) = 1", "a store of 4 bytes at byte 0: its field 'length'"),
        ("r3 = *(u16 *)(r1 + 1)", "a load of 2 bytes at byte 1"),
        ("r3 = *(u32 *)(r1 - 4)", "a load of 4 bytes at byte -4: no field is there"),
    ],
)
def test_unknown_field(access: str, said: str) -> None:
    """What the table does not have is refused, with its place and what there is instead."""
    with pytest.raises(UnsupportedError) as caught:
        rewritten(f"r0 = 0; {access}; exit")
    assert "insn 1 " in str(caught.value)
    assert "struct request does not take a " in str(caught.value)
    assert said in str(caught.value)


def test_field_without_a_sound_form() -> None:
    """A mistake in a table names the field."""
    register_context(ContextTable("typo", (ContextField("f", 0, 4, "dst is 4"),)))
    with pytest.raises(OptionError, match="field 'f' of context typo: line 1"):
        rewritten("r3 = *(u32 *)(r1 + 0); exit", name="typo")


def test_no_such_context() -> None:
    """A name that nobody registered is refused."""
    with pytest.raises(OptionError, match="there is no context 'nobody'"):
        rewritten("exit", name="nobody")


def run(
    program: Program, subject: Subject | None, btf: Btf | None = None, **options: str
) -> Program:
    """The pass, for a kernel."""
    target = Target.internal(btf=btf, **options)
    return Pipeline((CtxAccess(),)).run(program, target, subject).program


def test_program_of_unknown_kind() -> None:
    """Which context it is, somebody has to say; where none is accessed, nobody need."""
    program = marked(assemble("r3 = *(u32 *)(r1 + 0); exit"))
    with pytest.raises(OptionError, match="give a subject, or the option context"):
        run(program, None)
    plain = marked(assemble("r0 = 0; exit"))
    assert run(plain, None).insns.tolist() == plain.insns.tolist()


def test_extension() -> None:
    """An extension's context is another program's."""
    program = marked(assemble("r3 = *(u32 *)(r1 + 0); exit"))
    with pytest.raises(UnsupportedError, match="name it with the option context"):
        run(program, Subject(ProgType.EXT))


def test_raw_context() -> None:
    """What a kprobe sees is the real thing."""
    program = marked(assemble("r3 = *(u64 *)(r1 + 8); exit"))
    done = run(program, Subject(ProgType.KPROBE))
    assert done.insns.tolist() == program.insns.tolist()


def test_types_are_needed() -> None:
    """Without the kernel's types the pass says how to give them."""
    program = marked(assemble("r3 = *(u32 *)(r1 + 0); exit"))
    with pytest.raises(UnsupportedError, match=r"insn 0 .*the place of xdp_buff\.data .*vmlinux"):
        run(program, Subject(ProgType.XDP))


def test_kernel_context_is_not_loadable() -> None:
    """The kernel's own form is not for bpf(2)."""
    program = marked(assemble("r3 = *(u32 *)(r1 + 0); exit"))
    with pytest.raises(OptionError, match=r"which bpf\(2\) refuses, of context xdp_md"):
        Pipeline((CtxAccess(),)).run(program, Target.loadable(), Subject(ProgType.XDP))


def small_kernel(byteorder: str = "little", word: int = 8) -> Btf:
    """A kernel that has little: no shared receive queues, no IPv6, no traffic control."""
    builder = BtfBuilder(byteorder=byteorder)  # type: ignore[arg-type]
    u8 = builder.add(Int("u8", 1, IntEncoding(0), 0, 8))
    u16 = builder.add(Int("u16", 2, IntEncoding(0), 0, 16))
    u32 = builder.add(Int("u32", 4, IntEncoding(0), 0, 32))
    u64 = builder.add(Int("u64", 8, IntEncoding(0), 0, 64))
    pointer = builder.add(Ptr(0))
    skb = (
        Member("dev", pointer, 0),
        Member("sk", pointer, 64),
        Member("tstamp", u64, 128),
        Member("cloned", u8, 192, 1),
        Member("pkt_type", u8, 200, 3),
        Member("end", pointer, 256),
        Member("data", pointer, 320),
    )
    builder.add(Struct("sk_buff", 48, skb))
    builder.add(Struct("net_device", 8, (Member("ifindex", u32, 32),)))
    common = (Member("skc_dport", u16, 0), Member("skc_family", u16, 16))
    builder.add(Struct("sock_common", 8, common))
    shared = (Member("gso_size", u16, 16), Member("gso_segs", u16, 32))
    builder.add(Struct("skb_shared_info", 8, shared))
    builder.add(Struct("xdp_buff", 2 * word, (Member("rxq", pointer, 8 * word),)))
    builder.add(Struct("xdp_rxq_info", 2 * word, (Member("dev", pointer, 0),)))
    return builder.build()


def assert_for_kernel(text: str, wanted: str, btf: Btf, kind: ProgType, arch: str) -> None:
    """Before and after, for a kernel."""
    done = run(marked(assemble(text)), Subject(kind), btf, arch=arch)
    assert done.insns.tolist() == assemble(wanted).insns.tolist()


def test_pointers_of_a_small_machine() -> None:
    """On a 32-bit machine pointers are loaded as such, and the skb's end is one."""
    assert_for_kernel(
        "r2 = *(u32 *)(r1 + 12); exit",
        "r2 = *(u32 *)(r1 + 4); r2 = *(u32 *)(r2 + 0); r2 = *(u32 *)(r2 + 4); exit",
        small_kernel(word=4),
        ProgType.XDP,
        "armv7l",
    )
    assert_for_kernel(
        "r2 = *(u32 *)(r1 + 176); exit",
        "r2 = *(u32 *)(r1 + 32); r2 = *(u16 *)(r2 + 2); exit",
        small_kernel(),
        ProgType.SOCKET_FILTER,
        "armv7l",
    )


def test_bitfield_and_port_of_a_big_endian_machine() -> None:
    """Bits are at the byte's high end there, and a port needs no shift."""
    assert_for_kernel(
        "r2 = *(u32 *)(r1 + 4); r3 = *(u32 *)(r1 + 132); exit",
        """
        r2 = *(u8 *)(r1 + 25); w2 &= 0xe0; w2 >>= 5
        r3 = *(u64 *)(r1 + 8); r3 = *(u16 *)(r3 + 0)
        exit
        """,
        small_kernel("big"),
        ProgType.SOCKET_FILTER,
        "s390x",
    )


@pytest.mark.parametrize(
    ("access", "wanted"),
    [
        ("r2 = *(u32 *)(r1 + 44)", "r2 = 0"),
        ("*(u32 *)(r1 + 44) = r2", "r1 = r1"),
        ("r2 = *(u32 *)(r1 + 84)", "r2 = 0"),
        ("r2 = *(u32 *)(r1 + 104)", "w2 = 0"),
        ("r2 = *(u64 *)(r1 + 152)", "r2 = *(u64 *)(r1 + 16)"),
        ("*(u64 *)(r1 + 152) = r2", "*(u64 *)(r1 + 16) = r2"),
    ],
)
def test_what_a_kernel_was_built_without(access: str, wanted: str) -> None:
    """A field whose member the kernel lacks is 0, or what the simpler kernel makes of it.

    As linux v6.18 has it without CONFIG_NET_SCHED, NET_RX_BUSY_POLL, IPV6 and NET_XGRESS.
    """
    kernel = small_kernel()
    assert_for_kernel(f"{access}; exit", f"{wanted}; exit", kernel, ProgType.CGROUP_SKB, "x86_64")


def test_socket_pointers() -> None:
    """A pointer to a socket is a context of its own, in programs of all kinds."""
    program = marked(assemble("r2 = *(u32 *)(r7 + 4); exit"), MemType.SOCK_COMMON)
    done = run(program, Subject(ProgType.KPROBE), small_kernel())
    assert done.insns.tolist() == assemble("r2 = *(u16 *)(r7 + 2); exit").insns.tolist()


def test_prologue_is_no_part_of_a_loop() -> None:
    """The prologue is in front of the first instruction, and jumps to that one stay."""
    program = assemble("again: r2 = 0; *(u8 *)(r3 + 0) = 1; if r2 == 0 goto again; exit")
    program = marked(program, MemType.PACKET)
    done = run(program, Subject(ProgType.SCHED_CLS), small_kernel())
    assert len(done) == 10 + len(program)
    assert done.insns["off"][12] == -3


def test_number_of_processors() -> None:
    """A number below those of devices' queues is none; how many there are can be said."""
    builder = BtfBuilder()
    u32 = builder.add(Int("u32", 4, IntEncoding(0), 0, 32))
    builder.add(Struct("sk_buff", 8, (Member("napi_id", u32, 0),)))
    program = marked(assemble("r2 = *(u32 *)(r1 + 84); exit"))
    done = Pipeline((CtxAccess(nr_cpus=64),)).run(
        program, Target.internal(btf=builder.build()), Subject(ProgType.SOCKET_FILTER)
    )
    assert done.program.insns["imm"][1] == 65


def test_text_form() -> None:
    """The options have a text form."""
    assert str(Pipeline.parse("ctx-access{context=request}")) == "ctx-access{context=request}"


def test_many_accesses() -> None:
    """A hundred thousand accesses take well under a second."""
    n_sites = 100_000
    rng = np.random.default_rng(1)
    insns = np.zeros(n_sites + 1, isa.INSN)
    insns["code"], insns["regs"] = 0x61, rng.integers(0, 10, n_sites + 1) | 0x70
    insns["off"] = rng.choice([0, 4, 8, 24, 28], n_sites + 1)
    insns[-1] = isa.exit_()[0]
    program = marked(Program(insns))
    subject = Subject(ProgType.SOCK_OPS, int(AttachType.CGROUP_SOCK_OPS))
    began = time.process_time()
    done = Pipeline((CtxAccess(context="request"),)).run(program, Target.loadable(), subject)
    assert time.process_time() - began < 1.0
    assert len(done.program) > n_sites
