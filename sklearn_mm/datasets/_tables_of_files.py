"""Tables of pictures as people keep them: CSV, JSON in several forms, Parquet, frames; all become columns by name."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn_mm._picture_files import names_picture
from sklearn_mm._tables import frame_column, frame_names, is_frame, is_missing, to_list
from sklearn_mm.datasets._files import load_json, read_lines

__all__ = ["Table", "read_table_file", "table_of"]

_DELIMITERS = (",", "\t", ";", "|")
_UNQUOTED = ("\t", "|")  # tables with these are often written without a thought of quotes
_FORMATS = "CSV, TSV, JSONL, Parquet, or JSON of COCO or Karpathy"


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes
    ----------
    columns : dict of str to list
        What stands in each row; None where there is nothing.
    name : str
        What a message calls it.
    n_rows : int
    lines : list of int or None
        The line of each row, in a file of lines.
    """

    columns: dict[str, list[Any]]
    name: str
    n_rows: int
    lines: list[int] | None = None

    def where(self, row: int) -> str:
        """Return the place of a row, for a message."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"


def table_of(table: Any, is_text: Any) -> Table:
    """Read a table: a path or a frame.

    Parameters
    ----------
    table : path or frame of pandas, polars or pyarrow
    is_text : callable
        Whether a column of this name holds texts: in the last one they may have delimiters that nobody quoted.
    """
    if isinstance(table, str | os.PathLike):
        return read_table_file(Path(table), is_text)
    if not is_frame(table):
        raise TypeError(
            f"expected the table as a path ({_FORMATS}) or as a frame of pandas, polars or pyarrow, got a "
            f"{type(table).__name__}; make a frame of it: pandas.DataFrame(table)"
        )
    names = [str(name) for name in frame_names(table).tolist()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the frame has several columns of the name {twice[0]!r}; rename or drop one")
    columns = {name: _without_missing(to_list(frame_column(table, place))) for place, name in enumerate(names)}
    return Table(columns, "the frame", len(table))


def read_table_file(path: Path, is_text: Any) -> Table:
    """Read a file by what its suffix says it is."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt", ".token"):
        return _read_delimited(path, is_text)
    if suffix in (".jsonl", ".ndjson"):
        return _read_json_lines(path)
    if suffix == ".json":
        return _read_json(path)
    if suffix in (".parquet", ".pq"):
        return _read_parquet(path)
    way_out = "read it by pandas.read_excel and pass the frame" if suffix.startswith(".xls") else "or pass a frame"
    raise ValueError(f"expected a table of {_FORMATS}, got {path.name}; {way_out}")


def _without_missing(cells: Iterable[Any]) -> list[Any]:
    return [None if is_missing(cell) else cell for cell in cells]


# Delimited text ---------------------------------------------------------------------------------------------------


def _read_delimited(path: Path, is_text: Any) -> Table:
    """Read a table of lines; the first names the columns, unless a picture is named in it already."""
    text = _decoded(path)
    header, *_ = text.lstrip("\n").split("\n", 1)
    outside = re.sub(r'"[^"]*"', "", header)  # a quoted name may have delimiters in it
    delimiter = max(_DELIMITERS, key=outside.count)
    rows = _rows_of(text, delimiter, path)
    number, names = next(rows, (1, []))
    names = [name.strip() for name in names]
    if any(names_picture(re.sub(r"#\d+$", "", name)) for name in names):
        rows = _rows_of(text, delimiter, path)
        # of two columns the other is what is said of the picture; of more, nothing tells what they are
        is_pair = len(names) == 2
        names = ["image", "caption"] if is_pair else [f"column {place}" for place in range(len(names))]
    if not any(names):
        raise ValueError(f"{path} is empty; expected names of columns in its first line, such as 'image,caption'")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}, line {number}: several columns have the name {twice[0]!r}; rename one")
    return _columns_of(rows, names, delimiter, is_text(names[-1]), path)


def _columns_of(
    rows: Iterator[tuple[int, list[str]]], names: list[str], delimiter: str, ends_in_text: bool, path: Path
) -> Table:
    columns: dict[str, list[Any]] = {name: [] for name in names}
    lines = []
    for number, cells in rows:
        if len(cells) > len(names) and ends_in_text:  # commas in a caption that nobody quoted
            cells = [*cells[: len(names) - 1], delimiter.join(cells[len(names) - 1 :])]
        if len(cells) != len(names):
            raise ValueError(
                f"{path}, line {number}: expected {len(names)} cells ({delimiter.join(names)}), got {len(cells)}: "
                f'{delimiter.join(cells)!r:.80}; put cells that hold {delimiter!r} between quotes: "..."'
            )
        lines.append(number)
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell.strip() or None)
    return Table(columns, path.name, len(lines), lines)


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # as Excel writes "Unicode text"
    try:
        return raw.decode(encoding).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: byte 0x{raw[error.start]:02x} is no UTF-8; write the file anew as UTF-8, or pass "
            "the frame: pandas.read_csv(path, encoding='latin-1')"
        ) from error


