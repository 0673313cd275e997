"""What the kernel tells of a loaded program.

Source: linux v6.1, include/uapi/linux/bpf.h, struct bpf_prog_info, and
kernel/bpf/syscall.c, bpf_prog_get_info_by_fd().
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.facts.kinds import ProgType

from .errors import KernelError
from .syscall import Cmd, Handle, bpf, refused

_INFO: Final = np.dtype(
    [
        ("type", "u4"),
        ("id", "u4"),
        ("tag", "V8"),
        ("jited_prog_len", "u4"),
        ("xlated_prog_len", "u4"),
        ("jited_prog_insns", "u8"),
        ("xlated_prog_insns", "u8"),
        ("load_time", "u8"),
        ("created_by_uid", "u4"),
        ("nr_map_ids", "u4"),
        ("map_ids", "u8"),
        ("name", "S16"),
        ("ifindex", "u4"),
        ("gpl_compatible", "u4"),
        ("netns_dev", "u8"),
        ("netns_ino", "u8"),
        ("nr_jited_ksyms", "u4"),
        ("nr_jited_func_lens", "u4"),
        ("jited_ksyms", "u8"),
        ("jited_func_lens", "u8"),
        ("btf_id", "u4"),
        ("func_info_rec_size", "u4"),
        ("func_info", "u8"),
        ("nr_func_info", "u4"),
        ("nr_line_info", "u4"),
        ("line_info", "u8"),
        ("jited_line_info", "u8"),
        ("nr_jited_line_info", "u4"),
        ("line_info_rec_size", "u4"),
        ("jited_line_info_rec_size", "u4"),
        ("nr_prog_tags", "u4"),
        ("prog_tags", "u8"),
        ("run_time_ns", "u8"),
        ("run_cnt", "u8"),
        ("recursion_misses", "u8"),
        ("verified_insns", "u4"),
        ("attach_btf_obj_id", "u4"),
        ("attach_btf_id", "u4"),
    ],
    align=True,
)
FUNC_INFO: Final = np.dtype([("insn_off", "u4"), ("type_id", "u4")])
LINE_INFO: Final = np.dtype(
    [("insn_off", "u4"), ("file_name_off", "u4"), ("line_off", "u4"), ("line_col", "u4")]
)

# Each array: where its address, count and record size go, and what a record is.
_ARRAYS: Final[dict[str, tuple[str, str, np.dtype[Any]]]] = {
    "map_ids": ("nr_map_ids", "", np.dtype("u4")),
    "jited_ksyms": ("nr_jited_ksyms", "", np.dtype("u8")),
    "jited_func_lens": ("nr_jited_func_lens", "", np.dtype("u4")),
    "func_info": ("nr_func_info", "func_info_rec_size", FUNC_INFO),
    "line_info": ("nr_line_info", "line_info_rec_size", LINE_INFO),
    "jited_line_info": ("nr_jited_line_info", "jited_line_info_rec_size", np.dtype("u8")),
    "xlated_prog_insns": ("xlated_prog_len", "", np.dtype("u1")),
    "jited_prog_insns": ("jited_prog_len", "", np.dtype("u1")),
}


@dataclass(frozen=True, slots=True, eq=False)
class ProgInfo:
    """A loaded program, as the kernel describes it.

    Attributes:
        id: its number.
        name: up to 15 characters.
        type: its kind.
        tag: 8 bytes of its digest, in hex.
        map_ids: (k,) of the maps that it uses.
        btf_id: of its BTF, or 0.
        xlated_len: slots of the program as the verifier left it.
        jited_len: bytes of machine code; 0 without JIT.
        jited_addrs: (m,) address of each subprog's machine code.
        jited_lens: (m,) bytes of each.
        func_info: (m,) `FUNC_INFO`, slots of the xlated program.
        line_info: (k,) `LINE_INFO`, slots of the xlated program.
        jited_line_info: (k,) address of each line's machine code.
        run_time_ns: time spent in it while statistics were on, see `stats`.
        run_cnt: how often it ran while statistics were on.
        recursion_misses: how often it did not run since it was running already.
        verified_insns: instructions that the verifier processed.
        load_time_ns: when it was loaded, since boot.
        uid: who loaded it.
        is_gpl: whether its licence is one that helpers for GPL programs accept.
    """

    id: int
    name: str
    type: ProgType
    tag: str
    map_ids: NDArray[Any]
    btf_id: int
    xlated_len: int
    jited_len: int
    jited_addrs: NDArray[Any]
    jited_lens: NDArray[Any]
    func_info: NDArray[Any]
    line_info: NDArray[Any]
    jited_line_info: NDArray[Any]
    run_time_ns: int
    run_cnt: int
    recursion_misses: int
    verified_insns: int
    load_time_ns: int
    uid: int
    is_gpl: bool


def prog_info(fd: int) -> ProgInfo:
    """Ask for everything but the code.

    Raises:
        KernelError: the kernel refused.
    """
    row, arrays = _ask(
        fd,
        "map_ids",
        "jited_ksyms",
        "jited_func_lens",
        "func_info",
        "line_info",
        "jited_line_info",
    )
    return ProgInfo(
        id=int(row["id"]),
        name=bytes(row["name"]).decode("ascii", "replace"),
        type=ProgType.of(int(row["type"])),
        tag=row["tag"].tobytes().hex(),
        map_ids=arrays["map_ids"],
        btf_id=int(row["btf_id"]),
        xlated_len=int(row["xlated_prog_len"]) // isa.INSN_SIZE,
        jited_len=int(row["jited_prog_len"]),
        jited_addrs=arrays["jited_ksyms"],
        jited_lens=arrays["jited_func_lens"],
        func_info=arrays["func_info"],
        line_info=arrays["line_info"],
        jited_line_info=arrays["jited_line_info"],
        run_time_ns=int(row["run_time_ns"]),
        run_cnt=int(row["run_cnt"]),
        recursion_misses=int(row["recursion_misses"]),
        verified_insns=int(row["verified_insns"]),
        load_time_ns=int(row["load_time"]),
        uid=int(row["created_by_uid"]),
        is_gpl=bool(row["gpl_compatible"] & 1),
    )


def prog_xlated(fd: int) -> isa.Insns:
    """The program as the verifier left it; see `LoadedProgram.xlated`."""
    row, arrays = _ask(fd, "xlated_prog_insns")
    if not row["xlated_prog_insns"]:
        raise KernelError(
            errno.EPERM,
            "the kernel withholds the code of a blinded program; reading it needs CAP_SYSLOG and "
            "kernel.kptr_restrict below 2",
        )
    return isa.from_bytes(arrays["xlated_prog_insns"].tobytes())


def prog_jited(fd: int) -> bytes:
    """The machine code of all subprogs, one after the other; see `LoadedProgram.jited`."""
    row, arrays = _ask(fd, "jited_prog_insns")
    if int(row["jited_prog_len"]) and not row["jited_prog_insns"]:
        raise KernelError(errno.EPERM, "the kernel withholds machine code; it needs CAP_SYSLOG")
    return arrays["jited_prog_insns"].tobytes()


def _ask(fd: int, *wanted: str) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """(info, arrays by name): first for sizes, then with room for the arrays."""
    first = _get(fd, np.zeros(1, _INFO))
    ask = np.zeros(1, _INFO)
    arrays = {}
    for name in wanted:
        count, size, dtype = _ARRAYS[name]
        room = int(first[count])
        arrays[name] = np.zeros(room, dtype)
        if not room:
            continue
        ask[count] = room
        ask[name] = arrays[name].ctypes.data
        if size:
            ask[size] = dtype.itemsize
    return _get(fd, ask), arrays


def _get(fd: int, ask: NDArray[Any]) -> NDArray[Any]:
    try:
        bpf(Cmd.OBJ_GET_INFO_BY_FD, bpf_fd=fd, info_len=ask.itemsize, info=ask)
    except OSError as error:
        hint = "its code is longer than the kernel hands out, 524,288 slots"
        raise refused(
            error, "asking for a program's info", hint if error.errno == errno.ENOMEM else ""
        ) from error
    row: NDArray[Any] = ask[0]
    return row


# Statistics of programs, counted while they are asked for.

_RUN_TIME = 0


@contextmanager
def stats() -> Iterator[None]:
    """Have the kernel count runs and their time for the length of a ``with`` block.

    Counts of all programs on the machine grow meanwhile; see `ProgInfo.run_cnt`.

    Raises:
        KernelError: the kernel refused.
    """
    try:
        fd, _ = bpf(Cmd.ENABLE_STATS, type=_RUN_TIME)
    except OSError as error:
        raise refused(error, "turning statistics on") from error
    with Handle(fd):
        yield
