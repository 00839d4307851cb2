"""Codecs of numpy's, scipy's and torch's values: numbers become tensors, strings JSON."""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sklearn_mm.persistence._codec import EXPANSION, Codec, Reader, Writer, join
from sklearn_mm.persistence._values import decode_items, encode_items

__all__ = ["ARRAY_CODECS"]

_BIT_GENERATORS = {
    cls.__name__: cls for cls in (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.SFC64)
}
_COMPRESSED = {f"{kind}_{form}" for kind in ("csr", "csc", "bsr") for form in ("matrix", "array")}
_BY_ROW = {"lil_matrix", "lil_array"}
_DIAGONAL = {"dia_matrix", "dia_array"}
_SPARSE = (
    _COMPRESSED | _BY_ROW | _DIAGONAL | {f"{kind}_{form}" for kind in ("coo", "dok") for form in ("matrix", "array")}
)
# of lists and dicts of Python, in memory: two empty lists and their places, and an entry of a dict with its key
_LIL_ROW_BYTES, _DOK_ENTRY_BYTES = 128, 256
_TORCH_DTYPES = {
    str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)
}
_AS_BYTES = "cmMSU"  # kinds of dtypes (beside complex64) that are kept as bytes; of U what JSON would make too small
_LAST_CHARACTER = 0x10FFFF  # of Unicode


# Dense arrays ---------------------------------------------------------------------------------------------------


def _encode_array(array: np.ndarray, writer: Writer, where: str) -> dict[str, Any]:
    if array.dtype.kind == "O":
        return {"objects": encode_items(array.ravel().tolist(), writer, where), "shape": list(array.shape)}
    if array.dtype.kind == "U":
        strings = array.ravel().tolist()
        # Each is as wide as the longest in memory, but not as text: of a file that is small beside what it stands for,
        # `load` could not tell whether it was made to fill the memory.
        if array.nbytes <= EXPANSION * (sum(map(len, strings)) + 3 * len(strings)):
            return {"strings": strings, "shape": list(array.shape), "dtype": array.dtype.str}
    # Tensors of a file are in C order and of the machine's byte order: of an array by columns the transpose is stored,
    # and the order beside it.
    by_column = array.flags.f_contiguous and not array.flags.c_contiguous
    array = np.asarray(array.T if by_column else array, dtype=array.dtype.newbyteorder("="), order="C")
    # torch.from_numpy warns of an array that cannot be written to, such as a memory map of joblib.
    if not array.flags.writeable:
        array = array.copy()
    order = {"order": "F"} if by_column else {}
    # Not longdouble, and not complex128: torch lacks the one, safetensors the other.
    if (array.dtype.kind in "biuf" and array.dtype.itemsize <= 8) or array.dtype == np.complex64:
        return {"tensor": writer.add_tensor(torch.from_numpy(array), where), **order}
    if array.dtype.kind in _AS_BYTES:
        name = writer.add_tensor(torch.from_numpy(array.reshape(-1).view(np.uint8)), where)
        return {"bytes": name, "shape": list(array.shape), "dtype": array.dtype.str, **order}
    raise TypeError(f"{where} is an array of dtype {array.dtype}, which the format does not hold")


def _decode_array(node: dict[str, Any], reader: Reader, where: str) -> np.ndarray:
    if "objects" in node:
        items = decode_items(node["objects"], reader, where)
        objects = np.empty(len(items), dtype=object)
        # Not np.array(items): lists of one length would become a matrix.
        objects[:] = items
        return objects.reshape(node["shape"])
    if "strings" in node:
        return _typed(node, "U", _decode_strings(node["strings"], np.dtype(node["dtype"]), reader))
    if "bytes" in node:
        raw = reader.tensor(node["bytes"]).numpy()
        flat = _typed(node, _AS_BYTES, raw.view(node["dtype"]))
        # numpy would raise much later, wherever such a string is looked at.
        if flat.dtype.kind == "U" and raw.view(np.uint32).max(initial=0) > _LAST_CHARACTER:
            raise ValueError("a character is out of range")
        return _in_order(node, flat)
    return _in_order(node, reader.tensor(node["tensor"]).numpy())


