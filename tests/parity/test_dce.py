"""What the kernel leaves of code with dead parts, and of its records: ours is the same.

Which instructions it saw is read from its own log, so that nothing but the
removal is compared.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace

import numpy as np
import pytest

from bpfpatch import facts, kernel
from bpfpatch.asm import assemble, format_program
from bpfpatch.bpf.xlated import read_xlated
from bpfpatch.passes import Pipeline, Target
from bpfpatch.program import LINE_INFO, Program
from support.cases.lined import with_lines
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

PIPELINE = "dce{aux=true},nops{once=true}"
UNKNOWN = "call 7; "
CASES = {
    "branch never taken": "r1 = 0; if r1 == 1 goto dead; r0 = 1; exit; dead: r0 = 2; exit",
    "branch always taken": "r1 = 0; if r1 == 0 goto on; r0 = 1; on: r0 = 2; exit",
    "run of lines": "r1 = 0; if r1 == 0 goto on; r2 = 1; r2 = 2; r2 = 3; on: r0 = 2; exit",
    "dead ld_imm64": "r1 = 0; if r1 == 0 goto on; r2 = 1 ll; r3 = 2 ll; on: r0 = 2; exit",
    "live ld_imm64 behind": "r1 = 0; if r1 == 0 goto on; r2 = 1; on: r0 = 2 ll; exit",
    "dead tail of a function": """
        call f; exit; f: r1 = 1; if r1 == 1 goto on; r0 = 9; exit; on: r0 = 0; exit
    """,
    "dead end of a function": """
        call f; call g; exit
        f: r1 = 1; if r1 != 1 goto off; r0 = 0; exit; off: r0 = 9; exit
        g: r0 = 3; exit
    """,
    "dead end of the program": "r1 = 1; r0 = 0; if r1 != 1 goto off; exit; off: r0 = 9; exit",
    "function that nothing calls any more": """
        r1 = 1; if r1 == 1 goto on; call f; on: call g; exit
        f: r0 = 1; exit
        g: r0 = 2; exit
    """,
    "dead end and dead function": """
        r1 = 1; r0 = 0; if r1 != 1 goto off; call g; exit; off: call f; exit
        f: r0 = 1; exit
        g: r0 = 2; exit
    """,
    "two dead functions in a row": """
        r1 = 1; if r1 == 1 goto on; call f; call h; on: call g; exit
        f: r0 = 1; exit
        h: r0 = 1; exit
        g: r0 = 2; exit
    """,
    "last function dead": "r1 = 1; r0 = 0; if r1 == 1 goto on; call f; on: exit; f: r0 = 1; exit",
    "only dead functions": """
        r1 = 1; r0 = 0; if r1 == 1 goto on; call f; call g; on: exit
        f: r0 = 1; exit; g: r0 = 1; exit
    """,
    "nop at the start": "goto +0; r0 = 0; exit",
    "nops in a row": "r0 = 0; goto +0; goto +0; goto +0; exit",
    "jump over a nop stays": UNKNOWN + "if r0 == 3 goto m; goto on; m: goto +0; on: exit",
    "jump over two nops stays": UNKNOWN
    + "if r0 == 3 goto m; goto on; m: goto +0; goto +0; on: exit",
    "may_goto over may_goto goes": "r0 = 0; may_goto on; may_goto +0; on: exit",
    "jump over may_goto goes": UNKNOWN + "if r0 == 3 goto m; goto on; m: may_goto +0; on: exit",
    "jumps over may_goto": UNKNOWN
    + "if r0 == 3 goto m; if r0 == 4 goto k; goto on; k: goto on; m: may_goto +0; on: exit",
    "jump and may_goto over may_goto": UNKNOWN
    + "if r0 == 3 goto m; if r0 == 4 goto k; goto on; k: may_goto on; m: may_goto +0; on: exit",
    "may_gotos over may_goto": "r0 = 0; may_goto on; may_goto on; may_goto +0; on: exit",
    "may_goto at the start": "may_goto +0; r0 = 0; exit",
    "jump over a branch that never jumps": """
        r1 = 1; goto on; on: if r1 == 2 goto off; r0 = 1; exit; off: r0 = 2; exit
    """,
    "long nop stays": "r0 = 0; gotol +0; exit",
    "jump to a nop": "r0 = 0; call 7; if r0 == 0 goto on; r0 = 1; on: goto +0; r0 += 1; exit",
    "nop at a function's start": "call f; exit; f: goto +0; r0 = 1; exit",
    "branch both of whose ways meet": "r1 = 1; if r1 == 2 goto on; on: r0 = 1; exit",
    "branch back that never jumps": """
        r1 = 1; r0 = 0; again: r0 += 1; if r1 == 2 goto again; exit
    """,
    "dead loop": "r1 = 1; r0 = 0; if r1 == 1 goto on; l: r0 += 1; if r0 < 5 goto l; on: exit",
}


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def thinned(program: Program, rng: random.Random, share: float) -> Program:
    """A program with some of its line records; those of functions' starts stay."""
    table = program.tables[LINE_INFO]
    starts = set(program.subprogs.start.tolist())
    keep = np.array([at in starts or rng.random() < share for at in table.insn.tolist()])
    return program.with_tables(**{LINE_INFO: table.with_rows(table.insn[keep], table.rows[keep])})


