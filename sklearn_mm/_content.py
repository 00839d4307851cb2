"""What values hold, digested alike in every process: values of equal content have equal digests.

Not by pickles: these tell whether an object is shared, how an array lies in memory, and what is a private matter of the
object's library.
"""

import copyreg
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from sklearn_mm.registry import FORMAT_KEY

__all__ = [
    "NO_MATTER",
    "FilesIn",
    "UndigestibleError",
    "attributes_digest",
    "content_digest",
    "named_files",
    "weights_digest",
]

_N_DIGITS = 32
_TORCHS_OWN = frozenset(vars(nn.Module()))  # attributes that every module has
_OF_MODULES = ("_modules", "_parameters", "_buffers")
# of states: who saved them, an address that scikit-learn's vectorizers keep, and what the last call could not read
_NO_CONTENT = frozenset(
    {FORMAT_KEY, "_sklearn_mm_version", "_torch_version", "_sklearn_version", "_stop_words_id", "errors_"}
)
NO_MATTER = frozenset(
    {"cache", "checkpoint", "device", "memory", "n_jobs", "pre_dispatch", "store_covariance", "verbose"}
)
"""Parameters of estimators that say where or how something is computed or what is kept of it, and not what it is."""


class UndigestibleError(TypeError):
    """A value whose content cannot be told; the message names its place."""


@dataclass(frozen=True)
class FilesIn:
    """Marks a value whose strings may name files: these count by what they hold, wherever they are."""

    value: Any


def content_digest(*values: Any) -> str:
    """Digest values of any kind: 32 hexadecimal digits.

    Numbers, texts, containers, arrays (whatever their order in memory), sparse matrices (whatever zeros they store),
    tensors, networks, data frames, functions, estimators, and other objects by what they would give to a pickle.
    A path, and a string among the parameters of an estimator, counts by the content of the file that it names, if it
    names one. Sets and mappings have no order. Of estimators counts neither by whom and where they compute, nor
    which version they are of.

    Raises
    ------
    UndigestibleError
        A value holds what cannot be looked into, such as a lock or an open file.
    """
    walk = _Walk()
    for value in values:
        walk.take(value)
    return walk.hexdigest()


def attributes_digest(module: nn.Module) -> str:
    """Digest all of a network that decides on its answer and is not in its state dict.

    Raises
    ------
    UndigestibleError
        An attribute holds what cannot be looked into.
    """
    walk = _Walk(with_weights=False)
    walk.take(module)
    return walk.hexdigest()


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Digest the entries of a state dict, whatever their order: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bytes_of(value))
    return digest.hexdigest()


