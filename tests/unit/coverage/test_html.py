"""The HTML page, as text; a browser looks at it in tests/oracle/test_html_chromium.py."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from bpfpatch.coverage import Branch, Coverage
from bpfpatch.coverage.html import to_html
from bpfpatch.coverage.html.highlight import Highlighter
from bpfpatch.coverage.sources import Sources
from bpfpatch.coverage.terminal import source_listing
from support.models.countedcode import counted, many_lines, without_lines

VOID = {"meta", "col", "br", "link", "img", "input"}


@dataclass
class Node:
    """An element of the page."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    parts: list[Node | str] = field(default_factory=list)

    def all(self, tag: str) -> list[Node]:
        """All elements of a tag below this one."""
        out = []
        for part in self.parts:
            if isinstance(part, Node):
                out += [part] if part.tag == tag else []
                out += part.all(tag)
        return out

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)


class Tree(HTMLParser):
    """Parses a page, and refuses one whose tags do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = [Node("")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        node = Node(tag, dict(attrs))
        self.stack[-1].parts.append(node)
        if tag not in VOID:
            self.stack.append(node)

    def handle_endtag(self, tag: str) -> None:
        """Close one."""
        assert self.stack.pop().tag == tag

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.stack[-1].parts.append(data)


def page(coverage: Coverage, title: str = "a.o") -> Node:
    """A page, parsed."""
    tree = Tree()
    tree.feed(to_html(coverage, Sources.find(coverage), title))
    assert len(tree.stack) == 1
    return tree.stack[0]


def rows(root: Node) -> dict[str, Node]:
    """The rows of source, by the line number that they show."""
    found = [row for row in root.all("tr") if row.attributes.get("id")]
    return {row.all("td")[0].text: row for row in found if "f0-" in str(row.attributes["id"])}


def words(node: Node) -> str:
    """All text in it, with one blank between words."""
    parts = [part if isinstance(part, str) else words(part) for part in node.parts]
    text = " ".join(parts) if node.tag == "div" else node.text
    return " ".join(text.replace("\u202f", "").split())


def cells(row: Node) -> list[str]:
    """The number, count, branches and text of a row, without what unfolds."""
    number, count, branches, text = row.all("td")
    shown = text.all("summary") or text.all("span")
    return [number.text, count.text, branches.text.replace("\u202f", ""), shown[0].text]


def test_lines_have_counts_and_kinds() -> None:
    """Each line has its number, count, branches and text, and a class by how much of it ran."""
    found = rows(page(counted()))
    assert {number: row.attributes["class"] for number, row in found.items()} == {
        "3": "h",
        "4": "h",
        "5": "p",
        "6": "h",
        "8": "h",
        "9": "h",
        "13": "m",
    }
    assert cells(found["4"]) == ["4", "10", "↷3↓7", "\tif (!a)"]
    assert cells(found["5"]) == ["5", "7", "↷0↓7", "\t\tif (b > 5)"]
    assert cells(found["13"]) == ["13", "0", "", "}"]


def test_way_not_taken_stands_out() -> None:
    """Of a jump's ways the one that was never taken is marked."""
    marks = rows(page(counted()))["5"].all("td")[2].all("i")
    assert [mark.attributes.get("class") for mark in marks] == ["z", None]


def test_gaps() -> None:
    """Where lines are not known there is a mark."""
    gaps = [row for row in page(counted()).all("tr") if row.attributes.get("class") == "gap"]
    assert [gap.all("td")[0].attributes["title"] for gap in gaps] == [
        "2 lines",
        "1 line",
        "3 lines",
        "1 line",
    ]


def test_line_unfolds_to_instructions() -> None:
    """Behind a line are its function and instructions, with counts, and jumps with both ways."""
    (found,) = rows(page(counted()))["5"].all("details")
    assert words(found.all("pre")[0]) == "main 7 2 if r2 > 0x5 goto L6 ↷0 ↓7"


def test_jump_leads_to_its_line() -> None:
    """The goal of a jump is a link to the line it belongs to."""
    (link,) = rows(page(counted()))["4"].all("pre")[0].all("a")
    assert (link.text, link.attributes["href"]) == ("L5", "#f0-8")


def test_all_links_have_a_goal() -> None:
    """Every link leads to something that is there, and every id is there once."""
    for coverage in (counted(), without_lines()):
        root = page(coverage)
        every = [node for tag in ("tr", "details", "span", "button") for node in root.all(tag)]
        ids = [node.attributes["id"] for node in every if "id" in node.attributes]
        assert len(ids) == len(set(ids))
        assert {str(a.attributes["href"])[1:] for a in root.all("a")} <= set(map(str, ids))


def test_unknown_text_shows_an_instruction() -> None:
    """A line whose text nobody knows shows the first instruction that it became."""
    root = page(counted())
    (row,) = (row for row in root.all("tr") if row.attributes.get("id") == "f1-2")
    assert row.all("summary")[0].text == "r0 = 0x9 …"


def test_text_is_escaped() -> None:
    """Text of the object is text: no markup, no control characters."""
    root = page(counted(notices=("<i>note</i>",)), title="<script>alert(1)</script>")
    assert len(root.all("script")) == 1
    assert cells(rows(root)["6"])[3] == '\t\t\tputs("<b>&\\x1b");'
    assert root.all("title")[0].text == "Coverage of <script>alert(1)</script>"
    assert "<i>note</i>" in [node.text for node in root.all("p")]