def assert_parity(text: str, share: float = 1.0, seed: int = 0) -> None:
    """Our pipeline's code, functions and records are the kernel's."""
    program, btf = with_lines(assemble(text))
    program = thinned(program, random.Random(seed), share)
    with kernel.load(program, btf=btf, keep_log=True, log_level=2) as loaded:
        visited = {int(slot) for slot in re.findall(r"^(\d+): \(", loaded.log, re.M)}
        theirs = read_xlated(loaded).program
    seen = np.isin(np.arange(len(program)), list(visited))
    second = program.second_slots
    seen[second] = seen[np.flatnonzero(second) - 1]
    given = program.with_columns(seen=facts.column(facts.SEEN, seen))
    ours = Pipeline.parse(PIPELINE).run(given, Target.internal()).program
    calls = np.flatnonzero(theirs.insns["code"] == 0x85)
    insns = theirs.insns.copy()
    is_helper = calls[insns["regs"][calls] >> 4 == 0]
    insns["imm"][is_helper] = 7  # an address; 7 is the only helper in these programs
    theirs = replace(theirs, insns=insns)
    assert plain(ours) == plain(theirs)
    assert ours.to_bytes() == theirs.to_bytes()
    for name in ("line_info", "func_info"):
        mine, its = ours.tables[name], theirs.tables[name]
        assert mine.insn.tolist() == its.insn.tolist(), name
        assert mine.rows.tobytes() == its.rows.tobytes(), name
    assert ours.subprogs.start.tolist() == theirs.subprogs.start.tolist()


def plain(program: Program) -> str:
    """Code as text, without records."""
    return format_program(Program(program.insns), sources=False)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("share", [1.0, 0.4, 0.0])
def test_removal_is_the_kernels(name: str, share: float) -> None:
    """Code, functions, line and function records are what the kernel leaves of them."""
    assert_parity(CASES[name], share)


def random_code(seed: int) -> str:
    """Functions with decided branches, nops of all kinds, and calls that may be dead."""
    rng = random.Random(seed)
    count = rng.randint(1, 4)
    lines: list[str] = []
    for function in range(count):
        lines += [f"f{function}:"] if function else []
        lines += ["call 7", "r9 = r0", "r0 = 0", "r6 = 1", "r7 = 2"]
        labels = 0
        for _ in range(rng.randint(2, 9)):
            choice = rng.randrange(9)
            if choice < 3:
                labels += 1
                label = f"L{function}_{labels}"
                lines.append(f"if r6 {rng.choice(('==', '!='))} {rng.randint(1, 2)} goto {label}")
                lines += _filler(rng, function, count)
                lines.append(f"{label}:")
            elif choice < 5:
                lines += _nops(rng, f"N{function}_{len(lines)}")
            else:
                lines += _filler(rng, function, count)
        if rng.random() < 0.5:
            lines += [f"if r7 != 2 goto D{function}", "exit", f"D{function}:", "r0 = 3"]
            lines += _filler(rng, function, count)
        lines.append("exit")
    used = set(re.findall(r"call (f\d)", "\n".join(lines)))
    missing = [f"f{n}" for n in range(1, count) if f"f{n}" not in used]
    return "\n".join([*(f"call {name}" for name in missing), *lines])


def _filler(rng: random.Random, function: int, count: int) -> list[str]:
    out = []
    for _ in range(rng.randint(1, 3)):
        later = rng.randrange(function + 1, count) if function + 1 < count else 0
        out.append(
            rng.choice(("r0 = 5", "r8 = 9 ll", "r0 += r6", f"call f{later}" if later else "r0 = 1"))
        )
    return out


def _nops(rng: random.Random, label: str) -> list[str]:
    """Nops, and jumps over them; to each of those that are jumped over leads a branch."""
    count = rng.randint(1, 4)
    out = [f"if r9 == {100 + at} goto {label}_{at}" for at in range(1, count)]
    for at in range(count):
        kind = rng.choice(("goto +0", "may_goto +0", f"goto {label}"))  # other may_gotos expand
        out += [f"{label}_{at}:", kind]
    return [*out, f"{label}:"]


@pytest.mark.parametrize("seed", range(150))
def test_removal_of_random_code_is_the_kernels(seed: int) -> None:
    """The same for generated programs, with a random choice of line records."""
    assert_parity(random_code(seed), share=random.Random(seed).choice((0, 0.3, 1)), seed=seed)
