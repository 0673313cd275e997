"""Coverage as one self-contained HTML page."""

from .page import to_html

__all__ = ["to_html"]