class _Walk:
    """Feeds values into a hash, each with its kind and its length, so that no two read as another pair."""

    def __init__(self, *, with_weights: bool = True, files: bool = False, within: tuple[int, ...] = ()) -> None:
        self._hash = hashlib.sha256()  # for which processors have instructions, as for no other
        self._with_weights = with_weights
        self._files = files
        self._within = list(within)  # what is being walked, from the outermost on

    def hexdigest(self) -> str:
        return self._hash.hexdigest()[:_N_DIGITS]

    def take(self, value: Any) -> None:
        """Take in a value."""
        simple = _SIMPLE.get(type(value))
        if simple is not None:
            self._take_simple(simple, value)
            return
        if id(value) in self._within:
            self._note("loop", str(len(self._within) - self._within.index(id(value))).encode())
            return
        self._within.append(id(value))
        try:
            self._take_object(value)
        finally:
            self._within.pop()

    def _note(self, kind: str, content: bytes | memoryview = b"") -> None:
        self._hash.update(f"{kind} {len(content)} ".encode())
        self._hash.update(content)

    def _take_simple(self, kind: str, value: Any) -> None:
        if kind == "str":
            if not (self._files and self._take_file(value)):
                self._note(kind, value.encode("utf-8", "surrogatepass"))
        elif kind == "bytes":
            # of a picture: the bytes of a file are the file
            self._note(*(("file", hashlib.sha256(value).digest()) if self._files else (kind, bytes(value))))
        else:
            self._note(kind, repr(value).encode())

    def _take_file(self, path: str | os.PathLike[str]) -> bool:
        """Take in the content of a file; False, if this is the path of none."""
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  a pipe would be waited for
                return False
            with open(path, "rb") as file:  # noqa: PTH123
                self._note("file", hashlib.file_digest(file, "sha256").digest())
        except (OSError, ValueError):  # ValueError: a NUL in it. Whoever reads it says what is wrong with it.
            return False
        return True

    def _take_object(self, value: Any) -> None:
        for kinds, take in _KINDS:
            if isinstance(value, kinds):
                take(self, value)
                return
        if sparse.issparse(value) and value.ndim == 2:
            self._take_sparse(value)
        elif hasattr(value, "iloc"):
            self._take_frame(value)
        else:
            self._take_reduced(value)

    def _take_all(self, kind: str, items: Iterable[Any]) -> None:
        items = list(items)
        self._note(kind, str(len(items)).encode())
        for item in items:
            self.take(item)

    def _take_unordered(self, kind: str, items: Iterable[Any]) -> None:
        digests = []
        for item in items:
            walk = _Walk(with_weights=self._with_weights, files=self._files, within=tuple(self._within))
            walk.take(item)
            digests.append(walk._hash.digest())
        self._note(kind, b"".join(sorted(digests)))

    def _take_named(self, kind: str, items: Mapping[str, Any]) -> None:
        """Take in attributes, in the order of their names; an error says in which it arose."""
        self._note(kind, str(len(items)).encode())
        for name in sorted(items):
            self._note("name", name.encode())
            try:
                self.take(items[name])
            except UndigestibleError as error:
                raise UndigestibleError(f"{name}: {error}") from error

    def _take_scalar(self, scalar: np.generic) -> None:
        plain = scalar.item()
        self.take(np.asarray(scalar) if type(plain) not in _SIMPLE else plain)

    def _take_array(self, array: np.ndarray) -> None:
        if type(array) not in (np.ndarray, np.memmap) or array.dtype.names is not None:
            self._take_reduced(array)
        elif array.dtype.kind in "OUT":  # the width of strings is none of their content
            self._note("cells", str(array.shape).encode())
            self._take_all("items", array.ravel().tolist())
        else:
            self._note("array", f"{array.dtype.newbyteorder('<').str} {array.shape}".encode())
            flat = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(-1)
            self._hash.update(flat.view(np.uint8).data)

    def _take_sparse(self, matrix: Any) -> None:
        rows = matrix.tocsr(copy=True)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        self._note("sparse", str(rows.shape).encode())
        for part in (rows.indptr.astype(np.int64), rows.indices.astype(np.int64), rows.data):
            self._take_array(part)

    def _take_tensor(self, tensor: Tensor) -> None:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            self._take_reduced(tensor)
            return
        # requires_grad with them: a frozen layer and one that learns are different runs from the same weights
        self._note("tensor", f"{tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}".encode())
        self._hash.update(_bytes_of(tensor))

    def _take_module(self, module: nn.Module) -> None:
        self._note("module", _name_of(type(module)).encode())
        own = vars(module)
        self._take_named("attributes", {name: value for name, value in own.items() if name not in _TORCHS_OWN})
        unsaved = own.get("_non_persistent_buffers_set", set())
        for kind in _OF_MODULES:  # in their order: that of a sequence is its content
            parts = own.get(kind, {})
            if kind != "_modules" and not self._with_weights:
                parts = {name: part for name, part in parts.items() if name in unsaved}
            for name, part in parts.items():
                self._note(kind, name.encode())
                try:
                    self.take(part)
                except UndigestibleError as error:
                    raise UndigestibleError(f"{name}.{error}") from error
        # numbered through the process: only the hooks themselves count
        hooks = [hook for name in sorted(own) if name.endswith("_hooks") and own[name] for hook in own[name].values()]
        self._take_all("hooks", hooks)

    def _take_estimator(self, estimator: BaseEstimator) -> None:
        self._note("estimator", _name_of(type(estimator)).encode())
        state = estimator.__getstate__()
        decisive = {name: value for name, value in state.items() if name not in NO_MATTER | _NO_CONTENT}
        params = set(estimator.get_params(deep=False))
        self._take_named(
            "state", {name: named_files(value) if name in params else value for name, value in decisive.items()}
        )

    def _take_frame(self, frame: Any) -> None:
        if frame.ndim == 1:
            self._take_array(frame.to_numpy())
            return
        self._take_all("columns", map(str, frame.columns))
        for column in range(frame.shape[1]):
            self._take_array(frame.iloc[:, column].to_numpy())

    def _take_files_in(self, marked: FilesIn) -> None:
        before, self._files = self._files, True
        try:
            self.take(marked.value)
        finally:
            self._files = before

    def _take_path(self, path: PurePath) -> None:
        if not self._take_file(path):
            self._note("str", path.as_posix().encode("utf-8", "surrogatepass"))

    def _take_function(self, function: Any) -> None:
        self._note("function", _name_of(function).encode())
        # What another process finds under this name is the same; a function that was made here may be any.
        if "<" in function.__qualname__ or function.__module__ == "__main__":
            self._take_code(function.__code__)
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            self._take_all("bound", [function.__defaults__, function.__kwdefaults__, *cells])

    def _take_code(self, code: CodeType) -> None:
        self._note("code", code.co_code)
        self._take_all("names", code.co_names)
        self._take_all("constants", code.co_consts)

    def _take_method(self, method: Any) -> None:
        self._note("method", _name_of(method).encode())
        if not isinstance(method.__self__, ModuleType | None):
            self.take(method.__self__)

    def _take_reduced(self, value: Any) -> None:
        try:
            # as pickle does: some types have their way in a table
            reduce = copyreg.dispatch_table.get(type(value))
            reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception as error:  # whatever its class raises: it cannot be looked into
            raise UndigestibleError(f"a {type(value).__name__} cannot be told by its content: {error}") from error
        if isinstance(reduced, str):
            self._note("global", f"{type(value).__module__} {reduced}".encode())
            return
        make, args, state, items, pairs = (*reduced, None, None, None)[:5]
        self._note("object", _name_of(make).encode())
        self.take(args)
        if isinstance(state, dict) and all(type(name) is str for name in state):
            self._take_named("state", {name: value for name, value in state.items() if name not in _NO_CONTENT})
        else:
            self.take(state)
        self._take_all("items", items or ())
        self._take_unordered("pairs", pairs or ())


