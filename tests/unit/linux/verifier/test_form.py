"""Programs whose form is wrong are refused before their values are followed."""

from __future__ import annotations

import pytest

from bpfpatch import isa
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.subject import Subject
from bpfpatch.linux.verifier import aux_data
from bpfpatch.program import Program

EXIT = b"\x95" + bytes(7)
WRONG = {
    "no instruction at all": (b"", "has no instructions"),
    "a store through R11": (b"\x62\x0b" + bytes(6) + EXIT, "r11"),
    "a write to R10": (b"\xb7\x0a" + bytes(6) + EXIT, "frame pointer and read-only"),
    "a jump out": (b"\x05\x00\x07\x00" + bytes(4) + EXIT, "outside of the program"),
    "half an ld_imm64": (b"\x18" + bytes(7), "second"),
    "no end": (b"\xb7" + bytes(7), "insn 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_form_that_is_wrong(name: str) -> None:
    """The error names it."""
    data, said = WRONG[name]
    with pytest.raises(BpfPatchError, match=said):
        aux_data(Program(isa.from_bytes(data)), Subject(), None)
