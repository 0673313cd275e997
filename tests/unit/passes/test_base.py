"""What a pass is: its name, its options and their text, and the register."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import pytest

from bpfpatch.errors import OptionError
from bpfpatch.passes import Dce, Pass, Pipeline, Sprinkle, register, registered
from bpfpatch.patch import PatchList


class Idle(Pass):
    """A pass that does nothing, for others to inherit from."""

    def run(self, patches: PatchList) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Options(Idle):
    """One option of each type.

    And a second paragraph.
    """

    name = "options"
    whole: int = 1
    real: float = 0.5
    flag: bool = False
    text: str = "abc"
    maybe: int | None = 3
    maybe_text: str | None = None


def parsed(**options: str) -> Options:
    """The pass from its options as text."""
    return Options.from_options(options)


def test_user_pass_can_be_named_in_a_pipeline() -> None:
    """A registered pass of one's own is one like the others."""
    register(Options)
    assert registered()["options"] is Options
    (one,) = Pipeline.parse("options{whole=0x10,real=2.5,flag=yes,text=x y,maybe=none}").passes
    assert one == Options(16, 2.5, True, "x y", None)


def test_register_lists_in_order_of_names() -> None:
    """The list of passes is the same whatever was imported first."""
    assert list(registered()) == sorted(registered())
    assert {"dce", "nops", "sprinkle"} <= set(registered())


def test_text_form_leaves_defaults_out() -> None:
    """A pass with all its defaults is its name."""
    assert str(Options()) == "options"
    assert str(Options(whole=2, flag=True)) == "options{whole=2,flag=true}"
    assert str(Options(maybe=None)) == "options{maybe=none}"
    assert str(Sprinkle(every=2, seed=7)) == "sprinkle{every=2,seed=7}"


def test_summary_is_the_first_line() -> None:
    """The docstring's first line says what a pass is; a generated one says nothing."""
    assert Options.summary() == "One option of each type."

    @dataclass(frozen=True)
    class Silent(Idle):
        name = "silent"

    assert Silent.summary() == ""


def test_options_are_the_fields() -> None:
    """The fields are the options, the class variables are not."""
    assert [option.name for option in Dce.options()] == ["branches", "functions", "aux", "maps"]


@pytest.mark.parametrize(
    ("key", "text", "what"),
    [
        ("whole", "x", "a whole number"),
        ("whole", "1.5", "a whole number"),
        ("whole", "none", "a whole number"),
        ("real", "x", "a number"),
        ("flag", "maybe", "true or false"),
        ("maybe", "x", "a whole number, or none"),
    ],
)
def test_value_of_another_type_is_refused(key: str, text: str, what: str) -> None:
    """The error names pass, option, what it takes and what it got."""
    with pytest.raises(OptionError) as caught:
        parsed(**{key: text})
    assert str(caught.value) == f"pass options: {key} is {what}, not {text!r}"


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("YES", True), ("no", False), ("0", False)]
)
def test_truth_has_several_words(text: str, value: bool) -> None:
    """A flag is written in several ways, in any case."""
    assert parsed(flag=text).flag is value


def test_numbers_may_be_hex_or_negative() -> None:
    """A whole number is read as Python reads one."""
    assert (parsed(whole="0xff").whole, parsed(whole="-3").whole) == (255, -3)


def test_unknown_option_lists_the_known_ones() -> None:
    """The error says what there is."""
    with pytest.raises(
        OptionError, match=r"no option 'evry' \(did you mean every\?\); there are: every, seed"
    ):
        Pipeline.parse("sprinkle{evry=2}")
    with pytest.raises(OptionError, match="no option 'x'; there are: once"):
        Pipeline.parse("nops{x=1}")


def test_option_without_default_must_be_given() -> None:
    """The error names the option; given, it is in the text form."""

    @register
    @dataclass(frozen=True)
    class Needy(Idle):
        name = "needy"
        size: int

    with pytest.raises(OptionError, match="pass needy needs its option 'size'"):
        Pipeline.parse("needy")
    assert str(Pipeline.parse("needy{size=3}")) == "needy{size=3}"


