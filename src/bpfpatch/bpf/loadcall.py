"""A BPF_PROG_LOAD that another process has made: read it, and make it in its place.

Everything that it refers to is copied (memory) or taken over (descriptors), so that the
call can be made from here and mean the same.

Source: linux v6.18, kernel/bpf/syscall.c, __sys_bpf() and bpf_prog_load();
kernel/bpf/verifier.c, resolve_pseudo_ldimm64(), check_pseudo_btf_id(), fetch_kfunc_meta(),
check_btf_func_early(), check_btf_line(), check_core_relo() and bpf_check();
kernel/bpf/log.c, bpf_vlog_finalize().
"""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa

from .remote import CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN, Remote
from .seccomp import Notification
from .syscall import ATTRS, Cmd, Handle, bpf_with

_ATTR: Final = ATTRS[Cmd.PROG_LOAD]
_PAGE: Final = 4096
_LICENSE_MOST: Final = 127
_MOST_SLOTS: Final = 1_000_000
_MOST_ROWS: Final = 1 << 22
_MOST_FDS: Final = 1 << 16
_TOKEN_FLAG: Final = 1 << 16  # BPF_F_TOKEN_FD
_UNTOLD: Final = 0xFFFFFFFF
_AGAIN: Final = 5


FUNC_ROW: Final = np.dtype([("insn_off", "<u4"), ("type_id", "<u4")])
LINE_ROW: Final = np.dtype(
    [("insn_off", "<u4"), ("file_name_off", "<u4"), ("line_off", "<u4"), ("line_col", "<u4")]
)
CORE_ROW: Final = np.dtype(
    [("insn_off", "<u4"), ("type_id", "<u4"), ("access_str_off", "<u4"), ("kind", "<u4")]
)


