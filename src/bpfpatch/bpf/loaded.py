"""A program in the kernel."""

from __future__ import annotations

import os

from bpfpatch import isa
from bpfpatch.btf import Btf
from bpfpatch.facts.kinds import ProgType
from bpfpatch.program import Program

from .proginfo import ProgInfo, prog_info, prog_jited, prog_xlated
from .submit import LoadOptions
from .syscall import Cmd, Handle, bpf, refused
from .testrun import ROOM, RunResult, test_run


class LoadedProgram(Handle):
    """A program in the kernel, unloaded when it is closed.

    Attributes:
        name: its name, at full length.
        type: its kind.
        program: what was submitted, relocations applied.
        log: the verifier's log, where it was asked for.
        options: how it was loaded; None for one that was in the kernel already.
        btf: its own types, where it was loaded with some.
    """

    def __init__(
        self,
        fd: int,
        name: str,
        prog_type: ProgType,
        program: Program,
        log: str = "",
        options: LoadOptions | None = None,
        btf: Btf | None = None,
    ) -> None:
        super().__init__(fd)
        self.name = name
        self.type = prog_type
        self.program = program
        self.log = log
        self.options = options
        self.btf = btf

    @classmethod
    def from_id(cls, prog_id: int) -> LoadedProgram:
        """A program that is in the kernel already, by its number.

        Its ``program`` is what the verifier left of it, see `xlated`.

        Raises:
            KernelError: there is none, or the kernel refused.
        """
        try:
            fd, _ = bpf(Cmd.PROG_GET_FD_BY_ID, id=prog_id)
        except OSError as error:
            raise refused(error, f"opening the program with id {prog_id}") from error
        with Handle(fd) as handle:
            info = prog_info(handle.fd)
            program = Program(prog_xlated(handle.fd))
            return cls(os.dup(handle.fd), info.name, info.type, program)

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else f"fd {self.fd}"
        return f"<LoadedProgram {self.name!r}, {self.type.text}, {state}>"

    def test_run(
        self,
        data: bytes = b"",
        ctx: bytes = b"",
        *,
        repeat: int = 1,
        flags: int = 0,
        cpu: int = 0,
        room: int = ROOM,
    ) -> RunResult:
        """Run the program once, as BPF_PROG_TEST_RUN does.

        Args:
            data: the packet, for types that take one; at least 14 bytes.
            ctx: the context: optional beside a packet, all there is for types without.
            repeat: how often; the result is the last run's. Types without a packet run once.
            flags: BPF_F_TEST_*.
            cpu: where, with the flag for it.
            room: bytes that the packet may grow by.

        Raises:
            KernelError: the type has no such run, or the kernel refused.
        """
        return test_run(
            self.fd, self.type, data, ctx, repeat=repeat, flags=flags, cpu=cpu, room=room
        )

    def info(self) -> ProgInfo:
        """What the kernel tells of it, without the code.

        Raises:
            KernelError: the kernel refused.
        """
        return prog_info(self.fd)

    def xlated(self) -> isa.Insns:
        """The program as the verifier left it.

        In a subprog call ``off`` is the distance (its low 16 bits) and ``imm`` the subprog's
        index; helper and kfunc calls are relative to ``__bpf_call_base``, and 0 without
        CAP_SYSLOG; map addresses are ids.

        Returns:
            (n,) `isa.INSN`, read-only.

        Raises:
            KernelError: it is blinded and withheld, or longer than 524,288 slots.
        """
        return prog_xlated(self.fd)

    def jited(self) -> bytes:
        """The machine code of all subprogs, one after the other; b"" without JIT.

        Raises:
            KernelError: it is withheld.
        """
        return prog_jited(self.fd)
