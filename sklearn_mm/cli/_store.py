"""What `fit` writes: a folder with a model, the gallery of its pictures, and what is known of both."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklearn_mm._version import __version__
from sklearn_mm.cli._errors import CommandError
from sklearn_mm.cli._files import check_free, new_file

if TYPE_CHECKING:
    from sklearn_mm.retrieval import Gallery

__all__ = ["GALLERY", "MODEL", "StoredModel", "check_model_output", "describe_root", "write_about"]

ABOUT, MODEL, GALLERY = "sklearn-mm.json", "model", "gallery"
_FORMAT, _FORMAT_VERSION = "sklearn_mm.cli", 1
_SAVED = "config.json"  # of a folder of `sklearn_mm.persistence.save`


class StoredModel:
    """A model as it lies on disk.

    Parameters
    ----------
    path : str or Path
        A folder that `fit` wrote, or one of `sklearn_mm.persistence.save`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.is_bare = (self.path / _SAVED).is_file() and not (self.path / ABOUT).is_file()
        self.about: dict[str, Any] = {} if self.is_bare else _read_about(self.path)

    @property
    def task(self) -> str | None:
        """What the model does, "search" or "annotate"; None, if that stands nowhere."""
        return self.about.get("task")

    def load(self) -> Any:
        """Open the model."""
        from sklearn_mm.persistence import load

        return load(self.path if self.is_bare else self.path / MODEL)

    def require(self, task: str, verb: str) -> None:
        """Refuse a model of another task."""
        if self.task not in (task, None):
            other = {"search": "searches pictures by sentences", "annotate": "labels pictures"}[str(self.task)]
            raise CommandError(f"{self.path} {other}; `{verb}` needs a model that was fitted to {task}")

    @property
    def gallery_path(self) -> Path:
        """Where its gallery is."""
        return self.path / GALLERY

    def load_gallery(self, model: Any) -> "Gallery":
        """Open its gallery."""
        from sklearn_mm.retrieval import Gallery

        if self.is_bare:
            raise CommandError(f"{self.path} has no gallery: it was saved by itself, and not by `fit`")
        return Gallery.load(self.gallery_path, model)

    @property
    def root(self) -> Path:
        """The folder that ids are relative to: where it was, or where it is now beside the model."""
        here = self.about.get("root", {})
        absolute = Path(here.get("absolute", ""))
        beside = self.path.absolute().parent / here.get("relative", "")
        return beside if not absolute.is_dir() and beside.is_dir() else absolute

    def id_of(self, path: Path) -> str:
        """Return the id of a picture: its path from the root, with slashes; in full, where it is not below."""
        whole = Path(os.path.abspath(path))  # noqa: PTH100  which takes out ".." without following links
        return whole.relative_to(self.root).as_posix() if whole.is_relative_to(self.root) else whole.as_posix()

    def path_of(self, identity: str) -> str:
        """Return the path of a picture as it is shortest from here."""
        path = self.root / identity
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

    def update(self, **changed: Any) -> None:
        """Note what has changed."""
        self.about |= changed
        write_about(self.path, self.about)


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write what is known of a model."""
    header = {"format": _FORMAT, "format_version": _FORMAT_VERSION, "sklearn_mm": __version__}
    with new_file(folder / ABOUT) as made:
        made.write_text(json.dumps({**header, **about}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def describe_root(folder: Path, model: Path) -> dict[str, str]:
    """Return what `StoredModel.root` is found by: where the pictures are, and where that is beside the model."""
    whole = os.path.abspath(folder)  # noqa: PTH100  as above
    return {"absolute": whole, "relative": os.path.relpath(whole, model.absolute().parent)}


def check_model_output(path: Path, force: bool) -> None:
    """Ask whether a model may be written there; to be called before it is fitted."""
    if path.is_dir() and any(path.iterdir()) and not (path / ABOUT).is_file():
        raise CommandError(f"{path} is a folder that holds no model of this program; name another with -o")
    if path.is_file():
        raise CommandError(f"{path} is a file, and a model is a folder; name another with -o")
    check_free(path, force)


def _read_about(path: Path) -> dict[str, Any]:
    file = path / ABOUT
    if path.is_file():
        raise CommandError(
            f"{path} is a file; a model is the folder that `sklearn-mm fit` or sklearn_mm.persistence.save wrote "
            "(what joblib wrote is opened by joblib.load, in Python)"
        )
    if not path.exists():
        raise CommandError(f"there is no model at {path}; `sklearn-mm fit FOLDER TABLE -o {path}` makes one")
    if not file.is_file():
        raise CommandError(f"{path} holds no model: {ABOUT} is missing; is this the folder that `fit -o` wrote?")
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CommandError(f"{file} is no valid JSON: {error}") from error
    if not isinstance(about, dict) or about.get("format") != _FORMAT:
        raise CommandError(f"{file} was not written by `sklearn-mm fit`")
    if about.get("format_version", 0) > _FORMAT_VERSION:
        raise CommandError(
            f"{file} is of format {about['format_version']}, this sklearn_mm reads up to {_FORMAT_VERSION}; open it "
            f"with sklearn_mm {about.get('sklearn_mm')}, which wrote it"
        )
    return about
