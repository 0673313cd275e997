"""Upper halves that the verifier saw read: from its log, and from what the kernel does with them.

The kernel puts random numbers into the others (BPF_F_TEST_RND_HI32), which shows its own word.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bpfpatch import asm, isa, kernel
from bpfpatch.bpf.origins import origins
from bpfpatch.btf import BtfBuilder, Func, FuncLinkage, FuncProto, Int, IntEncoding, Kind, Param
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.columns import MEM_TYPE, SEEN, ZEXT_DST, MemType
from bpfpatch.facts.kinds import ProgFlag
from bpfpatch.linux.log.auxload import LOG_LEVEL, with_aux
from bpfpatch.program import DELETED, FUNC_INFO, Anchor, AnchoredTable
from support.cases.paritycase import load_case
from support.generators.programs import acceptable_case, verifiable_code
from support.inputs.bpfobjects import fixture_objects
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

# The kernel forgets what it knew of a load that it rewrites.
REWRITTEN = (MemType.CTX, *range(MemType.TP_BUFFER, MemType.BTF_ID))
TEXTS = (
    "w7 = 1; r1 = *(u32 *)(r1 + 0); if r1 > 5 goto L; w7 = 2; L: r0 = r7; exit",
    "w7 = 1; r1 = 9; if r1 > 5 goto L; w7 = 2; L: r0 = r7; exit",
    "w1 = 5; w2 = 6; call f; exit; f: r0 = r1; w0 += w2; exit",
    "call f; w0 += 1; r0 = 5; exit; f: w0 = 1; exit",
    "w6 = 5; call f; r0 = r6; exit; f: w6 = 1; w0 = 1; exit",
    "w2 = 5; *(u32 *)(r10 - 8) = w2; w3 = *(u32 *)(r10 - 8); r0 = r3; exit",
    "r2 = 5; r2 = be16 r2; r3 = r2; r3 = bswap32 r3; r0 = r3; exit",
    """
        *(u64 *)(r10 - 8) = 5; r2 = 3; r0 = 1; w0 = cmpxchg32_32(r10 - 8, w0, w2); w3 = 5; r0 = r3
        exit
    """,
    "r6 = 0; w7 = 1; L: w7 += 3; r6 += 1; if r6 < 9 goto L; r0 = r7; exit",
    """
        r6 = 0; w8 = 4; r7 = *(u32 *)(r1 + 0); L: w9 = w8; if r7 > 5 goto out; r8 = 7; w8 = 1
        r6 += 1; if r6 < 4 goto L; w9 = 7; out: r0 = r9; exit
    """,
)


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def differing(loaded: kernel.LoadedProgram, what: kernel.Submitted) -> list[int]:
    """Slots whose upper half is read for the log, and not for the kernel, or the reverse."""
    ours = with_aux(loaded, what).submitted.program
    columns = {name: column.values for name, column in ours.columns.items()}
    theirs = kernel.kernel_zext(loaded, ours).columns[ZEXT_DST].values
    found = origins(loaded, flags=ProgFlag.TEST_RND_HI32)
    is_shown = isa.defines_32(ours.insns) & columns[SEEN] & (found.start != DELETED)
    is_shown &= ~(isa.is_load(ours.insns) & np.isin(columns[MEM_TYPE], REWRITTEN))
    # Of what it rewrites otherwise, too: a division with its guard.
    at = np.flatnonzero(is_shown)
    is_same = found.xlated.raw["code"][found.start[at]] == ours.insns["code"][at]
    n_made = np.bincount(found.site, minlength=len(ours))[at]
    at = at[is_same & np.isin(n_made, (1, 4))]
    out: list[int] = at[columns[ZEXT_DST][at] != theirs[at]].tolist()
    return out


@pytest.mark.parametrize("text", TEXTS)
def test_the_log_tells_what_is_read(text: str) -> None:
    """Branches, subprogs, spills, byte swaps, atomics and loops."""
    program = asm.assemble(text)
    with kernel.load(program, log_level=LOG_LEVEL, keep_log=True, prog_type="sched_cls") as loaded:
        assert differing(loaded, kernel.submitted(loaded)) == []


@pytest.mark.parametrize(
    "text",
    [
        # Arguments of 4 bytes are read as such, and of 8 bytes whole.
        """
            r6 = r10; r6 += -8; r1 = r6; w2 = 0; w3 = 5; call kfunc bpf_iter_num_new
            r1 = r6; call kfunc bpf_iter_num_destroy; r0 = 0; exit
        """,
        "w1 = 5; call kfunc bpf_get_kmem_cache; r0 = 0; exit",
        "w1 = 5; call kfunc bpf_throw; r0 = 0; exit",
        """
            r6 = r10; r6 += -8; r1 = r6; r2 = 0; r3 = 5; call kfunc bpf_iter_num_new; w7 = 1
            L: r1 = r6; call kfunc bpf_iter_num_next; if r0 == 0 goto out; w8 = w7; w7 = 3; goto L
            out: r1 = r6; call kfunc bpf_iter_num_destroy; r0 = r7; exit
        """,
    ],
)
def test_functions_of_the_kernel_read_what_their_types_say(text: str) -> None:
    """An iterator's next call is taken up again behind itself."""
    types = kernel.vmlinux_btf()
    for name in ("new", "next", "destroy"):
        found = types.find_one(f"bpf_iter_num_{name}", Kind.FUNC)
        text = text.replace(f"bpf_iter_num_{name}", str(found))
    for name in ("bpf_get_kmem_cache", "bpf_throw"):
        text = text.replace(name, str(types.find_one(name, Kind.FUNC)))
    if "None" in text:
        pytest.skip("not on this kernel: it has not all of these functions")
    program = asm.assemble(text)
    with kernel.load(program, log_level=LOG_LEVEL, keep_log=True, prog_type="sched_cls") as loaded:
        assert differing(loaded, kernel.submitted(loaded)) == []


