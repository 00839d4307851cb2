"""Pictures with their texts and labels, from the arguments of a command."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sklearn_mm._picture_files import names_picture
from sklearn_mm.cli._errors import CommandError, tell
from sklearn_mm.cli._options import is_quiet, say

__all__ = [
    "as_input",
    "drop_unreadable",
    "find_pictures",
    "is_picture_name",
    "load_data",
    "read_in_chunks",
    "show_progress",
    "take_metadata",
    "take_rows",
    "tell_dropped",
]

_CHUNK = 256  # pictures whose results are made at once
_LISTED = 5  # of what was left out
_OPTIONS = {"image": "--image-column", "text": "--text-column", "labels": "--label-column"}
_COUNTED = {"captions": "captions", "target": "labels"}
_BY_PICTURE = ("images", "captions", "target", "ids", "split", "tags")


def load_data(
    folder: str,
    table: str | None,
    *,
    image_column: str | None = None,
    text_column: tuple[str, ...] = (),
    label_column: tuple[str, ...] = (),
    sep: str = "auto",
    pictures_alone: bool = False,
) -> Any:
    """Read a folder and its table, and say what was found there; of `pictures_alone` all columns are metadata."""
    from sklearn_mm.datasets import load_folder

    unnamed = False if pictures_alone else None  # False: none of that kind
    try:
        data = load_folder(
            folder,
            table,
            image=image_column,
            text=list(text_column) or unnamed,
            labels=list(label_column) or unnamed,
            sep=sep,
            verbose=int(show_progress()),
        )
    except (ValueError, OSError) as error:
        if any(f"{name}=" in str(error) for name in _OPTIONS):
            told = ", ".join(f"{name}= is {option}" for name, option in _OPTIONS.items())
            raise CommandError(f"{error} (on the command line {told})") from error
        raise
    parts = [f"{len(data.images):,} pictures"]
    parts += [f"{sum(map(len, data[key])):,} {word}" for key, word in _COUNTED.items() if data.get(key) is not None]
    roles = [f"{role} from {_named(column)}" for role, column in (data.get("columns") or {}).items() if column]
    # With its bar the function says itself which columns it has taken.
    roles = [] if show_progress() else roles
    say(f"{', '.join(parts)} in {folder}" + (f" ({', '.join(roles)})" if roles else ""))
    return data


def _named(column: str | Sequence[str]) -> str:
    return repr(column) if isinstance(column, str) else ", ".join(map(repr, column))


def take_rows(data: Any, rows: Sequence[int]) -> Any:
    """Return the data of some pictures."""
    kept = type(data)(**data)
    for name in _BY_PICTURE:
        if data.get(name) is not None:
            kept[name] = [data[name][row] for row in rows]
    kept.metadata = take_metadata(data.get("metadata"), rows)
    return kept


def take_metadata(metadata: Any, rows: Sequence[int]) -> Any:
    """Return the metadata of some pictures; None where there is none."""
    if metadata is None:
        return None
    if isinstance(metadata, dict):  # without pandas
        return {name: [column[row] for row in rows] for name, column in metadata.items()}
    return metadata.iloc[list(rows)].reset_index(drop=True)


def as_input(model: Any, paths: Sequence[str]) -> Any:
    """Return pictures as a model takes them: a pipeline of columns takes a frame."""
    if not (hasattr(model, "steps") and hasattr(model[0], "transformers")):
        return paths
    import pandas

    return pandas.DataFrame({"image": list(paths)})


def find_pictures(given: Sequence[str]) -> list[Path]:
    """Return the pictures among files and below folders, sorted within each."""
    found: list[Path] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if names_picture(file.name) and file.is_file())
            if not below:
                raise CommandError(f"{path}: there are no pictures in this folder")
            found += below
        elif path.is_file():
            found.append(path)
        else:
            raise CommandError(f"{path}: there is no such file or folder")
    return list(dict.fromkeys(found))


def is_picture_name(text: str) -> bool:
    """Whether a text can only be meant for a picture: a file that is there, or a name with the ending of one."""
    path = Path(text)
    return names_picture(text) or (len(text) < 1024 and path.is_file())


def read_in_chunks(
    pictures: Sequence[Path], compute: Callable[[list[str]], Sequence[Any]], title: str
) -> Iterator[tuple[Path, Any]]:
    """Yield each picture that can be read with what is computed of it; tell of the others."""
    from tqdm import tqdm

    from sklearn_mm.exceptions import ImageReadError

    dropped: list[tuple[str, str]] = []
    with tqdm(total=len(pictures), desc=title, unit="picture", disable=not show_progress()) as bar:
        for start in range(0, len(pictures), _CHUNK):
            chunk = list(pictures[start : start + _CHUNK])
            try:
                computed = compute([str(path) for path in chunk])
            except ImageReadError:
                chunk, failures = drop_unreadable(chunk)
                dropped += failures
                computed = compute([str(path) for path in chunk]) if chunk else []
            yield from zip(chunk, computed, strict=True)
            bar.update(min(_CHUNK, len(pictures) - start))
    tell_dropped(dropped)
    if len(dropped) == len(pictures):
        raise CommandError("none of the pictures can be read")


def drop_unreadable(pictures: Sequence[Path]) -> tuple[list[Path], list[tuple[str, str]]]:
    """Return the pictures that can be read, and the others with the reasons."""
    from sklearn_mm.features import find_unreadable

    failures = find_unreadable([str(path) for path in pictures])
    rows = {failure.row for failure in failures}
    readable = [path for row, path in enumerate(pictures) if row not in rows]
    return readable, [(str(pictures[failure.row]), failure.reason) for failure in failures]


def show_progress() -> bool:
    """Whether to show a bar: where somebody looks at it."""
    import sys

    return sys.stderr.isatty() and not is_quiet()


def tell_dropped(dropped: Sequence[tuple[Any, str]]) -> None:
    """Warn of pictures that are left out."""
    if not dropped:
        return
    lines = [f"  {path}: {reason}" for path, reason in dropped[:_LISTED]]
    more = [f"  and {len(dropped) - _LISTED:,} more"] if len(dropped) > _LISTED else []
    tell("\n".join([f"{len(dropped):,} left out:", *lines, *more]), "warning")
