"""``sklearn-mm add`` and ``remove``."""

from pathlib import Path
from typing import Any

import click

from sklearn_mm.cli._data import drop_unreadable, find_pictures, load_data, show_progress, take_metadata, tell_dropped
from sklearn_mm.cli._errors import CommandError
from sklearn_mm.cli._options import Verb, say
from sklearn_mm.cli._parameters import set_everywhere
from sklearn_mm.cli._store import StoredModel

__all__ = ["add", "remove"]


@click.command(cls=Verb, short_help="Add pictures to the gallery of a model.")
@click.argument("model", type=click.Path())
@click.argument("pictures", nargs=-1, required=True)
@click.option("--table", type=click.Path(), metavar="FILE", help="What is known of them; for one folder.")
@click.option("--update", is_flag=True, help="Look again at pictures that are in the gallery already.")
def add(model: str, pictures: tuple[str, ...], table: str | None, update: bool) -> None:
    """Add pictures to the gallery of a model: files, or all below a folder.

    Those that are in it already are left as they are, so that the same command may be given every day.

    \b
    Examples:
      sklearn-mm add photos.model photos
      sklearn-mm add photos.model new_photos cat.jpg
      sklearn-mm add photos.model 2024 --table 2024.csv
      sklearn-mm add photos.model photos/edited.jpg --update
    """
    stored = StoredModel(model)
    stored.require("search", "add")
    metadata: Any = None
    if table is None:
        paths = find_pictures(pictures)
    else:
        if len(pictures) != 1:
            raise click.UsageError("--table goes with one folder")
        data = load_data(pictures[0], table, pictures_alone=True)
        paths, metadata = [Path(path) for path in data.images], data.get("metadata")
    fitted = stored.load()
    gallery = stored.load_gallery(fitted)
    there, ids = set(gallery.ids), [stored.id_of(path) for path in paths]
    known = [row for row, name in enumerate(ids) if name in there]
    new = [row for row, name in enumerate(ids) if name not in there]
    set_everywhere(fitted, {"verbose": int(show_progress())})
    if new:
        put = _put(gallery.add, new, paths, ids, metadata)
        new = [row for row in put if ids[row] in gallery]  # an encoder may have left some out by itself
    if known and update:
        known = _put(gallery.update, known, paths, ids, metadata)
    if new or (known and update):
        gallery.save(stored.gallery_path)
        stored.update(gallery=len(gallery))
    untouched = "" if not known else f", {len(known):,} {'looked at again' if update else 'there already'}"
    say(f"{len(new):,} added{untouched}; {len(gallery):,} pictures in {model}")


@click.command(cls=Verb, short_help="Take pictures out of it.")
@click.argument("model", type=click.Path())
@click.argument("pictures", nargs=-1)
@click.option("--missing", is_flag=True, help="Remove all whose files are not there any more.")
def remove(model: str, pictures: tuple[str, ...], missing: bool) -> None:
    """Take pictures out of the gallery of a model: by their paths, or all below a folder. No file is deleted.

    \b
    Examples:
      sklearn-mm remove photos.model photos/blurred.jpg
      sklearn-mm remove photos.model photos/2019
      sklearn-mm remove photos.model --missing
    """
    if bool(pictures) == missing:
        raise click.UsageError("give either pictures or --missing")
    stored = StoredModel(model)
    stored.require("search", "remove")
    gallery = stored.load_gallery(stored.load())
    if missing:
        if not stored.root.is_dir():
            raise CommandError(f"the folder of the pictures is not there: {stored.root}")
        gone = [name for name in gallery.ids if not (stored.root / name).is_file()]
    else:
        gone = list(dict.fromkeys(name for given in pictures for name in _named(given, gallery.ids, stored)))
    if gone:
        gallery.remove(gone)
        gallery.save(stored.gallery_path)
        stored.update(gallery=len(gallery))
    say(f"{len(gone):,} removed; {len(gallery):,} pictures in {model}")


def _put(change: Any, rows: list[int], paths: list[Path], ids: list[str], metadata: Any) -> list[int]:
    """Add or update some of the pictures; return the rows of those that could be read."""
    from sklearn_mm.exceptions import ImageReadError

    def put() -> None:
        own = take_metadata(metadata, rows)
        change([str(paths[row]) for row in rows], ids=[ids[row] for row in rows], metadata=own)

    try:
        put()
    except ImageReadError:
        # All are decoded once more, but only where one is bad.
        readable, dropped = drop_unreadable([paths[row] for row in rows])
        tell_dropped(dropped)
        kept = set(readable)
        rows = [row for row in rows if paths[row] in kept]
        if rows:
            put()
    return rows


def _named(given: str, ids: list[str], stored: StoredModel) -> list[str]:
    """Return the ids that a name on the command line means."""
    known = set(ids)
    own = stored.id_of(Path(given))
    for name in (given, own):
        if name in known:
            return [name]
        below = [each for each in ids if each.startswith(name.rstrip("/") + "/")]
        if below:
            return below
    if stored.root == Path(given).absolute():
        return list(ids)
    from sklearn_mm._checks import did_you_mean

    near = given if Path(own).is_absolute() else own
    raise CommandError(f"{given} is not in the gallery; {did_you_mean(near, ids[:2000])}")
