"""Folders that hold an index: what it is, as JSON, beside its vectors."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["read_facts", "write_folder"]

_FACTS = "index.json"
_FORMAT = "sklearn_mm.index"
_VERSION = 1


def write_folder(path: Any, kind: str, facts: dict[str, Any], write: Callable[[Path], None]) -> None:
    """Make a folder of `facts` and what `write` puts into it; it appears whole, or not at all.

    An index that was saved there before is replaced, anything else is not.
    """
    folder = Path(path)
    if folder.exists() and not (folder / _FACTS).is_file():
        raise FileExistsError(f"{folder} is there and holds no saved index; remove it, or save to another folder")
    unfinished = folder.with_name(f"{folder.name}.unfinished-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        write(unfinished)
        whole = {"format": _FORMAT, "version": _VERSION, "kind": kind, **facts}
        (unfinished / _FACTS).write_text(json.dumps(whole, indent=1), encoding="utf-8")
        replaced = folder.with_name(f"{folder.name}.replaced-{os.getpid()}")
        if folder.exists():
            folder.rename(replaced)  # who has it mapped into memory goes on with it
        unfinished.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)  # the disk may be full
        raise


def read_facts(path: Any, kind: str) -> tuple[Path, dict[str, Any]]:
    """Return the folder and what it says about an index of that kind."""
    folder = Path(path)
    if not (folder / _FACTS).is_file():
        raise FileNotFoundError(f"{folder} is no folder written by {kind}.save: it has no {_FACTS}")
    facts: dict[str, Any] = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    if facts.get("format") != _FORMAT or facts.get("version") != _VERSION:
        raise ValueError(
            f"{folder} holds an index of format {facts.get('format')!r}, version {facts.get('version')!r}; this "
            f"version of sklearn_mm reads {_FORMAT!r}, version {_VERSION}"
        )
    if facts["kind"] != kind:
        raise ValueError(f"{folder} holds a {facts['kind']}, not a {kind}; load it by {facts['kind']}.load")
    return folder, facts
