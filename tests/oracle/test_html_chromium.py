"""What a browser makes of the HTML page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpfpatch.coverage.html import to_html
from bpfpatch.coverage.sources import Sources
from support.machine.browser import HEIGHT, WIDTH, Scheme, ask, ask_narrow, screenshot, show
from support.machine.png import read_png
from support.models.countedcode import counted, many_lines

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


def page(command: str = "") -> str:
    """The page of the example."""
    coverage = counted()
    return to_html(coverage, Sources.find(coverage), "a.o", command)


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


USE = """
const row = (id) => document.getElementById(id);
const shown = (all) => [...document.querySelectorAll(all)].filter((one) => one.offsetParent);
const names = (table) => shown(`#${table} tbody tr`).map((one) => one.cells[0].innerText);
const type = (text) => {
  const filter = row('filter');
  filter.value = text;
  filter.dispatchEvent(new Event('input'));
};
const key = (key, target) => (target ?? document.body).dispatchEvent(
  new KeyboardEvent('keydown', { key, bubbles: true }));
const out = { all: [names('files'), names('functions')] };
type('MAI'); out.filtered = [names('files'), names('functions'), shown('details.file').length];
type('never b.h'); out.words = names('functions');
type('zzz'); out.none = row('none').offsetParent !== null;
key('Escape', row('filter')); out.again = names('functions');
const sort = (table, at) => {
  row(table).tHead.rows[0].cells[at].querySelector('button').click();
  return names(table);
};
out.byName = [sort('functions', 0), sort('functions', 0)];
out.byCalls = [sort('functions', 3), sort('functions', 3)];
out.sorted = row('functions').tHead.rows[0].cells[3].getAttribute('aria-sort');
const rows = () => shown('.source tr').map((one) => one.id);
row('todo').click(); out.hidden = [rows(), names('functions')];
row('todo').click(); out.back = rows().length;
out.foot = document.querySelector('footer').innerText;
const open = (id) => row(id).querySelector('details').open;
key('n'); const first = document.activeElement.closest('tr').id;
out.focus = [first, document.activeElement.tagName];
document.activeElement.blur();
key('Enter'); out.opened = open(first); key('Enter'); out.closed = !open(first);
out.colours = ['kt', 'kk'].map((kind) => {
  const found = document.querySelector(`.s .${kind}`);
  const style = getComputedStyle(found);
  return { text: style.color, shown: found.innerText };
});
const back = (node) => getComputedStyle(node).backgroundColor;
out.backs = [back(document.body),
  ...['h', 'p', 'm'].map((kind) => back(document.querySelector(`.source .${kind} .s`)))];
out.palette = ['kc', 'kk', 'kt', 'ks', 'kn', 'kp'].map((kind) => {
  const probe = document.createElement('i');
  probe.className = kind;
  document.querySelector('.s').append(probe);
  return getComputedStyle(probe).color;
});
return out;
"""


@pytest.fixture(scope="module")
def used(scheme: Scheme, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What comes of using the page."""
    text = page(command="bpfpatch cover report a.o -o a.html")
    return ask(text, scheme, USE, tmp_path_factory.mktemp("used"))


def test_filter(used: Any) -> None:
    """Files and functions that have all words in their names are shown, others are not."""
    assert used["all"] == [["src/a.c", "/usr/include/b.h"], ["main", "never", "bare"]]
    assert used["filtered"] == [[], ["main"], 0]
    assert used["words"] == ["never"]
    assert used["none"]
    assert used["again"] == ["main", "never", "bare"]


def test_sort(used: Any) -> None:
    """A click on a title sorts, the next one the other way round; numbers by their size."""
    assert used["byName"] == [["bare", "main", "never"], ["never", "main", "bare"]]
    assert used["byCalls"] == [["main", "bare", "never"], ["never", "bare", "main"]]
    assert used["sorted"] == "ascending"


def test_hide_what_is_covered(used: Any) -> None:
    """One button leaves only what did not run, or in part."""
    assert used["hidden"] == [["f0-5", "f0-13", "f1-2"], ["never", "main"]]
    assert used["back"] == 12


def test_foot_says_when_and_how(used: Any) -> None:
    """The command and the date are at the foot."""
    assert "bpfpatch cover report a.o -o a.html" in used["foot"]
    assert re.search(r"Made \d{4}-\d\d-\d\d \d\d:\d\d UTC", used["foot"])


def test_enter_unfolds(used: Any) -> None:
    """The line that a key leads to has the focus, and Enter shows its instructions."""
    assert used["focus"] == ["f0-5", "SUMMARY"]
    assert (used["opened"], used["closed"]) == (True, True)


def test_source_has_colours_that_can_be_read(used: Any) -> None:
    """Types and keywords have a colour each, with enough contrast wherever they stand."""
    (kind, word), backs = used["colours"], used["backs"]
    assert (kind["shown"], word["shown"]) == ("int", "if")
    assert kind["text"] != word["text"]
    assert min(contrast({"text": one}, back) for one in used["palette"] for back in backs) >= 4.5


SCREEN = """
const todo = [...document.querySelectorAll('tr.m, tr.p')];
const press = (key) => {
  document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  return todo.indexOf(document.activeElement.closest('tr'));
};
const top = (row) => row.getBoundingClientRect().top;
const look = (at) => {
  document.activeElement.blur();
  todo[at].scrollIntoView({ block: 'start' });
};
const out = { n: todo.length };
look(200); out.down = press('n'); out.next = press('n');
look(500); out.far = press('n');
look(300); scrollBy(0, -innerHeight); out.up = press('p');
scrollTo(0, document.body.scrollHeight); out.end = press('p');
return out;
"""


def test_keys_start_from_what_is_on_the_screen(tmp_path: Path) -> None:
    """Whoever has scrolled goes on from there, and not from where a key led before."""
    coverage = many_lines(9000)
    text = to_html(coverage, Sources.find(coverage), "long.o")
    found = ask(text, "light", SCREEN, tmp_path)
    assert found["n"] == 900
    assert (found["down"], found["next"], found["far"]) == (200, 201, 500)
    assert 290 <= found["up"] < 300
    assert found["end"] == 899


NARROW = """
const out = { wide: document.documentElement.scrollWidth };
const rect = (node) => node.getBoundingClientRect();
const row = document.getElementById('f0-5');
const [count, ways, text] = ['t', 'b', 's'].map((name) => rect(row.querySelector('.' + name)));
out.text = text.width;
out.ways = [ways.width > 0, ways.left >= count.right, ways.top >= text.top];
out.cells = [...document.querySelectorAll('#files tbody tr:first-child td')]
  .filter((one) => one.offsetParent).length;
out.heads = [...document.querySelectorAll('#files th')].filter((one) => one.offsetParent).length;
out.cut = [...document.querySelectorAll('.card, header button, #filter, .file > summary, td.s')]
  .filter((one) => rect(one).right > innerWidth + 1).length;
return out;
"""


def test_a_narrow_screen(tmp_path: Path) -> None:
    """On a phone nothing sticks out, text has most of the width, and branches still show."""
    found = ask_narrow(page(), NARROW, tmp_path, 390)
    assert found["wide"] <= 390
    assert found["text"] > 390 / 2
    assert found["ways"] == [True, True, True]
    assert found["cells"] == found["heads"] >= 4
    assert found["cut"] == 0


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
