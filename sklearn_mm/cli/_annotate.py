"""``sklearn-mm annotate``."""

from typing import Any

import click

from sklearn_mm.cli._data import as_input, find_pictures, read_in_chunks
from sklearn_mm.cli._errors import CommandError, tell
from sklearn_mm.cli._options import Verb, results
from sklearn_mm.cli._results import check_output, show_table, write_json, write_rows
from sklearn_mm.cli._store import StoredModel

__all__ = ["annotate"]


@click.command(cls=Verb, short_help="Label pictures.")
@click.argument("model", type=click.Path())
@click.argument("pictures", nargs=-1, required=True)
@click.option(
    "-k", "n_labels", type=click.IntRange(min=1), help="So many labels each.  [default: as many as it deserves]"
)
@click.option(
    "--labels", metavar="NAMES", help="Choose among these by what they are called, with a model that searches: dog,cat."
)
@click.option("--scores", is_flag=True, help="Write the probability of each label, too.")
@results
def annotate(
    model: str,
    pictures: tuple[str, ...],
    n_labels: int | None,
    labels: str | None,
    scores: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Label pictures: files, or all below a folder.

    \b
    Examples:
      sklearn-mm annotate labels.model new_photos -o found.csv
      sklearn-mm annotate labels.model cat.jpg dog.jpg --scores
      sklearn-mm annotate labels.model cat.jpg -k 3 --json
      sklearn-mm annotate photos.model new_photos --labels "dog,cat,snow" -k 1
    """
    stored = StoredModel(model)
    if labels is None and stored.task == "search":
        raise CommandError(
            f"{model} searches pictures by sentences; name the labels that it is to choose among, --labels dog,cat, or "
            "fit a model to annotate"
        )
    stored.require("annotate" if labels is None else "search", "annotate" if labels is None else "annotate --labels")
    names = None if labels is None else _names_in(labels)
    paths = find_pictures(pictures)
    output = check_output(options["output"], options["force"])
    fitted = stored.load()
    if names is not None:
        fitted, n_labels = _by_names(fitted, names), n_labels or 1
    annotator = fitted[-1] if hasattr(fitted, "steps") else fitted
    if not hasattr(annotator, "predict_proba"):
        raise CommandError(f"{model} gives no labels; `annotate` needs a model that was fitted to annotate")
    found = read_in_chunks(paths, lambda chunk: _label(fitted, chunk, n_labels), "pictures")
    rows = [_row(str(path), labels, scores) for path, labels in found]
    if output is not None:
        write_rows(rows, output)
    if as_json:
        write_json(rows)
    elif output is None:
        show_table(rows)


def _names_in(labels: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in labels.split(",") if name.strip()))
    if len(names) < 2:
        raise CommandError(f'--labels takes two names or more, such as "dog,cat,snow", got {labels!r}')
    return names


def _by_names(model: Any, names: list[str]) -> Any:
    """Return the pipeline from pictures to labels that a fitted search knows by their names alone."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    from sklearn_mm.annotation import ZeroShotAnnotator

    ranker = model[-1] if hasattr(model, "steps") else model
    if not hasattr(ranker, "transform_text"):
        raise CommandError("this model embeds no names; `annotate --labels` needs one that was fitted to search")
    unknown = ranker.unknown_words(names) if hasattr(ranker, "unknown_words") else []
    if unknown:
        tell(f"not seen in training, and so of no meaning here: {', '.join(unknown)}", "warning")
    texts = FrozenEstimator(FunctionTransformer(ranker.transform_text))
    annotator = ZeroShotAnnotator(texts, labels=names, templates=["{}"])
    return Pipeline([("vectors", model), ("annotator", annotator.fit(ranker.transform_text(names[:1])))])


def _row(path: str, labels: list[tuple[Any, float]], scores: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"path": path, "labels": [str(label) for label, _ in labels]}
    return row | {"scores": [round(score, 4) for _, score in labels]} if scores else row


def _label(model: Any, paths: list[str], n_labels: int | None) -> list[list[tuple[Any, float]]]:
    """Return the labels of each picture with their probabilities, the best first."""
    import numpy as np

    # The network sees each picture once, for both questions.
    pictures = as_input(model, paths)
    features = model[:-1].transform(pictures) if hasattr(model, "steps") and len(model) > 1 else pictures
    annotator = model[-1] if hasattr(model, "steps") else model
    probability = np.asarray(annotator.predict_proba(features))  # (n, n_labels)
    classes = annotator.classes_
    if n_labels is not None:
        best = np.argsort(-probability, axis=1, kind="stable")[:, :n_labels]
        return [[(classes[c], float(own[c])) for c in row] for row, own in zip(best, probability, strict=True)]
    place = {label: column for column, label in enumerate(classes.tolist())}
    return [
        [(label, float(own[place[label]])) for label in _listed(labels)]
        for labels, own in zip(annotator.predict(features), probability, strict=True)
    ]


def _listed(labels: Any) -> list[Any]:
    """Return the labels of a picture; a model of one label each gives that label."""
    return [labels] if isinstance(labels, str) or not hasattr(labels, "__iter__") else list(labels)
