"""Loads an object with our own loader, runs its programs, and prints what they return.

Run as a script: ``python runner.py OBJECT``. It freezes constants, fills program arrays, and
replaces a global function by an extension, by its id in the loaded program's types.
"""

from __future__ import annotations

import sys

import numpy as np

from bpfpatch import ElfObject, asm, kernel
from bpfpatch.bpf.submit import LoadOptions, submit
from bpfpatch.bpf.syscall import Handle
from bpfpatch.btf import Kind
from bpfpatch.errors import BpfPatchError
from bpfpatch.program import FUNC_INFO, Anchor, AnchoredTable, Program

HERE = __file__
PACKET = bytes(range(64))


def extension(target: kernel.LoadedProgram, btf: kernel.LoadedBtf, name: str) -> str:
    """What the kernel says to a function that is to replace one of a program."""
    (type_id,) = btf.btf.find(name, Kind.FUNC)
    rows = np.array([(type_id,)], [("type_id", "<u4")])
    table = AnchoredTable(np.zeros(1, np.int32), rows, Anchor.ENTRY, unique=True)
    code = asm.assemble("r0 = 0; exit")
    program = Program(code.insns, tables={FUNC_INFO: table})
    options = LoadOptions(
        kernel.ProgType.EXT, attach_btf_id=type_id, attach_fd=target.fd, btf_fd=btf.fd, name=name
    )
    try:
        fd, _ = submit(program, options)
    except kernel.KernelError as error:
        return error.name
    Handle(fd).close()
    return "loaded"


def main() -> None:
    """Load, run, print."""
    obj = ElfObject.read(sys.argv[1])
    with kernel.open_object(obj, name="run") as opened:
        for name, loaded in opened.programs.items():
            try:
                print(name, loaded.test_run(PACKET).retval)
            except BpfPatchError as error:
                print(name, str(error)[:60])
            info = obj.link(name).program.subprogs.names
            if opened.btf is not None and len(sys.argv) > 2:
                print([extension(loaded, opened.btf, one) for one in info if one in sys.argv[2:]])


if __name__ == "__main__":
    main()
