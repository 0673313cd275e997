"""Broken ELF files: a FormatError or a result, never anything else."""

import functools
import random
import struct
import time
import tracemalloc

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError, FormatError, ValidationError
from bpfpatch.patch import Body, PatchList
from support.inputs.bpfobjects import fixture_objects

SEEDS = 4
ROUNDS = 500
LARGEST = 12_000
WORDS = (0, 1, 4, 7, 8, 0xFF, 0xFFF1, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF)
SECONDS = 1.0


@functools.cache
def corpus():
    """The smaller fixtures: every compiler, both byte orders, with and without debug sections."""
    return [data for _, data in fixture_objects() if len(data) <= LARGEST]


def mutated(data, rng):
    """Some bytes exchanged, mostly where structure is, or the end cut off."""
    if rng.random() < 0.08:
        return data[: rng.randrange(len(data))]
    out = bytearray(data)
    order = "<" if data[5] == 1 else ">"
    (shoff,) = struct.unpack_from(f"{order}Q", data, 40)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        kind = rng.random()
        if kind < 0.35:
            at = rng.randrange(shoff, len(out))
        elif kind < 0.4:
            at = rng.randrange(64)
        else:
            at = rng.randrange(len(out))
        if rng.random() < 0.6:
            out[at] ^= 1 << rng.randrange(8)
            continue
        word = struct.pack(f"{order}I", rng.choice(WORDS))
        at = min(at, len(out) - 4) & ~rng.choice((0, 3))
        out[at : at + 4] = word
    return bytes(out)


def exercise(data):
    """Read all that can be read of an object, and write it with and without an edit.

    What is no ELF object raises FormatError. What is one, but with code that
    is no program, may raise ValidationError from a patch list, and an edit
    that the object has no place for another error of this package.
    """
    obj = ElfObject.parse(data)
    assert obj.to_bytes() == data
    code = obj.code
    assert len(obj.sections) >= len(code.sections)
    _ = obj.symbols, obj.maps, obj.programs, obj.license
    try:
        same = PatchList(code).linearize()
    except ValidationError:
        return
    assert obj.with_code(same).to_bytes() == data
    try:
        patches = PatchList(code)
        patches.insert_before(np.flatnonzero(~code.second_slots), Body(isa.ja(0)))
        moved = patches.linearize()
        written = obj.with_code(moved).to_bytes()
        for info in obj.programs:
            obj.link(info.name)
    except FormatError:
        raise
    except BpfPatchError:
        return
    assert (ElfObject.parse(written).code.insns == moved.program.insns).all()


def refusal(data):
    """The FormatError that an object gives, or None."""
    try:
        exercise(data)
    except FormatError as error:
        return error
    return None


@pytest.mark.parametrize("seed", range(SEEDS))
def test_mutated_objects_are_refused_or_read(seed):
    """A broken object gives FormatError or a result, within a second."""
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        data = mutated(rng.choice(corpus()), rng)
        start = time.process_time()
        refused = refusal(data)
        assert refused is None or refused.byte_off is None or refused.byte_off >= 0
        assert time.process_time() - start < SECONDS


def test_memory_is_a_small_multiple_of_the_input():
    """Reading broken objects takes no more memory than some times their size."""
    rng = random.Random(99)
    exercise(corpus()[0])
    for _ in range(100):
        data = mutated(rng.choice(corpus()), rng)
        tracemalloc.start()
        try:
            exercise(data)
        except FormatError:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 64 * len(data) + (1 << 20)


@pytest.mark.parametrize("n_sections", [60_000])
def test_many_sections_are_no_trouble(n_sections):
    """A file that is nothing but empty sections is read in about its size's time."""
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 1, 247, 1, 0, 0, 64, 0, 64, 0, 0, 64, n_sections, 0)
    shdr = struct.pack("<IIQQQQIIQQ", 0, 1, 6, 0, 64, 0, 0, 0, 8, 0)
    data = header + shdr * n_sections
    start = time.process_time()
    obj = ElfObject.parse(data)
    assert len(obj.code) == 0
    assert obj.to_bytes() == data
    assert time.process_time() - start < 4 * SECONDS
