"""Build the manual and the API reference as one site: ``make docs``.

What the site is made of is laid out in ``build/docs`` as it lies in the
repository, so that links between files are right in both. A link or anchor that
leads nowhere, a docstring that names a parameter that is not there, and whatever
else is doubtful, is an error.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from pathlib import Path
from typing import Final

import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT: Final = Path(__file__).resolve().parents[2]
STAGE: Final = ROOT / "build" / "docs"
SCHEMAS: Final = Path("src/bpfpatch/data/schemas")
MODULES: Final = (
    *("bpfpatch.asm", "bpfpatch.btf", "bpfpatch.coverage", "bpfpatch.elf", "bpfpatch.errors"),
    *("bpfpatch.facts", "bpfpatch.interp", "bpfpatch.isa", "bpfpatch.kernel"),
    *("bpfpatch.linux.parity", "bpfpatch.passes", "bpfpatch.patch", "bpfpatch.program"),
    *("bpfpatch.repair", "bpfpatch.report", "bpfpatch.runs", "bpfpatch.verify"),
)
LINK: Final = re.compile(r"\]\(([^)#:\s]+)(#[^)]*)?\)")
SHOWN: Final = re.compile(r"^```python shown\n(.*?)^```\n", re.S | re.M)


def main() -> int:
    """Build the site into ``build/site``."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    shutil.rmtree(STAGE, ignore_errors=True)
    lay_out()
    config = load_config(str(ROOT / "docs" / "site" / "mkdocs.yml"), strict=True)
    config.nav = [*config.nav, *navigation()]
    try:
        build(config)
    except Abort as error:  # it says how many warnings there were, and is not shown by itself
        print(error, file=sys.stderr)
        return 1
    problems = list(fetched(Path(config.site_dir)))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def lay_out() -> None:
    """Copy the documents, write those that are made, and let links to folders lead to a page."""
    for pattern in ("*.md", "docs/**/*", "examples/*.py", "LICENSE", "tests/fixtures/packets.pcap"):
        for path in ROOT.glob(pattern):
            place = path.relative_to(ROOT)
            if path.is_file() and place.parts[:2] != ("docs", "site"):
                copy(path, place)
    for path in (ROOT / SCHEMAS).glob("*.json"):
        copy(path, SCHEMAS / path.name)
    write(SCHEMAS / "README.md", schema_index())
    write(Path("docs/adr/README.md"), decision_index())
    for name in MODULES:
        write(Path("api") / f"{name}.md", f"# {name}\n\n::: {name}\n")
    for page in STAGE.rglob("*.md"):
        text = SHOWN.sub(show, page.read_text())
        page.write_text(LINK.sub(lambda link, page=page: to_page(page, link), text))


def copy(source: Path, place: Path) -> None:
    """Put a file of the repository into the layout."""
    (STAGE / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, STAGE / place)


def write(place: Path, text: str) -> None:
    """Put a page that is made into the layout."""
    (STAGE / place).parent.mkdir(parents=True, exist_ok=True)
    (STAGE / place).write_text(text)


def to_page(page: Path, link: re.Match[str]) -> str:
    """A link, of a folder to a page about it, which is made where there is none."""
    target = page.parent / link[1]
    if not target.is_dir():
        return link[0]
    if not (target / "README.md").exists():
        names = sorted(path.name for path in target.iterdir())
        listed = "\n".join(f"- [{name}]({name})" for name in names)
        (target / "README.md").write_text(f"# {target.name}\n\n{listed}\n")
    return f"]({link[1].rstrip('/')}/README.md{link[2] or ''})"


def show(block: re.Match[str]) -> str:
    """A piece of Python, and below it what a notebook shows for its last line."""
    *body, last = block[1].rstrip().splitlines()
    names: dict[str, object] = {}
    exec("\n".join(body), names)
    value = eval(last, names)
    page = value._repr_html_()  # type: ignore[attr-defined]
    return f"```python\n{block[1]}```\n\n{page}\n"


def schema_index() -> str:
    """A page that names the schemas."""
    rows = []
    for path in sorted((ROOT / SCHEMAS).glob("*.json")):
        title = json.loads(path.read_text())["title"]
        rows.append(f"| [{path.name}]({path.name}) | {title} |")
    head = "# Schemas of JSON\n\nDraft 2020-12, as installed with the package.\n\n"
    return head + "| schema | of |\n| --- | --- |\n" + "\n".join(rows) + "\n"


def decision_index() -> str:
    """A page that names the decisions."""
    rows = []
    for path in sorted((ROOT / "docs" / "adr").glob("*.md")):
        title = path.read_text().partition("\n")[0].lstrip("# ")
        rows.append(f"- [{title}]({path.name})")
    return "# Decisions\n\n" + "\n".join(rows) + "\n"


def navigation() -> list[object]:
    """What is not in mkdocs.yml: a page for each pass, decision and module."""
    known = yaml.safe_dump(yaml.safe_load((ROOT / "docs/site/mkdocs.yml").read_text())["nav"])
    pages = [path.relative_to(STAGE).as_posix() for path in sorted(STAGE.rglob("*.md"))]
    left = [page for page in pages if page not in known]
    passes = [page for page in left if page.startswith("docs/passes/")]
    decisions = [page for page in left if page.startswith("docs/adr/")]
    modules = [{Path(page).stem: page} for page in left if page.startswith("api/")]
    others = [page for page in left if re.match(r"docs/(?!passes/|adr/)", page)]
    project = [page for page in left if "/" not in page]
    return [
        {"The passes, one by one": passes},
        {"More": [*others, f"{SCHEMAS}/README.md"]},
        {"API reference": modules},
        {"Decisions": decisions},
        {"The project": project},
    ]


def fetched(site: Path) -> list[str]:
    """What pages would fetch from elsewhere."""
    tag = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(https?:)?//[^>]*>")
    out = []
    for page in site.rglob("*.html"):
        out += [
            f"{page}: fetches from elsewhere: {found[0][:120]}"
            for found in tag.finditer(page.read_text())
            if 'rel="canonical"' not in found[0]
        ]
    return out


if __name__ == "__main__":
    sys.exit(main())