class NotOursError(Exception):
    """A call that has to be made by the process itself; the text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedCode:
    """What a program is loaded from.

    Attributes:
        insns: (n,) `isa.INSN`, with descriptors of ours.
        func_info: (m,) `FUNC_ROW`.
        line_info: (k,) `LINE_ROW`.
        core_relo: (r,) `CORE_ROW`, for the kernel to apply; ``insn_off`` is in bytes.
    """

    insns: isa.Insns
    func_info: NDArray[Any]
    line_info: NDArray[Any]
    core_relo: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class CallVerdict:
    """What the kernel said to a load.

    Attributes:
        handle: the program, where it was loaded.
        errno: 0 where it was.
        log: what the verifier wrote, with the NUL at its end, as far as there was room.
        log_true_size: what the kernel says that the log takes; None where it said nothing.
        seconds: how long the call took.
    """

    handle: Handle | None
    errno: int
    log: NDArray[np.uint8]
    log_true_size: int | None
    seconds: float

    @property
    def text(self) -> str:
        """The log as text."""
        return self.log.tobytes().split(b"\0")[0].decode("utf-8", "replace")


class LoadCall:
    """One call, with all that it refers to, for the length of a ``with`` block.

    Attributes:
        attr: (1,) its attributes, with descriptors of ours and addresses of its own.
        code: what it loads.
        license: its licence, without NUL.
        fds: ours for each of its descriptors.
        fd_array: (k,) int32 of our descriptors, where it has given an array of them.
    """

    def __init__(self, remote: Remote, one: Notification) -> None:
        """Read it.

        Raises:
            NotOursError: it is to be let through.
            OSError: the process is gone.
        """
        self.remote = remote
        self.fds: dict[int, Handle] = {}
        self._stack = ExitStack()
        self._at = one.address
        try:
            self._read(one.size)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all that was taken over; a second time is fine."""
        self._stack.close()

    def _read(self, size: int) -> None:
        self.attr, self._size = self._attributes(size)
        row = self.attr[0]
        self._check(row)
        self.license = self._string(int(row["license"]))
        insns = self._rows(int(row["insns"]), isa.INSN, int(row["insn_cnt"]), 8)
        self.code = LoadedCode(
            insns,
            self._records(row, "func_info", FUNC_ROW),
            self._records(row, "line_info", LINE_ROW),
            self._records(row, "core_relo", CORE_ROW),
        )
        self._take_over(row, insns)

    def _attributes(self, size: int) -> tuple[NDArray[Any], int]:
        if not 0 < size <= _PAGE:
            raise NotOursError("its attributes have a size that the kernel does not take")
        data = self._memory(self._at, size)
        if data[_ATTR.itemsize :].any():
            raise NotOursError("its attributes have fields that are not known here")
        attr = np.zeros(_ATTR.itemsize, "u1")
        attr[: min(size, attr.size)] = data[: attr.size]
        return attr.view(_ATTR), size

    def _check(self, row: Any) -> None:
        if int(row["signature"]):
            raise NotOursError("it is signed")
        if not 0 < int(row["insn_cnt"]) <= _MOST_SLOTS:
            raise NotOursError("its number of instructions is not one that the kernel takes")
        is_by_token = bool(int(row["prog_flags"]) & _TOKEN_FLAG)
        if not is_by_token and _may(self.remote.capabilities()) != _WANTED:
            raise NotOursError("its process has fewer privileges than a load from here would have")

    def _memory(self, address: int, size: int) -> NDArray[np.uint8]:
        try:
            return self.remote.read(address, size)
        except OSError as error:
            raise NotOursError("its memory cannot be read") from error

    def _string(self, address: int) -> bytes:
        try:
            return self.remote.read_string(address, _LICENSE_MOST)
        except OSError as error:
            raise NotOursError("its memory cannot be read") from error

    def _rows(self, address: int, dtype: np.dtype[Any], count: int, size: int) -> NDArray[Any]:
        """Records of ``size`` bytes, of which the first fields are known here."""
        if not count:
            return np.zeros(0, dtype)
        if size < dtype.itemsize or size > 252 or count > _MOST_ROWS:
            raise NotOursError("its records have a size that the kernel does not take")
        data = self._memory(address, count * size).reshape(count, size)
        if data[:, dtype.itemsize :].any():
            raise NotOursError("its records have fields that are not known here")
        return np.ascontiguousarray(data[:, : dtype.itemsize]).reshape(-1).view(dtype)

    def _records(self, row: Any, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        address = int(row["core_relos" if name == "core_relo" else name])
        return self._rows(address, dtype, int(row[f"{name}_cnt"]), int(row[f"{name}_rec_size"]))

    # Descriptors.

    def _take(self, fd: int) -> int:
        if fd not in self.fds:
            try:
                self.fds[fd] = self._stack.enter_context(self.remote.take(fd))
            except OSError as error:
                raise NotOursError(f"its descriptor {fd} cannot be taken over") from error
        return self.fds[fd].fd

    def _take_over(self, row: Any, insns: isa.Insns) -> None:
        has_records = any(
            int(row[name]) for name in ("func_info_cnt", "line_info_cnt", "core_relo_cnt")
        )
        if int(row["prog_btf_fd"]) or has_records:
            self.attr["prog_btf_fd"] = self._take(int(row["prog_btf_fd"]))
        if int(row["attach_prog_fd"]):
            self.attr["attach_prog_fd"] = self._take(int(row["attach_prog_fd"]))
        if int(row["prog_flags"]) & _TOKEN_FLAG:
            self.attr["prog_token_fd"] = self._take(int(row["prog_token_fd"]))
        pseudo = isa.Pseudo
        for slot in _sites(insns, pseudo.MAP_FD, pseudo.MAP_VALUE).tolist():
            insns["imm"][slot] = self._take(int(insns["imm"][slot]))
        indexed = _sites(insns, pseudo.MAP_IDX, pseudo.MAP_IDX_VALUE)
        self._take_array(row, insns, indexed, np.flatnonzero(isa.is_kfunc_call(insns)))
        for slot in _sites(insns, pseudo.BTF_ID).tolist():
            if insns["imm"][slot + 1]:
                insns["imm"][slot + 1] = self._take(int(insns["imm"][slot + 1]))

    def _take_array(
        self, row: Any, insns: isa.Insns, indexed: NDArray[Any], kfuncs: NDArray[Any]
    ) -> None:
        """Descriptors that instructions have by their index in an array.

        Maps are named by their descriptors afterwards, as most loaders do.
        """
        indices, offs = insns["imm"][indexed], insns["off"][kfuncs]
        used = {*indices.tolist(), *(off for off in offs.tolist() if off)}
        count = int(row["fd_array_cnt"])
        if (used and min(used) < 0) or max(used, default=0) >= _MOST_FDS or count > _MOST_FDS:
            raise NotOursError("it refers to a descriptor beyond its array")
        n_fds = max(count, max(used, default=-1) + 1)
        given = self._rows(int(row["fd_array"]), np.dtype("<i4"), n_fds, 4)
        self.fd_array = np.zeros(n_fds, "<i4")
        for index in used | set(range(count)):
            self.fd_array[index] = self._take(int(given[index]))
        insns["imm"][indexed] = self.fd_array[indices]
        insns["regs"][indexed] -= (isa.Pseudo.MAP_IDX - isa.Pseudo.MAP_FD) << 4

    # Making the call.

    def make(self, code: LoadedCode | None = None, log_level: int | None = None) -> CallVerdict:
        """Make the call.

        Args:
            code: what to load instead of its own.
            log_level: for a log of our own, as long as it takes; by default the log is as the
                process wants it.
        """
        if log_level is None:
            row = self.attr[0]
            level = int(row["log_level"])
            room = int(row["log_size"]) if level and int(row["log_buf"]) else 0
            return self._make(code or self.code, level, int(row["log_size"]), room)
        size = 1 << 20
        while True:
            verdict = self._make(code or self.code, log_level, size, size)
            if verdict.errno != errno.ENOSPC or size >= 1 << 28:
                return verdict
            size *= 8

    def _make(self, code: LoadedCode, level: int, log_size: int, room: int) -> CallVerdict:
        attr = self.attr.copy()
        log = np.zeros(room, "u1")
        license_ = np.frombuffer(self.license + b"\0", "u1")
        insns = np.ascontiguousarray(code.insns)
        attr["insns"], attr["insn_cnt"] = insns.ctypes.data, len(insns)
        attr["license"] = license_.ctypes.data
        attr["log_level"], attr["log_size"] = level, log_size
        # An address is judged by the kernel, also where it is none.
        attr["log_buf"] = log.ctypes.data if room else self.attr["log_buf"]
        attr["log_true_size"] = _UNTOLD
        for name, address, rows in (
            ("func_info", "func_info", code.func_info),
            ("line_info", "line_info", code.line_info),
            ("core_relo", "core_relos", code.core_relo),
        ):
            attr[address] = rows.ctypes.data if rows.size else 0
            attr[f"{name}_cnt"] = rows.size
            if rows.size:
                attr[f"{name}_rec_size"] = rows.dtype.itemsize
        attr["fd_array"] = self.fd_array.ctypes.data if self.fd_array.size else 0
        fd, number, seconds = self._call(attr)
        told = int(attr["log_true_size"][0])
        true_size = None if told == _UNTOLD else told
        handle = None if fd is None else Handle(fd)
        return CallVerdict(handle, number, _written(log, true_size), true_size, seconds)

    def _call(self, attr: NDArray[Any]) -> tuple[int | None, int, float]:
        """(descriptor, error number, seconds)."""
        for _ in range(_AGAIN):
            began = time.perf_counter()
            try:
                if int(attr["prog_ifindex"][0]):
                    with self.remote.network():
                        fd = bpf_with(Cmd.PROG_LOAD, attr)
                else:
                    fd = bpf_with(Cmd.PROG_LOAD, attr)
            except OSError as error:
                spent = time.perf_counter() - began
                # A signal to us is none to the process.
                if error.errno == errno.EAGAIN:
                    continue
                return None, error.errno or errno.EINVAL, spent
            return fd, 0, time.perf_counter() - began
        return None, errno.EAGAIN, spent

    def write_back(self, verdict: CallVerdict) -> None:
        """Put into the process's memory what the kernel would have written there.

        Raises:
            OSError: EFAULT, where the kernel would have failed so, too.
        """
        row, failed = self.attr[0], None
        wants = int(row["log_level"]) and int(row["log_buf"])
        log = verdict.log[: int(row["log_size"]) if wants else 0].copy()
        if log.size:
            log[-1] = 0
            try:
                self.remote.write(int(row["log_buf"]), log)
            except OSError as error:
                failed = error
        fields = _ATTR.fields
        assert fields is not None
        at = int(fields["log_true_size"][1])
        true_size = verdict.log_true_size
        if true_size is not None and self._size >= at + 4:
            true_size = true_size if int(row["log_level"]) else 0
            self.remote.write(self._at + at, np.array([true_size], "u4"))
        if failed is not None:
            raise failed


def _sites(insns: isa.Insns, *kinds: isa.Pseudo) -> NDArray[Any]:
    """(k,) slots of whole ld_imm64 of these kinds."""
    sites = np.flatnonzero(isa.is_pseudo(insns, *kinds))
    return sites[sites + 1 < len(insns)]


def _written(log: NDArray[np.uint8], true_size: int | None) -> NDArray[np.uint8]:
    """The part of a log's buffer that the kernel wrote to."""
    if true_size:
        return log[:true_size]
    if not log.size or not log[0]:
        return log[:0]
    nul = int(np.argmin(log)) if not log.all() else log.size - 1
    return log[: nul + 1]


_WANTED: Final = 1 << CAP_BPF | 1 << CAP_PERFMON | 1 << CAP_NET_ADMIN


def _may(capabilities: int) -> int:
    """What of bpf(2)'s capabilities a process has; CAP_SYS_ADMIN stands for each.

    Source: linux v6.18, include/linux/capability.h, bpf_capable() and perfmon_capable();
    kernel/bpf/syscall.c, bpf_net_capable().
    """
    return _WANTED if capabilities >> CAP_SYS_ADMIN & 1 else capabilities & _WANTED
