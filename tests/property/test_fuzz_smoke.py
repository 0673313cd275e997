"""The bounded run of ``make fuzz``."""

from __future__ import annotations

from support.generators import commandfuzz
from support.generators.fuzzing import run_case, seeds


def test_mutated_input_is_read_or_refused():
    """Whatever bytes come in: success or an error of ours, and nothing else."""
    of_all = seeds()
    wrong = [found for number in range(1500) if (found := run_case(of_all, number))]
    assert wrong == []


def test_mutated_input_through_every_command():
    """No command ends in an internal error, leaves a file, or replaces one and fails."""
    of_all = commandfuzz.seeds()
    numbers = range(1_000_000, 1_000_150)
    wrong = [found for number in numbers if (found := commandfuzz.run_case(of_all, number))]
    assert wrong == []
