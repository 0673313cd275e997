"""``bpfpatch cover report`` in CI: several objects, limits, patterns, paths and settings."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bpfpatch import coverage, runs
from bpfpatch.coverage import collect
from bpfpatch.coverage.run import instrumented
from bpfpatch.elf import ElfObject
from support.inputs import packets
from support.inputs.bpfobjects import fixture_path

FOLDER = fixture_path("x").parents[1]
BALANCER = "xdp_balancer.clang-19.v3.el.g.o"
PARSER = "xdp_parse.clang-19.v3.el.g.o"
PACKET = packets.SAMPLES["tcp_to_balancer"]
HEX = PACKET.hex()

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects that count, and what one run of each counted."""
    folder = tmp_path_factory.mktemp("built")
    for name, program in ((BALANCER, "balancer"), (PARSER, "parse_xdp")):
        counting = instrumented(ElfObject.read(fixture_path(name)))
        (folder / name).write_bytes(counting.to_bytes())
        ran = coverage.run(counting, program, [runs.Input(packet=PACKET)])
        (folder / name).with_suffix(".json").write_bytes(collect.save(ran.coverage))
    return folder


@pytest.fixture
def build(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, with a source and a build of two objects that have run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "src").mkdir()
    shutil.copy(FOLDER / "src" / "xdp_balancer.c", tmp_path / "src")
    return Path(shutil.copytree(built, tmp_path / "build"))


