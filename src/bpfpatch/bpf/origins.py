"""Where the kernel put each instruction: read from line records, of which each has its own.

The verifier moves line records along with what it rewrites, and takes them out with what it
removes. A program that is loaded with a record for every instruction tells in the end where each
of them went.

Source: linux v6.18, kernel/bpf/core.c, bpf_adj_linfo(), and kernel/bpf/verifier.c,
bpf_adj_linfo_after_remove().
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bpfpatch.btf import Btf, BtfBuilder, Int, IntEncoding
from bpfpatch.errors import OptionError
from bpfpatch.program import DELETED, LINE, LINE_INFO, Anchor, AnchoredTable, Program
from bpfpatch.program.types import Slots

from .harden import unblinded
from .loaded import LoadedProgram
from .loadedbtf import load_btf
from .submit import submit
from .syscall import Cmd, Handle, bpf, refused
from .xlated import XlatedProgram, read_xlated

_LINE_SHIFT: Final = 10


@dataclass(frozen=True, slots=True, eq=False)
class Origins:
    """A program read back, with where its instructions come from.

    Attributes:
        xlated: the program, as the kernel left it; its ``line_info`` is the synthetic one.
        start: (n_old,) where what became of an instruction starts in it; DELETED where the
            kernel removed it, and at second slots.
        site: (n_new,) the original slot whose rewriting each instruction belongs to.
    """

    xlated: XlatedProgram
    start: Slots
    site: Slots


def origins(loaded: LoadedProgram, *, flags: int = 0) -> Origins:
    """Load a program once more, with a line record for each instruction, and read it back.

    What it refers to (maps, programs) has to be open still. Types and func_info are its own;
    where it has none, it gets types that say nothing, and no func_info. Constants are not
    blinded.

    Args:
        loaded: from `load` or `KernelObject.load`.
        flags: `ProgFlag` bits, beside those that it was loaded with.

    Raises:
        OptionError: the program was not loaded here.
        KernelError: the kernel refuses it so, or does not hand out the code.
    """
    options = loaded.options
    if options is None:
        raise OptionError(f"{loaded!r} was in the kernel before: what was submitted is not known")
    traced = with_slot_lines(loaded.program)
    # Blinding moves line records and shows no code that they would be right for.
    with _types(loaded) as types, unblinded():
        again = replace(options, btf_fd=types.fd, flags=options.flags | flags, mode="jit")
        fd, _ = submit(traced, again)
    with LoadedProgram(fd, loaded.name, loaded.type, traced, "", again, loaded.btf) as reloaded:
        xlated = read_xlated(reloaded)
    return _placed(xlated, len(traced))


def with_slot_lines(program: Program) -> Program:
    """A program whose line records say of each instruction which slot it is: line 1 is slot 0."""
    slots = np.flatnonzero(~program.second_slots).astype(np.int32)
    rows = np.zeros(slots.size, LINE)
    rows["line_col"] = (slots + 1) << _LINE_SHIFT
    table = AnchoredTable(slots, rows, Anchor.ENTRY, unique=True)
    return replace(program.with_tables(**{LINE_INFO: table}), strings=b"")


def _types(loaded: LoadedProgram) -> Handle:
    """The program's own types, open; or types that say nothing."""
    btf_id = loaded.info().btf_id
    if not btf_id:
        return load_btf(_anything())
    try:
        return Handle(bpf(Cmd.BTF_GET_FD_BY_ID, id=btf_id)[0])
    except OSError as error:
        raise refused(error, f"opening the types of {loaded.name}") from error


def _anything() -> Btf:
    types = BtfBuilder()
    types.add(Int("int", 4, 32, IntEncoding.SIGNED))
    return types.build()


def _placed(xlated: XlatedProgram, n_old: int) -> Origins:
    table = xlated.program.tables[LINE_INFO]
    lines = (table.rows["line_col"] >> _LINE_SHIFT).astype(np.int32) - 1
    start = np.full(n_old, DELETED, np.int32)
    start[lines] = table.insn
    slots = np.arange(len(xlated.program))
    site = lines[np.searchsorted(table.insn, slots, side="right") - 1]
    return Origins(xlated, start, site)
