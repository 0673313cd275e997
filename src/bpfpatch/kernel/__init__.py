"""Programs in the running kernel: load them, run them, and read back what became of them.

::

    with kernel.open_object("lb.o") as lb:
        print(lb.programs["balance"].test_run(packet).retval)

    with kernel.load(bp.asm.assemble("r0 = 7; exit"), mode="jit+harden") as prog:
        print(prog.xlated())
"""

from bpfpatch.bpf.errors import CoreRelocationError, KernelError, VerifierError
from bpfpatch.bpf.harden import harden, unblinded
from bpfpatch.bpf.intercept import Interception, LoadOutcome, intercept
from bpfpatch.bpf.kallsyms import TextSymbols, text_symbols
from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.bpf.loadedbtf import LoadedBtf, load_btf, vmlinux_btf
from bpfpatch.bpf.loadrequest import Attempt, LoadRequest
from bpfpatch.bpf.log import LogSummary, summarize
from bpfpatch.bpf.map import Map, MapInfo, possible_cpus
from bpfpatch.bpf.mapfacts import map_facts, with_ld_map
from bpfpatch.bpf.origins import Origins, origins, with_slot_lines
from bpfpatch.bpf.proginfo import ProgInfo, stats
from bpfpatch.bpf.submit import MODES, Mode
from bpfpatch.bpf.testrun import RunResult, run_input
from bpfpatch.bpf.xlated import XlatedProgram, read_xlated
from bpfpatch.facts.kinds import AttachType, MapFlag, MapType, ProgFlag, ProgType
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.facts.sections import SectionKind, section_kind
from bpfpatch.linux.log.auxload import AuxLoad, load_object_with_aux, load_with_aux, with_aux
from bpfpatch.linux.log.auxlog import aux_from_log
from bpfpatch.linux.log.kernelzext import kernel_zext
from bpfpatch.loader.core import CoreTypes, apply_core, kernel_types
from bpfpatch.loader.externs import Needs
from bpfpatch.loader.kconfig import kconfig_content, kernel_config
from bpfpatch.loader.load import load
from bpfpatch.loader.mapspec import map_specs
from bpfpatch.loader.object import KernelObject, open_object
from bpfpatch.loader.preparebtf import prepare_btf
from bpfpatch.loader.probe import Probe, available, has_helper, has_map_type, has_prog_type, probe
from bpfpatch.loader.relocate import resolve
from bpfpatch.loader.subject import (
    Submitted,
    subject_of,
    submitted,
    submitted_of,
)

__all__ = [
    "MODES",
    "AttachType",
    "Attempt",
    "AuxLoad",
    "CoreRelocationError",
    "CoreTypes",
    "Interception",
    "KernelError",
    "KernelObject",
    "LoadOutcome",
    "LoadRequest",
    "LoadedBtf",
    "LoadedProgram",
    "LogSummary",
    "Map",
    "MapDefinition",
    "MapFlag",
    "MapInfo",
    "MapType",
    "Mode",
    "Needs",
    "Origins",
    "Probe",
    "ProgFlag",
    "ProgInfo",
    "ProgType",
    "RunResult",
    "SectionKind",
    "Submitted",
    "TextSymbols",
    "VerifierError",
    "XlatedProgram",
    "apply_core",
    "aux_from_log",
    "available",
    "harden",
    "has_helper",
    "has_map_type",
    "has_prog_type",
    "intercept",
    "kconfig_content",
    "kernel_config",
    "kernel_types",
    "kernel_zext",
    "load",
    "load_btf",
    "load_object_with_aux",
    "load_with_aux",
    "map_facts",
    "map_specs",
    "open_object",
    "origins",
    "possible_cpus",
    "prepare_btf",
    "probe",
    "read_xlated",
    "resolve",
    "run_input",
    "section_kind",
    "stats",
    "subject_of",
    "submitted",
    "submitted_of",
    "summarize",
    "text_symbols",
    "unblinded",
    "vmlinux_btf",
    "with_aux",
    "with_ld_map",
    "with_slot_lines",
]
