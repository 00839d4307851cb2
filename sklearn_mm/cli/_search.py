"""``sklearn-mm search`` and ``similar``."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from sklearn_mm.cli._data import is_picture_name
from sklearn_mm.cli._errors import CommandError
from sklearn_mm.cli._options import Verb, gallery_results, k_option, pass_on, say
from sklearn_mm.cli._results import check_output, show_table, write_json, write_rows
from sklearn_mm.cli._store import StoredModel
from sklearn_mm.cli._terminal import draws_pictures, show_pictures

__all__ = ["search", "similar"]

_narrowed = pass_on(
    click.option("--where", metavar="EXPRESSION", help="Among the pictures of which this is true: 'year > 2020'."),
    click.option("--min-score", type=float, metavar="SCORE", help="Leave out what scores less."),
)


@click.command(cls=Verb, short_help="Find the pictures of a sentence.")
@click.argument("model", type=click.Path())
@click.argument("query", nargs=-1)
@k_option
@_narrowed
@click.option(
    "--cutoff", metavar="RULE", help="calibrated: as many as the query deserves, perhaps none; after fit --hold-out."
)
@click.option("--image", type=click.Path(), metavar="FILE", help="A picture beside the sentence.")
@click.option("--minus", metavar="TEXT", help="What the pictures are not to show.")
@gallery_results
def search(model: str, query: tuple[str, ...], k: int, where: str | None, cutoff: str | None, **options: Any) -> None:
    """Find the pictures of a sentence, or those like a picture.

    QUERY is a sentence or a picture file; several are answered one after the other. A lone - reads sentences from
    stdin, one a line.

    \b
    Examples:
      sklearn-mm search photos.model "a dog in snow"
      sklearn-mm search photos.model "a dog in snow" -k 5 --paths-only
      sklearn-mm search photos.model "a dog" "a cat" -o found.csv
      sklearn-mm search photos.model "a dog" --where "year > 2020" --cutoff calibrated
      sklearn-mm search photos.model "but in red" --image car.jpg --minus night
      sklearn-mm search photos.model - --json < sentences.txt
    """
    stored = StoredModel(model)
    stored.require("search", "search")
    queries = _queries(query, options.pop("image"), options.pop("minus"))
    output = check_output(options["output"], options["force"])
    gallery = stored.load_gallery(stored.load())
    one_or_all = queries if len(queries) > 1 else queries[0]
    found = gallery.search(one_or_all, k=k, where=where, min_score=options["min_score"], cutoff=cutoff)
    _show(found.rows(), stored, output, options)


@click.command(cls=Verb, short_help="Find pictures like one.")
@click.argument("model", type=click.Path())
@click.argument("picture")
@k_option
@_narrowed
@gallery_results
def similar(model: str, picture: str, k: int, where: str | None, **options: Any) -> None:
    """Find the pictures like one of the gallery, or like any other.

    \b
    Examples:
      sklearn-mm similar photos.model photos/cat.jpg
      sklearn-mm similar photos.model /elsewhere/cat.jpg -k 3 --json
    """
    stored = StoredModel(model)
    stored.require("search", "similar")
    output = check_output(options["output"], options["force"])
    path = Path(picture)
    identity = stored.id_of(path)
    gallery = stored.load_gallery(stored.load())
    known = next((name for name in (picture, identity) if name in gallery.ids), None)
    if known is None and not path.is_file():
        raise CommandError(f"{picture} is neither a file nor a picture of the gallery")
    if known is None:
        found = gallery.search(path, k=k, where=where)
    else:
        found = gallery.similar(known, k, where=where)
    least = options["min_score"]
    rows = [row for row in found.rows() if least is None or row["score"] >= least]
    _show(rows, stored, output, options)


def _queries(given: Sequence[str], image: str | None, minus: str | None) -> list[Any]:
    """Return the queries: sentences, paths of pictures, or one mixture."""
    if list(given) == ["-"]:
        given = [line.strip() for line in sys.stdin if line.strip()]
        if not given:
            raise CommandError("there are no sentences on stdin")
    for text in given:
        if not text.strip():
            raise CommandError('the query is empty; give a sentence, such as "a dog in snow", or a picture file')
    queries = [_picture(text) if is_picture_name(text) else text for text in given]
    if image is None and minus is None:
        if not queries:
            raise click.UsageError('give a sentence, such as "a dog in snow", or a picture file')
        return queries
    if len(queries) > 1 or any(isinstance(query, Path) for query in queries):
        raise click.UsageError("--image and --minus go with one sentence, or with none")
    mixture: dict[str, Any] = {}
    if image is not None:
        mixture["image"] = str(_picture(image))
    if queries:
        mixture["text"] = queries[0]
    if not mixture:
        raise click.UsageError("--minus needs a sentence or --image beside it")
    if minus is not None:
        mixture["minus"] = minus
    return [mixture]


def _picture(name: str) -> Path:
    if not Path(name).is_file():
        raise CommandError(f"{name}: there is no such picture; a query is a sentence or a picture file")
    return Path(name)


def _show(rows: Sequence[Mapping[str, Any]], stored: StoredModel, output: Path | None, options: Any) -> None:
    """Write what was found where it was asked for."""
    told = [{**row, "path": stored.path_of(str(row["id"]))} for row in rows]
    if output is not None:
        write_rows(told, output)
    if options["as_json"]:
        write_json(told)
    elif options["paths_only"]:
        for row in told:
            click.echo(row["path"] + ("\0" if options["null"] else "\n"), nl=False)
    elif output is None and not told:
        say("nothing found")
    elif output is None:
        if options["pictures"] or (options["pictures"] is None and draws_pictures()):
            show_pictures([row["path"] for row in told], [f"{row['score']:.3f} {row['path']}" for row in told])
        else:
            first = ["query", "score", "path"] if "query" in told[0] else ["score", "path"]
            hidden = {*first, "id", "rank"}
            show_table(told, [*first, *(name for name in told[0] if name not in hidden)])
