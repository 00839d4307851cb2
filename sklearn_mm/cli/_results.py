"""Results as files, as JSON, as a table."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from sklearn_mm.cli._errors import CommandError
from sklearn_mm.cli._files import check_free, new_file
from sklearn_mm.cli._options import say

__all__ = ["Rows", "check_output", "show_table", "write_json", "write_rows"]

Rows = Sequence[Mapping[str, Any]]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_ENDINGS = (*_DELIMITERS, ".json", ".jsonl", ".parquet")


def check_output(output: str | None, force: bool) -> Path | None:
    """Return the file that results go to, if there is to be one; before any long work."""
    if output is None:
        return None
    path = Path(output)
    if path.suffix.lower() not in _ENDINGS:
        raise CommandError(f"{path}: expected a name that ends with one of {', '.join(_ENDINGS)}")
    if path.is_dir():
        raise CommandError(f"{path} is a folder; results go to a file")
    if path.suffix.lower() == ".parquet":
        _pyarrow()
    check_free(path, force)
    return path


def write_rows(rows: Rows, path: Path) -> None:
    """Write rows to a file, as its ending says; there it is whole or not at all."""
    ending = path.suffix.lower()
    with new_file(path) as made:
        if ending == ".parquet":
            pyarrow = _pyarrow()
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist([_plain(row) for row in rows]), made)
        elif ending == ".json":
            made.write_text(_json(list(rows), indent=1) + "\n", encoding="utf-8")
        elif ending == ".jsonl":
            with made.open("w", encoding="utf-8") as file:
                file.writelines(_json(row) + "\n" for row in rows)
        else:
            with made.open("w", encoding="utf-8", newline="") as file:
                _write_table(rows, file, _DELIMITERS[ending])
    say(f"{len(rows):,} rows in {path}")


def write_json(thing: Any) -> None:
    """Write JSON to stdout."""
    click.echo(_json(thing, indent=1))


def show_table(rows: Rows, columns: Sequence[str] | None = None) -> None:
    """Write a table to stdout: one for the eye on a terminal, and otherwise one that programs read."""
    if not sys.stdout.isatty():
        _write_table(rows, sys.stdout, "\t", columns)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    names = _names(rows) if columns is None else columns
    for name in names:
        numeric = any(isinstance(row.get(name), (int, float)) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_escaped(_cell(row.get(name))) for name in names))
    Console().print(table)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _write_table(rows: Rows, file: Any, delimiter: str, columns: Sequence[str] | None = None) -> None:
    names = _names(rows) if columns is None else columns
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)


def _names(rows: Rows) -> list[str]:
    """Return the columns, in the order in which they appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(value: Any) -> str:
    value = _value(value)
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _json(thing: Any, indent: int | None = None) -> str:
    return json.dumps(_value(thing), ensure_ascii=False, indent=indent)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    """Return what JSON can hold: numbers of numpy and paths are plain, NaN is null."""
    if isinstance(value, Mapping):
        return {str(name): _value(item) for name, item in value.items()}
    if hasattr(value, "tolist"):  # a number or an array of numpy
        value = value.tolist()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Iterable):
        return [_value(item) for item in value]
    return str(value)  # a date


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise CommandError("Parquet needs pyarrow: pip install pyarrow; or name a .csv or .jsonl") from error
    return pyarrow
