"""How a command ends: the exit codes, and the line on standard error that says why."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from qwen3_client.cli.terminal import say
from qwen3_client.errors import InvalidRequestError, Qwen3Error

_PLACE = re.compile(r"(?:inputs|documents)\[(\d+)\]")


class ExitCode(IntEnum):
    """Beside 0; 2 is also what wrong options and arguments end with."""

    FAILED = 1  # the call, or reading or writing a file; for health: not serving
    USAGE = 2
    INPUT_REFUSED = 3
    CANNOT_GO_ON = 4
    INTERRUPTED = 130
    PIPE_CLOSED = 141  # what a shell says of a program that SIGPIPE ended


class InputRefusedError(Exception):
    """A row of the input that is no text, or that the service refuses; the message names its place."""

    exit_code: ClassVar = ExitCode.INPUT_REFUSED


class CannotGoOnError(Exception):
    """An unfinished file that was begun otherwise; the message names what differs."""

    exit_code: ClassVar = ExitCode.CANNOT_GO_ON


class Commands(TyperGroup):
    """Commands whose errors are a line and an exit code. Mistakes of ours keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _ended("interrupted", ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            _leave_stdout()
            raise typer.Exit(ExitCode.PIPE_CLOSED) from None
        except (InputRefusedError, CannotGoOnError) as error:
            raise _ended(error, error.exit_code) from error
        except (Qwen3Error, OSError) as error:
            raise _ended(error, ExitCode.FAILED) from error


@contextmanager
def places_named(place_of: Callable[[int], str]) -> Iterator[None]:
    """Inside, a text that the service refuses ends the command with its place in the input."""
    try:
        yield
    except InvalidRequestError as error:
        refused = {found[1]: what for field, what in error.field_violations if (found := _PLACE.fullmatch(field))}
        if not refused:
            raise
        places = [f"{place_of(int(number))} {what}" for number, what in refused.items()]
        raise InputRefusedError("; ".join(places)) from error


def _ended(why: object, code: ExitCode) -> typer.Exit:
    say(why)
    return typer.Exit(code)


def _leave_stdout() -> None:
    """Nobody reads it: without this Python would write what is buffered once more, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