def rows(text: str) -> dict[str, list[str]]:
    """A table's rows by their first cell."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


def test_a_folder_is_one_report(run: Run, build: Path) -> None:
    """All objects and counters of a folder are one table with one total."""
    found = rows(run("cover", "report", "build").stdout)
    assert {"src/xdp_balancer.c", "src/xdp_parse.c", "total"} <= set(found)
    one = rows(run("cover", "report", *sorted(build.glob("*balancer*"))).stdout)
    assert found["src/xdp_balancer.c"] == one["src/xdp_balancer.c"]


def test_objects_and_counters_in_any_order(run: Run, build: Path) -> None:
    """Counters go to the object that they are of; saved ones need no object at all."""
    files = sorted(build.iterdir())
    whole = run("cover", "report", *files).stdout
    assert run("cover", "report", *files[::-1]).stdout == whole
    assert rows(run("cover", "report", *build.glob("*.json")).stdout) == rows(whole)


def test_an_object_that_did_not_run(run: Run, build: Path) -> None:
    """An object in a folder that no counters are of counts, and a notice says so."""
    next(build.glob("*parse*.json")).unlink()
    result = run("cover", "report", "build")
    assert rows(result.stdout)["src/xdp_parse.c"][0].startswith("0/")
    assert f"no counters are of build/{PARSER}" in result.stderr


def test_what_a_folder_has_besides(run: Run, build: Path) -> None:
    """Other JSON and objects that do not count are left out, and named; nothing at all fails."""
    (build / "package.json").write_text("{}")
    shutil.copy(fixture_path(BALANCER), build / "plain.o")
    told = run("cover", "report", "build").stderr
    assert "build/package.json has no counters" in told
    assert "build/plain.o is not instrumented" in told
    assert "neither an object that counts" in run("cover", "report", "src", status=1).stderr


def test_counters_of_none_of_the_objects(run: Run, build: Path) -> None:
    """Counters of an object that is not given are an error that names the file."""
    alone = build.with_name("other.json")
    run(
        "cover",
        "run",
        fixture_path("asm_branches.clang-19.v4.el.o"),
        "--hex",
        HEX,
        "-o",
        alone,
        "-q",
    )
    told = run("cover", "report", "build", alone, status=1).stderr
    assert f"{alone}: the file has counters of object" in told
    assert "none of the 2" in told


def test_one_limit_for_all(run: Run, build: Path) -> None:
    """--fail-under is about all objects; with the one for branches, both are told."""
    text = run("cover", "report", "build").stdout
    ran = float(rows(text)["total"][1])
    run("cover", "report", "build", "--fail-under", f"{ran - 1}", "--fail-under-branches", "1")
    both = ["--fail-under", f"{ran + 1}", "--fail-under-branches", "99"]
    result = run("cover", "report", "build", *both, status=1)
    assert "of the lines ran, --fail-under wants" in result.stderr
    assert "of the branches ran, --fail-under-branches wants 99 %" in result.stderr
    assert "total" in result.stdout


def test_patterns(run: Run, build: Path) -> None:
    """--include and --exclude choose files, also for what limits are about."""
    found = rows(run("cover", "report", "build", "--include", "*balancer.c").stdout)
    assert set(found) == {"FILE", "src/xdp_balancer.c", "total"}
    assert found["total"] == found["src/xdp_balancer.c"]
    found = rows(run("cover", "report", "build", "--exclude", "xdp_parse.c").stdout)
    assert "src/xdp_parse.c" not in found
    assert "no file is left" in run("cover", "report", "build", "--include", "x", status=1).stderr


def test_markers(run: Run, build: Path) -> None:
    """Lines that the source on disk excludes are left out of every form."""
    source = build.parent / "src" / "xdp_balancer.c"
    lines = source.read_text().split("\n")
    at = next(n for n, line in enumerate(lines) if "void *data = DATA(ctx)" in line)
    assert lines[at - 1] == "{"
    lines[at - 1] = "{ // LCOV_EXCL_START"
    source.write_text("\n".join(lines))
    run("cover", "report", "build", "-o", "a.info", "-q")
    assert f"DA:{at + 1}," not in Path("a.info").read_text().split("end_of_record")[0]
    run("cover", "report", "build", "-o", "a.info", "-q", "--no-markers")
    assert f"DA:{at + 1},1" in Path("a.info").read_text()


def test_missing_column(run: Run, build: Path) -> None:
    """-m says which lines did not run, as in the JSON."""
    text = run("cover", "report", "build", "-m").stdout
    body = json.loads(run("cover", "report", "build", "--format", "json").stdout)
    by_file = {one["file"]: one["missing"] for one in body["files"]}
    assert text.splitlines()[0].split()[-1] == "MISSING"
    (row,) = [line for line in text.splitlines() if "balancer" in line]
    assert row.endswith(by_file["src/xdp_balancer.c"])


def test_markdown(run: Run, build: Path) -> None:
    """Markdown is a heading and a table, for a job's summary."""
    text = run("cover", "report", "build", "--format", "markdown").stdout
    assert text.startswith("### Coverage of ")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count(" | ") for line in table}) == 1
    assert table[0].startswith("| File | Lines | % |")
    assert table[-1].startswith("| **total** |")


def test_several_outputs_and_the_terminal(run: Run, build: Path) -> None:
    """Each -o gets what its name says, and the table is shown besides; -q shows nothing."""
    outs = ["a.html", "a.xml", "a.info", "a.json", "a.md"]
    args = [part for out in outs for part in ("-o", out)]
    assert "total" in run("cover", "report", "build", *args).stdout
    starts = ["<!DOCTYPE html>", "<?xml", "TN:", "{", "### "]
    assert [Path(out).read_text().startswith(s) for out, s in zip(outs, starts, strict=True)] == [
        True
    ] * 5
    assert run("cover", "report", "build", "-q", *args).output == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-o", "-", "-o", "-"], "only one report can go to stdout"),
        (["-o", "a.xml", "-o", "b.xml", "--format", "cobertura"], "their names say"),
        (["-o", "a.xml", "--format", "terminal"], "goes to stdout"),
        (["--path-map", "no equals sign"], "OLD=NEW"),
        (["--fail-under-branches", "nan"], "nan"),
    ],
)
def test_wrong_arguments(run: Run, build: Path, args: list[str], message: str) -> None:
    """Arguments that make no sense are said to be so."""
    told = run("cover", "report", "build", *args, status=2).stderr
    assert message.replace("their names say", "names say") in told