def _decode_strings(strings: Any, dtype: np.dtype[Any], reader: Reader) -> np.ndarray:
    if dtype.kind != "U":
        raise ValueError(f"dtype {dtype.str!r} is not allowed here")
    if not isinstance(strings, list) or not all(type(string) is str for string in strings):
        raise ValueError("expected a list of strings")
    # The width is a number in the file, and no width stands for that of the longest: both may be far above what is
    # there.
    width = max(dtype.itemsize, 4 * max(map(len, strings), default=0))
    reader.reserve(len(strings) * width)
    return np.array(strings, dtype=dtype)


def _typed(node: dict[str, Any], kinds: str, flat: np.ndarray) -> np.ndarray:
    # The dtype comes from the file: as objects, bytes of a stranger would be taken for addresses.
    if flat.dtype.kind not in kinds:
        raise ValueError(f"dtype {node['dtype']!r} is not allowed here")
    return flat.reshape(node["shape"])


def _in_order(node: dict[str, Any], array: np.ndarray) -> np.ndarray:
    return array.T if node.get("order") == "F" else array


# Sparse arrays --------------------------------------------------------------------------------------------------


def _encode_sparse(matrix: Any, writer: Writer, where: str) -> dict[str, Any]:
    name = type(matrix).__name__
    node: dict[str, Any] = {"class": name, "shape": list(matrix.shape)}
    if name in _COMPRESSED or name in _BY_ROW:
        # Lists by row hold Python's numbers; this form says the same in arrays.
        matrix = matrix.tocsr() if name in _BY_ROW else matrix
        parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
    elif name in _DIAGONAL:
        parts = {"data": matrix.data, "offsets": matrix.offsets}
    else:
        # A dict of keys too: coordinates say it in numbers alone.
        matrix = matrix.tocoo()
        parts = {"data": matrix.data, **{f"axis {axis}": index for axis, index in enumerate(matrix.coords)}}
    return {**node, **{part: _encode_array(array, writer, join(where, part)) for part, array in parts.items()}}


def _decode_sparse(node: dict[str, Any], reader: Reader, where: str) -> Any:
    if node["class"] not in _SPARSE:
        raise ValueError(f"{node['class']!r} is no sparse matrix of scipy")
    cls, shape = getattr(sparse, node["class"]), tuple(node["shape"])
    parts = {part: _decode_array(node[part], reader, where) for part in node if part not in ("class", "shape")}
    # Also of what is not copied: the same tensors may stand in any number of matrices.
    reader.reserve(sum(part.nbytes for part in parts.values()))
    data = parts["data"]
    if "indptr" in parts:
        # Of rows of lists as well, which take far more memory than this: not before it is known how many there are.
        whole = (sparse.csr_array if node["class"] in _BY_ROW else cls)(
            (data, parts["indices"], parts["indptr"]), shape=shape
        )
        whole.check_format(full_check=True)  # an index out of range would be read by compiled code
        return _from_rows(cls, whole, reader) if node["class"] in _BY_ROW else whole
    if "offsets" in parts:
        offsets = parts["offsets"]
        if np.any(offsets <= -shape[0]) or np.any(offsets >= shape[1]):
            raise ValueError(f"a diagonal is out of the shape {shape}")  # compiled code would look there
        return cls((data, offsets), shape=shape)
    coords = tuple(parts[f"axis {axis}"] for axis in range(len(shape)))
    whole = sparse.coo_array((data, coords), shape=shape)
    if node["class"] in _BY_ROW:  # from here on, as folders of before held them
        return _from_rows(cls, whole, reader)
    if node["class"] in _DIAGONAL:
        diagonals = np.unique(whole.col.astype(np.int64) - whole.row)
        reader.reserve(len(diagonals) * (int(whole.col.max(initial=-1)) + 1) * data.itemsize)
    elif node["class"].startswith("dok"):
        reader.reserve(whole.nnz * _DOK_ENTRY_BYTES)
    return cls(whole)


def _from_rows(cls: Any, whole: Any, reader: Reader) -> Any:
    reader.reserve(_LIL_ROW_BYTES * whole.shape[0])
    return cls(whole)


# Torch ----------------------------------------------------------------------------------------------------------


