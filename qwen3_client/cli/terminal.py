"""What is written to standard output and, as a line, to standard error."""

import errno
import sys

import typer


def write(data: bytes) -> None:
    """To standard output, at once. Raises OSError where there is none, as after a shell's `>&-`."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_text(text: str) -> None:
    """In UTF-8, whatever the terminal's language is."""
    write(text.encode())


def say(what: object) -> None:
    """One line on standard error, under the program's name."""
    typer.echo(f"qwen3: {printable(str(what))}", err=True)


def printable(text: str) -> str:
    """Without what a terminal would obey: control characters become spaces."""
    return "".join(character if character.isprintable() else " " for character in text)
