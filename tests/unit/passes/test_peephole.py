"""peephole: where rules fit, and where they must not."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble, format_program
from bpfpatch.errors import OptionError
from bpfpatch.passes import Pipeline, Target
from bpfpatch.program import Program


def lines(program: Program) -> list[str]:
    """Instructions of a program of one function, as text."""
    text = format_program(program)
    out = [line.strip() for line in text.splitlines()]
    return [line.partition(": ")[2] for line in out if line and not line.endswith(":")]


def rewritten(text: str, options: str = "", cpu: str | None = None) -> str:
    """What peephole leaves of code."""
    program = assemble(text.replace(";", "\n"))
    pipeline = Pipeline.parse(f"peephole{options}")
    return "; ".join(lines(pipeline.run(program, Target.loadable(cpu)).program))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "r1 = 0; *(u32 *)(r10 - 4) = r1; r0 = 0; exit",
            "*(u32 *)(r10 - 0x4) = 0x0; r0 = 0x0; exit",
        ),
        (
            "r2 = 5; r0 = *(u64 *)(r1 + 0); r0 += r2; exit",
            "r0 = *(u64 *)(r1 + 0x0); r0 += 0x5; exit",
        ),
        ("r0 = -5 ll; exit", "r0 = -0x5; exit"),
        ("r0 = 0; r0 = 0; exit", "r0 = 0x0; exit"),
    ],
)
def test_a_rule_fits(before: str, after: str) -> None:
    """What a rule is for becomes less."""
    assert rewritten(before) == after


def test_w_minus_one_is_stored_as_it_is() -> None:
    """`w1 = -1` has a clear upper half, and a store of 64 bits would extend the sign: it stays."""
    text = "w1 = -1; *(u64 *)(r10 - 8) = r1; r0 = 0; exit"
    assert rewritten(text, cpu="v3") == "w1 = -0x1; *(u64 *)(r10 - 0x8) = r1; r0 = 0x0; exit"
    narrow = "w1 = -1; *(u32 *)(r10 - 8) = r1; r0 = 0; exit"
    assert rewritten(narrow, cpu="v3") == "*(u32 *)(r10 - 0x8) = -0x1; r0 = 0x0; exit"


def test_a_jump_into_the_middle_keeps_what_is_there() -> None:
    """Where a jump comes in between, what a register holds is not known."""
    text = "r2 = 5; r0 = *(u64 *)(r1 + 0); if r0 == 0 goto l; r2 = 6; l: r0 += r2; exit"
    assert "r0 += r2" in rewritten(text)


def test_no_constant_is_stored_into_what_may_be_a_context() -> None:
    """Kernels before 6.4 refuse that, so that only what is not safe does it."""
    text = "r2 = 0; *(u32 *)(r1 + 8) = r2; r0 = 0; exit"
    assert "*(u32 *)(r1 + 0x8) = r2" in rewritten(text)
    assert "*(u32 *)(r1 + 0x8) = 0x0" in rewritten(text, "{safe=false}")
    found = "call bpf_get_local_storage; r2 = 0; *(u32 *)(r0 + 8) = r2; r0 = 0; exit"
    assert "*(u32 *)(r0 + 0x8) = 0x0" in rewritten(found)


def test_unknown_rule_or_function_is_refused() -> None:
    """Names of rules and numbers of functions that there are not are errors."""
    with pytest.raises(OptionError, match="no rule nonsense"):
        rewritten("r0 = 0; exit", "{skip=nonsense}")
    with pytest.raises(OptionError, match="functions are numbers below 1"):
        rewritten("r0 = 0; exit", "{functions=3}")


def test_a_rule_can_be_left_out_and_a_function_chosen() -> None:
    """`skip` leaves rules out, `functions` rewrites those alone."""
    text = "r1 = 0; *(u32 *)(r10 - 4) = r1; r0 = 0; exit"
    assert "r1 = 0x0" in rewritten(text, "{skip=store-constant-32}")
    program = assemble("main:\nr1 = 7\ncall f\nr1 = 0\nr0 = 0\nexit\nf:\nr2 = 0\nr0 = r1\nexit")
    result = Pipeline.parse("peephole{functions=1}").run(program)
    assert result.report.passes[0].counts == {"dead-constant": 1}
    assert len(result.program) == len(program) - 1
