"""A headless browser that shows a page: what is in it, and a picture."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any, Literal

from .tools import need

Scheme = Literal["light", "dark"]

WIDTH, HEIGHT = 1000, 1100
"""Of the window."""

_PREFERRED = {"dark": 0, "light": 1}
"""Source: Chromium, third_party/blink, mojom PreferredColorScheme."""
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def show(page: Path, scheme: Scheme, *args: str) -> str:
    """Open a page; what the browser printed.

    Args:
        page: the file.
        scheme: what the user prefers.
        args: what else to tell the browser.
    """
    need("chromium")
    done = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",  # which root cannot have
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            f"--window-size={WIDTH},{HEIGHT}",
            "--force-color-profile=srgb",
            f"--user-data-dir={page.parent / 'profile'}",
            f"--blink-settings=preferredColorScheme={_PREFERRED[scheme]}",
            *args,
            page.resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def screenshot(page: Path, scheme: Scheme, out: Path) -> Path:
    """Take a picture of a page."""
    show(page, scheme, f"--screenshot={out}")
    return out


def ask_narrow(page: str, script: str, folder: Path, width: int) -> Any:
    """The same in a window of another width: a frame, since none of its own is that narrow."""
    inner = html.escape(_POLICY.sub("", page).replace("</style>", f"{_AT_ONCE}</style>", 1))
    outer = (
        f'<!DOCTYPE html><body style="margin:0"><iframe id="page" srcdoc="{inner}" '
        f'style="width:{width}px;height:{HEIGHT}px;border:0"></iframe></body>'
    )
    inside = (
        "const page = document.getElementById('page').contentWindow;"
        f"return page.eval({json.dumps(f'(() => {{ {script} }})()')});"
    )
    return ask(outer, "light", inside, folder)


_AT_ONCE = "* { content-visibility: visible !important; }"
"""What is laid out when it comes into sight would wait for a first picture."""


def ask(page: str, scheme: Scheme, script: str, folder: Path) -> Any:
    """Run a script in a page, and get what it returns.

    The page's policy, which lets no script run but its own, is taken out for that.

    Args:
        page: the page's text.
        scheme: what the user prefers.
        script: the body of a function; what it returns becomes JSON.
        folder: for files.
    """
    asked = (
        f"<style>{_AT_ONCE}</style>"
        "<script>addEventListener('load', () => {"
        "const out = document.createElement('output'); out.id = 'asked';"
        f"out.textContent = JSON.stringify((() => {{ {script} }})());"
        "document.body.append(out); });</script></body>"
    )
    path = folder / f"asked-{scheme}.html"
    path.write_text(_POLICY.sub("", page).replace("</body>", asked))
    dom = show(path, scheme, "--dump-dom")
    found = re.search(r'<output id="asked">(.*?)</output>', dom, re.DOTALL)
    assert found is not None, dom[-2000:]
    return json.loads(html.unescape(found[1]))
