"""Galleries in folders: a small file says what is in them, and is replaced last, in one step.

``gallery.json`` names a folder beside it, the generation, which holds ``vectors`` (an `ExactIndex`), ``items.parquet``
(id and path) and ``metadata.parquet``. A generation is written once and never changed. Whoever is interrupted leaves
the old one in force.
"""

import json
import os
import shutil
import time
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import numpy as np

from sklearn_mm._params import check_path
from sklearn_mm._version import __version__
from sklearn_mm.index import ExactIndex
from sklearn_mm.registry import find
from sklearn_mm.retrieval._cutoff import Cutoff
from sklearn_mm.retrieval.gallery._items import Items
from sklearn_mm.retrieval.gallery._vectors import Vectors

__all__ = ["read_facts", "read_gallery", "write_gallery"]

_FACTS, _FORMAT, _VERSION = "gallery.json", "sklearn_mm.gallery", 1
_GENERATION = "generation-"
_VECTORS, _ITEMS, _METADATA, _INDEX = "vectors", "items.parquet", "metadata.parquet", "index"
_BANK, _MARGINS = "cutoff_bank.npy", "cutoff_margins.npy"
_ABANDONED_S = 3600  # a generation of nobody that is older was left by a process that was killed


def write_gallery(path: Any, vectors: Vectors, items: Items, cutoff: Cutoff | None, facts: dict[str, Any]) -> None:
    """Write a gallery into a folder, where it replaces one that is there, or into a new one.

    Raises
    ------
    FileExistsError
        There is something else.
    ImportError
        pyarrow is not installed.
    ValueError
        A column of the metadata holds what Parquet cannot.
    """
    check_path(path, "folder")
    folder = Path(path)
    _import_pyarrow()  # before anything is made
    if folder.exists() and not (folder / _FACTS).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there and holds no gallery; remove it, or save to another folder")
    before = _generation_of(folder)
    generation = folder / f"{_GENERATION}{uuid4().hex[:12]}"
    unfinished = folder / f"{_FACTS}.{generation.name}"
    generation.mkdir(parents=True)
    try:
        _write_items(generation, items)
        index = None
        if len(items):
            vectors.exact.save(generation / _VECTORS)
            index = vectors.save_other(generation / _INDEX)
        if cutoff is not None:
            np.save(generation / _BANK, cutoff.bank)
            np.save(generation / _MARGINS, cutoff.margins)
        sizes = {
            each.relative_to(generation).as_posix(): each.stat().st_size
            for each in sorted(generation.rglob("*"))
            if each.is_file()
        }
        whole = {
            "format": _FORMAT,
            "version": _VERSION,
            "sklearn_mm": __version__,
            "generation": generation.name,
            "n_items": len(items),
            "dtypes": {name: column.dtype.str for name, column in items.columns.items()},
            "index": index,
            "cutoff": None if cutoff is None else cutoff.to_facts(),
            "files": sizes,
            **facts,
        }
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump(whole, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(folder / _FACTS)
    except BaseException:
        shutil.rmtree(generation, ignore_errors=True)  # the disk may be full
        unfinished.unlink(missing_ok=True)
        raise
    _clean(folder, generation.name, before)


def _generation_of(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / _FACTS).read_text(encoding="utf-8"))["generation"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or one that is damaged and now replaced


def _clean(folder: Path, current: str, before: str | None) -> None:
    """Remove what was in force before, which who has it mapped into memory goes on with, and what nobody finished."""
    for each in folder.glob(f"*{_GENERATION}*"):
        if each.name == current:
            continue
        try:
            if each.name == before or time.time() - each.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(each) if each.is_dir() else each.unlink()
        except OSError:
            continue  # mapped into memory, where a system keeps such files: the next save removes it


def read_facts(path: Any) -> dict[str, Any]:
    """Return what a folder says about its gallery.

    Raises
    ------
    FileNotFoundError
        There is no gallery.
    ValueError
        It is damaged, or of a later format.
    """
    check_path(path, "folder")
    file = Path(path) / _FACTS
    if not file.is_file():
        what = "there is no such folder" if not Path(path).exists() else f"it has no {_FACTS}"
        raise FileNotFoundError(f"{path} holds no gallery written by Gallery.save: {what}")
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind, version = facts["format"], facts["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged, or of no gallery: {error!r}; save the gallery again") from error
    if kind != _FORMAT or version > _VERSION:
        raise ValueError(
            f"{path} holds a {kind!r} of version {version}; this version of sklearn_mm reads {_FORMAT!r} up to version "
            f"{_VERSION}: open it with sklearn_mm {facts.get('sklearn_mm', 'that wrote it')} or a later one"
        )
    return facts


def read_gallery(
    path: Any, facts: dict[str, Any], *, mmap: bool
) -> tuple[Items, ExactIndex | None, Any, Cutoff | None]:
    """Return names and metadata, the vectors, an index beside them that was saved with them, and the cutoff.

    Raises
    ------
    ValueError
        A file is missing or of another size than when it was written.
    ImportError
        pyarrow is not installed.
    """
    generation = Path(path) / facts["generation"]
    for name, size in facts["files"].items():
        file = generation / name
        if not file.is_file() or file.stat().st_size != size:
            raise ValueError(
                f"{file} is missing or damaged: expected {size} bytes, got "
                f"{file.stat().st_size if file.is_file() else 'no file'}; copy the whole folder again, or make the "
                "gallery anew"
            )
    items = _read_items(generation, facts)
    cutoff = None
    if facts["cutoff"] is not None:
        bank, margins = (np.load(generation / name, allow_pickle=False) for name in (_BANK, _MARGINS))
        cutoff = Cutoff(bank, margins, **facts["cutoff"])
    if not facts["n_items"]:
        return items, None, None, cutoff
    exact = ExactIndex.load(generation / _VECTORS, mmap=mmap)
    other = None
    if facts["index"] is not None:
        kind: Any = find(facts["index"])
        other = kind.load(generation / _INDEX, mmap=False)  # so that more can be added
    return items, exact, other, cutoff


def _write_items(folder: Path, items: Items) -> None:
    pyarrow, parquet = _import_pyarrow()
    columns = {"id": pyarrow.array(items.ids, pyarrow.int64() if _are_int(items.ids) else pyarrow.string())}
    if items.paths != items.ids:
        columns["path"] = pyarrow.array(items.paths, pyarrow.string())
    parquet.write_table(pyarrow.table(columns), folder / _ITEMS)
    metadata = {}
    for name, column in items.columns.items():
        try:
            metadata[name] = pyarrow.array(column.tolist() if column.dtype == object else column)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError) as error:
            raise ValueError(
                f"the column {name!r} of the metadata holds what Parquet cannot: {error}; make its entries of one type"
            ) from error
    # a table without columns has no rows
    if metadata:
        parquet.write_table(pyarrow.table(metadata), folder / _METADATA)


def _read_items(folder: Path, facts: dict[str, Any]) -> Items:
    _, parquet = _import_pyarrow()
    table = parquet.read_table(folder / _ITEMS)
    ids = table.column("id").to_pylist()
    paths = table.column("path").to_pylist() if "path" in table.column_names else list(ids)
    columns = {}
    if facts["dtypes"]:
        metadata = parquet.read_table(folder / _METADATA)
        for name, dtype in facts["dtypes"].items():
            column = metadata.column(name)
            if dtype == "|O":
                columns[name] = np.empty(len(ids), dtype=object)
                columns[name][:] = column.to_pylist()
            else:
                columns[name] = np.array(column.to_numpy(), dtype=dtype)
    items = Items()
    items.add(ids, paths, columns)
    return items


def _are_int(ids: list[Any]) -> bool:
    return bool(ids) and isinstance(ids[0], int)


def _import_pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "a gallery is saved with its names in Parquet, which needs pyarrow: pip install 'sklearn-mm[gallery]'"
        ) from error
    return pyarrow, pyarrow.parquet
