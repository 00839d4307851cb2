"""Codecs of Python's own values that JSON does not know."""

import base64
import binascii
from pathlib import Path, PurePath
from typing import Any

from sklearn.utils import Bunch

from sklearn_mm.persistence._codec import Codec, Reader, Writer, join

__all__ = ["VALUE_CODECS", "decode_items", "encode_items"]

_BUILTIN_TYPES = {cls.__name__: cls for cls in (bool, bytes, complex, dict, float, int, list, object, set, str, tuple)}


def encode_items(value: Any, writer: Writer, where: str) -> list[Any]:
    """Encode the items of an iterable."""
    return [writer.encode(item, join(where, row)) for row, item in enumerate(value)]


def _sorted_items_of(value: Any, writer: Writer, where: str) -> list[Any]:
    # A set has another order in every process; sorted, equal models are equal files. By repr, as its items may not
    # compare.
    return encode_items(sorted(value, key=repr), writer, where)


def _pairs_of(value: dict[Any, Any], writer: Writer, where: str) -> list[Any]:
    return [
        [writer.encode(key, join(where, f"key {row}")), writer.encode(item, join(where, str(key)))]
        for row, (key, item) in enumerate(value.items())
    ]


def decode_items(node: Any, reader: Reader, where: str) -> list[Any]:
    """Decode a list of items."""
    if not isinstance(node, list):
        raise ValueError("expected a list")
    return [reader.decode(item, join(where, row)) for row, item in enumerate(node)]


def _decode_bytes(node: Any, reader: Reader, where: str) -> bytes:
    try:
        return base64.b64decode(node, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


VALUE_CODECS = (
    Codec(
        "$tuple",
        lambda value: type(value) is tuple,
        encode_items,
        lambda node, reader, where: tuple(decode_items(node, reader, where)),
    ),
    Codec(
        "$set",
        lambda value: type(value) is set,
        _sorted_items_of,
        lambda node, reader, where: set(decode_items(node, reader, where)),
    ),
    Codec(
        "$frozenset",
        lambda value: type(value) is frozenset,
        _sorted_items_of,
        lambda node, reader, where: frozenset(decode_items(node, reader, where)),
    ),
    Codec(
        "$dict",
        lambda value: type(value) is dict,
        _pairs_of,
        lambda node, reader, where: dict(decode_items(node, reader, where)),
    ),
    Codec(
        "$bunch",
        lambda value: type(value) is Bunch,
        lambda value, writer, where: writer.encode(dict(value), where),
        lambda node, reader, where: Bunch(**reader.decode(node, where)),
    ),
    Codec(
        "$float",
        lambda value: type(value) is float,
        lambda value, writer, where: str(value),
        lambda node, reader, where: {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}[node],
    ),
    Codec(
        "$complex",
        lambda value: type(value) is complex,
        lambda value, writer, where: str(value),
        lambda node, reader, where: complex(node),
    ),
    Codec(
        "$bytes",
        lambda value: type(value) is bytes,
        lambda value, writer, where: base64.b64encode(value).decode("ascii"),
        _decode_bytes,
    ),
    Codec(
        "$path",
        lambda value: isinstance(value, PurePath),
        lambda value, writer, where: value.as_posix(),  # which every system reads
        lambda node, reader, where: Path(node),
    ),
    Codec(
        "$slice",
        lambda value: type(value) is slice,
        lambda value, writer, where: encode_items((value.start, value.stop, value.step), writer, where),
        lambda node, reader, where: slice(*decode_items(node, reader, where)),
    ),
    Codec(
        "$range",
        lambda value: type(value) is range,
        lambda value, writer, where: [value.start, value.stop, value.step],
        lambda node, reader, where: range(*node),
    ),
    Codec(
        "$type",
        lambda value: isinstance(value, type) and value in _BUILTIN_TYPES.values(),
        lambda value, writer, where: value.__name__,
        lambda node, reader, where: _BUILTIN_TYPES[node],
    ),
)
