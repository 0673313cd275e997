"""Programs in the running kernel: load them, run them, and read back what became of them.

::

    with kernel.open_object("lb.o") as lb:
        print(lb.programs["balance"].test_run(packet).retval)

    with kernel.load(bp.asm.assemble("r0 = 7; exit"), mode="jit+harden") as prog:
        print(prog.xlated())
"""

from bpfpatch.elf.mapdefs import MapDefinition
from bpfpatch.facts.kinds import AttachType, MapFlag, MapType, ProgFlag, ProgType

from .auxload import AuxLoad, load_object_with_aux, load_with_aux, with_aux
from .auxlog import aux_from_log
from .core import KernelTypes, apply_core, kernel_types
from .errors import CoreRelocationError, KernelError, VerifierError
from .externs import Needs
from .harden import harden, unblinded
from .kallsyms import TextSymbols, text_symbols
from .kconfig import kconfig_content, kernel_config
from .kernelzext import kernel_zext
from .load import load
from .loaded import LoadedProgram
from .loadedbtf import LoadedBtf, load_btf, vmlinux_btf
from .log import LogSummary, summarize
from .map import Map, MapInfo, possible_cpus
from .mapspec import map_specs
from .object import KernelObject, open_object
from .origins import Origins, origins, with_slot_lines
from .preparebtf import prepare_btf
from .probe import Probe, available, has_helper, has_map_type, has_prog_type, probe
from .proginfo import ProgInfo
from .relocate import resolve
from .sections import SectionKind, section_kind
from .stats import stats
from .subject import Submitted, map_facts, subject_of, submitted, submitted_of, with_ld_map
from .submit import MODES, Mode
from .testrun import RunResult, run_input
from .xlated import XlatedProgram, read_xlated

__all__ = [
    "MODES",
    "AttachType",
    "AuxLoad",
    "CoreRelocationError",
    "KernelError",
    "KernelObject",
    "KernelTypes",
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
