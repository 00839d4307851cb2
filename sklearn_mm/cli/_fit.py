"""``sklearn-mm fit``."""

import random
import shutil
import time
from pathlib import Path
from typing import Any

import click

from sklearn_mm.cli._config import PARAMETERS, parse_parameters, read_config, write_config
from sklearn_mm.cli._data import as_input, load_data, show_progress, take_rows
from sklearn_mm.cli._errors import CommandError
from sklearn_mm.cli._files import check_free, new_folder
from sklearn_mm.cli._options import Verb, columns, input_table, say
from sklearn_mm.cli._parameters import set_everywhere
from sklearn_mm.cli._store import GALLERY, MODEL, check_model_output, describe_root, write_about

__all__ = ["fit"]

_TASKS = ("auto", "search", "annotate")
_ENOUGH_FOR_CUTOFF = 9  # pictures, by which a tenth of the right ones may be missed
_NOT_KEPT = ("config", "save_config", "force", "parameter")  # of the settings, in a file of them


@click.command(cls=Verb, short_help="Learn from pictures and a table.")
@input_table
@click.option(
    "-o", "--output", type=click.Path(), metavar="MODEL", help="The model, a folder.  [default: FOLDER.model]"
)
@click.option(
    "--task",
    type=click.Choice(_TASKS),
    default="auto",
    show_default=True,
    help="To search by sentences, or to annotate with labels; auto: what the table has.",
)
@click.option("--setting", default="balanced", show_default=True, metavar="WORD", help="fast, balanced or best.")
@click.option("--backbone", default="auto", show_default=True, metavar="NAME", help="The network that sees pictures.")
@click.option(
    "--text-encoder",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="What reads the sentences: a folder or a name of transformers.",
)
@click.option("--download", is_flag=True, help="Let the text encoder be fetched.")
@columns
@click.option("--split", multiple=True, metavar="NAME", help="Learn from this part alone, of a column 'split'.")
@click.option(
    "--hold-out",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Do not learn from this share of the pictures, and measure on it: 0.2 is a fifth.",
)
@click.option("--cache", type=click.Path(file_okay=False), metavar="FOLDER", help="Keep what the network saw here.")
@click.option("--jobs", type=int, metavar="N", help="Threads; -1: one for each core.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is random.")
@click.option("-p", "--parameter", multiple=True, metavar="NAME=VALUE", help="A parameter of the pipeline.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=read_config,
    metavar="FILE",
    help="Take settings from a TOML file.",
)
@click.option(
    "--save-config", type=click.Path(dir_okay=False), metavar="FILE", help="Write these settings to a TOML file."
)
@click.option("--force", is_flag=True, help="Replace a model that exists.")
def fit(folder: str, table: str | None, **settings: Any) -> None:
    """Learn from a folder of pictures and what is known of them.

    TABLE is CSV, TSV, JSONL, Parquet, or the JSON of COCO or Karpathy, with a row for each caption or for each picture.
    Without one the names of the files, and .txt files beside them, are the captions.

    The model and the gallery of all pictures are kept together in MODEL. A fit that was interrupted goes on with the
    features that were made before, if it is started again.

    \b
    Examples:
      sklearn-mm fit photos captions.csv -o photos.model
      sklearn-mm fit photos captions.csv --setting best --hold-out 0.1
      sklearn-mm fit photos table.csv --image-column file --text-column title
      sklearn-mm fit photos labels.csv --label-column tags --sep ";" -o labels.model
      sklearn-mm fit photos captions.csv --save-config fit.toml
      sklearn-mm fit --config fit.toml --force
    """
    context = click.get_current_context()
    path = Path(settings["output"] or f"{Path(folder).absolute().name}.model")
    check_model_output(path, settings["force"])
    parameters = context.meta.get(PARAMETERS, {}) | parse_parameters(settings["parameter"])
    config = None if settings["save_config"] is None else Path(settings["save_config"])
    if config is not None:
        check_free(config, settings["force"])
    data = load_data(
        folder, table, **{name: settings[name] for name in ("image_column", "text_column", "label_column", "sep")}
    )
    task = _task_of(settings["task"], data)
    learnt, held_out = _parts(data, settings["split"], settings["hold_out"], settings["seed"])
    cache = Path(settings["cache"] or path.absolute().with_name(f".{path.name}.cache"))
    model = _make(task, cache, settings).set_params(**parameters)
    if config is not None:
        kept = {name: value for name, value in settings.items() if name not in _NOT_KEPT and value != ()}
        write_config({"folder": folder, "table": table, **kept, "output": str(path)}, parameters, config)
    start = time.perf_counter()
    model.fit(as_input(model, learnt.images), learnt.captions if task == "search" else learnt.target)
    about = {
        "task": task,
        "created": time.strftime("%Y-%m-%d %H:%M:%S"),
        "seconds": round(time.perf_counter() - start, 1),
        "setting": settings["setting"],
        "n_pictures": len(learnt.images),
        "n_captions": sum(map(len, learnt.captions)) if task == "search" else None,
        "columns": data.get("columns"),
        "table": table,
        "root": describe_root(Path(folder), path),
        "held_out": [data.ids[row] for row in held_out],
        "parameters": parameters,
    }
    gallery = None
    if task == "search":
        from sklearn_mm.retrieval import Gallery

        gallery = Gallery(model).add(data.images, ids=data.ids, metadata=data.get("metadata"))
        about["gallery"] = len(gallery)
        if len(held_out) >= _ENOUGH_FOR_CUTOFF:
            unseen = take_rows(data, held_out)
            gallery.calibrate(unseen.images, unseen.captions)  # for search --cutoff calibrated
    # Neither this process's cache nor its bars stay in a model that is kept.
    set_everywhere(model, {"cache": None, "checkpoint": None, "verbose": 0})
    with new_folder(path) as made:
        from sklearn_mm.persistence import save

        save(model, made / MODEL)
        if gallery is not None:
            gallery.save(made / GALLERY)
        write_about(made, about)
    if settings["cache"] is None:
        shutil.rmtree(cache, ignore_errors=True)
    say(f"learnt from {len(learnt.images):,} pictures in {about['seconds']} s: {path}")
    if held_out:
        from sklearn_mm.cli._evaluate import measure, show_report

        say(f"on {len(held_out):,} pictures that it has not learnt from:")
        show_report(measure(model, task, take_rows(data, held_out)))


