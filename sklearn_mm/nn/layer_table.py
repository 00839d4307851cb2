"""What can be read of a network, and which of it a user's choice of layers means."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

from sklearn_mm.nn.pooling import POOLINGS, pooled_name

__all__ = ["LAST", "Column", "LayerTable", "Readable", "behind"]

# No module has a name with two dots.
_POST = "..post"
LAST = "..last"  # what the class layer is given


def behind(layer: str) -> str:
    """Return the name under which a layer is read behind its activation function, where it is read before it too."""
    return layer + _POST


class Column(NamedTuple):
    """A part of what is read in one place of a network.

    Attributes
    ----------
    tap : str
        A module; `behind` it; or `LAST`.
    part : {"class", "mean", "max"}
    """

    tap: str
    part: str


@dataclass(frozen=True)
class Readable:
    """What can be read of a layer.

    Attributes
    ----------
    width : int
    parts : sequence of {"class", "mean", "max"}
        No "max" of what has no positions.
    has_post : bool
        Whether an activation function is directly behind it.
    """

    width: int
    parts: Sequence[str]
    has_post: bool = False

    def read_by(self, pooling: str) -> list[str]:
        """Return the parts that a way of pooling reads."""
        ways = POOLINGS[pooling] if "max" in self.parts else ("mean",)
        return [part for part in self.parts if part == "class" or part in ways]


@dataclass(frozen=True)
class LayerTable:
    """What can be read of a network, as its first batch has shown.

    Attributes
    ----------
    auto : sequence of str
        What "auto" reads, in the order in which it runs.
    matched : sequence of str
        What regular expressions are compared with.
    readable : mapping of str to Readable
        By module.
    last : Readable or None
        What the class layer is given.
    """

    auto: Sequence[str]
    matched: Sequence[str]
    readable: Mapping[str, Readable]
    last: Readable | None = None

    def chosen(self, layers: str | int | Sequence[str]) -> list[str] | None:
        """Return the modules that are meant, in their order; None for those that it knows nothing of, or none."""
        if not isinstance(layers, str | int):
            return list(layers) if set(layers) <= self.readable.keys() else None
        if isinstance(layers, int):
            return list(self.auto[-layers:]) if layers <= len(self.auto) else None
        if layers == "auto":
            return list(self.auto) or None
        try:
            return [name for name in self.matched if re.fullmatch(layers, name)] or None
        except re.error:
            return None

    def columns(
        self, layers: str | int | Sequence[str], activation: str, pooling: str
    ) -> list[tuple[Column, str, int]] | None:
        """Return what a choice of layers reads: the column, what it is called in `layers_`, its width.

        None where the table does not tell, or where the choice is an error, of which a `TapReader` tells.
        """
        if isinstance(layers, str) and layers == "last":
            if self.last is None or (pooling != "mean" and "max" not in self.last.parts):
                return None
            return [
                (Column(LAST, part), pooled_name("last", part), self.last.width) for part in self.last.read_by(pooling)
            ]
        chosen = self.chosen(layers)
        if chosen is None:
            return None
        columns = []
        for name in chosen:
            layer = self.readable[name]
            tap = behind(name) if activation == "post" and layer.has_post else name
            columns += [(Column(tap, part), pooled_name(name, part), layer.width) for part in layer.read_by(pooling)]
        return columns

    def merged(self, other: Self) -> Self:
        """Return what either knows of the modules."""
        return replace(self, readable={**other.readable, **self.readable}, last=self.last or other.last)

    def to_json(self) -> dict[str, Any]:
        """Return it as what can be written as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return what `to_json` was called on."""
        readable = {name: Readable(**layer) for name, layer in content["readable"].items()}
        last = content["last"] and Readable(**content["last"])
        return cls(tuple(content["auto"]), tuple(content["matched"]), readable, last)
