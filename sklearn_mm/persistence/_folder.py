"""A fitted estimator as a folder of two files: JSON for the structure, safetensors for the numbers."""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sklearn.base import BaseEstimator
from torch import Tensor
from torch import distributed as dist

from sklearn_mm._params import check_path
from sklearn_mm._version import __version__
from sklearn_mm.persistence._arrays import ARRAY_CODECS
from sklearn_mm.persistence._codec import MalformedError, Reader, ScriptCodeError, Writer
from sklearn_mm.persistence._objects import OBJECT_CODECS
from sklearn_mm.persistence._pickle import torch_version
from sklearn_mm.persistence._values import VALUE_CODECS
from sklearn_mm.registry import FORMAT_VERSION

__all__ = ["load", "save"]

_FORMAT = "sklearn_mm.persistence"
_READABLE = tuple(range(1, FORMAT_VERSION + 1))
_CONFIG, _TENSORS = "config.json", "model.safetensors"
_ROOT = "model"
_DEBRIS = frozenset({".DS_Store", ".directory", ".localized", "Thumbs.db", "desktop.ini"})
_CODECS = (*VALUE_CODECS, *ARRAY_CODECS, *OBJECT_CODECS)


def save(estimator: BaseEstimator, path: str | os.PathLike[str]) -> None:
    """Save an estimator as a folder with nothing executable in it.

    Parameters
    ----------
    estimator : estimator
        One of this library or of scikit-learn, fitted or not, with all that is nested in it: a `Pipeline`, a
        `FeatureUnion`, a `ColumnTransformer`, a ranker with its encoders.
    path : str or path-like
        The folder. It is made, or replaced if it holds a model that was saved before.

    Raises
    ------
    TypeError
        Something in the estimator is code or of a foreign class; the message names the attribute.
    FileExistsError
        The path leads to a file, to a folder that holds more than a saved model, or to the working directory.
    ValueError
        The path is empty.

    See Also
    --------
    load : Opens the folder.
    joblib.dump : Saves estimators of any class, in a format that runs code when opened.

    Notes
    -----
    **Files.** ``model.safetensors`` holds arrays, sparse matrices' parts and network weights, each under the place
    where it stands in the estimator. ``config.json`` holds everything else as text to be read: ``format``,
    ``format_version``, the ``versions`` that saved it, and under ``model`` the estimator. JSON's own values stand for
    themselves; anything else is an object of one key:

    - ``$estimator``: a class and the state that its pickle would hold; ``$module``: a network of `sklearn_mm.nn`, its
      constructor's arguments and its tensors; ``$record``: a dataclass of this library and its fields;
    - ``$array``, ``$sparse``, ``$tensor``, ``$scalar``, ``$dtype``, ``$numpy_type``, ``$torch_dtype``, ``$device``,
      ``$random_state``, ``$generator``: what numpy, scipy and torch add;
    - ``$tuple``, ``$set``, ``$frozenset``, ``$dict`` (keys that are no str), ``$bunch``, ``$float`` (NaN and
      infinities), ``$complex``, ``$bytes``, ``$path``, ``$slice``, ``$range``, ``$type``.

    **Names.** An estimator's class has its public name. Networks and dataclasses have names of this library's registry
    ("sklearn_mm.nn.TextCNN"), which no later version changes, wherever the class itself moves. The ``format_version``
    is 2 now; `load` opens folders of format 1 too, whose names were those of the files that the classes were in.

    **Not held** are functions (an `analyzer` of one's own), estimators of other packages, networks that are no part of
    this library, compiled objects (the trees of a random forest), and a search with its scorers (its
    ``best_estimator_`` is held). `joblib.dump` takes them all.

    Where several processes train together (see :doc:`/several_processes`), the first one writes; the others return at
    once.

    An object that stands in two places becomes two; arrays stay one. The new folder is written beside the old one
    and then renamed, so an interrupted `save` leaves no half-written model.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn_mm.persistence import load, save
    >>> captions = ["a red square", "two blue dots"]
    >>> vectorizer = TfidfVectorizer().fit(captions)
    >>> with TemporaryDirectory() as folder:
    ...     save(vectorizer, Path(folder) / "model")
    ...     files = sorted(file.name for file in (Path(folder) / "model").iterdir())
    ...     opened = load(Path(folder) / "model")
    >>> files
    ['config.json', 'model.safetensors']
    >>> abs(opened.transform(captions) - vectorizer.transform(captions)).max()
    np.float64(0.0)
    """
    if not isinstance(estimator, BaseEstimator) or isinstance(estimator, type):
        raise TypeError(f"expected an estimator to save, got {type(estimator).__name__}")
    check_path(path, "path")
    if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
        return  # they have the same model, and would write to the same place
    # Links are followed first: renaming would replace the link, and not the folder it leads to.
    folder = Path(path).resolve()
    _check_replaceable(folder)
    writer = Writer(_CODECS)
    try:
        model = writer.encode(estimator, _ROOT)
    except TypeError as error:
        way_out = "Use joblib.dump, whose files run code when opened, or leave that part out."
        if isinstance(error, ScriptCodeError):
            way_out = "joblib.dump takes it then, whose files run code when opened."
        if hasattr(estimator, "best_estimator_"):
            way_out = "Save its best_estimator_, which answers the same; joblib.dump takes the search as a whole."
        raise TypeError(f"cannot save this {type(estimator).__name__} as data: {error}. {way_out}") from error
    config = {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {
            "sklearn_mm": __version__,
            "scikit-learn": sklearn.__version__,
            "torch": torch_version(),
            "numpy": np.__version__,
        },
        _ROOT: model,
    }
    # NaN and infinities have a tag of their own, as they are no JSON. surrogatepass below: names of files may hold
    # bytes that are no text.
    _write(folder, json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False), writer.tensors)