def test_a_global_function_reads_no_argument() -> None:
    """It is verified by itself, with arguments that are not known."""
    program = asm.assemble("w1 = 5; call f; r0 = 0; exit; f: r0 = r1; exit")
    types = BtfBuilder()
    number = types.add(Int("int", 4, 32, IntEncoding.SIGNED))
    proto = types.add(FuncProto(number, (Param("a", number),)))
    ids = [types.add(Func("main", types.add(FuncProto(number, ())), FuncLinkage.STATIC))]
    ids.append(types.add(Func("f", proto, FuncLinkage.GLOBAL)))
    rows = np.array([(one,) for one in ids], [("type_id", "<u4")])
    table = AnchoredTable(program.subprogs.start, rows, Anchor.ENTRY, unique=True)
    program = program.with_tables(**{FUNC_INFO: table})
    options = {"log_level": LOG_LEVEL, "keep_log": True, "prog_type": "sched_cls"}
    with kernel.load(program, btf=types.build(), **options) as loaded:
        assert "is global and assumed valid" in loaded.log
        assert differing(loaded, kernel.submitted(loaded)) == []


def random_programs() -> Iterator[tuple[kernel.LoadedProgram, kernel.Submitted]]:
    """Programs of both generators, loaded."""
    for seed in range(60):
        code = asm.assemble(verifiable_code(seed))
        loaded = kernel.load(code, log_level=LOG_LEVEL, keep_log=True)
        yield loaded, kernel.submitted(loaded)
    for seed in range(100):
        try:
            loaded, maps = load_case(acceptable_case(seed), log_level=LOG_LEVEL, keep_log=True)
        except BpfPatchError:
            continue
        yield loaded, kernel.submitted(loaded, maps)


def test_random_programs_agree() -> None:
    """Loops, look-ups, callbacks, packets."""
    n_checked = 0
    for loaded, what in random_programs():
        with loaded:
            assert differing(loaded, what) == [], loaded.log
        n_checked += 1
    assert n_checked > 100


def test_objects_agree() -> None:
    """Compiled programs."""
    n_checked = 0
    for name, data in fixture_objects()[::6]:
        try:
            opened = kernel.open_object(ElfObject.parse(data), [], name=name.partition(".")[0])
        except BpfPatchError:
            continue
        with opened:
            for program in opened.autoloaded():
                try:
                    loaded = opened.load(program, log_level=LOG_LEVEL, keep_log=True)
                except BpfPatchError:
                    continue
                with loaded:
                    what = kernel.submitted_of(opened, loaded)
                    assert differing(loaded, what) == [], (name, program)
                n_checked += 1
    assert n_checked > 10
