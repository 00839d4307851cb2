"""Who does the shards: this process, one after the other, or the workers of Ray."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

__all__ = ["ENGINES", "run"]

Done = TypeVar("Done")

ENGINES = ("local",)


def run(engine: str, work: Callable[[int], Done], numbers: Sequence[int]) -> Iterator[Done]:
    """Yield what the work makes of each number, in any order."""
    return map(work, numbers)
