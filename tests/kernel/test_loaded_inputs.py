"""Programs in the kernel, where otherwise an object goes in: ``--prog-id`` and ``--pin``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bpfpatch.bpf.pinned import pinned
from bpfpatch.cli.app import cli
from support.inputs.bpfobjects import fixture_path
from support.machine.tools import Loaded, loaded, need_bpf

pytestmark = pytest.mark.kernel
OBJ = fixture_path("xdp_balancer.clang-19.v3.el.g.o")


@pytest.fixture(scope="module")
def balancer() -> Iterator[Loaded]:
    """The balancer, loaded by bpftool."""
    need_bpf()
    with loaded(OBJ) as found:
        yield found


def run(*args: object, status: int = 0) -> Result:
    """Run a command line."""
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == status, result.output
    return result


def test_info_of_a_loaded_program(balancer: Loaded) -> None:
    """Info says what the program is, its functions, its maps by their types, and its variables."""
    pin = balancer.pin()
    _, prog_id = pinned(str(pin))
    found = json.loads(run("info", "--pin", pin, "--json").stdout)
    assert found | {"file": ""} == json.loads(
        run("info", "--prog-id", prog_id, "--json").stdout
    ) | {"file": ""}
    assert (found["name"], found["type"], found["gpl"]) == ("balancer", "xdp", True)
    assert {"balancer", "parse_ip4", "count"} <= {one["name"] for one in found["subprograms"]}
    maps = {one["name"]: one for one in found["maps"]}
    assert (maps["flows"]["type"], maps["flows"]["key"]) == ("hash", "struct flow")
    assert maps["flows"]["max_entries"] == 1024
    values = {one["name"]: one["value"] for one in found["globals"]}
    assert (values["virtual_port"], values["total_packets"]) == (80, 0)
    assert any("lookup" in one["name"] for one in found["calls"])
    text = run("info", "--pin", pin).stdout
    assert re.search(r"flows +hash +flow +u32 +1024", text)
    assert max(map(len, text.splitlines()[2:])) <= 80


def test_dump_of_a_loaded_program(balancer: Loaded) -> None:
    """Dump shows the code as the kernel has it, with functions, source lines and maps named."""
    text = run("dump", "--pin", balancer.pin()).stdout
    assert "\nparse_ip4:\n" in text
    assert "stat->packets += 1;" in text
    assert "// flows" in text
    assert "(79) r" in text
    only = run("dump", "--pin", balancer.pin(), "--prog", "count", "--cfg", "-").stdout
    assert only.startswith('digraph "count" {')


def test_diff_with_a_loaded_program(balancer: Loaded) -> None:
    """A loaded program stands for the file that is missing; one is the same as itself."""
    pin = balancer.pin()
    assert run("diff", "--pin", pin, "--pin", pin).stdout == ""
    text = run("diff", OBJ, "--pin", pin, status=1).stdout
    assert text.splitlines()[:2] == [f"--- {OBJ}", f"+++ {pin}"]
    assert "parse_ip4" in text


@pytest.mark.parametrize("command", [["info"], ["dump"], ["diff"], ["profile", OBJ]])
def test_a_folder_is_listed(balancer: Loaded, command: list[Any]) -> None:
    """Of a folder, what is pinned in it is told: kind, id and name."""
    _, prog_id = pinned(str(balancer.pin()))
    (row,) = json.loads(run(*command, "--pin", balancer.root, "--json").stdout)
    assert (row["kind"], row["id"], row["name"]) == ("program", prog_id, "balancer")
    assert str(prog_id) in run(*command, "--pin", balancer.root).stdout


def test_a_map_is_no_program(balancer: Loaded) -> None:
    """A pinned map is refused by what it is."""
    done = run("info", "--pin", balancer.maps["flows"], status=1)
    assert "a map is pinned there, and no program" in done.stderr


def test_what_is_not_there() -> None:
    """An id that no program has, and a path where nothing is pinned, are named."""
    need_bpf()
    assert "program 4294967295" in run("info", "--prog-id", 4294967295, status=1).stderr
    assert "/sys/fs/bpf/none" in run("dump", "--pin", "/sys/fs/bpf/none", status=1).stderr


@pytest.mark.parametrize(
    "args", [("info",), ("info", OBJ, "--prog-id", 1), ("dump",), ("diff", OBJ)]
)
def test_too_few_or_many_inputs(args: tuple[Any, ...]) -> None:
    """Files and programs together have to be as many as the command compares."""
    assert "a file, --prog-id or --pin each" in run(*args, status=2).stderr
