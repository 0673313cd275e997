"""Errors as the command line shows them: ``bpfpatch: FILE: message``, and no traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final, Self

import click

from bpfpatch.errors import BpfPatchError, ValidationError
from bpfpatch.text import visible

from .complete import complete_values

BROKEN_PIPE: Final = 128 + 13
"""What a shell says of a process that SIGPIPE ended."""

MAX_LINES: Final = 20
"""How many violations of one program are shown."""


class Failure(click.ClickException):
    """The operation failed.

    Args:
        where: the file or what else is to blame.
        messages: one a line.
    """

    def __init__(self, where: str, *messages: str) -> None:
        self.where = where
        self.messages = messages
        self.lines = [f"bpfpatch: {where}: {_one_line(message)}" for message in messages]
        super().__init__("\n".join(self.lines))

    @classmethod
    def like(cls, other: Failure) -> Self:
        """The same failure with the exit status of this class."""
        return cls(other.where, *other.messages)

    def show(self, file: Any = None) -> None:
        """Print the message to the standard error."""
        for line in self.lines:
            click.echo(line, file=file or sys.stderr)


class Command(click.Command):
    """A command; a subclass may let failures exit with another status than 1."""

    failure: ClassVar[type[Failure]] = Failure

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        complete_values(self.params)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; an option that takes one value and is given twice is an error, not the last."""
        out = super().parse_args(ctx, list(args))
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option in given:
            is_one = isinstance(option, click.Option) and not (option.multiple or option.is_flag)
            if is_one and given.count(option) > 1:
                raise click.UsageError(
                    f"{max(option.opts, key=len)} is given {given.count(option)} times; "
                    "it takes one value",
                    ctx,
                )
        return out

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            out = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            forget_stdout()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        except BpfPatchError as error:
            raise self.failure(str(ctx.info_name), str(error)) from error
        except OSError as error:  # files are taken care of by blame()
            forget_stdout()
            raise self.failure("<stdout>", error.strerror or str(error)) from error
        except Failure as failure:
            raise self.failure.like(failure) from failure
        return out


@contextmanager
def blame(where: str) -> Iterator[None]:
    """Turn errors into a `Failure` that names a file.

    Raises:
        Failure: for any `BpfPatchError`, `OSError` and `MemoryError`.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except ValidationError as error:
        shown = [str(violation) for violation in error.violations[:MAX_LINES]]
        more = len(error.violations) - len(shown)
        raise Failure(where, *shown, *([f"and {more} more violations"] if more else [])) from error
    except BpfPatchError as error:
        raise Failure(where, str(error)) from error
    except OSError as error:
        raise Failure(where, error.strerror or str(error)) from error
    except MemoryError as error:
        raise Failure(where, "out of memory") from error


def forget_stdout() -> None:
    """Let nothing complain at exit that what is left cannot be written."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


def _one_line(message: str) -> str:
    return visible(" ".join(message.split("\n")))
