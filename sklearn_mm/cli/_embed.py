"""``sklearn-mm embed``."""

import sys
from pathlib import Path
from typing import Any

import click

from sklearn_mm.cli._data import show_progress
from sklearn_mm.cli._errors import CommandError
from sklearn_mm.cli._options import Verb, say
from sklearn_mm.cli._store import StoredModel

__all__ = ["embed"]


@click.command(cls=Verb, short_help="Write vectors of pictures or texts.")
@click.argument("model", type=click.Path())
@click.argument("pictures", required=False)
@click.option("-o", "--output", required=True, type=click.Path(), metavar="FOLDER", help="Where the shards go.")
@click.option("--texts", type=click.Path(), metavar="FILE", help="Embed texts instead, one a line; - is stdin.")
@click.option("--format", "shard_format", type=click.Choice(["parquet", "npy"]), default="parquet", show_default=True)
@click.option("--shard-size", type=click.IntRange(min=1), default=10_000, show_default=True, metavar="N")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--force", is_flag=True, help="Begin anew where another run has written.")
def embed(
    model: str,
    pictures: str | None,
    output: str,
    texts: str | None,
    shard_format: str,
    shard_size: int,
    engine: str,
    force: bool,
) -> None:
    """Write the vectors of pictures or texts: shards on disk, however many there are.

    PICTURES is a folder, a pattern in quotes, or tar archives as WebDataset has them. A run that was interrupted goes
    on where it stopped when it is started again. Pictures that cannot be read are left out and listed in manifest.json.

    \b
    Examples:
      sklearn-mm embed photos.model photos -o vectors
      sklearn-mm embed photos.model "archive/*.tar" -o vectors --format npy
      sklearn-mm embed photos.model --texts sentences.txt -o sentences
    """
    if (pictures is None) == (texts is None):
        raise click.UsageError("give either PICTURES or --texts FILE")
    stored = StoredModel(model)
    source: Any = pictures if texts is None else _read_lines(texts)
    transformer = stored.load()
    if texts is not None:
        transformer = _text_side(transformer)
    elif not hasattr(transformer, "transform"):
        raise CommandError(f"{model} gives labels and no vectors; `embed` needs a model that was fitted to search")
    from sklearn_mm.scaling import embed_shards

    manifest = embed_shards(
        transformer,
        source,
        output,
        shard_size=shard_size,
        resume=not force,
        engine=engine,
        format=shard_format,
        verbose=int(show_progress()),
    )
    say(
        f"{manifest.n_rows:,} vectors of {manifest.n_features} {manifest.dtype} in {len(manifest.shards)} shards in "
        f"{output}"
    )


def _text_side(model: Any) -> Any:
    from sklearn.preprocessing import FunctionTransformer

    ranker = model[-1] if hasattr(model, "steps") else model
    if not hasattr(ranker, "transform_text"):
        raise CommandError("this model embeds no texts; `embed --texts` needs one that was fitted to search")
    return FunctionTransformer(ranker.transform_text).fit([])


def _read_lines(name: str) -> list[str]:
    if name == "-":
        text = sys.stdin.read()
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise CommandError(f"{name}: there is no such file") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise CommandError(f"{name}: there are no texts in it")
    return lines
