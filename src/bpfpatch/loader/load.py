"""Load one program."""

from __future__ import annotations

from dataclasses import replace

from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.bpf.loadedbtf import LoadedBtf, load_btf
from bpfpatch.bpf.submit import LoadOptions, Mode, submit
from bpfpatch.btf import Btf
from bpfpatch.elf import LinkedProgram
from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import AttachType, ProgType
from bpfpatch.facts.sections import section_kind
from bpfpatch.program import Program

from . import attach
from .externs import Needs
from .relocate import resolve


def load(
    program: Program | LinkedProgram,
    *,
    prog_type: ProgType | str | None = None,
    attach_type: AttachType | str | int | None = None,
    license: str | None = None,
    needs: Needs | None = None,
    btf: Btf | LoadedBtf | None = None,
    log_level: int = 1,
    keep_log: bool = False,
    flags: int = 0,
    kernel_version: int = 0,
    name: str | None = None,
    attach_btf_id: int | None = None,
    mode: Mode = "jit",
) -> LoadedProgram:
    """Load a flat program, or what `ElfObject.link` gave, into the kernel.

    For a whole object with its maps see `open_object`; this is the call that it makes.

    Args:
        program: a flat program goes in as it is. Of a linked one the relocations and CO-RE
            records are applied first.
        prog_type: the kind, as `ProgType` or by name; a linked program's section tells it,
            otherwise it is a socket filter.
        attach_type: as `AttachType`, by name or number; a linked program's section tells it.
        license: a linked program's own, otherwise GPL.
        needs: maps and other things that a linked program's relocations are against.
        btf: the types that func_info, line_info and CO-RE records refer to. A `Btf` is
            loaded for the occasion, as it is.
        log_level: how much the verifier writes about a program that it refuses; 0 is nothing.
        keep_log: keep the log of a program that loads, too, in `LoadedProgram.log`.
        flags: `ProgFlag` bits, beside those that the section asks for.
        kernel_version: for kprobes on kernels before 5.0.
        name: the main subprog's name otherwise.
        attach_btf_id: what a tracing program attaches to; the section tells it otherwise.
        mode: "jit", or "jit+harden" to have all constants blinded.

    Raises:
        VerifierError: the verifier refused it.
        KernelError: the kernel refused it, or something that it needs is not there.
        CoreRelocationError: a CO-RE record does not fit its instruction.
        OptionError: the arguments make no sense.
    """
    kind = section_kind(program.section) if isinstance(program, LinkedProgram) else None
    options = LoadOptions(
        prog_type=_type_of(prog_type, kind.type if kind else ProgType.SOCKET_FILTER, program),
        license="GPL",
        flags=flags | (kind.flags if kind else 0),
        kernel_version=kernel_version,
        log_level=log_level,
        keep_log=keep_log,
        mode=mode,
    )
    if attach_type is not None:
        options = replace(options, attach_type=_number(attach_type))
    elif kind is not None and options.prog_type is kind.type:
        options = replace(options, attach_type=int(kind.attach_type))
    if attach_btf_id is None and kind is not None and options.prog_type is kind.type:
        attach_btf_id = attach.attach_btf_id(kind)
    options = replace(options, attach_btf_id=attach_btf_id or 0)
    if isinstance(program, LinkedProgram):
        needs = needs or Needs()
        if needs.btf is None:
            needs = replace(needs, btf=btf.btf if isinstance(btf, LoadedBtf) else btf)
        flat = resolve(program, needs)
        options = replace(options, name=name or program.name, license=program.license)
    else:
        _check_flat(program)
        flat = program
        options = replace(options, name=name or (flat.subprogs.names or ("",))[0])
    if license is not None:
        options = replace(options, license=license)
    return _submit(flat, options, btf)


def _type_of(
    given: ProgType | str | None, found: ProgType | None, program: Program | LinkedProgram
) -> ProgType:
    if given is not None:
        return ProgType.of(given)
    if found is None:
        section = program.section if isinstance(program, LinkedProgram) else ""
        raise OptionError(
            f"section {section!r} does not tell what kind of program this is; give prog_type"
        )
    return found


def _number(attach_type: AttachType | str | int) -> int:
    return int(AttachType.of(attach_type)) if isinstance(attach_type, str) else int(attach_type)


def _check_flat(program: Program) -> None:
    if program.external.size:
        where = program.where(int(program.external[0]))
        raise OptionError(
            f"{where} has a relocation; load what ElfObject.link() gives, not the object's code"
        )


def _submit(flat: Program, options: LoadOptions, btf: Btf | LoadedBtf | None) -> LoadedProgram:
    if isinstance(btf, Btf):
        with load_btf(btf) as own:
            return _submit(flat, options, own)
    if btf is not None:
        options = replace(options, btf_fd=btf.fd)
    fd, log = submit(flat, options)
    types = None if btf is None else btf.btf
    return LoadedProgram(fd, options.name, options.prog_type, flat, log, options, types)
