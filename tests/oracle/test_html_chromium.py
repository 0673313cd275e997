"""What a browser makes of the HTML page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpfpatch.coverage.html import to_html
from bpfpatch.coverage.sources import Sources
from support.machine.browser import HEIGHT, WIDTH, Scheme, ask, screenshot, show
from support.machine.png import read_png
from support.models.countedcode import counted

SCHEMES: tuple[Scheme, ...] = ("light", "dark")

LOOK = """
const row = (id) => document.getElementById(id);
const paint = (node) => {
  const style = getComputedStyle(node);
  return { text: style.color, back: style.backgroundColor };
};
const body = paint(document.body);
const cell = (id) => ({ ...paint(row(id).querySelector('.t')), shown: row(id).innerText });
const out = {
  body, hit: cell('f0-3'), part: cell('f0-5'), miss: cell('f0-13'),
  zero: paint(row('f0-5').querySelector('.b i.z')),
  dim: paint(document.querySelector('.dim')),
  link: paint(document.querySelector('td a')),
};
const details = row('f0-5').querySelector('details');
out.folded = row('f0-5').getBoundingClientRect().height;
details.querySelector('summary').click();
out.unfolded = row('f0-5').getBoundingClientRect().height;
out.instructions = details.innerText;
const press = (key) => {
  document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  return document.activeElement.closest('tr')?.id;
};
out.keys = [press('n'), press('n'), press('n'), press('n'), press('p')];
document.getElementById('unfold').click();
out.open = document.querySelectorAll('.s > details[open]').length;
out.all = document.querySelectorAll('.s > details').length;
document.getElementById('theme').click();
out.toggled = paint(document.body);
out.width = document.documentElement.scrollWidth;
return out;
"""


def page() -> str:
    """The page of the example."""
    coverage = counted()
    return to_html(coverage, Sources.find(coverage), "a.o")


@pytest.fixture(scope="module", params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> Scheme:
    """What the user prefers."""
    found: Scheme = request.param
    return found


@pytest.fixture(scope="module")
def looked(scheme: Scheme, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a script in the page sees."""
    return ask(page(), scheme, LOOK, tmp_path_factory.mktemp("page"))


def words(text: str) -> str:
    """Text with one blank between words."""
    return " ".join(text.replace("\u202f", "").split())


def rgb(color: str) -> tuple[int, int, int]:
    """The numbers of a computed colour."""
    red, green, blue = (int(digits) for digits in re.findall(r"\d+", color)[:3])
    return red, green, blue


def luminance(color: str) -> float:
    """How bright a colour is. Source: WCAG 2.1, relative luminance."""
    parts = [one / 255 for one in rgb(color)]
    linear = [one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(paint: dict[str, str], back: str | None = None) -> float:
    """Of text on its background. Source: WCAG 2.1, contrast ratio."""
    bright, dark = sorted((luminance(paint["text"]), luminance(back or paint["back"])))[::-1]
    return (bright + 0.05) / (dark + 0.05)


def test_background_follows_the_scheme(looked: Any, scheme: Scheme) -> None:
    """The page is dark for who prefers that, else light."""
    assert (luminance(looked["body"]["back"]) > 0.5) == (scheme == "light")


def test_button_switches_the_scheme(looked: Any, scheme: Scheme) -> None:
    """The button turns light into dark, and the other way round."""
    assert (luminance(looked["toggled"]["back"]) > 0.5) == (scheme == "dark")


def test_lines_are_coloured(looked: Any) -> None:
    """What ran is greenish, what did not reddish, and what ran in part is both."""
    red, green, _ = rgb(looked["hit"]["back"])
    assert green > red
    red, green, blue = rgb(looked["miss"]["back"])
    assert red > max(green, blue)
    red, green, blue = rgb(looked["part"]["back"])
    assert min(red, green) > blue


def test_text_can_be_read(looked: Any) -> None:
    """All text has the contrast that WCAG asks for, 4.5 to 1."""
    back = looked["body"]["back"]
    assert min(contrast(looked[name]) for name in ("body", "hit", "part", "miss")) >= 4.5
    assert min(contrast(looked[name], back) for name in ("zero", "dim", "link")) >= 4.5


def test_counts_show(looked: Any) -> None:
    """Line number, count, both ways of a jump and text stand in a row."""
    assert words(looked["hit"]["shown"]) == "3 10 int main(int a, int b)"
    assert words(looked["part"]["shown"]) == "5 7 ↷0↓7 if (b > 5)"


def test_click_unfolds_the_instructions(looked: Any) -> None:
    """A click on a line shows what it became."""
    assert looked["unfolded"] > looked["folded"] + 20
    assert "if r2 > 0x5 goto L6" in looked["instructions"]


def test_keys_go_through_what_did_not_run(looked: Any) -> None:
    """Keys n and p go from one line that did not run, or in part, to the next, and round."""
    assert looked["keys"] == ["f0-5", "f0-13", "f1-2", "f0-5", "f1-2"]


def test_button_unfolds_all(looked: Any) -> None:
    """A button unfolds all lines, those that were unfolded already among them."""
    assert looked["open"] == looked["all"] == 8


def test_page_is_not_wider_than_the_window(looked: Any) -> None:
    """Nothing sticks out: wide code scrolls in its place."""
    assert looked["width"] <= WIDTH


def test_picture(looked: Any, scheme: Scheme, tmp_path: Path) -> None:
    """In a picture of the page there are the colours of all three kinds, and text."""
    path = tmp_path / "page.html"
    path.write_text(page())
    picture = read_png(screenshot(path, scheme, tmp_path / "page.png"))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    found = {name: _area(picture, looked[name]["back"]) for name in ("body", "hit", "part", "miss")}
    assert found["body"] > 0.4 * WIDTH * HEIGHT
    # A row is over 15 pixels high, its text over half of the window wide.
    assert found["hit"] > 5 * 15 * WIDTH // 2 * 0.6
    assert min(found["part"], found["miss"]) > 15 * WIDTH // 2 * 0.6
    assert _area(picture, looked["body"]["text"]) > 500


def _area(picture: np.ndarray[Any, np.dtype[np.uint8]], color: str) -> int:
    """Pixels of a colour."""
    return int((picture == np.array(rgb(color), np.uint8)).all(axis=2).sum())


def test_no_other_script_runs(tmp_path: Path) -> None:
    """The page's policy stops a script that is not the page's own, were one to get into it."""
    path = tmp_path / "page.html"
    other = "<script>document.body.dataset.other = 'ran'</script></body>"
    own = page().replace("</body>", other)
    path.write_text(own)
    dom = show(path, "light", "--dump-dom")
    assert 'data-other="ran"' not in dom
    path.write_text(own.replace("Content-Security-Policy", "none"))
    assert 'data-other="ran"' in show(path, "light", "--dump-dom")