def test_pass_can_refuse_a_value() -> None:
    """A ValueError of the pass's own becomes an OptionError with the pass's name."""

    @register
    @dataclass(frozen=True)
    class Picky(Idle):
        name = "picky"
        size: int = 1

        def __post_init__(self) -> None:
            if self.size > 5:
                raise ValueError(f"size is at most 5, not {self.size}")

    with pytest.raises(OptionError, match="pass picky: size is at most 5, not 6"):
        Pipeline.parse("picky{size=6}")


@pytest.mark.parametrize("name", ["", "Upper", "two words", "1st", "a,b", None, 5])
def test_bad_names_are_refused(name: object) -> None:
    """A name that a pipeline could not hold is no name."""
    cls = dataclass(frozen=True)(type("Bad", (Idle,), {} if name is None else {"name": name}))
    with pytest.raises(OptionError, match="lower-case letters, digits and dashes"):
        register(cls)


def test_taken_name_is_refused() -> None:
    """Two passes cannot have one name, whatever their classes are called."""
    cls = dataclass(frozen=True)(type("Dce", (Idle,), {"name": "dce"}))
    with pytest.raises(OptionError, match="two passes are called 'dce'"):
        register(cls)
    assert registered()["dce"] is Dce


def test_same_file_imported_again_registers_again(tmp_path: Path) -> None:
    """A plugin that is loaded a second time takes the place of its first self."""
    source = (
        "from dataclasses import dataclass\n"
        "from bpfpatch.passes import Pass, register\n"
        "@register\n@dataclass(frozen=True)\n"
        "class Mine(Pass):\n    name = 'mine'\n    def run(self, patches): pass\n"
    )
    path = tmp_path / "mine.py"
    path.write_text(source)
    for name in ("_plugin_a", "_plugin_b"):
        module = types.ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module
        try:
            exec(compile(source, str(path), "exec"), module.__dict__)
        finally:
            latest = registered()["mine"]
    assert latest.__module__ == "_plugin_b"
    del sys.modules["_plugin_a"], sys.modules["_plugin_b"]


def test_undecorated_class_is_refused() -> None:
    """A class that is no dataclass of its own would lose its options without a word."""

    class Forgot(Idle):
        name = "forgot"
        size: int = 1

    with pytest.raises(OptionError, match="put @dataclass"):
        register(Forgot)


@pytest.mark.parametrize("annotation", [list, dict, int | str, list[int]])
def test_option_that_has_no_text_form_is_refused(annotation: object) -> None:
    """An option of another type is refused where it is written, not where it is used."""
    cls = dataclass(frozen=True)(
        type("Odd", (Idle,), {"name": "odd", "__annotations__": {"size": annotation}, "size": 1})
    )
    with pytest.raises(OptionError, match="option 'size' is an int, float, bool or str"):
        register(cls)


def test_optional_is_a_type_or_none() -> None:
    """Typing's older way to write ``int | None`` is one, too."""
    annotations = {"size": Optional[int]}  # noqa: UP045 - what is tested
    cls = dataclass(frozen=True)(
        type("Old", (Idle,), {"name": "old", "__annotations__": annotations, "size": None})
    )
    register(cls)
    assert [str(Pipeline.parse(text)) for text in ("old{size=4}", "old{size=none}")] == [
        "old{size=4}",
        "old",
    ]


def test_pass_without_run_cannot_be_made() -> None:
    """Run is what a pass is."""
    cls = dataclass(frozen=True)(type("Empty", (Pass,), {"name": "empty"}))
    with pytest.raises(TypeError, match="run"):
        cls()


def test_passes_are_frozen_and_equal_by_options() -> None:
    """Two passes with the same options are the same."""
    assert Sprinkle(every=2) == Sprinkle(2)
    assert len({Sprinkle(every=2), Sprinkle(2)}) == 1
    with pytest.raises(AttributeError):
        Sprinkle().every = 3  # type: ignore[misc]
