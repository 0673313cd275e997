"""What a pass is, how it is named in text, and where passes are registered."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from types import NoneType, UnionType
from typing import Any, ClassVar, Final, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from bpfpatch.errors import OptionError
from bpfpatch.patch import PatchList
from bpfpatch.program import Program
from bpfpatch.text import unknown

from .builtin import CLASSES, built_in
from .setting import Setting
from .target import Target


@dataclass(frozen=True)
class Pass:
    """A rewriting: a frozen dataclass whose fields are its options.

    Subclass it, say what it is called, and edit the list in `run`; a pass
    never touches a table, a distance or a slot number::

        @register
        @dataclass(frozen=True)
        class CountCalls(Pass):
            \"\"\"Count helper calls in r6.\"\"\"

            name = "count-calls"
            step: int = 1

            def run(self, patches: PatchList) -> None:
                calls = patches.find(isa.is_helper_call)
                patches.insert_before(calls, Body.asm(f"r6 += {self.step}"))

    A pass that has to know for whom it rewrites, or what kind of program, has
    `run_for` instead of `run`.

    An option is an int, float, bool or str, each of them ``| None`` if need be;
    text with ``,``, ``{`` or ``}`` in it has no form in a pipeline.

    Attributes:
        name: what a pipeline calls it.
        knows_landing_pads: whether it is right for code that is entered without a jump, when
            the program is unwound; others are refused for programs that have some.
        is_internal: whether its result has what only the kernel itself may
            make, and bpf(2) would refuse.
        needs: names of the columns and tables that must be there, as far as the program has
            what they tell of; a pipeline fills what an analysis finds out.
        uses: names of those that it goes by as well, where they are there.
    """

    name: ClassVar[str]
    is_internal: ClassVar[bool] = False
    knows_landing_pads: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    uses: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Refuse a pass that does nothing."""
        if cls.run is Pass.run and cls.run_for is Pass.run_for:
            raise TypeError(f"pass {cls.__name__} has neither run() nor run_for()")
        return super().__new__(cls)

    def run(self, patches: PatchList) -> None:
        """Edit the list. What earlier passes put in is there to be seen and edited."""
        raise NotImplementedError(f"pass {self.name} needs to be told for whom: see run_for()")

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """The same, with what is known beside the list; by default `run`."""
        del setting
        self.run(patches)

    def needed(self, program: Program, target: Target) -> tuple[str, ...]:
        """Which of `needs` must be there with these options, for this program; by default all."""
        del program, target
        return self.needs

    @classmethod
    def options(cls) -> tuple[dataclasses.Field[Any], ...]:
        """The pass's options, with types and defaults."""
        return dataclasses.fields(cls)

    @classmethod
    def summary(cls) -> str:
        """The first line of the pass's docstring."""
        first = (cls.__doc__ or "").strip().partition("\n")[0]
        # A dataclass without a docstring is given its signature for one.
        return "" if first.startswith(f"{cls.__name__}(") else first

    @classmethod
    def from_options(cls, options: dict[str, str]) -> Self:
        """A pass from options as text.

        Raises:
            OptionError: an unknown option, a missing one, or a value of another type.
        """
        types = get_type_hints(cls)
        known = {option.name for option in cls.options()}
        missing = [option.name for option in cls.options() if _is_required(option)]
        for key in missing:
            if key not in options:
                raise OptionError(f"pass {cls.name} needs its option {key!r}")
        values: dict[str, Any] = {}
        for key, text in options.items():
            if key not in known:
                raise OptionError(f"pass {cls.name}: {unknown('option', key, sorted(known))}")
            values[key] = _value(cls.name, key, text, types[key])
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise OptionError(f"pass {cls.name}: {error}") from error

    def __str__(self) -> str:
        """The text form; options that have their default are left out."""
        shown = [
            f"{option.name}={_text(getattr(self, option.name))}"
            for option in self.options()
            if getattr(self, option.name) != option.default
        ]
        return self.name + (f"{{{','.join(shown)}}}" if shown else "")


PassType = TypeVar("PassType", bound=type[Pass])

_REGISTRY: dict[str, type[Pass]] = {}


def register(cls: PassType) -> PassType:
    """Make a pass known to pipelines by its name.

    Raises:
        OptionError: another pass has that name, it is no name, the class is no
            dataclass, or an option has a type that no text form stands for.
    """
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise OptionError(
            f"{cls.__qualname__}.name is {name!r}: a pass is named in lower-case letters, "
            "digits and dashes"
        )
    if "__dataclass_fields__" not in vars(cls):
        raise OptionError(
            f"pass {name} is no dataclass: put @dataclass(frozen=True) below @register"
        )
    types = get_type_hints(cls)
    for option in cls.options():
        if _kind(types[option.name])[0] not in _KINDS:
            raise OptionError(
                f"pass {name}: option {option.name!r} is an int, float, bool or str, "
                f"or one of them | None, not {types[option.name]}"
            )
    known = _REGISTRY.get(name)
    if known is None and name in CLASSES and not _is_built_in(cls):
        known = built_in(name)
    if known is not None and _home(known) != _home(cls):
        raise OptionError(f"two passes are called {name!r}: {known!r} and {cls!r}")
    _REGISTRY[name] = cls
    return cls


def _home(cls: type[Pass]) -> tuple[str, str]:
    """Where a class is written: a file that is imported again defines the same passes."""
    module = sys.modules.get(cls.__module__)
    return getattr(module, "__file__", None) or cls.__module__, cls.__qualname__


def _is_built_in(cls: type[Pass]) -> bool:
    return cls.__module__.startswith("bpfpatch.")


class _Passes(Mapping[str, type[Pass]]):
    """Passes by name, in order of names; those that come with the package are imported late."""

    def __init__(self, loaded: Mapping[str, type[Pass]]) -> None:
        self._loaded = dict(loaded)

    def __getitem__(self, name: str) -> type[Pass]:
        return self._loaded[name] if name in self._loaded else built_in(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._loaded.keys() | CLASSES.keys()))

    def __len__(self) -> int:
        return len(self._loaded.keys() | CLASSES.keys())


def registered() -> Mapping[str, type[Pass]]:
    """All registered passes by name, in order of names."""
    return _Passes(_REGISTRY)


def _is_required(option: dataclasses.Field[Any]) -> bool:
    return option.default is MISSING and option.default_factory is MISSING


def _truth(text: str) -> bool:
    truths = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    return truths[text.lower()]


def _number(text: str) -> int:
    return int(text, 0)


_KINDS: Final[dict[Any, tuple[Callable[[str], Any], str]]] = {
    bool: (_truth, "true or false"),
    int: (_number, "a whole number"),
    float: (float, "a number"),
    str: (str, "text"),
}


def _kind(want: Any) -> tuple[Any, bool]:
    """An option's type, and whether it may be None instead."""
    is_union = isinstance(want, UnionType) or get_origin(want) is Union
    parts = set(get_args(want)) if is_union else {want}
    has_none = NoneType in parts
    parts.discard(NoneType)
    return (parts.pop() if len(parts) == 1 else want), has_none


def _value(pass_name: str, key: str, text: str, want: Any) -> Any:
    kind, has_none = _kind(want)
    if has_none and text == "none":
        return None
    parse, what = _KINDS[kind]
    try:
        return parse(text)
    except (KeyError, ValueError):
        may_be = f"{what}, or none" if has_none else what
        raise OptionError(f"pass {pass_name}: {key} is {may_be}, not {text!r}") from None


def _text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
