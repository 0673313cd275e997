"""Programs in the running kernel: load them, run them, and read back what became of them.

::

    with kernel.open_object("lb.o") as lb:
        print(lb.programs["balance"].test_run(packet).retval)

    with kernel.load(bp.asm.assemble("r0 = 7; exit"), mode="jit+harden") as prog:
        print(prog.xlated())
"""

from bpfpatch.facts.kinds import AttachType, MapFlag, MapType, ProgFlag, ProgType

from .core import KernelTypes, apply_core, kernel_types
from .errors import CoreRelocationError, KernelError, VerifierError
from .externs import Needs
from .harden import harden
from .kconfig import kconfig_content, kernel_config
from .load import load
from .loaded import LoadedProgram
from .loadedbtf import LoadedBtf, load_btf, vmlinux_btf
from .log import LogSummary, summarize
from .map import Map, MapInfo, possible_cpus
from .mapspec import MapSpec, map_specs
from .object import KernelObject, open_object
from .preparebtf import prepare_btf
from .probe import Probe, available, has_helper, has_map_type, has_prog_type, probe
from .proginfo import ProgInfo
from .relocate import resolve
from .sections import SectionKind, section_kind
from .stats import stats
from .submit import MODES, Mode
from .testrun import RunResult, run_input

__all__ = [
    "MODES",
    "AttachType",
    "CoreRelocationError",
    "KernelError",
    "KernelObject",
    "KernelTypes",
    "LoadedBtf",
    "LoadedProgram",
    "LogSummary",
    "Map",
    "MapFlag",
    "MapInfo",
    "MapSpec",
    "MapType",
    "Mode",
    "Needs",
    "Probe",
    "ProgFlag",
    "ProgInfo",
    "ProgType",
    "RunResult",
    "SectionKind",
    "VerifierError",
    "apply_core",
    "available",
    "harden",
    "has_helper",
    "has_map_type",
    "has_prog_type",
    "kconfig_content",
    "kernel_config",
    "kernel_types",
    "load",
    "load_btf",
    "map_specs",
    "open_object",
    "possible_cpus",
    "prepare_btf",
    "probe",
    "resolve",
    "run_input",
    "section_kind",
    "stats",
    "summarize",
    "vmlinux_btf",
]
