"""The bounded run of ``make fuzz``."""

from __future__ import annotations

from support.generators.fuzzing import run_case, seeds


def test_mutated_input_is_read_or_refused():
    """Whatever bytes come in: success or an error of ours, and nothing else."""
    of_all = seeds()
    wrong = [found for number in range(2000) if (found := run_case(of_all, number))]
    assert wrong == []
