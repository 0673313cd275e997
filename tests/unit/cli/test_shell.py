"""What shells and man show of the command line."""

from __future__ import annotations

import subprocess

import pytest

click = pytest.importorskip("click")

from click.testing import CliRunner  # noqa: E402 - needs click

from bpfpatch._version import __version__  # noqa: E402 - needs click
from bpfpatch.cli.app import COMMANDS, cli  # noqa: E402
from bpfpatch.cli.manpage import man_page  # noqa: E402
from support.machine.tools import need  # noqa: E402


def said(args: list[str], **environment: str) -> str:
    """What the command prints."""
    done = CliRunner().invoke(cli, args, env=environment, prog_name="bpfpatch")
    assert done.exit_code == 0, done.output
    return done.stdout


def completed(*words: str) -> list[str]:
    """What bash is told about the last of some words."""
    typed = {"COMP_WORDS": " ".join(("bpfpatch", *words)), "COMP_CWORD": str(len(words))}
    return said([], _BPFPATCH_COMPLETE="bash_complete", **typed).split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["kernel"], ["plain,kernel-diff"]),
        (["--vers"], ["plain,--version"]),
        (["apply", "--outp"], ["plain,--output"]),
        (["apply", "-p", "dce,no"], ["plain,dce,nops"]),
        (["apply", "lb"], ["file,lb"]),
        (["apply", "-o", "lb"], ["file,lb"]),
        (["extract", "-o", "ou"], ["dir,ou"]),
        (["exec", "--type", "xd"], ["plain,xdp"]),
        (["verify", "--allow-un"], ["plain,--allow-unchecked"]),
    ],
)
def test_words_are_completed(words: list[str], found: list[str]) -> None:
    """Commands, options, passes, kinds and files, each where it can stand."""
    assert found[0] in completed(*words)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_code(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable set, the command prints what the shell is to read."""
    # click asks bash for its version, and a test may start no command that might load programs.
    monkeypatch.setattr(
        "click.shell_completion.BashComplete._check_version", staticmethod(lambda: None)
    )
    assert "_bpfpatch_completion" in said([], _BPFPATCH_COMPLETE=f"{shell}_source")


def test_the_man_page_has_everything() -> None:
    """Each command has a section, with its options; what would be a request of roff is none."""
    page = man_page()
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert f"\n.SS bpfpatch {name}\n".replace("-", "\\-") in page
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.opts[-1].replace("-", "\\-") in page
    requests = {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))}
    assert requests == {".TH", ".SH", ".SS", ".B", ".TP", ".PP", ".nf", ".fi"}


def test_groff_has_nothing_to_say_of_the_man_page() -> None:
    """The page is sound by groff's own checks."""
    need("groff")
    command = ["groff", "-ww", "-man", "-Tutf8"]
    done = subprocess.run(command, input=man_page(), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "kernel-diff" in done.stdout.replace("\u2010", "-")


def test_version_has_a_short_name() -> None:
    """-V and --version say the same."""
    for option in ("-V", "--version"):
        assert said([option]) == f"bpfpatch, version {__version__}\n"
