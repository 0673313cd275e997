"""Takes docs/images/coverage-report.png, the picture of a coverage report.

``python docs/images/coverage_report.py`` counts the packets of the test capture in the example
balancer, and shows the page in headless Chromium. The picture leaves out the beginning of the
source, which has declarations only, and has one line unfolded.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from bpfpatch.coverage.html import to_html
from bpfpatch.coverage.run import run
from bpfpatch.coverage.sources import Sources
from bpfpatch.elf import ElfObject
from bpfpatch.runs import Input, read_pcap

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
OBJECT = FIXTURES / "obj" / "xdp_balancer.clang-19.v3.el.g.o"
OUT = ROOT / "docs" / "images" / "coverage-report.png"

FIRST_LINE, UNFOLDED = 200, 211
WIDTH, HEIGHT = 1200, 1330
REPEAT = 100


def page() -> str:
    """The report, on what the capture's packets ran."""
    capture = read_pcap((FIXTURES / "packets.pcap").read_bytes())
    packets = [Input(packet=frame.data) for frame in capture.frames]
    obj = ElfObject.read(OBJECT)
    coverage = run(obj, "balancer", packets * REPEAT).coverage
    return to_html(coverage, Sources.find(coverage, [FIXTURES]), "xdp_balancer.o")


def arranged(text: str) -> str:
    """The page as it is to be seen."""
    left_out = ", ".join(f"#f0-{line}" for line in range(1, FIRST_LINE))
    text = text.replace("</style>", f"tr:is({left_out}) {{ display: none; }}</style>")
    before, row, after = text.partition(f'id="f0-{UNFOLDED}"')
    return before + row + after.replace("<details>", "<details open>", 1)


def main() -> None:
    """Take the picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(arranged(page()))
        subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--force-color-profile=srgb",
                f"--user-data-dir={folder}/profile",
                "--blink-settings=preferredColorScheme=1",
                f"--window-size={WIDTH},{HEIGHT}",
                f"--screenshot={OUT}",
                path.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


if __name__ == "__main__":
    main()
