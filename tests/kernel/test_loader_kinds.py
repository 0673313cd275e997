"""Traits of real objects that decide what a loader makes of them, with the kernel as the judge."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from bpfpatch import kernel
from bpfpatch.cli.app import cli
from bpfpatch.elf import ElfObject
from bpfpatch.linux.parity.sweep import Status, compare_object
from bpfpatch.passes import Pipeline
from support.inputs.compiled import compile_bpf
from support.machine.tools import need, need_bpf

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def outcome(path: Path, pipeline: str = "", **more: object) -> dict[tuple[str, str], str]:
    """What comparing says of each program, by its name and the source of aux data."""
    obj = ElfObject.read(path)
    if pipeline:
        obj, _ = Pipeline.parse(pipeline).run_object(obj)
    rows = compare_object(obj, "given.o", **more)  # type: ignore[arg-type]  # options of it
    return {
        (row.program, row.source): row.status.value if row.status is Status.EQUAL else row.text
        for row in rows
    }


def equal(*programs: str) -> dict[tuple[str, str], str]:
    """The outcome in which all of these are equal."""
    return {(name, source): "equal" for name in programs for source in ("kernel", "offline")}


PADDED = """
static NOINLINE __attribute__((aligned(64))) int wide(long v)
{
	BARRIER(v);
	return v ? 2 : 3;
}
NOINLINE __attribute__((aligned(32))) int small(int v)
{
	BARRIER(v);
	return v + 1;
}
SEC("xdp") __attribute__((aligned(32))) int one(struct xdp_md *c)
{
	return small(c->data_end - c->data) & 1;
}
SEC("xdp") __attribute__((aligned(128))) int two(struct xdp_md *c)
{
	return wide(c->data_end - c->data) & 1;
}
LICENSE;
"""


@pytest.mark.parametrize("pipeline", ["", "sprinkle"])
def test_padding_between_functions(tmp_path: Path, pipeline: str) -> None:
    """Functions that are aligned, with zeros between them, load, also after an edit."""
    path = compile_bpf(tmp_path, PADDED)
    assert outcome(path, pipeline) == equal("one", "two")


STRONG = """
NOINLINE int pick(struct xdp_md *c) { return (c->data_end - c->data) + 1; }
SEC("xdp") int one(struct xdp_md *c) { return pick(c) & 1; }
LICENSE;
"""
OVERRIDDEN = """
NOINLINE int early(struct xdp_md *c) { return (c->data_end - c->data) + 5; }
WEAK NOINLINE int pick(struct xdp_md *c) { return early(c) + 2; }
NOINLINE int late(struct xdp_md *c) { return (c->data_end - c->data) + 7; }
SEC("xdp") int two(struct xdp_md *c) { return (pick(c) + late(c)) & 1; }
"""


@pytest.mark.parametrize("pipeline", ["", "sprinkle", "dce"])
def test_overridden_weak_function_behind_a_strong_one(tmp_path: Path, pipeline: str) -> None:
    """Linking keeps the code of a weak function that another overrides; it belongs to no other."""
    need("bpftool")
    for name, text in (("strong", STRONG), ("weak", OVERRIDDEN)):
        (tmp_path / name).mkdir()
        compile_bpf(tmp_path / name, text)
    linked = tmp_path / "linked.o"
    parts = [tmp_path / name / "given.o" for name in ("strong", "weak")]
    subprocess.run(["bpftool", "gen", "object", linked, *parts], check=True)
    assert outcome(linked, pipeline) == equal("one", "two")


def test_hidden_weak_function_is_verified_with_its_callers(tmp_path: Path) -> None:
    """What no other object can call is a static function to the kernel, whatever its binding."""
    path = compile_bpf(
        tmp_path,
        """
WEAK HIDDEN NOINLINE int get(long *res) { *res = 7; return 0; }
SEC("xdp") int main_prog(struct xdp_md *ctx) { long v = 0; get(&v); return v == 7 ? 2 : 1; }
LICENSE;
""",
    )
    assert outcome(path) == equal("main_prog")


def test_exception_callback_of_another_program(tmp_path: Path) -> None:
    """A program that names no exception callback gets the kernel's, whatever others name."""
    path = compile_bpf(
        tmp_path,
        """
extern void bpf_throw(u64 cookie) KSYM;
static volatile int hits;
NOINLINE int on_throw(u64 cookie) { hits++; return cookie + 1; }
static NOINLINE int deeper(struct __sk_buff *s) { if (s->len > 40) bpf_throw(33); return 3; }
SEC("tc") __attribute__((btf_decl_tag("exception_callback:on_throw")))
int thrower(struct __sk_buff *s) { return deeper(s) + 4; }
SEC("tc") int plain(struct __sk_buff *s) { return deeper(s); }
LICENSE;
""",
    )
    assert outcome(path) == equal("thrower", "plain")