def compiled_at(run: Run, folder: Path) -> Path:
    """The counters of a build whose object says that its source was compiled in /proj."""
    data = fixture_path(BALANCER).read_bytes()
    assert data.count(b"./src/xdp_balancer.c")
    obj = folder / "moved.o"
    obj.write_bytes(data.replace(b"./src/xdp_balancer.c", b"/proj/xdp_balancer.c"))
    saved = folder / "moved.json"
    run("cover", "run", obj, "--hex", HEX, "-o", saved, "-q")
    return saved


def names(run: Run, *args: str | Path) -> tuple[set[str], set[str], set[str], list[str]]:
    """What files are called in lcov, Cobertura, JSON; and Cobertura's sources."""
    run("cover", "report", *args, "-o", "n.info", "-o", "n.xml", "-o", "n.json", "-q")
    lcov = {line[3:] for line in Path("n.info").read_text().splitlines() if line.startswith("SF:")}
    root = ElementTree.parse("n.xml").getroot()
    xml = {str(one.get("filename")) for one in root.iter("class")}
    body = {one["file"] for one in json.loads(Path("n.json").read_text())["files"]}
    return lcov, xml, body, [str(one.text) for one in root.iter("source")]


def test_names_are_relative_to_the_root(run: Run, build: Path, tmp_path: Path) -> None:
    """What is below the root is called by its path from there in all forms."""
    absolute = compiled_at(run, tmp_path)
    for args in ([], ["--source-root", "."], ["--source-root", str(tmp_path)]):
        *found, sources = names(run, absolute, "--path-map", f"/proj={tmp_path}/src", *args)
        assert found == [{"src/xdp_balancer.c"}] * 3
        assert sources == [str(tmp_path.resolve())]
    *found, sources = names(run, absolute, "--source-root", "src")
    assert found == [{"xdp_balancer.c"}] * 3
    assert sources == [str(tmp_path.resolve() / "src")]


def test_names_of_what_is_not_found(run: Run, build: Path, tmp_path: Path) -> None:
    """A file that is elsewhere keeps its path; one that would be below the root is relative."""
    shutil.rmtree(tmp_path / "src")
    absolute = compiled_at(run, tmp_path)
    assert names(run, absolute)[0] == {"/proj/xdp_balancer.c"}
    assert names(run, absolute, "--path-map", f"/proj={tmp_path}/lib")[0] == {"lib/xdp_balancer.c"}
    assert names(run, absolute, "--path-map=/proj=lib")[0] == {"lib/xdp_balancer.c"}
    assert names(run, absolute, "--path-map=/pro=lib")[0] == {"/proj/xdp_balancer.c"}


def test_one_file_of_two_objects(run: Run, build: Path, tmp_path: Path) -> None:
    """A source that two objects call by different paths is one file of the report."""
    other = compiled_at(run, tmp_path)
    both = [*build.glob("*balancer*.json"), other, "--path-map", f"/proj={tmp_path}/src"]
    assert names(run, *both)[1] == {"src/xdp_balancer.c"}
    once = rows(run("cover", "report", *build.glob("*balancer*.json")).stdout)
    assert rows(run("cover", "report", *both).stdout)["total"][0] == once["total"][0]


def test_only_the_same_name(run: Run, build: Path, tmp_path: Path) -> None:
    """Without text to compare, a file of the same name elsewhere is not taken for the source."""
    strange = tmp_path / "xdp_balancer.c"
    strange.write_text("int other;\n" * 400)
    shutil.rmtree(tmp_path / "src")
    result = run("cover", "report", *build.glob("*balancer*.json"), "--lines")
    assert "int other" not in result.stdout
    assert "is not what was compiled" in result.stderr


