"""Mutated inputs for every reader: each is read, or refused with a FormatError. Nothing else."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from bpfpatch import asm
from bpfpatch.btf import Btf, BtfExt
from bpfpatch.elf import ElfObject
from bpfpatch.errors import (
    BpfPatchError,
    FormatError,
    LinkError,
    SlotError,
    UnsupportedError,
    ValidationError,
)
from bpfpatch.passes import Pipeline

LIMIT_S = 5
"""Seconds after which a case counts as hanging: far more than any takes on a busy machine."""

WORDS = [
    0,
    1,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    1 << 31,
    (1 << 32) - 1,
    (1 << 64) - 1,
]


class HangError(Exception):
    """A case took too long."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `HangError` in the block when its time is up."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise HangError(f"over {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """One to eight mutations: bytes, bits, words, cuts, repeats, truncation."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 8])):
        if not out:
            break
        # Headers decide most, and are small: half of all mutations are in them.
        end = len(out) if rng.random() < 0.5 else min(len(out), rng.choice([64, 256]))
        at = (
            rng.randrange(end)
            if rng.random() < 0.8
            else len(out) - 1 - rng.randrange(min(end, 512))
        )
        kind = rng.randrange(7)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            size = rng.choice([2, 4, 8])
            word = rng.choice(WORDS) & ((1 << (8 * size)) - 1)
            out[at : at + size] = word.to_bytes(size, rng.choice(["little", "big"]))
        elif kind == 3:
            del out[at : at + rng.randrange(1, 33)]
        elif kind == 4:
            out[at:at] = out[at : at + rng.randrange(1, 33)]
        elif kind == 5:
            other = rng.randrange(len(out))
            size = rng.randrange(1, 33)
            out[at : at + size] = out[other : other + size]
        else:
            del out[at if rng.random() < 0.3 else len(out) - 1 - rng.randrange(min(64, len(out))) :]
    return bytes(out)


def read_object(data: bytes) -> None:
    """Read an object and everything in it; write it, and a rewritten one."""
    obj = ElfObject.parse(data)
    code = obj.code
    if obj.to_bytes() != data:
        raise AssertionError("the no-op write changed the bytes")
    for name in obj.programs:
        try:
            obj.link(name.name)
        except (LinkError, FormatError, ValidationError, SlotError, UnsupportedError):
            continue
    try:
        result = Pipeline.parse("sprinkle{every=3},dce,nops").run(code)
        obj.with_code(result).to_bytes()
    except (SlotError, ValidationError, UnsupportedError):
        return


def read_btf(data: bytes) -> None:
    """Read types, and name each."""
    btf = Btf.parse(data)
    for type_id in range(min(len(btf), 500)):
        try:
            btf.c_decl(type_id)
        except FormatError:
            continue
    btf.to_bytes()


def read_ext(data: bytes, btf: Btf) -> None:
    """Read records."""
    BtfExt.parse(data, btf).to_bytes()


def read_text(data: bytes) -> None:
    """Read assembly."""
    asm.parse(data.decode("utf-8", "replace"))


@dataclass(frozen=True)
class Seed:
    """A whole input, and what reads it."""

    name: str
    data: bytes
    read: Callable[[bytes], None]


def run_case(seeds: list[Seed], number: int) -> str | None:
    """Run one case; what is wrong, or None."""
    rng = random.Random(number)
    seed = rng.choice(seeds)
    data = mutate(rng, seed.data)
    try:
        with time_limit(LIMIT_S):
            seed.read(data)
    except BpfPatchError as error:
        if isinstance(error, FormatError | ValidationError | UnsupportedError | SlotError):
            return None
        return f"case {number} ({seed.name}): {type(error).__name__}: {error}"
    except Exception as error:
        return f"case {number} ({seed.name}): {type(error).__name__}: {error}"
    return None


def seeds() -> list[Seed]:
    """The committed fixtures, their BTF, and assembly; objects over 64 KB are left out."""
    from support.inputs.bpfobjects import fixture_objects

    out: list[Seed] = []
    for name, data in fixture_objects():
        if len(data) > 1 << 16:
            continue
        out.append(Seed(name, data, read_object))
        obj = ElfObject.parse(data)
        if obj.btf is not None:
            out.append(Seed(f"{name} .BTF", obj.btf.to_bytes(), read_btf))
        if obj.btf is not None and obj.btf_ext is not None:
            btf = obj.btf
            out.append(
                Seed(
                    f"{name} .BTF.ext", obj.btf_ext.to_bytes(), lambda d, btf=btf: read_ext(d, btf)
                )
            )
        if name.startswith("asm_"):
            text = asm.format_program(obj.code).encode()
            out.append(Seed(f"{name} as text", text, read_text))
    return out
