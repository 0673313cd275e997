"""What the verifier complains about: one row for each kind of sentence, and what becomes of it.

The rows are tried in order, each on the sentence that ends the log; a figure that stands in the
line above (``invalid access to map value, value_size=8 off=8 size=1``) is read from there.

Source: linux v5.15, v6.1, v6.12 and v6.18, kernel/bpf/verifier.c, the calls of verbose();
v7.3, kernel/bpf/verifier.c, which says the same and then explains it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Family(Enum):
    """Who has to do something about a refusal."""

    VALUE = "value"
    """The verifier does not know enough of a value: this is what `repair` is for."""
    PATH = "path"
    """Something is open, or shut, on a path: references, locks, iterators."""
    LIMIT = "limit"
    """Too long, too deep, too many."""
    KERNEL = "kernel"
    """This kernel does not have what the program asks for, or does not allow it."""
    FORM = "form"
    """The program is not well-formed."""
    UNKNOWN = "unknown"
    """The sentence is in no row."""


class Flaw(Enum):
    """What a refusal is about."""

    UNSET = "unset register"
    SCALAR_ACCESS = "access through a number"
    NULL_ACCESS = "access through what may be NULL"
    TYPE_ACCESS = "access through another kind of pointer"
    REGION = "access outside of a region"
    PACKET = "access outside of the packet"
    STACK_ACCESS = "access to the stack"
    STACK_UNSET = "read of unset stack"
    SPILL = "spill of a pointer"
    FILL = "load of part of a spilled pointer"
    POINTER_MATH = "arithmetic on a pointer"
    NULL_MATH = "arithmetic on what may be NULL"
    POINTER_OP = "operation that no pointer takes"
    OFFSET = "pointer too far away"
    UNBOUNDED = "size without bounds"
    ZERO_SIZE = "size that may be 0"
    ARG_TYPE = "argument of another kind"
    ARG_NULL = "argument that may be NULL"
    ARG_CONSTANT = "argument that must be constant"
    ARG_OBJECT = "argument that must be an object of some kind"
    CTX = "access to the context"
    CTX_MOVED = "access through a moved pointer"
    CTX_VARIABLE = "access to the context at no constant place"
    RETURN = "value returned"
    LEAK = "pointer given away"
    READ_ONLY = "write to what is read-only"
    ALIGNMENT = "alignment"
    DIVISION = "division or shift"
    REFERENCE = "reference"
    LOCK = "lock or section"
    ITERATOR = "iterator"
    CALLBACK = "callback"
    COMPLEX = "too complex"
    LOOP = "loop"
    STACK_DEPTH = "stack too deep"
    HELPER = "function that is not there, or not allowed"
    MAP = "map that does not do"
    TYPES = "types of the kernel or the program"
    STRUCTURE = "structure of the program"
    OPCODE = "instruction"
    UNKNOWN = "not understood"


@dataclass(frozen=True, slots=True)
class MessageRule:
    """One kind of sentence.

    Attributes:
        kind: what it is about.
        family: who has to do something about it.
        pattern: of the sentence; groups ``reg``, ``arg``, ``got``, ``want``, ``off`` and ``size``
            are read.
        needs: what the verifier wanted to know; ``{reg}`` and so on are filled in.
        advice: what usually helps.
    """

    kind: Flaw
    family: Family
    pattern: re.Pattern[str]
    needs: str
    advice: str


_ADVICE: Final = {
    Flaw.UNSET: "give the register a value on every path, or after the call that clobbers it",
    Flaw.SCALAR_ACCESS: "test the pointer itself, next to where it is used, not what it depends on",
    Flaw.NULL_ACCESS: "test the pointer for NULL in front of the access",
    Flaw.TYPE_ACCESS: "use the helper or kfunc that reads such memory",
    Flaw.REGION: "check the index that is used, after its last change, against the region's size",
    Flaw.PACKET: "compare the pointer that is used with the packet's end in front of the access",
    Flaw.STACK_ACCESS: "check the index that is used against the array's size",
    Flaw.STACK_UNSET: "write the bytes before they are read",
    Flaw.SPILL: "a pointer is kept in 8 aligned bytes: spill all of it",
    Flaw.FILL: "load all 8 bytes of the pointer",
    Flaw.POINTER_MATH: "bound what is added, on both sides, in front of the addition",
    Flaw.NULL_MATH: "test the pointer for NULL before anything is added to it",
    Flaw.POINTER_OP: "do it on a number, before the pointer is made",
    Flaw.OFFSET: "bound what is added to the pointer",
    Flaw.UNBOUNDED: "bound the size on both sides, after its last change",
    Flaw.ZERO_SIZE: "test the size for 0 in front of the call",
    Flaw.ARG_TYPE: "see on which path the register gets another kind of value",
    Flaw.ARG_NULL: "test the pointer for NULL in front of the call",
    Flaw.ARG_CONSTANT: "pass a constant",
    Flaw.CTX_MOVED: "access the field at a constant distance from the pointer as it was given",
    Flaw.CTX_VARIABLE: "access the field at a constant distance from the pointer as it was given",
    Flaw.RETURN: "return a constant of the range, or check the value in front of the return",
    Flaw.REFERENCE: "release what was acquired on every path, and nothing else",
    Flaw.LOCK: "leave the section on every path, and call nothing in it that may not be called",
    Flaw.COMPLEX: "split the program, or let states meet by bounding loops",
    Flaw.LOOP: "bound the loop by a counter that the verifier can follow",
    Flaw.STACK_DEPTH: "use a map for large variables, or inline fewer functions",
    Flaw.HELPER: "the program is for another kernel, or of another type",
    Flaw.TYPES: "the program is for another kernel",
}

# Flaw, family, pattern, what is needed. Patterns start at the sentence's start.
_V, _P, _L, _K, _F = Family.VALUE, Family.PATH, Family.LIMIT, Family.KERNEL, Family.FORM
_REG: Final = r"R(?P<reg>\d+)"
_ROWS: Final[tuple[tuple[Flaw, Family, str, str], ...]] = (
    (Flaw.UNSET, _V, rf"{_REG} !read_ok", "a value in R{reg}"),
    (Flaw.SCALAR_ACCESS, _V, rf"{_REG} invalid mem access '(?P<got>inv|scalar)'",
     "a pointer in R{reg}"),
    (Flaw.NULL_ACCESS, _V, rf"{_REG} invalid mem access '(?P<got>\w*or_null\w*)'",
     "that R{reg} is not NULL"),
    (Flaw.TYPE_ACCESS, _V, rf"{_REG} invalid mem access '(?P<got>[^']*)'",
     "a pointer in R{reg} to memory that may be accessed"),
    (Flaw.SPILL, _V, r"invalid size of register spill", "a store of 8 aligned bytes"),
    (Flaw.SPILL, _V, r"attempt to corrupt spilled pointer on stack", "a store of 8 aligned bytes"),
    (Flaw.FILL, _V, r"invalid size of register fill", "a load of 8 aligned bytes"),
    (Flaw.FILL, _V, r"corrupted spill memory", "a load of what was spilled whole"),
    (Flaw.PACKET, _V, rf"{_REG} offset is outside of the packet",
     "that the access through R{reg} ends in front of the packet's end"),
    (Flaw.PACKET, _V, r"invalid access to packet, .*R(?P<reg>\d+)\(",
     "that the access through R{reg} ends in front of the packet's end"),
    (Flaw.REGION, _V, rf"{_REG} (?P<want>max|min) value is outside of the .*",
     "that the access through R{reg} stays in its region"),
    (Flaw.REGION, _V, rf"{_REG} min value is negative, either use unsigned index.*",
     "that the index in R{reg} is not negative"),
    (Flaw.REGION, _V, rf"{_REG} unbounded memory access, make sure to bounds check.*",
     "an upper bound of the index in R{reg}"),
    (Flaw.REGION, _V, rf"{_REG} invalid (?:rdonly|rdwr|tracepoint)? ?buffer access: .*",
     "that the access stays in its region"),
    (Flaw.REGION, _V, r"invalid access to (?:map value|map key|memory|mem|flow keys).*",
     "that the access stays in its region"),
    (Flaw.STACK_ACCESS, _V, r"invalid (?:unbounded )?variable-offset(?: indirect)? ?"
     rf"(?:read from|write to|access to)? ?stack {_REG}.*", "where in the stack R{reg} points"),
    (Flaw.STACK_ACCESS, _V, rf"invalid unbounded variable-offset.* stack {_REG}.*",
     "where in the stack R{reg} points"),
    (Flaw.STACK_ACCESS, _V, rf"{_REG} unbounded (?:indirect )?variable offset stack access",
     "where in the stack R{reg} points"),
    (Flaw.STACK_ACCESS, _V, r"variable stack (?:access|read|write).*", "where in the stack it is"),
    (Flaw.STACK_UNSET, _V, r"invalid(?: indirect)? read from stack(?: R(?P<reg>\d+))? "
     r"off (?P<off>-?\d+)\+(?P<at>-?\d+) size (?P<size>\d+)", "that the bytes were written"),
    (Flaw.STACK_UNSET, _V, r"invalid(?: indirect)? read from stack(?! R\d+ off=).*",
     "that the bytes were written"),
    (Flaw.STACK_ACCESS, _V,
     rf"invalid (?:indirect )?(?:read from|write to|access to) stack {_REG}.*",
     "that the access stays in the frame"),
    (Flaw.STACK_ACCESS, _V, r"invalid (?:write to |access to )?stack (?:type )?.*",
     "that the access stays in the frame"),
    (Flaw.NULL_MATH, _V, rf"{_REG} pointer arithmetic on (?P<got>\w*_or_null\w*) prohibited.*",
     "that R{reg} is not NULL"),
    (Flaw.POINTER_MATH, _V, r"math between (?P<got>.*) pointer and register with unbounded.*",
     "bounds of what is added to the pointer"),
    (Flaw.POINTER_MATH, _V, r"math between (?P<got>.*) pointer and .*",
     "a smaller distance than what is added to the pointer"),
    (Flaw.OFFSET, _V, r"value -?\d+ makes (?P<got>.*) pointer be out of bounds",
     "that the pointer stays near what it points to"),
    (Flaw.OFFSET, _V, r"(?P<got>.*) pointer offset -?\d+ is not allowed.*",
     "that the pointer stays near what it points to"),
    (Flaw.POINTER_OP, _V, rf"{_REG} (?:bitwise operator|pointer arithmetic with) (?P<got>\S+).*",
     "a number in R{reg}"),
    (Flaw.POINTER_OP, _V, rf"{_REG} 32-bit pointer arithmetic prohibited",
     "an operation on all 64 bits of R{reg}"),
    (Flaw.POINTER_OP, _V, rf"{_REG} (?:sign-extension|partial copy)[\w ]*of? pointer.*",
     "a copy of all 64 bits of R{reg}"),
    (Flaw.POINTER_OP, _V, rf"{_REG} (?:pointer|subtraction|tried to|stack pointer|"
     r"has pointer|has unknown scalar).*", "a number in R{reg}"),
    (Flaw.POINTER_OP, _V, rf"{_REG} pointer (?:\S+ pointer|comparison|arithmetic).*",
     "other operands"),
    (Flaw.UNBOUNDED, _V, rf"{_REG} unbounded memory access, use .*", "an upper bound of R{reg}"),
    (Flaw.UNBOUNDED, _V, rf"{_REG} min value is negative, either use unsigned or .*",
     "that R{reg} is not negative"),
    (Flaw.ZERO_SIZE, _V, rf"{_REG} invalid zero-sized read.*", "that R{reg} is not 0"),
    (Flaw.ARG_TYPE, _V, rf"{_REG} type=(?P<got>\S+) expected=(?P<want>.*)",
     "one of {want} in R{reg}"),
    (Flaw.ARG_TYPE, _V, rf"{_REG} is of type (?P<got>\S+) but (?P<want>\S+) is expected",
     "a {want} in R{reg}"),
    (Flaw.ARG_NULL, _V, r"Possibly NULL pointer passed to helper arg(?P<reg>\d+)",
     "that argument {reg} is not NULL"),
    (Flaw.ARG_NULL, _V, r"Possibly NULL pointer passed to trusted arg#?(?P<arg>\d+)",
     "that the argument is not NULL"),
    (Flaw.ARG_TYPE, _V, r"kernel function \S+ args?#?(?P<arg>\d+) expected (?P<want>.*)",
     "{want} as argument"),
    (Flaw.ARG_OBJECT, _V, r"(?:Expected an|Dynptr has to be|Unsupported reg type).* "
     r"(?:as arg #|for arg#)(?P<arg>\d+).*", "an object that is set up"),
    (Flaw.ARG_OBJECT, _V, r"(?:get_local_storage\(\) doesn't|potential write to dynptr|"
     r"cannot release unowned|bpf_\w+ not found at|operation on bpf_|"
     r"local type ID argument|invalid kptr access|"
     r"bpf_\w+(?:/bpf_\w+)* (?:can only|type ID)|arg \d+ is an unacquired).*",
     "another argument"),
    (Flaw.TYPE_ACCESS, _V, r"(?:direct access to \S+ is disallowed|"
     r"only read from (?P<got>\S+) is supported|no write support to).*",
     "memory that may be accessed directly"),
    (Flaw.ARG_CONSTANT, _V, rf"{_REG} (?:is not a known constant|must be a known constant|"
     r"doesn't point to a (?:read-only|constant)|is not a constant).*", "a constant in R{reg}"),
    (Flaw.ARG_CONSTANT, _V, rf"{_REG} has value .* is not .*", "another value in R{reg}"),
    (Flaw.ITERATOR, _P, r".*\biter(?:ator|_\w+)?\b.*", "another state of the iterator"),
    (Flaw.ARG_OBJECT, _V, r"(?:Expected an|expected|Dynptr has to be|cannot overwrite referenced"
     r"|Unsupported reg type).*", "an object that is set up"),
    (Flaw.ARG_OBJECT, _V, r"arg#?(?P<arg>\d+) .*", "another argument {arg}"),
    (Flaw.ARG_OBJECT, _V, rf"{_REG} must (?:be|have|point|not).*", "another value in R{reg}"),
    (Flaw.ARG_OBJECT, _V,
     rf"{_REG} (?:has|doesn't|does not|expected|invalid|variable|is|cannot be).*",
     "another value in R{reg}"),
    (Flaw.READ_ONLY, _V, rf"{_REG} cannot write into (?P<got>.*)", "memory that may be written"),
    (Flaw.READ_ONLY, _F, r"(?:cannot write into packet|write into map forbidden|"
     r"write to change key|only read is supported|write into|read from map forbidden|"
     r"helper access to the packet is not allowed|the prog does not allow writes).*",
     "memory that may be written"),
    (Flaw.LEAK, _F, rf"{_REG} leaks addr.*", "a number in R{reg}"),
    (Flaw.CTX_MOVED, _V, rf"dereference of modified (?P<got>\w+) ptr {_REG} off=(?P<off>-?\d+).*",
     "R{reg} as it was given"),
    (Flaw.CTX_MOVED, _V, rf"negative offset (?P<got>\w+) ptr {_REG} off=(?P<off>-?\d+).*",
     "R{reg} as it was given"),
    (Flaw.CTX_VARIABLE, _V, r"variable (?P<got>\w+) access var_off=.*", "a constant distance"),
    (Flaw.CTX, _K, r"invalid bpf_context access off=(?P<off>-?\d+) size=(?P<size>\d+).*",
     "a field of the context that this kind of program may access so"),
    (Flaw.CTX, _K, r"(?:func '.*' (?:doesn't have|size \d+ must)|unsupported context|"
     r"func '.*' arg\d).*", "a field of the context"),
    (Flaw.ALIGNMENT, _V, r"misaligned (?P<got>.*)access off.*", "an aligned place"),
    (Flaw.RETURN, _V, rf"(?:At (?:program exit|callback return|subprogram exit|"
     rf"async callback return),?|in callback fn,?) the register {_REG} .*",
     "a value in R{reg} that may be returned"),
    (Flaw.REFERENCE, _P, r"(?:Unreleased reference|reference has not been acquired|"
     r"(?:BPF_\w+|tail_call|bpf_\w+|\w+ instruction)[\w ]* would lead to reference leak|"
     r"release (?:helper|kernel function|kfunc).*|Reference may already|"
     r"helper .*more than one.*ref_obj_id|verifier internal error: more than one arg with ref).*",
     "that what was acquired is released"),
    (Flaw.HELPER, _K, r"(?:helper call might sleep|metadata kfuncs|ldimm64 failed to find|"
     r"kernel function \S+ is sleepable).*", "what this kernel has, or allows here"),
    (Flaw.LOCK, _P, r".*(?:bpf_\w*spin_\w*lock|spin_lock|holding a lock|lock is missing|"
     r"rcu_read_(?:un)?lock|rcu read (?:un)?lock|preempt_(?:en|dis)able|IRQ|irq|"
     r"non-preemptible|sleepable|lock-ed region|critical section|in rbtree cb).*",
     "that the section is entered and left"),
    (Flaw.COMPLEX, _L, r"BPF program is too large.*|The sequence of \d+ jumps is too complex.*|"
     r"propagating liveness failed.*|(?:out of )?(?:state|memory).*limit.*",
     "fewer instructions and states"),
    (Flaw.LOOP, _L, r"(?:back-edge from insn|infinite loop detected|loop detected|"
     r"recursive call|bpf_loop).*", "that it ends"),
    (Flaw.STACK_DEPTH, _L, r"(?:combined stack size|tail_calls are not allowed when call stack|"
     r"the call stack of|insane stack|stack size|call depth|stack depth).*|.*is too deep.*",
     "less stack"),
    (Flaw.HELPER, _K, r"(?:unknown func|invalid func|program of this type cannot use helper|"
     r"calling (?:invalid )?kernel function|kernel function|kernel call|kfunc|helper call is not|"
     r"cannot call|unsupported function proto|cannot reference|"
     r"func#?\d* ?(?:\S+ )?(?:is not|not supported)|JIT does(?:n't| not) support|"
     r"program must be|calling .* is not allowed|address of kernel function|"
     r"too many different kernel function|tail_call|tail call).*", "a function that may be called"),
    (Flaw.MAP, _K, r"(?:cannot pass map_type|map .* (?:not|is|has)|tracing progs cannot use|"
     r"socket filter progs cannot use|only one|Sleepable programs can only use|"
     r"invalid map|fd \d+ is not pointing|invalid zero-size|no maps|"
     r"map_ptr|(?:offload|trace type|perf_event|XDP|networking) prog\w*.*(?:map|cannot)|"
     r"direct value access|invalid access to map value pointer|func .* tail).*",
     "another map"),
    (Flaw.TYPES, _K, r"(?:.*attach_btf|.*BTF|.*btf|func_info|line_info|struct |access beyond|"
     r"failed to find|.*expected_attach_type|.*struct_ops|Attach to unsupported|cannot access ptr|"
     r"R\d+ is ptr_|.*is not in the (?:kernel|vmlinux)|fmod_ret|.*() is not modifiable|"
     r".*cannot access).*", "types that fit"),
    (Flaw.CALLBACK, _V, r".*callback.*", "another callback"),
    (Flaw.DIVISION, _F, r"(?:div by zero|invalid shift).*", "another operand"),
    (Flaw.OPCODE, _F, r"(?:unknown opcode|BPF_\w+|invalid opcode|invalid BPF|unknown insn|"
     r"frame pointer is read only|R\d+ is invalid|unrecognized|invalid destination|"
     r"\w+ (?:uses|use) reserved fields|atomic|invalid bpf_ld|insn \d+ cannot|invalid (?:src|dst)|"
     r"Uninitialized|addr_space_cast).*", "an instruction that there is"),
    (Flaw.STRUCTURE, _F, r"(?:unreachable insn|jump out of range|jump into the middle|"
     r"last insn is not|no program starts|too many subprogs|more than one exception|"
     r"number of funcs|invalid (?:insn|call|return|jump)|func#|Caller passes invalid|Func#|"
     r"Global func|global functions|use static function|LD_ABS is only|exception cb only|"
     r"Unable to|\w+\(\) is not a global).*", "another structure"),
)  # fmt: skip

RULES: Final = tuple(
    MessageRule(kind, family, re.compile(pattern), needs, _ADVICE.get(kind, ""))
    for kind, family, pattern, needs in _ROWS
)
_UNKNOWN: Final = MessageRule(Flaw.UNKNOWN, Family.UNKNOWN, re.compile(""), "", "")

_DETAILS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"value_size=(?P<region>\d+) off=(?P<off>-?\d+) size=(?P<size>\d+)",
        r"mem_size=(?P<region>\d+) off=(?P<off>-?\d+) size=(?P<size>\d+)",
        r"key_size=(?P<region>\d+) off=(?P<off>-?\d+) size=(?P<size>\d+)",
        r"invalid access to packet, off=(?P<off>-?\d+) size=(?P<size>\d+), "
        r"R\d+\(id=\d+,off=(?P<fixed>-?\d+),r=(?P<range>\d+)\)",
        r"off=(?P<off>-?\d+) size=(?P<size>\d+)",
    )
)


def find_rule(message: str) -> tuple[MessageRule, dict[str, str]]:
    """The row for a sentence, and what its groups read."""
    for rule in RULES:
        found = rule.pattern.match(message)
        if found is not None:
            return rule, {name: text for name, text in found.groupdict().items() if text}
    return _UNKNOWN, {}


def figures(lines: tuple[str, ...]) -> dict[str, int]:
    """Numbers that a refusal names, from its sentence and the lines in front of it."""
    for line in reversed(lines):
        for pattern in _DETAILS:
            found = pattern.search(line)
            if found is not None:
                return {name: int(text) for name, text in found.groupdict().items() if text}
    return {}
