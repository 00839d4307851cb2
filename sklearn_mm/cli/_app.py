"""The verbs of ``sklearn-mm``; what they need is imported when they run, so that help needs nothing of it."""

import click

from sklearn_mm._version import __version__
from sklearn_mm.cli._annotate import annotate
from sklearn_mm.cli._embed import embed
from sklearn_mm.cli._errors import PROGRAM
from sklearn_mm.cli._evaluate import evaluate
from sklearn_mm.cli._fit import fit
from sklearn_mm.cli._gallery import add, remove
from sklearn_mm.cli._info import info
from sklearn_mm.cli._search import search, similar

__all__ = ["app"]

_HELP = """Search pictures by sentences, and label them.

\b
A folder of pictures, and a table with a caption for each:
  sklearn-mm fit photos captions.csv -o photos.model
  sklearn-mm search photos.model "a dog in snow"
  sklearn-mm search photos.model "a dog in snow" -k 5 --paths-only
  sklearn-mm similar photos.model cat.jpg
  sklearn-mm add photos.model new_photos

\b
A table with labels instead of captions:
  sklearn-mm fit photos labels.csv -o labels.model
  sklearn-mm annotate labels.model new_photos -o found.csv

Each verb has more examples: sklearn-mm fit --help.
"""


class _InThisOrder(click.Group):
    """A group that lists its verbs as they were added: in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InThisOrder,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show where in the code an error came from.")
@click.version_option(__version__, "--version", prog_name=PROGRAM, message="%(prog)s %(version)s")
def app() -> None:
    """Run a verb."""


for _verb in (fit, search, similar, add, remove, annotate, evaluate, embed, info):
    app.add_command(_verb)
