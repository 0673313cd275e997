"""Takes the pictures of a coverage report: on a desktop, in the dark, and on a phone.

``python docs/images/coverage_report.py`` counts the packets of the test capture in two example
objects, and shows the page in headless Chromium.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bpfpatch.coverage.html import to_html
from bpfpatch.coverage.run import run
from bpfpatch.coverage.sources import Sources, placed
from bpfpatch.coverage.united import united
from bpfpatch.elf import ElfObject
from bpfpatch.runs import Input, read_pcap

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
PROGRAMS = (
    ("xdp_balancer.clang-19.v3.el.g.o", "balancer"),
    ("xdp_parse.clang-19.v3.el.g.o", "parse_xdp"),
    ("xdp_parse.clang-19.v3.el.g.o", "parse_tc"),
)
REPEAT = 20
COMMAND = "bpfpatch cover report build/ --source-root . -o cover.html"


@dataclass(frozen=True)
class Picture:
    """One picture: the window, the scheme, and what is shown.

    Attributes:
        width: of the window.
        height: of it.
        is_dark: whether the user prefers that.
        first: line of the first file that is shown; those before it declare only.
        unfolded: the line whose instructions are shown; 0 for none.
        n_functions: rows of that table.
    """

    width: int
    height: int
    is_dark: bool
    first: int
    unfolded: int
    n_functions: int = 100


PICTURES: Mapping[str, Picture] = {
    "coverage-report.png": Picture(1200, 1400, False, 214, 225),
    "coverage-report-dark.png": Picture(1200, 1000, True, 226, 0),
    "coverage-report-phone.png": Picture(390, 1150, False, 201, 208, 3),
}


def page() -> str:
    """The report, on what the capture's packets ran."""
    capture = read_pcap((FIXTURES / "packets.pcap").read_bytes())
    packets = [Input(packet=frame.data) for frame in capture.frames]
    ran = [
        run(ElfObject.read(FIXTURES / "obj" / name), program, packets * REPEAT).coverage
        for name, program in PROGRAMS
    ]
    coverage = united(ran)
    coverage, sources = placed(coverage, Sources.find(coverage, [FIXTURES]))
    return to_html(coverage, sources, "2 objects", COMMAND)


def arranged(text: str, picture: Picture) -> str:
    """The page as it is to be seen."""
    left_out = ", ".join(f"#f0-{line}" for line in range(1, picture.first))
    functions = f"#functions tbody tr:nth-child(n + {picture.n_functions + 1})"
    text = text.replace("</style>", f"{functions}, tr:is({left_out}) {{ display: none; }}</style>")
    if not picture.unfolded:
        return text
    before, row, after = text.partition(f'id="f0-{picture.unfolded}"')
    return before + row + after.replace("<details>", "<details open>", 1)


def framed(picture: Picture) -> str:
    """A page that shows another one as wide as the picture: windows cannot be that narrow."""
    style = f"position:fixed;inset:0;width:{picture.width}px;height:{picture.height}px;border:0"
    frame = f'<iframe src="page.html" style="{style}"></iframe>'
    return f'<!DOCTYPE html><body style="margin:0">{frame}'


def take(name: str, picture: Picture, text: str) -> None:
    """Take a picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(arranged(text, picture))
        outer = Path(folder) / "outer.html"
        outer.write_text(framed(picture))
        subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--force-color-profile=srgb",
                f"--user-data-dir={folder}/profile",
                f"--blink-settings=preferredColorScheme={int(not picture.is_dark)}",
                f"--window-size={picture.width},{picture.height}",
                f"--screenshot={ROOT / 'docs' / 'images' / name}",
                outer.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


def main() -> None:
    """Take all pictures."""
    text = page()
    for name, picture in PICTURES.items():
        take(name, picture, text)


if __name__ == "__main__":
    main()
