"""When a report was made."""

from __future__ import annotations

import os
import time


def made_at() -> str:
    """The time now in UTC, or that of SOURCE_DATE_EPOCH for those who build reproducibly."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds()))


def seconds() -> int:
    """The same as seconds since 1970."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(given) if given.isascii() and given.isdigit() else int(time.time())