def _task_of(asked: str, data: Any) -> str:
    """Return what is to be learnt from what there is."""
    there = {"search": data.get("captions") is not None, "annotate": data.get("target") is not None}
    if asked != "auto":
        if not there[asked]:
            what, option = ("captions", "--text-column") if asked == "search" else ("labels", "--label-column")
            raise CommandError(f"there are no {what} to learn from; name their column by {option}")
        return asked
    if all(there.values()):
        say("there are captions and labels: learning to search; --task annotate learns labels")
    return "search" if there["search"] else "annotate"


def _parts(data: Any, splits: tuple[str, ...], share: float | None, seed: int) -> tuple[Any, list[int]]:
    """Return the data to learn from, and the rows held out."""
    rows = list(range(len(data.images)))
    if splits:
        if data.get("split") is None:
            raise CommandError("--split needs a column 'split' in the table")
        known = sorted({str(part) for part in data.split})
        for name in splits:
            if name not in known:
                raise CommandError(f"--split {name}: there are the parts {', '.join(known)}")
        rows = [row for row in rows if str(data.split[row]) in splits]
    held_out: list[int] = []
    if share is not None:
        held_out = sorted(random.Random(seed).sample(rows, max(1, round(share * len(rows)))))
        left = set(held_out)
        rows = [row for row in rows if row not in left]
    if len(rows) < 2:
        raise CommandError(f"it takes two pictures or more to learn from, got {len(rows)}")
    return (data if len(rows) == len(data.images) else take_rows(data, rows)), held_out


def _make(task: str, cache: Path, settings: dict[str, Any]) -> Any:
    """Make the pipeline."""
    shared: dict[str, Any] = {
        "backbone": settings["backbone"],
        "cache": str(cache),
        "n_jobs": settings["jobs"],
        "random_state": settings["seed"],
        "verbose": int(show_progress()),
    }
    if task == "search":
        from sklearn_mm.retrieval import make_search_pipeline

        return make_search_pipeline(settings["setting"], text_encoder=_text_encoder(settings), **shared)
    from sklearn_mm.annotation import make_annotation_pipeline

    pipeline = make_annotation_pipeline(settings["setting"], tags=None)
    taken = {name: value for name, value in shared.items() if (name, value) != ("backbone", "auto")}
    return set_everywhere(pipeline, taken)


def _text_encoder(settings: dict[str, Any]) -> Any:
    """Return what reads the sentences: a pretrained model, where one is named."""
    name = settings["text_encoder"]
    if name == "auto":
        return name
    from sklearn_mm.features import PretrainedTextEncoder

    return PretrainedTextEncoder(name, local_files_only=not settings["download"])
