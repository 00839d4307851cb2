"""``sklearn-mm evaluate``."""

from collections.abc import Mapping
from typing import Any

import click

from sklearn_mm.cli._data import as_input, load_data, take_rows
from sklearn_mm.cli._errors import CommandError
from sklearn_mm.cli._options import Verb, columns, results, say
from sklearn_mm.cli._results import check_output, show_table, write_json, write_rows
from sklearn_mm.cli._store import StoredModel

__all__ = ["evaluate", "measure", "show_report"]


@click.command(cls=Verb, short_help="Measure how good a model is.")
@click.argument("model", type=click.Path())
@click.argument("folder", type=click.Path())
@click.argument("table", type=click.Path(), required=False)
@columns
@click.option("--split", multiple=True, metavar="NAME", help="Measure on this part alone, of a column 'split'.")
@click.option("--held-out", is_flag=True, help="Measure on what `fit --hold-out` has not learnt from.")
@click.option("--intervals", is_flag=True, help="Say how far the numbers would move with other pictures.")
@click.option(
    "--against",
    type=click.Path(),
    multiple=True,
    metavar="MODEL",
    help="Compare with another model, on the same pictures; may be given several times.",
)
@results
def evaluate(
    model: str,
    folder: str,
    table: str | None,
    split: tuple[str, ...],
    held_out: bool,
    intervals: bool,
    against: tuple[str, ...],
    output: str | None,
    as_json: bool,
    force: bool,
    **given: Any,
) -> None:
    """Measure how well a model finds or labels pictures whose captions or labels are known.

    Pictures that it has learnt from tell little: hold some out, by `fit --hold-out` or a column 'split'.

    \b
    Examples:
      sklearn-mm evaluate photos.model photos captions.csv --held-out
      sklearn-mm evaluate photos.model other_photos other.csv --json
      sklearn-mm evaluate labels.model photos labels.csv --split test -o measured.csv
      sklearn-mm evaluate photos.model other_photos other.csv --against best.model
    """
    stored, *others = [StoredModel(path) for path in (model, *against)]
    file = check_output(output, force)
    if held_out and not stored.about.get("held_out"):
        raise CommandError(f"{model} has learnt from all of its pictures; `fit --hold-out 0.2` leaves a fifth out")
    for other in others:
        other.require(stored.task or "search", "evaluate --against")
    data = load_data(folder, table, **given)
    rows = _rows(data, split, set(stored.about["held_out"]) if held_out else None)
    data = data if len(rows) == len(data.images) else take_rows(data, rows)
    fitted = stored.load()
    task = stored.task or ("annotate" if hasattr(fitted, "predict_proba") else "search")
    if intervals or others:
        named = {str(each.path): each.load() for each in others}
        table_of = _compare({model: fitted, **named}, task, data)
        report: Any = table_of
    else:
        report = measure(fitted, task, data)
        table_of = [{"measure": name, "value": value} for name, value in report.items()]
    if file is not None:
        write_rows(table_of, file)
    if as_json:
        write_json(report)
    elif file is None:
        show_table(table_of)


def _compare(models: dict[str, Any], task: str, data: Any) -> list[dict[str, Any]]:
    """Return the numbers of models on the same pictures, with their intervals."""
    from sklearn_mm.metrics import compare

    model = next(iter(models.values()))  # all are of one task
    return compare(models, as_input(model, data.images), _known(task, data)).rows()


def measure(model: Any, task: str, data: Any) -> dict[str, float]:
    """Return the numbers of a model, by name."""
    from sklearn_mm.metrics import AnnotationScorer, RetrievalScorer

    scorer = RetrievalScorer() if task == "search" else AnnotationScorer()
    return dict(scorer(model, as_input(model, data.images), _known(task, data)))


def _known(task: str, data: Any) -> Any:
    """Return the captions, or the labels."""
    key, option = ("captions", "--text-column") if task == "search" else ("target", "--label-column")
    if data.get(key) is None:
        raise CommandError(f"there are no {'labels' if key == 'target' else key} to measure by; name them by {option}")
    return data[key]


def show_report(report: Mapping[str, float]) -> None:
    """Write the numbers as a table to stdout."""
    show_table([{"measure": name, "value": value} for name, value in report.items()])


def _rows(data: Any, splits: tuple[str, ...], held_out: set[str] | None) -> list[int]:
    """Return the rows to measure on."""
    rows = list(range(len(data.images)))
    if splits:
        if data.get("split") is None:
            raise CommandError("--split needs a column 'split' in the table")
        rows = [row for row in rows if str(data.split[row]) in splits]
    if held_out is not None:
        rows = [row for row in rows if data.ids[row] in held_out]
    if not rows:
        raise CommandError("no picture is left to measure on")
    say(f"measuring on {len(rows):,} pictures")
    return rows
