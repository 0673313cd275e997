"""A BPF object file: its code as a program, and the file back with other code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from numpy.typing import NDArray

from bpfpatch.btf import Btf, BtfExt
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.program import Program

from .contents import (
    MapSymbol,
    ProgramInfo,
    Section,
    Symbol,
    functions,
    maps,
    programs,
    sections,
    symbols,
)
from .decode import ObjectCode, read_btf, read_code
from .files import Source, Target, read_all, write_all
from .link import LinkedProgram, link
from .newdata import MakeType, add_global, add_kfunc, add_map, add_rel_sections, add_section
from .newrelocs import check_symbol, relocation_row
from .raw import EM_BPF, ByteOrder, RawElf, parse_raw
from .rewrite import Dwarf, RewrittenFile, rewrite
from .space import RELOC_TABLE, read_insns
from .values import Variable, variables, with_values

_NO_MACHINE: Final = "its e_machine is 0, as old compilers leave it; it is read as BPF"


@dataclass(frozen=True, eq=False)
class ElfObject:
    """One relocatable BPF object. Immutable: an edit gives another object.

    Laws: ``parse(x).to_bytes() == x``; putting back code without edits
    gives the same bytes; ``parse(obj.to_bytes()) == obj``.

    Attributes:
        raw: the container.
        notices: what was odd about it, and what `with_code` updated or had to take away, as
            sentences for the user.
        settled: names that `with_values` was given: what they stand for is known for good.
    """

    raw: RawElf
    notices: tuple[str, ...] = field(default=())
    settled: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> ElfObject:
        """Read an object from memory. What is in its sections is read when asked for.

        Raises:
            FormatError: this is not an ELF64 relocatable BPF object, or it is broken.
        """
        raw = parse_raw(bytes(data))
        return cls(raw, () if int(raw.header["machine"][0]) == EM_BPF else (_NO_MACHINE,))

    @classmethod
    def read(cls, source: Source) -> ElfObject:
        """Read an object from a file, an open binary stream, or standard input (``-``).

        Raises:
            FormatError: see `parse`.
            OSError: it cannot be read.
        """
        return cls.parse(read_all(source))

    def to_bytes(self) -> bytes:
        """The object as a file holds it."""
        return self.raw.to_bytes()

    def write(self, target: Target) -> None:
        """Write the object to a file, an open binary stream, or standard output (``-``).

        A file is replaced in one step, or, where that fails, left as it was.

        Raises:
            OSError: it cannot be written.
        """
        write_all(target, self.to_bytes())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ElfObject):
            return NotImplemented
        return self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __repr__(self) -> str:
        return f"<ElfObject of {len(self.raw.names)} sections, {self.byteorder}-endian>"

    @property
    def byteorder(self) -> ByteOrder:
        """Of the file, "little" or "big"."""
        return self.raw.byteorder

    @cached_property
    def _btf(self) -> tuple[Btf | None, BtfExt | None]:
        return read_btf(self.raw)

    @cached_property
    def _code(self) -> ObjectCode:
        return read_code(self.raw, *self._btf)

    @property
    def btf(self) -> Btf | None:
        """Types and strings of .BTF, or None.

        Raises:
            FormatError: .BTF or .BTF.ext is broken.
        """
        return self._btf[0]

    @property
    def btf_ext(self) -> BtfExt | None:
        """Records of .BTF.ext, or None.

        Raises:
            FormatError: .BTF or .BTF.ext is broken.
        """
        return self._btf[1]

    @property
    def code(self) -> Program:
        """All code of the object: one program, with its executable sections as ranges.

        Its references are distances within the program, also where the file
        splits them between a relocation and a field. Its tables are
        ``line_info``, ``func_info`` and ``core_relo`` (with .BTF.ext), and
        ``reloc``, ``symbol``, ``label``, ``code_address`` and ``jump_table``;
        see `bpfpatch.elf.space` for the rows of the latter.

        Raises:
            FormatError: code, symbols, relocations or records are broken.
        """
        return self._code.program

    def with_code(self, new: RewrittenFile, dwarf: Dwarf = "update") -> ElfObject:
        """This object with other code, and everything that depends on code moved along.

        Args:
            new: the program and the remap that linearizing a patch list of
                `code` gave.
            dwarf: DWARF goes stale as soon as an instruction has moved: "update" puts it
                right, or, where something in it is not understood, does as "drop" does, which
                removes it; "refuse" raises. What was done is in ``notices``.

        Returns:
            The new object. Its own `code` is ``new.program``, but for what
            cannot be seen in a file.

        Raises:
            OptionError: ``new`` is not about this object's code.
            StaleDebugError: ``dwarf`` is "refuse", and there is some to go stale.
            LostRowError: something that stays needs an instruction that is gone.
            UnsupportedError: the object has no place for what the new code
                needs, or something else refers to a symbol that leaves.
        """
        raw, notices = rewrite(self.raw, self._code, new, dwarf)
        return replace(self, raw=raw, notices=self.notices + notices)

    def relocation(self, section: str, symbol: str) -> NDArray[Any]:
        """A row that makes an inserted ld_imm64 load the address of a map or variable.

        ::

            node = patches.insert_before(site, Body(isa.ld_imm64(1, 0)))
            patches.attach("reloc", node, obj.relocation("xdp", "my_map"))

        Args:
            section: the code section that the instruction goes into.
            symbol: the map, variable or kernel symbol.

        Raises:
            OptionError: the object has no such symbol, or no relocations there.
            FormatError: see `code`.
        """
        return relocation_row(self._code, section, symbol)

    def check_symbol(self, name: str, *, is_call: bool) -> None:
        """Whether a body may call, or load the address of, what is called so.

        Raises:
            OptionError: it may not; names that are alike are named.
            FormatError: see `code`.
        """
        check_symbol(self._code, name, is_call=is_call)

    def symbol_row(self, section: str, name: str, *, is_call: bool) -> tuple[str, NDArray[Any]]:
        """(table, row) for what a body refers to by name; see `relocation`."""
        return RELOC_TABLE, relocation_row(self._code, section, name, is_call=is_call)

    def with_map(self, new: MapDefinition, value: MakeType | None = None) -> ElfObject:
        """This object with one more map, which any loader creates.

        Its name is then a symbol for `relocation`. An object without types gets
        some; one that defines its maps in a section ``maps`` gets a record there.

        Args:
            new: the map; its ids of types are in this object's types.
            value: makes its values' type where the object has it not.

        Raises:
            OptionError: the name is taken, or the map starts with something.
            UnsupportedError: the object has no symbol table, or .BTF.ext without .BTF.
        """
        return replace(self, raw=add_map(self.raw, self.btf, new, value))

    def with_global(
        self, name: str, data: bytes, section: str = ".bss", make: MakeType | None = None
    ) -> ElfObject:
        """This object with one more global variable, a symbol for `relocation`.

        Args:
            name: of the variable.
            data: what it starts with; in ``.bss`` zeros, of which the length counts.
            section: ``.bss``, ``.data``, ``.rodata``, or one of them with a name after a dot:
                a loader makes a map of each. It is made where the object has none.
            make: adds the variable's type, see `u64_array`; bytes otherwise.

        Raises:
            OptionError: the name is taken, or there can be no such section.
            UnsupportedError: the object has no symbol table.
        """
        raw = add_global(self.raw, self.btf, name, data, section, make)
        return replace(self, raw=raw)

    def with_kfunc(self, name: str, kernel: Btf) -> ElfObject:
        """This object with a kernel function declared, a symbol for calls in bodies.

        Args:
            name: of the kernel function.
            kernel: types that have it, as `bpfpatch.kernel.vmlinux_btf` does; a loader
                compares its prototype with the running kernel's.

        Raises:
            OptionError: the name is taken, or those types have no such function.
            UnsupportedError: the object has no symbol table, or no types.
        """
        return replace(self, raw=add_kfunc(self.raw, self.btf, name, kernel))

    def with_section(self, name: str, data: bytes) -> ElfObject:
        """This object with a section of data for tools, which loaders skip.

        Raises:
            OptionError: there is one of this name.
        """
        return replace(self, raw=add_section(self.raw, name, data))

    def with_relocatable(self) -> ElfObject:
        """This object, with a section of relocations for each code section.

        What `with_code` puts in there needs one; compilers leave empty ones out.

        Raises:
            UnsupportedError: the object has no symbol table.
        """
        numbers = tuple(self._code.space.sections.tolist())
        return replace(self, raw=add_rel_sections(self.raw, numbers))

    @property
    def is_relocatable(self) -> bool:
        """Whether each code section has a section of relocations.

        Raises:
            FormatError: see `code`.
        """
        return all(
            self._code.rel_section(int(number)) is not None for number in self._code.space.sections
        )

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """Global variables with a type; none in an object without .BTF.

        Raises:
            FormatError: types or symbols are broken.
        """
        return variables(self.raw, self.btf)

    def with_values(self, values: Mapping[str, Any], *, writable: bool = False) -> ElfObject:
        """This object with other values in its variables.

        ::

            obj.with_values({"enable_ipv6": False, "limits.max": 10, "mode": "MODE_FAST"})

        Args:
            values: by variable, or member or element of one; see
                `bpfpatch.btf.values.write_value` for what stands for what.
            writable: whether variables that programs may write (``.data``, ``.bss``) can be
                given, too: for them it is what they start with.

        Returns:
            The new object; pass ``const`` takes the given read-only ones for constants.

        Raises:
            OptionError: there is no such variable or member, the value does not fit its type,
                it is an address, or one that programs may write.
        """
        raw = with_values(self.raw, self.btf, values, writable=writable)
        kept = tuple(name for name in self.settled if name not in values)
        return replace(self, raw=raw, settled=(*kept, *values))

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """All sections, in order."""
        return sections(self.raw)

    @cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """All symbols, in order.

        Raises:
            FormatError: the symbol table is broken.
        """
        return symbols(self.raw)

    @cached_property
    def programs(self) -> tuple[ProgramInfo, ...]:
        """What a loader would load: global functions outside of .text.

        Raises:
            FormatError: see `code`.
        """
        return programs(self._code)

    @property
    def file_insns(self) -> NDArray[Any]:
        """(n,) `isa.INSN` of `code` with the fields that the file has, each slot's own.

        Raises:
            FormatError: see `code`.
        """
        space = self._code.space
        words = read_insns(self.raw, space)
        return words if space.padding is None else words[~space.padding.is_padding]

    @cached_property
    def functions(self) -> tuple[ProgramInfo, ...]:
        """All functions with a name, of any section; `link` takes them all.

        Raises:
            FormatError: see `code`.
        """
        return functions(self._code)

    @cached_property
    def maps(self) -> tuple[MapSymbol, ...]:
        """Maps that the object defines, legacy ones and those in .maps.

        Raises:
            FormatError: the symbol table is broken.
        """
        return maps(self.raw)

    @property
    def license(self) -> str | None:
        """What section ``license`` says, or None without one."""
        section = self.raw.find("license")
        if section is None:
            return None
        return bytes(self.raw.contents[section]).split(b"\0")[0].decode("utf-8", "replace")

    def link(self, name: str) -> LinkedProgram:
        """The flat program that a loader would submit for one of `programs`, or `functions`.

        Raises:
            LinkError: there is no function of this name.
            FormatError: see `code`.
        """
        return link(self.raw, self._code, name)