SETTINGS = """
[tool.bpfpatch.report]
include = ["*balancer*"]
fail-under = 99
missing = true
output = "cover.xml"

[tool.bpfpatch.cover]
edges = false
count = "plain"
"""


@pytest.mark.parametrize("name", ["pyproject.toml", "bpfpatch.toml"])
def test_settings(
    run: Run, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What a project sets holds for its folders, relative to its file; the command line wins."""
    text = SETTINGS if name == "pyproject.toml" else SETTINGS.replace("tool.bpfpatch.", "")
    (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path / "build")
    result = run("cover", "report", ".", status=1)
    assert "wants 99 %" in result.stderr
    assert "MISSING" in result.stdout
    assert "xdp_parse" not in result.stdout
    assert (tmp_path / "cover.xml").exists()
    result = run(
        "cover", "report", ".", "--fail-under", "0", "--include", "*parse*", "--no-missing"
    )
    assert "MISSING" not in result.stdout
    assert "xdp_balancer" not in result.stdout
    told = run("cover", fixture_path(BALANCER), "-o", "x.o").stderr
    assert told != run("cover", fixture_path(BALANCER), "-o", "x.o", "--edges").stderr
    assert told != run("cover", fixture_path(BALANCER), "-o", "x.o", "--config", "").stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[reports]", "reports is no table of settings; there are cover, report"),
        ("[report]\nfail_under = 3", "report has no key fail_under; there are"),
        ("[report]\npin = 'x'", "report has no key pin; there are exclude, fail-under"),
        ("[report]\nfail-under = '3'", "report.fail-under is a number, not '3'"),
        ("[report]\nfail-under = 300", "300"),
        ("[report]\ninclude = 3", "report.include is a text, or a list of them, not 3"),
        ("[report]\nmissing = 1", "report.missing is true or false, not 1"),
        ("[cover]\ncount = 'some'", "some"),
        ("report = 3", "report is a table, not 3"),
        ("[report", "is no TOML"),
    ],
)
def test_wrong_settings(run: Run, build: Path, text: str, message: str) -> None:
    """A key that is unknown is an error with a list of those that are not, as is a wrong value."""
    Path("bpfpatch.toml").write_text(text)
    args = ["cover", "report", "build"] if "cover" not in text else ["cover", "x.o", "-o", "y"]
    result = run(*args, status=2 if message in ("300", "some") else 1)
    assert message in result.stderr


def test_settings_end_at_the_repository(run: Run, build: Path, tmp_path: Path) -> None:
    """Nothing above a repository's top folder is read; --config names a file anywhere."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / ".git").mkdir()
    Path("bpfpatch.toml").write_text("[report]\nmissing = true")
    shutil.copytree(build, inner / "build")
    with contextlib.chdir(inner):
        assert "MISSING" not in run("cover", "report", "build").stdout
        found = run("cover", "report", "build", "--config", "../bpfpatch.toml").stdout
    assert "MISSING" in found


def test_settings_of_path_maps(run: Run, build: Path, tmp_path: Path) -> None:
    """A table of path maps is read as such."""
    Path("bpfpatch.toml").write_text(f'[report.path-map]\n"/proj" = "{tmp_path}/src"\n')
    absolute = compiled_at(run, tmp_path)
    assert names(run, absolute)[0] == {"src/xdp_balancer.c"}


def test_edges_by_default(run: Run, tmp_path: Path) -> None:
    """An object is instrumented in the same way by `cover OBJ` and by `cover run`."""
    by_run = tmp_path / "run.o"
    run("cover", "run", fixture_path(BALANCER), "--hex", HEX, "--object", by_run,
        "-o", tmp_path / "a.json", "-q")  # fmt: skip
    run("cover", fixture_path(BALANCER), "-o", tmp_path / "cover.o", "--count", "plain", "-q")
    assert by_run.read_bytes() == (tmp_path / "cover.o").read_bytes()
