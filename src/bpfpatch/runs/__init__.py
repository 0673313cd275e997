"""One way to run a program in any mode: interpreter, JIT, JIT with blinding.

::

    with runs.open_runner(obj.link("balance"), "jit+harden", obj=obj) as runner:
        outcome = runner.run(runs.Input(packet=frame))
        outcome.r0, outcome.packet, outcome.maps["flows"]

What a run gives is put into one form, so that outcomes of different modes can
be compared; see `Outcome`.
"""

from bpfpatch.elf.setup import Setup, SetupEntry

from .memory import MEMORY_TYPES
from .model import MODES, Input, Mode, Outcome, action_name
from .pcap import Capture, PcapFrame, read_pcap, write_pcap
from .runner import Runner, available, open_runner

__all__ = [
    "MEMORY_TYPES",
    "MODES",
    "Capture",
    "Input",
    "Mode",
    "Outcome",
    "PcapFrame",
    "Runner",
    "Setup",
    "SetupEntry",
    "action_name",
    "available",
    "open_runner",
    "read_pcap",
    "write_pcap",
]
