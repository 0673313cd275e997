"""What can go wrong between a program and the kernel.

::

    BpfPatchError
    |-- KernelError            bpf(2), or something of the kernel's that it needs, said no
    |   `-- VerifierError      the verifier refused a program: has log, slot and where
    `-- SlotError
        `-- CoreRelocationError  a CO-RE record and its instruction do not fit each other
"""

from __future__ import annotations

import errno as numbers
from typing import Final

from bpfpatch.errors import BpfPatchError, SlotError, Where

#: Numbers of the kernel's own that reach user space all the same (include/linux/errno.h).
_NAMES: Final = {524: "ENOTSUPP", 512: "ERESTARTSYS"}


class KernelError(BpfPatchError):
    """The kernel refused something.

    Attributes:
        errno: the error's number; 0 where no system call was made.
        name: the error's name, such as ``EPERM``, or "".
        what: the sentence without it.
    """

    def __init__(self, errno: int, what: str) -> None:
        self.errno = errno
        self.name = _NAMES.get(errno) or numbers.errorcode.get(errno, "")
        self.what = what
        super().__init__(f"{what}: {self.name}" if self.name else what)


class VerifierError(KernelError):
    """The verifier refused a program; the message is one line, the log has all.

    Attributes:
        message: what the verifier complained about.
        log: everything that it said.
        slot: the instruction that it stopped at, or None where it names none.
        where: the same with subprog, source line and text.
    """

    def __init__(self, errno: int, message: str, log: str, where: Where | None) -> None:
        super().__init__(errno, message if where is None else f"{where}: {message}")
        self.message = message
        self.log = log
        self.where = where
        self.slot = None if where is None else where.slot


class CoreRelocationError(SlotError):
    """A CO-RE record cannot be applied to its instruction."""
