"""Random programs that the verifier accepts, with everything in them that the kernel rewrites."""

from __future__ import annotations

from bpfpatch.facts import ProgFlag
from support.cases.paritycase import ParityCase
from support.generators.programs.contexts import CONTEXTS, Context
from support.generators.programs.writer import CALLER_SAVED, DIVISIONS, SLOTS, Writer

COUNTER = -8 * SLOTS - 8
SPILL = COUNTER - 8
KEY = SPILL - 8
MAPS = {
    "counts": ("array", 4, 8, 16, 0),
    "wide": ("array", 4, 48, 7, 0),
    "percpu": ("percpu_array", 4, 8, 8, 0),
    "flows": ("hash", 4, 8, 16, 0),
    "lru": ("lru_hash", 4, 8, 16, 0),
    "slots": ("percpu_hash", 4, 8, 16, 0),
    "one": ("array", 4, 64, 1, 0),
    "progs": ("prog_array", 4, 4, 8, 0),
    "queue": ("queue", 0, 8, 8, 0),
    "stack": ("stack", 0, 8, 8, 0),
    "outer": ("array_of_maps", 4, 4, 4, 0),
    "outer_hash": ("hash_of_maps", 4, 4, 4, 0),
}
LOOKED_UP = tuple(name for name in MAPS if name not in ("progs", "queue", "stack"))
SHARE_OF_NOISE = 0.15


