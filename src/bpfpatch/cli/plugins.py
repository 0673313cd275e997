"""Passes of the user's own, from a Python file."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from bpfpatch.errors import BpfPatchError

from .failure import Failure

plugin_option = click.option(
    "--plugin",
    "plugins",
    metavar="FILE.py",
    multiple=True,
    help="Import a Python file that registers passes. Can be given several times.",
)


_PREFIX: Final = "bpfpatch_plugin_"


def load_plugins(paths: Sequence[str]) -> None:
    """Import each file, for the passes that it registers.

    Raises:
        Failure: one cannot be imported.
    """
    for number, path in enumerate(paths):
        _load(path, f"{_PREFIX}{number}_{Path(path).stem}")


@contextmanager
def blame_pass(running: Sequence[Any]) -> Iterator[None]:
    """Turn a mistake in a pass into a message that says where it is.

    Args:
        running: the passes that have been started, the last one last; may grow.

    Raises:
        Failure: for any error that comes out of a plugin's code.
    """
    try:
        yield
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        module = sys.modules.get(type(running[-1]).__module__) if running else None
        path = None if module is None else module.__file__
        if module is None or path is None or not module.__name__.startswith(_PREFIX):
            raise
        if isinstance(error, BpfPatchError) and not _lines(error, path):
            raise  # of what the pass left behind, not of what it did
        raise Failure(path, f"pass {running[-1].name}: {_what(error, path)}") from error


def _load(path: str, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Failure(path, "a plugin is a Python file, and its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks its module up
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise Failure(path, error.strerror or str(error)) from error
    except (Exception, SystemExit) as error:
        raise Failure(path, _what(error, path)) from error


def _what(error: BaseException, path: str) -> str:
    """An error in one line, with the line of the plugin that it comes from."""
    lines = _lines(error, path)
    place = f"line {lines[-1]}: " if lines else ""
    if isinstance(error, BpfPatchError):
        return f"{place}{error}"
    return f"{place}{type(error).__name__}: {error}"


def _lines(error: BaseException, path: str) -> list[int]:
    """Lines of a plugin that an error came through, the innermost last."""
    here = Path(path).resolve()
    frames = traceback.extract_tb(error.__traceback__)
    return [frame.lineno or 0 for frame in frames if Path(frame.filename).resolve() == here]