def _rows_of(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line in which a row begins, and its cells; lines of nothing are left out."""
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, strict=True)
    number = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if delimiter not in _UNQUOTED:
                raise ValueError(
                    f"{path}, line {number}: {error}; a quote inside of a cell is written twice, and the cell stands "
                    "between quotes"
                ) from error
            # from here on quotes are signs like others
            for place, line in enumerate(text.split("\n")[number - 1 :], start=number):
                if line.strip():
                    yield place, line.split(delimiter)
            return
        if cells is None:
            return
        if any(map(str.strip, cells)):
            yield number, cells
        number = reader.line_num + 1


# JSON -------------------------------------------------------------------------------------------------------------


def _read_json_lines(path: Path) -> Table:
    records, lines = [], []
    for number, line in read_lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: no JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number}: expected an object, got {line!r:.80}")
        records.append(record)
        lines.append(number)
    return _from_records(records, path.name, lines)


def _from_records(records: list[dict[str, Any]], name: str, lines: list[int] | None = None) -> Table:
    names = list(dict.fromkeys(key for record in records for key in record))
    columns = {key: [_blank_as_none(record.get(key)) for record in records] for key in names}
    return Table(columns, name, len(records), lines)


def _blank_as_none(cell: Any) -> Any:
    return None if isinstance(cell, str) and not cell.strip() else cell


def _read_json(path: Path) -> Table:
    content = load_json(path)
    match content:
        case {"images": [*pictures], "annotations": [*annotations]}:
            return _from_coco(pictures, annotations, content.get("categories") or [], path)
        case {"images": [*pictures]}:
            return _from_karpathy(pictures, path)
        case [*records] if records and all(isinstance(record, dict) for record in records):
            return _from_records(records, path.name)
        case dict() if content and all(isinstance(own, str | list) for own in content.values()):
            # {"1.jpg": "a dog"} or {"1.jpg": ["a dog", "it barks"]}
            return Table({"image": list(content), "caption": list(content.values())}, path.name, len(content))
    raise ValueError(
        f"{path}: expected COCO ('images' and 'annotations'), Karpathy ('images' with 'sentences'), a list of objects, "
        f"one a picture, or an object from pictures to captions; got {content!s:.80}"
    )


def _from_coco(pictures: list[Any], annotations: list[Any], categories: list[Any], path: Path) -> Table:
    """Gather the captions, and the kinds of objects, that annotations give each picture."""
    try:
        own: dict[Any, dict[str, list[str]]] = {picture["id"]: {"caption": [], "label": []} for picture in pictures}
        names = {category["id"]: str(category["name"]) for category in categories}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected an 'id' in each of the images, 'id' and 'name' in each category") from error
    roles = set()
    for number, annotation in enumerate(annotations):
        match annotation:
            case {"image_id": picture, "caption": str(text)} if picture in own:
                role = "caption"
            case {"image_id": picture, "category_id": category} if picture in own and category in names:
                role, text = "label", names[category]
            case _:
                raise ValueError(
                    f"{path}: expected the 'image_id' of one of the images, and a 'caption' or the 'category_id' of "
                    f"one of the categories, in annotation {number}, got {annotation!s:.80}"
                )
        roles.add(role)
        if text.strip():
            own[picture][role].append(text.strip())
    columns: dict[str, list[Any]] = {"image": [_file_of(picture, path) for picture in pictures]}
    for role in sorted(roles):
        columns[role] = [own[picture["id"]][role] for picture in pictures]
    known = ("id", "file_name", *roles)
    return Table(columns | _other_fields(pictures, known), path.name, len(pictures))


def _from_karpathy(pictures: list[Any], path: Path) -> Table:
    captions = []
    for number, picture in enumerate(pictures):
        match picture:
            case {"sentences": [*sentences]} if all(
                isinstance(sentence, Mapping) and isinstance(sentence.get("raw"), str) for sentence in sentences
            ):
                captions.append([sentence["raw"].strip() for sentence in sentences if sentence["raw"].strip()])
            case _:
                raise ValueError(
                    f"{path}: expected 'sentences' with their 'raw' text in entry {number}, got {picture!s:.80}"
                )
    columns: dict[str, list[Any]] = {
        "image": [_file_of(picture, path) for picture in pictures],
        "caption": captions,
    }
    known = ("filename", "filepath", "sentences", "sentids")
    return Table(columns | _other_fields(pictures, known), path.name, len(pictures))


def _file_of(picture: Mapping[str, Any], path: Path) -> str:
    name = picture.get("file_name", picture.get("filename"))
    if not isinstance(name, str):
        raise ValueError(f"{path}: expected a 'file_name' or a 'filename' in each of the images, got {picture!s:.80}")
    return Path(str(picture.get("filepath") or ""), name).as_posix()


def _other_fields(pictures: list[Any], known: Iterable[str]) -> dict[str, list[Any]]:
    names = dict.fromkeys(key for picture in pictures for key in picture)
    return {name: [picture.get(name) for picture in pictures] for name in names if name not in {*known, "image"}}


# Parquet ----------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(f"{path.name} is Parquet, which pyarrow reads: pip install pyarrow") from error
    frame = parquet.read_table(path)
    columns = {name: _without_missing(frame[name].to_pylist()) for name in frame.column_names}
    return Table(columns, path.name, frame.num_rows)