def load(path: str | os.PathLike[str]) -> Any:
    """Open an estimator that `save` wrote; nothing in the folder is executed.

    Parameters
    ----------
    path : str or path-like
        The folder.

    Returns
    -------
    estimator
        Its predictions are those of the estimator saved.

    Raises
    ------
    FileNotFoundError
        There is no such folder, or one of its two files is missing.
    ValueError
        A file is damaged, was written by a later format, or names a class that is no estimator or network of
        scikit-learn and this library; the message names the place.

    Warns
    -----
    VersionMismatchWarning
        Another version of this library or of torch saved it.

    See Also
    --------
    save : Writes the folder, and describes the format.

    Notes
    -----
    Classes are looked up by name among the public estimators of scikit-learn and the estimators, networks and
    dataclasses in this library's registry; no other is ever imported. Parameters are data as well, but take effect when
    the estimator is used: look at paths among them (a `cache`, a `memory`) before you fit a model that comes from
    strangers.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_mm.persistence import load, save
    >>> with TemporaryDirectory() as folder:
    ...     save(StandardScaler().fit([[0.0], [2.0]]), Path(folder) / "model")
    ...     load(Path(folder) / "model").mean_
    array([1.])
    """
    check_path(path, "path")
    folder = Path(path)
    config, tensors = _read(folder)
    file_bytes = sum((folder / name).stat().st_size for name in (_CONFIG, _TENSORS))
    reader = Reader(_CODECS, tensors, config["format_version"], file_bytes)
    try:
        estimator = reader.decode(config[_ROOT], _ROOT)
    except MalformedError as error:
        raise ValueError(f"{folder / _CONFIG}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{folder / _CONFIG} is nested too deeply") from error
    if not isinstance(estimator, BaseEstimator):
        raise ValueError(f"{folder / _CONFIG} holds no estimator")
    # A tensor too much means that the two files do not belong together, or that one was changed.
    if reader.unused:
        raise ValueError(f"{folder / _TENSORS} holds tensors that are no part of the model: {reader.unused[0]!r}")
    return estimator


def _check_replaceable(folder: Path) -> None:
    if folder == Path.cwd():
        raise FileExistsError(
            f"{folder} is the working directory, which cannot be replaced by a model; save to a folder in it"
        )
    if folder.is_dir():
        foreign = sorted(file.name for file in folder.iterdir() if not _is_ours(file))
        if foreign:
            raise FileExistsError(f"{folder} holds more than a saved model ({foreign[0]!r}); save to another folder")
    elif folder.exists():
        raise FileExistsError(f"{folder} is a file; a model is saved as a folder of two files")


def _is_ours(file: Path) -> bool:
    """Whether a file is one of a saved model's, or what a system's file manager leaves in any folder it shows."""
    return file.name in (_CONFIG, _TENSORS) or (
        (file.name in _DEBRIS or file.name.startswith("._")) and file.is_file() and not file.is_symlink()
    )


def _write(folder: Path, config: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a folder beside the one it replaces, then rename."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:12]
    # Beside it, as a rename is atomic within one file system only; a name of its own, as two processes may save at
    # once.
    new, old = (folder.with_name(f".{folder.name}.{mark}.{what}") for what in ("new", "old"))
    new.mkdir()
    try:
        save_file(dict(tensors), new / _TENSORS, metadata={"format": "pt"})
        (new / _CONFIG).write_bytes(config.encode("utf-8", "surrogatepass"))
        (new / _TENSORS).chmod((new / _CONFIG).stat().st_mode)  # safetensors makes a file that only its owner may read
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    # An interrupt from the keyboard is no Exception.
    except BaseException:
        if old.exists():
            old.rename(folder)
        shutil.rmtree(new, ignore_errors=True)
        raise
    if old.exists():
        shutil.rmtree(old)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read both files, and check that they are what they should be."""
    if folder.is_file():
        raise ValueError(f"{folder} is a file, not a folder written by save; joblib.load opens what joblib.dump wrote")
    for file in (folder / _CONFIG, folder / _TENSORS):
        if not file.is_file():
            raise FileNotFoundError(f"no saved model at {folder}: {file.name} is missing")
    try:
        # parse_constant, as Python's json reads NaN and Infinity by default.
        config = json.loads((folder / _CONFIG).read_bytes().decode("utf-8", "surrogatepass"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / _CONFIG} is no valid JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != _FORMAT or _ROOT not in config:
        raise ValueError(f"{folder / _CONFIG} was not written by sklearn_mm.persistence.save")
    if config.get("format_version") not in _READABLE:
        raise ValueError(
            f"{folder / _CONFIG} is of format {config.get('format_version')!r}, this version of sklearn_mm reads "
            f"{' and '.join(map(str, _READABLE))}; open it with the sklearn_mm that saved it: {config.get('versions')}"
        )
    try:
        with safe_open(folder / _TENSORS, framework="pt") as file:
            return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{folder / _TENSORS} is no valid safetensors file: {error}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
