"""What the command line says on stderr."""

import os
from typing import IO, Any

import click

__all__ = ["PROGRAM", "CommandError", "tell"]

PROGRAM = "sklearn-mm"
_COLOURS = {"error": "red", "warning": "yellow"}


class CommandError(click.ClickException):
    """Something that was given is not as it has to be; the message says what, and how to mend it."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to stderr."""
        tell(self.format_message(), "error")


def tell(message: str, kind: str | None = None) -> None:
    """Write a line to stderr: an error, a warning, or what is going on."""
    start = ""
    if kind is not None:
        plain = bool(os.environ.get("NO_COLOR"))
        start = f"{kind}: " if plain else click.style(f"{kind}: ", fg=_COLOURS[kind], bold=True)
    click.echo(f"{start}{message}", err=True)