def test_page_needs_nothing_else() -> None:
    """Nothing is fetched, and no script runs but the page's own."""
    text = to_html(counted(), Sources({}), "a.o")
    assert not re.search(r"""\b(?:src|srcset|action)\s*=|url\(|@import|<link|<img""", text)
    policy = page(counted()).all("meta")[1].attributes
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert str(policy["content"]).startswith("default-src 'none'; style-src 'unsafe-inline'; ")
    digest = hashlib.sha256(page(counted()).all("script")[0].text.encode()).digest()
    assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in str(policy["content"])


def test_code_without_lines_is_shown_by_blocks() -> None:
    """Without line info there is code, in blocks with a count each."""
    root = page(without_lines())
    blocks = [node for pre in root.all("pre") for node in pre.parts if isinstance(node, Node)]
    shown = [(node.attributes["class"], words(node)) for node in blocks]
    assert shown[1] == ("h", "7 L2: 2 if r2 > 0x5 goto L6 ↷0 ↓7")
    assert shown[5] == ("m", "0 L7: 7 r0 = 0x9 8 exit")
    assert len(shown) == 7


def test_many_jumps_of_a_line_are_summed_up() -> None:
    """A line of many jumps says how many ways were taken."""
    many = tuple(Branch(1, at, 0) for at in range(5))
    found = rows(page(counted(branches={4: many})))
    assert cells(found["4"])[2] == "4 of 10 ways"


def test_jumps_of_one_line_in_two_functions_are_told_apart() -> None:
    """Where several functions have jumps of a line, each has its function's name over it."""
    coverage = counted(branches={4: (Branch(1, 3, 7), Branch(8, 0, 4))})
    main, never, bare = coverage.functions
    functions = (main, replace(never, branches=(Branch(8, 0, 4),)), bare)
    coverage = replace(coverage, functions=functions)
    assert cells(rows(page(coverage))["4"])[2] == "main↷3↓7never↷0↓4"
    (line,) = [
        text for _, text in source_listing(coverage, Sources.find(coverage)) if "if (!a)" in text
    ]
    assert line.endswith("[main: jump 3 / on 7; never: jump 0 / on 4]")


def test_foot_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    """The date is that of SOURCE_DATE_EPOCH, and what made the page stands beside it."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    coverage = counted()
    once = to_html(coverage, Sources.find(coverage), "a.o", "bpfpatch cover report <a.o>")
    assert "<code>bpfpatch cover report &lt;a.o&gt;</code>" in once
    assert "<time>1970-01-02 00:00 UTC</time>" in once
    assert once == to_html(coverage, Sources.find(coverage), "a.o", "bpfpatch cover report <a.o>")


def test_source_is_coloured() -> None:
    """Keywords, types, comments, texts, numbers and preprocessor lines have classes."""
    lines = ["#include <a.h>", "if (x) /* a", "b */ return 1;", 'u32 n = f("<b>");', "int i;"]
    found = Highlighter().lines("a.c", dict(enumerate(lines, 1)), range(1, 6))
    assert [Markup(one).striptags() for one in found.values()] == lines
    assert '<i class="kk">if</i>' in found[2]
    assert '<i class="kc">/* a</i>' in found[2]
    assert found[3].startswith('<i class="kc">b */</i>')
    assert '<i class="kn">1</i>' in found[3]
    assert '<i class="ks">&#34;&lt;b&gt;&#34;</i>' in found[4]
    assert '<i class="kt">int</i>' in found[5]
    assert '<i class="kp">' in found[1]


def test_only_so_many_lines_are_coloured() -> None:
    """Files stay plain once there are too many lines; so do those of no known language."""
    text = dict.fromkeys(range(1, 11), "int i;")
    highlighter = Highlighter(15)
    assert isinstance(highlighter.lines("a.c", text, range(1, 11))[1], Markup)
    assert not isinstance(highlighter.lines("b.c", text, range(1, 11))[1], Markup)
    assert not isinstance(Highlighter().lines("a.unknown", text, range(1, 11))[1], Markup)


def test_hidden_characters_of_coloured_source_are_shown() -> None:
    """Colours leave nothing hidden in the text, nor do they lose a line."""
    text = {1: "int a; /* \u202e \x1b */", 2: "int\u2028b;"}
    found = Highlighter().lines("a.c", text, [1, 2])
    assert Markup(found[1]).striptags() == "int a; /* \\u202e \\x1b */"
    assert Markup(found[2]).striptags() == "int\\u2028b;"


def test_totals() -> None:
    """The page says first how much ran."""
    root = page(counted())
    cards = [node for node in root.all("div") if node.attributes.get("class") == "card"]
    assert [words(card) for card in cards] == [
        "75.0 % 6 of 8 lines",
        "75.0 % 3 of 4 branches",
        "66.7 % 2 of 3 functions",
        "85.7 % 6 of 7 blocks",
    ]


@pytest.mark.parametrize("n_lines", [10_000])
def test_size_of_many_lines(n_lines: int) -> None:
    """Ten thousand lines with sixty thousand instructions make a page of a few megabytes."""
    coverage = many_lines(n_lines)
    assert len(to_html(coverage, Sources.find(coverage), "long.o").encode()) < 5 << 20
