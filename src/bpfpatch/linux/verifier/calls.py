"""Calls of helpers, kernel functions, subprogs and callbacks, and the exits from those.

Source: linux v6.18, kernel/bpf/verifier.c, check_helper_call(), check_kfunc_call(),
check_func_call(), push_callback_call(), prepare_func_exit().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpfpatch import isa
from bpfpatch.facts.columns import MemType
from bpfpatch.facts.helperproto import KEY_SIZE, HelperCallback
from bpfpatch.facts.kinds import MapType

from . import helperfacts as facts
from . import scalars
from .globalargs import argument_sizes, is_global
from .kernelcalls import KernelCalls
from .scalars import UNKNOWN, Pointer, Value
from .state import MOST_FRAMES, VerifierState, spilled_constant
from .values import FUNC, PACKET_END, TRUSTED, is_pointer, pointer

if TYPE_CHECKING:
    from .absint import Interpreter

_KEY_BYTES: Final = 4
_HELPER, _SUBPROG, _KFUNC = map(int, isa.PseudoCall)
_STACK, _MAP_PTR, _MAP_VALUE, _BTF_ID, _ALLOC = map(
    int, (MemType.STACK, MemType.MAP_PTR, MemType.MAP_VALUE, MemType.BTF_ID, MemType.ALLOC)
)
_MOST_CHAINS: Final = 4000
_ARRAYS: Final = (MapType.ARRAY, MapType.PERCPU_ARRAY)
_PACKET: Final = (MemType.PACKET, MemType.PACKET_META, PACKET_END)
_SOCKETS: Final = (MapType.SOCKMAP, MapType.SOCKHASH)
_OF_MAPS: Final = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)
_OF_MAP: Final = {"map": MemType.MAP_PTR, "key": MemType.MAP_KEY, "value": MemType.MAP_VALUE}


class VerifierCalls:
    """What calls do to a state.

    Args:
        owner: the analysis that they are part of.
    """

    def __init__(self, owner: Interpreter) -> None:
        self._owner = owner
        self._findings = owner.findings
        self._kernel = KernelCalls(owner, self)
        self._is_global: dict[int, bool] = {}

    def call(self, slot: int, state: VerifierState) -> bool:
        """A call; False where control does not go on right after it."""
        code = self._owner.code
        if code.opcode[slot] == isa.CALL:
            src = code.src[slot]
            if src == _HELPER:
                return self._helper(slot, code.imm[slot], state)
            if src == _SUBPROG:
                return self._subprog(slot, code.target[slot], state)
            if src == _KFUNC:
                return self._kernel.call(slot, state)
        self.clear(state)
        return True

    def clear(self, state: VerifierState, result: Value = None) -> None:
        """R1 to R5 are gone, R0 is the result."""
        state.regs[:6] = [result, None, None, None, None, None]

    # Subprogs.

    def _subprog(self, slot: int, target: int, state: VerifierState) -> bool:
        owner = self._owner
        if target not in self._is_global:
            self._is_global[target] = is_global(owner.program, owner.subject, target)
        if self._is_global[target]:
            self._call_global(target, state)
            return True
        if len(state.stacks) >= MOST_FRAMES or owner.n_chains > _MOST_CHAINS or owner.is_spent:
            self._give_up(target, state)
            return True
        self.enter(slot, target, state, state.regs[:6], slot + 1, is_callback=False)
        return False

    def enter(
        self,
        slot: int,
        target: int,
        state: VerifierState,
        args: list[Value],
        back: int,
        *,
        is_callback: bool,
    ) -> None:
        """Go into a subprog in a frame of its own, to come back to a slot.

        Args:
            slot: of the call.
            target: where the subprog starts.
            state: of the caller; it is taken over.
            args: R0 to R5 in the callee.
            back: the slot to come back to.
            is_callback: whether a helper makes the call.
        """
        owner = self._owner
        alive = int(owner.code.live[back]) if back < len(owner.code.live) else 0
        kept = [value if alive >> r & 1 else None for r, value in enumerate(state.regs)]
        if not is_callback:
            kept[:6] = [None] * 6
        callers = (*state.callers, (back, kept, is_callback))
        regs = [*args, None, None, None, None]
        stacks = [*state.stacks, {}]
        owner.push(
            target, VerifierState(regs, stacks, callers, owner.chain(state.chain, slot, target))
        )

    def _call_global(self, target: int, state: VerifierState) -> None:
        owner = self._owner
        owner.enter_global(target)
        for register, size in argument_sizes(owner.program, owner.subject, target).items():
            self.overwrite(state, state.regs[register], size)
        if owner.changes_packet(target):
            self.forget_packets(state)
        self.clear(state, UNKNOWN)

    def _give_up(self, target: int, state: VerifierState) -> None:
        """A call in so many chains that the callee is only looked at once, with any arguments."""
        self._owner.enter_with_anything(target)
        self._forget_frames(state)
        self.clear(state)

    def _forget_frames(self, state: VerifierState) -> None:
        """Code has run that is not followed: it may have written anything to any frame."""
        state.forget_frames()
        self.forget_packets(state)

    def leave(self, slot: int, state: VerifierState) -> None:
        """An exit."""
        if not state.callers:
            return
        back, regs, is_callback = state.callers[-1]
        result = state.regs[0]
        after = regs[:]
        if not is_callback:
            after[0] = result
        state.stacks.pop()
        frames = len(state.stacks)
        gone = [v for v in after if is_pointer(v) and v[0] == _STACK and v[1] >= frames]
        if gone:
            after = [None if v in gone else v for v in after]
        outer = self._owner.outer_chain(state.chain)
        self._owner.push(back, VerifierState(after, state.stacks, state.callers[:-1], outer))

    # Helpers.

    def _helper(self, slot: int, helper: int, state: VerifierState) -> bool:
        regs = state.regs
        map_index = self._note_map(slot, helper, state)
        self._memory(helper, state, map_index)
        callback = facts.CALLBACKS.get(helper)
        if callback is not None and callback.is_late:
            self._late_callback(state, callback, map_index)
        elif callback is not None:
            self._synchronous(slot, helper, callback, state, map_index)
        result = self._result(helper, state, map_index)
        if helper in facts.RELEASES:
            self._release(state, regs[facts.RELEASES[helper]])
        if helper in facts.CHANGES_PACKET and helper != facts.TAIL_CALL:
            self.forget_packets(state)
        self.clear(state, result)
        if helper == facts.TAIL_CALL and state.callers:
            self._tail_call(slot, state.copy())
        return True

    def _tail_call(self, slot: int, state: VerifierState) -> None:
        """In a subprog: what was called returns in its place, with any result.

        A call that fails goes on after it, and leaves the packet as it was.

        Source: linux v6.18.44, kernel/bpf/verifier.c, check_helper_call(); its packet
        pointers were seen on it.
        """
        self.forget_packets(state)
        self.clear(state, UNKNOWN)
        self.leave(slot, state)

    def _note_map(self, slot: int, helper: int, state: VerifierState) -> int | None:
        """Write down which map a helper gets, and what depends on constants."""
        regs = state.regs
        at = regs[facts.MAP_REG.get(helper, 1)]
        index = at[1] if is_pointer(at) and at[0] == _MAP_PTR else None
        if helper in facts.KEEPS_MAP:
            self._findings.use_map(slot, index)
        if helper == facts.TAIL_CALL:
            key = regs[3]
            maps = self._owner.subject.maps
            is_known = index is not None and index < len(maps)
            is_key = isinstance(key, int) and is_known and key < maps[index or 0].max_entries
            self._findings.use_key(slot, key if isinstance(key, int) and is_key else None)
        elif helper == facts.LOOP:
            func = regs[2]
            is_plain = is_pointer(func) and func[0] == FUNC and regs[4] == 0
            self._findings.loop(slot, func[1] if is_pointer(func) and is_plain else None)
        first = regs[1]
        if index is None and is_pointer(first) and first[0] == _MAP_VALUE:
            index = first[1]  # a timer or a lock in it
        return index

    def _memory(self, helper: int, state: VerifierState, map_index: int | None) -> None:
        regs = state.regs
        for register, _, _ in facts.READS.get(helper, ()):
            self.touch(state, regs[register])
        for register, by, size in facts.WRITES.get(helper, ()):
            self.overwrite(state, regs[register], regs[by] if by else self._size(size, map_index))

    def _size(self, size: int, map_index: int | None) -> Value:
        if size >= 0:
            return size
        found = self._owner.map(map_index)
        if found is None:
            return None
        return found.key_size if size == KEY_SIZE else found.value_size

    def touch(self, state: VerifierState, at: Value) -> bool:
        """A helper accesses bytes from here on; whether they are on a stack."""
        if not isinstance(at, tuple) or at[0] != _STACK:
            self._owner.may_reach(state, at)
            return False
        self._owner.reach(state, at[1], at[2])
        return True

    def overwrite(self, state: VerifierState, at: Value, size: Value) -> None:
        """A helper writes this many bytes from here on; None for a number that is not known."""
        if not self.touch(state, at) or not is_pointer(at):
            if self._owner.may_reach(state, at):
                state.forget_frames()
            return
        low, high = at[2], at[3]
        end = min(high + scalars.parts(size)[3], 0) if scalars.is_scalar(size) else 0
        if low < end:
            state.forget(at[1], max(low, -512), end)

    def forget_packets(self, state: VerifierState) -> None:
        """Packet data may have moved."""
        state.own_callers()
        for kind in _PACKET:
            state.replace(kind, 0, UNKNOWN)

    def _release(self, state: VerifierState, value: Value) -> None:
        if is_pointer(value) and value[6]:
            state.own_callers()
            state.replace(value[6], 6, UNKNOWN)

    # Results.

    def _result(self, helper: int, state: VerifierState, map_index: int | None) -> Value:  # noqa: PLR0911 - one way out for each kind
        owner = self._owner
        regs = state.regs
        if helper in facts.VALUES:
            if facts.VALUES[helper]:
                return self._map_value(helper, state, map_index)
            return pointer(MemType.MAP_VALUE, -1 if map_index is None else map_index)
        if helper in facts.RETURNS:
            source = regs[1] if helper in facts.CASTS else None
            return self._pointer(facts.RETURNS[helper], source)
        if helper in facts.PER_CPU:
            at = regs[1]
            if not is_pointer(at) or at[0] != _BTF_ID:
                return None
            is_struct = owner.types.is_struct(at[1])
            kind = MemType.BTF_ID if is_struct else MemType.MEM
            is_null = facts.PER_CPU[helper]
            return pointer(kind, at[1], 0, owner.fresh(), is_maybe_null=is_null)
        if helper == facts.KPTR_XCHG:
            return self._exchanged(regs[2])
        if helper in facts.SIZED:
            size = regs[facts.SIZED[helper]]
            most = scalars.parts(size)[3] if scalars.is_scalar(size) else scalars.S32_MAX
            return scalars.in_signed_range(-facts.MAX_ERRNO, min(most, scalars.S32_MAX))
        if helper == facts.CPU_NUMBER and owner.subject.n_cpus is not None:
            return scalars.in_signed_range(0, owner.subject.n_cpus - 1)
        return UNKNOWN

    def _pointer(self, found: facts.Returned, source: Value) -> Pointer:
        owner = self._owner
        ref = owner.types.struct(found.struct) if found.struct else 0
        obj = owner.fresh() if found.is_acquired else 0
        if is_pointer(source) and source[6]:
            obj = source[6]  # ends with the socket that it was made of
        return pointer(
            found.kind, ref, 0, owner.fresh(),
            is_maybe_null=found.is_maybe_null, obj=obj, trust=found.trust,
        )  # fmt: skip

    def _exchanged(self, given: Value) -> Value:
        owner = self._owner
        if is_pointer(given) and given[0] in (_BTF_ID, _ALLOC):
            kind, ref = int(given[0]), given[1]
        else:
            kind, ref = _BTF_ID, 0
        return pointer(kind, ref, 0, owner.fresh(), is_maybe_null=True, obj=owner.fresh())

    def _map_value(self, helper: int, state: VerifierState, index: int | None) -> Value:
        owner = self._owner
        found = owner.map(index)
        ident = owner.fresh()
        if found is None or index is None:
            return pointer(MemType.MAP_VALUE, -1, 0, ident, is_maybe_null=True)
        if helper != facts.MAP_LOOKUP:
            return pointer(MemType.MAP_VALUE, index, 0, ident, is_maybe_null=True)
        if found.type in _OF_MAPS:
            return pointer(MemType.MAP_PTR, owner.inner_map(index), 0, ident, is_maybe_null=True)
        if found.type is MapType.XSKMAP:
            return pointer(MemType.XDP_SOCK, 0, 0, ident, is_maybe_null=True)
        if found.type in _SOCKETS:
            obj = owner.fresh()
            return pointer(MemType.SOCKET, 0, 0, ident, is_maybe_null=True, obj=obj)
        is_there = found.type in _ARRAYS and self._has_key(state, found.max_entries)
        return pointer(MemType.MAP_VALUE, index, 0, ident, is_maybe_null=not is_there)

    def _has_key(self, state: VerifierState, n_entries: int) -> bool:
        """Whether R2 points to a constant on the stack that is below an array's length.

        Source: linux v6.18, kernel/bpf/verifier.c, get_constant_map_key().
        """
        at = state.regs[2]
        if not is_pointer(at) or at[0] != _STACK or at[2] != at[3]:
            return False
        key = spilled_constant(state.stacks[at[1]], at[2], _KEY_BYTES)
        return key is not None and key < n_entries

    # Callbacks.

    def _synchronous(
        self,
        slot: int,
        helper: int,
        callback: HelperCallback,
        state: VerifierState,
        index: int | None,
    ) -> None:
        """A helper calls a callback, as often as it likes; bpf_loop with R1 == 0 never.

        Source: linux v6.18, kernel/bpf/verifier.c, check_helper_call(), BPF_FUNC_loop.
        """
        regs = state.regs
        at = regs[callback.reg]
        if helper == facts.LOOP and scalars.is_scalar(regs[1]) and scalars.parts(regs[1])[3] == 0:
            return  # no rounds
        if self._owner.is_spent:
            self._forget_frames(state)  # and all callbacks are entered where their address is taken
            return
        if self._owner.may_call(state, at):
            self._forget_frames(state)
            return
        if not is_pointer(at) or at[0] != FUNC or len(state.stacks) >= MOST_FRAMES:
            return
        args = self._arguments(callback, regs, index)
        self.enter(slot, at[1], state.copy(), args, slot, is_callback=True)

    def _late_callback(
        self, state: VerifierState, callback: HelperCallback, index: int | None
    ) -> None:
        at = state.regs[callback.reg]
        self._owner.may_call(state, at)
        if not is_pointer(at) or at[0] != FUNC:
            return
        args = self._arguments(callback, state.regs, index)
        self._owner.enter_root(at[1], [*args, None, None, None, None])

    def _arguments(
        self, callback: HelperCallback, regs: list[Value], index: int | None
    ) -> list[Value]:
        """R0 to R5 of a callback."""
        ref = -1 if index is None else index
        args: list[Value] = [None] * 6
        for reg, arg in enumerate(callback.args, 1):
            if arg in _OF_MAP:
                args[reg] = pointer(_OF_MAP[arg], ref)
            elif arg == "any":
                args[reg] = UNKNOWN
            elif arg == "vma":
                area = self._owner.types.struct("vm_area_struct")
                args[reg] = pointer(MemType.BTF_ID, area, trust=TRUSTED)
            elif arg.startswith("r"):
                args[reg] = regs[int(arg[1:])]
        return args
