"""Codecs of numpy's, scipy's and torch's values: numbers become tensors, strings JSON."""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sklearn_mm.persistence._codec import Codec, Reader, Writer, join
from sklearn_mm.persistence._values import decode_items, encode_items

__all__ = ["ARRAY_CODECS"]

_BIT_GENERATORS = {
    cls.__name__: cls for cls in (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.SFC64)
}
_COMPRESSED = {f"{kind}_{form}" for kind in ("csr", "csc", "bsr") for form in ("matrix", "array")}
_SPARSE = _COMPRESSED | {f"{kind}_{form}" for kind in ("coo", "dia", "dok", "lil") for form in ("matrix", "array")}
_TORCH_DTYPES = {
    str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)
}
_AS_BYTES = "cmMS"  # kinds of dtypes (beside complex64) that are kept as bytes


# Dense arrays ---------------------------------------------------------------------------------------------------


def _encode_array(array: np.ndarray, writer: Writer, where: str) -> dict[str, Any]:
    if array.dtype.kind == "O":
        return {"objects": encode_items(array.ravel().tolist(), writer, where), "shape": list(array.shape)}
    if array.dtype.kind == "U":
        return {"strings": array.ravel().tolist(), "shape": list(array.shape), "dtype": array.dtype.str}
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
        return _typed(node, "U", np.array(node["strings"], dtype=node["dtype"]))
    if "bytes" in node:
        raw = reader.tensor(node["bytes"]).numpy()
        return _in_order(node, _typed(node, _AS_BYTES, raw.view(node["dtype"])))
    return _in_order(node, reader.tensor(node["tensor"]).numpy())


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
    if name in _COMPRESSED:
        parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
    else:
        # The other forms hold lists and dicts, which coordinates say in numbers alone.
        matrix = matrix.tocoo()
        parts = {"data": matrix.data, **{f"axis {axis}": index for axis, index in enumerate(matrix.coords)}}
    return {**node, **{part: _encode_array(array, writer, join(where, part)) for part, array in parts.items()}}


def _decode_sparse(node: dict[str, Any], reader: Reader, where: str) -> Any:
    if node["class"] not in _SPARSE:
        raise ValueError(f"{node['class']!r} is no sparse matrix of scipy")
    cls, shape = getattr(sparse, node["class"]), tuple(node["shape"])
    data = _decode_array(node["data"], reader, where)
    if node["class"] in _COMPRESSED:
        indices, indptr = (_decode_array(node[part], reader, where) for part in ("indices", "indptr"))
        matrix = cls((data, indices, indptr), shape=shape)
        matrix.check_format(full_check=True)  # an index out of range would be read by compiled code
        return matrix
    coords = tuple(_decode_array(node[f"axis {axis}"], reader, where) for axis in range(len(shape)))
    return cls(sparse.coo_array((data, coords), shape=shape))


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