def _encode_tensor(tensor: Tensor, writer: Writer, where: str) -> str:
    # What safetensors does not hold is refused while saving, with its place.
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.dtype == torch.complex128:
        raise TypeError(f"{where} is a {tensor.layout} tensor of {tensor.dtype}, which the format does not hold")
    return writer.add_tensor(tensor, where)


# Scalars, dtypes, random states ---------------------------------------------------------------------------------


def _encode_scalar(value: np.generic, writer: Writer, where: str) -> dict[str, Any]:
    return {"dtype": value.dtype.str, "value": writer.encode(value.item(), where)}


def _decode_scalar(node: dict[str, Any], reader: Reader, where: str) -> np.generic:
    dtype = np.dtype(node["dtype"])
    if dtype.kind not in "biufcUS":
        raise ValueError(f"dtype {node['dtype']!r} is not allowed here")
    return dtype.type(reader.decode(node["value"], where))


def _decode_dtype(node: str) -> np.dtype[Any]:
    dtype = np.dtype(node)
    if dtype.str != node:
        raise ValueError(f"{node!r} is no plain dtype")
    return dtype


def _encode_bit_generator(random: Any, writer: Writer, where: str) -> Any:
    state = random.get_state(legacy=False) if isinstance(random, np.random.RandomState) else random.bit_generator.state
    if state["bit_generator"] not in _BIT_GENERATORS:
        raise TypeError(f"{where} draws from {state['bit_generator']}, which the format does not hold")
    return writer.encode(state, where)


def _decode_bit_generator(node: Any, reader: Reader, where: str) -> tuple[Any, dict[str, Any]]:
    state = reader.decode(node, where)
    generator = _BIT_GENERATORS[state["bit_generator"]](0)
    if not 0 <= state["state"].get("pos", 0) <= 624:
        raise ValueError("the position in the state is out of range")  # numpy would read beyond it
    return generator, state


def _decode_random_state(node: Any, reader: Reader, where: str) -> np.random.RandomState:
    generator, state = _decode_bit_generator(node, reader, where)
    random = np.random.RandomState(generator)
    random.set_state(state)
    return random


def _decode_generator(node: Any, reader: Reader, where: str) -> np.random.Generator:
    generator, state = _decode_bit_generator(node, reader, where)
    generator.state = state
    return np.random.Generator(generator)


ARRAY_CODECS = (
    # By type and not isinstance: an array of another class (a matrix, a masked one) would come back as a plain one.
    Codec("$array", lambda value: type(value) in (np.ndarray, np.memmap), _encode_array, _decode_array),
    Codec(
        "$sparse",
        lambda value: sparse.issparse(value) and type(value).__name__ in _SPARSE,
        _encode_sparse,
        _decode_sparse,
    ),
    Codec(
        "$tensor",
        lambda value: type(value) is Tensor,
        _encode_tensor,
        lambda node, reader, where: reader.tensor(node),
    ),
    Codec(
        "$scalar",
        lambda value: (
            isinstance(value, np.generic)
            and value.dtype.kind in "biufcUS"
            and value.dtype.itemsize <= 16
            and not isinstance(value, np.longdouble)
        ),
        _encode_scalar,
        _decode_scalar,
    ),
    Codec(
        "$dtype",
        lambda value: isinstance(value, np.dtype) and value.names is None,
        lambda value, writer, where: value.str,
        lambda node, reader, where: _decode_dtype(node),
    ),
    Codec(
        "$numpy_type",
        lambda value: isinstance(value, type) and issubclass(value, np.generic) and value is np.dtype(value).type,
        lambda value, writer, where: np.dtype(value).str,
        lambda node, reader, where: _decode_dtype(node).type,
    ),
    Codec(
        "$random_state",
        lambda value: type(value) is np.random.RandomState,
        _encode_bit_generator,
        _decode_random_state,
    ),
    Codec(
        "$generator",
        lambda value: type(value) is np.random.Generator,
        _encode_bit_generator,
        _decode_generator,
    ),
    Codec(
        "$device",
        lambda value: isinstance(value, torch.device),
        lambda value, writer, where: str(value),
        lambda node, reader, where: torch.device(node),
    ),
    Codec(
        "$torch_dtype",
        lambda value: isinstance(value, torch.dtype),
        lambda value, writer, where: str(value).removeprefix("torch."),
        lambda node, reader, where: _TORCH_DTYPES[node],
    ),
)
