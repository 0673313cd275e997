"""The command line as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bpfpatch.cli import app

# Nobody looks into these processes for whether they load anything.
pytestmark = pytest.mark.kernel

BPFPATCH = [sys.executable, "-m", "bpfpatch"]
BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "click":
            raise ModuleNotFoundError("No module named 'click'", name="click")
sys.meta_path.insert(0, Block())
from bpfpatch.cli import main
main()
"""


def run(*args: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run ``python -m bpfpatch``."""
    command = [*BPFPATCH, *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)


def test_version_needs_no_numpy() -> None:
    """--version and --help import neither NumPy nor rich."""
    code = (
        "import sys\nfrom bpfpatch.cli.app import run\n"
        "run(['--version']); run(['--help'])\n"
        "assert not {'numpy', 'rich'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_objects_through_pipes(demo: Path) -> None:
    """Bytes go through stdin and stdout unchanged."""
    done = run("apply", "-", "-o", "-", stdin=demo.read_bytes())
    assert (done.returncode, done.stdout) == (0, demo.read_bytes())


@pytest.mark.parametrize("name", app.COMMANDS)
def test_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command's help has examples."""
    assert app.run([name, "--help"]) == 0
    assert "Examples:" in capsys.readouterr().out


def test_status_of_a_process() -> None:
    """What a command line comes to is the status of its process."""
    done = run("nosuch")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"Usage: bpfpatch")


@pytest.mark.parametrize(
    "args", [["nosuch"], ["--nosuch"], ["dump"], ["apply"], ["info", "a", "b"]]
)
def test_wrong_arguments_exit_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong arguments give the usage and exit with 2."""
    assert app.run(args) == 2
    out, err = capsys.readouterr()
    assert (out, err.startswith("Usage: bpfpatch")) == ("", True)


def test_reader_that_goes_away(demo: Path) -> None:
    """A reader that closes the pipe early causes no message; the status is that of SIGPIPE."""
    code = f"{{ {sys.executable} -m bpfpatch dump {demo}; echo $? >&2; }} | true"
    done = subprocess.run(["sh", "-c", code], capture_output=True, check=True, timeout=60)
    assert done.stderr.strip() in (b"141", b"0")  # 0 where it was quicker than the reader


def test_output_that_is_full(demo: Path) -> None:
    """A full disk under stdout is one line, and a failure."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*BPFPATCH, "dump", str(demo)], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"bpfpatch: <stdout>: No space left on device\n"


def test_without_click_there_is_a_message() -> None:
    """Installed without what it needs, the command line says what to install."""
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "bpfpatch: the command line needs click, which is not installed: pip install click"
    ]


def test_closed_streams(demo: Path, tmp_path: Path) -> None:
    """With all standard streams closed, files are still what they should be."""
    out = tmp_path / "out.o"
    code = f"{sys.executable} -m bpfpatch apply {demo} -o {out} <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", code], check=False, timeout=60)
    assert done.returncode == 0
    assert out.read_bytes() == demo.read_bytes()


def test_streams_of_another_character_set(tmp_path: Path) -> None:
    """What the terminal's character set lacks is escaped."""
    path = tmp_path / "x\N{SNOWMAN}.s"
    path.write_text("exit\n")
    done = subprocess.run(
        [*BPFPATCH, "diff", "-q", str(path), "-"],
        input=b"r0 = 0\nexit\n",
        capture_output=True,
        check=False,
        env={"PYTHONIOENCODING": "iso-8859-1", "PYTHONUTF8": "1"},
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"x\\u2603.s" in done.stdout


def test_closed_stdout_is_an_error(demo: Path) -> None:
    """What was to go to a closed standard output is lost, and that is said."""
    command = f"{sys.executable} -m bpfpatch dump {demo} >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("bpfpatch: <stdout>: ")
