"""BPF_PROG_LOAD, and the verifier's log when it says no."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from bpfpatch.bpf.log import summarize
from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.program import Program

from .errors import KernelError, VerifierError
from .harden import harden
from .records import func_info, line_info
from .syscall import Cmd, bpf, object_name, refused

Mode = Literal["jit", "jit+harden"]
MODES: Final[tuple[Mode, ...]] = ("jit", "jit+harden")

_LOG_MAX: Final = 0x3FFF_FFFF
"""The most that the kernel takes: UINT_MAX >> 2 (kernel/bpf/log.c, v6.18)."""
_LOG_TAIL: Final = 1 << 24
_LOG_LEAST: Final = 1 << 20
_LOG_SHRINK: Final = 8
_NO_RESERVE: Final = 0x4000
_STATISTICS: Final = 4
_UNREPRESENTABLE: Final = 524
"""ENOTSUPP, the kernel's own number: a JIT that gave up."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What BPF_PROG_LOAD wants to know beside the instructions.

    Attributes:
        prog_type: the kind of program.
        attach_type: where it will attach, for types whose rules depend on it; of struct_ops
            the member of the kernel's table.
        license: as the object's section has it.
        flags: BPF_F_* bits, see `ProgFlag`.
        kernel_version: for kprobes on kernels before 5.0.
        name: the kernel keeps 15 characters.
        attach_btf_id: what it attaches to, in the kernel's types.
        attach_fd: the program or module that attach_btf_id is of; 0 for the kernel itself.
        btf_fd: the program's own types; 0 loads it without func_info and line_info.
        log_level: 1, 2 (every state) or 4 (statistics), for the log of a refused program.
        keep_log: ask for a log of a program that loads, too.
        mode: "jit", or "jit+harden" with all constants blinded.
    """

    prog_type: ProgType
    attach_type: int = 0
    license: str = "GPL"
    flags: int = 0
    kernel_version: int = 0
    name: str = ""
    attach_btf_id: int = 0
    attach_fd: int = 0
    btf_fd: int = 0
    log_level: int = 1
    keep_log: bool = False
    mode: Mode = "jit"


def submit(program: Program, options: LoadOptions) -> tuple[int, str]:
    """Load a program whose instructions are as the kernel wants them.

    A log costs the verifier time: it is asked for in a second go, when the first failed.

    Returns:
        The descriptor, and the log if it was to be kept.

    Raises:
        VerifierError: the verifier refused it.
        KernelError: the kernel refused it before or after that.
        OptionError: there is no such mode.
    """
    if options.mode not in MODES:
        raise OptionError(f"there is no mode {options.mode!r}; choose one of {', '.join(MODES)}")
    fields = _fields(program, options)
    with harden(2) if options.mode == "jit+harden" else nullcontext():
        if options.keep_log:
            return _with_log(program, options, fields, _LOG_MAX)
        try:
            return bpf(Cmd.PROG_LOAD, **fields)[0], ""
        except OSError as error:
            if not options.log_level:
                raise _refused(error, options) from error
            first = error
        if first.errno == errno.E2BIG:
            # A million steps were too few: no single one is to blame, and no list of them helps.
            options = replace(options, log_level=_STATISTICS)
        # Whether it fails the same way again is for the second go to say.
        fd, _ = _with_log(program, options, fields, _LOG_TAIL, first)
        return fd, ""


def _fields(program: Program, options: LoadOptions) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "prog_type": int(options.prog_type),
        "insn_cnt": len(program),
        "insns": np.ascontiguousarray(program.insns),
        "license": options.license.encode() + b"\0",
        "kern_version": options.kernel_version,
        "prog_flags": options.flags,
        "prog_name": object_name(options.name),
        "expected_attach_type": options.attach_type,
        "attach_btf_id": options.attach_btf_id,
        "attach_prog_fd": options.attach_fd,
    }
    if not options.btf_fd:
        return fields
    fields["prog_btf_fd"] = options.btf_fd
    for name, rows in (("func_info", func_info(program)), ("line_info", line_info(program))):
        if rows.size:
            fields[name] = rows
            fields[f"{name}_rec_size"] = rows.itemsize
            fields[f"{name}_cnt"] = rows.size
    return fields


def _with_log(
    program: Program,
    options: LoadOptions,
    fields: dict[str, Any],
    size: int,
    first: OSError | None = None,
) -> tuple[int, str]:
    """The same with room for a log.

    How long it will be is known only afterwards, and each load is another verification. So there
    is room for all of it, in memory that is taken up as the kernel writes to it.

    Args:
        program: see `submit`.
        options: the same.
        fields: of the call.
        size: bytes of room. Of a log that is longer the kernel keeps the end, from Linux 6.4 on.
        first: how the program was refused without a log.
    """
    with _room(size) as room:
        log = np.frombuffer(room, "u1")
        ask: dict[str, Any] = {
            "log_level": options.log_level or 1,
            "log_size": log.size,
            "log_buf": log,
        }
        try:
            fd, _ = bpf(Cmd.PROG_LOAD, **fields, **ask)
            return fd, _text(room)
        except OSError as error:
            error.__traceback__ = None  # its frames hold views of the room, which would stay
            is_cut = error.errno == errno.ENOSPC
            keeps_end = bool(error.attr["log_true_size"])  # type: ignore[attr-defined]  # `bpf`
            text = _text(room)
            failed = first if is_cut and keeps_end and first is not None else error
        finally:
            ask.clear()
            del log
    if is_cut and not keeps_end and size < _LOG_MAX:
        return _with_log(program, options, fields, _LOG_MAX, first)
    raise _explained(failed, text.partition("\n")[2] if is_cut else text, program, options)


@contextmanager
def _room(size: int) -> Iterator[mmap.mmap]:
    """So many bytes of memory, or as many as there can be, which cost nothing until written."""
    while True:
        try:
            room = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
            break
        except OSError:
            if size <= _LOG_LEAST:
                raise
            size //= _LOG_SHRINK
    try:
        yield room
    finally:
        with suppress(BufferError):  # an exception's traceback may still hold a view
            room.close()


def _text(room: mmap.mmap) -> str:
    """What is in there up to the first 0; what comes after it is not even looked at."""
    end = room.find(b"\0")
    with memoryview(room) as view:
        return str(view[: end if end >= 0 else len(room)], "utf-8", "replace")


def _explained(error: OSError, log: str, program: Program, options: LoadOptions) -> KernelError:
    summary = summarize(log)
    # An accepted program may still be refused by the JIT, with a log that complains of nothing.
    if not summary.message or error.errno == _UNREPRESENTABLE:
        return _refused(error, options)
    where = None if summary.slot is None else program.where(summary.slot)
    return VerifierError(error.errno or 0, summary.message, log, where)


def _refused(error: OSError, options: LoadOptions) -> KernelError:
    what = f"loading {options.name or 'a program'} as {options.prog_type.text}"
    if error.errno == _UNREPRESENTABLE:
        return refused(
            error,
            what,
            "the kernel does not support it, or its JIT gave up, as when "
            "blinding stretches a jump too far",
        )
    if error.errno == errno.E2BIG:
        return refused(error, what, "more instructions than the kernel takes, 1,000,000")
    return refused(error, what)
