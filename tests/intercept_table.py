"""Run loaders under ``bpfpatch intercept`` in every way, and count what came of it.

``python tests/intercept_table.py [NAME...]``, as root: libbpf-tools' programs, xdp-tools,
bpftool with all fixtures, bpftrace scripts, and, where compilers are installed, a loader in Go
(cilium/ebpf) and one in Rust (libbpf). Each command runs alone, and then with nothing, with
``sprinkle``, ``cover`` and ``blind``, and with ``--capture``; what it prints and its exit status
are compared, every rewritten program is read back, and every captured one is loaded again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bpfpatch import kernel
from bpfpatch.bpf.intercept import Answer, LoadOutcome
from bpfpatch.bpf.loadrequest import LoadRequest
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.intercept import Session, Wanted, captured
from bpfpatch.passes import Pipeline
from bpfpatch.passes.cover import Cover
from support.inputs.bpfobjects import fixture_path
from support.machine.samecode import functions_of

OBJECTS = Path(__file__).parent / "fixtures" / "obj"
PINS = Path("/sys/fs/bpf")
_LOCK = threading.Lock()
SECONDS = "3"
SCRIPTS = (
    'BEGIN { printf("hello %d\\n", 1); exit(); }',
    "BEGIN { @a[1] = count(); @b = hist(5); @c = lhist(3, 0, 10, 1); exit(); }",
    "interval:ms:50 { @x = @x + 1; if (@x > 2) { exit(); } }",
    'BEGIN { $i = 0; while ($i < 5) { printf("%d ", $i); $i++; } exit(); }',
    "BEGIN { @[1, 2] = sum(3); @m = max(4); @s[str(0)] = avg(7); clear(@m); exit(); }",
)
#: What differs from run to run by itself: times, addresses, numbers of processes and objects.
_VARIES = re.compile(r"0x[0-9a-f]+|\b\d+(\.\d+)?\b")


@dataclass
class Row:
    """What came of one set of commands in one way."""

    commands: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


def packaged(package: str) -> Iterator[list[str]]:
    """A Debian package's programs."""
    done = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if "/sbin/" in line and os.access(line, os.X_OK):
            yield ["timeout", "-s", "INT", "-k", "1", SECONDS, line]


def bpftool_loads() -> Iterator[list[str]]:
    """Each little-endian fixture, pinned and taken away again."""
    pins = PINS / f"bpfpatch_table_{os.getpid()}"
    line = 'bpftool prog loadall "$1" "$2" >&2; status=$?; rm -rf "$2"; exit $status'
    for path in sorted(OBJECTS.glob("*.el.*o")):
        yield ["sh", "-c", line, "sh", str(path), str(pins)]


def xdp_loads() -> Iterator[list[str]]:
    """xdp-tools' programs on a device of a network namespace of their own."""
    obj = fixture_path("xdp_balancer.clang-19.v3.el.g.o")
    start = "ip link add v0 type veth peer name v1; ip link set v0 up; "
    for line in (
        f"xdp-loader load v0 {obj} -m skb -s xdp; xdp-loader unload v0 --all",
        "xdp-loader features v0",
        "xdp-filter load v0 -m skb; xdp-filter port 80 -m dst; xdp-filter unload v0",
        "timeout -s INT 4 xdp-monitor",
        "timeout -s INT 4 xdp-bench drop v0 -m skb",
        "timeout -s INT 4 xdpdump -i v0 -w /dev/null",
    ):
        yield ["unshare", "--net", "sh", "-c", start + line]


def bpftrace_runs() -> Iterator[list[str]]:
    """Five scripts."""
    for script in SCRIPTS if shutil.which("bpftrace") else ():
        yield ["timeout", "20", "bpftrace", "-e", script]


GO = """package main
import ("fmt"; "os"; "github.com/cilium/ebpf"; "github.com/cilium/ebpf/rlimit")
func main() {
	_ = rlimit.RemoveMemlock()
	spec, err := ebpf.LoadCollectionSpec(os.Args[1])
	if err == nil {
		var made *ebpf.Collection
		if made, err = ebpf.NewCollection(spec); err == nil { fmt.Println(len(made.Programs)) }
	}
	if err != nil { fmt.Println("refused"); os.Exit(1) }
}
"""
RUST = """use std::ffi::{c_char, c_int, c_void, CString};
#[link(name = "bpf")]
extern "C" {
    fn bpf_object__open_file(path: *const c_char, opts: *const c_void) -> *mut c_void;
    fn bpf_object__load(obj: *mut c_void) -> c_int;
    fn bpf_object__close(obj: *mut c_void);
}
fn main() {
    let path = CString::new(std::env::args().nth(1).unwrap()).unwrap();
    let status = unsafe {
        let obj = bpf_object__open_file(path.as_ptr(), std::ptr::null());
        if obj.is_null() { 2 } else {
            let failed = bpf_object__load(obj);
            bpf_object__close(obj);
            (failed != 0) as i32
        }
    };
    println!("{status}");
    std::process::exit(status);
}
"""
LOADED = "xdp_balancer globals callbacks ringbuf global_funcs redirects sock_filter core_relo"


