"""Rewrite compiled eBPF programs to any length, with everything in them consistent."""

from ._version import __version__

__all__ = ["__version__"]
