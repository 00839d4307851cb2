"""Options that several commands have, and the class of commands that gives each of them --debug and --quiet."""

from collections.abc import Callable
from typing import Any

import click

from sklearn_mm.cli._errors import tell

__all__ = ["Verb", "columns", "gallery_results", "input_table", "is_quiet", "k_option", "pass_on", "results", "say"]

_QUIET = "sklearn_mm.quiet"


class Verb(click.Command):
    """A command with the options that all have."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.params += [
            click.Option(
                ["-q", "--quiet"],
                is_flag=True,
                expose_value=False,
                callback=_set_quiet,
                help="Say nothing but results, warnings and errors.",
            ),
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                help="Show where in the code an error came from.",
            ),
        ]


def _set_quiet(context: click.Context, option: click.Parameter, value: bool) -> None:
    context.meta[_QUIET] = value


def is_quiet() -> bool:
    """Whether the command was told to be quiet."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_QUIET))


def say(message: str) -> None:
    """Write a line of what is going on to stderr, unless the command is quiet."""
    if not is_quiet():
        tell(message)


def pass_on(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Put several decorators together; their options are listed in this order."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


k_option = click.option(
    "-k", "k", type=click.IntRange(min=1), default=10, show_default=True, help="How many pictures to find."
)

columns = pass_on(
    click.option("--image-column", metavar="NAME", help="The column of file names; guessed where it is clear."),
    click.option("--text-column", metavar="NAME", multiple=True, help="The column of captions; several may be given."),
    click.option("--label-column", metavar="NAME", multiple=True, help="The column of labels, or several."),
    click.option("--sep", default="auto", show_default=True, metavar="TEXT", help="What stands between labels."),
)

results = pass_on(
    click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout, and nothing else."),
    click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="Write to a file: .csv, .tsv, .json, .jsonl or .parquet.",
    ),
    click.option("--force", is_flag=True, help="Replace an output that exists."),
)

gallery_results = pass_on(
    click.option("--paths-only", is_flag=True, help="Write the paths alone, one a line."),
    click.option("-0", "--null", "null", is_flag=True, help="End each path with a NUL, for xargs -0."),
    click.option(
        "--pictures/--no-pictures", default=None, help="Draw the pictures in the terminal. [default: where it can]"
    ),
    results,
)

input_table = pass_on(
    click.argument("folder", type=click.Path()),
    click.argument("table", type=click.Path(), required=False),
)
