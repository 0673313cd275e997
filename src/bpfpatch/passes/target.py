"""For whom a pipeline rewrites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from bpfpatch.btf import Btf
from bpfpatch.errors import OptionError
from bpfpatch.isa import Reg
from bpfpatch.linux.versions import NEWEST, Topic, check_known, parse_version, value


@dataclass(frozen=True, slots=True)
class Arch:
    """A processor, as far as its JIT makes the kernel rewrite otherwise.

    Attributes:
        name: as ``uname -m`` has it.
        word_bits: width of a pointer.
        byteorder: "little" or "big".
        needs_zext: whether its JIT wants zero extensions to be explicit.

    Source: linux v6.18, arch/*/net/bpf_jit*.c, bpf_jit_needs_zext().
    """

    name: str
    word_bits: int = 64
    byteorder: str = "little"
    needs_zext: bool = False


ARCHES: Final = {
    arch.name: arch
    for arch in (
        Arch("x86_64"),
        Arch("aarch64"),
        Arch("i686", word_bits=32, needs_zext=True),
        Arch("armv7l", word_bits=32, needs_zext=True),
        Arch("riscv64", needs_zext=True),
        Arch("ppc64le", needs_zext=True),
        Arch("ppc64", byteorder="big", needs_zext=True),
        Arch("s390x", byteorder="big", needs_zext=True),
        Arch("loongarch64", needs_zext=True),
    )
}


@dataclass(frozen=True, slots=True)
class Target:
    """Who is to run the result.

    Attributes:
        is_loadable: whether bpf(2) must accept it; else it is the kernel's own form.
        cpu: the highest cpu version that may be used, 1 to 4; None for any.
        kernel: the kernel's version, such as (6, 18): it decides what is rewritten how.
        arch: the processor.
        btf: types of the kernel, for the places of fields in its structs; needed by passes
            that make the kernel's own form.
    """

    is_loadable: bool = True
    cpu: int | None = None
    kernel: tuple[int, int] = NEWEST
    arch: Arch = ARCHES["x86_64"]
    btf: Btf | None = None

    def __post_init__(self) -> None:
        """Check the versions.

        Raises:
            OptionError: no such version of the cpu, or one of the kernel of which nothing is known.
        """
        check_known(self.kernel)
        if self.cpu not in (None, 1, 2, 3, 4):
            raise OptionError(f"cpu is v1, v2, v3 or v4, not {self.cpu!r}")

    @property
    def hidden(self) -> Reg:
        """The register that is the kernel's own."""
        return Reg(value(Topic.HIDDEN_REGISTER, self.kernel))

    @classmethod
    def loadable(cls, cpu: str | int | None = None) -> Self:
        """A program for bpf(2), of at most this cpu version: ``"v3"`` or 3.

        Raises:
            OptionError: no such version.
        """
        if cpu is None:
            return cls()
        number = str(cpu).removeprefix("v")
        if number not in ("1", "2", "3", "4"):
            raise OptionError(f"cpu is v1, v2, v3 or v4, not {cpu!r}")
        return cls(cpu=int(number))

    @classmethod
    def internal(
        cls, kernel: str = "6.18", arch: str | Arch = "x86_64", btf: Btf | None = None
    ) -> Self:
        """The form that a kernel makes of a program, which bpf(2) refuses.

        Args:
            kernel: its version, ``"6.18"``; what follows the second number is ignored.
            arch: the processor, by name or as an `Arch` of your own.
            btf: the kernel's types.

        Raises:
            OptionError: no version or one of which nothing is known, or an unknown processor.
        """
        if isinstance(arch, str):
            if arch not in ARCHES:
                raise OptionError(f"no processor {arch!r}; known are: {', '.join(ARCHES)}")
            arch = ARCHES[arch]
        return cls(is_loadable=False, kernel=parse_version(kernel), arch=arch, btf=btf)