def named_files(value: Any) -> Any:
    """Mark a parameter of an estimator that may name a file, or be a pair of which one does."""
    if isinstance(value, str | os.PathLike):
        return FilesIn(value)
    if isinstance(value, list | tuple):
        return [FilesIn(item) if isinstance(item, str | os.PathLike) else item for item in value]
    return value


def _name_of(value: Any) -> str:
    return f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', type(value).__qualname__)}"


def _bytes_of(tensor: Tensor) -> memoryview:
    # as bytes: numpy has no bfloat16; flat first, as a number alone cannot be viewed as bytes
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


_SIMPLE: dict[type, str] = {
    type(None): "none",
    bool: "bool",
    int: "int",
    float: "float",
    complex: "complex",
    str: "str",
    bytes: "bytes",
    bytearray: "bytes",
    type(Ellipsis): "ellipsis",
}
_KINDS: tuple[tuple[Any, Callable[[_Walk, Any], None]], ...] = (
    (FilesIn, _Walk._take_files_in),
    (np.generic, _Walk._take_scalar),
    (np.ndarray, _Walk._take_array),
    (Tensor, _Walk._take_tensor),
    (nn.Module, _Walk._take_module),
    (BaseEstimator, _Walk._take_estimator),
    (list | tuple, lambda walk, value: walk._take_all("sequence", value)),
    (dict, lambda walk, value: walk._take_unordered("mapping", value.items())),
    (set | frozenset, lambda walk, value: walk._take_unordered("set", value)),
    (PurePath, _Walk._take_path),
    ((type, ModuleType), lambda walk, value: walk._note("class", f"{_name_of(value)} {value.__name__}".encode())),
    (FunctionType, _Walk._take_function),
    ((MethodType, BuiltinFunctionType), _Walk._take_method),
    (CodeType, _Walk._take_code),
    (partial, lambda walk, value: walk._take_all("partial", (value.func, value.args, value.keywords))),
    (str, lambda walk, value: walk._take_simple("str", str(value))),
)