class _Writer(Writer):
    """Writes the code of one program."""

    most_rounds = 3

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.functions: list[list[str]] = []
        self.callable: list[int] = []
        self.context: Context = self.rng.choice(CONTEXTS)
        self.in_function = False

    def fill(self, *registers: int) -> None:
        """Give registers that a call has clobbered new values."""
        for register in registers or CALLER_SAVED:
            if self.rng.random() < 0.2:
                self.put(f"r{register} = r{self.rng.choice((7, 8))}")
            else:
                self.put(f"r{register} = {self.imm()}")

    def division(self) -> None:
        rng, kind, dst = self.rng, self.rng.choice("rw"), self.reg()
        op = rng.choice(DIVISIONS)
        right = f"{kind}{rng.choice((dst, self.reg()))}" if rng.random() < 0.6 else "-1"
        if rng.random() < 0.3:
            right = str(self.imm() or 3)
        self.put(f"{kind}{dst} {op} {right}")

    # What the kernel rewrites.

    def context_load(self) -> None:
        """A load through the context, or a copy of its pointer, or one out of the stack."""
        rng, context = self.rng, self.context
        base, dst = "r6", self.reg()
        choice = rng.random()
        if choice < 0.2:
            self.put(f"r{dst} = r6")
            base = f"r{dst}"
        elif choice < 0.35:
            self.put(f"*(u64 *)(r10 - {-SPILL}) = r6", f"r{dst} = *(u64 *)(r10 - {-SPILL})")
            base = f"r{dst}"
        if context.longs and (not context.words or rng.random() < 0.25):
            at, size = rng.choice(context.longs), 8
        else:
            at, size = rng.choice(context.words), 4
        step = size
        if at in context.narrow and size == 4 and rng.random() < 0.35:
            step = rng.choice((1, 2))
            at += rng.randrange(0, size, step)
        self.put(f"r{dst} = *(u{8 * step} *)({base} + {at})")
        if base != "r6":
            self.put(f"r{dst} += 1")

    def context_store(self) -> None:
        if not self.context.writable:
            return
        at = self.rng.choice(self.context.writable)
        value = self.rng.choice((f"w{self.reg()}", str(self.imm())))
        self.put(f"*(u32 *)(r6 + {at}) = {value}")

    def packet_access(self) -> None:
        """A load after a check of the packet's end."""
        if self.context.data is None:
            return
        data, end, size = self.context.data
        out = self.label()
        n = self.rng.choice((1, 2, 4, 8))
        self.put(
            f"r2 = *(u{8 * size} *)(r6 + {data})",
            f"r3 = *(u{8 * size} *)(r6 + {end})",
            "r4 = r2",
            "r4 += 16",
            f"if r4 > r3 goto {out}",
            f"r{self.rng.choice((7, 8))} = *(u{8 * n} *)(r2 + {self.rng.randrange(16 - n + 1)})",
        )
        if self.rng.random() < 0.5:
            self.put(f"r7 {self.rng.choice(DIVISIONS)} r8")
        self.put(f"{out}:")
        self.fill(2, 3, 4)

    def packet_load(self) -> None:
        rng = self.rng
        if not self.context.has_ld_abs or self.in_function:
            return
        bits = rng.choice((8, 16, 32))
        if rng.random() < 0.6:
            self.put(f"r0 = *(u{bits} *)skb[{rng.randrange(44)}]")
        else:
            self.put("r7 &= 15", f"r0 = *(u{bits} *)skb[r7]")
        self.fill()

    def look_up(self) -> None:
        rng = self.rng
        name = rng.choice(LOOKED_UP)
        out = self.label()
        key = f"*(u32 *)(r10 - {-KEY})"
        self.put(
            f"{key} = {rng.choice((0, 1, 5, 15, 16, 99))}"
            if rng.random() < 0.5
            else f"{key} = w{rng.choice((7, 8))}"
        )
        self.put("r2 = r10", f"r2 += {KEY}", f"r1 = map {name}", "call bpf_map_lookup_elem")
        self.put(f"if r0 == 0 goto {out}")
        if name.startswith("outer"):
            self.put(f"{key} = 2", "r2 = r10", f"r2 += {KEY}", "r1 = r0")
            self.put("call bpf_map_lookup_elem", f"if r0 == 0 goto {out}")
        choice = rng.randrange(5)
        if choice == 0:
            self.put(f"r{rng.choice((7, 8))} = *(u64 *)(r0 + 0)")
        elif choice == 1:
            self.put(f"*(u32 *)(r0 + 4) = {self.imm()}")
        elif choice == 2:
            self.fill()
            self.atomic("r0 + 0")
        elif choice == 3:
            self.put("r3 = *(u8 *)(r0 + 1)", "r7 /= r3", "*(u64 *)(r0 + 0) = r7")
        self.put(f"{out}:")
        self.fill(0, *CALLER_SAVED)

    def change_map(self) -> None:
        rng = self.rng
        name = rng.choice(("flows", "lru", "counts", "slots"))
        self.put(f"*(u32 *)(r10 - {-KEY}) = {rng.randrange(16)}", "r2 = r10", f"r2 += {KEY}")
        if rng.random() < 0.5:
            self.put("r3 = r10", f"r3 += {-8 * rng.randrange(1, SLOTS + 1)}", "r4 = 0")
            self.put(f"r1 = map {name}", "call bpf_map_update_elem")
        else:
            self.put(f"r1 = map {name}", "call bpf_map_delete_elem")
        self.fill()

    def data(self) -> None:
        """A variable of the program's: a place in an array's value."""
        rng = self.rng
        bits = rng.choice((8, 16, 32, 64))
        self.put(f"r1 = map one + {rng.randrange(0, 64, bits // 8)}")
        if rng.random() < 0.5:
            self.put(f"r{rng.choice((7, 8))} = *(u{bits} *)(r1 + 0)")
        else:
            self.put(f"*(u{bits} *)(r1 + 0) = {'r' if bits == 64 else 'w'}{rng.choice((7, 8))}")
        self.put(f"r1 = {self.imm()}")

    def tail_call(self) -> None:
        key = self.rng.choice(("3", "r7", "99"))
        if self.in_function and self.rng.random() < 0.7:
            return
        self.put("r1 = r6", "r2 = map progs", f"r3 = {key}", "call bpf_tail_call")
        self.fill(0, *CALLER_SAVED)

    def each_element(self) -> None:
        """A walk over a map, with a callback of its own."""
        if self.in_function:
            return
        index = len(self.functions)
        lines = [f"f{index}:", "r0 = *(u32 *)(r3 + 0)", "r5 = 9", "r5 /= r0", "r0 = 0", "exit"]
        self.functions.append(lines)
        name = self.rng.choice(("counts", "flows", "percpu", "lru"))
        self.put(f"r1 = map {name}", f"r2 = f{index} ll", "r3 = 0", "r4 = 0")
        self.put("call bpf_for_each_map_elem")
        self.fill()

    def socket(self) -> None:
        """A field of the packet's socket."""
        if self.context.type not in ("sched_cls", "cgroup_skb"):
            return
        out = self.label()
        self.put("r1 = *(u64 *)(r6 + 168)", f"if r1 == 0 goto {out}")
        call = self.rng.choice(("sk_fullsock", "tcp_sock"))
        field = self.rng.choice((0, 4, 8, 16, 20, 24, 28, 44, 72))
        self.put(f"call bpf_{call}", f"if r0 == 0 goto {out}")
        self.put(f"r{self.rng.choice((7, 8))} = *(u32 *)(r0 + {field})", f"{out}:")
        self.fill(0, *CALLER_SAVED)

    def task(self) -> None:
        """A chain of loads through pointers to kernel objects."""
        if self.context.type not in ("raw_tracepoint", "kprobe", "tracepoint", "perf_event"):
            return
        field = self.rng.choice(("pid", "flags", "tgid"))
        self.put("call bpf_get_current_task_btf", "r1 = *(u64 *)(r0 + {task_struct.group_leader})")
        self.put(f"r7 = *(u32 *)(r1 + {{task_struct.{field}}})")
        self.fill(0, *CALLER_SAVED)

    def queue(self) -> None:
        name, call = self.rng.choice(("queue", "stack")), self.rng.choice(("push", "pop", "peek"))
        self.put("r2 = r10", f"r2 += {-8 * self.rng.randrange(1, SLOTS + 1)}", "r3 = 0")
        self.put(f"r1 = map {name}", f"call bpf_map_{call}_elem")
        self.fill()

    def helper(self) -> None:
        rng = self.rng
        call = f"call bpf_{rng.choice(self.context.helpers)}"
        if rng.random() < 0.3:  # what a compiler makes of a call that clobbers no more than R0
            self.put(f"*(u64 *)(r10 - {-SPILL}) = r1", call, f"r1 = *(u64 *)(r10 - {-SPILL})")
            self.fill(2, 3, 4, 5)
            return
        self.put(call)
        self.fill()

    def dead_branch(self, depth: int) -> None:
        """A branch that is always or never taken."""
        rng, kind, reg = self.rng, self.rng.choice("rw"), self.reg()
        value, end = rng.randrange(100), self.label()
        choice = rng.randrange(4)
        if choice == 0:
            self.put(f"r{reg} = {value}", f"if {kind}{reg} == {value} goto {end}")
        elif choice == 1:
            self.put(f"r{reg} &= 7", f"if {kind}{reg} < 9 goto {end}")
        elif choice == 2:
            self.put(f"r{reg} = {value}", f"if {kind}{reg} != {value} goto {end}")
        else:
            self.put(f"w{reg} >>= 8", f"if r{reg} > 0x1000000 goto {end}")
        self.block(depth + 1)
        self.put(f"{end}:")

    def nop(self) -> None:
        end = self.label()
        self.put(f"{self.rng.choice(('goto', 'gotol'))} {end}", f"{end}:")

    def call(self, depth: int) -> None:
        """A function of the program's own, which may read the context, too."""
        rng = self.rng
        if self.in_function:
            return
        if self.callable and rng.random() < 0.4:
            index = rng.choice(self.callable)
        else:
            index = len(self.functions)
            self.functions.append([])
            self.functions[index] = self.function(index)
            self.callable.append(index)
        self.put("r1 = r6", f"r2 = r{rng.choice((7, 8))}", f"call f{index}")
        self.fill()

    def function(self, index: int) -> list[str]:
        outer, self.lines, self.in_function = self.lines, [], True
        self.put(f"f{index}:", "r6 = r1", "r7 = r2", "r8 = 1", "r9 = 3")
        self.start(self.rng.randint(1, 2))
        self.put("r0 = 1", "exit")
        lines, self.lines, self.in_function = self.lines, outer, False
        return lines

    def callback(self) -> None:
        """A bpf_loop() with a callback of its own."""
        if self.in_function:
            return
        index = len(self.functions)
        self.functions.append([])
        outer, self.lines, self.in_function = self.lines, [], True
        self.put(f"f{index}:", "r0 = r1", "r3 = 7", "r4 = r1", "r0 /= r3", "r4 s%= -1")
        self.put("r0 = 0", "exit")
        self.functions[index] = self.lines
        self.lines, self.in_function = outer, False
        flags = "r4 = 0"
        self.put(f"r1 = {self.rng.choice((1, 4, 100))}", f"r2 = f{index} ll", "r3 = 0", flags)
        self.put("call bpf_loop")
        self.fill()

    # Structure.

    def loop(self, depth: int) -> None:
        if self.rng.random() < 0.5:
            super().loop(depth)
            return
        again, end = self.label(), self.label()
        self.put(f"{again}:", f"may_goto {end}")
        self.division()
        self.context_load()
        self.put(f"goto {again}", f"{end}:")

    def block(self, depth: int) -> None:
        simple = (
            (self.alu, 4),
            (self.unary, 1),
            (self.memory, 2),
            (self.division, 2),
            (self.context_load, 4),
            (self.context_store, 1),
            (self.packet_access, 1),
            (self.packet_load, 1),
            (self.look_up, 1.5),
            (self.change_map, 0.5),
            (self.helper, 1),
            (self.nop, 0.5),
            (self.callback, 0.2),
            (self.data, 0.5),
            (self.tail_call, 0.2),
            (self.each_element, 0.2),
            (self.socket, 0.5),
            (self.task, 0.5),
            (self.queue, 0.3),
        )
        nested = ((self.branch, 2), (self.dead_branch, 1), (self.call, 0.7), (self.loop, 0.5))
        for _ in range(self.rng.randint(1, 5)):
            if depth < 3 and self.rng.random() < 0.25:
                step = self.rng.choices([s for s, _ in nested], [w for _, w in nested])[0]
                if step != self.loop or depth == 0:
                    step(depth)
                continue
            self.rng.choices([s for s, _ in simple], [w for _, w in simple])[0]()

    def start(self, n_blocks: int) -> None:
        """Set what blocks read, and write some."""
        self.fill(0, *CALLER_SAVED)
        for slot in range(1, SLOTS + 1):
            if self.rng.random() < 0.5:
                self.put(f"*(u64 *)(r10 - {8 * slot}) = r{self.rng.choice((7, 8))}")
            else:
                self.put(f"*(u64 *)(r10 - {8 * slot}) = {self.imm()}")
        for _ in range(n_blocks):
            self.block(0)


def acceptable_case(seed: int) -> ParityCase:
    """A random program, most often one that the verifier accepts."""
    writer = _Writer(seed)
    rng = writer.rng
    writer.put("r6 = r1", f"r7 = {writer.imm()}", "r8 = 0", "r9 = 1")
    writer.context_load()
    first = writer.lines[-1].split(" ")[0]
    writer.put(f"r8 = {first}" if first != "r8" else "r8 += 1")
    writer.start(rng.randint(1, 3))
    writer.put("r0 = 1", "exit")
    for lines in writer.functions:
        writer.put(*lines)
    is_noisy = rng.random() < SHARE_OF_NOISE
    return ParityCase(
        f"seed {seed}",
        writer.text(),
        type=writer.context.type,
        attach=writer.context.attach,
        flags=ProgFlag.TEST_RND_HI32 if is_noisy else 0,
        maps=dict(MAPS),
    )