def compiled(name: str, text: str, argv: list[str], folder: Path) -> Iterator[list[str]]:
    """Loads by a program that is compiled here; none without its compiler."""
    if not shutil.which(argv[0]):
        print(f"{name}: {argv[0]} is not installed", file=sys.stderr)
        return
    source, out = folder / f"main.{name}", folder / name
    source.write_text(text)
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": ""}
    done = subprocess.run(
        [*argv, "-o", str(out), str(source)], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{name}: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return
    for one in LOADED.split():
        yield [str(out), str(fixture_path(f"{one}.clang-19.v3.el.g.o"))]


def told(argv: list[str], out: Path, run: Callable[[list[str]], int]) -> tuple[int, str]:
    """(status, what it printed, without what varies) of a command."""
    line = 'out=$1; shift; exec "$@" > "$out" 2>&1 < /dev/null'
    status = run(["sh", "-c", line, "sh", str(out), *argv])
    text = out.read_text(errors="replace")
    return status, "\n".join(sorted(set(_VARIES.sub("#", text).splitlines())))


def alone(argv: list[str]) -> int:
    """A command without us."""
    return subprocess.run(argv, check=False).returncode


def read_back(row: Row, session: Session) -> Callable[[LoadOutcome], None]:
    """Count an outcome, and read what was rewritten."""

    def on_done(outcome: LoadOutcome) -> None:
        request, verdict = outcome.request, outcome.verdict
        session.on_done(outcome)
        kind = "rewritten" if outcome.is_rewritten else "as it was"
        has_code = False
        if outcome.is_rewritten and verdict is not None and verdict.handle is not None:
            fd = os.dup(verdict.handle.fd)
            with kernel.LoadedProgram(fd, "", ProgType.UNSPEC, request.program) as loaded:
                has_code = len(loaded.xlated()) > 0
        with _LOCK:
            row.counts[outcome.ending if outcome.ending != "loaded" else kind] += 1
            row.counts["read back"] += has_code
            if outcome.note:
                name = "" if request is None else request.type.text
                row.notes[f"{name}: {outcome.note[:150]}"] += 1

    return on_done


def captures(row: Row) -> Callable[[LoadRequest], Answer]:
    """Capture each load, load the file, and compare what the kernel made of both."""

    def on_load(request: LoadRequest) -> Answer:
        if request.is_probe:
            return None
        tried = request.attempt()
        if tried.verdict.handle is None:
            return tried
        try:
            made = captured(request)
            with kernel.open_object(made.obj, [], name="again") as opened:
                mine = functions_of(opened.load(made.program).xlated())
            fd = os.dup(tried.verdict.handle.fd)
            with kernel.LoadedProgram(fd, "", request.type, request.program) as loaded:
                theirs = functions_of(loaded.xlated())
            row.counts["equal" if mine == theirs else "other code"] += 1
        except BpfPatchError as error:
            row.counts["not captured"] += 1
            row.notes[f"{request.type.text}: {str(error)[:150]}"] += 1
        return tried

    return on_load


WAYS: dict[str, Wanted] = {
    "nothing": Wanted(),
    "sprinkle": Wanted(passes=Pipeline.parse("sprinkle").passes),
    "cover": Wanted(cover=Cover(edges=True)),
    "blind": Wanted(passes=Pipeline.parse("blind").passes),
}


def measure(commands: list[list[str]], out: Path) -> dict[str, Row]:
    """All commands in all ways."""
    rows = {way: Row() for way in (*WAYS, "capture")}
    for argv in commands:
        expected = told(argv, out, alone)
        for way, row in rows.items():
            session = Session(WAYS.get(way, Wanted()), lambda _: None, lambda _: None)
            on_load = captures(row) if way == "capture" else session.on_load
            on_done = read_back(row, session)
            got = told(argv, out, lambda line, a=on_load, b=on_done: kernel.intercept(line, a, b))
            session.close()
            row.commands += 1
            row.counts["same status"] += got[0] == expected[0]
            row.counts["same output"] += got[1] == expected[1]
            if got != expected:
                row.notes[f"{argv[-1][:60]}: status {expected[0]} -> {got[0]}"] += 1
    return rows


COLUMNS = (
    *("same status", "same output", "as it was", "rewritten", "read back", "refused"),
    *("let through", "equal", "other code", "not captured"),
)


def main() -> None:
    """Print the table."""
    wanted = set(sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets: dict[str, Callable[[], Iterator[list[str]]]] = {
            "bpftool": bpftool_loads,
            "libbpf-tools": lambda: packaged("libbpf-tools"),
            "xdp-tools": xdp_loads,
            "bpftrace": bpftrace_runs,
            "go": lambda: compiled("go", GO, ["go", "build"], folder),
            "rust": lambda: compiled("rs", RUST, ["rustc", "-O"], folder),
        }
        print("| loaders | way | commands | " + " | ".join(COLUMNS) + " |")
        print("|" + " --- |" * (3 + len(COLUMNS)))
        for title, commands in sets.items():
            if wanted and title not in wanted:
                continue
            for way, row in measure(list(commands()), folder / "told").items():
                cells = [str(row.counts[column]) for column in COLUMNS]
                print(f"| {title} | {way} | {row.commands} | " + " | ".join(cells) + " |")
                for note, count in row.notes.most_common(8):
                    print(f"{count:>5} {title} {way}: {note}", file=sys.stderr)
                sys.stdout.flush()


if __name__ == "__main__":
    main()
