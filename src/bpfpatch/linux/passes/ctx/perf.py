"""bpf_perf_event_data.

Source: linux v6.18, kernel/trace/bpf_trace.c, pe_prog_convert_ctx_access().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts import ProgType

from .registry import register_context
from .table import WORD, ContextField, ContextTable

_UAPI: Final = "bpf_perf_event_data"
_KERN: Final = "bpf_perf_event_data_kern"


def _sample(name: str, member: str) -> ContextField:
    # The registers come first, and their number is the processor's: so is the place.
    path = f"{_UAPI}.{name}"
    return ContextField(name, path, 8, f"{_KERN}.data -> perf_sample_data.{member}", is_narrow=True)


PERF_EVENT: Final = register_context(
    ContextTable(
        "bpf_perf_event_data",
        (
            ContextField(
                "regs", 0, f"{_UAPI}.regs", f"{_KERN}.regs -> 0", unit=WORD, is_sized=True
            ),
            _sample("sample_period", "period"),
            _sample("addr", "addr"),
        ),
        uapi="struct bpf_perf_event_data",
        is_internal=True,
    ),
    [ProgType.PERF_EVENT],
)
