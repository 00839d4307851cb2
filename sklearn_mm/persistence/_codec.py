"""How values become JSON and tensors, and come back: the walk, and the table of what it knows.

JSON's own values stand for themselves. Anything else is an object with one key, the tag of its codec.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sklearn_mm.registry import FORMAT_VERSION

__all__ = ["EXPANSION", "Codec", "MalformedError", "Reader", "ScriptCodeError", "Writer", "join"]

TAG = "$"
# What a value takes in memory is bounded by what its file holds: so many times its size (an empty row of lists takes 16
# times the number that stands for it, a short string up to 32 times its characters), and a little that every file has.
EXPANSION = 32
_FREE_BYTES = 2**24


@dataclass(frozen=True)
class Codec:
    """How values of one kind are written.

    Attributes
    ----------
    tag : str
        The key that marks them, beginning with "$".
    applies : callable
        Whether a value is of this kind.
    encode : callable
        From a value, the writer and the place to JSON.
    decode : callable
        From that JSON, the reader and the place to the value.
    """

    tag: str
    applies: Callable[[Any], bool]
    encode: Callable[[Any, "Writer", str], Any]
    decode: Callable[[Any, "Reader", str], Any]


class ScriptCodeError(TypeError):
    """What is to be saved needs the script that made it."""


class Writer:
    """Turns values into JSON, and collects their tensors.

    Parameters
    ----------
    codecs : sequence of Codec
        The first that applies is taken.

    Attributes
    ----------
    tensors : dict of str to Tensor
        On the CPU, contiguous, without memory in common.
    """

    def __init__(self, codecs: Sequence[Codec]) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._codecs = codecs
        self._open: set[int] = set()
        self._name_of: dict[tuple[Any, ...], str] = {}
        self._storages: set[int] = set()
        self._alive: list[Tensor] = []  # so that no address is given twice

    def encode(self, value: Any, where: str) -> Any:
        """Encode a value that stands at a place like "model.steps.0.1.mean_".

        Raises
        ------
        TypeError
            It is code, of an unknown class, or refers to itself; the message names the place.
        """
        # By type and not isinstance: np.float64 is a float, and would come back as a plain one.
        if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
            return value
        # The way down to here, not all that was seen: an object may stand in two places, but not in itself.
        if id(value) in self._open:
            raise TypeError(f"{where} refers to itself")
        self._open.add(id(value))
        try:
            if type(value) is list:
                return [self.encode(item, join(where, row)) for row, item in enumerate(value)]
            # JSON turns keys of other types into str without a word; a key that begins as a tag would be taken for one.
            if type(value) is dict and all(type(key) is str and not key.startswith(TAG) for key in value):
                return {key: self.encode(item, join(where, key)) for key, item in value.items()}
            for codec in self._codecs:
                if codec.applies(value):
                    return {codec.tag: codec.encode(value, self, where)}
        finally:
            self._open.remove(id(value))
        name = getattr(value, "__name__", type(value).__name__)
        if callable(value) and getattr(value, "__module__", None) == "__main__":
            raise ScriptCodeError(
                f"{where} ({name}) is a function or class of the script that runs (__main__), which no other process "
                "finds; put it into a module that can be imported, and that goes along with the model"
            )
        kind = "code" if callable(value) else f"of class {type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(f"{where} ({name}) is {kind}, which the format does not hold")

    def add_tensor(self, tensor: Tensor, where: str) -> str:
        """Keep a tensor, and return its name; the same memory seen again has the name it got first."""
        tensor = tensor.detach().cpu()
        key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        # Empty tensors all have the address 0.
        if tensor.numel() and key in self._name_of:
            return self._name_of[key]
        while where in self.tensors:
            where += "'"  # a key with a dot reads like a place below
        kept = tensor.contiguous()
        storages = {each.untyped_storage().data_ptr() for each in (tensor, kept)}
        # safetensors refuses tensors with memory in common: a view of what is kept already is stored apart.
        self.tensors[where] = kept.clone() if storages & self._storages else kept
        self._storages |= storages
        self._alive.append(tensor)
        self._name_of[key] = where
        return where


class Reader:
    """Turns JSON and tensors back into values.

    Parameters
    ----------
    codecs : sequence of Codec
    tensors : mapping of str to Tensor
    format_version : int
        Of the folder.
    file_bytes : int
        Size of its files, which bounds what is made of them.

    Attributes
    ----------
    format_version : int
    """

    def __init__(
        self,
        codecs: Sequence[Codec],
        tensors: Mapping[str, Tensor],
        format_version: int = FORMAT_VERSION,
        file_bytes: int = 0,
    ) -> None:
        self.format_version = format_version
        self._allowance = _FREE_BYTES + EXPANSION * file_bytes
        self._tensors = tensors
        self._codec_of = {codec.tag: codec for codec in codecs}
        self._used: set[str] = set()

    def decode(self, node: Any, where: str) -> Any:
        """Decode what was encoded at a place.

        Raises
        ------
        ValueError
            It is malformed, or names what is not allowed; the message names the place.
        """
        if isinstance(node, list):
            return [self.decode(item, join(where, row)) for row, item in enumerate(node)]
        if not isinstance(node, dict):
            return node
        tag = next((key for key in node if key.startswith(TAG)), None)
        if tag is None:
            return {key: self.decode(item, join(where, key)) for key, item in node.items()}
        if tag not in self._codec_of or len(node) > 1:
            raise MalformedError(f"{where}: unknown entry {tag!r}")
        try:
            return self._codec_of[tag].decode(node[tag], self, where)
        except (MalformedError, RecursionError):
            raise
        # Whatever a malformed entry makes a constructor raise is told with the place of the entry, innermost first.
        except (
            ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError
        ) as error:  # fmt: skip
            raise MalformedError(f"{where}: malformed entry {tag!r}: {error}") from error

    def tensor(self, name: str) -> Tensor:
        """Return the tensor of a name."""
        if not isinstance(name, str) or name not in self._tensors:
            raise ValueError(f"the tensor {name!r} is missing")
        self._used.add(name)
        return self._tensors[name]

    def reserve(self, n_bytes: int) -> None:
        """Account for memory that a value takes beside the tensors of the file, before it is taken.

        Raises
        ------
        ValueError
            A file of this size does not account for so much.
        """
        self._allowance -= n_bytes
        if self._allowance < 0:
            raise ValueError(f"it asks for {n_bytes} bytes of memory, which the size of its file does not account for")

    @property
    def unused(self) -> list[str]:
        """Names of tensors that nothing asked for."""
        return sorted(set(self._tensors) - self._used)


class MalformedError(ValueError):
    """An entry of a saved model that cannot be read; the message names its place."""


def join(where: str, part: str | int) -> str:
    """Return the place of a part."""
    return f"{where}.{part}"