OPTIONAL = 'SEC("?xdp") int only(struct xdp_md *c) { return 2; }\nLICENSE;'


def test_program_that_is_off_by_default_is_named(tmp_path: Path) -> None:
    """Of an object with "?" sections alone is said what is left out, and how to compare it."""
    path = str(compile_bpf(tmp_path, OPTIONAL))
    found = CliRunner().invoke(cli, ["kernel-diff", path])
    assert found.exit_code == 2
    assert 'left out, as their sections start with "?": only' in found.stderr
    assert "--prog" in found.stderr
    found = CliRunner().invoke(cli, ["kernel-diff", path, "--prog", "only"])
    assert (found.exit_code, found.stdout) == (0, "only, aux from kernel: equal\n")


DUMMY_OPS = """
struct bpf_dummy_ops_state { int val; } __attribute__((preserve_access_index));
struct bpf_dummy_ops { int (*test_1)(struct bpf_dummy_ops_state *state); };
SEC("struct_ops/test_1") int test_1(u64 *ctx)
{
	struct bpf_dummy_ops_state *state = (void *)ctx[0];
	asm volatile("if %[s] != 0 goto +2; r0 = 7; exit;" ::[s] "r"(state));
	return state->val;
}
SEC(".struct_ops") struct bpf_dummy_ops dummy = { .test_1 = (void *)test_1 };
LICENSE;
"""


def test_struct_ops_argument_that_may_be_null(tmp_path: Path) -> None:
    """Which arguments may be null stands at the kernel's stub function, and is looked up there."""
    if kernel.vmlinux_btf().find_one("bpf_dummy_ops__test_1", 12) is None:
        pytest.skip("not on this kernel: no bpf_dummy_ops")
    assert outcome(compile_bpf(tmp_path, DUMMY_OPS)) == equal("test_1")


VOID_OPS = """
struct sock { u32 sk_pacing_status; } __attribute__((preserve_access_index));
struct tcp_congestion_ops {
	u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, u32 ack, u32 acked);
	void (*init)(struct sock *sk);
	u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
};
SEC("struct_ops") void given_init(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	__sync_val_compare_and_swap(&sk->sk_pacing_status, 0, 1);
}
SEC("struct_ops") u32 given_ssthresh(u64 *ctx) { return 1; }
SEC("struct_ops") u32 given_undo(u64 *ctx) { return 1; }
SEC("struct_ops") void given_avoid(u64 *ctx) { }
SEC(".struct_ops") struct tcp_congestion_ops given = {
	.ssthresh = (void *)given_ssthresh, .cong_avoid = (void *)given_avoid,
	.init = (void *)given_init, .undo_cwnd = (void *)given_undo, .name = "given",
};
LICENSE;
"""


def test_exit_of_struct_ops_that_returns_nothing_reads_nothing(tmp_path: Path) -> None:
    """What a table's entry returns decides whether its exit reads R0, and all of it."""
    names = ("given_init", "given_ssthresh", "given_undo", "given_avoid")
    assert outcome(compile_bpf(tmp_path, VOID_OPS)) == equal(*names)


def test_programs_that_share_their_code_get_no_relocation(tmp_path: Path) -> None:
    """Of two programs of one code libbpf relocates one: such a place is refused, others are not."""
    path = compile_bpf(
        tmp_path,
        """
SEC("xdp") int real_one(struct xdp_md *c) { return c->data_end == c->data ? 2 : 1; }
SEC("xdp") int other_name(struct xdp_md *c) __attribute__((alias("real_one")));
LICENSE;
""",
        clang="clang-16",
    )
    out = str(tmp_path / "covered.o")
    found = CliRunner().invoke(cli, ["cover", str(path), "-o", out])
    assert found.exit_code != 0
    assert "real_one, other_name are programs of the same code" in found.stderr
    assert outcome(path, "sprinkle") == equal("real_one", "other_name")
