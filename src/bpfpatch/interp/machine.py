"""The simulated machine: memory, maps, helpers, and a program to run on them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, Self, TypeAlias

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.isa import ByteOrder
from bpfpatch.program import Program

from . import helpers as _helpers
from .contexts import Context, Left, Plain, Skb, Xdp
from .errors import BadHelperUse
from .image import CompiledFunction, Image
from .maps import DataMap, ProgMap, SimulatedMap, make_map
from .memory import CODE_WINDOW, INSIDE, MAX_IMAGES, U64, WINDOW_BITS, Memory
from .packet import Packet
from .registry import BUILT_IN, BUILT_IN_KFUNCS, Helper, wrap

if TYPE_CHECKING:
    from bpfpatch.elf import ElfObject, LinkedProgram

_MAX_TAIL_CALLS: Final = 33
"""Source: linux v6.18, include/linux/bpf.h, MAX_TAIL_CALL_CNT."""
_IN_REGISTERS: Final = 5
_MAY_GOTO: Final = 8 * 1024 * 1024
"""Source: linux v6.18, include/linux/bpf_verifier.h, BPF_MAX_LOOPS."""

_SKF_NET_OFF: Final = -0x10_0000
_SKF_LL_OFF: Final = -0x20_0000

Engine: TypeAlias = Literal["compiled", "reference"]
Hook: TypeAlias = Callable[[int, tuple[int, ...]], None]


class Watch(Protocol):
    """What notes the branches that the machine's own program takes.

    Compiled code writes to it only where a branch is, which costs a tenth of a hook.

    Attributes:
        edges: how often each was taken: slot of the jump, slot where it went. The same
            dictionary all the time.
        hook: the same by a hook, for functions that are not compiled.
    """

    @property
    def edges(self) -> dict[tuple[int, int], int]: ...  # noqa: D102 - see the class

    @property
    def hook(self) -> Hook: ...  # noqa: D102 - see the class

    def compare(self, slot: int, left: int, right: int) -> None:
        """Note what a conditional jump compares, or a jump through a table takes."""


class HelperCall(NamedTuple):
    """One call of a helper or kfunc.

    Attributes:
        name: without ``bpf_``.
        args: the registers that it takes, from R1 on.
        result: R0, unsigned.
    """

    name: str
    args: tuple[int, ...]
    result: int


@dataclass(frozen=True, slots=True)
class MachineOutcome:
    """What a run gave.

    Attributes:
        r0: R0 at the last exit, unsigned.
        n_insns: how many instructions ran; an ld_imm64 counts as one.
        mem: plain memory as it is now, or b"".
        packet: the packet as it is now, or None.
        ctx: the context structure as it is now, or b"".
        trace: the helpers that were called, in order; empty where that is not recorded.
        printed: what trace_printk printed, a string a call.
        meta: the packet's metadata as it is now, or b"".
    """

    r0: int
    n_insns: int
    mem: bytes
    packet: bytes | None
    ctx: bytes
    trace: tuple[HelperCall, ...]
    printed: tuple[str, ...]
    meta: bytes = b""


@dataclass(frozen=True, slots=True)
class Environment:
    """What the machine is like, as far as helpers tell.

    Attributes:
        time_ns: the time at the start of a run.
        tick_ns: what each look at the clock adds to it.
        cpu: number of the processor.
        pid_tgid: of the current task.
        uid_gid: of the current task.
        comm: of the current task.
        cgroup_id: of the current task.
        task: address of the current task's structure.
        netns_cookie: of the packet's or socket's network namespace.
    """

    time_ns: int = 1_000_000_000
    tick_ns: int = 1000
    cpu: int = 0
    pid_tgid: int = 1000 << 32 | 1000
    uid_gid: int = 0
    comm: bytes = b"bpfpatch"
    cgroup_id: int = 1
    task: int = 0xFFFF_8880_0000_0000
    netns_cookie: int = 1


@dataclass(frozen=True, slots=True)
class MachineOptions:
    """What a machine is like, and what it does beside running.

    Attributes:
        byteorder: of the machine; of one for an object always the object's.
        seed: of get_prandom_u32.
        budget: instructions that a run may take, calls included.
        hook: called with slot and R0 to R11 before each instruction; this is slow.
        watch: notes branches, where there is no hook.
        engine: "reference" interprets without compiling.
        trace_helpers: record helper calls in the outcome.
        memory_limit: bytes of all regions together.
        fill: byte that a function's frame and a new ring buffer record start with.
        may_goto: how often a function's may_gotos fall through.
        environment: what helpers tell about the machine.
    """

    byteorder: ByteOrder = "little"
    seed: int = 0
    budget: int = 1_000_000
    hook: Hook | None = None
    watch: Watch | None = None
    engine: Engine = "compiled"
    trace_helpers: bool = True
    memory_limit: int = 64 << 20
    fill: int = 0
    may_goto: int = _MAY_GOTO
    environment: Environment = Environment()


_DEFAULT: Final = MachineOptions()


@dataclass(slots=True)
class _Run:
    """What belongs to one run only."""

    trace: list[HelperCall] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    tail_calls: int = 0


class Machine:
    """A program with memory, maps and helpers, that can be run any number of times.

    Maps keep their contents from run to run, everything else starts anew. The
    same input and seed give the same outcome.

    Args:
        program: flat code; its first slot is the entry.
        options: what it is like.
        maps: what ld_imm64 of a map's fd or index stands for, by that number.
        helpers: Python functions by helper number or name, in place of or beside
            those that are built in. They get the machine and R1 to R5.
        kfuncs: the same by BTF id or name.
        values: what the ld_imm64 at a slot loads, in place of what it says.
        calls: the helper, or name of the kfunc, that the call at a slot reaches.
    """

    def __init__(
        self,
        program: Program,
        options: MachineOptions = _DEFAULT,
        *,
        maps: Mapping[int, MapDefinition] | None = None,
        helpers: Mapping[int | str, Callable[..., int]] | None = None,
        kfuncs: Mapping[int | str, Callable[..., int]] | None = None,
        values: Mapping[int, int] | None = None,
        calls: Mapping[int, Helper | str] | None = None,
    ) -> None:
        self.byteorder: ByteOrder = options.byteorder
        self.seed = options.seed
        self.budget = options.budget
        self.hook = options.hook
        self.watch = options.watch if options.hook is None else None
        self.engine: Engine = options.engine
        self.trace_helpers = options.trace_helpers
        self.may_goto = options.may_goto
        self.environment = options.environment
        self.memory = Memory(options.byteorder, options.memory_limit, options.fill)
        self.arena = 0
        self.maps: dict[str, SimulatedMap] = {}
        self.packet: Packet | None = None
        self.context: Xdp | Skb | None = None
        self.left = options.budget
        self.depth = 0
        self.passed: dict[int, int] = {}
        self.now = self.environment.time_ns
        self._random: random.Random | None = None
        self._run = _Run()
        self._maps_by_address: dict[int, SimulatedMap] = {}
        self._maps_by_fd: dict[int, SimulatedMap] = {}
        self._helpers = {**BUILT_IN, **_given_helpers(helpers or {})}
        self._kfuncs: dict[int | str, Helper] = _given_kfuncs(kfuncs or {})
        for name, kfunc in BUILT_IN_KFUNCS.items():
            self._kfuncs.setdefault(name, kfunc)
        self._traced: dict[str, Callable[..., int]] = {}
        self._images: list[Image] = []
        for fd, spec in (maps or {}).items():
            self._maps_by_fd[fd] = self.add_map(spec)
        self.image = self.add_program(program, values or {}, calls or {})

    @classmethod
    def of_object(
        cls,
        obj: ElfObject,
        name: str | None = None,
        options: MachineOptions = _DEFAULT,
        **given: Any,
    ) -> Self:
        """A machine for a program of an object, with the object's maps and global data.

        Args:
            obj: the object.
            name: which of its programs; None for its only one.
            options: what the machine is like; its byte order is the object's.
            **given: as for the machine itself; and ``externs``, what variables of the kernel
                hold by name; ``adapt``, which makes a linked program's code fit; and ``setup``,
                a `bpfpatch.elf.Setup`: values of variables and entries of maps.

        Raises:
            LinkError: there is no such program.
            OptionError: the setup does not fit the object.
            UnsupportedError: its maps cannot be told.
        """
        from .objects import machine_of_object  # noqa: PLC0415 - it needs this class

        return machine_of_object(cls, obj, name, options, given)

    @classmethod
    def of_linked(
        cls,
        obj: ElfObject,
        linked: LinkedProgram,
        options: MachineOptions = _DEFAULT,
        **given: Any,
    ) -> Self:
        """The same for a program that was linked already, and perhaps patched.

        Raises:
            OptionError: the setup does not fit the object.
            UnsupportedError: the object's maps cannot be told.
        """
        from .objects import machine_of_linked  # noqa: PLC0415 - it needs this class

        return machine_of_linked(cls, obj, linked, options, given)

    # Setting up.

    def add_program(
        self,
        program: Program,
        values: Mapping[int, int] | None = None,
        calls: Mapping[int, Helper | str] | None = None,
    ) -> Image:
        """Put one more program on the machine, for tail calls."""
        if len(self._images) >= MAX_IMAGES:
            raise OptionError(f"a machine holds at most {MAX_IMAGES} programs")
        image = Image(self, program, len(self._images), values or {}, calls or {})
        self._images.append(image)
        return image

    def add_map(self, spec: MapDefinition) -> SimulatedMap:
        """Make a map; it is then in ``maps`` under its name, or its number where it has none."""
        number = len(self._maps_by_address)
        name = spec.name or str(number)
        return self._keep(make_map(self.memory, number, spec, name))

    def add_data(self, name: str, content: bytes, *, writable: bool) -> DataMap:
        """Make a section of global variables."""
        number = len(self._maps_by_address)
        made = DataMap(content, writable, self.memory, number, "array", name, 4, len(content), 1)
        self._keep(made)
        return made

    def _keep(self, made: SimulatedMap) -> SimulatedMap:
        self.maps[made.name] = made
        self._maps_by_address[made.address] = made
        return made

    def set_tail_call(self, map_name: str, index: int, image: Image) -> None:
        """Put a program into a program array."""
        found = self.maps.get(map_name)
        if not isinstance(found, ProgMap) or not 0 <= index < found.max_entries:
            raise OptionError(f"there is no program array {map_name!r} with an entry {index}")
        found.programs[index] = image.at(0)

    # Running.

    def run(
        self,
        context: Context | None = None,
        *,
        entry: int | str = 0,
        mem: bytes | None = None,
        r1: int | None = None,
        r2: int | None = None,
    ) -> MachineOutcome:
        """Run the program once.

        Args:
            context: what to run it on.
            entry: slot or name of the function to start with.
            mem: plain memory, in place of a context.
            r1: R1 at the start, in place of the context's address.
            r2: R2 at the start.

        Raises:
            TrapError: a stray access, or an instruction that cannot run.
            BudgetError: the budget is used up.
            HelperError: a helper is missing or cannot do what is asked.
        """
        context = Plain(mem or b"") if context is None else context
        self._run = _Run()
        self.passed = {}
        self._random = None
        self.now = self.environment.time_ns
        first, second = context.enter(self)
        first = first if r1 is None else r1 & U64
        second = second if r2 is None else r2 & U64
        slot = self._slot_of(entry)
        left = None
        try:
            r0, budget = self.image.at(slot)(self.budget, 0, 0, first, second, 0, 0, 0, 0, 0, 0, 0)
            if budget < 0:
                self.image.over(slot)
        finally:
            left = context.leave(self)
            self.memory.end_run()
            for text in self._run.printed:
                self.memory.release(len(text))
        return self._outcome(r0, self.budget - budget, left)

    def _outcome(self, r0: int, n_insns: int, left: Left) -> MachineOutcome:
        run = self._run
        return MachineOutcome(
            r0,
            n_insns,
            left.mem,
            left.packet,
            left.ctx,
            tuple(run.trace),
            tuple(run.printed),
            left.meta,
        )

    def _slot_of(self, entry: int | str) -> int:
        if isinstance(entry, int):
            return entry
        subprogs = self.image.program.subprogs
        if entry not in subprogs.names:
            raise OptionError(f"the program has no function {entry!r}")
        return int(subprogs.start[subprogs.names.index(entry)])

    # For images and helpers.

    def helper(self, number: int) -> Helper | None:
        """A helper by number."""
        return self._helpers.get(number)

    def kfunc(self, key: int | str) -> Helper | None:
        """A kfunc by BTF id or name."""
        return self._kfuncs.get(key)

    def traced(self, found: Helper) -> Callable[..., int]:
        """What runs a helper and records the call."""
        if not self.trace_helpers:
            return found.run
        if found.name not in self._traced:
            self._traced[found.name] = self._recorder(found)
        return self._traced[found.name]

    def _recorder(self, found: Helper) -> Callable[..., int]:
        name, run = found.name, found.run

        def recorded(machine: Machine, *args: int) -> int:
            result = run(machine, *args) & U64
            machine._run.trace.append(HelperCall(name, args, result))
            return result

        return recorded

    def print(self, text: str) -> None:
        """Add to what the outcome says was printed."""
        self.memory.charge(len(text))
        self._run.printed.append(text)

    @property
    def random(self) -> random.Random:
        """Random numbers; each run has the same ones."""
        if self._random is None:  # few programs ask for one
            self._random = random.Random(self.seed)
        return self._random

    def map_at(self, address: int) -> SimulatedMap:
        """The map that an address stands for.

        Raises:
            BadHelperUse: none.
        """
        found = self._maps_by_address.get(address)
        if found is None:
            raise BadHelperUse(f"{address:#x} is not a map's address")
        return found

    def pseudo_value(self, kind: str, low: int, high: int) -> int | None:
        """What an ld_imm64 of a map or variable loads, or None."""
        found = self._maps_by_fd.get(low)
        if found is None or kind == "ld_btf_id":
            return None
        if kind in ("ld_map_fd", "ld_map_idx"):
            return found.address
        return found.lookup(bytes(found.key_size)) + high

    def function_at(self, address: int) -> CompiledFunction:
        """The function that an address stands for.

        Raises:
            BadHelperUse: none.
        """
        number = (address >> WINDOW_BITS) - CODE_WINDOW
        slot, rest = divmod(address & INSIDE, 8)
        if not 0 <= number < len(self._images) or rest:
            raise BadHelperUse(f"{address:#x} is not a function's address")
        return self._images[number].at(slot)

    def call_back(self, address: int, *arguments: int) -> int:
        """Run one of the program's functions; what a helper that calls back does.

        Args:
            address: the function's.
            *arguments: R1 and up to four more.

        Returns:
            Its R0.
        """
        depth = self.depth
        given = (*arguments, 0, 0, 0, 0, 0)[:5]
        r0, self.left = self.function_at(address)(
            self.left, depth + 1, 0, *(one & U64 for one in given), 0, 0, 0, 0
        )
        self.depth = depth
        return r0

    def tail_call(self, context: int, map_address: int, index: int) -> CompiledFunction | None:
        """The program that a tail call enters, or None where it falls through."""
        found = self.map_at(map_address)
        if not isinstance(found, ProgMap):
            raise BadHelperUse(f"{found!r} is not a program array")
        target = found.programs.get(index & 0xFFFF_FFFF)
        if target is None or self._run.tail_calls >= _MAX_TAIL_CALLS:
            return None
        self._run.tail_calls += 1
        return target

    def packet_load(self, context: int, byte_off: int, size: int) -> int | None:
        """What ld_abs and ld_ind load, or None beyond the packet.

        Source: linux v6.18, net/core/filter.c, bpf_gen_ld_abs() and
        bpf_skb_load_helper_8() with bpf_internal_load_pointer_neg_helper().
        """
        if self.packet is None:
            raise BadHelperUse("there is no packet; run the program on an Skb")
        at = (byte_off + (1 << 31)) % (1 << 32) - (1 << 31)
        if at < 0:
            base = _SKF_NET_OFF if at >= _SKF_NET_OFF else _SKF_LL_OFF
            header = 0 if base == _SKF_LL_OFF or not isinstance(self.context, Skb) else 14
            is_cut = isinstance(self.context, Skb) and not self.context.is_l2
            at = at - base + header - (14 if is_cut else 0)
        data = self.packet.read(at, size)
        return None if data is None else int.from_bytes(data, "big")


def _given_helpers(given: Mapping[int | str, Callable[..., int]]) -> dict[int, Helper]:
    out = {}
    for key, run in given.items():
        number = isa.helper_id(key) if isinstance(key, str) else key
        out[number] = wrap(isa.HELPERS.get(number, str(number)), run)
    return out


def _given_kfuncs(given: Mapping[int | str, Callable[..., int]]) -> dict[int | str, Helper]:
    return {key: wrap(f"kfunc_{key}", run, _n_args(run)) for key, run in given.items()}


def _n_args(run: Callable[..., int]) -> int:
    """How many arguments a function takes beside the machine: five, or more by its definition."""
    code = getattr(run, "__code__", None)
    return max(_IN_REGISTERS, 0 if code is None else code.co_argcount - 1)


assert _helpers
